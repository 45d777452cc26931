"""File descriptors: raised to what is needed, or fewer streams."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping

import pytest

pytestmark = pytest.mark.integration

PROGRAM = """
import json, resource, sys
from receiver import logs
from receiver.config.settings import Config
from receiver.service.run import raise_limit

logs.configure("info")
limits, settings = json.loads(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
config = raise_limit(Config(**settings))
soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
print(json.dumps([soft, config.max_streams, config.max_waiting, config.max_listeners]))
"""
NO_TAPS = 1000  # listeners, none of whom is admitted


def fitted(
    soft: int, hard: int, settings: Mapping[str, object]
) -> tuple[list[int], list[dict[str, object]]]:
    """Return soft limit, streams, waiting connections and listeners, and what was logged."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([[soft, hard], settings])],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout), [json.loads(line) for line in done.stderr.splitlines()]


@pytest.mark.parametrize(
    ("settings", "soft"),
    [
        ({"max_streams": 1000}, 128 + 2 * 1000 + 256),
        ({"max_streams": 1000, "max_waiting": 56, "workers": 3}, 128 + 2 * 334 + 19),
        ({"max_streams": 100, "tap_key": "k", "max_listeners": 50}, 128 + 200 + 256 + 50),
        ({"max_streams": 100, "forward": ("ws://a", "ws://b")}, 128 + 400 + 256),
    ],
    ids=["streams", "workers", "listeners", "consumers"],
)
def test_the_limit_is_raised_to_what_is_needed(settings: dict[str, object], soft: int) -> None:
    """Two for each stream, one for every other connection, and a reserve; nothing is logged."""
    figures, log = fitted(256, 4096, settings)
    assert soft == figures[0]
    assert settings["max_streams"] == figures[1]
    assert [] == log


def test_a_limit_that_is_high_enough_stays() -> None:
    """No limit is lowered."""
    assert ([4000, 1000, 256, NO_TAPS], []) == fitted(4000, 4096, {})


@pytest.mark.parametrize("workers", [1, 4])
def test_below_a_hard_limit_fewer_streams_fit(workers: int) -> None:
    """What is admitted fits below the limit, and one line says what to change."""
    all_have = {"max_streams": 1000, "max_waiting": 256, "workers": 1}
    settings = {name: number * workers for name, number in all_have.items()}
    (soft, streams, waiting, _), log = fitted(256, 1024, settings)
    assert 1024 == soft
    assert 1000 < 128 + (2 * streams + waiting) // workers <= 1024
    assert 0 == streams % workers == waiting % workers
    (line,) = log
    assert ("too_few_descriptors", "warning") == (line["event"], line["level"])
    assert (1024, 2384, streams) == (line["limit"], line["needed"], line["max_streams"])
    assert "--max-streams" in str(line["advice"])
    assert "LimitNOFILE" in str(line["advice"])


def test_listeners_share_what_there_is_with_streams() -> None:
    """Neither takes all of it."""
    (_, streams, waiting, listeners), _ = fitted(256, 512, {"tap_key": "k"})
    assert 128 + 2 * streams + waiting + listeners <= 512
    assert min(streams, waiting, listeners) > 0


def test_one_stream_is_always_admitted() -> None:
    """Below the reserve, too: the reserve is generous."""
    figures, _ = fitted(64, 64, {})
    assert [64, 1, 1, 0] == figures
