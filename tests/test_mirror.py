"""The tests mirror the modules: each has a file of its name, or a row here says where it is tested.

Rows are for what was split from a module and is tested through it, and for shells that show
what they do only in a whole process or on a real socket.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).parent
CONFORMANCE: Final = "receiver/transports/test_websockets.py"
TESTED_IN: Final = {
    "receiver/cli/archive": "receiver/test_cli_archive.py",
    "receiver/cli/forward": "end_to_end/test_forward.py",
    "receiver/cli/journals": "receiver/test_cli_journals.py",
    "receiver/cli/listen": "receiver/test_cli_tap.py",
    "receiver/cli/options": "receiver/test_cli.py",
    "receiver/cli/serve": "receiver/test_cli.py",
    "receiver/cli/settings": "receiver/test_cli.py",
    "receiver/cli/tapping": "receiver/test_cli_tap.py",
    "receiver/cli/token": "receiver/test_cli_tap.py",
    "receiver/demo": "end_to_end/test_demo.py",
    "receiver/doubts": "receiver/test_timeline.py",
    "receiver/dropped": "receiver/test_live_journal.py",
    "receiver/figures": "receiver/test_metrics.py",
    "receiver/holes": "receiver/test_timeline.py",
    "receiver/journal_file": "receiver/test_render.py",
    "receiver/loops": "end_to_end/test_steady.py",
    "receiver/nesting": "receiver/test_messages.py",
    "receiver/open_recording": "receiver/test_session.py",
    "receiver/process": "end_to_end/test_recording.py",
    "receiver/remote_feed": "end_to_end/test_forward.py",
    "receiver/renderers": "receiver/test_publisher.py",
    "receiver/self_signing": "receiver/test_certificates.py",
    "receiver/syncer": "receiver/test_spool.py",
    "receiver/tap_channels": "receiver/test_listeners.py",
    "receiver/tap_house": "end_to_end/test_tap.py",
    "receiver/tap_kinds": "receiver/test_tap_formats.py",
    "receiver/tap_rewind": "receiver/test_listeners.py",
    "receiver/tap_samples": "receiver/test_tap_formats.py",
    "receiver/taps": "receiver/test_listeners.py",
    "receiver/transports/connection": CONFORMANCE,
    "receiver/transports/dialing": "receiver/test_listen.py",
    "receiver/transports/doorway": CONFORMANCE,
    "receiver/transports/handshake": CONFORMANCE,
    "receiver/transports/listening": CONFORMANCE,
    "receiver/transports/pace": CONFORMANCE,
    "receiver/transports/picows": CONFORMANCE,
    "receiver/transports/picows_socket": CONFORMANCE,
    "receiver/transports/picows_wiring": CONFORMANCE,
    "receiver/transports/pongs": CONFORMANCE,
    "receiver/transports/resets": CONFORMANCE,
    "receiver/transports/websockets_socket": CONFORMANCE,
    "receiver/walk": "receiver/test_timeline.py",
    "receiver/watchers": "receiver/test_listeners.py",
    "receiver/workers": "end_to_end/test_workers.py",
    "starter/simulator/calls": "starter/simulator/test_provider.py",
    "starter/simulator/live_stream": "starter/simulator/test_provider.py",
    "starter/simulator/media": "starter/simulator/test_script.py",
    "starter/simulator/options": "starter/simulator/test_command.py",
    "starter/simulator/stand_in": "starter/simulator/test_provider.py",
}


@pytest.mark.parametrize("package", ["receiver", "starter"])
def test_every_module_has_a_place_where_it_is_tested(package: str) -> None:
    """A stranger who reads a module finds its tests, and no row outlives its reason."""
    root = TESTS.parent
    for file in sorted((root / package).rglob("*.py")):
        if file.stem in ("__init__", "__main__"):
            continue
        module = file.relative_to(root).with_suffix("").as_posix()
        own = TESTS / file.relative_to(root).with_name(f"test_{file.name}")
        row = TESTED_IN.get(module)
        assert own.exists() or row is not None, f"{module} has no tests"
        assert not (own.exists() and row), f"{module} has a file of its own now"


def test_every_row_leads_from_a_module_to_a_file() -> None:
    """Renaming either breaks no row without a word."""
    for module, tests in TESTED_IN.items():
        assert (TESTS.parent / f"{module}.py").exists(), module
        assert (TESTS / tests).exists(), tests
