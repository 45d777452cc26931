"""The tree of errors and its exit codes."""

import pytest

from starter.errors import (
    AnswerError,
    ApiError,
    AudioError,
    ConfigError,
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    RefusedError,
    RejectedError,
    StarterError,
    UnavailableError,
    UnreachableError,
    error_class,
    one_line,
)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, RejectedError),
        (400, RejectedError),
        (401, RefusedError),
        (403, RefusedError),
        (404, NotFoundError),
        (409, RejectedError),
        (422, RejectedError),
        (429, UnavailableError),
        (500, UnavailableError),
        (503, UnavailableError),
    ],
)
def test_a_status_has_its_class(status: int, kind: type[ApiError]) -> None:
    """Every HTTP error status maps to one class."""
    assert kind is error_class(status)


@pytest.mark.parametrize(
    ("exit_code", "kind"),
    [
        (1, StarterError),
        (1, AnswerError),
        (3, ConfigError),
        (4, RefusedError),
        (5, NotFoundError),
        (6, RejectedError),
        (6, InvalidRequestError),
        (6, AudioError),
        (7, UnavailableError),
        (7, UnreachableError),
        (7, OutcomeUnknownError),
    ],
)
def test_a_class_has_its_exit_code(exit_code: int, kind: type[StarterError]) -> None:
    """The exit codes are those of the design."""
    assert exit_code == kind.exit_code
    assert issubclass(kind, StarterError)


def test_an_api_error_carries_what_the_provider_said() -> None:
    """Code, message, more_info and status are kept and shown."""
    error = NotFoundError("no such call", status=404, code=20404, more_info="https://x.example")

    assert ("no such call", 404, 20404, "https://x.example") == (
        error.message,
        error.status,
        error.code,
        error.more_info,
    )
    assert "no such call (HTTP 404, code 20404); see https://x.example" == str(error)


def test_an_api_error_without_numbers_is_only_its_message() -> None:
    """A refusal over an open WebSocket has neither status nor code."""
    assert "closed" == str(RefusedError("closed", status=None))


def test_an_unknown_outcome_names_the_stream() -> None:
    """The name is there for the program, not only in the text."""
    assert "tapreel-1" == OutcomeUnknownError("no answer", name="tapreel-1").name


def test_the_text_of_an_error_is_one_line() -> None:
    """Part of it may be text of a peer, such as the reason for closing a stream."""
    assert "a b [31m c" == str(StarterError("a\r\nb\x1b[31m\u2028c\n"))
    assert "a b" == ApiError("a\x00b", status=None).message


def test_no_character_of_an_error_deceives_its_reader() -> None:
    """What reorders a line or is not seen is escaped; every script is left as it is."""
    assert "a\\u202eb\\u200bc\\u3164" == one_line("a\u202eb\u200bc\u3164")
    assert "\\ud800 東京 é" == one_line("\ud800\n東京 é")
