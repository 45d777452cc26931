"""The live page, and listening in the browser: what `live` knows, sent to pages over WebSockets.

`/live/events` sends an open page everything where calls came or went, else what moves: levels,
times, words. `/live/audio/ID` is one listener: it passes on what the tap sends, samples of both
tracks and texts between them, and the browser reports how many bytes it has read.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final
from urllib.parse import quote

import msgspec
import structlog
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from receiver.console import views
from receiver.console.context import Console, console_of, json_response, page_response, who_asks
from receiver.console.live import BARS, LiveCall, LiveCalls, side
from receiver.console.openapi import Operation
from receiver.console.problems import Problem, not_found
from receiver.console.routes import Endpoint, SocketEndpoint
from receiver.console.sign_in import form_of, identify
from receiver.console.who import Role, Who
from receiver.errors import DialError, LedgerError, LineClosed
from receiver.lifecycle.pauses import LONGEST_REASON
from receiver.media import Track, parameter_text, timestamp, visible
from receiver.notifications.expectations import Expectation
from receiver.recording.verdict import duration
from receiver.transports.client import Line

RECHECK_SECONDS: Final = 10.0
"""So often it is looked up whether whoever looks or listens may still do so."""
MOST_UNREAD_BYTES: Final = 65_536
"""Of audio that a browser has not reported as read: two seconds of both tracks at 8 kHz."""
STALL_SECONDS: Final = 30.0
"""A browser that reads nothing for so long is closed."""
MOST_NOT_COME: Final = 10
"""Streams that did not come and are shown above the calls."""
_DONE, _POLICY, _FAILED, _TRY_AGAIN = 1000, 1008, 1011, 1013

_BLANK: Final[dict[str, Any]] = {
    **dict.fromkeys(("id", "title", "clock", "text", "tone", "listening_text"), ""),
    "chips": [],
    "is_paused": False,
    "sides": [{"track": track.value, "side": side(track)} for track in Track],
    "levels": {track.value: [] for track in Track},
}
"""The call of the card that the page makes others of."""

log = structlog.get_logger("receiver.console")


# What the page shows.


def page_context(console: Console, who: Who) -> dict[str, Any]:
    """Return what the live page shows to somebody, and its JSON twin has."""
    live = console.live
    calls = live.visible_to(who.scope)
    return {
        "calls": [_view(live, who, recording_id, call) for recording_id, call in calls.items()],
        "heading": _heading(len(calls)),
        "summary": _summary(console, who, calls.values()),
        "problems": [
            {"receiver": url if who.role.includes(Role.ADMIN) else "", "text": visible(problem)}
            for url, problem in live.problems.items()
        ],
        "not_come": [
            _not_come_view(each) for each in console.notifier.not_come if each.permits(who.scope)
        ][:MOST_NOT_COME],
        "is_connected": bool(live.taps),
        "may": {"hear": who.hears, "pause": who.role.includes(Role.MANAGER)},
        "bars_shown": BARS,
        "json_url": "/.json",
    }


def _not_come_view(expectation: Expectation) -> dict[str, Any]:
    """Return of a stream that was asked for and did not come what stands above the calls."""
    name = views.title_of(expectation.parameters, expectation.call_sid)
    return {
        "id": expectation.id,
        "state": expectation.state,
        "head": f"{visible(name)} is not recorded.",
        "text": visible(
            f"Its stream is {expectation.state}: {expectation.reason or 'no reason is known'}."
        ),
        "call_sid": visible(expectation.call_sid),
        "asked_at": timestamp(expectation.asked_ms),
    }


def _heading(count: int) -> str:
    return {0: "No call now", 1: "1 call now"}.get(count, f"{count} calls now")


def _summary(console: Console, who: Who, calls: Iterable[LiveCall]) -> str:
    calls, config, parts = list(calls), console.config, list[str]()
    # To somebody who sees some of the calls it would give the others away.
    if config.console_taps and not config.tap_url and not who.scope:
        parts.append(f"room for {max(0, config.max_streams - len(calls))} more")
    if calls:
        lost = sum(call.lost_ms or 0 for call in calls)
        parts.append(f"longest {views.length_text(max(call.ms for call in calls))}")
        parts.append(f"{duration(lost)} lost" if lost else "nothing lost so far")
    return " · ".join(parts)


def _view(live: LiveCalls, who: Who, recording_id: str, call: LiveCall) -> dict[str, Any]:
    about = call.about
    shown = list(about["parameters"].items())[: views.MOST_CHIPS]
    return {
        "id": recording_id,
        "title": views.title_of(about["parameters"], about["call_sid"]),
        "call_sid": about["call_sid"],
        "stream_sid": about["stream_sid"],
        "started_at": about["started_at"],
        "parameters": about["parameters"],
        "chips": [views.chip(name, parameter_text(value)) for name, value in shown],
        "sides": [{"track": track, "side": side(track)} for track in call.tracks],
        "levels": {track: list(call.levels.get(track, ())) for track in call.tracks},
        **_moving(live, who, recording_id, call),
    }


def _moving(live: LiveCalls, who: Who, recording_id: str, call: LiveCall) -> dict[str, Any]:
    """Return of a call what changes from one moment to the next."""
    text, tone = call.matter(who.scope)
    own = live.listening.get(recording_id, Counter())
    others = max(0, call.listeners - own.total())
    return {
        "ms": call.ms,
        "clock": views.length_text(call.ms),
        "lost_ms": call.lost_ms,
        "text": text,
        "tone": tone,
        "is_paused": call.paused is not None,
        "listeners": sorted(+own),
        "other_listeners": others,
        "listening_text": listening_text(sorted(+own), others),
    }


def listening_text(names: list[str], others: int) -> str:
    """Return who listens: people by name, programs by their number; empty where nobody does."""
    if not names:
        return "" if not others else f"{others} {'listens' if others == 1 else 'listen'}"
    words = [visible(name) for name in names] + ([f"{others} more"] if others else [])
    if len(words) == 1:
        return f"{words[0]} listens"
    return f"{', '.join(words[:-1])} and {words[-1]} listen"


async def _live(request: Request) -> dict[str, Any]:
    console = console_of(request)
    async with console.live.watched():
        return page_context(console, who_asks(request))


async def _page(request: Request) -> Response:
    return page_response(request, "live.html", {**await _live(request), "blank": _BLANK})


async def _document(request: Request) -> Response:
    return json_response(request, await _live(request))


# Orders about calls.


class NewPause(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a call is paused, and for how long at the most."""

    reason: Annotated[str, Meta(max_length=LONGEST_REASON)] = ""
    max_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 300


