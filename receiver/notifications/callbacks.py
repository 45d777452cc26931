"""Status callbacks of providers: what they say of a stream, and whether a provider said it. Pure.

A signature is the HMAC of the URL as the provider called it and what came with it. Providers differ
in all of it, and have changed it: SHA-1 or SHA-256, hexadecimal or Base64, of the form's names and
values in the order of the names or of the body as it came, with the port in the URL or without it.
Each of these needs the key, so each is accepted.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import msgspec

PROVIDERS: Final = ("signalwire", "twilio")
SIGNATURE_HEADERS: Final = ("x-signalwire-signature", "x-twilio-signature")
MOST_FIELDS: Final = 100
STARTED: Final = "stream-started"
STOPPED: Final = "stream-stopped"
ERROR: Final = "stream-error"
_BODY_HASH: Final = "bodySHA256"
_PORTS: Final = {"https": 443, "http": 80}
_HASHES: Final = (hashlib.sha1, hashlib.sha256)
_FORM: Final = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class StreamCallback:
    """What a provider says of a stream; `error` is its word for what went wrong."""

    event: str
    call_sid: str
    stream_sid: str
    name: str
    error: str


def fields_of(content_type: str, body: bytes) -> dict[str, str]:
    """Return the fields of a callback's body: a form, or an object of JSON.

    Raises:
        ValueError: it is neither, or has too many.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == _FORM:
        pairs = parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
        return dict(pairs)
    if kind == "application/json":
        found = msgspec.json.decode(body, type=dict[str, str | int | float | bool | None])
        return {name: "" if value is None else str(value) for name, value in found.items()}
    raise ValueError("it is neither a form nor JSON")


def callback_of(fields: Mapping[str, str]) -> StreamCallback:
    """Return what the fields of a callback mean.

    Raises:
        ValueError: they name no event, or neither stream nor call.
    """
    values = {name.replace("_", "").lower(): value.strip() for name, value in fields.items()}
    event, call_sid = values.get("streamevent", ""), values.get("callsid", "")
    stream_sid, name = values.get("streamsid", ""), values.get("streamname", "")
    if not event or not (call_sid or stream_sid):
        raise ValueError("it names no StreamEvent, or neither StreamSid nor CallSid")
    return StreamCallback(event, call_sid, stream_sid, name, values.get("streamerror", ""))


def is_signed(
    given: Iterable[str],
    keys: Collection[bytes],
    *,
    public_url: str,
    target: str,
    content_type: str,
    body: bytes,
) -> bool:
    """Whether one of some signatures is right.

    Args:
        given: The values of the headers.
        keys: The provider's signing keys, or auth tokens.
        public_url: Where the provider reaches us: scheme, host, perhaps a port.
        target: The path that it asked for, with its query.
        content_type: Of the body.
        body: As it came.
    """
    signatures = [signature.strip().encode() for signature in given if signature.strip()]
    contents = [
        content
        for url in urls_of(public_url, target)
        for content in _contents(url, content_type, body)
    ]
    # Each is compared, whether one was right or not: the time says nothing.
    right = [
        hmac.compare_digest(signature, expected)
        for key in keys
        for content in contents
        for expected in _expected(key, content)
        for signature in signatures
    ]
    return any(right)


def urls_of(public_url: str, target: str) -> tuple[str, ...]:
    """Return the URLs that a provider may have signed: with the port, and without it."""
    parts = urlsplit(public_url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = parts.port or _PORTS.get(parts.scheme, 0)
    return f"{parts.scheme}://{host}{target}", f"{parts.scheme}://{host}:{port}{target}"


def _contents(url: str, content_type: str, body: bytes) -> Iterator[bytes]:
    """Yield what is signed: the URL, and the body in one of its forms."""
    start = url.encode()
    yield start + body
    if content_type.partition(";")[0].strip().lower() == _FORM:
        pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
        yield start + "".join(name + value for name, value in sorted(pairs)).encode()
    given = dict(parse_qsl(urlsplit(url).query)).get(_BODY_HASH, "")
    if given and given.lower() == hashlib.sha256(body).hexdigest():
        yield start  # the hash of the body is a part of the URL


def _expected(key: bytes, content: bytes) -> Iterator[bytes]:
    for kind in _HASHES:
        digest = hmac.new(key, content, kind).digest()
        yield base64.b64encode(digest)
        yield digest.hex().encode()
