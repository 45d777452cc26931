"""Secrets on disk: who may read them, what is refused, and what is generated."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import jwt
import pytest

from receiver.auth.bearer import Refused, key_id
from receiver.auth.credentials import (
    demo_token_file,
    read_secret,
    state_folder,
    tap_tokens,
    tokens,
    write_secret,
)
from receiver.config.settings import Config
from receiver.errors import ConfigurationError

TOKEN = "a-token-0123456789"
KEY = "k" * 32
ANOTHER = 54_321
"""A user that is neither we nor root."""


def secret(path: Path, content: str, mode: int = 0o600) -> Path:
    """Write a secret file."""
    path.write_text(content, "latin-1")
    path.chmod(mode)
    return path


def refusal(path: Path) -> str:
    """Return why `path` is refused."""
    with pytest.raises(ConfigurationError) as caught:
        read_secret(path)
    return str(caught.value)


def admits(config: Config, token: str) -> bool:
    """Return whether a caller with `token` would get in."""
    try:
        tokens(config).admit([f"Bearer {token}"], now=0)
    except Refused:
        return False
    return True


def test_a_file_of_our_own_is_read(tmp_path: Path) -> None:
    """A file that only its owner can read is fine, also through a link."""
    link = tmp_path / "link"
    link.symlink_to(secret(tmp_path / "file", "content\n", 0o400))
    assert b"content\n" == read_secret(link)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o644])
def test_a_file_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    """The complaint says what to do."""
    path = secret(tmp_path / "file", TOKEN, mode)
    assert f"others can read {path}: chmod 600 {path}" == refusal(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    """Its owner knows the secret and can change it, whatever its mode."""
    path = secret(tmp_path / "file", TOKEN)
    os.chown(path, ANOTHER, -1)
    assert f"{path} belongs to another user: chown it to your own" == refusal(path)


def test_unusable_files_are_refused(tmp_path: Path) -> None:
    """Missing, empty, too long, a folder and a pipe: one line each, and no waiting."""
    missing = tmp_path / "missing"
    assert f"cannot read {missing}: No such file or directory" == refusal(missing)
    empty = secret(tmp_path / "empty", " \n")
    assert f"{empty} is empty" == refusal(empty)
    long = secret(tmp_path / "long", "x" * 1_048_577)
    assert f"{long} is longer than 1 MiB" == refusal(long)
    assert f"cannot read {tmp_path}: Is a directory" == refusal(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    assert f"{pipe} is not a plain file" == refusal(pipe)


def test_the_state_folder_is_ours_alone(tmp_path: Path) -> None:
    """It is made with 0700 whatever the umask, and taken again."""
    before = os.umask(0)
    try:
        folder = state_folder(tmp_path / "a" / "state")
    finally:
        os.umask(before)
    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    assert folder == state_folder(folder)


def test_a_state_folder_of_others_is_refused(tmp_path: Path) -> None:
    """Open to others, a link, or a file in its place: each is refused."""
    wide = tmp_path / "wide"
    wide.mkdir()
    wide.chmod(0o755)
    with pytest.raises(ConfigurationError, match=f"^others can look into {wide}: chmod 700"):
        state_folder(wide)
    wide.chmod(0o700)
    link = tmp_path / "link"
    link.symlink_to(wide)
    with pytest.raises(ConfigurationError, match="is not a folder of our own"):
        state_folder(link)
    with pytest.raises(ConfigurationError, match=r"^cannot make the folder .*: File exists"):
        state_folder(secret(tmp_path / "file", "x"))


def test_secrets_are_written_for_us_alone(tmp_path: Path) -> None:
    """The mode is 0600, a link is replaced and not followed, and nothing else is left."""
    target = secret(tmp_path / "target", "untouched")
    path = tmp_path / "secret"
    path.symlink_to(target)
    write_secret(path, b"content")
    assert b"content" == read_secret(path)
    assert not path.is_symlink()
    assert "untouched" == target.read_text()
    assert {path, target} == set(tmp_path.iterdir())


def test_a_secret_that_cannot_be_written(tmp_path: Path) -> None:
    """The complaint names the file, and no half of it stays."""
    (tmp_path / "secret" / "x").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=f"^cannot write {tmp_path / 'secret'}: "):
        write_secret(tmp_path / "secret", b"content")
    assert [tmp_path / "secret"] == list(tmp_path.iterdir())
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        write_secret(tmp_path / "none" / "secret", b"content")


def test_tokens_of_file_and_environment_are_all_valid(tmp_path: Path) -> None:
    """Every line of the file and every word of the variable is a token."""
    path = secret(tmp_path / "tokens", f"# two\n{TOKEN}\n{TOKEN}-next\n")
    config = Config(token_file=path, tokens=f" {TOKEN}-a,{TOKEN}-b\n{TOKEN}-c, ")
    for token in (TOKEN, f"{TOKEN}-next", f"{TOKEN}-a", f"{TOKEN}-b", f"{TOKEN}-c"):
        assert admits(config, token)
    assert not admits(config, f"{TOKEN}-d")


def test_tokens_can_be_read_again(tmp_path: Path) -> None:
    """A changed file changes who gets in."""
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
    """The complaint names file or variable and line, never the secret."""
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
            tokens(config)
        assert expected == str(caught.value)


def test_bytes_that_are_no_text_are_refused_with_their_line(tmp_path: Path) -> None:
    """Any byte can stand in a token file without a decoding error."""
    path = secret(tmp_path / "tokens", "\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="line 1 has a character outside visible ASCII"):
        tokens(Config(token_file=path))


def test_a_file_of_comments_is_refused(tmp_path: Path) -> None:
    """A file that is given must hold something."""
    path = secret(tmp_path / "tokens", "# none yet\n")
    with pytest.raises(ConfigurationError, match=f"^{path} holds no token or key"):
        tokens(Config(token_file=path))


def test_the_demo_token_is_generated_once(tmp_path: Path) -> None:
    """It is kept with mode 0600, valid beside the variable's tokens, and not made without need."""
    config = Config(demo=True, state=tmp_path / "state", tokens=TOKEN)
    path = demo_token_file(config.state)
    tokens(config)
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
    """Whoever may send may not listen, wherever the two are kept; the text names no secret."""
    file = secret(tmp_path / "tokens", f"another-{TOKEN}\n{TOKEN}\n")
    taps = secret(tmp_path / "taps", f"# for listeners\n{TOKEN}\n")
    for config in (
        Config(token_file=file, tap_token_file=taps),
        Config(tokens=TOKEN, tap_token_file=taps),
        Config(token_file=file, tap_tokens=TOKEN),
    ):
        for read in (tokens, tap_tokens):
            with pytest.raises(ConfigurationError, match="tap token 1 of 1 is a stream") as caught:
                read(config)
            assert TOKEN not in str(caught.value)
    taps.write_text("one-for-listeners\n")
    apart = Config(token_file=file, tap_token_file=taps)
    assert tokens(apart)
    assert tap_tokens(apart)


def test_bad_tap_tokens_are_no_trouble_of_stream_tokens(tmp_path: Path) -> None:
    """On SIGHUP each part is taken or kept on its own."""
    file = secret(tmp_path / "tokens", TOKEN)
    taps = secret(tmp_path / "taps", "short")
    config = Config(token_file=file, tap_token_file=taps)
    assert tokens(config)
    with pytest.raises(ConfigurationError, match="shorter"):
        tap_tokens(config)
