"""How a receiver lives and ends: draining, reloading, silence, a full disk, hostile peers."""

from __future__ import annotations

import http.client
import os
import signal
import ssl
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from websockets.exceptions import ConnectionClosed, InvalidStatus

from receiver.ingest import session
from receiver.media import EndReason
from tests.bounds import at_most
from tests.end_to_end import sender
from tests.end_to_end.receiver_process import TOKEN, ReceiverProcess, running_receiver
from tests.receiver.helpers.wire import vanish

AUDIO = bytes(range(160))


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[ReceiverProcess]:
    """Run a receiver on a free port, without TLS."""
    with running_receiver(tmp_path) as process:
        yield process


def get(receiver: ReceiverProcess, path: str, *, method: str = "GET") -> tuple[int, str]:
    """Return status and body of a plain request."""
    connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=at_most(10))
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def refusal(receiver: ReceiverProcess, *, token: str = TOKEN) -> int:
    """Return the status with which an upgrade is refused."""
    with pytest.raises(InvalidStatus) as refused, sender.dial(receiver.url, token=token):
        pass
    return refused.value.response.status_code


def test_health_and_readiness_are_answered(receiver: ReceiverProcess) -> None:
    """Two paths for those who watch; anything else is not there."""
    assert (200, "ok\n") == get(receiver, "/healthz")
    assert (200, "ready\n") == get(receiver, "/readyz")
    for path in ("/healthz", "/readyz"):
        assert (200, "") == get(receiver, path, method="HEAD")
    assert 404 == get(receiver, "/")[0]
    assert 401 == get(receiver, "/audio")[0]


def test_sigterm_waits_for_live_streams(receiver: ReceiverProcess) -> None:
    """No new streams, the live one goes on to its stop, then the process ends with 0."""
    with sender.dial(receiver.url) as socket:
        socket.send(sender.start())
        receiver.wait_for("stream_started")
        receiver.process.send_signal(signal.SIGTERM)
        receiver.wait_for("draining")
        assert (503, "not ready: draining\n") == get(receiver, "/readyz")
        assert 503 == refusal(receiver)
        sender.send_call(socket, [sender.media("inbound", 1, AUDIO), sender.stop()])
        _, document = receiver.published()
    assert 0 == receiver.ended()
    assert (EndReason.STOP, True) == (document.end_reason, document.complete)


def test_sigterm_waits_for_a_call_that_is_about_to_begin(receiver: ReceiverProcess) -> None:
    """A socket that was just admitted has not had the time to send its start."""
    with sender.dial(receiver.url) as socket:
        receiver.process.send_signal(signal.SIGTERM)
        receiver.wait_for("draining")
        sender.send_call(socket, [sender.start(), sender.media("inbound", 1, AUDIO)])
        receiver.wait_for("stream_started")
        socket.send(sender.stop())
        _, document = receiver.published()
    assert 0 == receiver.ended()
    assert (EndReason.STOP, True) == (document.end_reason, document.complete)


def test_a_second_sigterm_does_not_wait_for_a_silent_socket(receiver: ReceiverProcess) -> None:
    """It means now, whoever may be about to speak."""
    with sender.dial(receiver.url):
        receiver.process.send_signal(signal.SIGTERM)
        receiver.wait_for("draining")
        began = time.monotonic()
        assert 0 == receiver.stop(signal.SIGTERM)
        assert time.monotonic() - began < session.LONGEST_UNSAID_SECONDS / 2


def test_a_second_sigterm_publishes_what_is_left(receiver: ReceiverProcess) -> None:
    """Who cannot wait gets what has come so far, marked as cut short."""
    with sender.dial(receiver.url) as socket:
        sender.send_call(socket, [sender.start(), sender.media("inbound", 1, AUDIO)])
        receiver.wait_for("stream_started")
        receiver.process.send_signal(signal.SIGTERM)
        receiver.wait_for("draining")
        assert 0 == receiver.stop(signal.SIGTERM)
    _, document = receiver.published()
    assert document.end_reason is EndReason.SHUTDOWN
    assert ["cut_short", "track_silent"] == [finding.code for finding in document.findings]
    assert not document.complete
    assert 1 == document.tracks[0].chunks.written


def test_draining_ends_at_its_timeout(tmp_path: Path) -> None:
    """A stream that never ends is published when the time is over."""
    with running_receiver(tmp_path, "--drain-timeout", "0") as receiver:
        with sender.dial(receiver.url) as socket:
            sender.send_call(socket, [sender.start(), sender.media("inbound", 1, AUDIO)])
            receiver.wait_for("stream_started")
            assert 0 == receiver.stop(signal.SIGTERM)
        assert receiver.published()[1].end_reason is EndReason.SHUTDOWN


