"""A call that is paused: nothing of what comes is kept, and nothing of it is called lost."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from receiver.auth.bearer import Grant
from receiver.counters import Counters
from receiver.ingest.live_recording import LiveRecording
from receiver.ingest.recorder import Recorder
from receiver.ingest.session import Session
from receiver.journal.records import DroppedRecord, Header, PauseRecord, Record, ResumeRecord
from receiver.journal.records import Reader as JournalReader
from receiver.journal.spool import Spool
from receiver.lifecycle.pauses import Pause
from receiver.media import ByteOrder, Encoding, GapKind, PauseEnd, Track
from receiver.recording.document import Recording, Timeline, decode_timeline
from receiver.tap.encoding import encoders
from receiver.tap.encoding.format import Format, OutputSpec
from receiver.tap.hub import Hub, LivePause, StreamEvent, Subscribed
from receiver.tap.local_hub import LocalHub
from tests.receiver.helpers.journals import STARTED_AT_MS, render, start_message
from tests.receiver.helpers.taps import ManualScheduler

CALL_SID = "76ac3c36-aaaa-4bbb-8ccc-ddddeeeeffff"
SECRET = b"\x2a\x5c\x13"
"""What is sent while nothing may be kept: no silence, and no other audio of these tests."""
TONE = b"\x55"
DIGIT = "4929-0661-7733"


class Socket:
    """A connection that nobody closes."""

    remote_address = "192.0.2.7"

    def close(self, code: int, reason: str) -> None:
        raise AssertionError(reason)


class Call:
    """A call on a recorder with a real spool; its clock is that of the chunks."""

    def __init__(self, folder: Path, *, encoding: Encoding = Encoding.PCMU) -> None:
        self.folder = folder
        self.spool = Spool(folder / "spool")
        self.ended: list[Path] = []
        self.ms = 0
        self.scheduler = ManualScheduler()
        self.recorder = _Recorder(self)
        self.sequence = 1
        self.sent = 0  # chunks of each track
        self.lost: set[int] = set()  # sequence numbers that never come
        self.start = start_message(encoding=encoding.value)
        self.size = 320 if encoding is Encoding.L16 else 160
        self.session = self.open()

    def open(self) -> Session:
        """Open a socket."""
        session = Session(self.recorder, Grant(), remote_address="192.0.2.7")
        session.opened(Socket())  # type: ignore[arg-type]  # it has what a session uses
        return session

    def begin(self) -> None:
        """Send the start message."""
        self.session.message_received(self.start)

    def send(self, count: int, fill: bytes = TONE) -> None:
        """Send so many chunks of both tracks."""
        for _ in range(count):
            self.sent += 1
            payload = (fill * self.size)[: self.size]
            for track in Track:
                self._send(
                    {
                        "event": "media",
                        "media": {
                            "track": track.value,
                            "chunk": str(self.sent),
                            "timestamp": str((self.sent - 1) * 20),
                            "payload": base64.b64encode(payload).decode(),
                        },
                    }
                )
            self.ms += 20

    def press(self, digit: str = DIGIT) -> None:
        """Press a key, and pass a mark."""
        self._send({"event": "dtmf", "dtmf": {"digit": digit}})
        self._send({"event": "mark", "mark": {"name": digit}})
        self._send({"event": "odd", "what": digit})

    def _send(self, message: dict[str, Any]) -> None:
        self.sequence += 1
        if self.sequence in self.lost:
            return
        text = json.dumps({**message, "sequenceNumber": str(self.sequence)})
        self.session.message_received(text.encode())

    def stop(self) -> None:
        """Send the stop message."""
        self._send({"event": "stop"})

    def pause(self, reason: str = "card") -> list[LiveRecording]:
        """Pause the call for a minute."""
        until_ms = self.recorder.utc_ms() + 60_000
        return self.recorder.pause(Pause(CALL_SID, reason, until_ms))

    def resume(self) -> list[LiveRecording]:
        """Resume the call."""
        return self.recorder.resume(CALL_SID, PauseEnd.RESUMED)

    def journals(self) -> list[Path]:
        """End all; return the journals, in the order in which they began."""
        self.spool.close()
        return sorted(self.spool.folder.glob("*.journal"), key=_began_ms)

    def records(self) -> list[Record]:
        """End all; return the records of the only journal."""
        (journal,) = self.journals()
        return [record for _, record in JournalReader([journal.read_bytes()])]

    def render(self) -> tuple[Recording, Timeline]:
        """End all; return what the newest journal becomes."""
        journal, folder = self.journals()[-1], self.folder / "rendered"
        folder.mkdir(exist_ok=True)
        document = render(journal, folder)
        for path in (journal, *folder.iterdir()):
            content = path.read_bytes()
            assert SECRET not in content, path
            assert DIGIT.encode() not in content, path
        return document, decode_timeline((folder / "timeline.json").read_bytes())


def _began_ms(journal: Path) -> int:
    """Return when a journal began, by the call's clock."""
    _, header = next(iter(JournalReader([journal.read_bytes()])))
    assert isinstance(header, Header)
    return header.started_at_ms


