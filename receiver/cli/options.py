"""Options that several commands share: settings, and how a running receiver is reached.

A setting is read flag > environment > TOML > default.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import click

from receiver.config import NETWORKS, PAIR, PATH, SECRET, SWITCH, TEXTS, is_loopback
from receiver.config.settings import SETTINGS, Config, Setting, load
from receiver.errors import ConfigurationError

Command = Callable[..., Any]
FILE: Final = click.Path(readable=False, path_type=Path)
"""A file, checked where it is read: an unusable one is a configuration error, not a usage error."""
_METAVARS: Final = {"host": "HOST", "port": "PORT", "recordings": "DIR", "spool": "DIR"}


class _SettingType(click.ParamType[Any]):
    """The value type of a setting, as a type of click's."""

    def __init__(self, setting: Setting) -> None:
        self.name = "file" if setting.value_type is PATH else "value"
        self._value_type = setting.value_type

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        try:
            return self._value_type.accept(self._value_type.parse(value))
        except ValueError:
            self.fail(f"it must be {self._value_type.expected}", param, ctx)


def _option(setting: Setting) -> Callable[[Command], Command]:
    flag = "--" + setting.name.replace("_", "-")
    if setting.value_type is SWITCH:
        return click.option(flag, setting.name, is_flag=True, default=None, help=setting.meaning)
    if setting.value_type is PAIR:
        return click.option(
            flag, setting.name, nargs=2, type=FILE, metavar="CERT KEY", help=setting.meaning
        )
    if setting.value_type in (TEXTS, NETWORKS):
        return click.option(
            flag,
            setting.name,
            multiple=True,
            callback=lambda _, __, given: given or None,  # none: the other sources decide
            metavar="TEXT" if setting.value_type is TEXTS else "CIDR",
            help=setting.meaning,
        )
    return click.option(
        flag,
        setting.name,
        type=_SettingType(setting),
        metavar=_METAVARS.get(setting.name),
        help=setting.meaning,
    )


def _with_settings(names: list[str], given: Callable[[Config], dict[str, Any]]) -> Any:
    """Return a decorator that adds flags for `names` and passes the result of `given(config)`."""

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def command(*arguments: Any, config_file: Path | None, **options: Any) -> Any:
            flags = {name: options.pop(name) for name in names}
            config = load(flags, environ=os.environ, file=config_file)
            return function(*arguments, **options, **given(config))

        decorated: Command = command
        for name in reversed(names):
            decorated = _option(SETTINGS[name])(decorated)
        return _config_option(decorated)

    return decorate


_config_option = click.option(
    "--config",
    "config_file",
    type=FILE,
    envvar="TAPREEL_CONFIG",
    metavar="FILE",
    help="TOML file of settings",
)


def recordings_folder(function: Command) -> Command:
    """Add `--recordings` and `--config`; pass `recordings: Path`."""
    given = _with_settings(["recordings"], lambda config: {"recordings": config.recordings})
    decorated: Command = given(function)
    return decorated


def named_settings(*names: str) -> Callable[[Command], Command]:
    """Return a decorator: a flag for each of these settings and `--config`; pass their values."""
    decorate: Callable[[Command], Command] = _with_settings(
        list(names), lambda config: {name: getattr(config, name) for name in names}
    )
    return decorate


def config_of(*names: str) -> Callable[[Command], Command]:
    """Return a decorator: a flag for each of these settings and `--config`; pass `config`."""
    decorate: Callable[[Command], Command] = _with_settings(
        list(names), lambda config: {"config": config}
    )
    return decorate


def settings(function: Command) -> Command:
    """Add a flag for every setting that can have one, and `--config`; pass `config: Config`."""
    names = [
        name
        for name, setting in SETTINGS.items()
        if setting.value_type is not SECRET and not setting.value_type.is_tables
    ]
    decorated: Command = _with_settings(names, lambda config: {"config": config})(function)
    return decorated


DEFAULT_RECEIVER: Final = "wss://127.0.0.1:8443"


_address_option = click.option(
    "--receiver",
    "address",
    default=DEFAULT_RECEIVER,
    envvar="TAPREEL_RECEIVER",
    show_default=True,
    metavar="URL",
    help="address of the receiver: wss://HOST:PORT, or ws:// on this machine",
)
_ca_option = click.option(
    "--ca-file",
    type=FILE,
    help="certificate to trust, such as that of a self-signed receiver",
)