class Ordered(msgspec.Struct, frozen=True):
    """What was done: of how many streams, and when a pause ends by itself."""

    call_sid: str
    streams: int
    until: str | None = None


async def _order(request: Request, key: str, **order: Any) -> dict[str, Any]:
    """Give an order about a call that somebody sees, by its sid or by its recording.

    Raises:
        Problem: 404, there is no such call for them; 409, it is not paused; 501, the receiver
            takes no orders of ours; 503, it cannot be reached, or its disk took nothing.
    """
    console, who = console_of(request), who_asks(request)
    async with console.live.watched():
        visible_calls = console.live.visible_to(who.scope).items()
        calls = [call for at, call in visible_calls if key in (at, call.about["call_sid"])]
    if not calls:
        raise not_found()
    call_sid = calls[0].about["call_sid"]
    if any(
        not call.permits(who.scope)
        for call in console.live.calls.values()
        if call.about["call_sid"] == call_sid
    ):
        raise not_found()  # an order is about all streams of a call
    try:
        return await calls[0].tap.order({**order, "call_sid": call_sid}, who=who.name, via=who.way)
    except DialError as error:
        if error.status == 404:
            raise not_found() from None
        status = error.status if error.status in (400, 409, 501) else 503
        raise Problem(status or 503, f"The receiver says: {visible(str(error))}.") from error


async def _pause(request: Request, body: NewPause) -> Response:
    given = {"order": "pause", "reason": body.reason, "max_seconds": body.max_seconds}
    answer = await _order(request, request.path_params["call_sid"], **given)
    return json_response(request, Ordered(answer["call_sid"], answer["streams"], answer["until"]))


