"""Reports of what a simulation has sent, as text and as JSON."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import click

from starter.errors import StarterError
from starter.simulator.calls import Outcome, place_calls
from starter.simulator.options import SimulateOptions
from starter.simulator.player import CallReport
from starter.tokens import Bearer

_log = logging.getLogger("starter.simulator")


def run_calls(options: SimulateOptions, url: str, bearer: Bearer | None, *, as_json: bool) -> None:
    """Play all calls and print a line for each.

    Raises the first failure after everything was printed, and KeyboardInterrupt if a signal ended
    the calls.
    """
    outcome = asyncio.run(place_calls(options, url, bearer))
    sent = [result for result in outcome.results if isinstance(result, CallReport)]
    if as_json:
        click.echo(json.dumps({"calls": [report_fields(report) for report in sent]}))
    else:
        for report in sent:
            click.echo(report_line(report))
    for report in sent:
        warn_about_answers(report)
    _raise_first(outcome)


def report_fields(report: CallReport) -> dict[str, Any]:
    """One call as a JSON object."""
    return {
        "call_sid": report.identity.call_sid,
        "stream_sid": report.identity.stream_sid,
        "tracks": {track: report.count(track) for track in report.tracks},
    }


def report_line(report: CallReport) -> str:
    """One call as a line of text."""
    tracks = (
        f"{track} " + ", ".join(f"{number} {word}" for word, number in report.count(track).items())
        for track in report.tracks
    )
    return f"call {report.identity.call_sid}: " + "; ".join(tracks)


def warn_about_answers(report: CallReport) -> None:
    """Log a warning if the receiver sent messages on a one-way stream."""
    if number := report.answers["messages"]:
        sid = report.identity.call_sid
        _log.warning("call %s: the receiver sent %d messages back (31924)", sid, number)


def _raise_first(outcome: Outcome) -> None:
    failures = [result for result in outcome.results if isinstance(result, StarterError)]
    for failure in failures[1:]:
        _log.warning("%s", failure)
    if failures:
        raise failures[0]
    if outcome.interrupted:
        raise KeyboardInterrupt
