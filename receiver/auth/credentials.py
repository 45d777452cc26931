"""The configured tokens and keys: from variables and from secret files, also after SIGHUP.

Secret files are refused where others can read them, and written for their owner alone.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from receiver.auth.bearer import StreamTokens, parse_keys, parse_named_tokens, parse_tokens
from receiver.auth.tap_tokens import TapTokens
from receiver.config.settings import Config
from receiver.disk.files import open_regular, write_private
from receiver.errors import ConfigurationError

_ROOT: Final = 0
_LONGEST_FILE: Final = 1_048_576


def read_secret(path: Path) -> bytes:
    """Return the content of a secret file.

    Raises:
        ConfigurationError: it is missing, unreadable, empty, not a regular file, belongs to
            another user than ours or root, or others than its owner can read it.
    """
    return _read(path, _check_access)


def read_plain(path: Path) -> bytes:
    """Return the content of a file that is no secret, such as a certificate.

    Raises:
        ConfigurationError: it is missing, unreadable, empty, or not a regular file.
    """
    return _read(path, lambda *_: None)


def _read(path: Path, check: Callable[[Path, os.stat_result], None]) -> bytes:
    try:
        with open_regular(path, follow_links=True) as file:
            check(path, os.fstat(file.fileno()))
            content = file.read(_LONGEST_FILE + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    if not content.strip():
        raise ConfigurationError(f"{path} is empty")
    if len(content) > _LONGEST_FILE:
        raise ConfigurationError(f"{path} is longer than 1 MiB")
    return content


def _check_access(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in (os.geteuid(), _ROOT):  # its owner could read and change it
        raise ConfigurationError(f"{path} belongs to another user: chown it to your own")
    if status.st_mode & 0o077:
        raise ConfigurationError(f"others can read {path}: chmod 600 {path}")


def state_folder(path: Path) -> Path:
    """Return the folder of generated secrets, created with mode 0700 if it is missing.

    Raises:
        ConfigurationError: it cannot be created, is not our own, or others can read it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise ConfigurationError(f"cannot make the folder {path}: {error.strerror}") from error
    if stat.S_ISLNK(found.st_mode) or found.st_uid != os.geteuid():
        raise ConfigurationError(f"{path} is not a folder of our own: name another with --state")
    if found.st_mode & 0o077:
        raise ConfigurationError(f"others can look into {path}: chmod 700 {path}")
    return path


def write_secret(path: Path, content: bytes) -> None:
    """Replace `path` by a file of mode 0600 in one step; a link there is replaced, not followed.

    Raises:
        ConfigurationError: it cannot be written.
    """
    hidden = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        write_private(hidden, content)
        hidden.replace(path)
    except OSError as error:
        hidden.unlink(missing_ok=True)
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error


CONSOLE: Final = "console"
"""The name of the token with which a receiver's own console listens."""
_TOKEN_BYTES: Final = 32
_Secret = TypeVar("_Secret")
_Parse = Callable[[str], tuple[_Secret, ...]]
_Tokens = TypeVar("_Tokens")


