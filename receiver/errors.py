"""What can go wrong, as one tree; each leaf knows the exit code a command ends with.

TapreelError                      1  unexpected
├── ConfigurationError            3  a setting, file or credential is missing or unusable
├── NotFoundError                 5  no such recording
├── UnreadableError               6  a file that was given is not what it should be
│   └── JournalError              6  ... and it is a journal
├── DialError                     7  another end cannot be reached, or refuses: 4, 5 or 6 then
└── PeerError                     -  the other end of a stream misbehaved
    ├── Refused                   -  its request carries no valid token; the answer is a bare 401
    ├── MessageRejected           -  one message cannot be used; the stream lives on
    └── ProtocolViolation         -  the stream cannot go on; it is closed with a code
        └── FormatRefused         -  ... because nobody here can decode its audio
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from receiver.auth.bearer import RefusalReason
    from receiver.media import RejectedChunk
    from receiver.wire.parse import Start


class TapreelError(Exception):
    """Base of every error that tapreel raises on purpose; its text is for the user."""

    exit_code = 1


class ConfigurationError(TapreelError):
    """A setting, file or credential is missing or unusable."""

    exit_code = 3


class NotFoundError(TapreelError):
    """Nothing is known by the name that was asked for."""

    exit_code = 5


class UnreadableError(TapreelError):
    """A file that was given is not what it should be."""

    exit_code = 6


class JournalError(UnreadableError):
    """The file is not a journal, or holds nothing that can be trusted."""


class UnprovenError(JournalError):
    """No start message names the call of the token that let the stream in: nothing is kept."""


class DialError(TapreelError):
    """Another end cannot be reached, or refuses us; then `status` is what it answered."""

    exit_code = 7

    def __init__(self, detail: str, *, status: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        if status is not None:
            self.exit_code = {401: 4, 403: 4, 404: 5, 400: 6, 422: 6, 501: 6}.get(status, 7)


class PeerError(TapreelError):
    """The other end of a stream misbehaved."""


class Refused(PeerError):
    """The caller may neither stream nor listen: its request carries no valid token.

    `reason` is for counters and logs; the caller gets no reason.
    """

    def __init__(self, reason: RefusalReason) -> None:
        super().__init__(f"refused: {reason}")
        self.reason = reason


class MessageRejected(PeerError):
    """One message cannot be used; it is counted and the stream lives on.

    `code` is a stable word for counters; `chunk` says which chunk was refused when the
    message was recognisably one.
    """

    def __init__(self, code: str, detail: str, *, chunk: RejectedChunk | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.chunk = chunk


class ProtocolViolation(PeerError):
    """The stream cannot go on; the socket is closed with `close_code` and this text."""

    def __init__(self, detail: str, *, close_code: int = 1008) -> None:
        super().__init__(detail)
        self.detail = detail
        self.close_code = close_code


class FormatRefused(ProtocolViolation):
    """A start message names a media format that cannot be decoded.

    `start` is what else it says; its own format stands for none.
    """

    def __init__(self, violation: ProtocolViolation, start: Start) -> None:
        super().__init__(violation.detail, close_code=violation.close_code)
        self.start = start
