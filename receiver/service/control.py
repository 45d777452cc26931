"""`/control`: orders about live calls. One connection, one token, one order, one answer.

    {"order":"pause","call_sid":"CA…","reason":"card","max_seconds":300}
    {"status":200,"call_sid":"CA…","streams":2,"until":"2026-12-01T10:05:00.000Z"}

A pause takes effect in memory before anything else is done, and so also while a disk hangs. It is
acknowledged when the disk has it: its file, its record in the journals, the use of its token, and
its entry in the ledger. Where that takes too long, the answer is an error that says so, and the
pause lasts nevertheless. To resume, the entry comes first.

With several workers the one that got the order asks the others through their parent; every one
of them knows then that the call is paused, so a stream that comes back elsewhere starts paused.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal

import msgspec
import structlog

from receiver.auth.bearer import ControlGrant, ControlTokens
from receiver.auth.replay_store import ReplayStore
from receiver.errors import LedgerError
from receiver.ingest.live_recording import LiveRecording
from receiver.ingest.recorder import Recorder
from receiver.lifecycle.pauses import LONGEST_REASON, Pause, PauseStore
from receiver.media import PauseEnd, clipped, timestamp
from receiver.transports.interface import Connection, Decision, HttpAnswer, UpgradeRequest

PATH: Final = "/control"
DEFAULT_SECONDS: Final = 300
DISK_SECONDS: Final = 5.0
"""For the disk to take an order; then the answer says that it has not."""
_COLLEAGUES_SECONDS: Final = 2.0
_ORDER_SECONDS: Final = 10.0
"""For whoever has connected to give an order."""
_LOOK_SECONDS: Final = 0.02
_DONE, _POLICY = 1000, 1008
_UNAUTHORIZED: Final = HttpAnswer(401, "Unauthorized\n", (("WWW-Authenticate", "Bearer"),))
_NOT_FOUND: Final = HttpAnswer(404, "Not found\n")

log = structlog.get_logger("receiver.control")

Answer = dict[str, Any]


class GivenOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody wants to be done about a call."""

    order: Literal["pause", "resume"]
    call_sid: str
    reason: str = ""
    max_seconds: float = DEFAULT_SECONDS


