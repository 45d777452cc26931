"""Bearer tokens for a receiver: static ones, and keys that sign one per call.

They come from files that others cannot read, or from the environment, never from arguments.
"""

from __future__ import annotations

import os
import re
import stat
import time
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol
from uuid import uuid4

from starter.errors import ConfigError, InvalidRequestError
from starter.validation import MIN_TOKEN_CHARS, check_bearer_token

AUDIENCE: Final = "receiver"
DEFAULT_TTL_SECONDS: Final = 300
MIN_KEY_BYTES: Final = 32
_LARGEST_FILE_BYTES: Final = 65536
_VISIBLE = re.compile(rb"[\x21-\x7e]+")
_READABLE_BY_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class Bearer(Protocol):
    """A source of the tokens of streams."""

    def token_for(self, sid: str) -> str:
        """The token for the stream on the call (or conference) `sid`."""
        ...


@dataclass(frozen=True, slots=True)
class StaticToken:
    """One token for every call."""

    token: str = field(repr=False)

    def token_for(self, sid: str) -> str:
        """The same token whatever the call."""
        return self.token


@dataclass(frozen=True, slots=True)
class StreamKey:
    """Signs a token that one call can use once: JWT, HS256. Raises ConfigError.

    A key is what the receiver accepts as one: at least `MIN_KEY_BYTES` of visible ASCII.

    Claims: `sub` the call sid, `aud` "receiver", `exp`, `jti`; the header's `kid` is the first
    8 hex digits of the key's SHA-256, so that receivers can hold several keys.
    """

    key: bytes = field(repr=False)
    ttl_seconds: int = DEFAULT_TTL_SECONDS

    def __post_init__(self) -> None:
        if not _VISIBLE.fullmatch(self.key):
            raise ConfigError("the stream key must be visible ASCII without white space")
        if len(self.key) < MIN_KEY_BYTES:
            raise ConfigError(
                f"the stream key has {len(self.key)} bytes; it needs at least {MIN_KEY_BYTES}"
            )

    @property
    def kid(self) -> str:
        """The key's public name."""
        return sha256(self.key).hexdigest()[:8]

    def token_for(self, sid: str) -> str:
        """Mint a token for the stream on the call `sid`, valid from now for `ttl_seconds`."""
        import jwt  # costs 60 ms, and most commands sign nothing

        claims = {
            "sub": sid,
            "aud": AUDIENCE,
            "exp": int(time.time()) + self.ttl_seconds,
            "jti": uuid4().hex,
        }
        return jwt.encode(claims, self.key, algorithm="HS256", headers={"kid": self.kid})


def token_from_file(path: Path) -> StaticToken:
    """The first token of a file with one token per line and `#` comments. Raises ConfigError."""
    return _token(_first_line(read_secret(path)), str(path))


def token_from_text(text: str, source: str) -> StaticToken:
    """The first of several tokens, separated by commas or white space. Raises ConfigError."""
    return _token(_first_word(text), source)


def key_from_file(path: Path) -> StreamKey:
    """The first key of a file in the form of a token file. Raises ConfigError."""
    return _key(_first_line(read_secret(path)).encode(), str(path))


def key_from_text(text: str) -> StreamKey:
    """The first of several keys, separated by commas or white space. Raises ConfigError."""
    return _key(os.fsencode(_first_word(text)), "TAPREEL_STREAM_KEY")


def _key(key: bytes, source: str) -> StreamKey:
    if not key:
        raise ConfigError(f"{source} holds no key")
    try:
        return StreamKey(key)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


def _token(token: str, source: str) -> StaticToken:
    if not token:
        raise ConfigError(f"{source} holds no token")
    try:
        return StaticToken(check_bearer_token(token, shortest=MIN_TOKEN_CHARS))
    except InvalidRequestError as error:
        raise ConfigError(f"{source}: {error}") from error


def _first_line(content: bytes) -> str:
    """The first line that is neither empty nor a `#` comment; empty if there is none."""
    text = content.decode("ascii", errors="replace")
    lines = (line.strip(" \t\r") for line in text.split("\n"))  # as in the receiver
    return next((line for line in lines if line and not line.startswith("#")), "")


def _first_word(text: str) -> str:
    return next((word for word in re.split(r"[\s,]+", text) if word), "")


def read_secret(path: Path) -> bytes:
    """The bytes of a file that only its owner can read.

    Raises ConfigError if it cannot be read, or can be read by others.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            # a pipe, as of <(pass show token), cannot be read by others
            if stat.S_ISREG(mode) and mode & _READABLE_BY_OTHERS:
                raise ConfigError(f"{path} can be read by others: run chmod 600 {path}")
            content = file.read(_LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > _LARGEST_FILE_BYTES:
        raise ConfigError(f"{path} is too large to be a token or key file")
    return content
