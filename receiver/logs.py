"""Logs on stderr: text on a terminal, JSON lines otherwise, secrets never.

structlog and the standard library's loggers (asyncio, websockets) end in the same place, so that
one mask covers every line: the debug log of websockets prints request headers.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

from receiver.media import visible

MASK: Final = "********"
_AUTHORIZATION = re.compile(r"(?i)(authorization\b\W{0,8})[^\r\n]+")
_BEARER = re.compile(r"(?i)(\bbearer\W+)[^\s'\"]+")
_ACCESS_TOKEN = re.compile(r"(?i)(\baccess_token(?:=|%3d))[^&\s'\"]+")
_TAP_QUERY = re.compile(r"(/tap[^\s?'\"]*\?)[^\s'\"]+")  # all of a query may be a token
_TRACEBACK: Final = "exception"
LONGEST_SID: Final = 64
"""Characters of a call's or stream's id in a log line; the providers' have 34 to 36."""
LONGEST_TEXT: Final = 1024
"""... and of any other text: some of it is what a peer has sent."""
_LONGEST_TRACEBACK: Final = 16_384


def configure(level: str, *, stream: TextIO | None = None) -> None:
    """Send every log line of `level` and above to `stream`, by default stderr."""
    stream = stream or sys.stderr
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _cleaned,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _renderer(stream),
        ],
        foreign_pre_chain=shared,
    )
    _route(level, stream, formatter)


def _renderer(stream: TextIO) -> structlog.typing.Processor:
    if stream.isatty():
        return structlog.dev.ConsoleRenderer()
    return structlog.processors.JSONRenderer()


def _route(level: str, stream: TextIO, formatter: logging.Formatter) -> None:
    destination = logging.StreamHandler(stream)
    destination.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [destination]
    root.setLevel(level.upper())
    # The libraries' debug logs hold whole requests, and a client may put a token anywhere in
    # them. websockets logs every connection at the level info, as we do already; alembic its steps.
    for library, quietest in (
        ("websockets", logging.WARNING),
        ("alembic", logging.WARNING),
        ("asyncio", logging.INFO),
    ):
        logging.getLogger(library).setLevel(max(quietest, root.level))


def masked(text: str) -> str:
    """Return `text` with bearer tokens masked: those in headers, and in the queries of taps."""
    for secret in (_AUTHORIZATION, _BEARER, _ACCESS_TOKEN, _TAP_QUERY):
        text = secret.sub(rf"\1{MASK}", text)
    return text


def _cleaned(
    logger: object, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Cut and mask texts; escape what could end a line, or control or deceive who reads it."""
    for name, value in event.items():
        if not name.startswith("_"):  # structlog's own, for whoever formats
            event[name] = _clean(value, name)
    return event


def _clean(value: object, name: str) -> object:
    """Return a value for a log line: plain numbers as they are, all that holds text cleaned."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(each, name) for each in value]
    if isinstance(value, dict):
        return {str(_clean(str(key), "")): _clean(each, name) for key, each in value.items()}
    text = masked(_cut(value if isinstance(value, str) else repr(value), _longest(name)))
    if name == _TRACEBACK:  # it has lines, and may hold what a peer has sent
        return "\n".join(map(visible, text.split("\n")))
    return visible(text)


def _longest(name: str) -> int:
    if name == _TRACEBACK:
        return _LONGEST_TRACEBACK
    return LONGEST_SID if name.endswith("_sid") else LONGEST_TEXT


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
