"""Status callbacks and their signatures."""

import asyncio
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from starter.errors import UnreachableError
from starter.models import CallbackMethod
from starter.simulator.callbacks import Callback, sign
from tests.starter.web_hooks import web_hook

KEY = "12345"


def test_the_documented_signatures() -> None:
    """Both vectors of the provider's documentation."""
    fields = {
        "CallSid": "CA1234567890ABCDE",
        "Caller": "+14158675309",
        "Digits": "1234",
        "From": "+14158675309",
        "To": "+18005551212",
    }

    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    assert "RSOYDt4T1cUTdK1PDd93/VVr8B8=" == sign(KEY, url, fields.items())
    assert "bW5fMGmOicROaZH0qa2UXqhDht8=" == sign(KEY, "wss://rec.example.com/stream")


@pytest.mark.integration
async def test_a_post_carries_a_signed_form() -> None:
    """The fields are the body, and the signature covers URL and fields."""
    async with web_hook() as hook:
        callback = Callback(f"{hook.url}/e?x=1", CallbackMethod.POST, KEY)
        await asyncio.to_thread(callback.send, {"StreamEvent": "stream-started", "CallSid": "c"})
    method, path, headers, form = hook.seen[0]

    assert ("POST", "/e?x=1") == (method, path)
    assert {"StreamEvent": "stream-started", "CallSid": "c"} == form
    assert sign(KEY, f"{hook.url}/e?x=1", form.items()) == headers["X-SignalWire-Signature"]
    assert KEY not in repr(callback)
    assert hook.url not in repr(callback)  # for it may hold a password


@pytest.mark.integration
@pytest.mark.parametrize(
    ("path", "query"),
    [("", "CallSid=c&StreamName=a+b"), ("/e?x=1", "x=1&CallSid=c&StreamName=a+b")],
)
async def test_a_get_carries_the_fields_in_its_query(path: str, query: str) -> None:
    """The query is added to the one that is there, and the signature covers the whole URL."""
    async with web_hook() as hook:
        callback = Callback(f"{hook.url}{path}", CallbackMethod.GET, KEY)
        await asyncio.to_thread(callback.send, {"StreamName": "a b", "CallSid": "c"})
    method, sent, headers, form = hook.seen[0]
    joint = "&" if "?" in path else "?"
    signed = f"{hook.url}{path}{joint}CallSid=c&StreamName=a+b"

    assert ("GET", query, {}) == (method, urlsplit(sent).query, form)
    assert sign(KEY, signed) == headers["X-SignalWire-Signature"]


@pytest.mark.integration
async def test_without_a_key_nothing_is_signed() -> None:
    """The header is optional."""
    async with web_hook() as hook:
        await asyncio.to_thread(Callback(hook.url, CallbackMethod.POST).send, {"a": "b"})

    assert "X-SignalWire-Signature" not in hook.seen[0][2]


@pytest.mark.integration
async def test_a_failing_hook_is_reported() -> None:
    """An error status, and no server at all."""
    async with web_hook("500 Oh") as hook:
        callback = Callback(hook.url, CallbackMethod.POST)
        with pytest.raises(UnreachableError, match="answered with HTTP 500"):
            await asyncio.to_thread(callback.send, {})
    with pytest.raises(UnreachableError, match="callback failed"):
        await asyncio.to_thread(callback.send, {})


@pytest.mark.integration
@pytest.mark.parametrize("url", ["http://127.0.0.1:1/ü", "http://[::1%25]/ü", "http://[::1%25]/"])
def test_a_url_that_fits_no_request_line_is_reported(url: str) -> None:
    """Characters that HTTP cannot carry are a failure like any other."""
    with pytest.raises(UnreachableError, match="callback failed"):
        Callback(url, CallbackMethod.POST).send({})


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://[::1]/e", ("::1", 80)),
        ("https://[::1]", ("::1", 443)),
        ("http://[::1]:8080", ("::1", 8080)),
        ("https://h.example", ("h.example", 443)),
    ],
)
def test_a_url_without_a_port_goes_to_the_schemes_own(
    monkeypatch: pytest.MonkeyPatch, url: str, address: tuple[str, int]
) -> None:
    """Also where the host is an IPv6 address, which has colons of its own."""
    dialled = []

    def refuse(address: tuple[str, int], *_: object) -> None:
        dialled.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(UnreachableError):
        Callback(url, CallbackMethod.POST).send({})

    assert [address] == dialled


@pytest.mark.integration
def test_https_is_tried_with_tls(unused_port: Callable[[], int]) -> None:
    """An https hook is not called in the clear."""
    callback = Callback(f"https://127.0.0.1:{unused_port()}/", CallbackMethod.POST)
    with pytest.raises(UnreachableError, match="callback failed"):
        callback.send({})
