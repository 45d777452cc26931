"""The program that the tap's page shows prints what it promises."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.bounds import at_most
from tests.end_to_end import sender
from tests.end_to_end.taps import TAP_TOKEN, ask, tap_url, tapped_receiver

PAGE = Path(__file__).parents[2] / "receiver" / "tap" / "README.md"
LOUD, SILENT = b"\x10" * 160, b"\xff" * 160


def example() -> str:
    """Return the program."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (program,) = [block for block in blocks if "receiver.listen" in block]
    return str(program)


def with_nothing_but(folder: Path, *packages: str) -> tuple[list[str], dict[str, str]]:
    """Return an interpreter and an environment in which only these packages are installed."""
    folder.mkdir()
    for name in packages:
        found = importlib.util.find_spec(name)
        assert found is not None
        assert found.origin is not None
        place = Path(found.origin).parent
        (folder / name).symlink_to(place)
        libraries = place.with_name(f"{name}.libs")  # shared ones that a wheel brings
        (folder / libraries.name).symlink_to(libraries)
    return [sys.executable, "-S"], {"PYTHONPATH": str(folder)}


def test_speech_differs_from_silence(tmp_path: Path) -> None:
    """Per party, live, in at most 25 lines of code, without what only the server needs."""
    python, environment = with_nothing_but(
        tmp_path / "packages", "receiver", "websockets", "numpy", "msgspec"
    )
    program = tmp_path / "speech.py"
    program.write_text(example())
    assert 25 >= len([line for line in example().splitlines() if line.strip()])
    with tapped_receiver(tmp_path) as receiver, sender.dial(receiver.url) as call:
        sender.send_call(call, [sender.connected(), sender.start()])
        receiver.wait_for("stream_started")
        running = subprocess.Popen(
            [*python, program, tap_url(receiver, f"/{sender.CALL_SID}")],
            env={**os.environ, **environment, "TAPREEL_TAP_TOKENS": TAP_TOKEN},
            stdout=subprocess.PIPE,
            text=True,
        )
        while not json.loads(ask(receiver)[1])[0]["listeners"]:
            assert running.poll() is None
            time.sleep(0.02)  # there is no event for when another process has connected
        for number in range(1, 31):
            for track, speaks in (("inbound", number <= 20), ("outbound", number > 10)):
                call.send(sender.media(track, number, LOUD if speaks else SILENT))
        call.send(sender.stop())
        output, _ = running.communicate(timeout=at_most(30))
    assert [
        ["0.00", "caller", "speaks"],
        ["0.20", "agent", "speaks"],
        ["0.40", "caller", "is", "silent"],
    ] == [line.split() for line in output.splitlines()]
