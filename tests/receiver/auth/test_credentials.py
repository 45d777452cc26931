"""Configured secrets: what counts, what is refused, and what is generated."""

from __future__ import annotations

import stat
from pathlib import Path

import jwt
import pytest

from receiver.auth.bearer import key_id
from receiver.auth.credentials import (
    demo_token_file,
    first_tap_token,
    has_tap_tokens,
    new_token,
    read_again,
    stream_tokens,
    tap_tokens,
)
from receiver.auth.tap_tokens import TapTokens
from receiver.config.settings import Config
from receiver.errors import ConfigurationError, Refused
from tests.receiver.helpers.secret_files import secret

TOKEN = "a-token-0123456789"
KEY = "k" * 32


def admits(config: Config, token: str) -> bool:
    """Return whether a caller with `token` would be admitted."""
    try:
        stream_tokens(config).admit([f"Bearer {token}"], now=0)
    except Refused:
        return False
    return True


def test_tokens_of_file_and_environment_are_all_valid(tmp_path: Path) -> None:
    """Every line of the file and every word of the variable is a token."""
    path = secret(tmp_path / "tokens", f"# two\n{TOKEN}\n{TOKEN}-next\n")
    config = Config(token_file=path, tokens=f" {TOKEN}-a,{TOKEN}-b\n{TOKEN}-c, ")
    for token in (TOKEN, f"{TOKEN}-next", f"{TOKEN}-a", f"{TOKEN}-b", f"{TOKEN}-c"):
        assert admits(config, token)
    assert not admits(config, f"{TOKEN}-d")


def test_tokens_can_be_read_again(tmp_path: Path) -> None:
    """A changed file changes who is admitted."""
    config = Config(token_file=secret(tmp_path / "tokens", TOKEN))
    assert admits(config, TOKEN)
    secret(tmp_path / "tokens", f"{TOKEN}-next")
    assert not admits(config, TOKEN)
    assert admits(config, f"{TOKEN}-next")


@pytest.mark.parametrize("from_file", [False, True])
def test_keys_sign_tokens(tmp_path: Path, from_file: bool) -> None:
    """A key counts without the line break at the end of its file."""
    claims = {"sub": "CA1", "aud": "receiver", "exp": 10, "jti": "once"}
    token = jwt.encode(claims, KEY, "HS256", {"kid": key_id(KEY.encode())})
    file = secret(tmp_path / "key", KEY + "\n")
    config = Config(stream_key_file=file) if from_file else Config(stream_key=KEY)
    assert admits(config, token)


def test_unusable_secrets_are_named_by_place(tmp_path: Path) -> None:
    """The error names file or variable and line, never the secret."""
    path = secret(tmp_path / "tokens", "short\n")
    for expected, config in (
        (f"{path}: the token on line 1 is shorter than 16 characters", Config(token_file=path)),
        (f"{path}: the key on line 1 is shorter than 32 characters", Config(stream_key_file=path)),
        (
            "TAPREEL_TOKENS: the token on line 2 is shorter than 16 characters",
            Config(tokens=f"{TOKEN},short"),
        ),
        ("TAPREEL_TOKENS holds no token or key", Config(tokens=",")),
        (
            "TAPREEL_STREAM_KEY: the key on line 1 is shorter than 32 characters",
            Config(stream_key="short"),
        ),
    ):
        with pytest.raises(ConfigurationError) as caught:
            stream_tokens(config)
        assert expected == str(caught.value)


