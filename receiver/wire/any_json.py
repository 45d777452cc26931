"""JSON objects as any program may write them: nested deeply, with numbers that are none, cut pairs.

Pure. Ordinary media messages never come here: `parse` decodes them in one call.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from receiver.wire.messages import MessageRejected

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
MOST_CONTAINERS: Final = 16_384
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
    if len(brackets) > 2 * MOST_CONTAINERS:
        raise MessageRejected("too_deep", f"more than {MOST_CONTAINERS} lists and objects")
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


_decode_anything: Final = msgspec.json.Decoder().decode


def read_object(message: bytes | bytearray | memoryview) -> dict[str, Any]:
    """Return the JSON object that a message is.

    Raises:
        MessageRejected: it is none, not UTF-8, or has too many lists and objects.
    """
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
