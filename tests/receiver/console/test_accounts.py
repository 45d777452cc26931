"""Accounts, sessions, links and API tokens, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from receiver.catalogue.database import Database
from receiver.catalogue.schema import metadata
from receiver.console.accounts import (
    IDLE_MS,
    LINK_MS,
    SESSION_MS,
    Accounts,
    ApiTokens,
    Sessions,
)
from receiver.console.who import Role
from receiver.errors import ConfigurationError, NotFoundError

PASSWORD = "correct horse battery"


class Clock:
    """Milliseconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now


def test_an_account_is_found_by_its_name_in_any_case(database: Database) -> None:
    """And there is one of each name."""
    accounts = Accounts(database)
    made = accounts.add("Jane", Role.LISTENER, {"queue": "sales"})
    assert made == accounts.user("JANE ")
    assert ("jane", Role.LISTENER, {"queue": "sales"}) == (made.name, made.role, made.scope)
    assert not made.has_password
    with pytest.raises(ConfigurationError, match="already"):
        accounts.add("jane", Role.ADMIN, {})
    with pytest.raises(NotFoundError, match="receiver user list"):
        accounts.user("nobody")
    with pytest.raises(ConfigurationError, match="visible"):
        accounts.add("\n", Role.ADMIN, {})


def test_a_password_opens_its_own_account_only(database: Database) -> None:
    """It is stored as a hash, and what is too short is refused."""
    accounts = Accounts(database)
    made = accounts.add("jane", Role.VIEWER, {}, password=PASSWORD)
    accounts.add("john", Role.VIEWER, {})
    assert made == accounts.check_password("Jane", PASSWORD)
    assert accounts.check_password("jane", PASSWORD + " ") is None
    assert accounts.check_password("john", PASSWORD) is None
    assert accounts.check_password("nobody", PASSWORD) is None
    assert accounts.check_password("jane", "x" * 100_000) is None
    with pytest.raises(ConfigurationError, match="10 to 1000 characters"):
        accounts.change("jane", password="short")
    with database.reading() as connection:
        stored = [
            str(cell)
            for table in metadata.sorted_tables
            for row in connection.execute(sa.select(table))
            for cell in row
        ]
    assert not [cell for cell in stored if PASSWORD in cell]
    assert [cell for cell in stored if cell.startswith("$argon2id$")]


def test_a_change_counts_at_once_also_for_who_is_signed_in(database: Database) -> None:
    """A session has no role of its own."""
    accounts, sessions = Accounts(database), Sessions(database)
    accounts.add("jane", Role.ADMIN, {})
    secret = sessions.open("jane", address="10.0.0.1", agent="a browser")
    before = sessions.who(secret)
    assert before is not None
    assert Role.ADMIN is before.role
    accounts.change("jane", role=Role.VIEWER, scope={"queue": "sales"})
    after = sessions.who(secret)
    assert after is not None
    assert (Role.VIEWER, {"queue": "sales"}) == (after.role, after.scope)
    assert secret not in repr(after) + repr(sessions.of("jane"))
    accounts.remove("jane")
    assert sessions.who(secret) is None


def test_a_new_password_ends_all_sessions_and_links(database: Database) -> None:
    """Whoever had the old one is out."""
    accounts, sessions = Accounts(database), Sessions(database)
    accounts.add("jane", Role.VIEWER, {})
    accounts.add("john", Role.VIEWER, {})
    secrets = [sessions.open(name, address="", agent="") for name in ("jane", "jane", "john")]
    code = accounts.make_link("jane")
    accounts.change("jane", password=PASSWORD)
    assert [None, None] == [sessions.who(secret) for secret in secrets[:2]]
    assert sessions.who(secrets[2]) is not None
    assert accounts.use_link(code) is None


def test_a_session_ends_when_nobody_uses_it_and_when_it_is_old(database: Database) -> None:
    """Use prolongs it, but not for ever."""
    clock = Clock()
    Accounts(database).add("jane", Role.VIEWER, {})
    sessions = Sessions(database, now_ms=clock)
    left, used = (sessions.open("jane", address="", agent="") for _ in range(2))
    began = clock.now
    while clock.now + IDLE_MS < began + SESSION_MS:
        clock.now += IDLE_MS - 1
        assert sessions.who(used) is not None
    assert sessions.who(left) is None
    clock.now = began + SESSION_MS + 1
    assert sessions.who(used) is None
    sessions.open("jane", address="", agent="")
    assert 1 == len(sessions.of("jane"))


