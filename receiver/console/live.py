"""Calls that are received now, as the taps of receivers say: for the live page and its listeners.

    receiver ── /tap/all?levels=yes ──> LiveCalls ── /live/events ──> each open page
             ── /tap/ID ──────────────> one listener ── /live/audio/ID ──> its browser

The console is a listener like others, with a token of its own. While a page is open it has one
subscription for all pages, to each receiver (or worker) that it knows; while none is open it has
none, and costs a call nothing. What is known of a call is forgotten with the subscription, so how
long somebody has been silent is counted from there.

A page that does not read gets fewer pictures of the same calls, and a browser that does not
report what it has read gets no more audio: the receiver drops it, in front of the one listener
who is slow, and says so in its place. Nothing of it can be felt by the recording.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from receiver.auth import credentials, tls
from receiver.auth.bearer import mint_control
from receiver.config.settings import Config
from receiver.console.views import length_text
from receiver.errors import DialError, LineClosed
from receiver.media import Track, parameter_text, visible
from receiver.recording.verdict import SIDES, duration
from receiver.transports.client import Backoff, Line, dial, give_order, trust_in, trust_only

BARS: Final = 24
"""Levels of a track that are kept: six seconds."""
SILENT_DBFS: Final = -50.0
"""As in recordings: above the noise of a quiet line, below speech."""
SILENT_MS: Final = 10_000
"""A track that is silent for so long is mentioned."""
NOTHING_MS: Final = 3_000
"""So is a stream of which nothing comes."""
LINGER_SECONDS: Final = 5.0
"""For so long a subscription outlives its last page: one that is loaded again needs no new one."""
ANSWER_SECONDS: Final = 10.0
"""A receiver that sends no levels for so long does not answer."""
ORDER_SECONDS: Final = 60
"""For so long a token for one order is valid: clocks may differ."""
FIRST_SECONDS: Final = 2.0
"""A page that nothing is known for waits for the receivers' first words at the most so long."""

log = structlog.get_logger("receiver.console")


@dataclass(frozen=True, slots=True)
class TapAddress:
    """A receiver, or one of its workers: where its taps are, and what opens them."""

    url: str  # scheme, host and port
    token: str = field(repr=False)
    trust: Callable[[], ssl.SSLContext | None] = field(repr=False)
    control_key: str = field(default="", repr=False)  # signs orders; without one there are none

    async def dial(self, path: str) -> Line:
        """Open a socket of its taps. Raises DialError."""
        return await dial(f"{self.url}{path}", token=self.token, trust=self.trust())

    async def order(self, order: dict[str, Any], *, who: str, via: str) -> dict[str, Any]:
        """Give an order about a call; return the receiver's answer. Raises DialError."""
        if not self.control_key:
            raise DialError("the console has no control key of that receiver", status=501)
        token = mint_control(
            self.control_key,
            order["call_sid"],
            jti=secrets.token_urlsafe(16),
            who=who,
            via=via,
            now=time.time(),
            ttl_seconds=ORDER_SECONDS,
        )
        return await give_order(self.url, order, token=token, trust=self.trust())


def tap_addresses(config: Config) -> tuple[TapAddress, ...]:
    """Return all receivers whose calls are shown: the console's own, and those it was told of.

    Raises:
        ConfigurationError: a token cannot be used.
    """

    def own_certificate() -> ssl.SSLContext | None:  # read each time: it may be replaced
        return None if config.no_tls else trust_only(Path(tls.pair(config)[0]))

    own_token = config.console_token or ""
    own_key = credentials.console_key(own_token) if own_token else ""
    own = [TapAddress(url, own_token, own_certificate, own_key) for url in config.console_taps]
    if not config.tap_url:
        return tuple(own)
    ca_file = None if config.tap_ca_file is None else str(config.tap_ca_file)
    token = credentials.first_tap_token(config)
    trust = trust_in(ca_file)
    key = next(iter(credentials.control_keys(replace(config, console_token=None))), "")
    urls = (url.rstrip("/") for url in config.tap_url)
    return (*own, *(TapAddress(url, token, lambda: trust, key) for url in urls))


