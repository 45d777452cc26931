"""A call is paused by command: what is sent meanwhile is nowhere, whatever happens to us."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from receiver.lifecycle.ledger import Ledger
from receiver.recording.document import Recording
from tests.bounds import at_most
from tests.end_to_end import sender
from tests.end_to_end.console_process import console_line
from tests.end_to_end.media_server import Consumer, rest_of
from tests.end_to_end.pausing import (
    DIGITS,
    KEY,
    MARKER,
    SPEECH,
    Live,
    order,
    paused_receiver,
    pausing,
    resuming,
    token,
)
from tests.end_to_end.receiver_process import ReceiverProcess
from tests.end_to_end.taps import tapped_receiver
from tests.end_to_end.withheld import Listeners, metrics_of, places_of
from tests.faults.faulty_disk import Orders
from tests.receiver.helpers.g711 import MULAW

pytestmark = pytest.mark.integration


def command(
    receiver: ReceiverProcess, *words: str, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run a command of ours against a receiver."""
    url = receiver.url.removesuffix("/audio")
    done = subprocess.run(
        [sys.executable, "-m", "receiver", *words, "--receiver", url],
        cwd=receiver.folder,
        env={"TAPREEL_CONTROL_KEY": KEY, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=at_most(60),
        check=False,
    )
    assert code == done.returncode, done.stderr
    return done


def has_marker(folder: Path) -> list[str]:
    """Return which WAV files have the marker, decoded; payloads are mu-law."""
    wanted = np.array([MULAW[byte] for byte in MARKER[:40]], np.int16).tobytes()
    found = []
    for path in folder.rglob("*.wav"):
        samples, _ = soundfile.read(path, dtype="int16")
        if wanted in samples.tobytes():
            found.append(str(path))
    return found


def assert_nowhere(folder: Path, **others: bytes) -> None:
    """Find the marker neither in any file, nor in what anybody was given."""
    markers = [MARKER[i : i + 40] for i in (0, 60, 120)] + [DIGITS.encode()]
    assert [] == places_of(markers, folder, **others)
    assert [] == has_marker(folder)


def test_a_pause_by_command_leaves_nothing_anywhere(tmp_path: Path) -> None:
    """Journal, spool, recording, peaks, time line, log, metrics, listeners, consumers."""
    consumer = Consumer()
    consumer.start()
    options = ("--forward", consumer.url, "--metrics-port", "0", "--log-level", "debug")
    with paused_receiver(tmp_path, *options) as receiver:
        call = Live(receiver)
        receiver.wait_for("stream_started")
        listening = Listeners(receiver)
        call.wait_for(SPEECH, 50)
        said = command(receiver, "pause", sender.CALL_SID, "--reason", "card").stdout
        assert said.startswith(f"paused {sender.CALL_SID} until 20")
        call.payload = MARKER
        call.press()
        call.wait_for(MARKER, 60)
        call.burst(50)
        call.press()
        later = Listeners(receiver, since="&since=60")
        call.wait_for(MARKER, 120)
        spooled = {"journals": b"".join(p.read_bytes() for p in receiver.spool.rglob("*.journal"))}
        call.payload = SPEECH
        sent = len(call.numbers[SPEECH])
        call.wait_for(SPEECH, sent + 10)
        assert f"resumed {sender.CALL_SID}\n" == command(receiver, "resume", sender.CALL_SID).stdout
        call.wait_for(SPEECH, sent + 100)
        metrics = metrics_of(receiver)
        call.hang_up()
        heard = listening.ended() + later.ended()
        forwarded = json.dumps(rest_of(consumer.call())).encode()
        folder, document = receiver.published()
    consumer.stop()
    log = receiver.raw_log.encode()
    others = {"heard": heard, "forwarded": forwarded, "metrics": metrics, "log": log, **spooled}
    assert_nowhere(tmp_path, **others)
    check_paused(document, "card", "resumed")
    assert document.complete, document.findings
    acts = [(each.what, each.who) for each in Ledger(receiver.recordings).read()]
    by_key = {who for what, who in acts if what in ("paused", "resumed")}
    assert 1 == len(by_key)
    assert ["resumed", "paused"] == [what for what, _ in acts if what in ("paused", "resumed")]
    assert b'"event":"paused"' in heard
    assert b'"event":"resumed"' in heard
    assert b"tapreel_pauses_total 1.0" in metrics
    assert folder.exists()


def check_paused(document: Recording, reason: str, end: str) -> None:
    """Find a pause in a recording, and a gap for it on both tracks."""
    (pause,) = document.pauses
    assert (reason, end) == (pause.reason, pause.end)
    assert document.paused_ms > 0
    for track in document.tracks:
        assert reason in {gap.reason for gap in track.gaps if gap.kind == "paused"}


def test_a_pause_survives_a_kill(tmp_path: Path) -> None:
    """The recovered recording shows it, and the stream that starts again starts paused."""
    with paused_receiver(tmp_path) as receiver:
        call = Live(receiver)
        receiver.wait_for("stream_started")
        call.wait_for(SPEECH, 50)
        assert 200 == order(receiver, token(), pausing(reason="card"))["status"]
        call.payload = MARKER
        call.wait_for(MARKER, 100)
        receiver.process.kill()
        receiver.ended()
    call.hang_up()
    first = receiver.raw_log.encode()
    with paused_receiver(tmp_path) as receiver:
        _, recovered = receiver.published()
        again = Live(receiver)
        again.payload = MARKER
        receiver.wait_for("stream_started")
        again.wait_for(MARKER, 30)
        again.payload = SPEECH
        sent = len(again.numbers[SPEECH])
        again.wait_for(SPEECH, sent + 10)
        assert 200 == order(receiver, token(), resuming())["status"]
        again.wait_for(SPEECH, sent + 50)
        again.hang_up()
        _, document = receiver.published()
    check_paused(recovered, "card", "crash")
    check_paused(document, "card", "resumed")
    assert_nowhere(tmp_path, first=first, second=receiver.raw_log.encode())


def test_a_pause_ends_by_itself(tmp_path: Path) -> None:
    """With a line in the log and in the ledger."""
    with paused_receiver(tmp_path) as receiver:
        call = Live(receiver)
        receiver.wait_for("stream_started")
        call.wait_for(SPEECH, 25)
        command(receiver, "pause", sender.CALL_SID, "--max-seconds", "2")
        line = receiver.wait_for("resumed")
        sent = len(call.numbers[SPEECH])
        call.wait_for(SPEECH, sent + 25)
        call.hang_up()
        _, document = receiver.published()
    assert "expired" == line["end"]
    (pause,) = document.pauses
    assert "expired" == pause.end
    assert 1900 <= pause.duration_ms <= 1000 * at_most(6)
    (entry,) = [each for each in Ledger(receiver.recordings).read() if each.what == "resumed"]
    assert ("receiver", "expired") == (entry.who, entry.details["end"])


def test_what_is_refused(tmp_path: Path) -> None:
    """Tokens of other calls or used before, calls that are not there, pauses that are too long."""
    with paused_receiver(tmp_path) as receiver:
        call = Live(receiver)
        receiver.wait_for("stream_started")
        call.wait_for(SPEECH, 5)
        statuses = {
            "another call": order(receiver, token("CA1"), pausing())["status"],
            "no such call": order(receiver, token("CA1"), {**pausing(), "call_sid": "CA1"})[
                "status"
            ],
            "too long": order(receiver, token(), pausing(max_seconds=3601))["status"],
            "no order": order(receiver, token(), {"order": "erase", "call_sid": "x"})["status"],
            "not paused": order(receiver, token(), resuming())["status"],
            "any call": order(receiver, token("*"), pausing())["status"],
        }
        assert {
            "another call": 403,
            "no such call": 404,
            "too long": 400,
            "no order": 400,
            "not paused": 409,
            "any call": 200,
        } == statuses
        used = token(jti="once")
        assert 200 == order(receiver, used, resuming())["status"]
        with pytest.raises(Exception, match="401"):
            order(receiver, used, pausing())
        for bad in ("wrong", token()[:-2]):
            with pytest.raises(Exception, match="401"):
                order(receiver, bad, pausing())
        assert "no such call" in command(receiver, "pause", "CA1", code=5).stderr
        assert "not paused" in command(receiver, "resume", sender.CALL_SID, code=6).stderr
        call.hang_up()
        receiver.published()


def test_without_a_key_there_is_no_control(tmp_path: Path) -> None:
    """The path does not exist."""
    with tapped_receiver(tmp_path) as receiver, pytest.raises(Exception, match="404"):
        order(receiver, token(), pausing())


def test_any_worker_takes_the_order(tmp_path: Path) -> None:
    """Whichever has the call: orders of many connections reach both."""
    with paused_receiver(tmp_path, "--workers", "2") as receiver:
        call = Live(receiver)
        receiver.wait_for("stream_started")
        call.wait_for(SPEECH, 25)
        for _ in range(6):
            answer = order(receiver, token(), pausing(reason="card"))
            assert (200, 1) == (answer["status"], answer.get("streams")), answer
        call.payload = MARKER
        call.wait_for(MARKER, 25)
        call.payload = SPEECH
        sent = len(call.numbers[SPEECH])
        call.wait_for(SPEECH, sent + 10)
        answer = order(receiver, token(), resuming())
        assert {"status": 200, "call_sid": sender.CALL_SID, "streams": 1} == answer
        call.wait_for(SPEECH, sent + 25)
        call.hang_up()
        _, document = receiver.published()
        assert 0 == receiver.stop(signal.SIGINT)
    assert {"card"} == {pause.reason for pause in document.pauses}
    assert_nowhere(tmp_path, log=receiver.raw_log.encode())


@pytest.mark.needs("cc")
def test_a_disk_that_hangs_delays_the_answer_and_not_the_pause(tmp_path: Path) -> None:
    """The answer says that it is not on disk; when the disk is back, nothing is anywhere."""
    disk = Orders(tmp_path / "faults")
    with paused_receiver(tmp_path, environment=disk.environment) as receiver:
        call = Live(receiver)
        receiver.wait_for("stream_started")
        call.wait_for(SPEECH, 50)
        disk.give(*(f"{name} delay 60000 /" for name in ("fdatasync", "fsync", "syncfs")))
        answers: list[dict[str, Any]] = []
        asking = threading.Thread(
            target=lambda: answers.append(order(receiver, token(), pausing(reason="card")))
        )
        asking.start()
        receiver.wait_for("paused")
        call.payload = MARKER
        call.wait_for(MARKER, 100)
        asking.join(at_most(30))
        disk.give()
        (answer,) = answers
        assert 503 == answer["status"]
        assert "not on disk" in answer["error"]
        call.hang_up()
        receiver.process.kill()
        receiver.ended()
    log = receiver.raw_log.encode()
    assert_nowhere(tmp_path, log=log)
    with paused_receiver(tmp_path) as receiver:
        _, document = receiver.published()
    check_paused(document, "card", "stream_ended" if document.end_reason != "crash" else "crash")
    assert_nowhere(tmp_path, log=log, second=receiver.raw_log.encode())


def test_managers_pause_a_call_in_the_console(tmp_path: Path) -> None:
    """By the API and by the page; the live page says so, and who may less may not."""
    with paused_receiver(tmp_path, "--console", "--console-port", "0") as receiver:
        url = console_line(receiver)
        folder = ["--recordings", str(receiver.recordings)]
        tokens = {}
        for role in ("manager", "listener"):
            run(receiver, "user", "add", role, "--role", role, "--no-password", *folder)
            tokens[role] = run(receiver, "user", "token", role, *folder).split()[-1]
        call = Live(receiver)
        receiver.wait_for("stream_started")
        call.wait_for(SPEECH, 25)
        headers = {name: {"Authorization": f"Bearer {each}"} for name, each in tokens.items()}
        with httpx.Client(base_url=url, timeout=at_most(30)) as program:
            path = f"/api/v1/live/{sender.CALL_SID}"
            told = program.post(f"{path}/pause", json={}, headers=headers["listener"])
            assert 403 == told.status_code
            told = program.post(
                f"{path}/pause", json={"reason": "card"}, headers=headers["manager"]
            )
            assert (200, 1) == (told.status_code, told.json().get("streams")), told.text
            call.payload = MARKER
            call.wait_for(MARKER, 50)
            (shown,) = program.get("/.json", headers=headers["manager"]).json()["calls"]
            assert (True, "paused") == (shown["is_paused"], shown["tone"])
            assert shown["text"].startswith("paused (card), until ")
            call.payload = SPEECH
            sent = len(call.numbers[SPEECH])
            call.wait_for(SPEECH, sent + 10)
            told = program.post(f"{path}/resume", headers=headers["manager"])
            assert 200 == told.status_code, told.text
            assert 409 == program.post(f"{path}/resume", headers=headers["manager"]).status_code
            other = program.post("/api/v1/live/CA1/resume", headers=headers["manager"])
            assert 404 == other.status_code
        call.wait_for(SPEECH, sent + 25)
        call.hang_up()
        _, document = receiver.published()
    check_paused(document, "card", "resumed")
    acts = [each for each in Ledger(receiver.recordings).read() if each.what == "paused"]
    assert [("manager", "api")] == [(each.who, each.via.partition(",")[0]) for each in acts]
    assert_nowhere(tmp_path, log=receiver.raw_log.encode())


def run(receiver: ReceiverProcess, *words: str) -> str:
    """Run a command of ours; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "receiver", *words],
        cwd=receiver.folder,
        capture_output=True,
        text=True,
        timeout=at_most(60),
        check=True,
    )
    return done.stdout
