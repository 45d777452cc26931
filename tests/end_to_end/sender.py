"""A sender that shares no code with `starter`: it speaks the provider's documented shapes."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterable, Iterator
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.end_to_end.receiver_process import TOKEN

STREAM_SID = "7d56cc11-0a3c-4a3e-9df2-6f0e9c0c1d2e"
CALL_SID = "76ac3c36-aaaa-4bbb-8ccc-ddddeeeeffff"
ACCOUNT_SID = "b08dacad-1111-4222-8333-444455556666"


def dial(url: str, *, token: str = TOKEN, trust: ssl.SSLContext | None = None) -> ClientConnection:
    """Open a stream's socket as the provider does."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return connect(url, additional_headers=headers, compression=None, ssl=trust, proxy=None)


def connected() -> str:
    """Return the first message of a stream."""
    return json.dumps({"event": "connected", "protocol": "Call", "version": "0.2.0"})


def start(
    parameters: dict[str, Any] | None = None,
    *,
    encoding: str = "audio/x-mulaw",
    rate: int = 8000,
    stream_sid: str = STREAM_SID,
    call_sid: str = CALL_SID,
) -> str:
    """Return a start message."""
    body: dict[str, Any] = {
        "streamSid": stream_sid,
        "accountSid": ACCOUNT_SID,
        "callSid": call_sid,
        "tracks": ["inbound", "outbound"],
        "mediaFormat": {"encoding": encoding, "sampleRate": rate, "channels": 1},
    }
    if parameters is not None:
        body["customParameters"] = parameters
    return json.dumps({"event": "start", "sequenceNumber": "1", "start": body})


def media(track: str, number: int, payload: bytes, *, sequence: int = 0, at_ms: int = -1) -> str:
    """Return a media message; chunk `number` counts from 1, 20 ms each unless `at_ms` is given."""
    stamp = (number - 1) * 20 if at_ms < 0 else at_ms
    body = {
        "track": track,
        "chunk": str(number),
        "timestamp": str(stamp),
        "payload": base64.b64encode(payload).decode(),
    }
    return json.dumps({"event": "media", "sequenceNumber": str(sequence), "media": body})


def stop(sequence: int = 999) -> str:
    """Return a stop message."""
    return json.dumps({"event": "stop", "sequenceNumber": str(sequence)})


def send_call(socket: ClientConnection, messages: Iterable[str]) -> None:
    """Send everything as fast as the socket allows."""
    for message in messages:
        socket.send(message)


def send_at_once(socket: ClientConnection, messages: Iterable[str]) -> None:
    """Send messages in one piece, so that no time passes between them on a busy machine."""
    units = b""
    for message in messages:
        content = message.encode()
        assert 126 <= len(content) < 2**16
        units += b"\x81\xfe" + len(content).to_bytes(2) + bytes(4) + content  # masked with zeros
    socket.socket.sendall(units)


def pieces(audio: bytes, size: int = 160) -> Iterator[tuple[int, bytes]]:
    """Yield `(number, payload)` of consecutive chunks, counted from 1."""
    for number, offset in enumerate(range(0, len(audio), size), 1):
        yield number, audio[offset : offset + size]
