"""Settings: which there are, what values they take, where each came from.

Here are the types of values: which ones a setting accepts, and how the text of a variable is
parsed. `receiver.config.settings` has the list of settings, each with its type.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Final, get_type_hints
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class ValueType:
    """Which values a setting accepts: `accept` returns the value to use, or raises `ValueError`."""

    expected: str  # completes "... must be"
    accept: Callable[[Any], object]
    parse: Callable[[str], object] = str  # text of the environment -> argument of accept
    is_tables: bool = False  # tables of a file: it has neither a flag nor a variable


class UnfitTable(ValueError):
    """A table of a file cannot be used; the text says which one, and why."""


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


def _text_or_texts(value: Any) -> tuple[str, ...]:
    return _texts([value] if isinstance(value, str) else value)


def _parameters(value: Any) -> tuple[str, ...]:
    found = _texts(value)
    if not all(text.partition("=")[0].strip() for text in found):
        raise ValueError(value)
    return found


def _networks(value: Any) -> tuple[str, ...]:
    return tuple(str(_network(text)) for text in _texts(value))


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Return a network; one of IPv4 that is written in IPv6 (RFC 4291, 2.5.5.2) is of IPv4.

    So are the addresses that it is compared with: they come in both forms, by the socket's kind.
    """
    network = ipaddress.ip_network(text, strict=False)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < _MAPPED_BITS:
        return network
    return ipaddress.IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))


_MAPPED_BITS: Final = 96
"""How many bits of ::ffff:0:0 stand in front of an address of IPv4."""


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


def _origin(value: Any) -> str:
    parts = urlsplit(_text(value))
    rest = (parts.username, parts.password, parts.path.strip("/"), parts.query, parts.fragment)
    if parts.scheme not in ("http", "https") or not parts.hostname or any(rest):
        raise ValueError(value)
    port = "" if parts.port is None else f":{parts.port}"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}"


def _issuer(value: Any) -> str:
    url = _text(value).rstrip("/")
    parts = urlsplit(url)
    is_safe = parts.scheme == "https" or (
        parts.scheme == "http" and is_loopback(parts.hostname or "")
    )
    if not is_safe or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError(value)
    return url


def _web_url(value: Any) -> str:
    parts = urlsplit(_text(value))
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
        raise ValueError(value)
    if parts.username or parts.password or (parts.port == 0):
        raise ValueError(value)
    return str(_text(value))


def _header(value: Any) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", _text(value)):
        raise ValueError(value)
    return _text(value).lower()


_SIZE = re.compile(r"([0-9]{1,15})([KMGTkmgt]?)")
SIZE: Final = ValueType("a number of bytes, or one with K, M, G or T behind it", _size)
SWITCH: Final = ValueType("true or false", _switch, _parse_switch)
TEXT: Final = ValueType("a text", _text)
TEXTS: Final = ValueType("a list of texts", _texts, str.split)
TEXT_OR_TEXTS: Final = ValueType("a text, or a list of texts", _text_or_texts, str.split)
PARAMETERS: Final = ValueType(
    "a list of names of parameters, or NAME=VALUE", _parameters, str.split
)
NETWORKS: Final = ValueType(
    "a list of addresses or networks, such as 127.0.0.1 or 10.0.0.0/8", _networks, str.split
)
PATH: Final = ValueType("a path", _path)
PAIR: Final = ValueType(
    "two paths, certificate and key", _pair, lambda text: text.split("," if "," in text else None)
)
ORIGIN: Final = ValueType("a URL of scheme, host and perhaps port, without a path", _origin)
WEB_URL: Final = ValueType("an https or http URL, without user and password", _web_url)
ISSUER: Final = ValueType("an https URL, or http on loopback", _issuer)
HEADER: Final = ValueType("the name of an HTTP header", _header)
SECRET: Final = ValueType("a text", str)


def tables(kind: type[Any]) -> ValueType:
    """Return the type of a setting that is a list of tables, such as `[[webhook]]` in a file.

    Each becomes a `kind`: a dataclass whose fields have types of values and meanings, as those of
    `Config` have; a field without a default must be given.
    """
    types = {
        name: hint.__metadata__[0]
        for name, hint in get_type_hints(kind, include_extras=True).items()
    }
    required = [
        each.name
        for each in fields(kind)
        if each.default is MISSING and each.default_factory is MISSING
    ]

    def accept(value: Any) -> object:
        if not isinstance(value, list | tuple):
            raise ValueError(value)
        return tuple(kind(**_table(n, each, types, required)) for n, each in enumerate(value, 1))

    return ValueType("a list of tables", accept, is_tables=True)


def _table(
    number: int, given: Any, types: Mapping[str, ValueType], required: Iterable[str]
) -> dict[str, object]:
    """Return the values of one table. Its values are not quoted: they may be secrets."""
    if not isinstance(given, dict):
        raise UnfitTable(f"number {number} is no table")
    for name in given:
        if name not in types:
            close = difflib.get_close_matches(name, types, 1)
            advice = f"did you mean {close[0]}?" if close else f"there are {', '.join(types)}"
            raise UnfitTable(f"number {number}: unknown key {name[:40]!r}: {advice}")
    if missing := [name for name in required if name not in given]:
        raise UnfitTable(f"number {number} needs {' and '.join(missing)}")
    cells = {name: value for name, value in given.items() if value is not None}
    return {name: _cell(number, name, types[name], value) for name, value in cells.items()}


def _cell(number: int, name: str, kind: ValueType, value: Any) -> object:
    try:
        return kind.accept(value)
    except ValueError:
        raise UnfitTable(f"number {number}: {name} must be {kind.expected}") from None


def is_loopback(host: str) -> bool:
    """Return whether `host` can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
