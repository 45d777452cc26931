"""Who gets in at `/audio`, what everybody else is told, and what is counted and logged of it."""

from __future__ import annotations

import errno
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import jwt
import pytest
from structlog.testing import capture_logs

from receiver.auth.replay_store import ReplayStore
from receiver.auth.signed import key_id
from receiver.auth.stream_tokens import Grant, StreamTokens
from receiver.service.admission import STREAMS_PATH, Admission
from receiver.transports.interface import Decision, HttpAnswer, Peer, UpgradeRequest
from tests.receiver.helpers.wire import KeepingPeer

TOKEN, KEY = "a-token-for-tests-only", "k" * 32
ADDRESS = "192.0.2.1"


@dataclass
class House:
    """A gate that is open, its folder of used tokens, and who was let in."""

    folder: Path
    gate: Admission = field(init=False)
    opened: list[tuple[Grant, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        tokens = StreamTokens([TOKEN], [KEY])
        self.gate = Admission(tokens, ReplayStore(self.folder), open_session=self.open_session)
        self.gate.closed_for = ""

    def open_session(self, grant: Grant, remote_address: str) -> Peer:
        self.opened.append((grant, remote_address))
        return KeepingPeer()

    async def ask(
        self, token: str | None = TOKEN, path: str = STREAMS_PATH, *, is_upgrade: bool = True
    ) -> Decision:
        """Return what becomes of a request with a token."""
        values = () if token is None else (f"Bearer {token}",)
        request = UpgradeRequest("GET", path, "", values, ADDRESS, is_upgrade)
        decision = self.gate.admit(request)
        return decision if isinstance(decision, HttpAnswer | KeepingPeer) else await decision  # type: ignore[misc]  # no other peer


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Return an open gate."""
    return House(tmp_path / "used")


def signed(jti: str) -> str:
    """Return a token that opens one stream."""
    claims = {"sub": "CA1", "aud": "receiver", "exp": time.time() + 3600, "jti": jti}
    return jwt.encode(claims, KEY, "HS256", {"kid": key_id(KEY.encode())})


def status(decision: Decision) -> int:
    """Return the status that refuses, or that of an upgrade."""
    return decision.status if isinstance(decision, HttpAnswer) else 101


async def test_a_static_token_opens_any_number_of_streams(house: House) -> None:
    """Nothing is written for it."""
    assert [101, 101] == [status(await house.ask()) for _ in range(2)]
    assert [(Grant(), ADDRESS)] * 2 == house.opened
    assert [] == list(house.folder.iterdir())
    assert Counter() == house.gate.refused


async def test_a_signed_token_opens_one_stream(house: House) -> None:
    """The second time it is as good as none, and counted as a replay."""
    assert [101, 401, 101] == [status(await house.ask(signed(jti))) for jti in ("a", "a", "b")]
    assert ["a", "b"] == [grant.jti for grant, _ in house.opened]
    assert {"CA1"} == {grant.call_sid for grant, _ in house.opened}
    assert Counter(replayed=1) == house.gate.refused


@pytest.mark.parametrize("call", ["open", "fsync"])
async def test_a_signed_token_is_not_admitted_when_its_use_cannot_be_recorded(
    house: House, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Nobody could tell a replay from it later; the caller may come again."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch, capture_logs() as lines:
        patch.setattr(os, call, fail)
        answer = await house.ask(signed("a"))
    text = "not ready: used tokens cannot be recorded\n"
    assert HttpAnswer(503, text, (("Retry-After", "5"),)) == answer
    assert [] == house.opened
    assert Counter(not_ready=1) == house.gate.refused
    assert ("used_tokens_unwritable", os.strerror(errno.EIO)) == (
        lines[0]["event"],
        lines[0]["error"],
    )
    assert 101 == status(await house.ask(signed("b")))


async def test_a_signed_token_is_for_the_request_that_upgrades(house: House) -> None:
    """Another one does not use it up."""
    assert 426 == status(await house.ask(signed("a"), is_upgrade=False))
    assert Counter(bad_request=1) == house.gate.refused
    assert 101 == status(await house.ask(signed("a")))


@pytest.mark.parametrize(("token", "reason"), [(None, "missing"), ("another-token", "unknown")])
async def test_who_brings_no_valid_token_learns_nothing(
    house: House, token: str | None, reason: str
) -> None:
    """The reason is counted, never told."""
    answer = await house.ask(token)
    assert HttpAnswer(401, "Unauthorized\n", (("WWW-Authenticate", "Bearer"),)) == answer
    assert Counter([reason]) == house.gate.refused


async def test_a_closed_gate_says_why_to_those_who_may_know(house: House) -> None:
    """Others are told that they have no token; a token is not used up meanwhile."""
    house.gate.closed_for = "draining"
    assert HttpAnswer(503, "not ready: draining\n", (("Retry-After", "5"),)) == await house.ask()
    assert 503 == status(await house.ask(signed("a")))
    assert 401 == status(await house.ask(None))
    assert Counter(not_ready=2, missing=1) == house.gate.refused
    house.gate.closed_for = ""
    assert 101 == status(await house.ask(signed("a")))


async def test_a_gate_begins_closed(tmp_path: Path) -> None:
    """Until whoever made it says that all is there."""
    gate = Admission(
        StreamTokens([TOKEN]), ReplayStore(tmp_path), open_session=lambda *_: KeepingPeer()
    )
    assert "starting" == gate.closed_for


@pytest.mark.parametrize(
    ("path", "closed_for", "expected"),
    [
        ("/healthz", "", (200, "ok\n")),
        ("/healthz", "disk full", (200, "ok\n")),
        ("/readyz", "", (200, "ready\n")),
        ("/readyz", "disk full", (503, "not ready: disk full\n")),
        ("/", "", (404, "Not found\n")),
        ("/audio/", "", (404, "Not found\n")),
        ("/tap", "", (404, "Not found\n")),  # there is none here
    ],
)
async def test_other_paths_need_no_token(
    house: House, path: str, closed_for: str, expected: tuple[int, str]
) -> None:
    """Health and readiness are for everybody, and the rest is not there."""
    house.gate.closed_for = closed_for
    answer = await house.ask(None, path)
    assert isinstance(answer, HttpAnswer)
    assert expected == (answer.status, answer.body)
    assert Counter(["not_found"] * (expected[0] == 404)) == house.gate.refused


async def test_tokens_can_be_replaced(house: House) -> None:
    """From the next request on."""
    house.gate.tokens = StreamTokens(["another-token-for-tests"])
    assert [401, 101] == [status(await house.ask(t)) for t in (TOKEN, "another-token-for-tests")]


def test_an_address_that_is_refused_again_and_again_fills_no_log(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told once a second, each other address and reason too, and all are counted."""
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    with capture_logs() as lines:
        for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
            house.gate.count_refused("timeout", address)
        house.gate.count_refused("crowded", "192.0.2.1")
    told = [("192.0.2.1", "timeout"), ("192.0.2.2", "timeout"), ("192.0.2.1", "crowded")]
    assert told == [(line["remote_address"], line["reason"]) for line in lines]
    assert Counter(timeout=3, crowded=1) == house.gate.refused
