"""What a listener asks for in its URL: `/tap/{name}?track=...&format=...`, checked word by word."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote

from receiver.errors import BadRequest
from receiver.media import parameter_text
from receiver.tap.encoding.format import Format, OutputSpec

ROOT: Final = "/tap"
ALL: Final = "all"
RATES: Final = (8000, 16000, 24000, 48000)
SHORTEST_BLOCK_MS: Final = 10
LONGEST_BLOCK_MS: Final = 500
LONGEST_SINCE_SECONDS: Final = 86_400.0
LONGEST_WAIT_SECONDS: Final = 3_600.0
_TRACKS: Final = ("inbound", "outbound", "stereo")
_FILTER: Final = "param."
_ACCESS_TOKEN: Final = "access_token"  # noqa: S105  the name of a parameter
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class TapQuery:
    """What is asked for."""

    spec: OutputSpec
    since_seconds: float = 0
    wait_seconds: float = 0


def is_tap(path: str) -> bool:
    """Return whether a path belongs to the tap."""
    return path == ROOT or path.startswith(ROOT + "/")


def name_in(path: str) -> str:
    """Return what `/tap/{name}` names; empty for `/tap`."""
    return unquote(path[len(ROOT) + 1 :])


def access_token(query: str) -> str | None:
    """Return the token in a query, if there is one; a query that cannot be read has none."""
    try:
        pairs = _pairs(query)
    except BadRequest:
        return None  # what is wrong with it is said to callers with a token elsewhere
    return next((value for name, value in pairs if name == _ACCESS_TOKEN), None)


def parse_watch(query: str) -> tuple[dict[str, str], bool]:
    """Return the filters of a watcher of all streams, and whether it asks for `levels=yes`.

    Raises:
        BadRequest: the query holds something else, or one name twice.
    """
    given = _single(query)
    levels = _one_of("levels", given.pop("levels", "no"), {"yes": True, "no": False})
    return _filters(given), levels


def parse_filters(query: str) -> dict[str, str]:
    """Return the custom parameters that `param.NAME=VALUE` asks for.

    Raises:
        BadRequest: the query holds something else, or one name twice.
    """
    return _filters(_single(query))


def parse(query: str) -> TapQuery:
    """Return what a listener of one stream asks for.

    Raises:
        BadRequest: it is not to be had; the text says what is.
    """
    given = _single(query)
    shape = _one_of("format", given.pop("format", "pcm16"), {f.value: f for f in Format})
    asked_track, asked_rate = given.pop("track", None), given.pop("rate", None)
    block_ms = _block_ms(given.pop("block_ms", None), shape)
    since = _seconds("since", given.pop("since", "0"), LONGEST_SINCE_SECONDS)
    wait = _seconds("wait", given.pop("wait", "0"), LONGEST_WAIT_SECONDS)
    if given:
        raise BadRequest(f"unknown parameter {next(iter(given))[:40]!r}")
    if shape is not Format.PCM16 and asked_rate is not None:
        raise BadRequest("rate can be chosen for format pcm16 only")
    own_track = "stereo" if shape is Format.MESSAGES else "inbound"
    track = own_track if asked_track is None else asked_track
    track = _one_of("track", track, {name: name for name in _TRACKS})
    rate = (
        _one_of("rate", asked_rate, {str(r): r for r in RATES}) if asked_rate is not None else None
    )
    return TapQuery(OutputSpec(shape, track, rate, block_ms), since, wait)


def matches(filters: Mapping[str, str], parameters: Mapping[str, Any]) -> bool:
    """Return whether a stream's custom parameters are what is asked for."""
    return all(
        name in parameters and parameter_text(parameters[name]) == value
        for name, value in filters.items()
    )


def _pairs(query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, max_num_fields=100)
    except ValueError as error:
        raise BadRequest("the query cannot be read") from error


def _single(query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in _pairs(query):
        if name in found:
            raise BadRequest(f"{name[:40]!r} is given twice")
        found[name] = value
    found.pop(_ACCESS_TOKEN, None)
    return found


def _filters(given: Mapping[str, str]) -> dict[str, str]:
    for name in given:
        if not name.startswith(_FILTER) or name == _FILTER:
            raise BadRequest(f"unknown parameter {name[:40]!r}: only param.NAME=VALUE is known")
    return {name.removeprefix(_FILTER): value for name, value in given.items()}


def _one_of(name: str, value: str, known: Mapping[str, _Value]) -> _Value:
    if value not in known:
        raise BadRequest(f"{name} must be {' or '.join(known)}")
    return known[value]


def _block_ms(value: str | None, shape: Format) -> int:
    if value is None:
        return 0
    if shape is Format.MESSAGES:
        raise BadRequest("block_ms can be chosen for formats pcm16 and payload only")
    number = int(value) if value.isascii() and value.isdigit() and len(value) < 5 else 0
    if not SHORTEST_BLOCK_MS <= number <= LONGEST_BLOCK_MS:
        raise BadRequest(
            f"block_ms must be whole milliseconds from {SHORTEST_BLOCK_MS} to {LONGEST_BLOCK_MS}"
        )
    return number


def _seconds(name: str, value: str, longest: float) -> float:
    try:
        number = float(value) if value.isascii() and "_" not in value else math.nan
    except ValueError:
        number = math.nan
    if not 0 <= number <= longest:
        raise BadRequest(f"{name} must be a number of seconds from 0 to {longest:g}")
    return number
