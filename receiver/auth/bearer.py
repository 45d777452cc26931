"""Bearer tokens as text: one header in, one token out; and the lists of secrets in files.

Pure: header values and texts come in, a token or `Refused` comes out. Tokens are held as digests,
so that comparing costs the same time whatever their length, and no digest can be printed as a
token.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from typing import Final

from receiver.errors import ConfigurationError, Refused

LONGEST_HEADER: Final = 8192
SHORTEST_TOKEN: Final = 16
SHORTEST_KEY: Final = 32
"""A key for HS256 has at least 256 bits (RFC 7518, section 3.2)."""
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_CREDENTIALS = re.compile(r"(?P<scheme>[!-~]+) +(?P<token>[!-~]+) *")


class RefusalReason(enum.StrEnum):
    """Why a request was refused. A closed set, for counters; the caller gets a bare 401."""

    MISSING = "missing"
    DUPLICATED = "duplicated"
    TOO_LONG = "too_long"
    NON_ASCII = "non_ascii"
    MALFORMED = "malformed"  # not "Bearer" and one token
    UNKNOWN = "unknown"  # no configured token, and not a token that a known key signed
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    UNSUITABLE = "unsuitable"  # well signed, but for another audience or without a claim


def bearer_token(values: Sequence[str]) -> str:
    """Return the token in the values of an Authorization header.

    Raises:
        Refused: there is not exactly one.
    """
    if not values:
        raise Refused(RefusalReason.MISSING)
    if len(values) > 1:
        raise Refused(RefusalReason.DUPLICATED)
    if len(values[0]) > LONGEST_HEADER:
        raise Refused(RefusalReason.TOO_LONG)
    if not values[0].isascii():
        raise Refused(RefusalReason.NON_ASCII)
    match = _CREDENTIALS.fullmatch(values[0])
    if match is None or match["scheme"].lower() != "bearer":
        raise Refused(RefusalReason.MALFORMED)
    return match["token"]


def digest(token: str) -> bytes:
    """Return the SHA-256 of a token, which is kept in its place."""
    return hashlib.sha256(token.encode()).digest()


def is_among(token_digest: bytes, known: Iterable[bytes]) -> bool:
    """Return whether a digest is one of the known ones, in the same time for each of them."""
    # Every token is compared, so that the time says nothing about which one came close.
    matches = [hmac.compare_digest(each, token_digest) for each in known]
    return any(matches)


def parse_tokens(text: str) -> tuple[str, ...]:
    """Return the tokens of a token file: one per line, without blank lines and `#` comments.

    Raises:
        ConfigurationError: a line holds no usable token; the text names the line only.
    """
    return _secrets(text, "token", SHORTEST_TOKEN)


def parse_keys(text: str) -> tuple[str, ...]:
    """Return the keys of a key file, which has the form of a token file.

    Raises:
        ConfigurationError: a line holds no usable key; the text names the line only.
    """
    return _secrets(text, "key", SHORTEST_KEY)


def _secrets(text: str, what: str, shortest: int) -> tuple[str, ...]:
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        secret = line.strip(" \t\r")
        if not secret or secret.startswith("#"):
            continue
        if not _VISIBLE.fullmatch(secret):
            problem = "has a character outside visible ASCII"
        elif len(secret) < shortest:
            problem = f"is shorter than {shortest} characters"
        else:
            found.append(secret)
            continue
        raise ConfigurationError(f"the {what} on line {number} {problem}")
    return tuple(found)