def side(track: str) -> str:
    """Return what people call a track: caller or agent."""
    return SIDES[Track(track)].removeprefix("the ")


@dataclass(slots=True)
class LiveCall:
    """What is known of one call that is received now; `_ms` are milliseconds of its recording."""

    tap: TapAddress
    about: Mapping[str, Any]  # as the list of live streams has it
    ms: int = 0
    lost_ms: int | None = None  # None: nobody can know
    lost_at_ms: int | None = None  # when the latest was noticed, if we saw that
    listeners: int = 0
    levels: dict[str, deque[float | None]] = field(default_factory=dict)  # dBFS, None: no audio
    sounded_ms: dict[str, int] = field(default_factory=dict)
    came_ms: int = 0  # when anything came
    is_known: bool = False  # its levels have come
    paused: Mapping[str, str] | None = None  # why, and until when

    def feed(self, levels: Mapping[str, Any]) -> None:
        """Keep what was measured within the last quarter of a second."""
        self.ms, self.listeners = levels["ms"], levels["listeners"]
        lost_ms = levels["lost_ms"]
        if self.is_known and lost_ms is not None and lost_ms > (self.lost_ms or 0):
            self.lost_at_ms = self.ms
        self.lost_ms, self.paused = lost_ms, levels.get("paused")
        for track in Track:
            level = levels[track]
            self.levels.setdefault(track, deque(maxlen=BARS)).append(level)
            if not self.is_known or (level is not None and level >= SILENT_DBFS):
                self.sounded_ms[track] = self.ms
            if not self.is_known or level is not None:
                self.came_ms = self.ms
        self.is_known = True

    def permits(self, scope: Mapping[str, str]) -> bool:
        """Return whether it exists for somebody who is limited to these parameters."""
        parameters = self.about["parameters"]
        return all(
            name in parameters and parameter_text(parameters[name]) == value
            for name, value in scope.items()
        )

    def matter(self, scope: Mapping[str, str]) -> tuple[str, str]:
        """Return in words what matters most to somebody, and its tone.

        That there is another part is said to nobody for whom that part may not exist.
        """
        if self.paused is not None:
            reason = f" ({visible(self.paused['reason'])})" if self.paused["reason"] else ""
            return (
                f"paused{reason}, until {self.paused['until'][11:19]} UTC at the latest",
                "paused",
            )
        if self.ms - self.came_ms >= NOTHING_MS:
            return f"nothing has come for {length_text(self.ms - self.came_ms)}", "bad"
        if self.lost_ms:
            at = "" if self.lost_at_ms is None else f" at {length_text(self.lost_at_ms)}"
            return f"{duration(self.lost_ms)} lost{at}", "bad"
        silent = {
            track: self.ms - self.sounded_ms.get(track, self.ms)
            for track in self.tracks
            if self.ms - self.sounded_ms.get(track, self.ms) >= SILENT_MS
        }
        if silent:
            sides = "both" if len(silent) > 1 else side(next(iter(silent)))
            return f"{sides} silent for {length_text(min(silent.values()))}", ""
        if self.about.get("continues") and not scope:
            return "another part of this call", ""
        return ("nothing missing", "") if self.lost_ms == 0 else ("", "")

    @property
    def tracks(self) -> list[str]:
        """Return the tracks that it was said to have, or all where that was not said."""
        return [t.value for t in Track if t in self.about["tracks"]] or [t.value for t in Track]


