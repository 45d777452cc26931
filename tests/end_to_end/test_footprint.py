"""What a receiver loads: nothing that decodes until somebody listens, nothing of the console."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import pytest

from tests.end_to_end import sender
from tests.end_to_end.receiver_process import WAIT_SECONDS, ReceiverProcess, running_receiver
from tests.end_to_end.taps import CALL, open_tap, tapped_receiver

CALLS = 20
CHUNKS = 10
DECODERS = ("numpy", "sndfile")
OF_THE_CONSOLE = frozenset(
    {"alembic", "argon2", "jinja2", "psycopg", "sqlalchemy", "starlette", "uvicorn"}
)

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="only Linux lists what is mapped"
)


def mapped(receiver: ReceiverProcess) -> list[str]:
    """Return which of the libraries that decode samples the serving process maps."""
    maps = Path(f"/proc/{receiver.process.pid}/maps").read_text("utf-8")
    return [name for name in DECODERS if name in maps]


def test_an_idle_receiver_maps_no_library_that_decodes(tmp_path: Path) -> None:
    """It needs no sample, and neither does its admission."""
    with running_receiver(tmp_path) as receiver:
        assert [] == mapped(receiver)


def test_recording_calls_maps_no_library_that_decodes(tmp_path: Path) -> None:
    """Rendering happens in another process, and a listener would have to ask for samples."""
    with tapped_receiver(tmp_path) as receiver:
        with contextlib.ExitStack() as stack:
            calls = [stack.enter_context(sender.dial(receiver.url)) for _ in range(CALLS)]
            for number, call in enumerate(calls):
                call.send(sender.start(stream_sid=f"stream {number}"))
                for chunk in range(1, CHUNKS + 1):
                    call.send(sender.media("inbound", chunk, bytes(160)))
            for _ in calls:
                receiver.wait_for("stream_started")
            assert [] == mapped(receiver)
            for call in calls:
                call.send(sender.stop())
            chunks = [receiver.published()[1].tracks[0].chunks.received for _ in calls]
        assert [CHUNKS] * CALLS == chunks
        assert [] == mapped(receiver)


def imported(receiver: ReceiverProcess) -> set[str]:
    """Return all libraries that a receiver, and the processes that it started, have imported."""
    lines = receiver.raw_log.splitlines()
    names = [line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")]
    return {name.partition(".")[0] for name in names}


def test_without_a_console_nobody_imports_its_libraries(tmp_path: Path) -> None:
    """A receiver that records and renders needs neither a database nor pages."""
    told = {"PYTHONPROFILEIMPORTTIME": "1"}
    with running_receiver(tmp_path, environment=told) as receiver:
        with sender.dial(receiver.url) as call:
            call.send(sender.start())
            call.send(sender.media("inbound", 1, bytes(160)))
            call.send(sender.stop())
            receiver.published()
        assert 0 == receiver.stop(signal.SIGINT)
        assert {"receiver", "msgspec", "soundfile"} <= imported(receiver)
        assert set() == OF_THE_CONSOLE & imported(receiver)


def test_the_console_imports_its_libraries(tmp_path: Path) -> None:
    """So what the test above looks for is there to be found."""
    told = {"PYTHONPROFILEIMPORTTIME": "1"}
    options = ("--console", "--console-port", "0")
    with running_receiver(tmp_path, *options, environment=told) as receiver:
        receiver.wait_for("console_listening")
        assert 0 == receiver.stop(signal.SIGINT)
        # A password, and PostgreSQL, are what the other two wait for.
        assert OF_THE_CONSOLE - {"argon2", "psycopg"} <= imported(receiver)


def test_a_listener_to_samples_maps_what_decodes_them(tmp_path: Path) -> None:
    """So what the tests above look for is there to be found."""
    with tapped_receiver(tmp_path) as receiver, sender.dial(receiver.url) as call:
        call.send(sender.start())
        receiver.wait_for("stream_started")
        with open_tap(receiver, CALL) as listener:
            for chunk in range(1, CHUNKS + 1):
                call.send(sender.media("inbound", chunk, bytes(160)))
            while not isinstance(listener.recv(timeout=WAIT_SECONDS), bytes):
                pass
            assert "numpy" in mapped(receiver)