def order_options(function: Command) -> Command:
    """Add how a receiver is reached and an order is signed; pass `give`, which gives one."""

    @_address_option
    @click.option(
        "--control-key-file",
        type=FILE,
        help="file of the receiver's control keys; else TAPREEL_CONTROL_KEY or"
        " TAPREEL_CONTROL_KEY_FILE",
    )
    @click.option("--token-file", type=FILE, help="file of a control token, in place of a key")
    @_ca_option
    @functools.wraps(function)
    def command(
        *arguments: Any,
        address: str,
        control_key_file: Path | None,
        token_file: Path | None,
        ca_file: Path | None,
        **options: Any,
    ) -> Any:
        def give(order: dict[str, Any]) -> dict[str, Any]:
            import asyncio

            from receiver.auth.bearer import parse_tokens
            from receiver.auth.credentials import read_secret
            from receiver.transports.client import give_order, trust_in

            url = _root(address)
            if token_file is not None:
                token = parse_tokens(read_secret(token_file).decode("latin-1"))[0]
            else:
                token = control_token(control_key_file, order["call_sid"], ttl_seconds=60)
            trust = trust_in(str(ca_file)) if ca_file else None
            return asyncio.run(give_order(url, order, token=token, trust=trust))

        return function(*arguments, give=give, **options)

    return command


def control_token(key_file: Path | None, call_sid: str, *, ttl_seconds: int, who: str = "") -> str:
    """Return a signed token for one order about a call.

    Raises:
        ConfigurationError: there is no key, or it cannot be used.
    """
    import secrets
    import time

    from receiver.auth.bearer import mint_control
    from receiver.auth.credentials import control_keys

    keys = control_keys(load({"control_key_file": key_file}, environ=os.environ))
    if not keys:
        text = "no control key: give --control-key-file FILE, or TAPREEL_CONTROL_KEY"
        raise ConfigurationError(text)
    jti = secrets.token_urlsafe(16)
    now = time.time()
    return mint_control(keys[0], call_sid, jti=jti, who=who, now=now, ttl_seconds=ttl_seconds)


def receiver_options(function: Command) -> Command:
    """Add `--receiver`, `--token-file` and `--ca-file`; pass `tap: str`, `token` and `ca_file`."""

    @_address_option
    @click.option("--token-file", type=FILE, help="file of a tap token")
    @_ca_option
    @functools.wraps(function)
    def command(
        *arguments: Any,
        address: str,
        token_file: Path | None,
        ca_file: Path | None,
        **options: Any,
    ) -> Any:
        options |= {"tap": f"{_root(address)}/tap", "token": tap_token(token_file)}
        return function(*arguments, **options, ca_file=str(ca_file) if ca_file else None)

    return command


def tap_url(tap: str, name: str) -> str:
    """Return the URL of one stream's tap."""
    return f"{tap}/{quote(name, safe='')}"


def tap_token(file: Path | None) -> str:
    """Return the first token of a file, or of `TAPREEL_TAP_TOKENS`.

    Raises:
        ConfigurationError: there is none.
    """
    from receiver.auth.bearer import parse_named_tokens, parse_tokens
    from receiver.auth.credentials import read_secret
    from receiver.config.settings import load

    if file is not None:
        named = parse_named_tokens(read_secret(file).decode("latin-1"))
        tokens = tuple(token for _, token in named)
    else:
        text = load({}, environ=os.environ).tap_tokens or ""
        tokens = parse_tokens("\n".join(text.replace(",", " ").split()))
    if not tokens:
        raise ConfigurationError("no tap token: give --token-file FILE, or TAPREEL_TAP_TOKENS")
    return tokens[0]


def _root(address: str) -> str:
    """Return scheme, host and port of a receiver."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if not host or parts.scheme not in ("ws", "wss"):
        raise ConfigurationError(f"--receiver must be like {DEFAULT_RECEIVER}")
    if parts.scheme == "ws" and not is_loopback(host):
        raise ConfigurationError("a receiver elsewhere needs wss: ws sends the token in the clear")
    return f"{parts.scheme}://{parts.netloc}"


EXTRAS: Final = {
    "catalogue": ("sqlalchemy", "alembic"),
    "console": (
        *("sqlalchemy", "alembic", "argon2", "jinja2", "python_multipart", "starlette", "uvicorn"),
    ),
    "oidc": ("authlib", "uvicorn"),
}
"""By extra of the package: what it brings, as it is imported."""


def need_extra(extra: str) -> None:
    """Refuse to go on where an extra of the package is not installed.

    Raises:
        ConfigurationError: the text says how to install it.
    """
    if any(importlib.util.find_spec(module) is None for module in EXTRAS[extra]):
        raise ConfigurationError(
            f"this needs libraries that are not installed: pip install 'tapreel[{extra}]'"
        )
