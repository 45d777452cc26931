"""Token files, keys and signed tokens."""

import os
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import jwt
import pytest

from starter.errors import ConfigError
from starter.tokens import (
    StaticToken,
    StreamKey,
    key_from_file,
    key_from_text,
    read_secret,
    token_from_file,
    token_from_text,
)

TOKEN = "0123456789abcdef"
KEY = b"0123456789abcdef" * 2

SecretFile = Callable[..., Path]


def test_the_first_token_of_a_file_counts(secret_file: SecretFile) -> None:
    """Comments and empty lines are skipped, later tokens left alone."""
    path = secret_file(f"# rotation\n\n  {TOKEN}  \nanother-token-for-later\n")
    assert TOKEN == token_from_file(path).token_for("any call")


@pytest.mark.parametrize("text", [TOKEN, f" {TOKEN},x", f",\n{TOKEN}\tx"])
def test_the_first_token_of_a_text_counts(text: str) -> None:
    """Commas and white space separate tokens."""
    assert StaticToken(TOKEN) == token_from_text(text, "TAPREEL_TOKENS")


@pytest.mark.parametrize(("content", "why"), [("# none\n", "holds no token"), ("short", "16 to")])
def test_useless_token_files_are_refused(secret_file: SecretFile, content: str, why: str) -> None:
    """No token or too short a one is a configuration error that names the file."""
    path = secret_file(content)
    with pytest.raises(ConfigError, match=f"secret.*{why}"):
        token_from_file(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_files_open_to_others_are_refused(secret_file: SecretFile, mode: int) -> None:
    """The error says what to do."""
    path = secret_file(TOKEN, mode=mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
        read_secret(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """The refusal gives the system's reason."""
    with pytest.raises(ConfigError, match="No such file"):
        read_secret(tmp_path / "none")


def test_a_huge_file_is_refused(secret_file: SecretFile) -> None:
    """A wrong path does not fill the memory."""
    with pytest.raises(ConfigError, match="too large"):
        read_secret(secret_file(b"x" * 70_000))


def test_a_pipe_is_read_whatever_its_mode() -> None:
    """A shell's process substitution works."""
    reading, writing = os.pipe()
    os.write(writing, TOKEN.encode())
    os.close(writing)
    try:
        assert TOKEN.encode() == read_secret(Path(f"/dev/fd/{reading}"))
    finally:
        os.close(reading)


def test_a_minted_token_says_what_the_receiver_checks() -> None:
    """Subject, audience, expiry and key id are those of the design; the id is new each time."""
    key = StreamKey(KEY, ttl_seconds=60)
    token = key.token_for("the-call")
    claims = jwt.decode(token, KEY, algorithms=["HS256"], audience="receiver")
    again = jwt.decode(key.token_for("the-call"), KEY, algorithms=["HS256"], audience="receiver")

    assert "the-call" == claims["sub"]
    assert 0 < claims["exp"] - time.time() <= 60
    assert claims["jti"] != again["jti"]
    assert sha256(KEY).hexdigest()[:8] == jwt.get_unverified_header(token)["kid"]


@pytest.mark.parametrize(
    "content",
    [b"k" * 32, b"# for the receiver\n\n " + b"k" * 32 + b" \r\n" + b"o" * 32 + b"\n"],
)
def test_a_key_file_looks_like_a_token_file(secret_file: SecretFile, content: bytes) -> None:
    """The first line counts, without what an editor puts around it."""
    assert StreamKey(b"k" * 32) == key_from_file(secret_file(content))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (bytes(range(33, 73)) + b"\x80", "visible ASCII"),
        (bytes(range(40)), "visible ASCII"),
        ("ü" * 32, "visible ASCII"),
        (b"k" * 32 + b" " + b"k" * 32, "visible ASCII"),
        (b"k" * 32 + b"\x0c" + b"k" * 32, "visible ASCII"),
        (b"k" * 32 + b"\v", "visible ASCII"),
        (b"k" * 31, "31 bytes"),
        (b"# none\n", "holds no key"),
    ],
)
def test_a_key_that_the_receiver_refuses_is_refused(
    secret_file: SecretFile, content: str | bytes, why: str
) -> None:
    """A token that it signed would be good for nothing; the text names the file."""
    path = secret_file(content)
    with pytest.raises(ConfigError, match=f"{path}.*{why}"):
        key_from_file(path)


@pytest.mark.parametrize("text", ["k" * 31, "ü" * 32, ","])
def test_a_key_of_the_environment_is_judged_alike(text: str) -> None:
    """The text names the variable."""
    with pytest.raises(ConfigError, match="TAPREEL_STREAM_KEY"):
        key_from_text(text)


def test_the_first_key_of_a_text_counts() -> None:
    """As with tokens."""
    assert StreamKey(b"k" * 32) == key_from_text(f"{'k' * 32},{'o' * 32}")


def test_a_short_key_is_refused() -> None:
    """HS256 needs 32 bytes."""
    with pytest.raises(ConfigError, match="31 bytes"):
        StreamKey(KEY[:31])


def test_secrets_do_not_show() -> None:
    """Neither token nor key is in a repr."""
    assert TOKEN not in repr(StaticToken(TOKEN))
    assert "0123" not in repr(StreamKey(KEY))
