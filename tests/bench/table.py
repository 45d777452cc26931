"""The figures of one run: as a table for people, as markdown for a page, as JSON."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.bench.rounds import CHUNKS_PER_CALL_SECOND, MICRO, Figures
from tests.bench.subjects import SUBJECTS

LATE_MS: Final = 20.0
"""A load that is later than one chunk's length is not the load that was meant."""
LABELS: Final = {subject.name: subject.label for subject in SUBJECTS}
TARGETS: Final = {
    "tapreel/naive": 0.25,
    "tapreel-tls/naive": 1 / 3,
    "tapreel/floor": 4.0,
    "idle_kib": 64.0,
    "active_kib": 256.0,
    "call_hours_per_cpu_minute": 10.0,
    "help_seconds": 0.15,
}
"""What the figures are held against; only render speed is better when it is larger."""


@dataclass(slots=True)
class Report:
    """All that one run found."""

    calls: int
    seconds: float
    rounds: int
    per_chunk: dict[str, Figures] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)  # by subject: why
    asides: dict[str, dict[str, float]] = field(default_factory=dict)  # by subject
    rendering: dict[str, float] = field(default_factory=dict)
    help_seconds: float = 0.0

    def ratios(self) -> dict[str, list[float]]:
        """Return the ratios that have a target, one per round: both sides from the same one."""
        found = {}
        for pair in TARGETS:
            one, slash, other = pair.partition("/")
            if slash and one in self.per_chunk and other in self.per_chunk:
                both = zip(self.per_chunk[one].rounds, self.per_chunk[other].rounds, strict=True)
                found[pair] = [a / b for a, b in both]
        return found

    def as_json(self) -> dict[str, Any]:
        """Return everything, for machines."""
        chunks = {
            name: {
                "us_per_chunk": found.median,
                "rounds": found.rounds,
                "calls_per_core": found.calls_per_core,
                "late_p99_ms": found.late_ms,
            }
            for name, found in self.per_chunk.items()
        }
        return {
            "machine": machine(),
            "load": {"calls": self.calls, "seconds": self.seconds, "rounds": self.rounds},
            "subjects": chunks,
            "skipped": self.skipped,
            "ratios": self.ratios(),
            "targets": TARGETS,
            "beside": self.asides,
            "rendering": self.rendering,
            "help_seconds": self.help_seconds,
        }


def machine() -> str:
    """Return processor, cores, system and Python in one line."""
    model = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if "model name" in line)
        cores = sum(line.startswith("processor") for line in lines)
    except (OSError, StopIteration):
        cores = 0
    system = f"{platform.system()} {platform.release().partition('-')[0]}"
    return f"{model}, {cores} cores, {system}, Python {platform.python_version()}"


def rows(report: Report) -> Iterator[tuple[str, ...]]:
    """Yield the table of chunk costs, its heading first."""
    yield "", "CPU per chunk", "spread", "calls per core", "of naive", "of the floor"
    for name, figures in report.per_chunk.items():
        low, high = min(figures.rounds), max(figures.rounds)
        late = " (load late)" if max(figures.late_ms) > LATE_MS else ""
        yield (
            LABELS[name] + late,
            f"{figures.median:.1f} us",
            f"{low:.1f}-{high:.1f}",
            f"{figures.calls_per_core:.0f}",
            _share(report, name, "naive"),
            _share(report, name, "floor"),
        )
    for name, why in report.skipped.items():
        yield LABELS[name], f"skipped: {why}", "", "", "", ""


def _share(report: Report, name: str, other: str) -> str:
    if other not in report.per_chunk:
        return ""
    both = zip(report.per_chunk[name].rounds, report.per_chunk[other].rounds, strict=True)
    shares = sorted(a / b for a, b in both)
    return f"{shares[len(shares) // 2]:.2f}"


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """Yield what is measured beside, as name and value."""
    for name, found in report.asides.items():
        label = LABELS[name]
        for key, value in found.items():
            yield f"{label}: {_FACTS[key][0]}", _FACTS[key][1].format(value)
    if report.rendering:
        speed = report.rendering["call_hours_per_cpu_minute"]
        yield "rendering, call-hours per CPU minute", f"{speed:.0f}"
        yield "rendering, hours of audio per CPU second", f"{speed * 2 / 60:.2f}"
        yield "rendering, memory at its peak", f"{report.rendering['peak_mib']:.0f} MiB"
    if report.help_seconds:
        yield "`receiver --help`", f"{report.help_seconds:.3f} s"


_FACTS: Final = {
    "idle_kib": ("memory per idle stream", "{:.0f} KiB"),
    "active_kib": ("memory per active stream", "{:.0f} KiB"),
    "journal_p99_ms": ("chunk to journal, p99", "{:.0f} ms"),
    "synced_p99_ms": ("chunk to disk (synced), p99", "{:.0f} ms"),
    "lag_p99_ms": ("event loop lag, p99", "{:.1f} ms"),
    "lag_worst_ms": ("event loop lag, worst", "{:.1f} ms"),
    "serve_seconds": ("start of `serve`", "{:.2f} s"),
}


def held_against(report: Report) -> Iterator[tuple[str, str]]:
    """Yield every target with what was found, and whether it was reached."""
    found = {pair: sorted(each)[len(each) // 2] for pair, each in report.ratios().items()}
    for key in ("idle_kib", "active_kib"):
        values = [aside[key] for aside in report.asides.values() if key in aside]
        if values:
            found[key] = max(values)
    found |= {k: v for k, v in report.rendering.items() if k in TARGETS}
    if report.help_seconds:
        found["help_seconds"] = report.help_seconds
    for name, value in found.items():
        target = TARGETS[name]
        more = name == "call_hours_per_cpu_minute"
        reached = value >= target if more else value <= target
        verdict = "reached" if reached else "NOT reached"
        yield name, f"{value:.2f}, {'at least' if more else 'at most'} {target:.2f}: {verdict}"


def as_text(report: Report) -> str:
    """Return everything in columns."""
    table = list(rows(report))
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = [headline(report), ""]
    for row in table:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    for pairs in (facts(report), held_against(report)):
        lines.append("")
        lines += [f"{name:<62}{value}" for name, value in pairs]
    return "\n".join(lines)


def as_markdown(report: Report) -> str:
    """Return the tables as `tests/bench/README.md` has them."""
    table = list(rows(report))
    lines = [headline(report), ""]
    for number, row in enumerate(table):
        lines.append("| " + " | ".join(row) + " |")
        if number == 0:
            lines.append("|---" + "|---:" * (len(row) - 1) + "|")
    lines += ["", "| | |", "|---|---:|"]
    lines += [f"| {name} | {value} |" for name, value in facts(report)]
    found = report.per_chunk.get("tapreel")
    if found is not None:
        lines += ["", meaning(found)]
    return "\n".join(lines)


def headline(report: Report) -> str:
    """Return machine and load in a sentence."""
    return (
        f"{machine()}. {report.calls} calls of 2 tracks, {CHUNKS_PER_CALL_SECOND} chunks per"
        f" second each call, {report.seconds:g} s, medians of {report.rounds} rounds."
    )


def meaning(figures: Figures) -> str:
    """Return what the figures come to, for somebody who plans a machine."""
    half_a_core = MICRO / 2 / (figures.median * CHUNKS_PER_CALL_SECOND)
    return (
        f"A 2-core machine and `--workers 2` carry {2 * half_a_core:.0f}"
        f" calls at 50 % load; one process carries {half_a_core:.0f} on half a core."
    )
