"""The errors of this package as one tree, by cause and by what a caller can do about each.

    StarterError                     1  anything else
    ├── ConfigError                  3  a setting or credential is missing or unusable
    ├── InvalidRequestError          6  refused here, before anything was sent
    ├── AudioError                   6  a sound file is not what was asked for
    ├── ApiError                        the peer answered with an error
    │   ├── RefusedError             4  401, 403
    │   ├── NotFoundError            5  404
    │   ├── RejectedError            6  400, 422 and every other 4xx
    │   └── UnavailableError         7  429 and 5xx, after the retries
    ├── UnreachableError             7  no connection, or it broke
    ├── OutcomeUnknownError          7  sent, but no answer came: it may have been done
    └── AnswerError                  1  the answer says success and cannot be understood

The number is the exit code of the command line. No message, attribute or `repr` holds a token.
"""

from __future__ import annotations

import re
from typing import ClassVar

_UNFIT_FOR_LINES = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
"""What Unicode takes for printable and nobody sees."""


def one_line(text: str) -> str:
    r"""The text without what breaks a line or steers a terminal: a space replaces it.

    What would show it in another order, or hide in it, is escaped: `\u202e`.
    """
    text = _UNFIT_FOR_LINES.sub(" ", text).strip()
    if text.isprintable() and not _INVISIBLE.search(text):
        return text
    return "".join(c if c.isprintable() and not _INVISIBLE.match(c) else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class StarterError(Exception):
    """Base of everything this package raises on purpose; its text is one line."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))  # part of it may be a peer's text


class ConfigError(StarterError):
    """A setting, file or credential is missing or unusable."""

    exit_code = 3


class InvalidRequestError(StarterError):
    """A value breaks a rule of the provider; nothing was sent."""

    exit_code = 6


class AudioError(StarterError):
    """A sound file has the wrong kind of content for the codec asked for."""

    exit_code = 6


class ApiError(StarterError):
    """The peer answered with an error.

    `status` is the HTTP status, None if the refusal came over an open WebSocket; `code`,
    `message` and `more_info` are the provider's own, as far as the answer had them.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None,
        code: int | None = None,
        more_info: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = one_line(message)
        self.status = status
        self.code = code
        self.more_info = more_info

    def __str__(self) -> str:
        status = None if self.status is None else f"HTTP {self.status}"
        code = None if self.code is None else f"code {self.code}"
        numbers = ", ".join(part for part in (status, code) if part)
        more = f"; see {self.more_info}" if self.more_info else ""
        return self.message + (f" ({numbers})" if numbers else "") + more


class RefusedError(ApiError):
    """The credentials are wrong or lack a permission (401, 403)."""

    exit_code = 4


class NotFoundError(ApiError):
    """No such call, conference, stream or path (404)."""

    exit_code = 5


class RejectedError(ApiError):
    """The request breaks a rule of the peer (400, 422, other 4xx)."""

    exit_code = 6


class UnavailableError(ApiError):
    """The peer is overloaded or broken (429, 5xx), also after the retries."""

    exit_code = 7


class UnreachableError(StarterError):
    """No connection could be made, or it broke before the end."""

    exit_code = 7


class OutcomeUnknownError(StarterError):
    """The request was sent and no answer came: what it asks for may have happened.

    `name` is the stream's name (or the sid it was to be stopped by): with it the stream can be
    stopped, should it exist.
    """

    exit_code = 7

    def __init__(self, message: str, *, name: str) -> None:
        super().__init__(message)
        self.name = name


class AnswerError(StarterError):
    """The peer reports success in a form that cannot be understood."""


def error_class(status: int) -> type[ApiError]:
    """The exception for an HTTP error status (a redirect counts as rejected: none is followed)."""
    if status in (401, 403):
        return RefusedError
    if status == 404:
        return NotFoundError
    if status == 429 or status >= 500:
        return UnavailableError
    return RejectedError
