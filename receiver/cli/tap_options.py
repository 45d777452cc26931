"""Options of the commands that listen to a running receiver."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import click

from receiver.cli.options import FILE
from receiver.config.load import is_loopback
from receiver.errors import ConfigurationError

Command = Callable[..., Any]
DEFAULT_RECEIVER: Final = "wss://127.0.0.1:8443"


def receiver_options(function: Command) -> Command:
    """Add `--receiver`, `--token-file` and `--ca-file`; pass `tap: str`, `token` and `ca_file`."""

    @click.option(
        "--receiver",
        "address",
        default=DEFAULT_RECEIVER,
        envvar="TAPREEL_RECEIVER",
        show_default=True,
        metavar="URL",
        help="address of the receiver: wss://HOST:PORT, or ws:// on this machine",
    )
    @click.option("--token-file", type=FILE, help="file of a tap token")
    @click.option(
        "--ca-file",
        type=FILE,
        help="certificate to trust, such as that of a self-signed receiver",
    )
    @functools.wraps(function)
    def command(
        *arguments: Any,
        address: str,
        token_file: Path | None,
        ca_file: Path | None,
        **options: Any,
    ) -> Any:
        options |= {"tap": _tap_root(address), "token": tap_token(token_file)}
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
    from receiver.config.load import load

    if file is not None:
        named = parse_named_tokens(read_secret(file).decode("latin-1"))
        tokens = tuple(token for _, token in named)
    else:
        text = load({}, environ=os.environ).tap_tokens or ""
        tokens = parse_tokens("\n".join(text.replace(",", " ").split()))
    if not tokens:
        raise ConfigurationError("no tap token: give --token-file FILE, or TAPREEL_TAP_TOKENS")
    return tokens[0]


def _tap_root(address: str) -> str:
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if not host or parts.scheme not in ("ws", "wss"):
        raise ConfigurationError(f"--receiver must be like {DEFAULT_RECEIVER}")
    if parts.scheme == "ws" and not is_loopback(host):
        raise ConfigurationError("a receiver elsewhere needs wss: ws sends the token in the clear")
    return f"{parts.scheme}://{parts.netloc}/tap"
