"""Logs: one line per event, in the right form, and never a secret."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from receiver.logs import MASK, configure, masked
from receiver.media import visible
from receiver.transports.interface import Limits
from receiver.transports.listener import listen
from tests.bounds import at_most
from tests.receiver.helpers.wire import KeepingPolicy, call, request

CANARY = "canary-0123456789abcdef"


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        """Return that it is one."""
        return True


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """Put the process's logging back as it was."""
    root, library = logging.getLogger(), logging.getLogger("websockets")
    before = root.handlers[:], root.level, library.level
    yield
    root.handlers[:], root.level, library.level = before
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Return the JSON lines that were logged."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_lines_are_json_where_nobody_watches() -> None:
    """Event, level, ISO time in UTC and every key, one object per line."""
    stream = io.StringIO()
    configure("info", stream=stream)
    structlog.get_logger("receiver.test").info("stream_started", call_sid="CA1", tracks=2)
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert {"event": "stream_started", "level": "info", "call_sid": "CA1", "tracks": 2} == line


def test_lines_are_readable_on_a_terminal() -> None:
    """A terminal gets keys and values instead of JSON."""
    stream = Terminal()
    configure("info", stream=stream)
    structlog.get_logger().info("stream_started", call_sid="CA1")
    assert "stream_started" in stream.getvalue()
    assert "{" not in stream.getvalue()


def test_texts_are_cut_to_a_length_that_can_be_read() -> None:
    """An id of a megabyte is a peer's joke; what is cut off shows, and nothing escapes."""
    stream = io.StringIO()
    configure("info", stream=stream)
    log = structlog.get_logger("receiver.test")
    log.info("stream_started", call_sid="C" * 64, stream_sid="S" * 65, detail="d" * 10_000)
    log.info("other", stream_sid="\n\x1b" * 1000, detail="\u2028" * 10_000)
    logging.getLogger("websockets").warning("w" * 100_000)
    first, second, third = lines(stream)
    assert ("C" * 64, "S" * 63 + "…") == (first["call_sid"], first["stream_sid"])
    assert "d" * 1023 + "…" == first["detail"]
    assert "\\n\\x1b" * 31 + "\\n…" == second["stream_sid"]
    assert "\\u2028" * 1023 + "…" == second["detail"]
    assert "w" * 1023 + "…" == third["event"]


def test_a_cut_does_not_uncover_a_secret() -> None:
    """Half a token is masked as a whole one is."""
    stream = io.StringIO()
    configure("info", stream=stream)
    for start in range(900, 1024):
        logging.getLogger("x").warning("%s Authorization: Bearer %s", "-" * start, CANARY * 10)
    assert CANARY[:4] not in stream.getvalue()


def test_the_level_holds_for_everybody() -> None:
    """structlog and the standard library have the same level."""
    stream = io.StringIO()
    configure("warning", stream=stream)
    for logger in (structlog.get_logger("a"), logging.getLogger("asyncio")):
        logger.info("quiet")
        logger.warning("loud")
    assert ["loud", "loud"] == [line["event"] for line in lines(stream)]


def test_the_library_is_quiet_at_every_level() -> None:
    """websockets' lines per connection are left out, and its requests all the more."""
    stream = io.StringIO()
    configure("info", stream=stream)
    logging.getLogger("websockets.server").info("connection open")
    configure("debug", stream=stream)
    logging.getLogger("websockets.server").info("connection open")
    logging.getLogger("websockets.server").debug("< Authorization: Bearer x")
    assert [] == lines(stream)
    logging.getLogger("websockets.server").error("handler failed")
    assert 1 == len(lines(stream))


def test_configuring_twice_logs_once() -> None:
    """The second set-up replaces the first."""
    stream = io.StringIO()
    configure("info", stream=stream)
    configure("info", stream=stream)
    logging.getLogger("any").warning("%s of %d", "one", 1)
    assert ["one of 1"] == [line["event"] for line in lines(stream)]