class _Recorder(Recorder):
    """A recorder whose clock is the call's."""

    def __init__(self, call: Call) -> None:
        self._call = call
        super().__init__(
            call.spool,
            LocalHub(call.scheduler),
            Counters(),
            journal_ended=call.ended.append,
            now=lambda: 100 + call.ms / 1000,
        )

    def utc_ms(self) -> int:
        return STARTED_AT_MS + self._call.ms


@pytest.fixture
def call(tmp_path: Path) -> Iterator[Call]:
    """Return a call."""
    made = Call(tmp_path)
    yield made
    made.spool.close()


def gaps(document: Recording) -> list[list[tuple[float, float, str, str]]]:
    """Return the gaps of each track."""
    return [
        [(gap.start_ms, gap.duration_ms, gap.kind.value, gap.reason) for gap in track.gaps]
        for track in document.tracks
    ]


def pause_in_the_middle(call: Call) -> None:
    """Two seconds, two that are paused, and two more."""
    call.begin()
    call.send(100)
    call.pause()
    call.press()
    call.send(60, SECRET)
    call.press()
    call.send(40, SECRET)
    call.resume()
    call.send(100)
    call.stop()


def test_a_pause_is_silence_and_a_gap_with_its_reason(call: Call) -> None:
    """Of both tracks, to the sample; the recording is complete, and says how long it was paused."""
    pause_in_the_middle(call)
    document, timeline = call.render()
    assert [[(2000, 2000, "paused", "card")]] * 2 == gaps(document)
    assert (6000, 2000) == (document.duration_ms, document.paused_ms)
    (pause,) = document.pauses
    assert (2000, 2000, "card", "resumed") == (
        pause.at_ms,
        pause.duration_ms,
        pause.reason,
        pause.end,
    )
    assert {"audio_paused"} == {finding.code for finding in document.findings}
    assert document.complete
    assert ((), ()) == (document.dtmf, document.marks)
    events = [(event.t_ms, event.end_ms, event.reason) for event in timeline.events]
    assert 2 == events.count((2000, 4000, "card"))


def test_the_journal_has_counts_and_numbers_and_no_payload(call: Call) -> None:
    """Records of the pause, rows of what came, and its end; a row for each second."""
    pause_in_the_middle(call)
    records = call.records()
    (begun,) = [record for record in records if isinstance(record, PauseRecord)]
    (ended,) = [record for record in records if isinstance(record, ResumeRecord)]
    assert (2000, "card") == (begun.arrival_ms, begun.reason)
    assert (4000, PauseEnd.RESUMED, 200, 6) == (
        ended.arrival_ms,
        ended.end,
        ended.chunks,
        ended.messages,
    )
    rows = [record for record in records if isinstance(record, DroppedRecord)]
    assert {GapKind.PAUSED} == {row.kind for row in rows}
    for track in Track:
        own = [row for row in rows if row.track is track]
        assert (100, 101, 200) == (
            sum(row.chunks for row in own),
            own[0].first_chunk,
            own[-1].last_chunk,
        )
        assert 2 <= len(own) <= 3
    (journal,) = call.journals()
    assert SECRET not in journal.read_bytes()
    assert DIGIT.encode() not in journal.read_bytes()


