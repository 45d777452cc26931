"""`receiver console` serves the console; `receiver user` manages who may use it."""

from __future__ import annotations

import contextlib
import getpass
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from receiver.cli.options import FILE, config_of, need_extra
from receiver.config.settings import Config
from receiver.console import check_console
from receiver.errors import ConfigurationError
from receiver.media import visible

if TYPE_CHECKING:
    from receiver.catalogue.database import Database
    from receiver.console.accounts import ApiToken, User
    from receiver.lifecycle.ledger import Act

ROLES: Final = ("viewer", "listener", "manager", "admin")
"""Those of `receiver.console.who.Role`, which no other command has a use for."""


@click.command()
@config_of(
    *("console_host", "console_port", "public_url", "console_user_header"),
    *("oidc_issuer", "oidc_client_id", "oidc_client_secret_file", "oidc_user_claim"),
    *("tap_url", "tap_token_file", "tap_ca_file"),
    *("tls", "self_signed", "no_tls", "behind_proxy", "trusted_proxy"),
    *("on_published", "on_published_seconds", "expect_seconds"),
    *("callback_key_file", "callback_secret_file"),
    *("recordings", "spool", "database_url", "state", "log_level"),
)
def console(config: Config) -> None:
    """Serve the console until Ctrl-C or SIGTERM: pages for people, the API for programs.

    It needs no running receiver, and a receiver needs no console.
    """
    check_console(config)
    need_extra("oidc" if config.oidc_issuer else "console")
    from receiver import logs
    from receiver.console import server

    logs.configure(config.log_level)
    server.run(config, lambda url: click.echo(f"console {url}"))


@click.group()
def user() -> None:
    """Manage the accounts of the console, and the API tokens of programs."""


def _parameters(
    context: click.Context, option: click.Parameter, given: Iterable[str]
) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in given]
    if not all(equals and name for name, equals, _ in pairs):
        raise click.BadParameter("it must be NAME=VALUE", context, option)
    scope = {name: value for name, _, value in pairs}
    if len(scope) < len(pairs):
        raise click.BadParameter("one parameter has one value", context, option)
    return scope


_LIMITS: Final = click.option(
    "--param",
    "scope",
    multiple=True,
    callback=_parameters,
    metavar="NAME=VALUE",
    help="only recordings with this custom parameter exist; may be repeated",
)
_PASSWORD: Final = click.option(
    "--password-file", type=FILE, help="file of the password; without it, it is asked for"
)
_JSON: Final = click.option("--json", "as_json", is_flag=True, help="print JSON")
_with_database: Final = config_of("recordings", "database_url")


@user.command()
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="what the account may do")
@_LIMITS
@_PASSWORD
@click.option(
    "--no-password", is_flag=True, help="it signs in by a link, a proxy or OpenID Connect"
)
@_with_database
def add(
    config: Config,
    name: str,
    role: str,
    scope: Mapping[str, str],
    password_file: Path | None,
    *,
    no_password: bool,
) -> None:
    """Add an account. NAME may be an e-mail address."""
    from receiver.console.accounts import Accounts
    from receiver.console.who import Role

    if no_password and password_file is not None:
        raise click.UsageError("choose one of --password-file and --no-password")
    with _database(config) as database:
        password = None if no_password else _password(password_file)
        _enter(config, "user_added", user=name, role=role, parameters=dict(scope))
        made = Accounts(database).add(name, Role(role), scope, password=password)
    click.echo(f"{made.name} is {made.role}{_limits(made.scope)}")


@user.command("list")
@_JSON
@_with_database
def list_users(config: Config, *, as_json: bool) -> None:
    """List accounts, and their API tokens."""
    from receiver.console.accounts import Accounts, ApiTokens

    with _database(config) as database:
        found, tokens = Accounts(database).all(), ApiTokens(database).all()
    if as_json:
        documents = [{**_user_document(u), "tokens": _token_documents(u, tokens)} for u in found]
        click.echo(json.dumps(documents, indent=2))
        return
    if not found:
        click.echo("no accounts: receiver user add NAME --role admin", err=True)
    for each in found:
        opened = "password" if each.has_password else "no password"
        _print(f"{each.name:<24} {each.role:<9} {opened}{_limits(each.scope)}")
        for token in (t for t in tokens if t.user == each.name):
            _print(f"  token {token.id}  {token.role:<9} {_token_text(token)}")


@user.command()
@click.argument("name")
@click.argument("role", type=click.Choice(ROLES), required=False)
@_LIMITS
@click.option("--no-limits", is_flag=True, help="remove all limits by parameters")
@_with_database
def role(
    config: Config, name: str, role: str | None, scope: Mapping[str, str], *, no_limits: bool
) -> None:
    """Change what an account may do: its ROLE, or its limits by parameters."""
    from receiver.console.accounts import Accounts
    from receiver.console.who import Role

    if not (role or scope or no_limits) or (scope and no_limits):
        raise click.UsageError("give a ROLE, --param NAME=VALUE, or --no-limits")
    with _database(config) as database:
        accounts = Accounts(database)
        about = {"role": role, "parameters": dict(scope) if scope or no_limits else None}
        _enter(config, "user_changed", user=accounts.user(name).name, **about)
        changed = accounts.change(
            name, role=Role(role) if role else None, scope=scope if scope or no_limits else None
        )
    click.echo(f"{changed.name} is {changed.role}{_limits(changed.scope)}")


