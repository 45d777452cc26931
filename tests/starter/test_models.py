"""Requests and their forms."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starter.errors import InvalidRequestError
from starter.models import (
    CallbackMethod,
    Codec,
    StreamRequest,
    Target,
    Track,
    masked,
    member,
)

URL = "wss://rec.example.com/audio"
TOKEN = "bearer-token-of-the-tests"


def test_the_smallest_request_says_which_track() -> None:
    """Track is always sent, because its default differs between interfaces."""
    assert [("Url", URL), ("Track", "both_tracks")] == StreamRequest(url=URL).form()


def test_a_full_request_has_every_field() -> None:
    """All fields of a conference stream, in the provider's spelling."""
    request = StreamRequest(
        url=URL,
        name="mine",
        track=Track.INBOUND,
        parameters={"FirstName": "Jané", "x": ""},
        status_callback="https://h.example/events",
        status_callback_method=CallbackMethod.GET,
        bearer_token=TOKEN,
        codec=Codec.L16_16000,
        real_time=False,
    )

    assert {
        "Url": URL,
        "Track": "inbound_track",
        "Name": "mine",
        "StatusCallback": "https://h.example/events",
        "StatusCallbackMethod": "GET",
        "StreamCodec": "L16@16000h",
        "StreamRealTime": "false",
        "AuthorizationBearerToken": TOKEN,
        "Parameter1.Name": "FirstName",
        "Parameter1.Value": "Jané",
        "Parameter2.Name": "x",
        "Parameter2.Value": "",
    } == dict(request.form(Target.CONFERENCE))


@pytest.mark.parametrize("fields", [{"codec": Codec.PCMU}, {"real_time": True}])
def test_conference_settings_do_not_fit_a_call(fields: dict[str, Any]) -> None:
    """The provider offers codec and real time for conferences only."""
    with pytest.raises(InvalidRequestError, match="conferences only"):
        StreamRequest(url=URL, **fields).form(Target.CALL)


def test_plain_texts_become_members() -> None:
    """Values may be given as the provider writes them."""
    fields: dict[str, Any] = {
        "track": "outbound_track",
        "status_callback_method": "GET",
        "codec": "L16@24000h",
    }
    request = StreamRequest(url=URL, **fields)

    assert Track.OUTBOUND is request.track
    assert CallbackMethod.GET is request.status_callback_method
    assert Codec.L16_24000 is request.codec


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"url": "ws://rec.example.com"}, "must be wss"),
        ({"name": ""}, "name is empty"),
        ({"track": "both"}, "the track must be one of inbound_track, outbound_track, both_tracks"),
        ({"status_callback": "ftp://x"}, "status callback"),
        ({"status_callback_method": "PUT"}, "the callback method"),
        ({"bearer_token": "a b"}, "bearer token"),
        ({"codec": "OPUS"}, "the codec"),
        ({"parameters": {"": "x"}}, "no name"),
    ],
)
def test_a_broken_rule_stops_the_request_from_being_made(fields: dict[str, Any], why: str) -> None:
    """Nothing can be sent that was not checked."""
    with pytest.raises(InvalidRequestError, match=why):
        StreamRequest(**({"url": URL} | fields))


def test_secrets_do_not_show() -> None:
    """Neither token nor callback password is in the repr or the masked form."""
    request = StreamRequest(
        url=URL, bearer_token=TOKEN, status_callback="https://me:hunter22@h.example/x"
    )
    shown = repr(request) + str(masked(request.form()))

    assert TOKEN not in shown
    assert "hunter22" not in shown
    assert ("StatusCallback", "https://***@h.example/x") in masked(request.form())
    assert ("AuthorizationBearerToken", "***") in masked(request.form())


@given(st.dictionaries(st.text(min_size=1).filter(str.strip), st.text(), max_size=99))
def test_parameters_are_numbered_in_order(parameters: dict[str, str]) -> None:
    """Every parameter has a name field and a value field with the same number, from 1."""
    try:
        request = StreamRequest(url=URL, parameters=parameters)
    except InvalidRequestError:
        return
    form = dict(request.form())

    assert list(parameters.items()) == [
        (form[f"Parameter{number}.Name"], form[f"Parameter{number}.Value"])
        for number in range(1, len(parameters) + 1)
    ]


def test_a_request_does_not_follow_its_source() -> None:
    """Changing the mapping afterwards changes nothing that was checked."""
    parameters = {"a": "1"}
    request = StreamRequest(url=URL, parameters=parameters)
    parameters[""] = "2"

    assert {"a": "1"} == request.parameters
    assert {"a": "1"} == replace(request, name="x").parameters


def test_targets_know_their_sids() -> None:
    """Calls and conferences have prefixes of their own."""
    assert "CA" + "0" * 32 == Target.CALL.check_sid("CA" + "0" * 32)
    with pytest.raises(InvalidRequestError, match="the conference sid"):
        Target.CONFERENCE.check_sid("CA" + "0" * 32)


def test_an_unknown_member_lists_what_there_is() -> None:
    """The refusal helps to write it right."""
    with pytest.raises(InvalidRequestError, match="must be one of GET, POST, not 'get'"):
        member(CallbackMethod, "get", "the method")
