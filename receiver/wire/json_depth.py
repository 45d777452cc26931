"""JSON that is nested deeply, made shallow: a value that is too deep becomes its own JSON text.

Whatever takes a value apart goes one call deeper for each level: decoders, encoders, `pickle`.
How deep they get depends on their callers, so a start message could be read while the call
lived, but not when it was rendered. What is done here depends on nothing but the message.

`msgspec.Raw` for the parameters does not serve instead. To pass over a value it goes as deep
itself: one of 600 levels is read below a shallow caller and refused below a deep one, one of
3,500 is always refused. It also takes half as long again for a start of twenty parameters.

An example, if two levels were the most:

    {"a": [[1]], "b": [[[1]]]}    becomes    {"a": [[1]], "b": "[[[1]]]"}
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from receiver.wire.errors import MessageRejected

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