def test_sighup_rotates_tokens_under_a_live_stream(receiver: ReceiverProcess) -> None:
    """The new token opens, the old one does not, and the live stream is whole."""
    with sender.dial(receiver.url) as socket:
        socket.send(sender.start())
        receiver.token_file.write_text("another-token-entirely\n")
        receiver.process.send_signal(signal.SIGHUP)
        receiver.wait_for("reloaded")
        assert 401 == refusal(receiver)
        with sender.dial(receiver.url, token="another-token-entirely"):
            pass
        sender.send_call(socket, [sender.media("inbound", 1, AUDIO), sender.stop()])
        assert receiver.published()[1].complete


IGNORING = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, "-m", "receiver", *sys.argv[1:]])
"""


def test_a_receiver_that_is_started_with_sighup_ignored_never_ends_by_it(tmp_path: Path) -> None:
    """Not even while Python starts, before a line of ours runs; it reads again all the same."""

    def hang_up(process_id: int) -> None:
        """Send the signal from when it is ignored to when it is handled."""
        status, handled = Path(f"/proc/{process_id}/status"), 0
        while not handled:
            lines = dict(line.split(":\t") for line in status.read_text().splitlines())
            handled, ignored = (int(lines[name], 16) & 1 for name in ("SigCgt", "SigIgn"))
            if handled or ignored:
                os.kill(process_id, signal.SIGHUP)

    with running_receiver(tmp_path, program=("-c", IGNORING), started=hang_up) as receiver:
        receiver.wait_for("reloaded")
        assert 0 == receiver.stop()


def test_a_bad_token_file_keeps_the_old_tokens(receiver: ReceiverProcess) -> None:
    """A reload that fails is logged and changes nothing."""
    receiver.token_file.write_text("short\n")
    receiver.process.send_signal(signal.SIGHUP)
    assert "16" in receiver.wait_for("reload_failed")["error"]
    with sender.dial(receiver.url) as socket:
        sender.send_call(socket, [sender.start(), sender.stop()])
        receiver.published()


def test_a_bad_token_file_holds_back_no_good_certificate(tmp_path: Path) -> None:
    """SIGHUP replaces or keeps each part on its own, with a log line for each."""
    first, second = trustme.CA(), trustme.CA()
    options = ("--tls", *map(str, issue(first, tmp_path)), "--tap-token-file", "taps")
    (tmp_path / "taps").write_text("a-tap-token-that-is-long-enough\n")
    (tmp_path / "taps").chmod(0o600)
    with running_receiver(tmp_path, *options) as receiver:
        issue(second, tmp_path)
        receiver.token_file.write_text("short\n")
        (tmp_path / "taps").write_text("")
        receiver.process.send_signal(signal.SIGHUP)
        assert "stream tokens" == receiver.wait_for("reload_failed")["part"]
        assert "tap tokens" == receiver.wait_for("reload_failed")["part"]
        assert "certificate" == receiver.wait_for("reloaded")["part"]
        with sender.dial(receiver.url, trust=trusting(second)):
            pass  # with the old token, and the new certificate
        (tmp_path / "key.pem").write_text("no key")
        receiver.token_file.write_text("another-token-entirely\n")
        receiver.process.send_signal(signal.SIGHUP)
        assert "stream tokens" == receiver.wait_for("reloaded")["part"]
        assert "tap tokens" == receiver.wait_for("reload_failed")["part"]
        assert "certificate" == receiver.wait_for("reload_failed")["part"]
        trust = trusting(second)
        with sender.dial(receiver.url, token="another-token-entirely", trust=trust):
            pass


def test_a_pipe_in_place_of_the_certificate_holds_up_nothing(tmp_path: Path) -> None:
    """It is refused like any other bad pair, and the old one serves."""
    authority = trustme.CA()
    certificate, key = issue(authority, tmp_path)
    with running_receiver(tmp_path, "--tls", str(certificate), str(key)) as receiver:
        certificate.unlink()
        os.mkfifo(certificate)
        receiver.process.send_signal(signal.SIGHUP)
        problem = f"cannot read {certificate}: not a regular file"
        assert problem == receiver.wait_for("reload_failed")["error"]
        with sender.dial(receiver.url, trust=trusting(authority)) as socket:
            sender.send_call(socket, [sender.start(), sender.stop()])
            receiver.published()


def issue(authority: trustme.CA, folder: Path) -> tuple[Path, Path]:
    """Write a certificate for this machine and its key, over those that are there."""
    pair, certificate, key = (
        authority.issue_cert("127.0.0.1"),
        folder / "cert.pem",
        folder / "key.pem",
    )
    pair.cert_chain_pems[0].write_to_path(certificate)
    pair.private_key_pem.write_to_path(key)
    key.chmod(0o600)
    return certificate, key


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """Return what a client trusts."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.needs("root")
def test_a_call_on_hold_lives_and_one_that_has_vanished_ends_as_idle(tmp_path: Path) -> None:
    """A socket without a call ends as it always did."""
    options = ("--idle-timeout-seconds", "1")
    with (
        running_receiver(tmp_path, *options) as receiver,
        sender.dial(receiver.url) as holding,
        sender.dial(receiver.url) as vanishing,
        sender.dial(receiver.url) as unused,
    ):
        sender.send_call(holding, [sender.start(), sender.media("inbound", 1, AUDIO)])
        other = [sender.start(stream_sid="other"), sender.media("inbound", 1, AUDIO)]
        sender.send_call(vanishing, other)
        for _ in range(2):
            receiver.wait_for("stream_started")
        vanish(vanishing.socket)
        document = receiver.published()[1]
        assert ("other", EndReason.IDLE) == (document.stream_sid, document.end_reason)
        with pytest.raises(ConnectionClosed):
            unused.recv(timeout=at_most(10))
        vanishing.socket.close()
        sender.send_call(holding, [sender.media("inbound", 2, AUDIO, at_ms=3000), sender.stop()])
        document = receiver.published()[1]
        assert EndReason.STOP is document.end_reason
        assert 2 == document.tracks[0].chunks.written


