"""A call's stream comes in over a real socket; finished files come out."""

from __future__ import annotations

import math
import os
import random
import signal
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import trustme

from receiver.disk import layout
from receiver.journal.records import ChunkRecord, Reader
from receiver.media import EndReason, GapKind, Track
from receiver.recording.document import Recording
from tests.bounds import at_most
from tests.end_to_end import sender
from tests.end_to_end.receiver_process import (
    WAIT_SECONDS,
    ReceiverProcess,
    read_document,
    running_receiver,
)
from tests.receiver.helpers.g711 import MULAW

SIGNALWIRE_SILENCE = b"\xff"
AUDIO = bytes(range(160))


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[ReceiverProcess]:
    """Run a receiver on a free port, without TLS."""
    with running_receiver(tmp_path) as process:
        yield process


def tone(hertz: float, seconds: float) -> bytes:
    """Return a tone as mu-law codes, none of which is silence."""
    wave = (12_000 * math.sin(2 * math.pi * hertz * n / 8000) for n in range(int(8000 * seconds)))
    nearest = np.abs(np.array(MULAW)[None, :] - np.fromiter(wave, float)[:, None]).argmin(1)
    return bytes(nearest.astype(np.uint8))


def decoded(codes: bytes) -> list[int]:
    """Return mu-law codes as samples, by the reference table."""
    return [MULAW[code] for code in codes]


def samples(file: Path) -> list[int]:
    """Return a WAV file's samples."""
    read, rate = soundfile.read(file, dtype="int16")
    assert rate in (8000, 16000, 24000)
    return [int(sample) for sample in read]


def test_lossy_tones_come_out_at_their_places(receiver: ReceiverProcess) -> None:
    """4.00 s and 3.00 s with 10 % and 30 % loss: two files of 4.00 s, every chunk in place."""
    source = random.Random(4)
    audio = {"inbound": tone(440, 4), "outbound": tone(1000, 3)}
    loss = {"inbound": 0.1, "outbound": 0.3}
    chunks = {
        track: [piece for piece in sender.pieces(audio[track]) if source.random() > loss[track]]
        for track in audio
    }
    chunks["inbound"] = sorted({*chunks["inbound"], (200, audio["inbound"][-160:])})
    with sender.dial(receiver.url) as socket:
        sender.send_call(socket, [sender.connected(), sender.start({"FirstName": "Jane"})])
        for track, pieces in chunks.items():
            sender.send_call(socket, (sender.media(track, n, p) for n, p in pieces))
        socket.send(sender.stop())
        folder, document = receiver.published()
    for track, arrived in chunks.items():
        expected = [0] * 32_000
        for number, payload in arrived:
            expected[(number - 1) * 160 : number * 160] = decoded(payload)
        assert expected == samples(folder / f"{track}.wav")
    assert document.end_reason is EndReason.STOP
    assert not document.complete
    assert {"FirstName": "Jane"} == document.parameters
    for recorded in document.tracks:
        arrived = chunks[recorded.track.value]
        lost = sum(gap.duration_ms for gap in recorded.gaps if gap.kind is GapKind.LOST)
        assert 20 * (arrived[-1][0] - len(arrived)) == lost
        assert len(arrived) == recorded.chunks.written


def test_every_mulaw_code_comes_out_exact(receiver: ReceiverProcess) -> None:
    """All 256 codes decode to the samples that G.711 gives them."""
    codes = bytes(range(256))
    with sender.dial(receiver.url) as socket:
        sender.send_call(socket, [sender.start(), sender.media("inbound", 1, codes)])
        socket.send(sender.stop())
        folder, document = receiver.published()
    assert decoded(codes) == samples(folder / "inbound.wav")
    assert document.complete


@pytest.mark.parametrize(
    ("step", "finding", "complete"), [(1, "track_silent", True), (2, "audio_lost", False)]
)
def test_a_track_that_is_named_and_never_comes_is_told(
    receiver: ReceiverProcess, step: int, finding: str, complete: bool
) -> None:
    """It was lost if each second message never came, and silent if none is missing."""
    audio = [(number, random.Random(number).randbytes(160)) for number in range(1, 51)]
    with sender.dial(receiver.url) as socket:
        socket.send(sender.start())
        for number, payload in audio:
            socket.send(sender.media("inbound", number, payload, sequence=2 + step * (number - 1)))
        socket.send(sender.stop(2 + step * len(audio)))
        folder, document = receiver.published()
    assert ["inbound.wav"] == [file.name for file in folder.glob("*.wav")]
    assert [(finding, Track.OUTBOUND)] == [(one.code, one.track) for one in document.findings]
    assert complete == document.complete


