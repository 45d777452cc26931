"""One WebSocket message in, one typed message out: the seam for further dialects of providers.

Who calls: a session, for every message of its stream, on the event loop, about 100 times a
second for each call; the renderer, in its own process, for the messages that a journal has kept
verbatim; live taps and the forwarder, on the event loop, for what they pass on. All must
come to the same result, so it depends on nothing but the message's bytes: not on the messages
before it, not on a setting, not on how deep the caller is.

What must never happen: an exception other than `MessageRejected` and `ProtocolViolation`, for
any bytes; a silent guess at what cannot be read (a counter that is none counts as missing, audio of
an unknown encoding is kept as it came, what a start message leaves open is a finding of it); a
start message lost for one odd value in it; a second pass over an ordinary media message.

The shapes are those of SignalWire and Twilio media streams. Providers write numbers as text or
as integers, leave counters out, and spell encodings in several ways: all of that is normal. The
plan has two steps:

1. `_decode_quickly` reads JSON, base64 and counters of a media message in one call. Nearly all
   messages end here, as a `Chunk`.
2. `_decode_other_spelling` does the same for media messages in snake case, with a track's longer
   name, or without a track.
3. What neither can read, and every other event, is decoded as any JSON and read field by field
   by the function that `_PARSERS` has for its event. There names count without case, hyphens
   and underscores: `streamSid`, `stream_sid`.

A further dialect gets its events in `_PARSERS`, or fields of other names in the function of an
event; what comes out stays one of `messages`. Where it differs in media messages, it gets a
struct of its own beside `_WireMessage`, so that those of the others stay as fast.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

import msgspec

from receiver.media import (
    SAMPLE_RATES,
    WITHHELD_DIGIT,
    Chunk,
    DtmfMode,
    Encoding,
    Finding,
    MediaFormat,
    RejectedChunk,
    Track,
    clipped,
    json_text,
)
from receiver.wire.any_json import MOST_CONTAINERS, read_object
from receiver.wire.messages import (
    OMITTED,
    UNKNOWN_TRACK,
    Connected,
    DtmfMessage,
    MarkMessage,
    Message,
    MessageRejected,
    Start,
    Stop,
    Unknown,
    UntrackedChunk,
)

_LARGEST: Final = 2**53
"""Counters above this are nonsense; below it they are exact in JSON and in 64-bit sums."""
_LONGEST_NUMBER: Final = 20
"""No longer text is turned into a number."""
_LONGEST_PARAMETERS: Final = 4096
"""Custom parameters kept of one start message; providers send at most 99."""

# "audio/x-mulaw", "PCMU@40i", "audio/l16;rate=16000", "L16@24000h@40i": the providers' pages
# and SDKs spell one encoding in many ways, so the name is compared without case, prefix
# and punctuation.
_SPELLING = re.compile(r"(?:audio/)?(?:x-)?(?P<name>[\w.-]+)(?P<options>(?:[;@].*)?)", re.DOTALL)
_PUNCTUATION = re.compile("[_.-]")
_RATE = re.compile(r"(?:rate=(\d{4,6})|@(\d{4,6})h)")
_NAMES: Final = {
    **dict.fromkeys(("mulaw", "ulaw", "pcmu", "basic", "pcmmulaw", "g711u"), Encoding.PCMU),
    **dict.fromkeys(("g711ulaw", "g711mulaw"), Encoding.PCMU),
    **dict.fromkeys(("alaw", "pcma", "pcmalaw", "g711a", "g711alaw"), Encoding.PCMA),
    **dict.fromkeys(("l16", "pcm", "pcm16", "linear16"), Encoding.L16),
}

_USUAL_RATE: Final = 8000
_ENCODING_NAMES: Final = ("encoding", "codec")
_FORMAT_FIELDS: Final = (*_ENCODING_NAMES, "samplerate", "rate", "channels", "channelcount")

# Names without case, hyphens and underscores; of several the first one counts.
_ID_NAMES: Final = (
    ("streamsid", "streamid"),
    ("callsid", "callid", "callcontrolid"),
    ("accountsid", "accountid"),
)
_ANY_CALL: Final = (*_ID_NAMES[1], "conversationid")
_START_FIELDS: Final = {
    *("tracks", "mediaformat", "customparameters", *_FORMAT_FIELDS),
    *(name for names in _ID_NAMES for name in names),
}
_TRACKS: Final = {name: track for track in Track for name in (track.value, f"{track.value}_track")}
_BOTH_TRACKS: Final = ("both", "both_tracks")
_MOST_TRACKS: Final = 16

_URL_ALPHABET: Final = str.maketrans("-_", "+/")

_Counter = Annotated[int, msgspec.Meta(gt=-_LARGEST, lt=_LARGEST)]


class _WireMedia(msgspec.Struct, gc=False):  # it can be in no circle
    """The `media` object as nearly every provider writes it."""

    track: Track
    payload: bytes
    chunk: _Counter | None = None
    timestamp: _Counter | None = None


class _WireMessage(msgspec.Struct, rename="camel", gc=False):  # nor can it
    """A whole `media` message; decoding it does JSON, base64 and the integers in one go."""

    event: str
    media: _WireMedia | None = None
    sequence_number: _Counter | None = None
    stream_sid: str | None = None


class _OtherMedia(msgspec.Struct, gc=False):
    """The `media` object of those who name a track otherwise, or not at all."""

    payload: bytes
    track: str | None = None
    chunk: _Counter | None = None
    timestamp: _Counter | None = None


class _OtherMessage(msgspec.Struct, gc=False):
    """A whole `media` message in snake case, or of a track that is named otherwise."""

    event: str
    media: _OtherMedia
    sequence_number: _Counter | None = None
    sequence_camel: _Counter | None = msgspec.field(name="sequenceNumber", default=None)
    stream_sid: str | None = None
    stream_id: str | None = None
    sid_camel: str | None = msgspec.field(name="streamSid", default=None)
    id_camel: str | None = msgspec.field(name="streamId", default=None)


class _StartAlone(msgspec.Struct, rename="camel"):
    """The fields of a `start` object, but for the parameters."""

    stream_sid: str = ""
    account_sid: str = ""
    call_sid: str = ""
    tracks: list[str] = []
    media_format: dict[str, str | int | None] | str | None = None


class _StartMessageAlone(msgspec.Struct, rename="camel"):
    """A start message, the parameters of which are passed over."""

    event: Literal["start"]
    start: _StartAlone
    sequence_number: str | int | None = None
    stream_sid: str = ""


_TOO_DEEP_TO_READ: Final = object()  # in the place of custom parameters
_decode_start_alone = msgspec.json.Decoder(_StartMessageAlone).decode
_decode_quickly = msgspec.json.Decoder(_WireMessage, strict=False).decode
_decode_other_spelling = msgspec.json.Decoder(_OtherMessage, strict=False).decode


def parse(message: bytes | bytearray | memoryview) -> Message:
    """Return the typed form of one message.

    Args:
        message: what one WebSocket message held, UTF-8 text. Nothing of it is referred to later.

    Raises:
        MessageRejected: it is not JSON, not an object, has no event, or lacks what its event
            needs; of a media message it says which chunk it was, and has the audio.
    """
    try:
        wire = _decode_quickly(message)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return _parse_unusual(message)
    media = wire.media
    sequence = wire.sequence_number
    if sequence is None or media is None or wire.event != "media":
        return _parse_unusual(message)
    return Chunk(
        media.track,
        sequence,
        media.chunk,
        media.timestamp,
        media.payload,
        wire.stream_sid or None,
    )


def _parse_unusual(message: bytes | bytearray | memoryview) -> Message:
    """Return the typed form of a message that is not the usual media message."""
    try:
        wire = _decode_other_spelling(message)
    except (ValueError, RecursionError):
        return _parse_carefully(message)
    media = wire.media
    track = _TRACKS.get(media.track or "")
    if wire.event != "media" or (track is None and media.track):
        return _parse_carefully(message)
    sequence = wire.sequence_camel if wire.sequence_number is None else wire.sequence_number
    sid = wire.sid_camel or wire.stream_sid or wire.id_camel or wire.stream_id or None
    if track is not None:
        return Chunk(track, sequence, media.chunk, media.timestamp, media.payload, sid)
    return UntrackedChunk(Track.INBOUND, sequence, media.chunk, media.timestamp, media.payload, sid)


def _bounded(number: int | None) -> int | None:
    return number if number is None or -_LARGEST < number < _LARGEST else None


def _number(value: object) -> int | None:
    """Return a counter written as an integer or as text, or `None` where it is neither."""
    if isinstance(value, str) and len(value) <= _LONGEST_NUMBER:
        try:
            value = int(value)
        except ValueError:
            return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _bounded(value) if type(value) is int else None


def _parse_carefully(message: bytes | bytearray | memoryview) -> Message:
    try:
        document = read_object(message)
    except MessageRejected as rejected:
        if rejected.code != "too_deep":
            raise
        document = _without_parameters(message, rejected)
    event = document.get("event")
    if not isinstance(event, str):
        raise MessageRejected("no_event", "the message has no event")
    parser = _PARSERS.get(event)
    if parser is None:
        return Unknown(event[:100], _sequence_number(_by_name(document)))
    return parser(document)


def _without_parameters(
    message: bytes | bytearray | memoryview, rejected: MessageRejected
) -> dict[str, Any]:
    """Return a start message without the parameters that make it too deep; raise for others."""
    try:
        wire = _decode_start_alone(message)
    except (ValueError, RecursionError):
        raise rejected from None
    document: dict[str, Any] = msgspec.to_builtins(wire)
    document["start"]["customParameters"] = _TOO_DEEP_TO_READ
    return document


def ids(message: bytes) -> tuple[str, str, str]:
    """Return what a message of any event calls its stream, its call and its account.

    Each is empty where the message does not say it.
    """
    try:
        document = read_object(message)
    except MessageRejected:
        return "", "", ""
    return _ids(_by_name(document))


def omitted(sequence_number: int | None) -> bytes:
    """Return what is kept in the place of a message that is not kept."""
    fields: dict[str, Any] = {"event": OMITTED}
    if sequence_number is not None:
        fields["sequenceNumber"] = str(sequence_number)
    return msgspec.json.encode(fields)


def without_keys(parsed: Message, message: bytes, mode: DtmfMode) -> tuple[Message, bytes]:
    """Return a message as it may be kept where keys are not, and its typed form.

    It is written anew, from what is known of it: a digit may stand in it more than once, and in
    an event of another name. What is left of it has its sequence number, so that no message
    seems to be lost.

    Args:
        parsed: What `parse` returned for it.
        message: One WebSocket message, other than media.
        mode: Whether keys are kept, counted or dropped.
    """
    if mode is DtmfMode.KEEP or not isinstance(parsed, DtmfMessage | Unknown):
        return parsed, message
    if mode is DtmfMode.DROP and isinstance(parsed, DtmfMessage):
        return Unknown(OMITTED, parsed.sequence_number), omitted(parsed.sequence_number)
    kept: Message = parsed
    fields: dict[str, Any]
    if isinstance(parsed, Unknown):
        fields = {"event": parsed.event}
    else:
        kept = DtmfMessage(WITHHELD_DIGIT, None, parsed.sequence_number)
        sid, _, _ = ids(message)
        fields = {"event": "dtmf", **({"streamSid": sid} if sid else {})}
        fields["dtmf"] = {"digit": WITHHELD_DIGIT}
    if parsed.sequence_number is not None:
        fields["sequenceNumber"] = str(parsed.sequence_number)
    return kept, msgspec.json.encode(fields)


_OTHERS: Final = (
    ({"type", "serverseq"}, "Genesys AudioHook"),
    ({"eventtype"}, "Bandwidth"),
    ({"samplerate", "mixtype"}, "jambonz"),
    ({"contenttype"}, "Vonage"),
)
"""Whose first message has fields of these names."""


def description(message: bytes) -> tuple[str, str]:
    """Return what a message that is of no media stream looks like, and which call it names."""
    try:
        document = read_object(message)
    except MessageRejected as rejected:
        binary = rejected.code == "not_utf8" or b"\0" in message
        return "binary" if binary else rejected.detail.removeprefix("the message "), ""
    fields = _by_name(document)
    nested = [_by_name(value) for value in document.values() if isinstance(value, dict)]
    calls = [_first_text(names, _ANY_CALL) for names in (fields, *nested)]
    event = _first_text(fields, ("event", "eventtype", "type"))
    looks = f"its event is {event[:40]!r}" if event else "it has no event"
    other = next((name for names, name in _OTHERS if names <= fields.keys()), "")
    return f"{other}, {looks}" if other else looks, next(filter(None, calls), "")


def _by_name(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields by their names without case, hyphens and underscores."""
    return {
        name.replace("_", "").replace("-", "").lower(): value
        for name, value in reversed(fields.items())  # the first of two counts
    }