async def _resume(request: Request) -> Response:
    answer = await _order(request, request.path_params["call_sid"], order="resume")
    return json_response(request, Ordered(answer["call_sid"], answer["streams"]))


async def _pause_form(request: Request) -> Response:
    reason = (await form_of(request)).get("reason", "")[:LONGEST_REASON]
    await _order(request, request.path_params["recording_id"], order="pause", reason=reason)
    return RedirectResponse("/", 303)


async def _resume_form(request: Request) -> Response:
    await form_of(request)
    await _order(request, request.path_params["recording_id"], order="resume")
    return RedirectResponse("/", 303)


_ORDER_ERRORS: Final = (404, 409, 501, 503)
OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/live/{call_sid}/pause",
        summary="Keep nothing of a live call for a while",
        handler=_pause,
        role=Role.MANAGER,
        body=NewPause,
        result=Ordered,
        errors=_ORDER_ERRORS,
    ),
    Operation(
        method="POST",
        path="/live/{call_sid}/resume",
        summary="Go on recording a call that is paused",
        handler=_resume,
        role=Role.MANAGER,
        result=Ordered,
        errors=_ORDER_ERRORS,
    ),
)


# Sockets of pages.


async def _events(socket: WebSocket) -> None:
    """Send a page what it shows: all of it where calls came or went, else what moves."""
    console, who = console_of(socket), who_asks(socket)
    async with console.live.watched():
        await socket.accept()
        await _serve(socket, who, _send_changes(socket, console, who), _read_all(socket))


async def _send_changes(socket: WebSocket, console: Console, who: Who) -> None:
    live, changes = console.live, -1
    while True:
        calls = live.visible_to(who.scope)
        message: dict[str, Any] = {
            "event": "levels",
            "summary": _summary(console, who, calls.values()),
            "calls": _levels(live, who, calls),
        }
        if live.changes != changes:
            message = {"event": "calls", **page_context(console, who)}
        changes, sent = live.changes, live.round
        await socket.send_text(msgspec.json.encode(message).decode())
        while live.round == sent:  # else it has changed while the page took its time
            await live.change()


def _levels(live: LiveCalls, who: Who, calls: Mapping[str, LiveCall]) -> dict[str, Any]:
    return {
        recording_id: {
            **_moving(live, who, recording_id, call),
            "levels": {track: levels[-1] for track, levels in call.levels.items()},
        }
        for recording_id, call in calls.items()
    }


