"""Client and simulated provider against our description of the provider's API.

A mock is built from the description alone, without any code of this project, so both sides are
held against the same text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest

from starter.client import StreamClient
from starter.config import Credentials
from starter.errors import RefusedError, RejectedError
from starter.models import CallbackMethod, Codec, StreamRequest, Target, Track
from starter.simulator.live_stream import LiveStream, SimulatedCalls
from starter.simulator.provider import describe
from starter.simulator.provider_rules import Refusal, invalid
from starter.simulator.stream_info import Identity
from starter.validation import MAX_PARAMETERS
from tests.starter.conftest import API_TOKEN, CALL_SID, PROJECT_ID
from tests.starter.openapi import Description, property_of, read_description

SPACE = "https://example.signalwire.com"
TWILIO_CALL_SID, TWILIO_CONFERENCE_SID = "CA" + "0" * 32, "CF" + "0" * 32


@pytest.fixture(scope="module")
def description() -> Description:
    """Our description of the provider's API."""
    return read_description()


def client(description: Description, api_token: str = API_TOKEN) -> StreamClient:
    """A client of the mock."""
    answer = partial(description.mock, project_id=PROJECT_ID, api_token=API_TOKEN)
    transport = httpx.MockTransport(answer)
    return StreamClient(Credentials(PROJECT_ID, SPACE, api_token), transport=transport)


