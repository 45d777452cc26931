"""What is admitted at `/audio`, how all else is answered, and what is counted and logged of it."""

from __future__ import annotations

import errno
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import jwt
import pytest
from structlog.testing import capture_logs

from receiver.auth.bearer import Grant, StreamTokens, key_id
from receiver.auth.replay_store import ReplayStore
from receiver.service.admission import STREAMS_PATH, Admission
from receiver.transports.interface import Decision, HttpAnswer, Peer, UpgradeRequest
from tests.receiver.helpers.wire import KeepingPeer

TOKEN, KEY = "a-token-for-tests-only", "k" * 32
ADDRESS = "192.0.2.1"


@dataclass
class Front:
    """An admission that is open, its folder of used tokens, and the sessions it opened."""

    folder: Path
    admission: Admission = field(init=False)
    opened: list[tuple[Grant, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        tokens = StreamTokens([TOKEN], [KEY])
        self.admission = Admission(
            tokens, ReplayStore(self.folder), open_session=self.open_session, max_streams=100
        )
        self.admission.open()

    def open_session(self, grant: Grant, remote_address: str) -> Peer:
        self.opened.append((grant, remote_address))
        return KeepingPeer()

    async def ask(
        self,
        token: str | None = TOKEN,
        path: str = STREAMS_PATH,
        *,
        no_upgrade: HttpAnswer | None = None,
    ) -> Decision:
        """Return what becomes of a request with a token."""
        values = () if token is None else (f"Bearer {token}",)
        request = UpgradeRequest("GET", path, "", values, ADDRESS, no_upgrade)
        decision = self.admission.admit(request)
        return decision if isinstance(decision, HttpAnswer | KeepingPeer) else await decision  # type: ignore[misc]  # no other peer


@pytest.fixture
def front(tmp_path: Path) -> Front:
    """Return an admission that is open."""
    return Front(tmp_path / "used")


def signed(jti: str) -> str:
    """Return a token that opens one stream."""
    claims = {"sub": "CA1", "aud": "receiver", "exp": time.time() + 3600, "jti": jti}
    return jwt.encode(claims, KEY, "HS256", {"kid": key_id(KEY.encode())})


def status(decision: Decision) -> int:
    """Return the status that refuses, or that of an upgrade."""
    return decision.status if isinstance(decision, HttpAnswer) else 101


async def test_a_static_token_opens_any_number_of_streams(front: Front) -> None:
    """Nothing is written for it."""
    assert [101, 101] == [status(await front.ask()) for _ in range(2)]
    assert [(Grant(), ADDRESS)] * 2 == front.opened
    assert [] == list(front.folder.iterdir())
    assert Counter() == front.admission.refused


async def test_a_signed_token_opens_one_stream(front: Front) -> None:
    """The second time it is as good as none, and counted as a replay."""
    assert [101, 401, 101] == [status(await front.ask(signed(jti))) for jti in ("a", "a", "b")]
    assert ["a", "b"] == [grant.jti for grant, _ in front.opened]
    assert {"CA1"} == {grant.call_sid for grant, _ in front.opened}
    assert Counter(replayed=1) == front.admission.refused


@pytest.mark.parametrize("call", ["open", "fsync"])
async def test_a_signed_token_is_not_admitted_when_its_use_cannot_be_recorded(
    front: Front, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A replay could not be recognised later; the caller may come again."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch, capture_logs() as lines:
        patch.setattr(os, call, fail)
        answer = await front.ask(signed("a"))
    text = "not ready: used tokens cannot be recorded\n"
    assert HttpAnswer(503, text, (("Retry-After", "5"),)) == answer
    assert [] == front.opened
    assert Counter(not_ready=1) == front.admission.refused
    assert ("used_tokens_unwritable", os.strerror(errno.EIO)) == (
        lines[0]["event"],
        lines[0]["error"],
    )
    assert 101 == status(await front.ask(signed("b")))


async def test_a_signed_token_is_for_the_request_that_upgrades(front: Front) -> None:
    """Another one does not use it up, and what is wrong with it is answered and logged."""
    wrong = HttpAnswer(505, "use HTTP/1.1\n")
    with capture_logs() as lines:
        assert wrong is await front.ask(signed("a"), no_upgrade=wrong)
    assert ["use HTTP/1.1"] == [line["detail"] for line in lines]
    assert Counter(bad_request=1) == front.admission.refused
    assert 101 == status(await front.ask(signed("a")))


@pytest.mark.parametrize(("token", "reason"), [(None, "missing"), ("another-token", "unknown")])
async def test_a_bad_token_is_answered_without_a_reason(
    front: Front, token: str | None, reason: str
) -> None:
    """The reason is only counted."""
    answer = await front.ask(token)
    assert HttpAnswer(401, "Unauthorized\n", (("WWW-Authenticate", "Bearer"),)) == answer
    assert Counter([reason]) == front.admission.refused


async def test_without_a_place_the_reason_is_for_those_with_a_token(front: Front) -> None:
    """Others get an answer about their token; a token is not used up meanwhile."""
    front.admission.disk_full = True
    assert HttpAnswer(503, "not ready: disk full\n", (("Retry-After", "5"),)) == await front.ask()
    with capture_logs() as lines:
        assert 503 == status(await front.ask(signed("a")))
    assert ["CA1"] == [line["call_sid"] for line in lines]
    assert 401 == status(await front.ask(None))
    assert Counter(not_ready=2, missing=1) == front.admission.refused
    front.admission.disk_full = False
    assert 101 == status(await front.ask(signed("a")))


def closed(**options: Any) -> Admission:
    """Return an admission that was not opened yet, with three places."""
    return Admission(
        StreamTokens([TOKEN]),
        ReplayStore(options.pop("folder")),
        open_session=lambda *_: KeepingPeer(),
        max_streams=3,
        **options,
    )


def test_admission_starts_closed_and_never_opens_again_once_closed(tmp_path: Path) -> None:
    """A receiver that was stopped while it started stays stopped."""
    admission = closed(folder=tmp_path)
    assert "starting" == admission.closed_for
    admission.open()
    assert "" == admission.closed_for
    admission.close("draining")
    admission.open()
    assert "draining" == admission.closed_for
    admission.close("stopping")
    assert "stopping" == admission.closed_for


def test_capacity_is_streams_pending_upgrades_and_unsynced_journals(tmp_path: Path) -> None:
    """Journals of ended streams count where the disk is behind by as many as may live."""
    journals = [0]
    admission = closed(folder=tmp_path, unsynced=lambda: journals[0])
    admission.open()
    for streams, pending, unsynced, expected in (
        (2, 0, 2, ""),
        (2, 1, 2, "too many streams"),
        (3, 0, 3, "too many streams"),
        (0, 0, 5, ""),
        (0, 0, 6, "too many streams"),
    ):
        admission.streams, admission.pending, journals[0] = streams, pending, unsynced
        assert expected == admission.closed_for


def test_a_disk_that_takes_nothing_closes_admission_until_it_does(tmp_path: Path) -> None:
    """However many bytes are free."""
    stalled = [True]
    admission = closed(folder=tmp_path, min_free=100, stalled=lambda: stalled[0])
    admission.open()
    admission.disk_checked(2**40)
    assert "the disk takes nothing" == admission.closed_for
    stalled[0] = False
    assert "" == admission.closed_for


def test_a_disk_that_takes_no_small_file_closes_admission_until_it_does(tmp_path: Path) -> None:
    """With one line for each reason, and one for the end."""
    admission = closed(folder=tmp_path, min_free=100)
    admission.open()
    with capture_logs() as lines:
        for error in ("No space left on device", "No space left on device", "Input/output error"):
            admission.disk_checked(2**40, error)
            assert "the disk takes nothing" == admission.closed_for
        for _ in range(2):
            admission.disk_checked(2**40)
            assert "" == admission.closed_for
    events = [(line["event"], line.get("error", "")) for line in lines]
    errors = [("disk_unwritable", e) for e in ("No space left on device", "Input/output error")]
    assert [*errors, ("disk_writable", "")] == events


def test_a_full_disk_is_logged_once_and_so_is_its_end(tmp_path: Path) -> None:
    """However often it is checked."""
    admission = closed(folder=tmp_path, min_free=100)
    admission.open()
    with capture_logs() as lines:
        for free in (100, 99, 98):
            admission.disk_checked(free)
        assert "disk full" == admission.closed_for
        for free in (200, 201):
            admission.disk_checked(free)
    assert "" == admission.closed_for
    logged = [(line["event"], line["free_bytes"]) for line in lines]
    assert [("disk_full", 99), ("disk_has_space", 200)] == logged


@pytest.mark.parametrize(
    ("path", "full", "expected"),
    [
        ("/healthz", False, (200, "ok\n")),
        ("/healthz", True, (200, "ok\n")),
        ("/readyz", False, (200, "ready\n")),
        ("/readyz", True, (503, "not ready: disk full\n")),
        ("/", False, (404, "Not found\n")),
        ("/audio/", False, (404, "Not found\n")),
        ("/tap", False, (404, "Not found\n")),  # there is none here
    ],
)
async def test_other_paths_need_no_token(
    front: Front, path: str, full: bool, expected: tuple[int, str]
) -> None:
    """Health and readiness are for everybody, and the rest is not there."""
    front.admission.disk_full = full
    answer = await front.ask(None, path)
    assert isinstance(answer, HttpAnswer)
    assert expected == (answer.status, answer.body)
    assert Counter(["not_found"] * (expected[0] == 404)) == front.admission.refused


async def test_tokens_can_be_replaced(front: Front) -> None:
    """From the next request on."""
    front.admission.tokens = StreamTokens(["another-token-for-tests"])
    assert [401, 101] == [status(await front.ask(t)) for t in (TOKEN, "another-token-for-tests")]


def test_a_peer_that_reconnects_for_hours_is_logged_less_and_less(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a minute in the end, with the number of its refusals; a new one is logged at once."""
    clock = iter(range(1000, 4600, 5))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    with capture_logs() as lines:
        for _ in range(3600 // 5):
            front.admission.count_refused("unknown", "192.0.2.1", "why")
    times = [line["times"] for line in lines]
    assert [1, 1, 1, 1, 2, 4, 7, 12, 12] == times[:9]
    assert 66 > len(times)
    assert {"why"} == {line["detail"] for line in lines}


def test_an_address_that_is_refused_again_and_again_fills_no_log(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged once a second, each other address and reason too, and all are counted."""
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    with capture_logs() as lines:
        for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
            front.admission.count_refused("timeout", address)
        front.admission.count_refused("crowded", "192.0.2.1")
    expected = [("192.0.2.1", "timeout"), ("192.0.2.2", "timeout"), ("192.0.2.1", "crowded")]
    assert expected == [(line["remote_address"], line["reason"]) for line in lines]
    assert Counter(timeout=3, crowded=1) == front.admission.refused