def test_errors_carry_their_traceback() -> None:
    """An exception is logged in its line, and masked like the rest."""
    stream = io.StringIO()
    configure("info", stream=stream)
    for logger in (structlog.get_logger(), logging.getLogger("any")):
        try:
            raise ValueError(f"Authorization: Bearer {CANARY}")
        except ValueError:
            logger.exception("failed")
    assert CANARY not in stream.getvalue()
    assert all(f"ValueError: Authorization: {MASK}" in line["exception"] for line in lines(stream))


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (f"< Authorization: {MASK}", f"< Authorization: Bearer {CANARY}"),
        (f"authorization={MASK}\nnext", f"authorization=Basic {CANARY}\nnext"),
        (f"('AUTHORIZATION', '{MASK}", f"('AUTHORIZATION', '{CANARY}')"),
        (f"sent bearer {MASK} again", f"sent bearer {CANARY} again"),
        ("Authorization", "Authorization"),
        ("authorizations are fine", "authorizations are fine"),
    ],
)
def test_what_is_masked(expected: str, text: str) -> None:
    """An Authorization value goes up to the end of its line, a bearer token up to its own."""
    assert expected == masked(text)


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_nothing_from_outside_reaches_a_terminal_raw(stream: io.StringIO) -> None:
    """Neither in texts, lists and names, nor in errors and tracebacks, whose lines stay."""
    configure("info", stream=stream)
    odd = "\x1b]0;\x7f\u202e\u2066\u200b\ufeff\u3164\ufe0f\U000e0041"
    log = structlog.get_logger()
    log.info("a", texts=[odd, {odd: (odd,)}], path=Path(odd), error=OSError(odd), number=1)
    logging.getLogger("other").warning("%s", odd)
    try:
        raise ValueError(odd)
    except ValueError:
        log.exception("b")
    shown = re.sub("\x1b\\[[0-9;]*m", "", stream.getvalue())  # colours are ours
    assert {"\n"} >= {c for c in shown if c != visible(c)}
    assert "ValueError" in shown


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_nothing_from_outside_breaks_a_line(stream: io.StringIO) -> None:
    """Line breaks and control characters in values are escaped."""
    configure("info", stream=stream)
    structlog.get_logger().info("stream_started", call_sid="CA\n\x1b[2J\u2028\x85fake")
    assert 1 == len(stream.getvalue().splitlines())
    assert "\x1b[2J" not in stream.getvalue()


@pytest.mark.integration
@pytest.mark.parametrize(
    "header",
    [
        b"Authorization: Bearer " + CANARY.encode(),
        b"authorization:" + CANARY.encode(),
        b"Authorization: Bearer " + CANARY.encode() + b"\x01",
        b"Authorization Bearer " + CANARY.encode(),
        b"Proxy-Authorization: Bearer " + CANARY.encode(),
        b"Authorization: Bearer\r\n " + CANARY.encode(),
        b"X-Auth-Token: " + CANARY.encode(),
        b"Cookie: t=" + CANARY.encode(),
    ],
)
@pytest.mark.parametrize("path", [b"/audio", b"/fail"])
async def test_no_level_shows_a_bearer_token(header: bytes, path: bytes) -> None:
    """The library's debug log prints request headers, and what is wrong with them."""
    stream = io.StringIO()
    configure("debug", stream=stream)
    listener = await listen(
        KeepingPolicy(), host="127.0.0.1", port=0, ssl_context=None, limits=Limits()
    )
    caller = await call(listener.port, None)
    caller.writer.write(request(header, path=path))
    caller.writer.write_eof()
    async with asyncio.timeout(at_most(10)):
        await caller.reader.read()
    await caller.leave()
    await listener.close()
    logging.getLogger("receiver").debug("seen")
    assert "seen" in stream.getvalue()
    assert CANARY not in stream.getvalue()
