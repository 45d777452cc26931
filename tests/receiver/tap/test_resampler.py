"""Other rates: the same time, other samples, and everything in its place."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest

from receiver.tap import query, resampler
from receiver.tap.encoding.format import Format, OutMessage, OutputSpec
from receiver.tap.resampler import Polyphase, Resampler
from tests.bounds import at_most
from tests.receiver.helpers.taps import audio_bytes, texts


def tone(count: int) -> bytes:
    """Return 20 ms pieces of 400 Hz at 8000 Hz."""
    return (9000 * np.sin(np.arange(count) * 2 * np.pi * 400 / 8000)).astype("<i2").tobytes()


async def test_a_tone_stays_a_tone() -> None:
    """At twice the rate it has twice the samples and the same pitch, and items follow on."""
    spec = OutputSpec(Format.PCM16, "inbound", 16000)
    changing = Resampler(8000, spec, start_ms=500)
    wave = tone(8000)
    items = [
        OutMessage(wave[n : n + 320], "inbound", 500 + n / 16, 20) for n in range(0, 16000, 320)
    ]
    made = [new for item in items for new in changing.convert([item])]
    made += changing.convert([OutMessage('{"event":"stopped"}')])
    samples = np.frombuffer(audio_bytes(made), "<i2")
    assert 16000 == len(samples)
    assert 400 == int(np.abs(np.fft.rfft(samples)).argmax())
    position = 500.0
    for item in made[:-1]:
        assert position == pytest.approx(item.timestamp_ms)
        position += item.duration_ms
    assert [{"event": "stopped"}] == texts(made)


async def test_stereo_silence_and_events_keep_their_order() -> None:
    """In a thread of its own, handed back to the event loop."""
    spec = OutputSpec(Format.PCM16, "stereo", 24000)
    changing = Resampler(8000, spec, start_ms=0)
    got: list[OutMessage] = []
    done = asyncio.Event()

    def on_done(items: list[OutMessage], last: bool) -> None:
        got.extend(items)
        if last:
            done.set()

    changing.submit(
        [OutMessage('{"event":"gap"}'), OutMessage(bytes(4), "stereo", 0, 3000, 24000)],
        last=False,
        done=on_done,
    )
    changing.submit([], last=False, done=on_done)
    changing.submit([OutMessage('{"event":"stopped"}')], last=True, done=on_done)
    await asyncio.wait_for(done.wait(), at_most(10))
    assert 3 * 24000 * 4 == len(audio_bytes(got))
    assert ["gap", "stopped"] == [event["event"] for event in texts(got)]
    assert {"stereo"} == {item.track for item in got if item.duration_ms}


def texts_and_places(items: list[OutMessage], bytes_per_ms: float) -> list[tuple[str, float]]:
    """Return each text, and how many milliseconds of audio are before it."""
    found, position = [], 0.0
    for item in items:
        if isinstance(item.message, str):
            found.append((item.message, round(position, 3)))
        position += len(audio_bytes([item])) / bytes_per_ms
    return found


@pytest.mark.parametrize(("source", "rate"), [(8000, 16000), (8000, 48000), (16000, 8000)])
async def test_texts_stand_where_they_belong(source: int, rate: int) -> None:
    """Behind as much audio as was before them."""
    changing = Resampler(source, OutputSpec(Format.PCM16, "inbound", rate), start_ms=0)
    piece = tone(source // 50)
    items = [OutMessage(piece, "inbound", n * 20, 20) for n in range(50)]
    items.insert(10, OutMessage("ten"))
    items.insert(30, OutMessage("twenty-nine"))
    items.append(OutMessage(bytes(2), "inbound", 1000, 2000, 2 * source))
    items.append(OutMessage("silence"))
    made = [new for item in items for new in changing.convert([item])]
    made += changing.convert([OutMessage("stopped")])
    places = [("ten", 200), ("twenty-nine", 580), ("silence", 3000), ("stopped", 3000)]
    assert places == texts_and_places(made, rate / 500)
    assert all(item.duration_ms for item in made if isinstance(item.message, bytes))


async def test_a_text_is_sent_where_no_more_audio_comes() -> None:
    """At once, behind all audio before it; what comes then is as long as ever."""
    changing = Resampler(8000, OutputSpec(Format.PCM16, "inbound", 16000), start_ms=0)
    got: list[OutMessage] = []
    text_sent = asyncio.Event()

    def on_done(made: list[OutMessage], last: bool) -> None:
        got.extend(made)
        if any(item.message == "key" for item in made):
            text_sent.set()

    changing.submit(
        [OutMessage(tone(160), "inbound", 0, 20), OutMessage("key")], last=False, done=on_done
    )
    await asyncio.wait_for(text_sent.wait(), at_most(10))
    assert [("key", 20)] == texts_and_places(got, 32)
    changing.submit([OutMessage(tone(160), "inbound", 20, 20)], last=False, done=on_done)
    changing.submit([OutMessage("stopped")], last=True, done=on_done)
    await asyncio.wait_for(changing.idle.wait(), at_most(10))
    assert ["key", "stopped"] == [item.message for item in got if isinstance(item.message, str)]
    assert 40 * 32 == len(audio_bytes(got))


async def test_long_silence_stays_a_length() -> None:
    """An hour on hold takes no room, is exactly zero, and keeps the time."""
    changing = Resampler(8000, OutputSpec(Format.PCM16, "inbound", 16000), start_ms=0)
    hour = OutMessage(bytes(2), "inbound", 1000, 3_600_000, 3600 * 8000)
    made = [*changing.convert([OutMessage(tone(8000), "inbound", 0, 1000), hour])]
    made += changing.convert([OutMessage('{"event":"stopped"}')])
    assert 100_000 > sum(len(item.message) for item in made)
    samples = sum(len(item.message) // 2 * item.repeat for item in made[:-1])
    assert 3601 * 16000 == samples
    long = max(made, key=lambda item: item.repeat)
    assert (bytes(2), True) == (long.message, long.repeat > 3599 * 16000)
    position = 0.0
    for item in made[:-1]:
        assert position == pytest.approx(item.timestamp_ms)
        position += item.duration_ms


async def test_what_the_thread_has_no_time_for_is_dropped_with_a_notice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More than so much of a channel never waits; events keep their place, and so does time."""
    monkeypatch.setattr(resampler, "_MOST_COMING_MS", 100)
    changing = Resampler(8000, OutputSpec(Format.PCM16, "inbound", 16000), start_ms=0)
    got: list[OutMessage] = []

    def on_done(made: list[OutMessage], last: bool) -> None:
        got.extend(made)

    for number in range(20):  # within one turn of the event loop nothing comes back
        changing.submit(
            [OutMessage(tone(160), "inbound", 20 * number, 20)], last=False, done=on_done
        )
    changing.submit([OutMessage('{"event":"mark"}')], last=False, done=on_done)
    assert (120, 14) == (changing.coming_ms, changing.dropped)
    await asyncio.wait_for(changing.idle.wait(), at_most(10))
    changing.submit([OutMessage(tone(160), "inbound", 400, 20)], last=False, done=on_done)
    changing.submit([OutMessage('{"event":"stopped"}')], last=True, done=on_done)
    await asyncio.wait_for(changing.idle.wait(), at_most(10))
    notice, mark, _ = texts(got)
    assert ("slow_listener", 280) == (notice["reason"], notice["duration_ms"])
    assert "mark" == mark["event"]
    assert 7 * 20 * 32 == len(audio_bytes(got))
    assert 420 == pytest.approx(got[-2].timestamp_ms + got[-2].duration_ms)