def test_a_receiver_that_was_held_up_ends_no_call_as_idle(tmp_path: Path) -> None:
    """It was stopped itself, for longer than a call may be silent: what came meanwhile is kept."""
    options = ("--idle-timeout-seconds", "1")
    with running_receiver(tmp_path, *options) as receiver, sender.dial(receiver.url) as socket:
        sender.send_call(socket, [sender.start(), sender.media("inbound", 1, AUDIO)])
        receiver.wait_for("stream_started")
        receiver.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, receiver.process.pid, os.WSTOPPED)
        later = [sender.media("inbound", number, AUDIO) for number in range(2, 100)]
        sender.send_call(socket, [*later, sender.stop()])
        time.sleep(2.5)  # the time is the fault: longer than the idle timeout and two looks
        receiver.process.send_signal(signal.SIGCONT)
        document = receiver.published()[1]
        assert EndReason.STOP is document.end_reason
        assert 99 == document.tracks[0].chunks.written


def test_no_new_streams_without_free_space(tmp_path: Path) -> None:
    """Under the floor, new streams are refused and readiness has the reason."""
    with running_receiver(tmp_path, "--min-free", "1000T") as receiver:
        assert (503, "not ready: disk full\n") == get(receiver, "/readyz")
        assert 503 == refusal(receiver)


def test_more_streams_than_allowed_are_refused(tmp_path: Path) -> None:
    """The limit is a setting; a place that becomes free is given again."""
    with running_receiver(tmp_path, "--max-streams", "1") as receiver:
        with sender.dial(receiver.url) as socket:
            socket.send(sender.start())
            receiver.wait_for("stream_started")
            assert 503 == refusal(receiver)
            socket.send(sender.stop())
            receiver.published()
        with sender.dial(receiver.url):
            pass


BAD_MESSAGES: list[str | bytes] = [
    b"\x00\xff\xfe",
    "{",
    "[]",
    '{"event":' + "[" * 100_000,
    '{"event":"media","media":{"track":"inbound","payload":"***"}}',
    '{"event":"media","media":{"track":"sideways","payload":"AAAA"}}',
    '{"event":"media","media":7}',
    '{"event":"\\ud800"}',
    '{"event":null,"sequenceNumber":' + "9" * 5000 + "}",
    '{"event":"dtmf","dtmf":{"digit":5}}',
]


def test_hostile_messages_are_counted_and_the_stream_lives(receiver: ReceiverProcess) -> None:
    """Whatever comes between two chunks, both are kept."""
    for bad in BAD_MESSAGES:
        with sender.dial(receiver.url) as socket:
            socket.send(sender.start())
            socket.send(sender.media("inbound", 1, AUDIO))
            socket.send(bad)
            socket.send(sender.media("inbound", 2, AUDIO))
            socket.send(sender.stop())
            _, document = receiver.published()
        counted = {finding.code for finding in document.findings}
        assert counted & {"messages_rejected", "unknown_events"}, bad
        assert (EndReason.STOP, 2) == (document.end_reason, document.tracks[0].chunks.written), bad


