"""What can go wrong, as one tree; each leaf has the exit code that a command ends with.

TapreelError                      1  unexpected
├── DiskLeftError                 1  the end could not wait for a disk that takes nothing
├── ConfigurationError            3  a setting, file or credential is missing or unusable
│   ├── UnsafeFolderError         3  ... a folder into which others can put things (an OSError, too)
│   └── FolderInUseError          3  ... a folder that another receiver has
├── NotFoundError                 5  no such recording
├── AnnotationError               6  a label, note or hold that cannot be added
├── RemovalError                  6  a recording that may not, or cannot, be erased or deleted
├── LedgerError                   3  the ledger takes no entry, so nothing is done (an OSError, too)
├── UnreadableError               6  a file that was given is not what it should be
│   └── JournalError              6  ... and it is a journal
│       └── UnprovenError         6  ... of a stream that was never shown to be its token's call
├── CatalogueError                7  the catalogue's database is away, locked, full or damaged
├── DialError                     7  another end cannot be reached, or refuses: 4, 5 or 6 then
├── LineClosed                    -  a connection that we opened is closed
└── PeerError                     -  whoever connected to us misbehaved
    ├── Refused                   -  its request carries no valid token; the answer is a bare 401
    ├── BadRequest                -  its URL asks for what is not there; the answer is a 400
    │   └── BadWord               -  ... or a word of a search cannot be used
    ├── MessageRejected           -  one message cannot be used; the stream lives on
    └── ProtocolViolation         -  the stream cannot go on; it is closed with a code

A dash: no command ends with it, because somebody always catches it.
The last two are in `receiver.wire`, beside the messages that they are about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from receiver.auth.bearer import RefusalReason


class TapreelError(Exception):
    """Base of every error that tapreel raises on purpose; its text is for the user."""

    exit_code = 1


class DiskLeftError(TapreelError):
    """The process ends, and leaves a disk behind that hangs or fails."""


class ConfigurationError(TapreelError):
    """A setting, file or credential is missing or unusable."""

    exit_code = 3


class UnsafeFolderError(ConfigurationError, OSError):
    """Others made a folder, or could put things into it; nothing is written there."""


class FolderInUseError(ConfigurationError):
    """Another living process owns a folder."""


class NotFoundError(TapreelError):
    """Nothing has the name that was asked for."""

    exit_code = 5


class AnnotationError(TapreelError):
    """A label, note or hold cannot be added; the text says why."""

    exit_code = 6


class RemovalError(TapreelError):
    """A recording may not be erased or deleted, as when it is held; nothing was done."""

    exit_code = 6


class LedgerError(TapreelError, OSError):
    """The ledger takes no entry, so what would have been entered is not done."""

    exit_code = 3


class UnreadableError(TapreelError):
    """A file that was given is not what it should be."""

    exit_code = 6


class JournalError(UnreadableError):
    """The file is not a journal, or holds nothing that can be trusted."""


class UnprovenError(JournalError):
    """No start message names the call of the token that admitted the stream: nothing is kept."""


class CatalogueError(TapreelError):
    """The catalogue's database is away, locked, full or damaged; recordings are none of these."""

    exit_code = 7


class DialError(TapreelError):
    """Another end cannot be reached, or refuses us; then `status` is what it answered."""

    exit_code = 7

    def __init__(self, detail: str, *, status: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        if status is not None:
            self.exit_code = {401: 4, 403: 4, 404: 5, 400: 6, 409: 6, 422: 6, 501: 6}.get(status, 7)


class LineClosed(TapreelError):
    """A connection that we opened is closed.

    `code` is the other end's close code, or 1006 where it sent none.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class PeerError(TapreelError):
    """Whoever connected to us misbehaved."""


class Refused(PeerError):
    """The caller may neither stream nor listen: its request carries no valid token.

    `reason` is for counters and logs; the caller gets no reason.
    """

    def __init__(self, reason: RefusalReason) -> None:
        super().__init__(f"refused: {reason}")
        self.reason = reason


class BadRequest(PeerError):
    """The URL asks for something that is not there; the text is for the caller."""


class BadWord(BadRequest):
    """A word of a search is unknown, or its value cannot be used; `word` says which it is."""

    def __init__(self, word: str, problem: str) -> None:
        super().__init__(f"{word}: {problem}")
        self.word = word
