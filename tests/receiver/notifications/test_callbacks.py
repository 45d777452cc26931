"""Callbacks of providers: their published signatures, what is forged, what they mean."""

from __future__ import annotations

import base64
import hashlib
import hmac
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.notifications.callbacks import (
    StreamCallback,
    callback_of,
    fields_of,
    is_signed,
    urls_of,
)

FORM = "application/x-www-form-urlencoded"
KEY = b"12345"
FIELDS = {
    "CallSid": "CA1234567890ABCDE",
    "Caller": "+14158675309",
    "Digits": "1234",
    "From": "+14158675309",
    "To": "+18005551212",
}
BODY = urlencode(FIELDS).encode()
PUBLISHED = "RSOYDt4T1cUTdK1PDd93/VVr8B8="
TARGET = "/myapp.php?foo=1&bar=2"
URL = "https://mycompany.com"


def signed(signature: str, **changed: object) -> bool:
    """Return whether a signature of the published example is right, or of a changed one."""
    options = {"public_url": URL, "target": TARGET, "content_type": FORM, "body": BODY}
    keys = changed.pop("keys", [KEY])
    return is_signed([signature], keys, **{**options, **changed})  # type: ignore[arg-type]


def digest(content: str | bytes, kind: str = "sha1", key: bytes = KEY) -> bytes:
    """Return the HMAC of a content."""
    return hmac.new(key, content if isinstance(content, bytes) else content.encode(), kind).digest()


def test_the_published_example_is_right() -> None:
    """Twilio's own."""
    assert signed(PUBLISHED)
    assert signed(PUBLISHED, keys=[b"other", KEY])
    assert signed(PUBLISHED, content_type=f"{FORM}; charset=utf-8")


@pytest.mark.parametrize(
    "changed",
    [
        {"body": BODY.replace(b"1234&", b"1235&")},
        {"body": b""},
        {"body": BODY + b"&Extra=1"},
        {"target": "/myapp.php?foo=1&bar=3"},
        {"target": "/other"},
        {"public_url": "http://mycompany.com"},
        {"public_url": "https://mycompany.com.evil.example"},
        {"keys": [b"12346"]},
        {"keys": []},
    ],
)
def test_what_was_changed_or_forged_is_refused(changed: dict[str, object]) -> None:
    """Body, path, host, scheme, key: all of it is signed."""
    assert not signed(PUBLISHED, **changed)


@pytest.mark.parametrize("port", ["", ":443"])
@pytest.mark.parametrize("kind", ["sha1", "sha256"])
@pytest.mark.parametrize("is_hex", [False, True])
@pytest.mark.parametrize("is_raw", [False, True])
def test_every_way_to_sign_is_accepted(port: str, kind: str, is_hex: bool, is_raw: bool) -> None:
    """With the port or without; whichever hash, in either spelling, of the form or the body."""
    rest = BODY.decode() if is_raw else "".join(k + v for k, v in sorted(FIELDS.items()))
    made = digest(f"{URL}{port}{TARGET}{rest}", kind)
    assert signed(made.hex() if is_hex else base64.b64encode(made).decode())


def test_a_body_of_json_is_signed_by_its_hash_in_the_url() -> None:
    """As Twilio does it; a hash of another body helps nobody."""
    body = b'{"StreamEvent":"stream-started"}'
    target = f"/callbacks/twilio?bodySHA256={hashlib.sha256(body).hexdigest()}"
    signature = base64.b64encode(digest(f"{URL}{target}")).decode()
    options = {"target": target, "content_type": "application/json"}
    assert signed(signature, body=body, **options)
    assert not signed(signature, body=body + b" ", **options)


@pytest.mark.parametrize(
    ("public_url", "urls"),
    [
        ("https://a.example", ("https://a.example/x", "https://a.example:443/x")),
        ("http://a.example", ("http://a.example/x", "http://a.example:80/x")),
        ("https://a.example:8444", ("https://a.example/x", "https://a.example:8444/x")),
        ("https://[::1]:8444", ("https://[::1]/x", "https://[::1]:8444/x")),
    ],
)
def test_the_urls_that_may_be_signed(public_url: str, urls: tuple[str, str]) -> None:
    """Behind a proxy the port is the proxy's."""
    assert urls == urls_of(public_url, "/x")


@given(st.text(max_size=100), st.binary(max_size=100))
def test_no_signature_of_chance_is_right(signature: str, body: bytes) -> None:
    """Nor does one make an error."""
    assert not signed(signature, body=body)


def test_what_a_callback_says() -> None:
    """Names are compared without case and underscores, since providers differ."""
    fields = {
        "StreamEvent": "stream-error",
        "CallSid": "c",
        "StreamSid": "s",
        "StreamName": "n",
        "StreamError": "codec_error",
    }
    found = StreamCallback("stream-error", "c", "s", "n", "codec_error")
    assert found == callback_of(fields_of(FORM, urlencode(fields).encode()))
    spelled = {"stream_event": "stream-error", "call_sid": "c", "stream_sid": "s"}
    assert "stream-error" == callback_of(spelled).event
    as_json = b'{"StreamEvent":"stream-started","CallSid":"c","Timestamp":1,"StreamError":null}'
    assert StreamCallback("stream-started", "c", "", "", "") == callback_of(
        fields_of("application/json", as_json)
    )


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (FORM, b""),
        (FORM, b"StreamEvent=stream-started"),
        (FORM, b"CallSid=c"),
        (FORM, b"\xff=\xfe"),
        (FORM, b"&".join(b"a%d=1" % number for number in range(200))),
        ("application/json", b"[]"),
        ("application/json", b'{"StreamEvent":{"a":1}}'),
        ("text/plain", b"StreamEvent=stream-started&CallSid=c"),
    ],
)
def test_what_is_no_callback_is_refused(content_type: str, body: bytes) -> None:
    """With one error, whatever it is."""
    with pytest.raises(ValueError, match=r"."):
        callback_of(fields_of(content_type, body))
