"""What is asked for is told beforehand, and what the provider answered after it."""

from __future__ import annotations

import asyncio
import functools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from receiver.catalogue.database import open_database
from receiver.console.who import Role
from receiver.notifications.expectations import Expectation, Expectations
from starter.errors import (
    ConfigError,
    NotFoundError,
    OutcomeUnknownError,
    StarterError,
    UnavailableError,
    UnreachableError,
)
from starter.expectations import Announcement, CatalogueDatabase, store_of
from starter.models import StreamHandle, StreamRequest
from starter.tokens import StreamKey
from tests.bounds import at_most
from tests.receiver.catalogue.conftest import postgres, url
from tests.receiver.helpers.consoles import serving
from tests.receiver.helpers.secret_files import secret
from tests.starter.conftest import API_TOKEN, CALL_SID, PROJECT_ID
from tests.starter.web_hooks import web_hook

__all__ = ["postgres", "url"]
REQUEST = StreamRequest(
    url="wss://rec.example.com/audio",
    name="n1",
    parameters={"queue": "sales", "who": "Jané"},
    bearer_token=StreamKey(b"k" * 32).token_for(CALL_SID),
)


class Kept:
    """A store in memory."""

    def __init__(self) -> None:
        self.added: list[dict[str, Any]] = []
        self.answers: list[dict[str, str]] = []

    def add(self, values: Mapping[str, Any]) -> str:
        self.added.append(dict(values))
        return "exp_1"

    def answer(self, expectation_id: str, values: Mapping[str, str]) -> None:
        assert "exp_1" == expectation_id
        self.answers.append(dict(values))


class Away(Kept):
    """A store that cannot be reached."""

    def add(self, values: Mapping[str, Any]) -> str:
        raise OSError("no route\nto host")


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (NotFoundError("no such call", status=404), "refused"),
        (UnavailableError("busy", status=503), "failed"),
        (UnreachableError("no connection"), "failed"),
        (OutcomeUnknownError("sent", name="n1"), None),
    ],
)
def test_what_the_provider_answers_is_told(error: StarterError, state: str | None) -> None:
    """But nothing where nobody knows whether it starts the stream."""
    kept = Kept()
    announcement = Announcement(kept)
    announcement.ask(CALL_SID, REQUEST)
    announcement.failed(error)
    assert [state] * (state is not None) == [answer["state"] for answer in kept.answers]
    (added,) = kept.added
    assert (CALL_SID, "n1", {"queue": "sales", "who": "Jané"}) == (
        added["call_sid"],
        added["name"],
        added["parameters"],
    )
    assert 32 == len(added["token_id"])


def test_a_console_that_is_away_keeps_no_call_from_being_recorded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is a warning, in one line."""
    announcement = Announcement(Away())
    announcement.ask(CALL_SID, REQUEST)
    announcement.answered(StreamHandle(sid="s1"))
    assert ["the expectation is not written: no route"] == [r.message for r in caplog.records]
    Announcement(None).ask(CALL_SID, REQUEST)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"url": "https://a", "database_url": "sqlite:////x"}, "choose one"),
        ({"url": "https://a"}, "--expect-token-file"),
        ({"url": "http://calls.example.com", "token_file": "t"}, "must be https"),
        ({"database_url": "mysql://x/y"}, "must be postgresql"),
        ({"url": "https://a", "token_file": "token", "ca_file": "x"}, "no usable certificate"),
    ],
)
def test_options_that_do_not_go_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], problem: str
) -> None:
    """Before anything is asked of anybody."""
    monkeypatch.chdir(tmp_path)
    secret(tmp_path / "token", "a-token-of-the-tests")
    given = dict.fromkeys(("url", "token_file", "ca_file", "database_url")) | options
    with pytest.raises(ConfigError, match=problem):
        store_of(**given)
    assert None is store_of(None, None, None, None)


@pytest.fixture
def database_url(url: str | None, tmp_path: Path) -> Iterator[tuple[str, Expectations]]:
    """Yield the URL of a catalogue of either kind, and its expectations."""
    database = open_database(url or f"sqlite:///{tmp_path}/catalogue.sqlite", tmp_path)
    plain = url or f"sqlite:///{tmp_path}/catalogue.sqlite"
    yield plain, Expectations(database, 30)
    database.close()


def test_the_database_has_what_the_console_would(
    database_url: tuple[str, Expectations],
) -> None:
    """Written without a word of the receiver's code."""
    plain, kept = database_url
    announcement = Announcement(CatalogueDatabase(plain))
    announcement.ask(CALL_SID, REQUEST)
    (asked,) = kept.page()
    assert ("asked", CALL_SID, "n1") == (asked.state, asked.call_sid, asked.name)
    assert {"queue": "sales", "who": "Jané"} == asked.parameters
    assert 30_000 == asked.due_ms - asked.asked_ms
    assert 32 == len(asked.token_id)
    announcement.answered(StreamHandle(sid="s1"))
    assert ("accepted", "s1") == (kept.page()[0].state, kept.page()[0].stream_sid)
    announcement.failed(UnreachableError("late"))
    assert "accepted" == kept.page()[0].state
    refused = Announcement(CatalogueDatabase(plain))
    refused.ask(CALL_SID, REQUEST)
    refused.failed(NotFoundError("no such call", status=404))
    found = {each.state: each for each in kept.page()}
    assert "no such call (HTTP 404)" == found["refused"].reason


def start(*options: str, space: str) -> subprocess.CompletedProcess[str]:
    """Run `starter start` against a provider at this address."""
    account = {
        "SIGNALWIRE_SPACE": space,
        "SIGNALWIRE_PROJECT_ID": PROJECT_ID,
        "SIGNALWIRE_API_TOKEN": API_TOKEN,
        "PATH": "/usr/bin:/bin",
    }
    return subprocess.run(
        [
            *(sys.executable, "-m", "starter", "start", CALL_SID),
            *("--url", "wss://rec.example.com/audio", "--param", "queue=sales", *options),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=account,
        timeout=at_most(60),
    )


@pytest.mark.integration
async def test_a_console_is_told_by_the_command(tmp_path: Path) -> None:
    """Over its API, with a token of an account."""
    answer = json.dumps({"sid": "s-1", "name": "n", "status": "queued"}).encode()
    async with serving(tmp_path) as served, web_hook(body=answer) as provider:
        served.add("bot", Role.MANAGER)
        token = secret(tmp_path / "api-token", served.console.tokens.make("bot")[0])
        expect = ("--expect-url", served.url, "--expect-token-file", str(token))
        run = functools.partial(start, *expect, space=provider.url)
        ran = await asyncio.to_thread(run)
        (kept,) = await asyncio.to_thread(served.console.notifier.expectations.page)
        secret(tmp_path / "api-token", "not-a-token-of-anybody")
        warned = await asyncio.to_thread(run)
    assert (0, "") == (ran.returncode, ran.stdout.partition("stream s-1")[0]), ran.stderr
    assert isinstance(kept, Expectation)
    assert ("accepted", "s-1", {"queue": "sales"}) == (
        kept.state,
        kept.stream_sid,
        kept.parameters,
    )
    assert 0 == warned.returncode
    assert "the expectation is not written: the console answered 401" in warned.stderr
