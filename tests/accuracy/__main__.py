"""`make accuracy`: senders and faults of the model, recorded by tapreel and in other ways.

Every way gets the same messages at the same times of arrival. Figures are milliseconds, of the
worst of three calls that differ in their chances:

    duration    how much longer (or shorter) the recording is than the call
    misplaced   how far a chunk is from where it was spoken, at the most
    apart       how far the two tracks are from each other, by the median of their chunks
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from receiver.media import Track
from tests.accuracy import others
from tests.accuracy.others import Lines
from tests.accuracy.recorded import outcome, places
from tests.accuracy.senders import (
    BYTES_PER_MS,
    Call,
    Network,
    Numbers,
    Sender,
    Spurt,
    Stamps,
    call,
)

IN, OUT = Track.INBOUND, Track.OUTBOUND
Speech = dict[Track, Sequence[Spurt]]
BOTH: Final[Speech] = {IN: [(0, 12_000)], OUT: [(0, 12_000)]}
TURNS: Final[Speech] = {IN: [(0, 3000), (6000, 9000)], OUT: [(3000, 6000), (9000, 12_000)]}
LATE: Final[Speech] = {IN: [(0, 12_000)], OUT: [(6000, 12_000)]}
HOLD: Final[Speech] = {IN: [(0, 3000), (63_000, 66_000)], OUT: [(0, 3000), (63_000, 66_000)]}
SEEDS: Final = range(3)
MARKS: Final = ("<!-- accuracy -->", "<!-- /accuracy -->")
README: Final = Path(__file__).parents[2] / "README.md"
PAGE: Final = Path(__file__).with_name("README.md")
SAME_MS: Final = 1.0
"""Figures that differ by less are the same."""

_COUNTED: Final = Sender()
_QUIET: Final = Network()


@dataclass(frozen=True, slots=True)
class Scenario:
    """One sender on one network, and what the parties say."""

    name: str
    speech: Speech
    sender: Sender = _COUNTED
    network: Network = _QUIET
    first: bool = False  # it stands in the README, too; so do those in which another way is better

    def calls(self) -> dict[str, Call]:
        """Play the calls."""
        return {
            f"{self.name}/{seed}": call(self.speech, self.sender, self.network, seed=seed)
            for seed in SEEDS
        }


SCENARIOS: Final = (
    Scenario("both speak, nothing odd", BOTH),
    Scenario("both take turns, pauses are not sent", TURNS, first=True),
    Scenario("a hold of a minute", HOLD, first=True),
    Scenario("3 % of chunks lost, in runs", BOTH, network=Network(
        lost=tuple((track, at, at + 60) for track in Track for at in range(500, 11_500, 2000))
    ), first=True),
    Scenario("a chunk lost beside a pause", TURNS, network=Network(lost=((IN, 2980, 3000),))),
    Scenario("the first second lost", BOTH, network=Network(
        lost=((IN, 0, 1000), (OUT, 0, 1000))
    )),
    Scenario("the last two seconds lost", BOTH, network=Network(
        lost=((IN, 10_000, 12_000), (OUT, 10_000, 12_000))
    )),
    Scenario("one track lost for the last 4 s", BOTH, network=Network(
        lost=((OUT, 8000, 12_000),)
    ), first=True),
    Scenario("neighbours overtake each other", BOTH, network=Network(swapped=0.1)),
    Scenario("200 ms of jitter, a stall of 3 s", BOTH, network=Network(
        jitter_ms=200, stalls=((3000, 6000),)
    )),
    Scenario("turns, 200 ms of jitter, a stall of 3 s", TURNS, network=Network(
        jitter_ms=200, stalls=((3000, 6000),)
    ), first=True),
    Scenario("one track always 200 ms later", BOTH, network=Network(skew_ms={IN: 200})),
    Scenario("turns sent ahead, as speech synthesis does", TURNS, Sender(ahead=True), first=True),
    Scenario("the same, stamped when sent", TURNS, Sender(stamps=Stamps.NOW, ahead=True)),
    Scenario("one counter for both tracks", TURNS, Sender(
        numbers=Numbers.SHARED, stamp_jitter_ms=40
    )),
    Scenario("no chunk numbers, timestamps jitter by 40 ms", BOTH, Sender(
        numbers=Numbers.NONE, stamp_jitter_ms=40
    )),
    Scenario("a 16-bit counter wraps, chunks overtake", BOTH, Sender(
        wraps=True, first_number=65_500
    ), Network(swapped=0.1)),
    Scenario("the counter begins again", BOTH, Sender(restarts_at_ms=(5000,))),
    Scenario("a clock that starts with its own track", LATE, Sender(stamps=Stamps.OWN), first=True),
    Scenario("a clock that counts only what is sent", TURNS, Sender(stamps=Stamps.SENT)),
    Scenario("a clock of samples", TURNS, Sender(stamps=Stamps.SAMPLES)),
    Scenario("a clock that drifts by 200 ppm", BOTH, Sender(drift_ppm=200)),
    Scenario("packets of 10 to 160 ms", BOTH, Sender(packets_ms=(10, 20, 40, 80, 160))),
    Scenario("no timestamps at all", TURNS, Sender(stamps=Stamps.NONE)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figures:
    """What one way of recording made of a scenario; milliseconds."""

    duration: float
    misplaced: float
    apart: float
    missing: int  # chunks that arrived, and are nowhere in the files

    def __str__(self) -> str:
        shown = f"{round(self.duration):+d}/{self.misplaced:.0f}/{self.apart:.0f}"
        return shown + (f", {self.missing} chunks gone" if self.missing else "")

    def beats(self, other: Figures) -> bool:
        """Return whether anything of this is better."""
        pairs = (
            (abs(self.duration), abs(other.duration)),
            (self.misplaced, other.misplaced),
            (self.apart, other.apart),
            (self.missing, other.missing),
        )
        return any(mine + SAME_MS <= theirs for mine, theirs in pairs)


def measured(played: Call, lines: Lines) -> Figures:
    """Hold what was recorded to the truth.

    Files may begin when they like: chunks count from the first one of the call that was found.
    """
    found: list[tuple[int, Track, float]] = []
    missing = 0
    for track in Track:
        for at_ms, true_ms in places(played, track, lines.get(track, b"")):
            missing += at_ms is None
            if at_ms is not None:
                found.append((true_ms, track, at_ms - true_ms))
    origin = min(found)[2] if found else 0.0
    errors = {track: [e - origin for _, of, e in found if of is track] for track in Track}
    medians = [float(np.median(of)) for of in errors.values() if of]
    longest = max((len(line) for line in lines.values()), default=0) / (2 * BYTES_PER_MS)
    return Figures(
        longest - played.length_ms,
        max((abs(error) for of in errors.values() for error in of), default=0.0),
        max(medians, default=0.0) - min(medians, default=0.0),
        missing,
    )


def worst(figures: Sequence[Figures]) -> Figures:
    """Return the worst of each figure."""
    return Figures(
        max((one.duration for one in figures), key=abs),
        max(one.misplaced for one in figures),
        max(one.apart for one in figures),
        max(one.missing for one in figures),
    )


@dataclass(frozen=True, slots=True)
class Ours:
    """What tapreel made of a scenario."""

    figures: Figures
    told_ms: float  # as lost, in the worst call
    true_ms: float
    complete: bool

    @property
    def loss(self) -> str:
        """Return what is told to be lost, of what is."""
        told = f"{self.told_ms:.0f} of {self.true_ms:.0f}"
        if self.true_ms or self.told_ms:
            return told + (", **complete**" if self.complete else "")
        return "none, complete" if self.complete else "none, not complete"


def ours(calls: Mapping[str, Call]) -> Ours:
    """Record calls with tapreel."""
    figures, told, true, complete = [], [], [], []
    for played in calls.values():
        with TemporaryDirectory() as folder:
            found = outcome(played, Path(folder))
        figures.append(
            Figures(found.duration_error_ms, found.worst_ms, found.apart_ms, found.missing)
        )
        told.append(sum(found.told_lost_ms.values()))
        true.append(sum(found.truly_lost_ms.values()))
        complete.append(found.recording.complete)
    at = max(range(len(told)), key=lambda one: abs(told[one] - true[one]))
    # of each call it is the wrong word that counts
    said = any(complete) if true[at] else all(complete)
    return Ours(worst(figures), told[at], true[at], said)


Row = tuple[Scenario, Ours, dict[str, Figures]]


def compared(scenarios: Sequence[Scenario], *, with_pipecat: bool) -> Iterator[Row]:
    """Return what each way of recording makes of each scenario."""
    calls = {scenario.name: scenario.calls() for scenario in scenarios}
    flat = {name: one for played in calls.values() for name, one in played.items()}
    ways = {"append": others.each(others.naive), "wall clock": others.each(others.wall_clock)}
    if with_pipecat:
        ways["pipecat"] = others.pipecat
    lines = {way: record(flat) for way, record in ways.items()}
    for scenario in scenarios:
        played = calls[scenario.name]
        theirs = {
            way: worst([measured(one, found[name]) for name, one in played.items()])
            for way, found in lines.items()
        }
        yield scenario, ours(played), theirs


def better_ways(row: Row) -> list[str]:
    """Return the ways of recording that are better than tapreel in something."""
    _, mine, theirs = row
    return [way for way, figures in theirs.items() if figures.beats(mine.figures)]


def table(rows: Sequence[Row]) -> str:
    """Return a table, and below it the rows in which tapreel is not the best."""
    ways = list(rows[0][2])
    lines = [
        "| sender, fault | tapreel | loss reported, of true | " + " | ".join(ways) + " |",
        "|---|---|---|" + "---|" * len(ways),
    ]
    for scenario, mine, theirs in rows:
        cells = [scenario.name, str(mine.figures), mine.loss, *map(str, theirs.values())]
        lines.append("| " + " | ".join(cells) + " |")
    behind = [f"{row[0].name} ({', '.join(ways)})" for row in rows if (ways := better_ways(row))]
    told = "; ".join(behind) if behind else "none"
    return "\n".join([*lines, "", f"Rows in which another way is better in something: {told}."])


def of_readme(rows: Sequence[Row]) -> list[Row]:
    """Return the rows for people who see tapreel for the first time."""
    return [row for row in rows if row[0].first or better_ways(row)]


def write_between_marks(page: Path, text: str) -> None:
    """Replace what stands between the marks of a page."""
    content = page.read_text("utf-8")
    head, _, rest = content.partition(MARKS[0])
    _, _, tail = rest.partition(MARKS[1])
    page.write_text(f"{head}{MARKS[0]}\n{text}\n{MARKS[1]}{tail}", "utf-8")


def main(arguments: Sequence[str]) -> int:
    """Print the table; with --write, put it into the pages."""
    parser = argparse.ArgumentParser(prog="make accuracy", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into the pages")
    options = parser.parse_args(arguments)
    here = others.PYTHON.exists()
    rows = list(compared(SCENARIOS, with_pipecat=here))
    print(table(rows))  # noqa: T201  the result
    if not here:
        print("pipecat is skipped: .venv-consumers is missing; .ci/run makes it")  # noqa: T201
    if options.write:
        write_between_marks(PAGE, table(rows))
        write_between_marks(README, table(of_readme(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
