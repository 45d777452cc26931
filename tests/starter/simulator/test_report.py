"""Reports of a simulation, as text and as JSON."""

from __future__ import annotations

import logging
from collections import Counter

import pytest

from starter.simulator.player import CallReport
from starter.simulator.report import report_fields, report_line, warn_about_answers
from starter.simulator.script import Delivery
from starter.simulator.stream_info import Identity


def report(**answers: int) -> CallReport:
    """Return a report of a call of two tracks, the second without a chunk."""
    chunks = {Delivery.SENT: 5, Delivery.LOST: 1, Delivery.DUPLICATED: 2, Delivery.REORDERED: 3}
    return CallReport(
        Identity("the-account", "the-call", "the-stream"),
        ("inbound", "outbound"),
        Counter({("inbound", delivery): number for delivery, number in chunks.items()}),
        Counter(answers),
    )


def test_programs_get_every_number_by_name() -> None:
    """Late chunks were sent, too; the account is not shown."""
    nothing = dict.fromkeys(("sent", "lost", "duplicated", "reordered"), 0)
    assert {
        "call_sid": "the-call",
        "stream_sid": "the-stream",
        "tracks": {
            "inbound": {"sent": 8, "lost": 1, "duplicated": 2, "reordered": 3},
            "outbound": nothing,
        },
    } == report_fields(report())


def test_people_get_a_line() -> None:
    """Numbers come before their words."""
    assert (
        "call the-call: inbound 8 sent, 1 lost, 2 duplicated, 3 reordered;"
        " outbound 0 sent, 0 lost, 0 duplicated, 0 reordered"
    ) == report_line(report())


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({}, []),
        ({"pings": 3}, []),
        ({"messages": 2}, ["call the-call: the receiver sent 2 messages back (31924)"]),
    ],
)
def test_a_receiver_that_talks_back_is_reported(
    caplog: pytest.LogCaptureFixture, answers: dict[str, int], expected: list[str]
) -> None:
    """On a one-way stream the provider would call that an error."""
    with caplog.at_level(logging.WARNING, "starter.simulator"):
        warn_about_answers(report(**answers))
    assert expected == caplog.messages