@pytest.mark.parametrize("encoding", list(Encoding))
def test_every_encoding_is_silenced(tmp_path: Path, encoding: Encoding) -> None:
    """Listeners get what is silence in their format."""
    call = Call(tmp_path, encoding=encoding)
    call.begin()
    call.send(10)
    heard = Heard(call)
    call.pause()
    call.send(10, SECRET)
    call.resume()
    call.send(10)
    call.stop()
    heard.finish()
    call.render()
    silence = {Encoding.PCMU: b"\xff", Encoding.PCMA: b"\xd5", Encoding.L16: b"\0"}[encoding]
    assert silence * call.size in heard.audio(Format.PAYLOAD)
    assert SECRET not in heard.everything()


def test_loss_around_a_pause_is_still_loss(call: Call) -> None:
    """One chunk before it, one within, which nobody misses, and one behind it."""
    call.lost = {200, 300, 407}  # the last before, one within, the second behind
    pause_in_the_middle(call)
    document, _ = call.render()
    kinds = [
        [(start, length, kind) for start, length, kind, _ in track] for track in gaps(document)
    ]
    inbound, outbound = kinds
    lost = [gap for track in kinds for gap in track if gap[2] == "lost"]
    assert [20.0, 20.0] == [length for _, length, _ in lost], kinds
    assert 2 == sum(gap[2] == "paused" for track in (inbound, outbound) for gap in track)
    assert not document.complete


def test_a_pause_until_the_end_is_a_gap_at_the_end(call: Call) -> None:
    """The file is as long as the call was."""
    call.begin()
    call.send(50)
    call.pause()
    call.send(50, SECRET)
    call.stop()
    document, _ = call.render()
    assert [[(1000, 1000, "paused", "card")]] * 2 == gaps(document)
    assert "stream_ended" == document.pauses[0].end
    assert document.complete


def test_a_crash_within_a_pause_shows_the_pause(call: Call) -> None:
    """As far as the journal was told: that is every second."""
    call.begin()
    call.send(50)
    call.pause()
    call.send(125, SECRET)
    document, _ = call.render()
    for (start, length, kind, _), *_ in gaps(document):
        assert (1000.0, "paused") == (start, kind)
        assert 2000 <= length <= 2500
    assert "crash" == document.pauses[0].end
    assert document.paused_ms >= 2000


def test_a_stream_that_starts_again_starts_paused(call: Call) -> None:
    """On another socket; nothing of it is kept, and nothing of it is lost, until it is resumed."""
    call.begin()
    call.send(50)
    call.pause()
    call.send(25, SECRET)
    call.session.closed(code=1006, clean=False)
    call.session = call.open()
    call.begin()
    call.send(50, SECRET)
    call.resume()
    call.send(50)
    call.stop()
    call.spool.close()
    assert 2 == len(call.ended)
    document, _ = call.render()
    assert document.previous is not None
    kinds = {kind for track in gaps(document) for _, _, kind, _ in track}
    assert {"paused"} == kinds
    for track in document.tracks:
        assert 50 == track.chunks.written
    assert {"audio_paused"} == {f.code for f in document.findings} - {"connection_lost"}


def test_a_pause_ends_for_new_streams_when_its_time_is_over(call: Call) -> None:
    """However its end was missed."""
    call.begin()
    call.pause()
    call.session.closed(code=1006, clean=False)
    call.ms += 60_000
    call.session = call.open()
    call.begin()
    call.send(10)
    assert 10 * len(Track) == call.session.chunks


def test_another_call_goes_on(call: Call) -> None:
    """A pause is of one call."""
    call.begin()
    call.send(10)
    assert [] == call.recorder.pause(Pause("another", "", STARTED_AT_MS + 60_000))
    call.send(10)
    assert 20 * len(Track) == call.session.chunks


def test_a_second_pause_takes_the_place_of_the_first(call: Call) -> None:
    """One gap, two pauses with their own reasons."""
    call.begin()
    call.send(50)
    call.pause("card")
    call.send(50, SECRET)
    call.pause("health")
    call.send(50, SECRET)
    call.resume()
    call.send(50)
    call.stop()
    document, _ = call.render()
    assert [("card", "renewed"), ("health", "resumed")] == [
        (pause.reason, pause.end.value) for pause in document.pauses
    ]
    assert 2000 == document.paused_ms
    assert [[(1000, 2000, "paused", "card")]] * 2 == gaps(document)


