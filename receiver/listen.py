"""Listen to a live call from a program of your own.

from receiver.listen import Audio, listen

async for event in listen("wss://127.0.0.1:8443/tap/CALL_SID", token=token):
    if isinstance(event, Audio):
        level = abs(event.samples).mean()
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import msgspec
import numpy as np
from numpy.typing import NDArray

from receiver.errors import DialError, LineClosed
from receiver.transports.client import (
    RECEIVE_BUFFER_BYTES,
    Backoff,
    Line,
    dial,
    trust_in,
)

PATIENCE_SECONDS: Final = 60.0
"""For how long a lost connection is tried again."""
_FIRST_DELAY_SECONDS: Final = 0.1
_LONGEST_DELAY_SECONDS: Final = 5.0
_NO_SUCH_STREAM: Final = 4404
_BYTES_PER_SAMPLE: Final = 2
_NOT_FOUND: Final = 404
_FINAL_STATUS: Final = frozenset({400, 401, 403, _NOT_FOUND, 422, 501})


@dataclass(frozen=True, slots=True)
class Started:
    """The stream that is listened to; `timestamp_ms` is where on its clock the audio begins."""

    recording_id: str
    call_sid: str
    stream_sid: str
    parameters: dict[str, Any]
    track: str
    sample_rate: int
    channels: int
    timestamp_ms: float


@dataclass(frozen=True, slots=True)
class Audio:
    """Samples of one chunk.

    `samples` is int16 of shape `(n,)`; for the track "stereo" `(n, 2)`, inbound left, outbound
    right. `sample_rate` is in samples per second. `timestamp_ms` is where the first sample is on
    the stream's clock, which counts milliseconds from the start of the call's stream.
    """

    samples: NDArray[np.int16]
    sample_rate: int
    timestamp_ms: float
    track: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Audio that is not there.

    For the reasons lost, sender_silence and late, silence has been put in its place and comes
    as `AudioPiece`. For slow_listener (we did not read in time) and disconnected there is nothing:
    the next `AudioPiece` begins behind the gap.
    """

    reason: str
    track: str
    timestamp_ms: float
    duration_ms: float

    @property
    def is_silent(self) -> bool:
        """Whether silence comes in its place."""
        return self.reason not in ("slow_listener", "disconnected")


@dataclass(frozen=True, slots=True)
class Dtmf:
    """A key was pressed; `duration_ms` is how long, where the provider tells."""

    digit: str
    duration_ms: int | None
    timestamp_ms: float


@dataclass(frozen=True, slots=True)
class Mark:
    """A named position in the stream."""

    name: str
    timestamp_ms: float


@dataclass(frozen=True, slots=True)
class Stopped:
    """The last event. `reason` is the recording's end, or `unknown` if it ended unheard."""

    reason: str
    timestamp_ms: float


Event = Started | Audio | Gap | Dtmf | Mark | Stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenQuery:
    """What to listen to; `rate` is in samples per second, by default the stream's own."""

    track: str = "inbound"
    rate: int | None = None
    since: float = 0
    wait: float = 0

    @property
    def second_bytes(self) -> int:
        """Return how long a second of audio is: more need not wait in the kernel."""
        wide = 2 if self.track == "stereo" else 1
        return max(RECEIVE_BUFFER_BYTES, (self.rate or 0) * _BYTES_PER_SAMPLE * wide)

    def query(self, *, again: bool) -> str:
        """Return the URL's query; the past is heard once, and nobody waits twice."""
        asked: dict[str, object] = {"track": self.track, "format": "pcm16"}
        if self.rate is not None:
            asked["rate"] = self.rate
        if self.since and not again:
            asked["since"] = self.since
        if self.wait and not again:
            asked["wait"] = self.wait
        return urlencode(asked)


