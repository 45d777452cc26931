"""Listen to a live call from a program of your own.

from receiver.listen import Audio, listen

async for event in listen("wss://127.0.0.1:8443/tap/CALL_SID", token=token):
    if isinstance(event, Audio):
        level = abs(event.samples).mean()
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import msgspec

from receiver.errors import DialError, LineClosed
from receiver.media import EndReason, timestamp
from receiver.transports.client import RECEIVE_BUFFER_BYTES, Backoff, Line, dial, trust_in

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PATIENCE_SECONDS: Final = 60.0
"""For how long a lost connection is tried again."""
_FIRST_DELAY_SECONDS: Final = 0.1
_LONGEST_DELAY_SECONDS: Final = 5.0
_NO_SUCH_STREAM: Final = 4404
_NOT_DECODED: Final = 4422
_NEXT_SECONDS: Final = 30.0
"""So much of the next part's past is asked for: it began when the one before was replaced."""
_BYTES_PER_SAMPLE: Final = 2
_NOT_FOUND: Final = 404
_REJECTED: Final = 422
_FINAL_STATUS: Final = frozenset({400, 401, 403, _NOT_FOUND, _REJECTED, 501})


@dataclass(frozen=True, slots=True)
class Started:
    """The stream that is listened to; its audio starts at `timestamp_ms` on its clock.

    `tracks` are all that the provider sends, `encoding` is how; `wall_time` is when that place
    of the stream came to the receiver, in UTC (RFC 3339, milliseconds).
    """

    recording_id: str
    call_sid: str
    stream_sid: str
    parameters: dict[str, Any]
    track: str
    sample_rate: int
    channels: int
    timestamp_ms: float
    account_sid: str = ""
    tracks: tuple[str, ...] = ()
    encoding: str = ""
    wall_time: str = ""
    latency_ms: float = 0


@dataclass(frozen=True, slots=True)
class Audio:
    """Samples of one chunk.

    `samples` is int16 of shape `(n,)`; for the track "stereo" `(n, 2)`, inbound left, outbound
    right. `sample_rate` is in samples per second. `timestamp_ms` is where the first sample is on
    the stream's clock, which counts milliseconds from the start of the call's stream; `wall_time`
    is when it came to the receiver, in UTC.
    """

    samples: NDArray[np.int16]
    sample_rate: int
    timestamp_ms: float
    track: str
    wall_time: str = ""


@dataclass(frozen=True, slots=True)
class Gap:
    """Audio that is not there.

    For the reasons lost, sender_silence and late, silence has been put in its place and comes
    as `Audio`. For slow_listener (we did not read in time) and disconnected there is nothing:
    the next `Audio` starts behind the gap. `latency_ms` is how much later than `wall_time`, when
    its place in the stream came, the receiver sent the event; both are so for each event.
    """

    reason: str
    track: str
    timestamp_ms: float
    duration_ms: float
    wall_time: str = ""
    latency_ms: float = 0

    @property
    def is_silent(self) -> bool:
        """Return whether silence comes in its place."""
        return self.reason not in ("slow_listener", "disconnected")


@dataclass(frozen=True, slots=True)
class Dtmf:
    """A key was pressed, for `duration_ms`, which is `None` where the provider does not say."""

    digit: str
    duration_ms: int | None
    timestamp_ms: float
    wall_time: str = ""
    latency_ms: float = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """A named position in the stream."""

    name: str
    timestamp_ms: float
    wall_time: str = ""
    latency_ms: float = 0


@dataclass(frozen=True, slots=True)
class Stopped:
    """The last event. `reason` is the recording's end, or `unknown` where nobody said it."""

    reason: str
    timestamp_ms: float
    wall_time: str = ""
    latency_ms: float = 0


@dataclass(frozen=True, slots=True)
class ClockReanchored:
    """From here on a track stands `shift_ms` later than its timestamps say."""

    track: str
    timestamp_ms: float
    shift_ms: float
    wall_time: str = ""
    latency_ms: float = 0


@dataclass(frozen=True, slots=True)
class Paused:
    """From here on all audio is silence, as somebody asked for, at the longest until `until`."""

    reason: str
    until: str
    timestamp_ms: float
    wall_time: str = ""
    latency_ms: float = 0


@dataclass(frozen=True, slots=True)
class Resumed:
    """A pause is over."""

    timestamp_ms: float
    wall_time: str = ""
    latency_ms: float = 0


Event = Started | Audio | Gap | Dtmf | Mark | ClockReanchored | Paused | Resumed | Stopped


