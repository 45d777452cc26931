"""One WebSocket message in, one typed message out: the seam for further dialects of providers.

Who calls: a session, for every message of its stream, on the event loop, about 100 times a
second for each call; the renderer, in its own process, for the messages that a journal has kept
verbatim; live taps and the forwarder, on the event loop, for what they pass on. All must
come to the same result, so it depends on nothing but the message's bytes: not on the messages
before it, not on a setting, not on how deep the caller is.

What must never happen: an exception other than `MessageRejected` and `ProtocolViolation`, for
any bytes; a guess at what cannot be read (a counter that is none counts as missing, an encoding
that is unknown is refused); a start message lost for one odd value in it; a second pass over an
ordinary media message.

The shapes are those of SignalWire and Twilio media streams. Providers write numbers as text or
as integers, leave counters out, and spell encodings in several ways: all of that is normal. The
plan has two steps:

1. `_decode_quickly` reads JSON, base64 and counters of a media message in one call. Nearly all
   messages end here, as a `Chunk`.
2. What it cannot read, and every other event, is decoded as any JSON and read field by field
   by the function that `_PARSERS` has for its event.

A further dialect gets its events in `_PARSERS`, or fields of other names in the function of an
event; what comes out stays one of `messages`. Where it differs in media messages, it gets a
struct of its own beside `_WireMessage`, so that those of the others stay as fast.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final

import msgspec

from receiver.media import SAMPLE_RATES, Chunk, Encoding, MediaFormat, RejectedChunk, Track
from receiver.wire.messages import (
    UNKNOWN_TRACK,
    Connected,
    DtmfMessage,
    FormatRefused,
    MarkMessage,
    Message,
    MessageRejected,
    ProtocolViolation,
    Start,
    Stop,
    Unknown,
)

# JSON that is nested deeply is made shallow: a value that is too deep becomes its own JSON text.
#
# Whatever takes a value apart goes one call deeper for each level: decoders, encoders, `pickle`.
# How deep they get depends on their callers, so a start message could be read while the call
# lived, but not when it was rendered. `flatten` depends on nothing but the message.
#
# `msgspec.Raw` for the parameters does not serve instead. To pass over a value it goes as deep
# itself: one of 600 levels is read below a shallow caller and refused below a deep one, one of
# 3,500 is always refused. It also takes half as long again for a start of twenty parameters.
#
# An example, if two levels were the most:
#
#     {"a": [[1]], "b": [[[1]]]}    becomes    {"a": [[1]], "b": "[[[1]]]"}

DEEPEST: Final = 32
"""Levels of one custom parameter's value; providers send text, which has none."""
_ITS_LEVEL: Final = 4
"""Where such a value begins: within the message, its `start` and its `customParameters`."""
_TOO_DEEP: Final = _ITS_LEVEL + DEEPEST
_MOST_CONTAINERS: Final = 16_384
"""In one message: each costs as much to look at as a chunk of audio."""
_TEXT: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+'  # which may hold brackets
_PLAIN: Final = rb'[^"\[\]{}]*+'
_brackets: Final = re.compile(
    _PLAIN + rb"(?:" + _TEXT + _PLAIN + rb")*+" + rb"(?:([\[{])|([\]}])|\Z)", re.DOTALL
)
_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


def flatten(message: bytes) -> bytes:
    """Return `message` with each value that is too deep as a text; nearly all come back as is.

    Raises:
        MessageRejected: it has too many lists and objects to look at.
        UnicodeDecodeError: a value that is too deep is not UTF-8.
    """
    if message.count(b"[") + message.count(b"{") < _TOO_DEEP or not _is_deep(message):
        return message
    parts: list[bytes] = []
    at = 0
    for start, end in _deep_values(message):
        parts += message[at:start], msgspec.json.encode(message[start:end].decode())
        at = end
    return b"".join((*parts, message[at:]))


def _is_deep(message: bytes) -> bool:
    """Return whether a message has values that are too deep, or brackets that do not match."""
    plain = message.replace(rb"\\", b"").replace(rb"\"", b"")
    brackets = b"".join(plain.split(b'"')[::2]).translate(_SQUARE, _NO_BRACKETS)
    if len(brackets) > 2 * _MOST_CONTAINERS:
        raise MessageRejected("too_deep", f"more than {_MOST_CONTAINERS} lists and objects")
    for _ in range(_TOO_DEEP - 1):
        brackets = brackets.replace(b"[]", b"")  # the innermost level
    return bool(brackets)


def _deep_values(message: bytes) -> Iterator[tuple[int, int]]:
    """Yield where values begin and end that are too deep."""
    depth = deepest = start = 0
    for found in _brackets.finditer(message):
        opens, closes = found[1] is not None, found[2] is not None
        depth += opens
        if opens and depth == _ITS_LEVEL:
            start, deepest = found.start(1), depth
        deepest = max(deepest, depth)
        if closes and depth == _ITS_LEVEL and deepest >= _TOO_DEEP:
            yield start, found.end()
        depth -= closes