async def listen(
    url: str,
    *,
    token: str | None = None,
    track: str = "inbound",
    rate: int | None = None,
    since: float = 0,
    wait: float = 0,
    trust: ssl.SSLContext | str | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> AsyncIterator[Event]:
    """Yield what happens on one live stream, from `Started` to `Stopped`.

    `url` is `wss://HOST:PORT/tap/NAME`, where NAME is a call sid, a stream sid or a recording
    id; `since` seconds of the call's past come first; `wait` seconds are waited for a call that
    has not begun. `trust` is an SSL context or the path of a file of authorities. Whoever takes
    the events too slowly is told of a `Gap` of reason "slow_listener" a few seconds later. A broken
    connection is opened again, and a `Gap` of reason "disconnected" tells what was missed.

    Raises:
        DialError: there is no such stream, the receiver refuses, or it cannot be reached.
        ConfigurationError: `trust` holds no certificate.
    """
    if not isinstance(trust, ssl.SSLContext):
        trust = trust_in(trust)
    wish = ListenQuery(track=track, rate=rate, since=since, wait=wait)
    caller, ear = _Redialer(token, trust, patience_seconds, wish.second_bytes), _EventDecoder()
    line = await caller.dial(_with_query(url, wish.query(again=False)))
    while True:
        try:
            async for event in _events(line, ear):
                yield event
        finally:
            line.abort()
        if ear.stopped:
            return
        known = bool(ear.recording_id)  # or else nothing was heard, and we still wait for it
        again = _with_query(_again(url, ear.recording_id), wish.query(again=known))
        found = None if ear.gone else await caller.redial(again, known=known)
        if found is None:
            yield Stopped("unknown", ear.position_ms)
            return
        line = found


@dataclass(slots=True)
class _EventDecoder:
    """What has been heard so far."""

    recording_id: str = ""
    track: str = ""
    sample_rate: int = 8000
    channels: int = 1
    position_ms: float = 0
    stopped: bool = False
    gone: bool = False  # it ended unheard

    def take(self, message: bytes | str) -> Iterator[Event]:
        """Yield what one message says; what this version does not know, it leaves out."""
        if isinstance(message, bytes):
            yield self._audio(message)
            return
        told = msgspec.json.decode(message)
        match told.get("event"):
            case "started":
                yield from self._started(told)
            case "gap":
                yield self._gap(told)
            case "dtmf":
                yield Dtmf(told["digit"], told["duration_ms"], told["timestamp_ms"])
            case "mark":
                yield Mark(told["name"], told["timestamp_ms"])
            case "stopped":
                self.stopped = True
                yield Stopped(told["reason"], told["timestamp_ms"])

    def _started(self, told: dict[str, Any]) -> Iterator[Event]:
        begin, known = told["timestamp_ms"], self.recording_id
        self.track, self.channels = told["track"], told["channels"]
        self.recording_id, self.sample_rate = told["recording_id"], told["rate"]
        if known == self.recording_id:
            missed_ms = max(0, begin - self.position_ms)
            yield Gap("disconnected", self.track, self.position_ms, missed_ms)
        else:
            yield Started(
                recording_id=self.recording_id,
                call_sid=told["call_sid"],
                stream_sid=told["stream_sid"],
                parameters=told["parameters"],
                track=self.track,
                sample_rate=self.sample_rate,
                channels=self.channels,
                timestamp_ms=begin,
            )
        self.position_ms = begin

    def _audio(self, message: bytes) -> Audio:
        samples = np.frombuffer(message, "<i2").astype(np.int16)
        if self.channels > 1:
            samples = samples.reshape(-1, self.channels)
        audio = Audio(samples, self.sample_rate, self.position_ms, self.track)
        self.position_ms += len(samples) * 1000 / self.sample_rate
        return audio

    def _gap(self, told: dict[str, Any]) -> Gap:
        gap = Gap(told["reason"], told["track"], told["timestamp_ms"], told["duration_ms"])
        if not gap.is_silent:
            self.position_ms = gap.timestamp_ms + gap.duration_ms
        return gap


async def _events(line: Line, ear: _EventDecoder) -> AsyncIterator[Event]:
    """Yield what comes over one connection; returns when it is closed."""
    while True:
        try:
            message = await line.receive()
        except LineClosed as closed:
            ear.gone = closed.code == _NO_SUCH_STREAM
            if ear.gone and not ear.recording_id:
                raise DialError("no such stream", status=_NOT_FOUND) from closed
            return
        for event in ear.take(message):
            yield event


class _Redialer:
    """Opens connections, and opens them again."""

    def __init__(
        self,
        token: str | None,
        trust: ssl.SSLContext,
        patience_seconds: float,
        receive_buffer_bytes: int,
    ) -> None:
        self._token = token
        self._trust = trust
        self._patience_seconds = patience_seconds
        self._receive_buffer_bytes = receive_buffer_bytes
        self._clock = asyncio.get_running_loop().time
        self._opened_at = 0.0
        self._backoff = Backoff(
            first_seconds=_FIRST_DELAY_SECONDS, longest_seconds=_LONGEST_DELAY_SECONDS
        )

    async def dial(self, url: str) -> Line:
        """Open a connection."""
        line = await dial(
            url,
            token=self._token,
            trust=self._trust,
            receive_buffer_bytes=self._receive_buffer_bytes,
        )
        self._opened_at = self._clock()
        return line

    async def redial(self, url: str, *, known: bool) -> Line | None:
        """Open a connection again; `None` where a stream that was `known` has ended meanwhile."""
        lost_at = self._clock()
        self._backoff.note_held(lost_at - self._opened_at)
        while True:
            await asyncio.sleep(self._backoff.next_seconds())
            try:
                return await self.dial(url)
            except DialError as error:
                if error.status == _NOT_FOUND and known:
                    return None
                late = self._clock() > lost_at + self._patience_seconds
                if error.status in _FINAL_STATUS or late:
                    raise


def _with_query(url: str, query: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, query)))))


def _again(url: str, recording_id: str) -> str:
    """Return the URL by which the same stream is found again, whatever it was called first."""
    parts = urlsplit(url)
    if not recording_id:
        return url
    root = parts.path.rpartition("/")[0]
    return urlunsplit(parts._replace(path=f"{root}/{quote(recording_id)}"))