def _first_text(fields: dict[str, Any], names: tuple[str, ...]) -> str:
    """Return the first field of these names that is a text with something in it."""
    return next((text for name in names if (text := _text(fields.get(name)))), "")


def _ids(fields: dict[str, Any]) -> tuple[str, str, str]:
    stream, call, account = (_first_text(fields, names) for names in _ID_NAMES)
    return stream, call, account


def _sequence_number(fields: dict[str, Any]) -> int | None:
    return _number(fields.get("sequencenumber"))


def _body(document: dict[str, Any], event: str) -> dict[str, Any]:
    body = document.get(event)
    if not isinstance(body, dict):
        raise MessageRejected("no_body", f"the {event} message has no {event} object")
    return body


def _text(value: object) -> str:
    return clipped(value) if isinstance(value, str) else ""


def _connected(document: dict[str, Any]) -> Connected:
    return Connected(_text(document.get("protocol")), _text(document.get("version")))


def _start(document: dict[str, Any]) -> Start:
    outer = _by_name({name: value for name, value in document.items() if name != "event"})
    inner = outer.pop("start", None)
    if not isinstance(inner, dict) and not outer.keys() & _START_FIELDS:
        raise MessageRejected("no_body", "the start message has no start object")
    inner = _by_name(inner) if isinstance(inner, dict) else {}
    fields = {**outer, **inner}
    own, around = _ids(inner), _ids(outer)
    stream_sid, call_sid, account_sid = (a or b for a, b in zip(own, around, strict=True))
    media, refused, detail = _media_format(fields)
    parameters, left_out = _parameters(fields.get("customparameters"))
    findings = [Finding("format_refused", f"{refused}: {detail}")] if refused else []
    findings += [Finding("format_assumed", detail)] if detail and not refused else []
    findings += [Finding("parameters_not_kept", left_out)] if left_out else []
    return Start(
        stream_sid=stream_sid,
        account_sid=account_sid,
        call_sid=call_sid,
        tracks=_tracks(fields.get("tracks")),
        parameters=parameters,
        media_format=media,
        sequence_number=_sequence_number(outer),
        outer_sid=around[0] if around[0] != stream_sid else "",
        refused_format=refused,
        findings=tuple(findings),
    )