def test_ninety_parameters_are_complete(receiver: ReceiverProcess) -> None:
    """Names and values of any text arrive in recording.json exactly as sent."""
    parameters = {f"Größe-{n}-名前-🎧": f'wért {n} "quoted" \\ \n\t€' * 3 for n in range(90)}
    with sender.dial(receiver.url) as socket:
        sender.send_call(socket, [sender.connected(), sender.start(parameters), sender.stop()])
        _, document = receiver.published()
    assert parameters == document.parameters
    assert () == document.tracks


def test_a_close_without_stop_ends_the_recording(receiver: ReceiverProcess) -> None:
    """The end reason is that no stop came; what came is complete."""
    with sender.dial(receiver.url) as socket:
        sender.send_call(socket, [sender.start(), sender.media("outbound", 1, b"\x00" * 160)])
    folder, document = receiver.published()
    assert document.end_reason is EndReason.CLOSED
    assert ["outbound.wav"] == sorted(path.name for path in folder.glob("*.wav"))
    assert document.complete


def test_two_streams_on_one_socket_are_two_recordings(receiver: ReceiverProcess) -> None:
    """A start of another stream replaces the first, which is published."""
    with sender.dial(receiver.url) as socket:
        for sid in ("first", "second"):
            sender.send_call(
                socket,
                [sender.start(stream_sid=sid), sender.media("inbound", 1, sid.encode() * 20)],
            )
        first = receiver.published()[1]
        socket.send(sender.stop())
        second = receiver.published()[1]
    assert ("first", EndReason.REPLACED) == (first.stream_sid, first.end_reason)
    assert ("second", EndReason.STOP) == (second.stream_sid, second.end_reason)


def test_media_before_start_is_kept(receiver: ReceiverProcess) -> None:
    """Audio that overtakes the start message is in the recording, in its place."""
    first, second = bytes(range(160)), bytes(range(96, 256))
    with sender.dial(receiver.url) as socket:
        early = sender.media("inbound", 1, first)
        later = sender.media("inbound", 2, second)
        sender.send_call(socket, [early, sender.connected(), sender.start(), later, sender.stop()])
        folder, document = receiver.published()
    assert decoded(first + second) == samples(folder / "inbound.wav")
    assert sender.CALL_SID == document.call_sid


def test_audio_of_an_unknown_encoding_is_kept_as_it_came(receiver: ReceiverProcess) -> None:
    """The encoding is never guessed, and no payload is lost."""
    with sender.dial(receiver.url) as socket:
        socket.send(sender.start(encoding="audio/opus"))
        for number, payload in sender.pieces(b"opus" * 80, 160):
            socket.send(sender.media("inbound", number, payload))
        socket.send(sender.stop())
        folder, document = receiver.published()
    assert (b"opus" * 80, ()) == ((folder / "refused.raw").read_bytes(), document.tracks)
    assert "format_refused" in [finding.code for finding in document.findings]


