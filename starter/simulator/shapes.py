"""How each provider spells the messages of a stream. Pure: values in, JSON bytes out.

Source: the providers' public message descriptions. All counters travel as strings.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from starter.simulator.media import Identity, MediaFormat

_encode = msgspec.json.Encoder().encode

_DTMF_DURATION = 2000  # what the provider's own example shows; it names no unit


@dataclass(frozen=True, slots=True)
class MediaPlace:
    """Where a chunk belongs: its track, its number there, and its time on the stream's clock."""

    track: str
    chunk: int
    timestamp_ms: int


class Shape(Protocol):
    """One provider's spelling of the messages of one stream."""

    def connected(self) -> bytes:
        """The greeting, before anything is known."""
        ...

    def start(
        self,
        sequence: int,
        tracks: tuple[str, ...],
        media_format: MediaFormat,
        parameters: Mapping[str, str],
    ) -> bytes:
        """Who calls, what is played, and the custom parameters."""
        ...

    def media(self, sequence: int, place: MediaPlace, payload: bytes) -> bytes:
        """One chunk of one track."""
        ...

    def dtmf(self, sequence: int, digit: str) -> bytes:
        """One key pressed on the phone."""
        ...

    def stop(self, sequence: int) -> bytes:
        """The end."""
        ...


@dataclass(frozen=True, slots=True)
class SignalWireShape:
    """SignalWire: the stream is named only inside `start`, and `stop` has no body."""

    identity: Identity

    def connected(self) -> bytes:
        """The greeting; it has no sequence number."""
        return _encode({"event": "connected", "protocol": "Call", "version": "0.2.0"})

    def start(
        self,
        sequence: int,
        tracks: tuple[str, ...],
        media_format: MediaFormat,
        parameters: Mapping[str, str],
    ) -> bytes:
        """Who calls, what is played, and the custom parameters."""
        body = _start_body(self.identity, tracks, media_format, parameters)
        return _encode({"event": "start", "sequenceNumber": str(sequence), "start": body})

    def media(self, sequence: int, place: MediaPlace, payload: bytes) -> bytes:
        """One chunk of one track."""
        body = _media_body(place, payload)
        return _encode({"event": "media", "sequenceNumber": str(sequence), "media": body})

    def dtmf(self, sequence: int, digit: str) -> bytes:
        """One key; the digit is text and the duration a number, as documented."""
        body = {"digit": digit, "duration": _DTMF_DURATION}
        return _encode({"event": "dtmf", "sequenceNumber": str(sequence), "dtmf": body})

    def stop(self, sequence: int) -> bytes:
        """The end, without a body."""
        return _encode({"event": "stop", "sequenceNumber": str(sequence)})


@dataclass(frozen=True, slots=True)
class TwilioShape:
    """Twilio: `streamSid` on top of every message after the greeting, `stop` with a body."""

    identity: Identity

    def connected(self) -> bytes:
        """The greeting; the stream is not named yet."""
        return _encode({"event": "connected", "protocol": "Call", "version": "1.0.0"})

    def start(
        self,
        sequence: int,
        tracks: tuple[str, ...],
        media_format: MediaFormat,
        parameters: Mapping[str, str],
    ) -> bytes:
        """Who calls, what is played, and the custom parameters."""
        body = _start_body(self.identity, tracks, media_format, parameters)
        return self._message("start", sequence, body)

    def media(self, sequence: int, place: MediaPlace, payload: bytes) -> bytes:
        """One chunk of one track."""
        return self._message("media", sequence, _media_body(place, payload))

    def dtmf(self, sequence: int, digit: str) -> bytes:
        """One key; keys are heard on the inbound track only."""
        return self._message("dtmf", sequence, {"track": "inbound_track", "digit": digit})

    def stop(self, sequence: int) -> bytes:
        """The end, naming account and call once more."""
        identity = self.identity
        body = {"accountSid": identity.account_sid, "callSid": identity.call_sid}
        return self._message("stop", sequence, body)

    def _message(self, event: str, sequence: int, body: Mapping[str, Any]) -> bytes:
        message = {"event": event, "sequenceNumber": str(sequence), event: body}
        return _encode(message | {"streamSid": self.identity.stream_sid})


def _start_body(
    identity: Identity,
    tracks: tuple[str, ...],
    media_format: MediaFormat,
    parameters: Mapping[str, str],
) -> dict[str, Any]:
    return {
        "streamSid": identity.stream_sid,
        "accountSid": identity.account_sid,
        "callSid": identity.call_sid,
        "tracks": tracks,
        "customParameters": dict(parameters),
        "mediaFormat": {
            "encoding": media_format.encoding,
            "sampleRate": media_format.sample_rate,
            "channels": 1,
        },
    }


def _media_body(place: MediaPlace, payload: bytes) -> dict[str, str]:
    return {
        "track": place.track,
        "chunk": str(place.chunk),
        "timestamp": str(place.timestamp_ms),
        "payload": b64encode(payload).decode("ascii"),
    }
