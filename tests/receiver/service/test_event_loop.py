"""uvloop serves where it is installed, asyncio's own event loop where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.receiver_process import ReceiverProcess

pytestmark = pytest.mark.integration

WITHOUT_UVLOOP = """\
import sys
sys.modules["uvloop"] = None  # the documented way to hide a module
from receiver.cli.main import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("program", "expected"),
    [(("-m", "receiver"), "uvloop"), (("-c", WITHOUT_UVLOOP), "asyncio")],
)
def test_the_log_names_the_event_loop(
    tmp_path: Path, program: tuple[str, ...], expected: str
) -> None:
    """A receiver without uvloop starts, serves and stops all the same."""
    root = str(Path(__file__).parents[3])
    receiver = ReceiverProcess(tmp_path, program=program, environment={"PYTHONPATH": root})
    try:
        assert expected == receiver.wait_for("listening")["event_loop"]
        assert 0 == receiver.stop()
    finally:
        receiver.release()
