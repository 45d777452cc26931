"""The rules of the REST API, without a socket."""

from base64 import b64encode
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starter.models import CallbackMethod, Codec, StreamRequest, Target, Track
from starter.simulator.provider_rules import (
    Account,
    Address,
    HttpRequest,
    Refusal,
    check_caller,
    check_stop,
    read_address,
    read_form,
    read_stream_request,
)
from tests.starter.conftest import API_TOKEN, CALL_SID, PROJECT_ID

ACCOUNT = Account(PROJECT_ID, API_TOKEN)
BASE = f"/api/laml/2010-04-01/Accounts/{PROJECT_ID}"
URL = "wss://rec.example.com/audio"
TOKEN = "bearer-token-of-the-tests"


def http_request(
    path: str = f"{BASE}/Calls/{CALL_SID}/Streams",
    *,
    method: str = "POST",
    user: str = PROJECT_ID,
    password: str = API_TOKEN,
    body: bytes = b"",
    content_type: str | None = "application/x-www-form-urlencoded",
) -> HttpRequest:
    """A valid request, with the changes of the test."""
    basic = "Basic " + b64encode(f"{user}:{password}".encode()).decode()
    return HttpRequest(method, path, basic, content_type, body)


def test_the_right_caller_passes() -> None:
    """Project id and API token are user and password."""
    check_caller(http_request(), ACCOUNT)


@pytest.mark.parametrize(
    "request_",
    [
        http_request(password="wrong"),
        http_request(user="wrong"),
        HttpRequest("POST", "/", None, None, b""),
        HttpRequest("POST", "/", f"Bearer {API_TOKEN}", None, b""),
        HttpRequest("POST", "/", "Basic ü", None, b""),
    ],
)
def test_another_caller_is_refused(request_: HttpRequest) -> None:
    """401 with the provider's code, and no secret in a repr."""
    with pytest.raises(Refusal) as caught:
        check_caller(request_, ACCOUNT)

    assert (401, 20003) == (caught.value.status, caught.value.code)
    assert API_TOKEN not in repr(ACCOUNT)
    assert "Basic" not in repr(http_request())


@pytest.mark.parametrize(
    ("path", "address"),
    [
        (f"{BASE}/Calls/{CALL_SID}/Streams", Address(Target.CALL, CALL_SID, None)),
        (f"{BASE}/Calls/{CALL_SID}/Streams/a%2Fb", Address(Target.CALL, CALL_SID, "a/b")),
        (f"{BASE}/Conferences/{CALL_SID}/Streams", Address(Target.CONFERENCE, CALL_SID, None)),
    ],
)
def test_paths_name_what_they_are_about(path: str, address: Address) -> None:
    """Calls, conferences, and streams of them with escaped names."""
    assert address == read_address(http_request(path), ACCOUNT)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (http_request("/"), 404),
        (http_request(f"{BASE}/Calls/{CALL_SID}/Streams.json"), 404),
        (http_request(f"{BASE}/Calls/{CALL_SID}/Streams/"), 404),
        (http_request(f"{BASE}/Calls/{CALL_SID}/Recordings"), 404),
        (http_request(f"{BASE}/Calls/xyz/Streams"), 404),
        (http_request(f"/api/laml/2010-04-01/Accounts/other/Calls/{CALL_SID}/Streams"), 404),
        (http_request(method="GET"), 405),
    ],
)
def test_other_paths_are_refused(request_: HttpRequest, status: int) -> None:
    """What is not there is 404, and streams cannot be listed."""
    with pytest.raises(Refusal) as caught:
        read_address(request_, ACCOUNT)
    assert status == caught.value.status


def test_forms_are_read_as_utf_8() -> None:
    """Empty values count, and text of any language survives."""
    body = urlencode({"Url": URL, "Parameter1.Name": "größe", "Parameter1.Value": ""}).encode()
    form = read_form(
        http_request(body=body, content_type="Application/x-www-form-urlencoded; charset=utf-8"),
        Target.CALL,
    )

    assert {"Url": URL, "Parameter1.Name": "größe", "Parameter1.Value": ""} == form


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (http_request(content_type="application/json", body=b"{}"), 400),
        (http_request(content_type=None), 400),
        (http_request(body=b"Url"), 400),
        (http_request(body=b"Url=%ff"), 400),
        (http_request(body=b"Url=\xff"), 400),
        (http_request(body=b"a=1&" * 300), 400),
        (http_request(body=b"Url=a&Url=b"), 422),
    ],
)
def test_other_bodies_are_refused(request_: HttpRequest, status: int) -> None:
    """Anything that is no form, and a form with a field twice."""
    with pytest.raises(Refusal) as caught:
        read_form(request_, Target.CALL)
    assert status == caught.value.status