def test_too_many_bad_messages_close_the_stream_and_keep_its_audio(
    receiver: ReceiverProcess,
) -> None:
    """After more than 50 within 10 s the socket closes with 1008."""
    with sender.dial(receiver.url) as socket:
        sender.send_call(socket, [sender.start(), sender.media("inbound", 1, AUDIO)])
        sender.send_call(socket, ["nonsense"] * 51)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=at_most(10))
    assert closed.value.rcvd is not None
    assert 1008 == closed.value.rcvd.code
    _, document = receiver.published()
    assert (EndReason.PROTOCOL_ERROR, 1) == (
        document.end_reason,
        document.tracks[0].chunks.written,
    )


def test_ids_from_the_wire_stay_out_of_paths_and_log_lines(receiver: ReceiverProcess) -> None:
    """Ids and parameters that look like paths or log lines are only ever text."""
    nasty = '../../etc/passwd\n{"event":"recording_published","folder":"/"}\x1b[31m'
    parameters = {nasty: nasty, "__proto__": "x", "complete": "false"}
    with sender.dial(receiver.url) as socket:
        socket.send(sender.start(parameters, stream_sid=nasty, call_sid=nasty))
        sender.send_call(socket, [sender.media("inbound", 1, AUDIO), sender.stop()])
        folder, document = receiver.published()
    assert (parameters, nasty) == (document.parameters, document.call_sid)
    assert document.complete
    assert receiver.recordings in folder.parents
    assert 0 == receiver.stop()
    naming = [line for line in receiver.raw_log.splitlines() if "passwd" in line]
    assert naming
    assert all(line.startswith("{") for line in naming)
    assert "\x1b" not in receiver.raw_log


def test_long_ids_stay_short_in_the_log(receiver: ReceiverProcess) -> None:
    """A peer may name its stream as it likes, but not fill our log with it."""
    with sender.dial(receiver.url) as socket:
        socket.send(sender.start(stream_sid="s" * 100_000, call_sid="c" * 100_000))
        sender.send_call(socket, [sender.media("inbound", 1, AUDIO), sender.stop()])
        _, document = receiver.published()
    assert (4096, 4096) == (len(document.stream_sid), len(document.call_sid))
    assert 0 == receiver.stop()
    assert max(map(len, receiver.raw_log.splitlines())) < 1000


def test_metrics_count_what_happened(tmp_path: Path) -> None:
    """A loopback listener has counters of what came, what became of it, and what was refused."""
    with running_receiver(tmp_path, "--metrics-port", "0") as receiver:
        url = receiver.wait_for("serving_metrics")["url"]
        assert 401 == refusal(receiver, token="not-a-token-of-theirs")
        with sender.dial(receiver.url) as socket:
            socket.send(sender.start())
            for number in (1, 2, 2):
                socket.send(sender.media("inbound", number, AUDIO))
            socket.send(sender.media("inbound", 3, AUDIO).replace('"payload": "', '"payload": "*'))
            socket.send(sender.stop())
            receiver.published()
        with urllib.request.urlopen(url, timeout=at_most(10)) as answer:  # noqa: S310  our own loopback url
            lines = set(answer.read().decode().splitlines())
    expected = {
        "tapreel_streams_active 0.0",
        "tapreel_streams_started_total 1.0",
        'tapreel_streams_ended_total{reason="stop"} 1.0',
        "tapreel_chunks_received_total 3.0",
        'tapreel_chunks_total{fate="written",track="inbound"} 2.0',
        'tapreel_chunks_total{fate="duplicate",track="inbound"} 1.0',
        'tapreel_chunks_total{fate="rejected",track="inbound"} 1.0',
        'tapreel_recordings_total{state="incomplete"} 1.0',
        'tapreel_handshakes_refused_total{reason="unknown"} 1.0',
    }
    assert set() == expected - lines
    names = {line.partition("{")[0].partition(" ")[0] for line in lines}
    assert {
        *("tapreel_sync_seconds_count", "tapreel_free_bytes", "tapreel_loop_lag_seconds"),
        *("tapreel_spool_held_seconds", "tapreel_journal_bytes_total", "tapreel_build_info"),
    } <= names
    assert not any(sender.CALL_SID in line or sender.STREAM_SID in line for line in lines)
