"""Who gets in while the disk is asked about single-use tokens."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import jwt
import pytest

from receiver.auth.replay_store import ReplayStore
from receiver.auth.stream_tokens import Grant, StreamTokens
from receiver.service.admission import Admission
from receiver.transports.interface import Decision, HttpAnswer, UpgradeRequest
from tests.receiver.helpers.wire import KeepingPeer

KEY = "k" * 40
PLACES = 3


class SlowTokens(ReplayStore):
    """Used tokens on a disk that answers when it is told to, or fails."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.may_answer = asyncio.Event()
        self.fails = False

    async def use(self, jti: str, expires_at: float) -> bool:
        """Wait, and use a token up."""
        await self.may_answer.wait()
        if self.fails:
            raise OSError(5, "made to fail")
        return await super().use(jti, expires_at)


class House:
    """A gate in front of three places, closed while they are taken."""

    def __init__(self, folder: Path) -> None:
        self.tokens = SlowTokens(folder / "used")
        self.opened = 0
        self.gate = Admission(
            StreamTokens((), (KEY,)),
            self.tokens,
            open_session=self._open,
            pending_changed=self._see,
        )
        self.gate.closed_for = ""

    def _open(self, _grant: Grant, _address: str) -> KeepingPeer:
        self.opened += 1
        self._see()
        return KeepingPeer()

    def _see(self) -> None:
        if self.gate.closed_for != "draining":
            full = self.opened + self.gate.pending >= PLACES
            self.gate.closed_for = "full" if full else ""

    def deciding(self, jti: str = "") -> Coroutine[Any, Any, Decision]:
        """Ask to be let in with a token that was not used before, unless its id is given."""
        claims = {"sub": "a call", "aud": "receiver", "exp": time.time() + 60}
        claims["jti"] = jti or str(time.perf_counter_ns())
        kid = hashlib.sha256(KEY.encode()).hexdigest()[:8]
        token = jwt.encode(claims, KEY, "HS256", headers={"kid": kid})
        decision = self.gate.admit(
            UpgradeRequest("GET", "/audio", "", (f"Bearer {token}",), "192.0.2.1")
        )
        assert isinstance(decision, Coroutine)
        return decision

    async def asking(self, count: int) -> list[asyncio.Task[Decision]]:
        """Let so many ask at once, up to where the disk is asked."""
        tasks = [asyncio.create_task(one) for one in [self.deciding() for _ in range(count)]]
        await asyncio.sleep(0)  # each has had its first turn
        return tasks


@pytest.fixture
async def house(tmp_path: Path) -> House:
    """Return a house that nobody is in."""
    return House(tmp_path)


def statuses(decisions: list[Decision]) -> list[int]:
    """Return how each was answered."""
    return [one.status if isinstance(one, HttpAnswer) else 101 for one in decisions]


async def test_who_waits_for_the_disk_has_a_place(house: House) -> None:
    """Of twenty at once three get in, and the others are told at once."""
    tasks = await house.asking(20)
    assert PLACES == house.gate.pending
    assert [503] * 17 == statuses([task.result() for task in tasks if task.done()])
    house.tokens.may_answer.set()
    assert [101] * 3 + [503] * 17 == statuses(await asyncio.gather(*tasks))
    assert (PLACES, 0, "full") == (house.opened, house.gate.pending, house.gate.closed_for)


async def test_a_place_is_given_back(house: House) -> None:
    """By who was refused, who broke off, and where the disk failed."""
    house.opened = PLACES - 1
    (broken_off,) = await house.asking(1)
    assert ("full", 1) == (house.gate.closed_for, house.gate.pending)
    broken_off.cancel()
    await asyncio.wait([broken_off])
    assert ("", 0) == (house.gate.closed_for, house.gate.pending)
    house.tokens.may_answer.set()
    await ReplayStore.use(house.tokens, "used", time.time() + 60)
    assert [401] == statuses([await house.deciding("used")])
    house.tokens.fails = True
    assert [503] == statuses([await house.deciding()])
    house.tokens.fails = False
    assert [101] == statuses([await house.deciding()])


async def test_who_waits_is_not_let_in_when_the_gate_closes(house: House) -> None:
    """A receiver that drains takes no new streams, whoever has asked before."""
    (task,) = await house.asking(1)
    house.gate.closed_for = "draining"
    house.tokens.may_answer.set()
    assert [503] == statuses([await task])
    assert (0, 1) == (house.opened, house.gate.refused["not_ready"])
