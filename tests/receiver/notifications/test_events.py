"""Events: their ids and bodies, and which of them a webhook wants."""

from __future__ import annotations

import json
from pathlib import Path, PurePath
from typing import Any

import pytest

from receiver.catalogue import rows
from receiver.catalogue.rows import Row
from receiver.errors import BadWord
from receiver.notifications import events
from tests.receiver.helpers import recordings_builder as builder

AT = "2026-12-01T10:00:00.000Z"
LINKS = {"page": "https://calls.example.com/recordings/x"}


def a_row(folder: Path, **fields: Any) -> Row:
    """Return the row of a recording."""
    made = builder.build(folder, **fields)
    return rows.decoded(rows.read(folder, PurePath(made.relative_to(folder))))


def test_the_body_says_what_there_is_to_say(tmp_path: Path) -> None:
    """Ids, parameters, duration, verdict and links."""
    row = a_row(tmp_path, parameters={"queue": "sales", "n": 1})
    event = events.of_recording(events.PUBLISHED, row, AT, LINKS)
    body = json.loads(event.body())
    assert ("recording.published", AT) == (body["type"], body["timestamp"])
    data = body["data"]
    assert (builder.RECORDING_ID, builder.CALL_SID) == (data["recording_id"], data["call_sid"])
    assert {"queue": "sales", "n": 1} == data["parameters"]
    assert (1000, False) == (data["duration_ms"], data["complete"])
    assert data["verdict"].startswith("Not complete. 20 ms of the caller are missing")
    assert LINKS == data["links"]


def test_the_same_thing_is_the_same_event(tmp_path: Path) -> None:
    """Whoever notices it; another thing is another one."""
    row = a_row(tmp_path)
    one, two = (events.of_recording(events.PUBLISHED, row, AT, LINKS) for _ in range(2))
    assert (one.id, one.body()) == (two.id, two.body())
    held = [events.of_recording(events.HOLD_CHANGED, row, AT, LINKS, about=a) for a in "ab"]
    streams = [
        events.of_stream(kind, {"recording_id": row.id}, AT)
        for kind in (events.STREAM_STARTED, events.STREAM_ENDED)
    ]
    assert 5 == len({event.id for event in (one, *held, *streams)})


def test_parameters_that_are_too_long_are_left_out_and_it_is_said() -> None:
    """A body stays one that can be received."""
    event = events.of_stream(events.STREAM_STARTED, {"parameters": {"a": "x" * 20_000}}, AT)
    assert {"parameters": {}, "parameters_left_out": True} == event.data
    assert len(event.body()) < 1000


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], True),
        (["param.queue=sales"], True),
        (["param.queue=sal*"], True),
        (["param.queue=support"], False),
        (["param.queue=sales", "complete=no"], True),
        (["param.queue=sales", "complete=yes"], False),
        (["finding=audio_lost", "track=inbound"], True),
        (["min_duration=2"], False),
        ([f"call={builder.CALL_SID}"], True),
        (["call=other"], False),
        (["param.long=a very long value that *"], True),
        (["param.long=a very long value which *"], False),
    ],
)
def test_a_webhook_gets_what_agrees(tmp_path: Path, words: list[str], wanted: bool) -> None:
    """By the words of a search."""
    given = {"queue": "sales", "long": "a very long value that goes on"}
    event = events.of_recording(events.PUBLISHED, a_row(tmp_path, parameters=given), AT, {})
    assert wanted is events.agrees(event, events.clauses_of(words))


def test_streams_agree_by_what_is_known_of_them() -> None:
    """A stream that just began is neither complete nor not."""
    stream = {"call_sid": "c", "stream_sid": "s", "parameters": {"queue": "sales"}}
    event = events.of_stream(events.STREAM_STARTED, stream, AT)
    for words, wanted in (
        (["param.queue=sales", "call=c", "stream=s"], True),
        (["param.queue=x"], False),
        (["complete=no"], False),
    ):
        assert wanted is events.agrees(event, events.clauses_of(words)), words


def test_what_nothing_is_known_of_is_for_everybody() -> None:
    """Better one too many than one that nobody was told of."""
    event = events.of_unknown(events.DELETED, builder.RECORDING_ID, AT)
    assert events.agrees(event, events.clauses_of(["param.queue=sales"]))


@pytest.mark.parametrize("word", ["queue", "colour=red", "from=24h", "sort=newest", "track=both"])
def test_words_that_mean_nothing_here_are_refused(word: str) -> None:
    """Times and pages are of searches."""
    with pytest.raises(BadWord):
        events.clauses_of([word])