async def test_it_says_what_it_still_has() -> None:
    """From the moment in which audio is given to it, until all came back."""
    changing = Resampler(8000, OutputSpec(Format.PCM16, "inbound", 16000), start_ms=0)
    got: list[OutMessage] = []
    for number in range(3):
        piece = OutMessage(tone(160), "inbound", 20 * number, 20)
        changing.submit([piece], last=False, done=lambda made, _: got.extend(made))
    assert (60, False) == (changing.coming_ms, changing.idle.is_set())
    changing.submit([OutMessage("end")], last=True, done=lambda made, _: got.extend(made))
    await asyncio.wait_for(changing.idle.wait(), at_most(10))
    assert 0 == changing.coming_ms
    assert (2 * 2 * 480, "end") == (len(audio_bytes(got)), got[-1].message)


PAIRS = [(a, b) for a in (8000, 11000, 16000, 24000, 44000, 48000) for b in query.RATES if a != b]


@pytest.mark.parametrize(("source", "rate"), PAIRS)
async def test_a_chunk_comes_out_as_a_chunk(source: int, rate: int) -> None:
    """At once, of the same time, for every pair of rates; and as a tone of the same sound."""
    changing = Resampler(source, OutputSpec(Format.PCM16, "inbound", rate), start_ms=0)
    wave = 9000 * np.sin(np.arange(source) * 2 * np.pi * 1000 / source)
    made: list[OutMessage] = []
    for n in range(50):
        piece = wave[n * source // 50 : (n + 1) * source // 50].astype("<i2").tobytes()
        (chunk,) = changing.convert([OutMessage(piece, "inbound", n * 20, 20)])
        made.append(chunk)
        assert math.ceil((n + 1) * rate / 50) * 2 == len(audio_bytes(made))
        assert (n * 20, 20) == pytest.approx((chunk.timestamp_ms, chunk.duration_ms), abs=0.05)
    sound = np.frombuffer(audio_bytes(made), "<i2")[rate // 50 :].astype(float)
    lower = min(source, rate)
    late = 24 / lower + 1 / 50
    wanted = 9000 * np.sin((np.arange(len(sound)) / rate + 1 / 50 - late + 1 / 50) * 2e3 * np.pi)
    assert 40 > np.abs(sound - wanted).max()


@pytest.mark.parametrize(("source", "rate", "hertz"), [(48000, 8000, 4600), (24000, 16000, 8800)])
def test_what_the_lower_rate_cannot_carry_is_gone(source: int, rate: int, hertz: int) -> None:
    """Rather than to be heard at another pitch."""
    wave = (9000 * np.sin(np.arange(source) * 2 * np.pi * hertz / source)).astype(np.int16)
    made = Polyphase(source, rate, 1).feed(wave.reshape(-1, 1))
    assert 12 > np.abs(made[rate // 50 :].astype(int)).max()


def test_two_tracks_do_not_mix() -> None:
    """Each is what it would be alone, in pieces of any length."""
    both = np.random.default_rng(1).integers(-9000, 9000, (4000, 2)).astype(np.int16)
    cut = Polyphase(8000, 24000, 2)
    pieces = [cut.feed(both[n : n + 37]) for n in range(0, 4000, 37)]
    for channel in (0, 1):
        alone = Polyphase(8000, 24000, 1).feed(both[:, channel : channel + 1])
        assert np.allclose(alone[:, 0], np.concatenate(pieces)[:, channel], atol=1)