_LARGEST: Final = 2**53
"""Counters above this are nonsense; below it they are exact in JSON and in 64-bit sums."""
_LONGEST_NUMBER: Final = 20
"""No longer text is turned into a number."""
_LONGEST_PARAMETERS: Final = 4096
"""Custom parameters kept of one start message; providers send at most 99."""

# "audio/x-mulaw", "PCMU@40i", "audio/l16;rate=16000", "L16@24000h@40i": the providers' pages
# and SDKs spell one encoding in many ways, so the name is compared without case and prefix.
_SPELLING = re.compile(r"(?:audio/)?(?:x-)?(?P<name>[a-z0-9]+)(?P<options>(?:[;@].*)?)", re.DOTALL)
_RATE = re.compile(r"(?:rate=(\d{4,6})|@(\d{4,6})h)")
_NAMES: Final = {
    **dict.fromkeys(("mulaw", "ulaw", "pcmu", "basic"), Encoding.PCMU),
    **dict.fromkeys(("alaw", "pcma"), Encoding.PCMA),
    **dict.fromkeys(("l16", "pcm", "linear16"), Encoding.L16),
}

_Counter = Annotated[int, msgspec.Meta(gt=-_LARGEST, lt=_LARGEST)]


class _WireMedia(msgspec.Struct, gc=False):  # it can be in no circle
    """The `media` object as nearly every provider writes it."""

    track: Track
    payload: bytes
    chunk: _Counter | None = None
    timestamp: _Counter | None = None


class _WireMessage(msgspec.Struct, rename="camel", gc=False):  # nor can it
    """A whole `media` message; decoding it does JSON, base64 and the integers in one go."""

    event: str
    media: _WireMedia | None = None
    sequence_number: _Counter | None = None
    stream_sid: str | None = None


_decode_quickly = msgspec.json.Decoder(_WireMessage, strict=False).decode
_decode_anything = msgspec.json.Decoder().decode


def parse(message: bytes | bytearray | memoryview) -> Message:
    """Return the typed form of one message.

    Args:
        message: what one WebSocket message held, UTF-8 text. Nothing of it is referred to later.

    Raises:
        MessageRejected: it is not JSON, not an object, has no event, or lacks what its event
            needs; for a media message with a known track, `chunk` says which one it was.
        FormatRefused: a start message names a media format that cannot be decoded; `start` is
            what else it says.
    """
    try:
        wire = _decode_quickly(message)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return _parse_carefully(message)
    media = wire.media
    if wire.event != "media" or media is None:
        return _parse_carefully(message)
    return Chunk(
        media.track,
        wire.sequence_number,
        media.chunk,
        media.timestamp,
        media.payload,
        wire.stream_sid or None,
    )


def _bounded(number: int | None) -> int | None:
    return number if number is None or -_LARGEST < number < _LARGEST else None


def _number(value: object) -> int | None:
    """Return a counter written as an integer or as text, or `None` where it is neither."""
    if isinstance(value, str) and len(value) <= _LONGEST_NUMBER:
        try:
            value = int(value)
        except ValueError:
            return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _bounded(value) if type(value) is int else None


def _parse_carefully(message: bytes | bytearray | memoryview) -> Message:
    document = _document(message)
    event = document.get("event")
    if not isinstance(event, str):
        raise MessageRejected("no_event", "the message has no event")
    parser = _PARSERS.get(event)
    if parser is None:
        return Unknown(event[:100], _number(document.get("sequenceNumber")))
    return parser(document)


def _document(message: bytes | bytearray | memoryview) -> dict[str, Any]:
    try:
        document = _decode_liberally(flatten(bytes(message)))
    except UnicodeDecodeError:
        raise MessageRejected("not_utf8", "the message is not UTF-8 text") from None
    except RecursionError:
        raise MessageRejected("too_deep", "the message is nested too deeply") from None
    except ValueError:
        raise MessageRejected("not_json", "the message is not JSON") from None
    if not isinstance(document, dict):
        raise MessageRejected("not_object", "the message is not a JSON object")
    return document


def _decode_liberally(message: bytes) -> Any:
    """Return what JSON text means, also where it is of a kind that only some programs write.

    A start message must not be lost for one value: a byte order mark is skipped, half a
    surrogate pair becomes its own escape, and a number that is none stays text.
    """
    try:
        return _decode_anything(message)
    except UnicodeDecodeError:
        raise
    except ValueError:
        text = message.decode("utf-8-sig")
        document = json.loads(text, parse_constant=str, parse_float=_finite_or_text)
    return json.loads(json.dumps(document), object_pairs_hook=_without_surrogates)


def _finite_or_text(text: str) -> float | str:
    return float(text) if math.isfinite(float(text)) else text


def _without_surrogates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {_whole(name): _whole(value) for name, value in pairs}


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return [_whole(item) for item in value] if isinstance(value, list) else value


def _body(document: dict[str, Any], event: str) -> dict[str, Any]:
    body = document.get(event)
    if not isinstance(body, dict):
        raise MessageRejected("no_body", f"the {event} message has no {event} object")
    return body


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _connected(document: dict[str, Any]) -> Connected:
    return Connected(_text(document.get("protocol")), _text(document.get("version")))


