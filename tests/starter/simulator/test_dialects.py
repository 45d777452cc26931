"""The messages of both providers, compared with their documentation."""

import json
from typing import Any

import pytest

from starter.models import Codec
from starter.simulator.dialects import Dialect, MediaPlace, SignalWireDialect, TwilioDialect
from starter.simulator.stream_info import MEDIA_FORMATS, Identity

IDENTITY = Identity("the-account", "the-call", "the-stream")
PLACE = MediaPlace("inbound", 1, 20)
START_BODY = {
    "streamSid": "the-stream",
    "accountSid": "the-account",
    "callSid": "the-call",
    "tracks": ["inbound", "outbound"],
    "customParameters": {"FirstName": "Jané"},
    "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
}
MEDIA_BODY = {"track": "inbound", "chunk": "1", "timestamp": "20", "payload": "//8="}


def messages(dialect: Dialect) -> list[dict[str, Any]]:
    """One message of each kind."""
    tracks = ("inbound", "outbound")
    start = dialect.start(1, tracks, MEDIA_FORMATS[Codec.PCMU], {"FirstName": "Jané"})
    media, dtmf = dialect.media(2, PLACE, b"\xff\xff"), dialect.dtmf(3, "5")
    return [json.loads(m) for m in (dialect.connected(), start, media, dtmf, dialect.stop(4))]


def test_signalwire() -> None:
    """The stream is named inside `start` only, and `stop` has no body."""
    assert [
        {"event": "connected", "protocol": "Call", "version": "0.2.0"},
        {"event": "start", "sequenceNumber": "1", "start": START_BODY},
        {"event": "media", "sequenceNumber": "2", "media": MEDIA_BODY},
        {"event": "dtmf", "sequenceNumber": "3", "dtmf": {"digit": "5", "duration": 2000}},
        {"event": "stop", "sequenceNumber": "4"},
    ] == messages(SignalWireDialect(IDENTITY))


def test_twilio() -> None:
    """Every message but the first names the stream, and `stop` names account and call."""
    stop = {"accountSid": "the-account", "callSid": "the-call"}
    sid = {"streamSid": "the-stream"}

    assert [
        {"event": "connected", "protocol": "Call", "version": "1.0.0"},
        {"event": "start", "sequenceNumber": "1", "start": START_BODY} | sid,
        {"event": "media", "sequenceNumber": "2", "media": MEDIA_BODY} | sid,
        {"event": "dtmf", "sequenceNumber": "3", "dtmf": {"track": "inbound_track", "digit": "5"}}
        | sid,
        {"event": "stop", "sequenceNumber": "4", "stop": stop} | sid,
    ] == messages(TwilioDialect(IDENTITY))


@pytest.mark.parametrize(
    ("codec", "encoding", "rate", "chunk_bytes"),
    [
        (Codec.PCMU, "audio/x-mulaw", 8000, 160),
        (Codec.PCMA, "audio/x-alaw", 8000, 160),
        (Codec.L16, "audio/x-L16", 8000, 320),
        (Codec.L16_16000, "audio/x-L16", 16000, 640),
        (Codec.L16_24000, "audio/x-L16", 24000, 960),
    ],
)
def test_every_codec_has_its_format(
    codec: Codec, encoding: str, rate: int, chunk_bytes: int
) -> None:
    """Encoding, rate and the bytes of 20 ms."""
    media_format = MEDIA_FORMATS[codec]

    assert (encoding, rate) == (media_format.encoding, media_format.sample_rate)
    assert chunk_bytes == media_format.chunk_bytes(20)