class LiveCalls:
    """All calls of all receivers, for as long as somebody looks.

    For the event loop's thread alone.
    """

    def __init__(self, taps: Iterable[TapAddress]) -> None:
        self.taps = tuple(taps)
        self.calls: dict[str, LiveCall] = {}
        self.problems: dict[str, str] = {}  # by the receiver's address: why it shows nothing
        self.unsynced_ms: dict[
            str, int
        ] = {}  # by the receiver's address: its oldest audio in memory
        self.listening: dict[str, Counter[str]] = {}  # who hears what by this console
        self.round = 0  # counts everything that changed
        self.changes = 0  # counts what is not levels alone
        self._known: set[str] = set()  # receivers that have said, or failed to say, what they have
        self._changed = asyncio.Event()
        self._watching = 0
        self._followers: list[asyncio.Task[None]] = []
        self._linger: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a subscription."""
        return bool(self._followers)

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Keep a subscription until the end of the block; it starts with what is known."""
        self._watching += 1
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if not self._followers:
            self._followers = [asyncio.create_task(self._follow(tap)) for tap in self.taps]
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._first_words(), FIRST_SECONDS)
            yield
        finally:
            self._watching -= 1
            if not self._watching:
                loop = asyncio.get_running_loop()
                self._linger = loop.call_later(LINGER_SECONDS, self.close)

    def close(self) -> None:
        """End the subscription, and forget what it said; idempotent."""
        for follower in self._followers:
            follower.cancel()
        self._followers = []
        self._known.clear()
        self.calls.clear()
        self.problems.clear()
        self.unsynced_ms.clear()

    async def change(self) -> None:
        """Wait until anything changes."""
        await self._changed.wait()

    def announce(self) -> None:
        """Send all of it anew to every open page, because something beside the calls changed."""
        self._report()

    def visible_to(self, scope: Mapping[str, str]) -> dict[str, LiveCall]:
        """Return the calls that exist for somebody, the longest first, by recording id."""
        found = [(key, call) for key, call in self.calls.items() if call.permits(scope)]
        return dict(sorted(found, key=lambda pair: pair[1].about["started_at"]))

    @contextlib.contextmanager
    def listener(self, recording_id: str, name: str) -> Iterator[None]:
        """Count somebody who listens, until the end of the block."""
        counts = self.listening.setdefault(recording_id, Counter())
        counts[name] += 1
        self._report(levels_only=True)
        try:
            yield
        finally:
            counts[name] -= 1
            if not +counts:
                self.listening.pop(recording_id, None)
            self._report(levels_only=True)

    async def _first_words(self) -> None:
        while len(self._known) < len(self.taps):
            await self.change()

    async def _follow(self, tap: TapAddress) -> None:
        """Keep what one receiver has, and dial it again when that breaks."""
        backoff = Backoff(first_seconds=0.5, longest_seconds=5)
        while True:
            opened_at = time.monotonic()
            try:
                await self._subscribe(tap)
            except (DialError, LineClosed, TimeoutError, msgspec.DecodeError, KeyError) as error:
                problem = str(error) or "it does not answer"
            if self.problems.get(tap.url) != problem:
                log.warning("receiver_not_shown", receiver=tap.url, problem=problem)
            self._drop(tap)
            self.problems[tap.url] = problem
            self._known.add(tap.url)
            self._report()
            backoff.record_held(time.monotonic() - opened_at)
            await asyncio.sleep(backoff.next_seconds())

    async def _subscribe(self, tap: TapAddress) -> None:
        async with asyncio.timeout(ANSWER_SECONDS):
            line = await tap.dial("/tap/all?levels=yes")
        try:
            while True:
                async with asyncio.timeout(ANSWER_SECONDS):
                    message = await line.receive()
                self._feed(tap, msgspec.json.decode(message))
        finally:
            line.abort()

    def _feed(self, tap: TapAddress, event: dict[str, Any]) -> None:
        match event["event"]:
            case "started":
                self.calls[event["recording_id"]] = LiveCall(tap, event)
            case "stopped":
                self.calls.pop(event["recording_id"], None)
            case "levels":
                for recording_id, levels in event["streams"].items():
                    if recording_id in self.calls:
                        self.calls[recording_id].feed(levels)
                self._known.add(tap.url)
                if "unsynced_ms" in event:
                    self.unsynced_ms[tap.url] = event["unsynced_ms"]
                is_back = self.problems.pop(tap.url, None) is not None
                self._report(levels_only=not is_back)
                return
        self._report()

    def _drop(self, tap: TapAddress) -> None:
        self.calls = {key: call for key, call in self.calls.items() if call.tap is not tap}
        self.unsynced_ms.pop(tap.url, None)

    def _report(self, *, levels_only: bool = False) -> None:
        self.round += 1
        self.changes += not levels_only
        self._changed.set()
        self._changed = asyncio.Event()