def _start(document: dict[str, Any]) -> Start:
    body = _body(document, "start")
    parameters = body.get("customParameters")
    tracks = body.get("tracks")
    outer_sid = _text(document.get("streamSid"))
    stream_sid = _text(body.get("streamSid")) or outer_sid
    start = Start(
        stream_sid=stream_sid,
        account_sid=_text(body.get("accountSid")),
        call_sid=_text(body.get("callSid")),
        tracks=tuple(t for t in tracks if isinstance(t, str)) if isinstance(tracks, list) else (),
        parameters=_parameters(parameters) if isinstance(parameters, dict) else {},
        media_format=MediaFormat(),
        sequence_number=_number(document.get("sequenceNumber")),
        outer_sid=outer_sid if outer_sid != stream_sid else "",
    )
    try:
        known = _media_format(body.get("mediaFormat"))
    except ProtocolViolation as violation:
        raise FormatRefused(violation, start) from None
    return msgspec.structs.replace(start, media_format=known)


def _parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    if len(parameters) > _LONGEST_PARAMETERS:
        raise MessageRejected("too_many_parameters", f"more than {_LONGEST_PARAMETERS} parameters")
    return parameters


def _media_format(wire: object) -> MediaFormat:
    if wire is None:  # mu-law at 8000 Hz is the documented default
        return MediaFormat()
    if isinstance(wire, str):
        return media_format(wire, None, None)
    if not isinstance(wire, dict):
        raise ProtocolViolation("mediaFormat is no object", close_code=1003)
    sample_rate, channels = _count(wire, "sampleRate"), _count(wire, "channels")
    return media_format(_text(wire.get("encoding")), sample_rate, channels)


def media_format(encoding: str, sample_rate: int | None, channels: int | None) -> MediaFormat:
    """Return the format that a `start` message's `mediaFormat` names.

    A rate inside the encoding's name counts only where `sample_rate` is `None`.

    Raises:
        ProtocolViolation: the encoding, rate or number of channels is not one that can be
            decoded; it is never guessed (close code 1003, unsupported data).
    """
    spelling = _SPELLING.fullmatch(encoding.strip().lower())
    name = _NAMES.get(spelling["name"]) if spelling else None
    if spelling is None or name is None:
        raise ProtocolViolation(f"unsupported encoding {encoding[:40]!r}", close_code=1003)
    if sample_rate is None:
        rate = _RATE.search(spelling["options"])
        sample_rate = int(rate[1] or rate[2]) if rate else 8000
    if sample_rate not in SAMPLE_RATES:
        raise ProtocolViolation(f"unsupported sample rate {sample_rate}", close_code=1003)
    if channels not in (None, 1):
        raise ProtocolViolation(f"unsupported number of channels {channels}", close_code=1003)
    return MediaFormat(name, sample_rate, 1)


def _count(wire: dict[str, Any], name: str) -> int | None:
    """Return a number that may be missing, but must be one where it is there: never guessed."""
    value = wire.get(name)
    number = _number(value)
    if number is None and value is not None:
        raise ProtocolViolation(f"unsupported {name} {str(value)[:40]!r}", close_code=1003)
    return number


def _media(document: dict[str, Any]) -> Chunk:
    body = _body(document, "media")
    try:
        track = Track(_text(body.get("track")))
    except ValueError:
        raise MessageRejected(UNKNOWN_TRACK, "the media message names no known track") from None
    rejected = RejectedChunk(
        track,
        _number(document.get("sequenceNumber")),
        _number(body.get("chunk")),
        _number(body.get("timestamp")),
    )
    payload = body.get("payload")
    if not isinstance(payload, str):
        raise MessageRejected("no_payload", "the media message has no payload", chunk=rejected)
    try:
        decoded = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise MessageRejected("bad_base64", "the payload is not base64", chunk=rejected) from None
    return Chunk(
        track,
        rejected.sequence_number,
        rejected.chunk,
        rejected.timestamp_ms,
        decoded,
        _text(document.get("streamSid")) or None,
    )


def _dtmf(document: dict[str, Any]) -> DtmfMessage:
    body = _body(document, "dtmf")
    digit = body.get("digit")
    if not isinstance(digit, str) or not 0 < len(digit) <= 100:
        raise MessageRejected("bad_digit", "the dtmf message has no digit")
    return DtmfMessage(
        digit, _number(body.get("duration")), _number(document.get("sequenceNumber"))
    )


def _mark(document: dict[str, Any]) -> MarkMessage:
    name = _text(_body(document, "mark").get("name"))
    return MarkMessage(name, _number(document.get("sequenceNumber")))


def _stop(document: dict[str, Any]) -> Stop:
    return Stop(_number(document.get("sequenceNumber")))


_PARSERS: Final[dict[str, Callable[[dict[str, Any]], Message]]] = {
    "connected": _connected,
    "start": _start,
    "media": _media,
    "dtmf": _dtmf,
    "mark": _mark,
    "stop": _stop,
}
