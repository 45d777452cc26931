"""What happens to streams and recordings, as other programs are told of it. Pure.

An event has a type, an id that tells repeats apart, and a body, which is JSON and never changes:

    {"type": "recording.published", "timestamp": "2026-12-01T10:00:00.000Z", "data": {...}}

The id is made of what happened. So whoever notices the same thing twice, after a crash or from two
sides, makes the same event of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from receiver.catalogue import query, tokens
from receiver.catalogue.rows import Row
from receiver.catalogue.search import tokens_of
from receiver.catalogue.tokens import Clause
from receiver.errors import BadWord
from receiver.media import parameter_text

STREAM_STARTED: Final = "stream.started"
STREAM_ENDED: Final = "stream.ended"
STREAM_MISSING: Final = "stream.missing"
PUBLISHED: Final = "recording.published"
FAILED: Final = "recording.failed"
ERASED: Final = "recording.erased"
DELETED: Final = "recording.deleted"
HOLD_CHANGED: Final = "hold.changed"
TYPES: Final = (
    *(STREAM_STARTED, STREAM_ENDED, STREAM_MISSING),
    *(PUBLISHED, FAILED, ERASED, DELETED, HOLD_CHANGED),
)
"""Every type of event that a webhook can ask for."""
TEST: Final = "webhook.test"
"""Is sent by `receiver webhook test`, and to nobody else."""
MOST_PARAMETER_BYTES: Final = 16_384
"""Parameters that are longer, as JSON, are left out of a body, which then says so."""
_ID_CHARACTERS: Final = 32
_WORDS: Final = frozenset(
    {"call", "stream", "label", "finding", "track", "complete", "held"}
    | {"min_duration", "max_duration"}
)
"""Words of a search that can be asked of one event; `param.NAME`, too."""


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """Something that happened; `tokens` are what a webhook's `match` finds it by."""

    id: str
    type: str
    at: str  # RFC 3339 in UTC
    data: Mapping[str, Any]
    tokens: Collection[str] = field(default=(), repr=False)

    @property
    def recording_id(self) -> str:
        """Return the recording that it is about; empty where there is none."""
        return str(self.data.get("recording_id", ""))

    @property
    def call_sid(self) -> str:
        """Return the call that it is about; empty where that is not known."""
        return str(self.data.get("call_sid", ""))

    def body(self) -> bytes:
        """Return it as it is sent, always in the same bytes."""
        document = {"type": self.type, "timestamp": self.at, "data": self.data}
        return msgspec.json.encode(document)


def event_id(kind: str, *about: str) -> str:
    """Return the id of what happened: the same for the same words."""
    digest = hashlib.sha256("\0".join((kind, *about)).encode("utf-8", "surrogatepass"))
    return f"evt_{digest.hexdigest()[:_ID_CHARACTERS]}"


def of_recording(
    kind: str, row: Row, at: str, links: Mapping[str, str], *, about: str = "", **more: Any
) -> OutboxEvent:
    """Return an event about a recording.

    Args:
        kind: Its type.
        row: The recording, as the catalogue has it.
        at: When it happened, RFC 3339 in UTC.
        links: Where the recording can be found, by name.
        about: What tells it from other events of the same type and recording.
        more: Further fields of its data.
    """
    data = {
        "recording_id": row.id,
        "call_sid": row.call_sid,
        "stream_sid": row.stream_sid,
        "account_sid": row.account_sid,
        "provider": row.provider,
        **_parameters(row.parameters),
        "started_at": row.started_at,
        "duration_ms": row.duration_ms,
        "tracks": row.tracks,
        "complete": row.complete,
        "verdict": row.verdict,
        "findings": row.findings,
        "labels": row.labels,
        "held": row.held,
        "previous": row.previous,
        "links": dict(links),
        **more,
    }
    found = tokens_of(row)
    return OutboxEvent(event_id(kind, row.id, about), kind, at, data, found)


def of_stream(kind: str, stream: Mapping[str, Any], at: str, **more: Any) -> OutboxEvent:
    """Return an event about a stream, or about a recording of which no more is known.

    Args:
        kind: Its type.
        stream: What is known of it: `recording_id`, `call_sid`, `stream_sid`, `parameters`, and
            whatever else the data is to have.
        at: When it happened.
        more: Further fields of its data.
    """
    parameters: dict[str, Any] = dict(stream.get("parameters") or {})
    data = {**stream, **_parameters(parameters), **more}
    texts = {name: str(stream.get(name) or "") for name in ("call_sid", "stream_sid")}
    found = [tokens.exact("i", texts["call_sid"]), tokens.exact("k", texts["stream_sid"])]
    for name, value in parameters.items():
        text = parameter_text(value)
        found += [tokens.parameter_name(name), tokens.parameter(name, text)]
    key = str(stream.get("recording_id") or stream.get("expectation") or "")
    return OutboxEvent(event_id(kind, key), kind, at, data, found)


def of_unknown(kind: str, recording_id: str, at: str, **more: Any) -> OutboxEvent:
    """Return an event about a recording of which nothing but its id is known any more."""
    return OutboxEvent(
        event_id(kind, recording_id, ""), kind, at, {"recording_id": recording_id, **more}
    )


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    if len(msgspec.json.encode(given)) <= MOST_PARAMETER_BYTES:
        return {"parameters": dict(given)}
    return {"parameters": {}, "parameters_left_out": True}


def clauses_of(words: Iterable[str]) -> tuple[Clause, ...]:
    """Return what events must agree with.

    Args:
        words: As in a search, such as `param.queue=sales`.

    Raises:
        BadWord: one of them is none, or cannot be asked of a single event.
    """
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not (name in _WORDS or name.startswith(query.PARAMETER)):
            known = ", ".join(("param.NAME", *sorted(_WORDS)))
            raise BadWord(name[:100], f"it must be WORD=VALUE, with one of {known}")
        pairs.append((name, value))
    return query.parse(pairs, datetime.fromtimestamp(0, UTC)).clauses


def agrees(event: OutboxEvent, clauses: Iterable[Clause]) -> bool:
    """Whether an event has all that is asked for; what has no such property, has not.

    An event of which nothing is known but that it happened is for everybody.
    """
    found = set(tokens.with_edges(event.tokens))
    return not found or all(_has(found, clause) for clause in clauses)


def _has(found: Collection[str], clause: Clause) -> bool:
    if clause.is_prefix:
        return any(token.startswith(clause.tokens[0]) for token in found)
    return any(token in found for token in clause.tokens)