def _tracks(wire: object) -> tuple[str, ...]:
    """Return the names of tracks; those of ours in our own spelling."""
    if isinstance(wire, str):
        wire = [*Track] if wire.lower() in _BOTH_TRACKS else [wire]
    names = [_text(name) for name in wire] if isinstance(wire, list) else []
    return tuple(_TRACKS.get(name.lower(), name) for name in names[:_MOST_TRACKS] if name)


def _parameters(wire: object) -> tuple[dict[str, Any], str]:
    """Return the custom parameters, and why they are left out where they are."""
    if wire is _TOO_DEEP_TO_READ:
        return {}, f"custom parameters of more than {MOST_CONTAINERS} lists and objects"
    if not isinstance(wire, dict):
        return {}, ""
    if len(wire) > _LONGEST_PARAMETERS:
        return {}, f"{len(wire)} custom parameters, more than {_LONGEST_PARAMETERS}"
    return {clipped(name): value for name, value in wire.items()}, ""


class _Undecodable(Exception):
    """A format that is named, and that nobody here can decode."""


def _media_format(fields: dict[str, Any]) -> tuple[MediaFormat, str, str]:
    """Return the format, why it cannot be decoded, and what of it had to be assumed, or is said.

    Args:
        fields: those of the start message. The format is an object or a text among them, or its
            parts stand beside the ids.
    """
    wire = fields.get("mediaformat", _any_format(fields))
    named = _by_name(wire) if isinstance(wire, dict) else {}
    if isinstance(wire, str):
        named = {"encoding": wire}
    elif not named:
        named = {name: fields[name] for name in _FORMAT_FIELDS if name in fields}
    encoding = _first_text(named, _ENCODING_NAMES).strip()
    try:
        channels = _count(named, "number of channels", ("channels", "channelcount"))
        if channels not in (None, 1):
            raise _Undecodable(f"unsupported number of channels {channels}")
        rate = _count(named, "sample rate", ("samplerate", "rate"))
        known, rate_named = _encoding(encoding or Encoding.PCMU.value)
        rate = rate or rate_named
        if (rate or _USUAL_RATE) not in SAMPLE_RATES:
            raise _Undecodable(f"unsupported sample rate {rate}")
    except _Undecodable as refused:
        return MediaFormat(), str(refused), f"the start message says {json_text(named)[:300]}"
    missing = [] if encoding else ["mu-law"]
    missing += [] if rate else ["8000 Hz"]
    text = f"the start message does not say it; {' at '.join(missing)} was assumed"
    return MediaFormat(known, rate or _USUAL_RATE, 1), "", text if missing else ""