def test_bytes_that_are_no_text_are_refused_with_their_line(tmp_path: Path) -> None:
    """A token file may hold any byte without a decoding error."""
    path = secret(tmp_path / "tokens", "\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="line 1 has a character outside visible ASCII"):
        stream_tokens(Config(token_file=path))


def test_a_file_of_comments_is_refused(tmp_path: Path) -> None:
    """A file that is given must hold something."""
    path = secret(tmp_path / "tokens", "# none yet\n")
    with pytest.raises(ConfigurationError, match=f"^{path} holds no token or key"):
        stream_tokens(Config(token_file=path))


def test_the_demo_token_is_generated_once(tmp_path: Path) -> None:
    """It is kept with mode 0600, valid beside the variable's tokens, and not made without need."""
    config = Config(demo=True, state=tmp_path / "state", tokens=TOKEN)
    path = demo_token_file(config.state)
    stream_tokens(config)
    generated = path.read_text().strip()
    assert 43 == len(generated)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert admits(config, generated)
    assert admits(config, TOKEN)
    assert generated == path.read_text().strip()
    own = Config(demo=True, state=tmp_path / "none", token_file=secret(tmp_path / "t", TOKEN))
    assert admits(own, TOKEN)
    assert not (tmp_path / "none").exists()


def test_nothing_configured_admits_nobody() -> None:
    """Without credentials there are no tokens."""
    assert not admits(Config(), TOKEN)


def test_no_token_is_for_streams_and_for_taps(tmp_path: Path) -> None:
    """A token that may stream may not listen, wherever it is kept; the text names no secret."""
    file = secret(tmp_path / "tokens", f"another-{TOKEN}\n{TOKEN}\n")
    taps = secret(tmp_path / "taps", f"# for listeners\n{TOKEN}\n")
    for config in (
        Config(token_file=file, tap_token_file=taps),
        Config(tokens=TOKEN, tap_token_file=taps),
        Config(token_file=file, tap_tokens=TOKEN),
    ):
        for read in (stream_tokens, tap_tokens):
            with pytest.raises(ConfigurationError, match="tap token 1 of 1 is a stream") as caught:
                read(config)
            assert TOKEN not in str(caught.value)
    taps.write_text("one-for-listeners\n")
    apart = Config(token_file=file, tap_token_file=taps)
    assert stream_tokens(apart)
    assert tap_tokens(apart)


def test_tap_tokens_of_a_file_may_have_names(tmp_path: Path) -> None:
    """In front of a colon and white space; a colon alone is a part of the token."""
    content = f"# who listens\nsupport: {TOKEN}\n\n  qa-2:\t{TOKEN}-2 \nab:{TOKEN}\n# x: y\n"
    config = Config(tap_tokens=f"{TOKEN}-0", tap_token_file=secret(tmp_path / "taps", content))
    tokens = tap_tokens(config)
    sent = (f"{TOKEN}-0", TOKEN, f"{TOKEN}-2", f"ab:{TOKEN}")
    names = [tokens.admit((f"Bearer {token}",), None, now=0).name for token in sent]
    assert ["token 1", "support", "qa-2", "token 4"] == names
    same = Config(tokens=TOKEN, tap_token_file=config.tap_token_file)
    with pytest.raises(ConfigurationError, match="tap token 1 of 3 is a stream"):
        tap_tokens(same)


@pytest.mark.parametrize(
    "line", ["support: short", "sup port: {token}", "support: ", "a: {token} b"]
)
def test_a_bad_line_of_a_named_token_is_refused(tmp_path: Path, line: str) -> None:
    """By its number; the text holds no secret."""
    file = secret(tmp_path / "taps", f"\n{line.format(token=TOKEN)}\n")
    with pytest.raises(ConfigurationError, match="token on line 2") as caught:
        tap_tokens(Config(tap_token_file=file))
    assert TOKEN not in str(caught.value)


def test_bad_tap_tokens_do_not_affect_stream_tokens(tmp_path: Path) -> None:
    """On SIGHUP each part is replaced or kept on its own."""
    file = secret(tmp_path / "tokens", TOKEN)
    taps = secret(tmp_path / "taps", "short")
    config = Config(token_file=file, tap_token_file=taps)
    assert stream_tokens(config)
    with pytest.raises(ConfigurationError, match="shorter"):
        tap_tokens(config)


def test_a_receivers_own_console_has_a_token_of_its_own() -> None:
    """Called by its name, and valid beside all others; reading them again keeps it."""
    config = Config(tap_tokens=f"{TOKEN}-tap", console_token=new_token())
    assert has_tap_tokens(Config(console_token=new_token()))
    assert not has_tap_tokens(Config())
    for found in (
        tap_tokens(config),
        read_again(config, stream_tokens(config), tap_tokens(config))[1],
    ):
        assert isinstance(found, TapTokens)
        grant = found.admit([f"Bearer {config.console_token}"], None, now=0)
        assert ("console", "all") == (grant.name, str(grant.scope))
        assert "token 1" == found.admit([f"Bearer {TOKEN}-tap"], None, now=0).name


def test_the_first_tap_token_is_the_one_to_ask_with(tmp_path: Path) -> None:
    """Of the variable or the file; without one there is an error."""
    path = secret(tmp_path / "taps", f"reports: {TOKEN}-1\n{TOKEN}-2\n")
    assert f"{TOKEN}-1" == first_tap_token(Config(tap_token_file=path))
    assert f"{TOKEN}-3" == first_tap_token(Config(tap_tokens=f"{TOKEN}-3"))
    with pytest.raises(ConfigurationError, match="no tap token"):
        first_tap_token(Config())