def test_what_cannot_be_used_is_not_kept_either(call: Call) -> None:
    """Refused audio would be in `refused.raw`, and half a message in the journal."""
    call.begin()
    call.send(10)
    call.pause()
    digits = DIGIT.encode()
    for message in (
        b'{"event":"dtmf","dtmf":{"digit":"' + digits,
        b'{"event":"media","media":{"track":"third","payload":"' + base64.b64encode(SECRET * 9),
        b'{"event":"media","media":{"track":"inbound","chunk":"11","payload":"!' + digits + b'"}}',
        b'{"event":"media","streamSid":"other","media":{"track":"inbound","payload":"'
        + base64.b64encode(SECRET * 9)
        + b'"}}',
    ):
        call.session.message_received(message)
    call.resume()
    call.send(10)
    call.stop()
    document, _ = call.render()
    assert document.refused is None


def test_levels_are_those_of_silence(call: Call) -> None:
    """Whoever watches levels would hear how loud it is."""
    call.begin()
    call.send(10)
    call.pause()
    call.send(10, SECRET)
    (live,) = call.recorder.hub.streams()
    position = call.recorder.hub.position(live.recording_id)
    assert position is not None
    assert position.latest is not None
    chunks = (position.latest, *position.others)
    assert {b"\xff" * 160} == {chunk.payload for chunk in chunks}
    assert {"reason": "card", "until": "2026-11-22T20:31:00.200Z"} == position.pause
    assert 0 == position.missing


class Heard:
    """Listeners of all shapes, as feeds would give them what comes."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._encoders: dict[Format, Any] = {}
        self._got: dict[Format, list[bytes | str]] = {shape: [] for shape in Format}
        hub: Hub = call.recorder.hub
        (live,) = hub.streams()
        self.pauses: list[LivePause] = []
        hub.subscribe(live.recording_id, self._on_event)

    def _on_event(self, event: StreamEvent) -> None:
        if isinstance(event, Subscribed):
            order = ByteOrder.LITTLE
            for shape in Format:
                spec = OutputSpec(shape, "stereo")
                self._encoders[shape] = encoders.encoder(spec, event, byte_order=order)
            return
        if isinstance(event, LivePause):
            self.pauses.append(event)
        for shape, encoder in self._encoders.items():
            for item in encoder.feed(event):
                self._got[shape].extend(item.messages())

    def finish(self) -> None:
        """Deliver everything."""
        while self._call.scheduler.run():
            pass

    def audio(self, shape: Format) -> bytes:
        """Return the audio of one listener."""
        return b"".join(each for each in self._got[shape] if isinstance(each, bytes))

    def texts(self, shape: Format) -> list[dict[str, Any]]:
        """Return the texts of one listener."""
        return [json.loads(each) for each in self._got[shape] if isinstance(each, str)]

    def everything(self) -> bytes:
        """Return all that anybody got; payloads in base64 are decoded."""
        found = b"".join(self.audio(shape) for shape in Format)
        for text in self.texts(Format.MESSAGES):
            found += base64.b64decode(text.get("media", {}).get("payload", ""))
            found += json.dumps(text).encode()
        return found + json.dumps(self.texts(Format.PCM16)).encode()


def test_listeners_get_notices_and_silence(call: Call) -> None:
    """Nothing is called lost, and their clock goes on."""
    call.begin()
    call.send(10)
    heard = Heard(call)
    call.pause()
    call.press()
    call.send(60, SECRET)
    call.resume()
    call.send(10)
    call.stop()
    heard.finish()
    notices = [text["event"] for text in heard.texts(Format.PCM16)]
    assert ["paused", "resumed", "stopped"] == notices
    paused, resumed, _ = heard.texts(Format.PCM16)
    assert ("card", 200) == (paused["reason"], paused["timestamp_ms"])
    assert 1400 == resumed["timestamp_ms"]
    assert 70 * 160 * 2 * 2 == len(heard.audio(Format.PCM16))
    media = [text for text in heard.texts(Format.MESSAGES) if text["event"] == "media"]
    assert 70 * 2 == len(media)
    assert SECRET not in heard.everything()
    assert DIGIT.encode() not in heard.everything()


def test_nothing_is_paid_where_nothing_is_paused(call: Call) -> None:
    """The bound method of the recording is what a chunk is given to, before and after."""
    call.begin()
    call.send(10)
    before = call.session._recordings.keep_chunk
    call.pause()
    call.send(1, SECRET)
    assert before != call.session._recordings.keep_chunk
    call.resume()
    assert before == call.session._recordings.keep_chunk
