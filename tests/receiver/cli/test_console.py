"""`receiver user` and `receiver console`: accounts made, listed, changed; usage and settings."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from receiver.catalogue.database import open_database
from receiver.cli.console import ROLES
from receiver.cli.main import main
from receiver.cli.options import EXTRAS
from receiver.console.accounts import Accounts, ApiTokens
from receiver.console.who import Role

PASSWORD = "correct horse battery"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command, and returns exit code and output."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, "--recordings", str(tmp_path / "recordings")])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


def password_file(folder: Path, text: str) -> str:
    """Return the path of a file with a password."""
    path = folder / "password"
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def test_the_commands_know_every_role() -> None:
    """They name them without importing the console."""
    assert tuple(Role) == ROLES


def test_an_account_is_added_listed_changed_and_removed(run: Run, tmp_path: Path) -> None:
    """Each command says what is so now."""
    given = password_file(tmp_path, PASSWORD + "\n")
    limits = ("--param", "queue=sales", "--param", "agent=7")
    code, out, _ = run(
        "user", "add", "Jane", "--role", "listener", *limits, "--password-file", given
    )
    assert (0, "jane is listener, only agent=7, only queue=sales\n") == (code, out)
    database = open_database(None, tmp_path / "recordings")
    assert Accounts(database).check_password("jane", PASSWORD) is not None
    assert (
        "jane is manager, only agent=7, only queue=sales\n"
        == run("user", "role", "jane", "manager")[1]
    )
    assert "jane is manager\n" == run("user", "role", "jane", "--no-limits")[1]
    new = password_file(tmp_path, "another long password")
    assert 0 == run("user", "password", "jane", "--password-file", new)[0]
    assert Accounts(database).check_password("jane", PASSWORD) is None
    (listed,) = json.loads(run("user", "list", "--json")[1])
    assert ("jane", "manager", {}, True, []) == (
        *(listed["name"], listed["role"], listed["parameters"], listed["has_password"]),
        listed["tokens"],
    )
    assert (0, "jane is removed\n") == run("user", "remove", "JANE")[:2]
    assert "no accounts" in run("user", "list")[2]
    database.close()


def test_a_token_is_printed_once_and_revoked_by_its_id(run: Run, tmp_path: Path) -> None:
    """stdout has the token alone, so that it can be piped."""
    run("user", "add", "program", "--role", "listener", "--no-password")
    options = ("--role", "viewer", "--param", "queue=sales", "--label", "reports", "--days", "9")
    code, out, err = run("user", "token", "program", *options)
    assert 0 == code
    database = open_database(None, tmp_path / "recordings")
    who = ApiTokens(database).who(out.strip())
    assert who is not None
    assert (Role.VIEWER, {"queue": "sales"}) == (who.role, who.scope)
    token_id = err.split()[3].rstrip(":")
    listed = run("user", "list")[1]
    assert token_id in listed
    assert "reports" in listed
    assert "only queue=sales" in listed
    assert out.strip() not in listed + err
    assert 0 == run("user", "revoke", token_id)[0]
    assert ApiTokens(database).who(out.strip()) is None
    assert 5 == run("user", "revoke", token_id)[0]
    database.close()


def test_a_link_is_where_people_reach_the_console(run: Run, tmp_path: Path) -> None:
    """Its code signs in."""
    run("user", "add", "jane", "--role", "viewer", "--no-password")
    code, out, _ = run("user", "link", "jane", "--public-url", "https://calls.example.com/")
    assert 0 == code
    assert out.startswith("https://calls.example.com/login#")
    database = open_database(None, tmp_path / "recordings")
    assert Accounts(database).use_link(out.strip().partition("#")[2]) is not None
    database.close()
    assert 5 == run("user", "link", "nobody")[0]


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("add", "jane"), 2, "Missing option '--role'"),
        (("add", "jane", "--role", "viewer", "--param", "queue"), 2, "NAME=VALUE"),
        (
            ("add", "jane", "--role", "viewer", "--param", "a=1", "--param", "a=2"),
            *(2, "one parameter has one value"),
        ),
        (("add", "jane", "--role", "viewer"), 3, "no terminal to ask for a password"),
        (("add", "jane", "--role", "viewer", "--password-file", "nowhere"), 3, "cannot read"),
        (
            ("add", "jane", "--role", "viewer", "--no-password", "--password-file", "x"),
            *(2, "choose one of"),
        ),
        (("role", "jane"), 2, "give a ROLE"),
        (("role", "jane", "viewer"), 5, "no account 'jane'"),
        (("password", "jane"), 5, "no account 'jane'"),
        (("token", "jane"), 5, "no account 'jane'"),
        (("remove", "jane"), 5, "no account 'jane'"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    run: Run, arguments: tuple[str, ...], code: int, problem: str
) -> None:
    """With what to do instead, and the exit codes of all commands."""
    found, out, err = run("user", *arguments)
    assert (code, "") == (found, out)
    assert problem in err
    assert 1 == err.count("\n")


def test_a_password_is_asked_for_twice(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is a terminal."""
    typed = iter([PASSWORD, PASSWORD, PASSWORD, "another one"])
    monkeypatch.setattr(getpass, "getpass", lambda _: next(typed))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert 0 == run("user", "add", "jane", "--role", "viewer")[0]
    code, _, err = run("user", "password", "jane")
    assert (3, "receiver: the two passwords differ\n") == (code, err)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "choose one of --tls CERT KEY, --self-signed and --no-tls"),
        (("--no-tls", "--console-host", "0.0.0.0"), "--console-host"),  # noqa: S104
        (("--no-tls", "--console-user-header", "X-User"), "needs --behind-proxy"),
        (
            (
                "--no-tls",
                "--behind-proxy",
                "--console-user-header",
                "X-User",
                "--console-host",
                "::",
            ),
            "--trusted-proxy",
        ),
    ],
)
def test_the_console_refuses_settings_that_are_not_safe(
    run: Run, arguments: tuple[str, ...], problem: str
) -> None:
    """Before it opens anything."""
    code, _, err = run("console", *arguments)
    assert 3 == code
    assert problem in err


@pytest.mark.parametrize("url", ["calls.example.com", "https://x/path", "ftp://x", "https://u:p@x"])
def test_a_public_url_is_scheme_and_host(run: Run, url: str) -> None:
    """Paths of ours start at its root."""
    code, _, err = run("console", "--no-tls", "--public-url", url)
    assert 2 == code
    assert "without a path" in err


def test_a_missing_extra_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(EXTRAS, "console", ("not_installed_here",))
    for arguments in (("user", "list"), ("console", "--no-tls")):
        code, _, err = run(*arguments)
        assert 3 == code
        assert "pip install 'tapreel[console]'" in err
