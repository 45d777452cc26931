"""One stream of the simulated provider, from its request to its end: dial, play, report."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

from starter.errors import AudioError, InvalidRequestError, StarterError
from starter.models import Codec, StreamRequest, Target, Track
from starter.simulator.callbacks import Callback
from starter.simulator.calls import Result, make_line, make_plan, outcome, read_tracks
from starter.simulator.options import SimulateOptions
from starter.simulator.player import Player, tls_context
from starter.simulator.stream_info import Identity, TrackAudio

_TRACKS: Final[Mapping[Track, tuple[str, ...]]] = {
    Track.INBOUND: ("inbound",),
    Track.OUTBOUND: ("outbound",),
    Track.BOTH: ("inbound", "outbound"),
}

_log = logging.getLogger("starter.simulator")


@dataclass(frozen=True, slots=True)
class SimulatedCalls:
    """What all streams of a simulated provider share: audio, and how to dial and report."""

    options: SimulateOptions
    signing_key: str | None = field(default=None, repr=False)
    _audio: dict[Codec, tuple[TrackAudio, ...]] = field(default_factory=dict, repr=False)

    def tracks(self, codec: Codec) -> tuple[TrackAudio, ...]:
        """The audio encoded as `codec`, read once. Raises AudioError."""
        if codec not in self._audio:
            self._audio[codec] = read_tracks(replace(self.options, codec=codec))
        return self._audio[codec]

    def player(self, order: StreamRequest, identity: Identity) -> Player:
        """A player for the requested stream. Raises AudioError, InvalidRequestError."""
        if "://" not in order.url:
            raise InvalidRequestError("a relative URL has no host to connect to")
        options = replace(self.options, codec=order.codec or self.options.codec)
        tracks = tuple(
            one for one in self.tracks(options.codec) if one.track in _TRACKS[order.track]
        )
        plan = make_plan(options, identity, tracks, parameters=order.parameters)
        line = make_line(options, order.url)
        return Player(identity, plan, line, bearer_token=order.bearer_token)

    def tls(self) -> ssl.SSLContext:
        """The TLS context for receivers and web hooks. Raises ConfigError for a bad CA file."""
        return tls_context(self.options.ca_file, insecure=self.options.insecure)

    def callback(self, order: StreamRequest) -> Callback | None:
        """The status callback of the stream, if one was requested. Raises ConfigError."""
        if order.status_callback is None:
            return None
        url = order.status_callback
        secure = url.lower().startswith("https:")
        return Callback(
            url,
            order.status_callback_method,
            signing_key=self.signing_key,
            ssl_context=self.tls() if secure else None,
        )


class LiveStream:
    """One requested stream; `status` goes from queued over in-progress to stopped."""

    def __init__(
        self, order: StreamRequest, identity: Identity, target: Target, calls: SimulatedCalls
    ) -> None:
        self.order = order
        self.identity = identity
        self.target = target
        self.status = "queued"
        self._calls = calls
        self._player: Player | None = None
        self._stop_requested = False
        self._reports: list[asyncio.Task[None]] = []

    @property
    def live(self) -> bool:
        """Whether the stream is neither stopped nor about to stop."""
        return self.status != "stopped" and not self._stop_requested

    def is_named(self, sid_or_name: str) -> bool:
        """Whether the stream has this sid or name."""
        return sid_or_name in (self.identity.stream_sid, self.order.name)

    def stop(self) -> None:
        """Hang up, now or as soon as the line is up; may be called again."""
        self._stop_requested = True
        if self._player:
            self._player.stop()

    async def run(self) -> Result:
        """Play the stream to its end; return what was sent, or why it failed."""
        result = await self._play()
        opened = self.status == "in-progress"
        self.status = "stopped"
        await asyncio.gather(*self._reports)
        if isinstance(result, StarterError):
            await self._report("stream-error", stream_error(result, opened=opened))
        else:
            await self._report("stream-stopped")
        return result

    async def _play(self) -> Result:
        try:
            self._player = self._calls.player(self.order, self.identity)
        except StarterError as error:
            return error
        if self._stop_requested:
            self._player.stop()
        return await outcome(self._player, on_open=self._opened)

    def _opened(self) -> None:
        self.status = "in-progress"
        # in the background: the audio does not wait for the callback
        self._reports.append(asyncio.ensure_future(self._report("stream-started")))

    async def _report(self, event: str, error: str | None = None) -> None:
        """Send a status callback if one was requested; log its failure."""
        fields = self._callback_fields(event)
        if error is not None:
            fields["StreamError"] = error
        try:
            if callback := self._calls.callback(self.order):
                await asyncio.to_thread(callback.send, fields)
        except StarterError as failure:
            _log.warning("%s", failure)

    def _callback_fields(self, event: str) -> dict[str, str]:
        owner = "CallSid" if self.target is Target.CALL else "ConferenceSid"
        return {
            "AccountSid": self.identity.account_sid,
            owner: self.identity.call_sid,
            "StreamSid": self.identity.stream_sid,
            "StreamName": self.order.name or "",
            "StreamTrack": self.order.track.value,
            "StreamEvent": event,
            "Timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "Unique-ID": str(uuid4()),
        }


def stream_error(error: StarterError, *, opened: bool) -> str:
    """The provider's name for a failure (`StreamError` of a status callback)."""
    if isinstance(error, AudioError):
        return "codec_error"
    if isinstance(error, InvalidRequestError):
        return "invalid_url"
    if opened:
        return "general_error"
    if isinstance(error.__cause__, ConnectionRefusedError):
        return "connection_refused"
    return "connection_refused_timeout_or_ssl_error"