@user.command()
@click.argument("name")
@_PASSWORD
@_with_database
def password(config: Config, name: str, password_file: Path | None) -> None:
    """Give an account a new password; it is signed out everywhere."""
    from receiver.console.accounts import Accounts

    with _database(config) as database:
        accounts = Accounts(database)
        user = accounts.user(name)  # before a password is asked for
        given = _password(password_file)
        _enter(config, "user_changed", user=user.name, password=True)
        changed = accounts.change(name, password=given)
    click.echo(f"{changed.name} has a new password, and is signed out everywhere")


@user.command()
@click.argument("name")
@_with_database
def remove(config: Config, name: str) -> None:
    """Remove an account with its tokens and sessions."""
    from receiver.console.accounts import Accounts

    with _database(config) as database:
        accounts = Accounts(database)
        _enter(config, "user_removed", user=accounts.user(name).name)
        removed = accounts.remove(name)
    click.echo(f"{removed.name} is removed")


@user.command()
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), help="less than the account's role")
@_LIMITS
@click.option("--label", default="", help="what it is for")
@click.option(
    "--days", type=click.IntRange(1, 3650), help="until it expires; without it, it never does"
)
@_with_database
def token(
    config: Config,
    name: str,
    role: str | None,
    scope: Mapping[str, str],
    label: str,
    days: int | None,
) -> None:
    """Print a new API token of an account. It is shown once, and stored as a hash."""
    import time

    from receiver.console.accounts import ApiTokens
    from receiver.console.who import Role

    expires_ms = None if days is None else time.time_ns() // 1_000_000 + days * 86_400_000
    with _database(config) as database:
        _enter(config, "token_made", user=name, label=label)
        secret, made = ApiTokens(database).make(
            name, role=Role(role) if role else None, scope=scope, label=label, expires_ms=expires_ms
        )
    click.echo(secret)
    click.echo(f"its id is {made.id}: receiver user revoke {made.id}", err=True)


@user.command()
@click.argument("token_id", metavar="ID")
@_with_database
def revoke(config: Config, token_id: str) -> None:
    """Revoke an API token. `receiver user list` shows the ids."""
    from receiver.console.accounts import ApiTokens

    with _database(config) as database:
        _enter(config, "token_revoked", token=token_id)
        revoked = ApiTokens(database).revoke(token_id)
    click.echo(f"token {revoked.id} of {revoked.user} is revoked")


@user.command()
@click.argument("name")
@config_of("recordings", "database_url", "public_url", "console_host", "console_port", "no_tls")
def link(config: Config, name: str) -> None:
    """Print a link that signs an account in: once, and within 15 minutes."""
    from receiver.console.accounts import Accounts

    with _database(config) as database:
        accounts = Accounts(database)
        _enter(config, "link_made", user=accounts.user(name).name)
        code = accounts.make_link(name)
    from receiver.console.server import url_of

    click.echo(f"{url_of(config, config.console_port)}login#{code}")


@contextlib.contextmanager
def _database(config: Config) -> Iterator[Database]:
    need_extra("console")
    from receiver.catalogue.database import open_database
    from receiver.disk.folders import make_recordings_folder

    make_recordings_folder(config.recordings)
    database = open_database(config.database_url, config.recordings)
    try:
        yield database
    finally:
        database.close()


def _enter(config: Config, act: Act, **details: Any) -> None:
    """Enter into the ledger what is about to be done.

    Raises:
        LedgerError: it cannot be entered, so it must not be done.
    """
    from receiver.cli.lifecycle import account
    from receiver.lifecycle.ledger import Ledger

    Ledger(config.recordings).append(act, who=account(), via="command", **details)


def _password(file: Path | None) -> str:
    """Return the password in a file, or the one that is typed twice.

    Raises:
        ConfigurationError: the file cannot be used, or nobody is there to ask.
    """
    from receiver.auth.credentials import read_secret

    if file is not None:
        try:
            return read_secret(file).decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise ConfigurationError(f"{file} is not UTF-8") from None
    if not sys.stdin.isatty():
        raise ConfigurationError("there is no terminal to ask for a password: --password-file FILE")
    first = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != first:
        raise ConfigurationError("the two passwords differ")
    return first


def _limits(scope: Mapping[str, str]) -> str:
    return "".join(f", only {name}={value}" for name, value in scope.items())


def _token_text(token: ApiToken) -> str:
    expires = f", until {_day(token.expires_ms)}" if token.expires_ms is not None else ""
    used = f"last used {_day(token.used_ms)}" if token.used_ms is not None else "never used"
    return f"{used}{expires}{_limits(token.scope)}  {token.label}".rstrip()


def _day(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d}"


def _time(milliseconds: int | None) -> str | None:
    from receiver.media import timestamp

    return None if milliseconds is None else timestamp(milliseconds)


def _user_document(user: User) -> dict[str, Any]:
    return {
        "name": user.name,
        "role": user.role,
        "parameters": dict(user.scope),
        "has_password": user.has_password,
        "created_at": _time(user.created_ms),
    }


def _token_documents(user: User, tokens: Iterable[ApiToken]) -> list[dict[str, Any]]:
    return [
        {
            "id": token.id,
            "role": token.role,
            "parameters": dict(token.scope),
            "label": token.label,
            "created_at": _time(token.created_ms),
            "expires_at": _time(token.expires_ms),
            "used_at": _time(token.used_ms),
        }
        for token in tokens
        if token.user == user.name
    ]


def _print(text: str) -> None:
    click.echo(visible(text))