def test_what_is_no_media_stream_is_closed_with_a_reason(receiver: ReceiverProcess) -> None:
    """At its first message, which the log describes."""
    with sender.dial(receiver.url) as socket:
        socket.send('{"type":"open","serverseq":0,"version":"2"}')
        with pytest.raises(Exception, match="Genesys AudioHook") as closed:
            socket.recv(timeout=at_most(10))
    assert closed.value.rcvd.code == 1003  # type: ignore[attr-defined]  # ConnectionClosed


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
def test_linear_pcm_comes_out_as_it_was(receiver: ReceiverProcess, rate: int) -> None:
    """L16, little endian by default, at each rate of the provider."""
    audio = random.Random(rate).randbytes(rate // 25 * 2)
    with sender.dial(receiver.url) as socket:
        socket.send(sender.start(encoding="audio/x-L16", rate=rate))
        for number, payload in sender.pieces(audio, rate // 50 * 2):
            socket.send(sender.media("inbound", number, payload))
        socket.send(sender.stop())
        folder, document = receiver.published()
    assert np.frombuffer(audio, "<i2").tolist() == samples(folder / "inbound.wav")
    assert rate == document.media_format.sample_rate


def test_doubled_and_reordered_chunks_are_repaired(receiver: ReceiverProcess) -> None:
    """Any order over a whole call comes out in order, once."""
    audio = tone(300, 3)
    arrivals = list(sender.pieces(audio)) * 2
    random.Random(7).shuffle(arrivals)
    with sender.dial(receiver.url) as socket:
        socket.send(sender.start())
        sender.send_call(socket, (sender.media("inbound", n, p) for n, p in arrivals))
        socket.send(sender.stop())
        folder, document = receiver.published()
    assert decoded(audio) == samples(folder / "inbound.wav")
    assert 150 == document.tracks[0].chunks.duplicate
    assert document.complete


def test_ctrl_c_publishes_what_is_open(receiver: ReceiverProcess) -> None:
    """A live stream is kept up to then, with the reason, and the exit code is 0."""
    with sender.dial(receiver.url) as socket:
        socket.send(sender.start())
        sender.send_call(
            socket, (sender.media("inbound", n, p) for n, p in sender.pieces(tone(300, 1)))
        )
        receiver.wait_for("stream_started")
        assert 0 == receiver.stop(signal.SIGINT)
    _, document = receiver.published()
    assert document.end_reason is EndReason.SHUTDOWN
    assert "Traceback" not in receiver.raw_log


def test_a_killed_receiver_leaves_nothing_behind_for_good(tmp_path: Path) -> None:
    """After SIGKILL the next start publishes what was on disk, as a crash."""
    audio = tone(300, 2)
    with running_receiver(tmp_path) as first, sender.dial(first.url) as socket:
        socket.send(sender.start({"Case": "7"}))
        sender.send_call(socket, (sender.media("inbound", n, p) for n, p in sender.pieces(audio)))
        journal = wait_for_chunks(first.spool, 100)
        first.process.kill()
        first.ended()
    with running_receiver(tmp_path) as second:
        folder, document = second.published()
    assert decoded(audio) == samples(folder / "inbound.wav")
    assert document.end_reason is EndReason.CRASH
    assert {"Case": "7"} == document.parameters
    assert not document.complete
    assert not journal.exists()


def wait_for_chunks(spool: Path, count: int) -> Path:
    """Return the spool's only journal once it holds so many chunks."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        for journal in spool.glob("*.journal"):
            records = [record for _, record in Reader([journal.read_bytes()])]
            if sum(isinstance(record, ChunkRecord) for record in records) >= count:
                return journal
        time.sleep(0.02)  # there is no event for when a file grows
    raise AssertionError("the journal did not grow")


def test_tls_and_stereo(tmp_path: Path) -> None:
    """Over wss with a real certificate, and with both tracks in one file on request."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(cert)
    certificate.private_key_pem.write_to_path(key)
    key.chmod(0o600)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    left, right = tone(440, 1), tone(1000, 2)
    options = ("--tls", str(cert), str(key), "--stereo")
    with running_receiver(tmp_path, *options) as process:
        assert process.url.startswith("wss://127.0.0.1:")
        with sender.dial(process.url, trust=trust) as socket:
            socket.send(sender.start())
            for track, audio in (("inbound", left), ("outbound", right)):
                sender.send_call(
                    socket, (sender.media(track, n, p) for n, p in sender.pieces(audio))
                )
            socket.send(sender.stop())
            folder, _ = process.published()
    stereo, _ = soundfile.read(folder / "stereo.wav", dtype="int16")
    assert decoded(left) + [0] * 8000 == stereo[:, 0].tolist()
    assert decoded(right) == stereo[:, 1].tolist()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("first", [100, 4000])
def test_a_stream_goes_on_behind_a_restart(tmp_path: Path, end: signal.Signals, first: int) -> None:
    """However the receiver ended; in the first minute, and after it."""
    with running_receiver(tmp_path) as receiver, sender.dial(receiver.url) as socket:
        numbers = range(first, first + 20)
        chunks = [sender.media("inbound", n, AUDIO, sequence=n + 1) for n in numbers]
        sender.send_call(socket, [sender.start(), *chunks])
        receiver.wait_for("stream_started")
        wait_until_written(receiver, 20 * 160)
        receiver.stop(end)
    with running_receiver(tmp_path) as receiver, sender.dial(receiver.url) as socket:
        before = receiver.published()[1] if end is signal.SIGKILL else published_by(receiver)
        numbers = range(first + 25, first + 45)
        chunks = [sender.media("inbound", n, AUDIO, sequence=n + 1) for n in numbers]
        sender.send_call(socket, [sender.start(), *chunks, sender.stop()])
        after = receiver.published()[1]
    assert after.previous is not None
    assert (before.id, sender.STREAM_SID) == (after.previous.id, after.previous.stream_sid)
    assert abs(after.previous.gap_ms - 5 * 20) <= 20
    assert 20 * 20 + after.previous.gap_ms >= after.duration_ms >= 20 * 20


def wait_until_written(receiver: ReceiverProcess, size: int) -> None:
    """Wait until the one journal holds so many bytes."""
    while sum(path.stat().st_size for path in receiver.spool.glob("*.journal")) < size:
        os.sched_yield()


def published_by(receiver: ReceiverProcess) -> Recording:
    """Return the document of the one recording that is there."""
    (path,) = receiver.recordings.rglob(layout.RECORDING_JSON)
    return read_document(path.parent)