def test_sessions_are_closed_one_by_one_or_all(database: Database) -> None:
    """By their key, which opens nothing."""
    Accounts(database).add("jane", Role.VIEWER, {})
    sessions = Sessions(database)
    secrets = [sessions.open("jane", address="10.0.0.1", agent="agent " * 100) for _ in range(3)]
    first = sessions.who(secrets[0])
    assert first is not None
    assert sessions.who(first.key) is None
    sessions.close(first.key)
    sessions.close(first.key)
    assert [None, "jane", "jane"] == [getattr(sessions.who(s), "name", None) for s in secrets]
    assert 2 == sessions.close_all("jane")
    assert [] == sessions.of("jane")


def test_a_link_signs_in_once_and_for_some_minutes(database: Database) -> None:
    """Of many who use it at the same time, one is signed in."""
    clock = Clock()
    accounts = Accounts(database, now_ms=clock)
    accounts.add("jane", Role.VIEWER, {})
    code = accounts.make_link("Jane")
    with ThreadPoolExecutor(4) as pool:
        used = [user for user in pool.map(accounts.use_link, [code] * 4) if user is not None]
    assert ["jane"] == [user.name for user in used]
    late = accounts.make_link("jane")
    clock.now += LINK_MS + 1
    assert accounts.use_link(late) is None
    assert accounts.use_link("") is None
    with pytest.raises(NotFoundError):
        accounts.make_link("nobody")


def test_a_token_is_shown_once_and_limits_its_account_further(database: Database) -> None:
    """It has the lesser role of both, and all limits."""
    accounts, tokens = Accounts(database), ApiTokens(database)
    accounts.add("jane", Role.MANAGER, {"queue": "sales"})
    secret, made = tokens.make("jane", role=Role.LISTENER, scope={"agent": "7"}, label="reports")
    who = tokens.who(secret)
    assert who is not None
    assert (Role.LISTENER, {"queue": "sales", "agent": "7"}) == (who.role, who.scope)
    assert f"token {made.id}" == who.via
    assert secret.startswith("tapreel_")
    assert secret not in repr(tokens.all()) + repr(who)
    assert tokens.all()[0].used_ms is not None
    accounts.change("jane", role=Role.VIEWER)
    who = tokens.who(secret)
    assert who is not None
    assert Role.VIEWER is who.role
    accounts.change("jane", scope={"agent": "8"})
    assert tokens.who(secret) is None


def test_a_token_cannot_do_more_than_its_account(database: Database) -> None:
    """Nor have limits that would leave nothing."""
    accounts, tokens = Accounts(database), ApiTokens(database)
    accounts.add("jane", Role.VIEWER, {"queue": "sales"})
    with pytest.raises(ConfigurationError, match="is viewer"):
        tokens.make("jane", role=Role.ADMIN)
    with pytest.raises(ConfigurationError, match="queue=sales"):
        tokens.make("jane", scope={"queue": "support"})
    with pytest.raises(NotFoundError):
        tokens.make("nobody")


def test_a_token_ends_when_it_is_revoked_or_its_time_is_up(database: Database) -> None:
    """Or when its account is removed."""
    clock = Clock()
    accounts, tokens = Accounts(database), ApiTokens(database, now_ms=clock)
    accounts.add("jane", Role.VIEWER, {})
    kept, made = tokens.make("jane")
    brief, _ = tokens.make("jane", expires_ms=clock.now + 1000)
    clock.now += 1001
    assert [True, False] == [tokens.who(secret) is not None for secret in (kept, brief)]
    assert made.id == tokens.revoke(made.id).id
    assert tokens.who(kept) is None
    with pytest.raises(NotFoundError, match="receiver user list"):
        tokens.revoke(made.id)
    another, _ = tokens.make("jane")
    accounts.remove("jane")
    assert tokens.who(another) is None
    assert [] == tokens.all()
    assert [] == tokens.all("jane")


@pytest.mark.parametrize("token", ["", "tapreel_", "tapreel_" + "x" * 43, "x" * 10_000, "\0"])
def test_what_is_no_token_opens_nothing(database: Database, token: str) -> None:
    """Whatever it is."""
    assert ApiTokens(database).who(token) is None


def test_a_subject_is_bound_to_an_account_by_its_first_sign_in(database: Database) -> None:
    """From then on another subject of the same name is somebody else."""
    accounts = Accounts(database)
    accounts.add("jane@example.com", Role.VIEWER, {})
    first = accounts.of_subject("https://id.example", "1", "Jane@example.com")
    assert first is not None
    assert first == accounts.of_subject("https://id.example", "1", "renamed@example.com")
    assert accounts.of_subject("https://id.example", "2", "jane@example.com") is None
    assert accounts.of_subject("https://other.example", "1", "jane@example.com") is None
    assert accounts.of_subject("https://id.example", "3", "nobody@example.com") is None
