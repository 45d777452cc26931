"""`receiver token`."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from receiver.cli.options import FILE
from receiver.errors import ConfigurationError


@click.group()
def token() -> None:
    """Mint tokens for live listeners."""


@token.command()
@click.option("--call", "call_sid", metavar="CALL_SID", help="the streams of one call")
@click.option("--param", "parameter", metavar="NAME=VALUE", help="streams with this parameter")
@click.option("--all", "everything", is_flag=True, help="every stream")
@click.option(
    "--ttl",
    type=click.IntRange(1, 31_536_000),
    default=300,
    show_default=True,
    help="seconds until it expires; up to 300 it may be used as ?access_token=",
)
@click.option(
    "--tap-key-file",
    type=FILE,
    help="file of the receiver's tap keys; else TAPREEL_TAP_KEY or TAPREEL_TAP_KEY_FILE",
)
def tap(
    call_sid: str | None,
    parameter: str | None,
    *,
    everything: bool,
    ttl: int,
    tap_key_file: Path | None,
) -> None:
    """Print a signed tap token: for one call, one parameter value, or all."""
    from receiver.auth import credentials
    from receiver.auth.tap_tokens import mint, parse_scope
    from receiver.config.load import load

    if sum((call_sid is not None, parameter is not None, everything)) != 1:
        raise click.UsageError("choose one of --call CALL_SID, --param NAME=VALUE and --all")
    claim = "all"
    if call_sid is not None:
        claim = f"call:{call_sid}"
    elif parameter is not None:
        claim = f"param:{parameter}"
    try:
        scope = parse_scope(claim)
    except ValueError:
        raise click.UsageError("give --call CALL_SID, or --param NAME=VALUE") from None
    keys = credentials.tap_keys(load({"tap_key_file": tap_key_file}, environ=os.environ))
    if not keys:
        raise ConfigurationError("no tap key: give --tap-key-file FILE, or TAPREEL_TAP_KEY")
    click.echo(mint(keys[0], scope, now=time.time(), ttl_seconds=ttl))