def _any_format(fields: dict[str, Any]) -> dict[str, Any] | None:
    """Return an object that names an encoding, whatever it is called; parameters are none."""
    others = (value for name, value in fields.items() if name != "customparameters")
    found = (value for value in others if isinstance(value, dict) and _names_encoding(value))
    return next(found, None)


def _names_encoding(value: dict[str, Any]) -> bool:
    return bool(_first_text(_by_name(value), _ENCODING_NAMES))


def _encoding(spelled: str) -> tuple[Encoding, int | None]:
    """Return the encoding of a name, and the rate where the name says one."""
    spelling = _SPELLING.fullmatch(spelled.lower())
    name = _NAMES.get(_PUNCTUATION.sub("", spelling["name"])) if spelling else None
    if spelling is None or name is None:
        raise _Undecodable(f"unsupported encoding {spelled[:40]!r}")
    rate = _RATE.search(spelling["options"])
    return name, int(rate[1] or rate[2]) if rate else None


def _count(named: dict[str, Any], what: str, names: tuple[str, ...]) -> int | None:
    """Return a number that may be missing, but must be one where it is there: never guessed."""
    value = next((named[name] for name in names if named.get(name) is not None), None)
    number = _number(value)
    if value is not None and not number:  # 0 is none, either
        raise _Undecodable(f"unsupported {what} {str(value)[:40]}")
    return number