@dataclass(frozen=True, slots=True)
class PcmAudio:
    """The samples of one chunk as they came: little-endian int16, tracks interleaved."""

    payload: bytes
    channels: int
    sample_rate: int
    timestamp_ms: float
    track: str
    wall_time: str = ""

    def decoded(self) -> Audio:
        """Return the samples as an array."""
        import numpy as np  # only here: programs that pass bytes on need none

        samples = np.frombuffer(self.payload, "<i2").astype(np.int16)
        if self.channels > 1:
            samples = samples.reshape(-1, self.channels)
        return Audio(samples, self.sample_rate, self.timestamp_ms, self.track, self.wall_time)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenQuery:
    """What to listen to; `rate` is in samples per second, by default the stream's own."""

    track: str = "inbound"
    rate: int | None = None
    since: float = 0
    wait: float = 0
    block_ms: int | None = None

    @property
    def second_bytes(self) -> int:
        """Return how long a second of audio is: more need not wait in the kernel."""
        channels = 2 if self.track == "stereo" else 1
        return max(RECEIVE_BUFFER_BYTES, (self.rate or 0) * _BYTES_PER_SAMPLE * channels)

    def for_next_part(self, sample_rate: int) -> ListenQuery:
        """Return what to ask for where the stream goes on: all of the new part, at one rate."""
        return replace(self, rate=self.rate or sample_rate, since=_NEXT_SECONDS, wait=1.0)

    def encoded(self, *, again: bool) -> str:
        """Return the URL's query; the past is asked for once, and nothing is waited for twice."""
        query: dict[str, object] = {"track": self.track, "format": "pcm16"}
        if self.rate is not None:
            query["rate"] = self.rate
        if self.block_ms is not None:
            query["block_ms"] = self.block_ms
        if self.since and not again:
            query["since"] = self.since
        if self.wait and not again:
            query["wait"] = self.wait
        return urlencode(query)


