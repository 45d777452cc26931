"""What is admitted while the disk is asked about single-use tokens."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import jwt
import pytest

from receiver.auth.bearer import Grant, StreamTokens
from receiver.auth.replay_store import ReplayStore
from receiver.service.admission import Admission
from receiver.transports.interface import Decision, HttpAnswer, UpgradeRequest
from tests.receiver.helpers.wire import KeepingPeer

KEY = "k" * 40
PLACES = 3


class SlowTokens(ReplayStore):
    """Used tokens on a disk that answers when the test lets it, or fails."""

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


class Front:
    """An admission with three places, which are taken until the end."""

    def __init__(self, folder: Path) -> None:
        self.tokens = SlowTokens(folder / "used")
        self.admission = Admission(
            StreamTokens((), (KEY,)), self.tokens, open_session=self._open, max_streams=PLACES
        )
        self.admission.open()

    def _open(self, _grant: Grant, _address: str) -> KeepingPeer:
        self.admission.streams += 1  # as at once in the seam
        return KeepingPeer()

    def deciding(self, jti: str = "") -> Coroutine[Any, Any, Decision]:
        """Ask for a stream with a token that was not used before, unless its id is given."""
        claims = {"sub": "a call", "aud": "receiver", "exp": time.time() + 60}
        claims["jti"] = jti or str(time.perf_counter_ns())
        kid = hashlib.sha256(KEY.encode()).hexdigest()[:8]
        token = jwt.encode(claims, KEY, "HS256", headers={"kid": kid})
        decision = self.admission.admit(
            UpgradeRequest("GET", "/audio", "", (f"Bearer {token}",), "192.0.2.1")
        )
        assert isinstance(decision, Coroutine)
        return decision

    async def asking(self, count: int) -> list[asyncio.Task[Decision]]:
        """Ask for so many at once, up to where the disk is asked."""
        tasks = [asyncio.create_task(one) for one in [self.deciding() for _ in range(count)]]
        await asyncio.sleep(0)  # each has had its first turn
        return tasks


@pytest.fixture
async def front(tmp_path: Path) -> Front:
    """Return an admission all of whose places are free."""
    return Front(tmp_path)


def statuses(decisions: list[Decision]) -> list[int]:
    """Return how each was answered."""
    return [one.status if isinstance(one, HttpAnswer) else 101 for one in decisions]


async def test_an_upgrade_that_waits_for_the_disk_has_a_place(front: Front) -> None:
    """Of twenty at once three are admitted, and the others are refused at once."""
    tasks = await front.asking(20)
    assert PLACES == front.admission.pending
    assert [503] * 17 == statuses([task.result() for task in tasks if task.done()])
    front.tokens.may_answer.set()
    assert [101] * 3 + [503] * 17 == statuses(await asyncio.gather(*tasks))
    assert (PLACES, 0, "too many streams") == (
        front.admission.streams,
        front.admission.pending,
        front.admission.closed_for,
    )


async def test_a_place_is_given_back(front: Front) -> None:
    """Where it was refused, where it was broken off, and where the disk failed."""
    front.admission.streams = PLACES - 1
    (broken_off,) = await front.asking(1)
    assert ("too many streams", 1) == (front.admission.closed_for, front.admission.pending)
    broken_off.cancel()
    await asyncio.wait([broken_off])
    assert ("", 0) == (front.admission.closed_for, front.admission.pending)
    front.tokens.may_answer.set()
    await ReplayStore.use(front.tokens, "used", time.time() + 60)
    assert [401] == statuses([await front.deciding("used")])
    front.tokens.fails = True
    assert [503] == statuses([await front.deciding()])
    front.tokens.fails = False
    assert [101] == statuses([await front.deciding()])


async def test_an_upgrade_that_waits_is_refused_when_admission_closes(front: Front) -> None:
    """A receiver that drains admits no new streams, whenever they were asked for."""
    (task,) = await front.asking(1)
    front.admission.close("draining")
    front.tokens.may_answer.set()
    assert [503] == statuses([await task])
    assert (0, 1) == (front.admission.streams, front.admission.refused["not_ready"])
