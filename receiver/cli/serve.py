"""`receiver serve`, and `receiver config`, which shows what it would serve with."""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import click

from receiver.auth import tls
from receiver.cli.options import need_extra, settings
from receiver.config import SECRET
from receiver.config.settings import SETTINGS, Config, check_serving
from receiver.console import check_console, run_child
from receiver.errors import ConfigurationError
from receiver.media import visible


def _check(config: Config) -> None:
    """Refuse settings that neither a receiver nor its console must start with.

    Raises:
        ConfigurationError: the text says what to choose.
    """
    check_serving(config)
    if config.console:
        check_console(config)


@click.command()
@settings
def serve(config: Config) -> None:
    """Receive streams and record every track until Ctrl-C or SIGTERM."""
    _check(config)
    from receiver import logs
    from receiver.service import run

    if config.console:
        need_extra("oidc" if config.oidc_issuer else "console")
    logs.configure(config.log_level)
    run.run(config, run_child if config.console else None)


MASK = "********"
_USER = re.compile(
    r"(?i)(\b[a-z][a-z0-9+.-]*://|^(?!\S*://))"  # a scheme, which may have been forgotten
    r"(?:[^/?#\s]*|[^/?#\s:]*:(?!\d+[/?#])\S*)@"  # a password may hold what ends a host
)
_IN_QUERY = re.compile(r"(?i)([?&][^=&#\s]*(?:token|key|secret|passw|auth|sig)[^=&#\s]*=)[^&#\s]+")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@settings
def config(config: Config, as_json: bool) -> None:
    """Print the effective settings and where each came from; secrets are masked."""
    shown = {name: _shown(name, config) for name in SETTINGS}
    if as_json:
        document = {n: {"value": shown[n], "source": config.source(n)} for n in SETTINGS}
        click.echo(json.dumps(document, indent=2))
    else:
        for name, value in shown.items():
            click.echo(visible(f"{name:<26}{_text(value):<33} {config.source(name)}".rstrip()))
    try:
        _check(config)
        reason = tls.distrust(*config.tls) if config.tls is not None else ""
    except ConfigurationError as error:
        text = visible(_masked(str(error)))
        click.echo(f"note: `receiver serve` would refuse these settings: {text}", err=True)
    else:
        if reason:
            click.echo(f"note: providers would refuse this certificate: {reason}", err=True)


def _shown(name: str, config: Config) -> object:
    """Return a setting's value as JSON has it."""
    value = getattr(config, name)
    if SETTINGS[name].value_type is SECRET and value is not None:
        return MASK
    if isinstance(value, tuple):
        return [_masked(_row(each) if is_dataclass(each) else str(each)) for each in value]
    if isinstance(value, str):
        return _masked(value)
    return str(value) if isinstance(value, Path) else value


def _row(table: Any) -> str:
    """Return a table of the file as one text, all that it gives."""
    values = {each.name: getattr(table, each.name) for each in fields(table)}
    return " ".join(f"{name}={value}" for name, value in values.items() if value)


def _masked(text: str) -> str:
    """Mask user and password of a URL, and what its query calls a secret."""
    return _IN_QUERY.sub(rf"\1{MASK}", _USER.sub(rf"\1{MASK}@", text))


def _text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(value)
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