async def _read_all(socket: WebSocket) -> None:
    """Return when the browser closes."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


@dataclass(slots=True)
class _Flow:
    """What one browser was sent of a call, and what it has reported as read."""

    from_ms: float | None = None  # on the stream's clock
    to_ms: float = 0
    bytes_per_ms: float = 32
    sent_bytes: int = 0
    read_bytes: int = 0
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def room(self) -> None:
        """Wait until the browser has read enough. Raises TimeoutError."""
        async with asyncio.timeout(STALL_SECONDS):
            while self.sent_bytes - self.read_bytes > MOST_UNREAD_BYTES:
                self._moved.clear()
                await self._moved.wait()

    def report(self, text: str) -> None:
        """Keep what the browser has read, as it reports; what is no report is left out."""
        if text.isascii() and text.isdigit() and len(text) < 16:
            self.read_bytes = min(self.sent_bytes, max(self.read_bytes, int(text)))
            self._moved.set()

    def count(self, message: bytes | str) -> None:
        """Count a message that is sent."""
        if isinstance(message, bytes):
            self.sent_bytes += len(message)
            self.to_ms += len(message) / self.bytes_per_ms
            return
        event = msgspec.json.decode(message)
        if event["event"] == "started":
            self.bytes_per_ms = event["rate"] / 1000 * 2 * event["channels"]
            self.from_ms = self.to_ms = event["timestamp_ms"]
        elif event["event"] == "gap" and event["reason"] == "slow_listener":
            self.to_ms = event["timestamp_ms"] + event["duration_ms"]


async def _audio(socket: WebSocket) -> None:
    """Be a listener of one call, and pass on what it gets to a browser."""
    console, who = console_of(socket), who_asks(socket)
    recording_id = socket.path_params["recording_id"]
    async with console.live.watched():
        call = console.live.visible_to(who.scope).get(recording_id)
        if call is None:
            await _refuse(socket, 404)
            return
        about = {"call": call.about["call_sid"], "track": "stereo"}
        try:
            address = socket.state.address
            await console.enter(
                who, "listening_live", recording_id, format="pcm16", address=address, **about
            )
            line = await call.tap.dial(f"/tap/{quote(recording_id)}?track=stereo&format=pcm16")
        except (DialError, LedgerError, Problem) as error:
            log.warning("listening_refused", recording_id=recording_id, error=str(error))
            await _refuse(socket, 404 if getattr(error, "status", 0) == 404 else 503)
            return
        flow = _Flow()
        try:
            await socket.accept()
            with console.live.listener(recording_id, who.name):
                await _serve(socket, who, _pass_on(line, socket, flow), _read(socket, flow))
        finally:
            line.abort()
            await _enter_heard(console, who, recording_id, about, flow)


async def _refuse(socket: WebSocket, status: int) -> None:
    await socket.send_denial_response(Response(status_code=status))


async def _pass_on(line: Line, socket: WebSocket, flow: _Flow) -> None:
    try:
        while True:
            message = await line.receive()
            flow.count(message)
            if isinstance(message, str):
                await socket.send_text(message)
            else:
                await socket.send_bytes(message)
            await flow.room()
    except TimeoutError:
        await socket.close(_TRY_AGAIN, "too slow: too little was read for too long")
    except LineClosed as closed:
        known = (_DONE, _TRY_AGAIN)
        await socket.close(closed.code if closed.code in known else _FAILED, "the stream has ended")


async def _read(socket: WebSocket, flow: _Flow) -> None:
    while (message := await socket.receive())["type"] != "websocket.disconnect":
        flow.report(message.get("text") or "")


async def _enter_heard(
    console: Console, who: Who, recording_id: str, about: dict[str, str], flow: _Flow
) -> None:
    """Enter what somebody was sent; it is heard already, so a failure is only logged."""
    from_ms = flow.to_ms if flow.from_ms is None else flow.from_ms
    part = {"from_s": round(from_ms / 1000, 3), "to_s": round(flow.to_ms / 1000, 3)}
    try:
        await console.enter(who, "listened_live", recording_id, **about, **part)
    except (LedgerError, Problem) as error:
        log.error("not_in_ledger", recording_id=recording_id, who=who.name, error=str(error))


async def _serve(socket: WebSocket, who: Who, *work: Coroutine[Any, Any, None]) -> None:
    """Run the work of a socket until the first part ends, or who opened it may no longer."""
    tasks = [asyncio.create_task(each) for each in (*work, _until_revoked(socket, who))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception) and not isinstance(error, WebSocketDisconnect):
            raise error


async def _until_revoked(socket: WebSocket, who: Who) -> None:
    while True:
        await asyncio.sleep(RECHECK_SECONDS)
        try:
            now = await identify(socket)
        except Problem as problem:
            if problem.status == 503:  # nobody can say now
                continue
            now = None
        if now is None or (now.role, now.scope) != (who.role, who.scope):
            break
    if socket.application_state is WebSocketState.CONNECTED:
        await socket.close(_POLICY, "sign in again")


ENDPOINTS: Final = (
    Endpoint(path="/", handler=_page, role=Role.VIEWER),
    Endpoint(path="/.json", handler=_document, role=Role.VIEWER),
    Endpoint(
        path="/live/{recording_id}/pause",
        handler=_pause_form,
        role=Role.MANAGER,
        methods=("POST",),
    ),
    Endpoint(
        path="/live/{recording_id}/resume",
        handler=_resume_form,
        role=Role.MANAGER,
        methods=("POST",),
    ),
    SocketEndpoint(path="/live/events", handler=_events, role=Role.VIEWER),
    SocketEndpoint(path="/live/audio/{recording_id}", handler=_audio, role=Role.LISTENER),
)