class OrderRefused(Exception):
    """An order is not carried out, or not in all; `status` is that of HTTP for it."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status


class Colleagues:
    """The other workers, as one of them asks them; messages go through the parent.

    `send` sends the parent a message: ("ask", number, what) or ("answer", place, number, what).
    """

    def __init__(self, send: Callable[[tuple[Any, ...]], object]) -> None:
        self._send = send
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Queue[Any]] = {}
        self.asked: Callable[[dict[str, Any]], Awaitable[int]] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, what: dict[str, Any]) -> int:
        """Ask all others; return the sum of their answers, of those that come in time."""
        number = next(self._numbers)
        answers = self._waiting[number] = asyncio.Queue()
        self._send(("ask", number, what))
        total = 0
        try:
            async with asyncio.timeout(_COLLEAGUES_SECONDS):
                for _ in range(await answers.get()):
                    total += await answers.get()
        except TimeoutError:
            log.error("worker_does_not_answer", asked=what["do"])
        finally:
            del self._waiting[number]
        return total

    def receive(self, message: tuple[Any, ...]) -> None:
        """Receive what the parent passes on."""
        word, *rest = message
        if word == "asked":
            task = asyncio.ensure_future(self._answer(*rest))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif rest[0] in self._waiting:  # "asking" so many, or the "answer" of one
            self._waiting[rest[0]].put_nowait(rest[1])

    async def _answer(self, place: int, number: int, what: dict[str, Any]) -> None:
        found = 0 if self.asked is None else await self.asked(what)
        self._send(("answer", place, number, found))


class ControlService:
    """Carries orders out.

    Args:
        recorder: has the calls.
        used: which tokens were used.
        tokens: those that are valid now; may be replaced at any time.
        store: the files of pauses.
        longest_seconds: of a pause.
        flush: has the journals written now.
    """

    def __init__(
        self,
        recorder: Recorder,
        used: ReplayStore,
        *,
        tokens: ControlTokens,
        store: PauseStore,
        longest_seconds: float,
        flush: Callable[[], None],
    ) -> None:
        self.tokens = tokens
        self.colleagues: Colleagues | None = None
        self._recorder = recorder
        self._used = used
        self._store = store
        self._longest_seconds = longest_seconds
        self._flush = flush
        self._seen: dict[str, float] = {}  # tokens that were used here, and when they expire
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pauses")

    async def start(self) -> None:
        """Go on with the pauses that lasted when an earlier process ended.

        Raises:
            OSError: they cannot be read.
        """
        now_ms = self._recorder.utc_ms()
        if self.tokens:  # the first order is not to wait until its library is imported
            await asyncio.to_thread(importlib.import_module, "jwt")
        for pause in await asyncio.to_thread(self._store.load, now_ms):
            log.info("pause_goes_on", call_sid=pause.call_sid, until=timestamp(pause.until_ms))
            self._remember(pause)

    def close(self) -> None:
        """Stop the timers; the pauses themselves are on disk."""
        for timer in self._timers.values():
            timer.cancel()
        self._thread.shutdown(wait=False)

    def replace_keys(self, keys: tuple[str, ...]) -> None:
        """Accept tokens that these keys sign, and no others."""
        self.tokens = ControlTokens(keys)

    def serve_colleagues(self, colleagues: Colleagues) -> None:
        """Answer other workers, and ask them."""
        self.colleagues = colleagues
        colleagues.asked = self._asked

    def admit(self, request: UpgradeRequest) -> Decision:
        """Decide about one request.

        Raises:
            Refused: the caller has no valid token.
        """
        if not self.tokens:
            return _NOT_FOUND
        now = time.time()
        grant = self.tokens.admit(request.authorization, now=now)
        if request.no_upgrade is not None:
            return request.no_upgrade
        self._seen = {jti: at for jti, at in self._seen.items() if at > now}
        if grant.jti in self._seen:
            return _UNAUTHORIZED
        self._seen[grant.jti] = grant.expires_at
        return _OrderPeer(self, grant)

    # One order.

    def begin(self, grant: ControlGrant, message: bytes) -> Coroutine[Any, Any, Answer]:
        """Carry out what must not wait; return what does the rest, and has the answer.

        Raises:
            OrderRefused: the order cannot be carried out.
        """
        order = self._checked(grant, message)
        if order.order == "resume":
            return self._resume(grant, order.call_sid)
        until_ms = self._recorder.utc_ms() + int(order.max_seconds * 1000)
        reason = " ".join(order.reason.split())[:LONGEST_REASON]
        pause = Pause(order.call_sid, reason, until_ms, grant.who, grant.via)
        before = self._recorder.pauses.of(order.call_sid)
        return self._pause(grant, pause, before, self._apply(pause))

    def _checked(self, grant: ControlGrant, message: bytes) -> GivenOrder:
        try:
            order = msgspec.json.decode(message, type=GivenOrder)
        except (ValueError, RecursionError) as error:
            raise OrderRefused(400, f"not an order: {error}") from error
        if not order.call_sid:
            raise OrderRefused(400, "the order names no call")
        if not grant.permits(order.call_sid):
            raise OrderRefused(403, "the token is for another call")
        if not 1 <= order.max_seconds <= self._longest_seconds:
            text = f"max_seconds must be from 1 to {self._longest_seconds:g} (--longest-pause)"
            raise OrderRefused(400, text)
        return order

    def _apply(self, pause: Pause) -> list[LiveRecording]:
        """Pause a call that is recorded here."""
        if not self._recorder.has_call(pause.call_sid):
            return []
        self._remember(pause)
        found = self._recorder.pause(pause)
        log.info("paused", **_about(pause), streams=len(found))
        return found

    async def _pause(
        self, grant: ControlGrant, pause: Pause, before: Pause | None, found: list[LiveRecording]
    ) -> Answer:
        about = {"pause": msgspec.to_builtins(pause)}
        streams = len(found) + await self._ask({"do": "pause", **about})
        if not streams:
            raise OrderRefused(404, "no such call is being recorded")
        self._remember(pause)
        problem = "the call is paused, but not on disk: it would not be after a crash"
        with self._in_time(problem):
            async with asyncio.timeout(DISK_SECONDS):
                used, *_ = await asyncio.gather(
                    self._used.use(grant.jti, grant.expires_at),
                    self._in_thread(self._store.write, pause),
                    self._synced(found),
                    self._ask({"do": "remember", **about}),
                    self._enter("paused", pause),
                )
        if not used:
            await self._undo(pause, before)
            raise OrderRefused(401, "the token was used before")
        return {**_answer(pause.call_sid, streams), "until": timestamp(pause.until_ms)}

    async def _undo(self, pause: Pause, before: Pause | None) -> None:
        """Undo an order whose token had been used: as if it had never been given."""
        log.warning("replayed_order", **_about(pause))
        if before is None:
            await self._end(pause.call_sid)
            return
        self._apply(before)
        await self._ask({"do": "pause", "pause": msgspec.to_builtins(before)})
        await self._in_thread(self._store.write, before)

    async def _resume(self, grant: ControlGrant, call_sid: str) -> Answer:
        pause = self._recorder.pauses.of(call_sid)
        if pause is None:
            raise OrderRefused(409, "the call is not paused")
        with self._in_time("the call is still paused: the disk takes nothing"):
            async with asyncio.timeout(DISK_SECONDS):
                if not await self._used.use(grant.jti, grant.expires_at):
                    raise OrderRefused(401, "the token was used before")
                by = msgspec.structs.replace(pause, who=grant.who, via=grant.via)
                await self._enter("resumed", by, end=PauseEnd.RESUMED.value)
        with self._in_time("the call goes on, but not on disk: after a crash it would be paused"):
            async with asyncio.timeout(DISK_SECONDS):
                return _answer(call_sid, await self._end(call_sid))

    async def _end(self, call_sid: str, end: PauseEnd = PauseEnd.RESUMED) -> int:
        """Resume a call everywhere; return how many streams that were."""
        streams = len(self._resume_here(call_sid, end))
        streams += await self._ask({"do": "resume", "call_sid": call_sid, "end": end.value})
        await self._in_thread(self._store.remove, call_sid)
        return streams

    def _resume_here(self, call_sid: str, end: PauseEnd) -> list[LiveRecording]:
        if timer := self._timers.pop(call_sid, None):
            timer.cancel()
        found = self._recorder.resume(call_sid, end)
        if found:
            log.info("resumed", call_sid=call_sid, end=end.value, streams=len(found))
        return found

    # What it needs.

    def _remember(self, pause: Pause) -> None:
        """Mark a call as paused, also for streams of it that start until its time is over."""
        self._recorder.pauses.add(pause)
        if timer := self._timers.pop(pause.call_sid, None):
            timer.cancel()
        seconds = max(0.0, (pause.until_ms - self._recorder.utc_ms()) / 1000)
        loop = asyncio.get_running_loop()
        self._timers[pause.call_sid] = loop.call_later(seconds, self._expire, pause)

    def _expire(self, pause: Pause) -> None:
        """End a pause whose time is over; the ledger gets it from whoever has the call."""
        found = self._resume_here(pause.call_sid, PauseEnd.EXPIRED)
        if found and self._recorder.ledger is not None:
            entry = _entry(pause) | {"who": "receiver", "end": PauseEnd.EXPIRED.value}
            self._recorder.ledger.submit("resumed", **entry)
        self._thread.submit(self._forget_file, pause.call_sid)

    def _forget_file(self, call_sid: str) -> None:
        with contextlib.suppress(OSError):  # its time is over: it counts no more
            self._store.remove(call_sid)

    @contextlib.contextmanager
    def _in_time(self, problem: str) -> Iterator[None]:
        """Turn a disk that fails or takes too long into an answer."""
        try:
            yield
        except TimeoutError:
            log.error("order_not_on_disk", problem=problem)
            raise OrderRefused(503, problem) from None
        except (OSError, LedgerError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            log.error("order_not_on_disk", problem=problem, reason=reason)
            raise OrderRefused(503, f"{problem} ({reason})") from error

    async def _in_thread(self, work: Callable[[Any], object], argument: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work, argument)

    async def _synced(self, recordings: list[LiveRecording]) -> None:
        """Wait until the disk holds all that the journals of recordings were given."""
        self._flush()
        while not all(recording.journal.is_synced for recording in recordings):  # noqa: ASYNC110  threads see to it
            await asyncio.sleep(_LOOK_SECONDS)

    async def _enter(self, what: Literal["paused", "resumed"], pause: Pause, **more: Any) -> None:
        if self._recorder.ledger is not None:
            await self._recorder.ledger.append(what, **_entry(pause), **more)

    async def _ask(self, what: dict[str, Any]) -> int:
        return 0 if self.colleagues is None else await self.colleagues.ask(what)

    async def _asked(self, what: dict[str, Any]) -> int:
        """Do what another worker asks for; return how many streams that were."""
        if what["do"] == "resume":
            return len(self._resume_here(what["call_sid"], PauseEnd(what["end"])))
        pause = msgspec.convert(what["pause"], Pause)
        if what["do"] == "pause":
            return len(self._apply(pause))
        self._remember(pause)
        await self._synced(self._recorder.recordings_of(pause.call_sid))
        return 0


def _answer(call_sid: str, streams: int) -> Answer:
    return {"status": 200, "call_sid": call_sid, "streams": streams}


def _about(pause: Pause) -> dict[str, str]:
    until = timestamp(pause.until_ms)
    return {"call_sid": pause.call_sid, "reason": pause.reason, "until": until, "by": pause.who}


def _entry(pause: Pause) -> dict[str, Any]:
    about = {"call": clipped(pause.call_sid), "reason": pause.reason}
    return {"who": pause.who, "via": pause.via, **about, "until": timestamp(pause.until_ms)}


class _OrderPeer:
    """A transport's `Peer` that gives one order."""

    def __init__(self, service: ControlService, grant: ControlGrant) -> None:
        self._service = service
        self._grant = grant
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def opened(self, connection: Connection) -> None:
        """Wait for the order."""
        self._connection = connection
        connection.start_sending(lambda: None)
        loop, text = asyncio.get_running_loop(), "no order came"
        self._timer = loop.call_later(_ORDER_SECONDS, connection.close, _POLICY, text)

    def message_received(self, message: bytes) -> None:
        """Carry the order out; a second one is none."""
        if self._task is not None or self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        try:
            rest = self._service.begin(self._grant, message)
        except OrderRefused as refused:
            self._send({"status": refused.status, "error": str(refused)})
            return
        self._task = asyncio.ensure_future(self._finish(rest))

    async def _finish(self, rest: Coroutine[Any, Any, Answer]) -> None:
        try:
            answer = await rest
        except OrderRefused as refused:
            answer = {"status": refused.status, "error": str(refused)}
        except Exception:
            log.exception("order_failed")
            answer = {"status": 500, "error": "internal error, see the log of the receiver"}
        self._send(answer)

    def _send(self, answer: Answer) -> None:
        if self._connection is not None:
            self._connection.send(msgspec.json.encode(answer).decode())
            self._connection.close(_DONE, "")

    def closed(self, *, code: int, clean: bool) -> None:
        """Send no answer any more; the order itself is carried out."""
        self._connection = None
        if self._timer is not None:
            self._timer.cancel()
