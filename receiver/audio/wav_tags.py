"""What goes into a WAV file besides samples: LIST/INFO strings, and an ID3 tag behind them.

The INFO strings are what every reader shows. Custom parameters have no place there but the
comment, so each also becomes an ID3 entry by its own name. `recording.json` stays the truth:
what is cut short here is whole there.

Written here and by no library: mutagen, which would do it, is under the GPL, so only tests use it.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from receiver import __version__
from receiver.errors import UnreadableError
from receiver.media import json_text, parameter_text

LONGEST_COMMENT_BYTES: Final = 2000
"""An INFO string of 2048 bytes makes libsndfile 1.2.2 lose it and all that follow it."""
LONGEST_ID: Final = 200
"""Characters kept of an id; those of providers have at most 36."""
LONGEST_NAME_BYTES: Final = 1024
LONGEST_VALUE_BYTES: Final = 2**16
LONGEST_TAG_BYTES: Final = 2**19
"""All entries together; far more than 99 parameters of any real call."""
LEFT_OUT: Final = "parameters left out"
"""The name of the entry that stands for those that did not fit."""
HEAD_BYTES: Final = 64
"""How much of a WAV file's beginning `appended` needs."""

_ENTRY: Final = struct.Struct(">4s4s2x")  # name and size; no flags
_TAG: Final = struct.Struct(">3sBxx4s")  # version 2.4.0; no flags
_CHUNK: Final = struct.Struct("<4sI")
_UTF8: Final = b"\3"
_RIFF_SIZE_AT: Final = 4
_RF64_SIZE_AT: Final = 20  # in the ds64 chunk, which EBU Tech 3306 wants to be the first
_LARGEST_RIFF_SIZE: Final = 2**32 - 1
_UNSEEN: Final = re.compile(
    "[\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
"""What steers a terminal, turns the direction of writing, or cannot be seen or encoded.

Joiners (U+200C, U+200D) are not among them: scripts and emoji are made of them.
"""


@dataclass(frozen=True, slots=True)
class Tags:
    """LIST/INFO strings of bounded length. They are set before the samples.

    Readers disagree on what is not ASCII, so ids are ASCII. The comment is UTF-8, in which ffmpeg
    reads it: the parameters' names and values in their own script.
    """

    title: str
    date: str
    artist: str
    comment: str
    software: str = f"tapreel {__version__}"

    def strings(self) -> dict[str, str]:
        """Return the strings by soundfile's names for them; libsndfile refuses empty ones."""
        return {name: text for name, text in asdict(self).items() if text}


def tags(
    track: str, *, call_sid: str, account_sid: str, started_at: str, parameters: Mapping[str, Any]
) -> Tags:
    """Return the strings for the file of `track` ("inbound", "stereo"); any text will do."""
    return Tags(
        title=f"{_ascii(call_sid)} {_ascii(track)}".strip(),
        date=_ascii(started_at),
        artist=_ascii(account_sid),
        comment=_comment(parameters),
    )


def _ascii(text: str) -> str:
    """Escape all that readers show differently: control characters and whatever is not ASCII."""
    return text[:LONGEST_ID].encode("unicode_escape").decode("ascii")[:LONGEST_ID]


def _comment(parameters: Mapping[str, Any]) -> str:
    """Return JSON of as many whole parameters, in their order, as fit.

    What cannot be seen is escaped; the rest is as it is written.
    """
    members: list[str] = []
    left = LONGEST_COMMENT_BYTES - len("{}") - 1  # under the limit, not at it
    for name, value in parameters.items():
        member = _UNSEEN.sub(_escaped, f"{json_text(name)}: {json_text(value)}")
        size = len(member.encode())
        if size <= left:
            left -= size + len(", ")
            members.append(member)
    return "{" + ", ".join(members) + "}" if members else ""


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def id3_chunk(parameters: Mapping[str, Any]) -> bytes:
    """Return a whole RIFF chunk `id3 ` with one TXXX entry for each parameter, by its name.

    ID3 2.4 in UTF-8: the form whose values mediainfo, exiftool and mutagen read in all of
    Unicode (the first two lose what is outside the Basic Multilingual Plane in UTF-16). NUL,
    which ends a text there, becomes U+2400, lone surrogates become "?"; a name or value that
    is too long ends in "…". No parameters, no chunk: b"".
    """
    entries, left_out = bytearray(), 0
    for name, value in parameters.items():
        entry = _entry(name, parameter_text(value))
        if len(entries) + len(entry) > LONGEST_TAG_BYTES:
            left_out += 1
        else:
            entries += entry
    if left_out:
        entries += _entry(LEFT_OUT, f"{left_out} more are in recording.json")
    if not entries:
        return b""
    tag = _TAG.pack(b"ID3", 4, _syncsafe(len(entries))) + entries
    return _CHUNK.pack(b"id3 ", len(tag)) + tag + bytes(len(tag) % 2)


def _entry(name: str, value: str) -> bytes:
    """Return one TXXX entry.

    The value is terminated too, though ID3 does not ask for it: mutagen drops an entry with an
    empty, unterminated value.
    """
    texts = (_text(name, LONGEST_NAME_BYTES), _text(value, LONGEST_VALUE_BYTES))
    body = _UTF8 + b"".join(text + b"\0" for text in texts)
    return _ENTRY.pack(b"TXXX", _syncsafe(len(body))) + body


def _text(text: str, longest: int) -> bytes:
    encoded = text.replace("\0", "\u2400").encode("utf-8", "replace")
    if len(encoded) <= longest:
        return encoded
    return encoded[:longest].decode("utf-8", "ignore").encode() + "…".encode()


def _syncsafe(number: int) -> bytes:
    """Return four bytes of seven bits each (ID3 2.4, section 6.2)."""
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))


@dataclass(frozen=True, slots=True)
class Appended:
    """What to do to a file: write `patches`, each (offset, bytes), and `tail` at its end."""

    patches: tuple[tuple[int, bytes], ...]
    tail: bytes


def appended(head: bytes, length: int, chunk: bytes) -> Appended:
    """Return how to append a whole RIFF chunk to a WAV file of `length` bytes.

    `head` is the file's first `HEAD_BYTES`. The size of the whole is corrected: that of RIFF,
    or for RF64 the 64-bit one in ds64, where RIFF's own says "look there".

    Raises:
        UnreadableError: the file is no WAV file, or the whole would be too long for RIFF.
    """
    if not chunk:
        return Appended((), b"")
    tail = bytes(length % 2) + chunk
    size = length + len(tail) - 8
    if head[8:12] == b"WAVE" and head[:4] == b"RIFF":
        if size > _LARGEST_RIFF_SIZE:
            raise UnreadableError(f"a RIFF file cannot hold {size} bytes")
        return Appended(((_RIFF_SIZE_AT, struct.pack("<I", size)),), tail)
    if head[8:16] == b"WAVEds64" and head[:4] == b"RF64":
        return Appended(((_RF64_SIZE_AT, struct.pack("<Q", size)),), tail)
    raise UnreadableError("not a WAV file")
