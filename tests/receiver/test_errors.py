"""The tree of errors: exit codes, and what they say."""

from __future__ import annotations

import pytest

from receiver import errors
from receiver.errors import (
    BadRequest,
    BadWord,
    CatalogueError,
    ConfigurationError,
    DialError,
    JournalError,
    LineClosed,
    NotFoundError,
    PeerError,
    Refused,
    TapreelError,
    UnprovenError,
    UnreadableError,
    UnsafeFolderError,
)
from receiver.wire import messages
from receiver.wire.messages import MessageRejected, ProtocolViolation

_PEERS = (Refused, BadRequest, BadWord, MessageRejected, ProtocolViolation)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (TapreelError, 1),
        (ConfigurationError, 3),
        (UnsafeFolderError, 3),
        (NotFoundError, 5),
        (UnreadableError, 6),
        (JournalError, 6),
        (UnprovenError, 6),
        (CatalogueError, 7),
        (DialError, 7),
    ],
)
def test_each_error_has_the_exit_code_of_a_command(kind: type[TapreelError], code: int) -> None:
    """As the table of the module says, and the text is for the user."""
    assert (code, "why") == (kind("why").exit_code, str(kind("why")))


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, 6), (401, 4), (403, 4), (404, 5), (422, 6), (501, 6), (429, 7), (500, 7), (503, 7)],
)
def test_what_another_end_answers_decides_the_exit_code(status: int, code: int) -> None:
    """Credentials, names and requests can be mended; the rest can be tried again."""
    error = DialError("why", status=status)
    assert (code, status) == (error.exit_code, error.status)
    assert 7 == DialError("another").exit_code  # the class is as it was


def test_a_closed_line_says_the_close_code() -> None:
    """The reason is the other end's, and may be empty."""
    assert "1001 away" == str(LineClosed(1001, "away"))
    closed = LineClosed(1006, "")
    assert ("1006", 1006, "") == (str(closed), closed.code, closed.reason)


def test_an_unsafe_folder_is_an_error_of_the_disk_too() -> None:
    """What is written through it is tried again later, as after any other error of the disk."""
    assert issubclass(UnsafeFolderError, OSError)


def test_every_error_is_in_the_tree() -> None:
    """Whoever catches the base catches all; peers' errors are a branch of their own."""
    modules = (errors, messages)
    names = [name for module in modules for name in vars(module).values()]
    every = {kind for kind in names if isinstance(kind, type) and issubclass(kind, Exception)}
    assert all(issubclass(kind, TapreelError) for kind in every)
    peers = {kind for kind in every if issubclass(kind, PeerError)}
    assert {PeerError, *_PEERS} == peers