def _base64(text: str) -> bytes:
    """Return what base64 means, also without padding, in lines, or in the alphabet of URLs.

    Raises:
        ValueError: it is none of it.
    """
    plain = "".join(text.split()).translate(_URL_ALPHABET).rstrip("=")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def _media(document: dict[str, Any]) -> Chunk:
    body, fields = _body(document, "media"), _by_name(document)
    named = _text(body.get("track"))
    track = _TRACKS.get(named.lower()) if named else Track.INBOUND
    counters = (
        _sequence_number(fields),
        _number(body.get("chunk")),
        _number(body.get("timestamp")),
    )
    known = None if track is None else RejectedChunk(track, *counters)
    payload = body.get("payload")
    if not isinstance(payload, str):
        code = "no_payload" if known else UNKNOWN_TRACK
        raise MessageRejected(code, "the media message has no payload", chunk=known)
    try:
        decoded = _base64(payload)
    except (binascii.Error, ValueError):
        raw = payload.encode("utf-8", "replace")
        text = "the payload is not base64"
        raise MessageRejected("bad_base64", text, chunk=known, audio=raw, label=named) from None
    if track is None:
        text = "the media message names no known track"
        raise MessageRejected(UNKNOWN_TRACK, text, audio=decoded, label=named)
    kind = Chunk if named else UntrackedChunk
    return kind(track, *counters, decoded, _ids(fields)[0] or None)


def _dtmf(document: dict[str, Any]) -> DtmfMessage:
    body = _body(document, "dtmf")
    digit = _text(body.get("digit"))
    if not digit:
        raise MessageRejected("bad_digit", "the dtmf message has no digit")
    return DtmfMessage(digit, _number(body.get("duration")), _sequence_number(_by_name(document)))


def _mark(document: dict[str, Any]) -> MarkMessage:
    name = _text(_body(document, "mark").get("name"))
    return MarkMessage(name, _sequence_number(_by_name(document)))


def _stop(document: dict[str, Any]) -> Stop:
    return Stop(_sequence_number(_by_name(document)))


_PARSERS: Final[dict[str, Callable[[dict[str, Any]], Message]]] = {
    "connected": _connected,
    "start": _start,
    "media": _media,
    "dtmf": _dtmf,
    "mark": _mark,
    "stop": _stop,
}
