"""Live calls are tapped while they happen: real processes, real sockets, recorded beside it."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket as sockets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jwt
import numpy as np
import pytest
import soundfile
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from receiver.auth.bearer import key_id
from receiver.auth.tap_tokens import Scope, mint
from receiver.listen import Event, ListenQuery, PcmAudio, Started, Stopped, listen_pcm
from tests.bounds import fewer
from tests.end_to_end import sender
from tests.end_to_end.receiver_process import TOKEN, WAIT_SECONDS, ReceiverProcess
from tests.end_to_end.taps import (
    BEARER,
    CALL,
    TAP_KEY,
    TAP_TOKEN,
    ask,
    audio_of,
    open_tap,
    payload,
    read_all,
    read_event,
    secret_file,
    send_chunks,
    start_call,
    tap_url,
    tapped_receiver,
    texts_of,
    wait_for_sockets,
)
from tests.receiver.helpers.g711 import MULAW

TRACKS = ("inbound", "outbound")
MOST_GROWTH_MIB = 8
"""A minute of both tracks is 2 MiB of samples in 6000 messages; they are not kept."""
LONG_QUEUE = ("--tap-queue-seconds", "60")
"""Tests send in an instant what listeners receive over seconds."""


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[ReceiverProcess]:
    """Run a receiver on a free port, without TLS, whose calls can be listened to."""
    with tapped_receiver(tmp_path, *LONG_QUEUE) as process:
        yield process


def pcm(track: str, numbers: range) -> bytes:
    """Return chunks as samples, by the reference table."""
    codes = b"".join(payload(track, number) for number in numbers)
    return np.array([MULAW[code] for code in codes], "<i2").tobytes()


def stereo(numbers: range) -> bytes:
    """Return chunks of both tracks as interleaved samples."""
    sides = [np.frombuffer(pcm(track, numbers), "<i2") for track in TRACKS]
    return np.stack(sides, 1).tobytes()


def test_every_kind_of_listener_receives_the_call(receiver: ReceiverProcess) -> None:
    """From its first chunk to its end, byte for byte, with keys in their place."""
    kinds = ["", "?track=outbound", "?track=stereo", "?format=payload", "?format=messages"]
    with start_call(receiver, FirstName="Jane") as call:
        listeners = [open_tap(receiver, CALL + kind) for kind in kinds]
        started = [read_event(listener) for listener in listeners]
        send_chunks(call, range(1, 31))
        call.send(json.dumps({"event": "dtmf", "dtmf": {"digit": "5", "duration": 2000}}))
        send_chunks(call, range(31, 51))
        call.send(sender.stop())
        received = [read_all(listener) for listener in listeners]
    numbers = range(1, 51)
    assert pcm("inbound", numbers) == audio_of(received[0])
    assert pcm("outbound", numbers) == audio_of(received[1])
    assert stereo(numbers) == audio_of(received[2])
    assert b"".join(payload("inbound", n) for n in numbers) == audio_of(received[3])
    assert ["started"] * 4 + ["connected"] == [first["event"] for first in started]
    assert {"FirstName": "Jane"} == started[0]["parameters"]
    for messages in received[:4]:
        key, last = texts_of(messages)
        assert ("dtmf", "5", 600) == (key["event"], key["digit"], key["timestamp_ms"])
        assert ("stopped", "stop", 1000) == (last["event"], last["reason"], last["timestamp_ms"])
    shapes = [message["event"] for message in texts_of(received[4])]
    assert ["start", *["media"] * 60, "dtmf", *["media"] * 40, "stop"] == shapes
    for listener in listeners:
        assert listener.protocol.close_rcvd is not None
        assert 1000 == listener.protocol.close_rcvd.code
    assert receiver.published()[1].complete


def silent_while_the_other_speaks() -> list[str]:
    """Return the messages of a call in which a track speaks, a key is pressed, the other speaks."""
    first = [sender.media("inbound", n, payload("inbound", n), sequence=n) for n in range(1, 11)]
    second = [
        sender.media("outbound", n, payload("outbound", n), sequence=10 + n, at_ms=380 + 20 * n)
        for n in range(1, 11)
    ]
    return [*first, *second]


@pytest.mark.parametrize("rate", [8000, 16000])
def test_a_silent_track_has_the_streams_clock(receiver: ReceiverProcess, rate: int) -> None:
    """Silence is sent live while only the other track speaks, as long as in the recording."""
    rest = CALL if rate == 8000 else f"{CALL}?rate={rate}"
    per_ms = rate // 500
    with start_call(receiver) as call:
        listener = open_tap(receiver, rest)
        read_event(listener)
        sender.send_at_once(call, silent_while_the_other_speaks())
        received: list[bytes | str] = []
        while len(audio_of(received)) < 500 * per_ms:  # live: the call goes on
            received.append(listener.recv(timeout=WAIT_SECONDS))
        call.send(json.dumps({"event": "dtmf", "dtmf": {"digit": "5", "duration": 2000}}))
        call.send(sender.stop())
        received += read_all(listener)
    folder, _ = receiver.published()
    kept = soundfile.read(folder / "inbound.wav", dtype="int16")[0]
    assert len(kept) * per_ms // 8 == len(audio_of(received)) == 600 * per_ms
    if rate == 8000:
        assert kept.astype("<i2").tobytes() == audio_of(received)
    silence, key, last = texts_of(received)
    assert ("sender_silence", 200) == (silence["reason"], silence["timestamp_ms"])
    assert (600, 600) == (key["timestamp_ms"], last["timestamp_ms"])


@pytest.mark.parametrize("track", ["inbound", "stereo"])
@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_keys_stand_at_their_byte(receiver: ReceiverProcess, track: str, rate: int) -> None:
    """Also where one track waits for another that is silent, and where a filter holds audio."""
    bytes_per_ms = rate // 500 * (2 if track == "stereo" else 1)
    key = json.dumps(
        {"event": "dtmf", "dtmf": {"digit": "5", "duration": 2000}, "padding": "-" * 99}
    )
    parts = [
        [sender.media("inbound", n, payload("inbound", n), sequence=n) for n in numbers]
        for numbers in (range(1, 11), range(11, 21))
    ]
    with start_call(receiver) as call:
        listener = open_tap(receiver, f"{CALL}?track={track}&rate={rate}")
        read_event(listener)
        sender.send_at_once(call, [*parts[0], key, *parts[1]])
        call.send(sender.stop())
        received = read_all(listener)
    at = next(
        place
        for place, message in enumerate(received)
        if isinstance(message, str) and json.loads(message)["event"] == "dtmf"
    )
    assert 200 == json.loads(received[at])["timestamp_ms"]
    assert 200 * bytes_per_ms == len(audio_of(received[:at]))
    assert 400 * bytes_per_ms == len(audio_of(received))


@pytest.mark.parametrize("rest", ["", "?since=1000", "?track=stereo"])
def test_chunks_that_overtake_each_other_are_repaired(receiver: ReceiverProcess, rest: str) -> None:
    """As in the recording: nothing is lost, and no gap is sent."""
    numbers = [1, 2, 3, 5, 4, 6, 7, 9, 8, 10, 11, 12]
    with start_call(receiver) as call:
        listener = open_tap(receiver, CALL + rest)
        read_event(listener)
        both = (
            sender.media(track, number, payload(track, number), sequence=number)
            for number in numbers
            for track in TRACKS
        )
        sender.send_at_once(call, both)
        call.send(sender.stop())
        received = read_all(listener)
    expected = stereo if "stereo" in rest else lambda numbers: pcm("inbound", numbers)
    assert expected(range(1, 13)) == audio_of(received)
    assert ["stopped"] == [one["event"] for one in texts_of(received)]


def test_a_burst_of_half_a_minute_is_received_whole(tmp_path: Path) -> None:
    """By every kind of listener that reads, through queues of two seconds."""
    numbers = range(1, fewer(1500) + 1)
    kinds = ["?track=stereo", "", "?format=messages", "?rate=16000", "?track=stereo&rate=48000"]
    with tapped_receiver(tmp_path) as receiver, start_call(receiver) as call:
        listeners = [open_tap(receiver, CALL + kind) for kind in kinds]
        for listener in listeners:
            read_event(listener)
        burst = (
            sender.media(track, number, payload(track, number), sequence=number)
            for number in numbers
            for track in TRACKS
        )
        sender.send_at_once(call, burst)
        call.send(sender.stop())
        received = [read_all(listener) for listener in listeners]
    assert stereo(numbers) == audio_of(received[0])
    assert pcm("inbound", numbers) == audio_of(received[1])
    sizes = [len(numbers) * 20 * bytes_per_ms for bytes_per_ms in (32, 192)]
    assert sizes == [len(audio_of(messages)) for messages in received[3:]]
    for messages in (received[0], received[1], *received[3:]):
        assert ["stopped"] == [one["event"] for one in texts_of(messages)]
    assert 2 * len(numbers) == sum(one["event"] == "media" for one in texts_of(received[2]))


def test_the_list_shows_what_can_be_tapped(receiver: ReceiverProcess) -> None:
    """Ids, parameters, format, tracks, beginning, and how many listen."""
    assert (200, "[]\n") == ask(receiver)
    with start_call(receiver, Queue="sales") as call, open_tap(receiver, CALL) as listener:
        started = read_event(listener)
        (found,) = json.loads(ask(receiver)[1])
        call.send(sender.stop())
        read_all(listener)
    assert {
        "call_sid": sender.CALL_SID,
        "stream_sid": sender.STREAM_SID,
        "account_sid": sender.ACCOUNT_SID,
        "parameters": {"Queue": "sales"},
        "media_format": {"encoding": "audio/x-mulaw", "sample_rate": 8000, "channels": 1},
        "tracks": ["inbound", "outbound"],
        "listeners": 1,
    }.items() <= found.items()
    assert found.items() <= started.items()
    assert receiver.published()[1].id == found["recording_id"]
    assert (200, "[]\n") == ask(receiver)


def test_a_stream_has_three_names(receiver: ReceiverProcess) -> None:
    """Recording id, stream sid, call sid."""
    with start_call(receiver):
        (found,) = json.loads(ask(receiver)[1])
        for name in (found["recording_id"], sender.STREAM_SID, sender.CALL_SID):
            with open_tap(receiver, f"/{name}") as listener:
                assert found["recording_id"] == read_event(listener)["recording_id"]


def test_late_listeners_of_a_kind_receive_the_same(receiver: ReceiverProcess) -> None:
    """They begin at the timestamp of `started`, and from there on get identical messages."""
    with start_call(receiver) as call, open_tap(receiver, f"{CALL}?track=stereo") as early:
        read_event(early)
        send_chunks(call, range(1, 26))
        before = [early.recv(timeout=WAIT_SECONDS) for _ in range(25)]
        with open_tap(receiver, f"{CALL}?track=stereo") as late:
            assert 500 == read_event(late)["timestamp_ms"]
            send_chunks(call, range(26, 51))
            call.send(sender.stop())
            received = read_all(early)
            assert read_all(late) == received
    assert stereo(range(1, 51)) == audio_of(before + received)


@pytest.mark.parametrize("track", ["inbound", "stereo"])
def test_the_past_comes_first_and_without_a_break(receiver: ReceiverProcess, track: str) -> None:
    """From the journal to the live part, while chunks keep coming: each once, in order."""
    with start_call(receiver) as call:
        send_chunks(call, range(1, 101))
        listeners = []
        for number in range(101, 301):
            send_chunks(call, range(number, number + 1))
            if number % 40 == 0:
                listeners.append(open_tap(receiver, f"{CALL}?since=1000&track={track}"))
        call.send(sender.stop())
        received = [read_all(listener) for listener in listeners]
    expected = pcm("inbound", range(1, 301)) if track == "inbound" else stereo(range(1, 301))
    for messages in received:
        first, *_, last = texts_of(messages)
        assert (0, 6000) == (first["timestamp_ms"], last["timestamp_ms"])
        assert expected == audio_of(messages)


def test_the_past_may_be_short(receiver: ReceiverProcess) -> None:
    """So many seconds before now, to the sample."""
    with start_call(receiver) as call:
        send_chunks(call, range(1, 101))
        with open_tap(receiver, CALL) as live:
            read_event(live)
            send_chunks(call, range(101, 102))
            live.recv(timeout=WAIT_SECONDS)  # everything before has arrived
            with open_tap(receiver, f"{CALL}?since=0.51") as listener:
                assert 2020 - 510 == read_event(listener)["timestamp_ms"]
                call.send(sender.stop())
                received = audio_of(read_all(listener))
    assert pcm("inbound", range(1, 102))[-510 * 16 :] == received


def test_the_past_of_messages_begins_with_start(receiver: ReceiverProcess) -> None:
    """connected, start, and the media of both tracks since then."""
    with start_call(receiver) as call:
        send_chunks(call, range(1, 51))
        with open_tap(receiver, f"{CALL}?format=messages&since=1000") as listener:
            assert ["connected", "start"] == [read_event(listener)["event"] for _ in range(2)]
            call.send(sender.stop())
            shapes = [message["event"] for message in texts_of(read_all(listener))]
    assert ["media"] * 100 + ["stop"] == shapes


def test_a_slow_listener_harms_no_other(tmp_path: Path) -> None:
    """It misses audio and gets a gap in its place; one beside it and the recording are whole."""
    with tapped_receiver(tmp_path) as receiver:
        with start_call(receiver) as call:
            (found,) = json.loads(ask(receiver)[1])
            slow = not_reading(receiver, f"{CALL}?format=pcm16&track=stereo")
            with open_tap(receiver, f"{CALL}?track=stereo") as good:
                read_event(good)
                received = []
                before = resident_mib(receiver)
                for number in range(1, 3001):
                    send_chunks(call, range(number, number + 1))
                    received.append(good.recv(timeout=WAIT_SECONDS))
                assert stereo(range(1, 3001)) == audio_of(received)
            assert MOST_GROWTH_MIB > resident_mib(receiver) - before
            call.send(sender.stop())
            messages = until_now(slow)
        assert receiver.published()[1].complete
    assert found["recording_id"] == receiver.log[-1]["recording_id"]
    position, missed = 0.0, 0
    for message in messages:
        if isinstance(message, bytes):
            position += len(message) / 32
            continue
        notice = json.loads(message)
        if notice["event"] == "gap":
            missed += 1
            assert ("slow_listener", "stereo") == (notice["reason"], notice["track"])
            assert position == notice["timestamp_ms"]
            position += notice["duration_ms"]
    assert missed
    assert 60_000 == position


def resident_mib(receiver: ReceiverProcess) -> float:
    """Return how much memory the receiver has."""
    status = Path(f"/proc/{receiver.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def not_reading(receiver: ReceiverProcess, rest: str) -> sockets.socket:
    """Open a listener's socket that does not read, with little room in its kernel."""
    raw = sockets.socket()
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", receiver.port))
    head = (
        f"GET /tap{rest} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"Authorization: {BEARER['Authorization']}\r\n\r\n"
    )
    raw.sendall(head.encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += raw.recv(1)
    assert answer.startswith(b"HTTP/1.1 101 ")
    return raw


def until_now(raw: sockets.socket) -> list[bytes | str]:
    """Read a listener's messages at last, up to the close of its stream."""
    raw.settimeout(WAIT_SECONDS)
    with raw, raw.makefile("rb") as file:
        messages: list[bytes | str] = []
        while True:
            kind, size = file.read(2)
            if size == 126:
                size = int.from_bytes(file.read(2), "big")
            elif size == 127:
                size = int.from_bytes(file.read(8), "big")
            content = file.read(size)
            if kind == 0x88:
                return messages
            messages.append(content if kind == 0x82 else content.decode())


def test_waiting_for_a_call(receiver: ReceiverProcess) -> None:
    """A listener may come before its call; one for another call waits in vain."""
    with (
        open_tap(receiver, f"{CALL}?wait=20") as listener,
        open_tap(receiver, "/other?wait=0.3") as other,
    ):
        with start_call(receiver) as call:
            assert 0 == read_event(listener)["timestamp_ms"]
            send_chunks(call, range(1, 11))
            call.send(sender.stop())
        assert pcm("inbound", range(1, 11)) == audio_of(read_all(listener))
        with pytest.raises(ConnectionClosed, match="no such stream") as closed:
            other.recv(timeout=WAIT_SECONDS)
    assert closed.value.rcvd is not None
    assert 4404 == closed.value.rcvd.code


def test_whoever_waits_for_a_call_that_cannot_be_decoded_is_told_at_once(
    receiver: ReceiverProcess,
) -> None:
    """With the reason; the call is recorded as it comes."""
    with open_tap(receiver, f"{CALL}?wait=60") as listener, sender.dial(receiver.url) as call:
        call.send(sender.start(encoding="audio/opus"))
        with pytest.raises(ConnectionClosed, match=r"nobody can listen.*audio/opus") as closed:
            listener.recv(timeout=WAIT_SECONDS)
        with pytest.raises(InvalidStatus, match="422"), open_tap(receiver, f"{CALL}?wait=60"):
            pass
        call.send(sender.stop())
    assert closed.value.rcvd is not None
    assert 4422 == closed.value.rcvd.code


def test_a_listener_goes_on_where_the_format_changes(receiver: ReceiverProcess) -> None:
    """At the rate with which it began, with all of both parts, and with one end."""

    async def hear(call: ClientConnection) -> list[Event | PcmAudio]:
        events: list[Event | PcmAudio] = []
        query = ListenQuery(wait=WAIT_SECONDS)
        async for event in listen_pcm(tap_url(receiver, CALL), query, token=TAP_TOKEN):
            events.append(event)
            if len(events) == 1:
                send_chunks(call, range(1, 11))
                sender.send_call(call, [sender.start(encoding="audio/x-L16", rate=16_000), *wide])
            elif isinstance(event, Started):
                call.send(sender.stop())
        return events

    wide = [
        sender.media("inbound", number, b"\x40\x01" * 320, at_ms=20 * number - 20)
        for number in range(11, 21)
    ]
    with start_call(receiver) as call:
        events = asyncio.run(hear(call))
    started = [event for event in events if isinstance(event, Started)]
    assert [8000, 8000] == [event.sample_rate for event in started]
    assert 2 == len({event.recording_id for event in started})
    audio = b"".join(event.payload for event in events if isinstance(event, PcmAudio))
    assert pcm("inbound", range(1, 11)) == audio[:3200]
    assert 2 * 3200 == len(audio)
    assert ["stop"] == [event.reason for event in events if isinstance(event, Stopped)]


def test_all_streams_can_be_watched(receiver: ReceiverProcess) -> None:
    """Started, stopped, and where the recording is; filtered by parameters."""
    with (
        open_tap(receiver, "/all") as everyone,
        open_tap(receiver, "/all?param.Queue=sales") as sales,
    ):
        for sid, queue in (("first", "support"), ("second", "sales")):
            with sender.dial(receiver.url) as call:
                start = sender.start({"Queue": queue}, stream_sid=sid, call_sid=f"call {sid}")
                sender.send_call(call, [sender.connected(), start, sender.stop()])
            receiver.published()
        seen = [read_event(everyone) for _ in range(6)]
        chosen = [read_event(sales) for _ in range(3)]
    assert ["started", "stopped", "recorded"] * 2 == [one["event"] for one in seen]
    assert seen[3:] == chosen
    started, stopped, recorded = chosen
    assert {"Queue": "sales"} == started["parameters"] == recorded["parameters"]
    assert ("second", "stop") == (stopped["stream_sid"], stopped["reason"])
    assert recorded["complete"]
    document = json.loads(Path(recorded["folder"], "recording.json").read_text())
    assert started["recording_id"] == document["id"] == recorded["recording_id"]
    assert document["duration_ms"] == recorded["duration_ms"]
    assert recorded["verdict"].startswith("Complete. ")


def test_a_late_watcher_receives_what_is_live(receiver: ReceiverProcess) -> None:
    """A service that starts in mid-call can attach to it."""
    with start_call(receiver, Queue="sales"), open_tap(receiver, "/all") as watching:
        assert ("started", sender.CALL_SID) == (
            (first := read_event(watching))["event"],
            first["call_sid"],
        )


def refusal(
    receiver: ReceiverProcess, rest: str, *, token: str | None = TAP_TOKEN
) -> tuple[int, str]:
    """Return status and reason of a refused upgrade."""
    with pytest.raises(InvalidStatus) as refused:
        open_tap(receiver, rest, token=token)
    response = refused.value.response
    return response.status_code, (response.body or b"").decode().strip()


def test_bad_requests_get_a_status_and_a_reason(receiver: ReceiverProcess) -> None:
    """Before the upgrade, one line each."""
    with start_call(receiver):
        for rest, reason in (
            ("?format=mp3", "format must be pcm16 or payload or messages"),
            ("?track=left", "track must be inbound or outbound or stereo"),
            ("?rate=11025", "rate must be 8000 or 16000 or 24000 or 48000"),
            ("?volume=11", "unknown parameter 'volume'"),
            ("?since=-1", "since must be a number of seconds from 0 to 86400"),
        ):
            assert (400, reason) == refusal(receiver, CALL + rest)
        assert (404, "no such stream") == refusal(receiver, "/unknown")
        assert (400, "unknown parameter 'queue': only param.NAME=VALUE is known") == refusal(
            receiver, "/all?queue=sales"
        )


def test_only_tap_tokens_open_taps(tmp_path: Path) -> None:
    """None, a wrong one, a stream's one, a dead one: 401, and nothing about what is live."""
    now = time.time()
    dead = mint(TAP_KEY, Scope(), now=now - 1000, ttl_seconds=300)
    foreign = mint("x" * 32, Scope(), now=now, ttl_seconds=300)
    alive = mint(TAP_KEY, Scope(), now=now, ttl_seconds=300)
    with tapped_receiver(tmp_path) as receiver, start_call(receiver):
        for token in (None, "not-a-token-of-ours", TOKEN, dead, foreign):
            for rest in (CALL, "/unknown", "/all", f"{CALL}?track=left"):
                assert (401, "Unauthorized") == refusal(receiver, rest, token=token)
            assert 401 == ask(receiver, token=token)[0]
        for token in (TAP_TOKEN, alive):
            with pytest.raises(InvalidStatus, match="401"):
                sender.dial(receiver.url, token=token)


def test_a_scope_hides_everything_else(tmp_path: Path) -> None:
    """A stream that may not be tapped answers as one that does not exist."""
    now = time.time()
    other = mint(TAP_KEY, Scope(call_sid="other"), now=now, ttl_seconds=300)
    support = mint(TAP_KEY, Scope(parameter=("Queue", "support")), now=now, ttl_seconds=300)
    sales = mint(TAP_KEY, Scope(parameter=("Queue", "sales")), now=now, ttl_seconds=300)
    this = mint(TAP_KEY, Scope(call_sid=sender.CALL_SID), now=now, ttl_seconds=300)
    with (
        tapped_receiver(tmp_path) as receiver,
        open_tap(receiver, "/all", token=support) as watching,
        open_tap(receiver, "/all", token=sales) as salesman,
        start_call(receiver, Queue="sales"),
    ):
        for token in (other, support):
            for rest in ("", "?since=5", "?track=left"):
                unknown = refusal(receiver, f"/unknown{rest}", token=token)
                assert unknown == refusal(receiver, CALL + rest, token=token)
            assert (200, "[]\n") == ask(receiver, token=token)
            waiting = open_tap(receiver, f"{CALL}?wait=0.2", token=token)
            with waiting, pytest.raises(ConnectionClosed, match="no such stream"):
                waiting.recv(timeout=WAIT_SECONDS)
        for token in (sales, this):
            assert 1 == len(json.loads(ask(receiver, token=token)[1]))
            for _ in range(2):
                with open_tap(receiver, CALL, token=token) as listener:
                    assert "started" == read_event(listener)["event"]
        assert "started" == read_event(salesman)["event"]
        with start_call(receiver, Queue="support"):
            assert {"Queue": "support"} == read_event(watching)["parameters"]


@pytest.mark.parametrize("level", ["debug", "info"])
def test_a_browser_brings_a_short_lived_token_in_the_url(tmp_path: Path, level: str) -> None:
    """Signed, five minutes at most, and in no log at any level."""
    short = mint(TAP_KEY, Scope(), now=time.time(), ttl_seconds=300)
    long = mint(TAP_KEY, Scope(), now=time.time(), ttl_seconds=301)
    options = ("--log-level", level)
    with tapped_receiver(tmp_path, *options) as receiver:
        with start_call(receiver):
            with open_tap(receiver, f"{CALL}?access_token={short}", token=None) as listener:
                assert "started" == read_event(listener)["event"]
            assert 200 == ask(receiver, f"?access_token={short}", token=None)[0]
            for token in (long, TAP_TOKEN, "x", ""):
                rest = f"{CALL}?access%5Ftoken={token}"
                assert 401 == refusal(receiver, rest, token=None)[0]
            assert 401 == refusal(receiver, f"{CALL}?access_token={short}", token=TAP_TOKEN)[0]
            assert 400 == refusal(receiver, f"{CALL}?access_token={short}&x=1", token=None)[0]
        receiver.published()
        assert 0 == receiver.stop()
    for secret in (short, long, TAP_TOKEN, TAP_KEY):
        assert secret not in receiver.raw_log


def test_workers_say_that_each_serves_its_own(tmp_path: Path) -> None:
    """In the log at the start, and to whoever looks for a stream that may be elsewhere."""
    with tapped_receiver(tmp_path, "--workers", "2") as receiver, start_call(receiver):
        here = "no such stream in this worker: each serves its own only"
        assert (404, here) == refusal(receiver, "/unknown")
    assert '"listeners_hear_one_worker"' in receiver.raw_log


def test_tokens_are_minted_on_the_command_line(receiver: ReceiverProcess) -> None:
    """`receiver token tap` prints one that the receiver accepts."""
    command = [sys.executable, "-m", "receiver", "token", "tap", "--call", sender.CALL_SID]
    key_file = str(receiver.folder / "tap-keys")
    minted = subprocess.run(
        [*command, "--tap-key-file", key_file, "--ttl", "60"], capture_output=True, text=True
    )
    assert ("", 0) == (minted.stderr, minted.returncode)
    token = minted.stdout.strip()
    assert key_id(TAP_KEY.encode()) == jwt.get_unverified_header(token)["kid"]
    with start_call(receiver), open_tap(receiver, CALL, token=token) as listener:
        assert "started" == read_event(listener)["event"]


def test_listeners_have_a_limit(tmp_path: Path) -> None:
    """One too many is refused with a time to try again."""
    limit = ("--max-listeners", "1")
    with (
        tapped_receiver(tmp_path, *limit) as receiver,
        start_call(receiver),
        open_tap(receiver, CALL) as listener,
    ):
        read_event(listener)
        assert (503, "too many listeners") == refusal(receiver, CALL)
    with (
        tapped_receiver(tmp_path, *limit) as receiver,
        start_call(receiver),
        open_tap(receiver, "/all") as watcher,
    ):
        read_event(watcher)
        assert (503, "too many listeners") == refusal(receiver, CALL)
        assert (503, "too many listeners") == refusal(receiver, "/all")


def test_the_end_of_the_receiver_is_sent(receiver: ReceiverProcess) -> None:
    """Ctrl-C ends the recording, and every listener gets the reason."""
    with start_call(receiver) as call, open_tap(receiver, CALL) as listener:
        read_event(listener)
        send_chunks(call, range(1, 3))
        received = [listener.recv(timeout=WAIT_SECONDS) for _ in range(2)]
        assert pcm("inbound", range(1, 3)) == audio_of(received)
        assert 0 == receiver.stop(signal.SIGINT)
        assert ["stopped"] == [last["event"] for last in texts_of(read_all(listener))]
    assert "Traceback" not in receiver.raw_log


def test_stereo_is_what_is_recorded(tmp_path: Path) -> None:
    """A lossy track beside one that lags: sample for sample the recording's stereo.wav."""
    source = random.Random(11)
    with (
        tapped_receiver(tmp_path, "--stereo", *LONG_QUEUE) as receiver,
        start_call(receiver) as call,
    ):
        with open_tap(receiver, f"{CALL}?track=stereo") as listener:
            read_event(listener)
            together = []
            for number in range(1, 151):
                if source.random() > 0.2 or number in (1, 150):
                    together.append(sender.media("inbound", number, payload("inbound", number)))
                if number > 1:
                    lagging = number - 1
                    together.append(sender.media("outbound", lagging, payload("outbound", lagging)))
            sender.send_at_once(call, together)
            call.send(sender.media("outbound", 150, payload("outbound", 150)))
            call.send(sender.stop())
            received = read_all(listener)
        folder, _ = receiver.published()
    recorded, _ = soundfile.read(folder / "stereo.wav", dtype="int16")
    assert recorded.astype("<i2").tobytes() == audio_of(received)
    assert {"lost"} == {one["reason"] for one in texts_of(received) if one["event"] == "gap"}


ENCODINGS = [
    ("audio/x-mulaw", 8000),
    ("audio/x-alaw", 8000),
    ("audio/x-L16", 8000),
    ("audio/x-L16", 16000),
    ("audio/x-L16", 24000),
]


@pytest.mark.parametrize(("encoding", "rate"), ENCODINGS)
def test_the_tap_agrees_with_the_recording(tmp_path: Path, encoding: str, rate: int) -> None:
    """Both tracks lossy: from now on, and from the past, alone and together, at every rate."""
    source = random.Random(encoding)
    size = rate // 50 * (2 if encoding == "audio/x-L16" else 1)
    kinds = ["inbound", "outbound", "stereo", f"inbound&rate={rate}", "stereo&since=60"]
    others = [r for r in (8000, 16000, 24000, 48000) if r != rate]
    with tapped_receiver(tmp_path, "--stereo") as receiver:
        with sender.dial(receiver.url) as call:
            start = sender.start(encoding=encoding, rate=rate)
            sender.send_call(call, [sender.connected(), start])
            receiver.wait_for("stream_started")
            listeners = [open_tap(receiver, f"{CALL}?track={kind}") for kind in kinds]
            resampled = [open_tap(receiver, f"{CALL}?track=stereo&rate={r}") for r in others]
            for listener in (*listeners, *resampled):
                read_event(listener)
            together = [
                sender.media(track, number, source.randbytes(size), sequence=number)
                for number in range(1, 101)
                for track in TRACKS
                if source.random() > 0.1 or number in (1, 100)
            ]
            sender.send_at_once(call, together)
            call.send(sender.stop())
            received = [read_all(listener) for listener in listeners]
            longer = [read_all(listener) for listener in resampled]
        folder, _ = receiver.published()
        recorded = {
            name: soundfile.read(folder / f"{name}.wav", dtype="int16")[0].astype("<i2").tobytes()
            for name in (*TRACKS, "stereo")
        }
    for kind, messages in zip(kinds, received, strict=True):
        assert recorded[kind.partition("&")[0]] == audio_of(messages), kind
        assert {"lost"} == {one["reason"] for one in texts_of(messages)[:-1]}, kind
    assert [2 * 2 * 2 * r for r in others] == [len(audio_of(messages)) for messages in longer]


def test_another_rate_is_resampled(receiver: ReceiverProcess) -> None:
    """Twice the samples for the same time, keys and the end in their place."""
    with start_call(receiver) as call, open_tap(receiver, f"{CALL}?rate=16000") as listener:
        assert 16000 == read_event(listener)["rate"]
        send_chunks(call, range(1, 101))
        call.send(sender.stop())
        received = read_all(listener)
    assert 2 * 2 * 16000 == len(audio_of(received))
    assert ["stopped"] == [last["event"] for last in texts_of(received)]


@pytest.mark.needs("sox")
def test_listen_pipes_into_sox(receiver: ReceiverProcess) -> None:
    """`receiver listen ... | sox -t raw ... -n stat` prints how long the call was."""
    listen = [sys.executable, "-m", "receiver", "listen", sender.CALL_SID, "--format", "pcm16"]
    listen += ["--wait", "20", "--receiver", f"ws://127.0.0.1:{receiver.port}"]
    listen += ["--token-file", str(secret_file(receiver.folder / "token", TAP_TOKEN))]
    raw = ["-t", "raw", "-r", "8000", "-e", "signed", "-b", "16", "-c", "1", "-"]
    with subprocess.Popen(listen, stdout=subprocess.PIPE) as listening:
        sox = subprocess.Popen(
            ["sox", *raw, "-n", "stat"], stdin=listening.stdout, stderr=subprocess.PIPE, text=True
        )
        assert listening.stdout is not None
        listening.stdout.close()  # sox has it now
        with open_tap(receiver, f"{CALL}?wait=20"):  # both wait: the call starts below
            wait_for_sockets(receiver, 2)
            with start_call(receiver) as call:
                while json.loads(ask(receiver)[1])[0]["listeners"] < 2:
                    time.sleep(0.02)  # a socket is open before it listens, without an event
                send_chunks(call, range(1, 101))
                call.send(sender.stop())
        _, statistics = sox.communicate(timeout=WAIT_SECONDS)
    assert 0 == listening.returncode
    assert "Length (seconds):      2.000000" in statistics


def test_the_ledger_has_who_listened_and_what_was_published(tmp_path: Path) -> None:
    """Also of a listener whom the end of the receiver ends; the chain is whole."""
    with tapped_receiver(tmp_path, *LONG_QUEUE) as receiver, start_call(receiver) as call:
        with open_tap(receiver, CALL) as listener:
            read_event(listener)
            send_chunks(call, range(1, 11))
            while len(audio_of([listener.recv(timeout=WAIT_SECONDS)])) == 0:
                pass
            assert 0 == receiver.stop(signal.SIGINT)
        command = [sys.executable, "-m", "receiver", "ledger"]
        where = ("--recordings", str(receiver.recordings))
        shown = subprocess.run(
            [*command, "show", "--json", *where], check=True, capture_output=True, text=True
        )
        entries = json.loads(shown.stdout)[::-1]
        found = subprocess.run(
            [*command, "verify", *where], check=True, capture_output=True, text=True
        )
    assert found.stdout.startswith("ok: 3 entries")
    started = entries[0]
    assert ("listening_live", "token 1", "tap") == tuple(started[k] for k in ("what", "who", "via"))
    assert {"listened_live", "published"} == {entry["what"] for entry in entries[1:]}
    assert 1 == len({entry["recording"] for entry in entries})
