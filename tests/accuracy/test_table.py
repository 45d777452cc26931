"""The table of `make accuracy`: how it measures, and what stands in the README."""

from __future__ import annotations

from pathlib import Path

import pytest

from receiver.media import Track
from tests.accuracy import __main__ as accuracy
from tests.accuracy import others
from tests.accuracy.senders import Network, call

IN, OUT = Track.INBOUND, Track.OUTBOUND
TURNS: accuracy.Speech = {IN: [(0, 1000), (3000, 4000)], OUT: [(1000, 2000)]}


def test_appending_knows_no_pauses() -> None:
    """Each track is as long as its audio, and the second turn is where the first one ended."""
    played = call(TURNS)
    lines = others.naive(played)
    assert {IN: 2000 * 16, OUT: 1000 * 16} == {track: len(line) for track, line in lines.items()}
    figures = accuracy.measured(played, lines)
    assert accuracy.Figures(-2000, 2000, 0, 0) == accuracy.worst([figures, figures])


def test_the_wall_clock_knows_pauses_and_takes_delays_for_them() -> None:
    """On a quiet network it is right; after a stall everything is as much too late."""
    assert accuracy.Figures(0, 0, 0, 0) == _by_wall_clock(Network())
    stalled = _by_wall_clock(Network(stalls=((3100, 3600),)))
    assert 400 <= stalled.misplaced <= 500


def _by_wall_clock(network: Network) -> accuracy.Figures:
    played = call(TURNS, network=network)
    return accuracy.measured(played, others.wall_clock(played))


def test_what_is_nowhere_is_counted() -> None:
    """A recorder that has thrown a track away has lost each of its chunks."""
    played = call(TURNS)
    found = accuracy.measured(played, {IN: others.naive(played)[IN]})
    assert 50 == found.missing
    assert "50 chunks gone" in str(found)


def test_rows_in_which_another_way_is_better_are_named() -> None:
    """The table is no advertisement."""
    scenario = accuracy.Scenario("odd", TURNS)
    mine = accuracy.Ours(accuracy.Figures(0, 30, 0, 0), 0, 0, True)
    theirs = {"append": accuracy.Figures(0, 5, 0, 0), "wall clock": accuracy.Figures(9, 30, 0, 0)}
    assert accuracy.table([(scenario, mine, theirs)]).endswith("in something: odd (append).")


def test_a_table_replaces_the_one_before(tmp_path: Path) -> None:
    """What stands around the marks stays."""
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- accuracy -->\nold\n<!-- /accuracy -->\nbehind\n")
    accuracy.write_between_marks(page, "| new |")
    assert "before\n<!-- accuracy -->\n| new |\n<!-- /accuracy -->\nbehind\n" == page.read_text()


def test_the_pages_have_a_row_for_every_scenario() -> None:
    """The README the first ones, and both the marks between which they are written."""
    pages = {
        accuracy.PAGE: [scenario.name for scenario in accuracy.SCENARIOS],
        accuracy.README: [scenario.name for scenario in accuracy.SCENARIOS if scenario.first],
    }
    for page, names in pages.items():
        content = page.read_text("utf-8")
        assert [1, 1] == [content.count(mark) for mark in accuracy.MARKS]
        assert [] == [name for name in names if f"\n| {name} |" not in content]


@pytest.mark.integration
@pytest.mark.skipif(not others.PYTHON.exists(), reason=".venv-consumers is missing: .ci/run")
def test_pipecat_keeps_what_it_is_given() -> None:
    """All chunks of both tracks are in its buffers, each call in its own."""
    calls = {str(seed): call(TURNS, seed=seed) for seed in range(2)}
    found = others.pipecat(calls)
    assert [0, 0] == [accuracy.measured(calls[name], found[name]).missing for name in calls]