def new_token() -> str:
    """Return a token that nobody can guess."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def demo_token_file(state: Path) -> Path:
    """Return where the generated token is."""
    return state / "token"


def stream_tokens(config: Config) -> StreamTokens:
    """Return every stream token and key that is configured now; each call reads the files again.

    With `demo` and no token file, a token is generated once and kept.

    Raises:
        ConfigurationError: one of them cannot be used, or is a tap token, too; the text names no
            secret.
    """
    static = _static_stream_tokens(config)
    tap_tokens = _if_usable(_static_tap_tokens, config)
    _keep_apart(static, tuple(token for _, token in tap_tokens))
    keys = _listed(config.stream_key, "TAPREEL_STREAM_KEY", parse_keys)
    keys += _in_file(config.stream_key_file, parse_keys)
    return StreamTokens(static, keys)


def has_tap_tokens(config: Config) -> bool:
    """Return whether a token or key for live taps is configured, or the console has one."""
    static = (config.tap_tokens, config.tap_token_file, config.console_token)
    given = (*static, config.tap_key, config.tap_key_file)
    return any(value is not None for value in given)


def tap_tokens(config: Config) -> TapTokens:
    """Return every tap token and key that is configured now.

    Raises:
        ConfigurationError: one of them cannot be used, or is a stream token, too; the text names
            no secret.
    """
    named = _static_tap_tokens(config)
    names, static = [name for name, _ in named], tuple(token for _, token in named)
    _keep_apart(_if_usable(_static_stream_tokens, config), static)
    return TapTokens(static, tap_keys(config), names)


def first_tap_token(config: Config) -> str:
    """Return the tap token with which we ask another receiver.

    Raises:
        ConfigurationError: there is none, or it cannot be used.
    """
    listed = _listed(config.tap_tokens, "TAPREEL_TAP_TOKENS", parse_tokens)
    in_file = _in_file(config.tap_token_file, parse_named_tokens)
    for token in (*listed, *(token for _, token in in_file)):
        return token
    raise ConfigurationError("no tap token is configured: --tap-token-file FILE")


def read_again(
    config: Config, streams: StreamTokens, taps: TapTokens
) -> tuple[StreamTokens | ConfigurationError, TapTokens | ConfigurationError]:
    """Return the stream and tap tokens that are configured now, to replace those in force.

    What cannot be used stays in force, so new tokens must not be among the other kind's old ones
    where these stay: a token that moves from one list to the other one moves with both files, or
    not at all.

    Args:
        config: Where they are.
        streams: The stream tokens in force.
        taps: The tap tokens in force.

    Returns:
        Of each kind the new tokens, or why the old ones stay in force.
    """
    new_streams, new_taps = _attempt(stream_tokens, config), _attempt(tap_tokens, config)
    staying = taps if isinstance(new_taps, ConfigurationError) else new_taps
    if isinstance(new_streams, StreamTokens) and staying.shares_with(new_streams):
        new_streams = ConfigurationError("a stream token opens taps, too, as long as these stay")
    present = streams if isinstance(new_streams, ConfigurationError) else new_streams
    if isinstance(new_taps, TapTokens) and new_taps.shares_with(present):
        new_taps = ConfigurationError("a tap token opens streams, too, as long as these stay")
    return new_streams, new_taps


def _attempt(read: Callable[[Config], _Tokens], config: Config) -> _Tokens | ConfigurationError:
    try:
        return read(config)
    except ConfigurationError as error:
        return error


def tap_keys(config: Config) -> tuple[str, ...]:
    """Return the keys that sign tap tokens, the one to sign with first.

    Raises:
        ConfigurationError: one of them cannot be used; the text names no secret.
    """
    keys = _listed(config.tap_key, "TAPREEL_TAP_KEY", parse_keys)
    return keys + _in_file(config.tap_key_file, parse_keys)


def control_keys(config: Config) -> tuple[str, ...]:
    """Return the keys that sign control tokens, the one to sign with first.

    A receiver and its own console have one more, made of what they share.

    Raises:
        ConfigurationError: one of them cannot be used; the text names no secret.
    """
    keys = _listed(config.control_key, "TAPREEL_CONTROL_KEY", parse_keys)
    keys += _in_file(config.control_key_file, parse_keys)
    return keys if config.console_token is None else (*keys, console_key(config.console_token))


def console_key(console_token: str) -> str:
    """Return the key with which a receiver's own console signs its orders."""
    return hmac.digest(console_token.encode(), b"control", "sha256").hex()


def forward_token(config: Config) -> str | None:
    """Return the token that consumers of forwarded streams get, if there is one.

    Raises:
        ConfigurationError: it cannot be used; the text names no secret.
    """
    given = _listed(config.forward_token, "TAPREEL_FORWARD_TOKEN", parse_tokens)
    return next(iter(given + _in_file(config.forward_token_file, parse_tokens)), None)


def _static_stream_tokens(config: Config) -> tuple[str, ...]:
    static = _listed(config.tokens, "TAPREEL_TOKENS", parse_tokens)
    static += _in_file(config.token_file, parse_tokens)
    if config.demo and config.token_file is None:
        static += _generated(config)
    return static


def _static_tap_tokens(config: Config) -> tuple[tuple[str, str], ...]:
    """Return tap tokens behind their names, which only those of a file may have."""
    listed = _listed(config.tap_tokens, "TAPREEL_TAP_TOKENS", parse_tokens)
    static = tuple(("", token) for token in listed)
    if config.console_token is not None:
        static += ((CONSOLE, config.console_token),)
    return static + _in_file(config.tap_token_file, parse_named_tokens)


def _if_usable(
    read: Callable[[Config], tuple[_Secret, ...]], config: Config
) -> tuple[_Secret, ...]:
    """Return tokens to compare others with; their own use reports what is wrong."""
    try:
        return read(config)
    except ConfigurationError:
        return ()


def _keep_apart(stream_tokens: tuple[str, ...], tap_tokens: tuple[str, ...]) -> None:
    """Refuse a token that is in both lists: who may stream may not listen, and the reverse."""
    for number, token in enumerate(tap_tokens, 1):
        if token in stream_tokens:
            problem = f"tap token {number} of {len(tap_tokens)} is a stream token, too"
            raise ConfigurationError(f"{problem}: give listeners tokens of their own")


def _listed(text: str | None, variable: str, parse: _Parse[_Secret]) -> tuple[_Secret, ...]:
    """Return the secrets of a variable, which are separated by commas or white space."""
    return _parsed(re.sub(r"[,\s]+", "\n", text.strip(", \t\r\n")), variable, parse) if text else ()


def _in_file(path: Path | None, parse: _Parse[_Secret]) -> tuple[_Secret, ...]:
    # Latin-1 decodes any byte: what is not ASCII is then refused with its line.
    return _parsed(read_secret(path).decode("latin-1"), str(path), parse) if path else ()


def _parsed(text: str, where: str, parse: _Parse[_Secret]) -> tuple[_Secret, ...]:
    try:
        found = parse(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None
    if not found:
        raise ConfigurationError(f"{where} holds no token or key")
    return found


def _generated(config: Config) -> tuple[str, ...]:
    state_folder(config.state)
    path = demo_token_file(config.state)
    if not path.exists():
        write_secret(path, new_token().encode() + b"\n")
    return _in_file(path, parse_tokens)
