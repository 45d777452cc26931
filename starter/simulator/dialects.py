"""The message format of each provider's streams. Pure: values in, JSON bytes out.

Source: the providers' public message descriptions. All counters travel as strings.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from starter.simulator.stream_info import Identity, MediaFormat

_encode = msgspec.json.Encoder().encode

_DTMF_DURATION = 2000  # what the provider's own example shows; it names no unit


@dataclass(frozen=True, slots=True)
class MediaPlace:
    """Where a chunk belongs: its track, its number there, and its time on the stream's clock."""

    track: str
    chunk: int
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class SignalWireDialect:
    """SignalWire: the stream is named only inside `start`, and `stop` has no body."""

    identity: Identity

    def connected(self) -> bytes:
        """The first message; it names no stream and has no sequence number."""
        return _encode({"event": "connected", "protocol": "Call", "version": self._version()})

    def start(
        self,
        sequence: int,
        tracks: tuple[str, ...],
        media_format: MediaFormat,
        parameters: Mapping[str, str],
    ) -> bytes:
        """Ids, tracks, media format and custom parameters of the stream."""
        body = _start_body(self.identity, tracks, media_format, parameters)
        return self._message("start", sequence, body)

    def media(self, sequence: int, place: MediaPlace, payload: bytes) -> bytes:
        """One chunk of one track."""
        return self._message("media", sequence, _media_body(place, payload))

    def dtmf(self, sequence: int, digit: str) -> bytes:
        """One key pressed on the phone."""
        return self._message("dtmf", sequence, self._dtmf_body(digit))

    def stop(self, sequence: int) -> bytes:
        """The end."""
        return self._message("stop", sequence, self._stop_body())

    def _version(self) -> str:
        return "0.2.0"

    def _dtmf_body(self, digit: str) -> dict[str, Any]:
        return {"digit": digit, "duration": _DTMF_DURATION}

    def _stop_body(self) -> dict[str, Any] | None:
        return None

    def _message(self, event: str, sequence: int, body: Mapping[str, Any] | None) -> bytes:
        message: dict[str, Any] = {"event": event, "sequenceNumber": str(sequence)}
        if body is not None:
            message[event] = body
        return _encode(message | self._on_top())

    def _on_top(self) -> dict[str, str]:
        """What every numbered message holds beside its body."""
        return {}


@dataclass(frozen=True, slots=True)
class TwilioDialect(SignalWireDialect):
    """Twilio: `streamSid` on top of every message after `connected`, `stop` with a body."""

    def _version(self) -> str:
        return "1.0.0"

    def _dtmf_body(self, digit: str) -> dict[str, Any]:
        return {"track": "inbound_track", "digit": digit}  # keys come on that one only

    def _stop_body(self) -> dict[str, Any]:
        return {"accountSid": self.identity.account_sid, "callSid": self.identity.call_sid}

    def _on_top(self) -> dict[str, str]:
        return {"streamSid": self.identity.stream_sid}


Dialect = SignalWireDialect | TwilioDialect


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
