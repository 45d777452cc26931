"""Which values a setting accepts, and how the text of an environment variable is parsed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class ValueType:
    """Which values a setting accepts: `accept` returns the value to use, or raises `ValueError`."""

    expected: str  # completes "... must be"
    accept: Callable[[Any], object]
    parse: Callable[[str], object] = str  # text of the environment -> argument of accept


def _number(low: float, high: float, types: tuple[type, ...]) -> Callable[[Any], object]:
    def accept(value: Any) -> object:
        if type(value) not in types or not low <= value <= high:
            raise ValueError(value)
        return value

    return accept


def integer(low: int, high: int) -> ValueType:
    """Return the type of a whole number within bounds."""
    return ValueType(f"a whole number from {low} to {high}", _number(low, high, (int,)), int)


def seconds(low: float, high: float) -> ValueType:
    """Return the type of a duration within bounds."""
    accept = _number(low, high, (int, float))
    return ValueType(f"a number of seconds from {low:g} to {high:g}", accept, float)


def choice(words: Iterable[str], made: Callable[[str], object] = str) -> ValueType:
    """Return the type of one of several words; `made` converts the word to its value."""
    known = tuple(words)

    def accept(value: Any) -> object:
        return made(known[known.index(value)])

    return ValueType(" or ".join(known), accept)


def _parse_switch(text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True}
    words |= {"0": False, "false": False, "no": False, "off": False}
    if text.strip().lower() not in words:
        raise ValueError(text)
    return words[text.strip().lower()]


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(value)
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError(value)
    return value.strip()


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(value)
    return tuple(_text(item) for item in value)


def _path(value: Any) -> Path:
    try:
        return Path(_text(str(value) if isinstance(value, Path) else value)).expanduser()
    except RuntimeError as error:  # "~" where there is no home
        raise ValueError(value) from error


def _pair(value: Any) -> tuple[Path, Path]:
    if isinstance(value, dict) and value.keys() == {"cert", "key"}:
        value = (value["cert"], value["key"])
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(value)
    return _path(value[0]), _path(value[1])


def _size(value: Any) -> int:
    """Return a number of bytes, written as such or with K, M, G or T behind it."""
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        return int(match[1]) << 10 * " KMGT".index(match[2].upper() or " ")
    if type(value) is not int or value < 0:
        raise ValueError(value)
    return value


_SIZE = re.compile(r"([0-9]{1,15})([KMGTkmgt]?)")
SIZE: Final = ValueType("a number of bytes, or one with K, M, G or T behind it", _size)
SWITCH: Final = ValueType("true or false", _switch, _parse_switch)
TEXT: Final = ValueType("a text", _text)
TEXTS: Final = ValueType("a list of texts", _texts, str.split)
PATH: Final = ValueType("a path", _path)
PAIR: Final = ValueType(
    "two paths, certificate and key", _pair, lambda text: text.split("," if "," in text else None)
)
SECRET: Final = ValueType("a text", str)
