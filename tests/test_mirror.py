"""The tests mirror the modules: each has a file of its name, or a row here has the place.

Rows are for what was split from a module and is tested through it, and for shells that show
what they do only in a whole process or on a real socket.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).parent
CONFORMANCE: Final = "receiver/transports/test_conformance.py"
TESTED_IN: Final = {
    "receiver/catalogue/postings": "receiver/catalogue/test_search.py",
    "receiver/catalogue/rows": "receiver/catalogue/test_upkeep.py",
    "receiver/catalogue/migrations/env": "receiver/catalogue/test_database.py",
    "receiver/catalogue/migrations/versions/v0001_recordings": "receiver/catalogue/test_schema.py",
    "receiver/catalogue/migrations/versions/v0002_accounts": "receiver/catalogue/test_schema.py",
    "receiver/catalogue/migrations/versions/v0003_outbox": "receiver/catalogue/test_schema.py",
    "receiver/catalogue/migrations/versions/v0004_expected": "receiver/catalogue/test_schema.py",
    "receiver/console/admin_api": "receiver/console/test_api.py",
    "receiver/console/downloads": "receiver/console/test_api.py",
    "receiver/console/middleware": "receiver/console/test_app.py",
    "receiver/console/problems": "receiver/console/test_app.py",
    "receiver/console/server": "end_to_end/test_console.py",
    "receiver/cli/options": "receiver/cli/test_main.py",
    "receiver/cli/serve": "receiver/cli/test_main.py",
    "receiver/counters": "receiver/service/test_prometheus.py",
    "receiver/ingest/live_recording": "receiver/ingest/test_session.py",
    "receiver/ingest/recordings": "receiver/ingest/test_session.py",
    "receiver/wire/any_json": "receiver/wire/test_parse.py",
    "receiver/service/control": "end_to_end/test_pause.py",
    "receiver/service/run": "end_to_end/test_recording.py",
    "receiver/service/tap_setup": "end_to_end/test_tap.py",
    "receiver/tap/encoding/format": "receiver/tap/encoding/test_encoders.py",
    "receiver/tap/hub": "receiver/tap/test_local_hub.py",
    "receiver/timeline/ledger": "receiver/timeline/test_numbering.py",
    "receiver/timeline/placement": "receiver/timeline/test_track_timeline.py",
    "receiver/timeline/track_index": "receiver/timeline/test_ordering.py",
    "receiver/transports/client": "receiver/test_listen.py",
    "receiver/transports/connection": CONFORMANCE,
    "receiver/transports/interface": CONFORMANCE,
    "receiver/wire/messages": "receiver/wire/test_parse.py",
    "starter/simulator/calls": "starter/simulator/test_provider.py",
    "starter/simulator/live_stream": "starter/simulator/test_provider.py",
    "starter/simulator/options": "starter/simulator/test_command.py",
    "starter/simulator/run_provider": "starter/simulator/test_provider.py",
    "starter/simulator/stream_info": "starter/simulator/test_script.py",
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