def test_a_full_order_is_understood() -> None:
    """Every field of the description ends up in its place."""
    request = StreamRequest(
        url=URL,
        name="mine",
        track=Track.OUTBOUND,
        parameters={"FirstName": "Jané", "x": ""},
        status_callback="https://h.example/e",
        status_callback_method=CallbackMethod.GET,
        bearer_token=TOKEN,
        codec=Codec.L16,
        real_time=True,
    )

    assert request == read_stream_request(dict(request.form(Target.CONFERENCE)), Target.CONFERENCE)


def test_an_order_has_defaults() -> None:
    """Only the URL is needed."""
    assert StreamRequest(url=URL) == read_stream_request({"Url": URL}, Target.CALL)


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ({}, "Url is required"),
        ({"Url": "ws://rec.example.com"}, "must be wss"),
        ({"Url": f"{URL}?x=1"}, "query"),
        ({"Url": f" {URL}"}, "31922"),
        ({"Url": URL, "Track": "both"}, "Track must be one of"),
        ({"Url": URL, "StatusCallbackMethod": "PUT"}, "StatusCallbackMethod must be"),
        ({"Url": URL, "Codec": "L16"}, "Unknown field Codec"),
        ({"Url": URL, "StreamCodec": "L16"}, "Unknown field StreamCodec"),
        ({"Url": URL, "Parameter100.Name": "x"}, "Unknown field Parameter100.Name"),
        ({"Url": URL, "Parameter01.Name": "x"}, "Unknown field Parameter01.Name"),
        ({"Url": URL, "Parameter1.Value": "x"}, "Parameter1 has a Value but no Name"),
        ({"Url": URL, "AuthorizationBearerToken": "a b"}, "bearer token"),
    ],
)
def test_other_orders_are_refused(form: dict[str, str], why: str) -> None:
    """422 for everything that breaks the description."""
    with pytest.raises(Refusal, match=why) as caught:
        read_stream_request(form, Target.CALL)
    body = caught.value.reply().body

    assert ["code", "message", "more_info", "status"] == sorted(body)
    assert 422 == body["status"]


def test_what_the_description_allows_is_taken() -> None:
    """A parameter without a value is an empty one; a token may be short, or empty for none."""
    form = {"Url": URL, "Parameter2.Name": "x", "AuthorizationBearerToken": "abc"}
    order = read_stream_request(form, Target.CALL)
    assert ({"x": ""}, "abc") == (order.parameters, order.bearer_token)
    assert (
        read_stream_request(form | {"AuthorizationBearerToken": ""}, Target.CALL).bearer_token
        is None
    )


@pytest.mark.parametrize("extra", [{"StreamCodec": "OPUS"}, {"StreamRealTime": "yes"}])
def test_conference_orders_are_refused_in_their_own_form(extra: dict[str, str]) -> None:
    """Conferences answer 422 with a list of texts."""
    with pytest.raises(Refusal) as caught:
        read_stream_request({"Url": URL} | extra, Target.CONFERENCE)
    body = caught.value.reply().body

    assert ["errors"] == list(body)
    assert isinstance(body["errors"][0], str)


@pytest.mark.parametrize("form", [{}, {"Status": "paused"}, {"Status": "stopped", "x": "y"}])
def test_the_only_change_is_to_stop(form: dict[str, str]) -> None:
    """A stream cannot be paused, or renamed."""
    check_stop({"Status": "stopped"}, Target.CALL)
    with pytest.raises(Refusal):
        check_stop(form, Target.CALL)


@given(st.binary(max_size=200), st.sampled_from(list(Target)))
def test_any_body_is_an_order_or_a_refusal(body: bytes, target: Target) -> None:
    """No body makes the rules fail in another way."""
    found: StreamRequest | Refusal
    try:
        found = read_stream_request(read_form(http_request(body=body), target), target)
    except Refusal as refusal:
        found = refusal
    assert isinstance(found, StreamRequest) or found.reply().status in (400, 422)