async def listen(
    url: str,
    *,
    token: str | None = None,
    track: str = "inbound",
    rate: int | None = None,
    since: float = 0,
    wait: float = 0,
    block: int | None = None,
    trust: ssl.SSLContext | str | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> AsyncIterator[Event]:
    """Yield what happens on one live stream, from `Started` to `Stopped`.

    A program that reads the events too slowly gets a `Gap` of reason "slow_listener" a few
    seconds later. A broken connection is opened again, and a `Gap` of reason "disconnected" says
    what was missed.

    Args:
        url: `wss://HOST:PORT/tap/NAME`, where NAME is a call sid, a stream sid or a recording id.
        token: a tap token.
        track: "inbound", "outbound" or "stereo".
        rate: samples per second; by default the stream's own.
        since: seconds of the call's past that come first.
        wait: seconds to wait for a call that has not started.
        block: samples of each `Audio`, by default those of a chunk; what is left at the end is
            shorter, and what is missing within a block is zero.
        trust: an SSL context, or the path of a file of authorities.
        patience_seconds: for how long a lost connection is tried again.

    Raises:
        DialError: there is no such stream, the receiver refuses, or it cannot be reached.
        ConfigurationError: `trust` holds no certificate.
    """
    if block is not None and block < 1:
        raise ValueError("block must be at least one sample")
    query = ListenQuery(track=track, rate=rate, since=since, wait=wait)
    events = listen_pcm(url, query, token=token, trust=trust, patience_seconds=patience_seconds)
    async with contextlib.aclosing(events):
        blocks = _Blocks(block) if block else None
        async for event in events:
            for one in blocks.feed(event) if blocks else (event,):
                yield one.decoded() if isinstance(one, PcmAudio) else one


class _Blocks:
    """Audio in blocks of so many samples; other events come before the block that they are in."""

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self._rest = bytearray()
        self._latest: PcmAudio | None = None
        self._at_ms = 0.0  # where the rest starts

    def feed(self, event: Event | PcmAudio) -> Iterator[Event | PcmAudio]:
        """Yield whole blocks and other events; before the last one, what is left."""
        if isinstance(event, PcmAudio):
            yield from self._audio(event)
            return
        if isinstance(event, Gap) and not event.is_silent:
            yield from self._missed(event)
        elif isinstance(event, Stopped) and self._rest and self._latest:
            yield self._block(self._latest, len(self._rest))
        yield event

    def _audio(self, audio: PcmAudio) -> Iterator[PcmAudio]:
        frame_bytes = _BYTES_PER_SAMPLE * audio.channels
        if not self._rest:
            self._at_ms = audio.timestamp_ms
        self._latest = audio
        self._rest += audio.payload
        while len(self._rest) >= self._frames * frame_bytes:
            yield self._block(audio, self._frames * frame_bytes)

    def _missed(self, gap: Gap) -> Iterator[PcmAudio]:
        """Fill the block that a gap is in with silence."""
        audio = self._latest
        if audio is None or not self._rest:
            return
        frame_bytes = _BYTES_PER_SAMPLE * audio.channels
        lacking = self._frames - len(self._rest) // frame_bytes
        missed = round(gap.duration_ms * audio.sample_rate / 1000)
        self._rest += bytes(min(lacking, missed) * frame_bytes)
        if missed >= lacking:
            yield self._block(audio, self._frames * frame_bytes)

    def _block(self, audio: PcmAudio, size: int) -> PcmAudio:
        payload, at_ms = bytes(self._rest[:size]), self._at_ms
        del self._rest[:size]
        frames = size // (_BYTES_PER_SAMPLE * audio.channels)
        self._at_ms += frames * 1000 / audio.sample_rate
        later_ms = at_ms - audio.timestamp_ms
        wall_time = _later(audio.wall_time, later_ms)
        return replace(audio, payload=payload, timestamp_ms=at_ms, wall_time=wall_time)


def _later(wall_time: str, by_ms: float) -> str:
    """Return a time in UTC so many milliseconds later; an unknown one stays so."""
    if not wall_time:
        return ""
    return timestamp(int(datetime.fromisoformat(wall_time).timestamp() * 1000 + by_ms))


async def listen_pcm(
    url: str,
    query: ListenQuery,
    *,
    token: str | None = None,
    trust: ssl.SSLContext | str | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> AsyncGenerator[Event | PcmAudio, None]:
    """Yield the same as `listen`, but audio as the bytes that came: this loads no numpy.

    A part of the stream that is replaced, as by one of another format, has no `Stopped` of its own
    where the next one is found by the same name: `Started` follows, at the rate of the first.
    """
    if not isinstance(trust, ssl.SSLContext):
        trust = trust_in(trust)
    redialer = _Redialer(token, trust, patience_seconds, query.second_bytes)
    decoder = _EventDecoder()
    line = await redialer.dial(_with_query(url, query.encoded(again=False)))
    while True:
        try:
            async for event in _events(line, decoder):
                yield event
        finally:
            line.abort()
        if decoder.replaced is not None:
            query = query.for_next_part(decoder.sample_rate)
            next_url = _with_query(url, query.encoded(again=False))
            following = await redialer.dial_next(next_url) if decoder.stopped else None
            if following is None:
                yield decoder.replaced
                return
            line, decoder.stopped = following, False
            continue
        if decoder.stopped:
            return
        known = bool(decoder.recording_id)  # or else nothing came, and we still wait for it
        again = _with_query(_url_again(url, decoder.recording_id), query.encoded(again=known))
        found = None if decoder.gone else await redialer.redial(again, known=known)
        if found is None:
            yield Stopped("unknown", decoder.position_ms)
            return
        line = found


def _pause(fields: dict[str, Any]) -> Paused | Resumed:
    if fields["event"] == "resumed":
        return Resumed(*_times(fields))
    return Paused(fields["reason"], fields["until"], *_times(fields))


@dataclass(slots=True)
class _EventDecoder:
    """Turns messages into events; keeps which stream they are of, and how far it has come."""

    recording_id: str = ""
    track: str = ""
    sample_rate: int = 8000
    channels: int = 1
    position_ms: float = 0
    clock_starts_ms: float | None = None  # when the stream's clock began, since 1970
    stopped: bool = False
    replaced: Stopped | None = None  # how it ended, while nothing of the next part has come
    gone: bool = False  # it ended while we were not connected

    def feed(self, message: bytes | str) -> Iterator[Event | PcmAudio]:
        """Yield the events of one message; what this version does not know is left out."""
        if isinstance(message, bytes):
            yield self._audio(message)
            return
        fields = msgspec.json.decode(message)
        match fields.get("event"):
            case "started":
                yield self._started(fields)
            case "gap":
                yield self._gap(fields)
            case "dtmf":
                yield Dtmf(fields["digit"], fields["duration_ms"], *_times(fields))
            case "mark":
                yield Mark(fields["name"], *_times(fields))
            case "paused" | "resumed":
                yield _pause(fields)
            case "clock_reanchored":
                at_ms, wall_time, latency_ms = _times(fields)
                shift_ms = fields["shift_ms"]
                yield ClockReanchored(fields["track"], at_ms, shift_ms, wall_time, latency_ms)
            case "stopped":
                self.stopped = True
                ended = Stopped(fields["reason"], *_times(fields))
                if ended.reason == EndReason.REPLACED.value:
                    self.replaced = ended
                else:
                    yield ended

    def _started(self, fields: dict[str, Any]) -> Started | Gap:
        """Return `Started`, or where the same stream goes on, the gap in between."""
        known_id, position_ms, self.replaced = self.recording_id, self.position_ms, None
        self.recording_id, self.track = fields["recording_id"], fields["track"]
        self.channels, self.sample_rate = fields["channels"], fields["rate"]
        self.position_ms = fields["timestamp_ms"]
        _, wall_time, latency_ms = _times(fields)
        if wall_time:
            came_s = datetime.fromisoformat(wall_time).timestamp()
            self.clock_starts_ms = came_s * 1000 - self.position_ms
        if known_id == self.recording_id:
            missed_ms = max(0, self.position_ms - position_ms)
            return Gap("disconnected", self.track, position_ms, missed_ms, wall_time, latency_ms)
        return Started(
            recording_id=self.recording_id,
            call_sid=fields["call_sid"],
            stream_sid=fields["stream_sid"],
            parameters=fields["parameters"],
            track=self.track,
            sample_rate=self.sample_rate,
            channels=self.channels,
            timestamp_ms=self.position_ms,
            account_sid=fields.get("account_sid", ""),
            tracks=tuple(fields.get("tracks", ())),
            encoding=fields.get("media_format", {}).get("encoding", ""),
            wall_time=wall_time,
            latency_ms=latency_ms,
        )

    def _audio(self, message: bytes) -> PcmAudio:
        at_ms, starts_ms = self.position_ms, self.clock_starts_ms
        wall_time = "" if starts_ms is None else timestamp(int(starts_ms + at_ms))
        audio = PcmAudio(message, self.channels, self.sample_rate, at_ms, self.track, wall_time)
        samples = len(message) // (_BYTES_PER_SAMPLE * self.channels)
        self.position_ms += samples * 1000 / self.sample_rate
        return audio

    def _gap(self, fields: dict[str, Any]) -> Gap:
        at_ms, wall_time, latency_ms = _times(fields)
        reason, length_ms = fields["reason"], fields["duration_ms"]
        gap = Gap(reason, fields["track"], at_ms, length_ms, wall_time, latency_ms)
        if not gap.is_silent:
            self.position_ms = gap.timestamp_ms + gap.duration_ms
        return gap


def _times(fields: dict[str, Any]) -> tuple[float, str, float]:
    """Return an event's place in the stream, when that came, and how much later it was sent."""
    return fields["timestamp_ms"], fields.get("wall_time", ""), fields.get("latency_ms", 0)


async def _events(line: Line, decoder: _EventDecoder) -> AsyncIterator[Event | PcmAudio]:
    """Yield what comes over one connection; returns when it is closed."""
    while True:
        try:
            message = await line.receive()
        except LineClosed as closed:
            decoder.gone = closed.code == _NO_SUCH_STREAM
            if decoder.gone and not decoder.recording_id:
                raise DialError("no such stream", status=_NOT_FOUND) from closed
            if closed.code == _NOT_DECODED:
                raise DialError(closed.reason, status=_REJECTED) from closed
            return
        for event in decoder.feed(message):
            yield event


class _Redialer:
    """Opens connections, and opens them again."""

    def __init__(
        self,
        token: str | None,
        trust: ssl.SSLContext,
        longest_seconds: float,
        receive_buffer_bytes: int,
    ) -> None:
        self._token = token
        self._trust = trust
        self._longest_seconds = longest_seconds
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

    async def dial_next(self, url: str) -> Line | None:
        """Open a connection to the next part of a stream; `None` where there is none."""
        try:
            return await self.dial(url)
        except DialError:
            return None

    async def redial(self, url: str, *, known: bool) -> Line | None:
        """Open a connection again; `None` where a stream that was `known` has ended meanwhile."""
        lost_at = self._clock()
        self._backoff.record_held(lost_at - self._opened_at)
        while True:
            await asyncio.sleep(self._backoff.next_seconds())
            try:
                return await self.dial(url)
            except DialError as error:
                if error.status == _NOT_FOUND and known:
                    return None
                late = self._clock() > lost_at + self._longest_seconds
                if error.status in _FINAL_STATUS or late:
                    raise


def _with_query(url: str, query: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, query)))))


def _url_again(url: str, recording_id: str) -> str:
    """Return the URL of the same stream, by whatever name it was asked for first."""
    parts = urlsplit(url)
    if not recording_id:
        return url
    root = parts.path.rpartition("/")[0]
    return urlunsplit(parts._replace(path=f"{root}/{quote(recording_id)}"))