def full_request(**more: Any) -> StreamRequest:
    """A request with every field that the description lists."""
    return StreamRequest(
        url="wss://rec.example.com/audio",
        name="mine",
        track=Track.INBOUND,
        parameters={"FirstName": "Jané", "LastName": ""},
        status_callback="https://h.example/events",
        status_callback_method=CallbackMethod.GET,
        bearer_token="bearer-token-of-the-tests",
        **more,
    )


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of a document."""
    if isinstance(node, dict):
        yield node
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(part)


def test_the_description_is_whole(description: Description) -> None:
    """OpenAPI 3.1: it has its head, references lead somewhere, and names are used once."""
    document = description.document
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version"} <= document["info"].keys()
    for node in nodes(document):
        if "$ref" in node:
            assert description.follow(node)
        if "required" in node and "properties" in node:
            assert set(node["required"]) <= node["properties"].keys()
    schemes = document["components"]["securitySchemes"]
    assert all(scheme.keys() <= schemes.keys() for scheme in document["security"])
    ids = [item["post"]["operationId"] for item in document["paths"].values()]
    assert len(ids) == len(set(ids)) == 4


def test_every_path_has_its_parameters_and_answers(description: Description) -> None:
    """Each name in a path is described, and each operation has the answers of the provider."""
    for path, item in description.document["paths"].items():
        parameters = [description.follow(parameter) for parameter in item["parameters"]]
        assert re.findall(r"\{(\w+)\}", path) == [p["name"] for p in parameters]
        assert all(p["required"] and p["in"] == "path" for p in parameters)
        answers = item["post"]["responses"]
        assert ["200", "400", "401", "404", "422", "503"] == list(answers)
        assert all(description.follow(answer)["description"] for answer in answers.values())


def test_the_words_of_the_client_are_those_of_the_description(description: Description) -> None:
    """Tracks, methods, codecs, and how many custom parameters there can be."""
    schema = description.schema("StartConferenceStream")
    for kind, name in (
        (Track, "Track"),
        (CallbackMethod, "StatusCallbackMethod"),
        (Codec, "StreamCodec"),
    ):
        assert [member.value for member in kind] == schema["properties"][name]["enum"]
    numbers = [n for n in range(200) if property_of(schema, f"Parameter{n}.Value")]
    assert list(range(1, MAX_PARAMETERS + 1)) == numbers


async def test_the_mock_accepts_start_and_stop(description: Description) -> None:
    """Nothing unknown, nothing missing; the example answers become handles."""
    async with client(description) as streams:
        started = await streams.start(CALL_SID, full_request())
        stopped = await streams.stop(CALL_SID, "mine")

    assert "case-4711" == started.name == stopped.name
    assert "7d56cc11-0000-4000-8000-00000000call" == started.sid
    assert "2018-09-19 21:00:00+00:00" == str(started.date_updated)


async def test_the_mock_accepts_conferences(description: Description) -> None:
    """With codec and real time; the month of the example date has four letters."""
    async with client(description) as streams:
        request = full_request(codec=Codec.L16_24000, real_time=True)
        started = await streams.start_conference(CALL_SID, request)
        await streams.stop_conference(CALL_SID, CALL_SID)

    assert "7d56cc11-0000-4000-8000-000000000003" == started.conference_sid
    assert None is started.name
    assert "2018-09-25 20:00:00+00:00" == str(started.date_updated)


async def test_the_mocks_errors_are_understood(description: Description) -> None:
    """The mock is strict, and both forms of its errors have their class."""
    async with client(description, "wrong") as stranger:
        with pytest.raises(RefusedError) as refused:
            await stranger.start(CALL_SID, full_request())
    async with client(description) as streams:
        with pytest.raises(RejectedError) as of_call:  # no UUID, as with Twilio
            await streams.start(TWILIO_CALL_SID, full_request())
        with pytest.raises(RejectedError) as of_conference:
            await streams.start_conference(TWILIO_CONFERENCE_SID, full_request())

    assert 20003 == refused.value.code == of_call.value.code
    assert "Url must be wss" == of_conference.value.message


@pytest.mark.parametrize(
    ("value", "faults"),
    [
        ({"Url": "wss://x"}, []),
        ({"Url": "wss://x", "Parameter99.Name": "n", "Parameter99.Value": ""}, []),
        ({}, ["Url is missing"]),
        ({"Url": 1}, ["1 is no string"]),
        ({"Url": "wss://x", "Track": "both"}, ["'both' not in enum"]),
        ({"Url": "wss://x", "Parameter100.Name": "n"}, ["Parameter100.Name is unknown"]),
        ({"Url": "wss://x", "StreamCodec": "PCMU"}, ["StreamCodec is unknown"]),
    ],
)
def test_the_checker_finds_faults(
    description: Description, value: dict[str, Any], faults: list[str]
) -> None:
    """The tests of the simulated provider would be worth nothing if it found none."""
    assert faults == description.faults(value, description.schema("StartCallStream"))


@pytest.mark.parametrize(
    ("schema", "request_", "form"),
    [
        ("CallStream", full_request(), "Calls"),
        ("CallStream", StreamRequest(url="/a"), "Calls"),
        ("ConferenceStream", full_request(), "Conferences"),
        ("ConferenceStream", StreamRequest(url="/a"), "Conferences"),
    ],
)
def test_the_simulated_provider_answers_by_the_description(
    description: Description, schema: str, request_: StreamRequest, form: str
) -> None:
    """Its streams have exactly the described fields, with real UUIDs."""
    identity = Identity(PROJECT_ID, CALL_SID, "7d56cc11-0000-4000-8000-000000000003")
    calls = SimulatedCalls.__new__(SimulatedCalls)  # describing a stream needs nothing of it
    stream = LiveStream(request_, identity, Target(form), calls)

    assert [] == description.faults(describe(stream), description.schema(schema))


@pytest.mark.parametrize("form", ["Calls", "Conferences"])
def test_the_simulated_provider_refuses_by_the_description(
    description: Description, form: str
) -> None:
    """401, 404 and 422 have exactly the fields that the description gives each kind."""
    error = description.schema("Error")
    broken_rule = error if form == "Calls" else description.schema("Errors")

    for status in (401, 404):
        body = Refusal(status, 20003, "no").reply().body
        assert [] == description.faults(body, error)
    assert [] == description.faults(invalid(Target(form), "no").reply().body, broken_rule)
