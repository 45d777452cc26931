"""Client and stand-in against the provider's own OpenAPI description.

A mock is built from the description alone: it knows nothing of this project, so both sides are held
against the same outside text. The description lies beside the clone; without it these are skipped.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote
from uuid import UUID

import httpx
import pytest
import yaml

from starter.client import StreamClient
from starter.config import Credentials
from starter.errors import RefusedError, RejectedError
from starter.models import CallbackMethod, Codec, StreamRequest, Target, Track
from starter.simulator.live_stream import LiveStream, SimulatedCalls
from starter.simulator.provider import describe
from starter.simulator.provider_rules import Refusal, invalid
from starter.simulator.stream_info import Identity
from tests.starter.conftest import API_TOKEN, CALL_SID, PROJECT_ID

_PLACE = Path("shared/spec/signalwire-streams.openapi.yaml")
DESCRIPTION = Path(__file__).parents[2].parent / _PLACE
SPACE = "https://example.signalwire.com"

pytestmark = pytest.mark.skipif(not DESCRIPTION.exists(), reason=f"needs {_PLACE} beside the clone")


@dataclass
class Description:
    """The parsed description, with its references resolved as they are met."""

    document: dict[str, Any]

    def follow(self, node: dict[str, Any]) -> dict[str, Any]:
        """The node, or what it refers to, with `allOf` folded in."""
        while "$ref" in node:
            target: Any = self.document
            for step in node["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            node = target
        for part in node.get("allOf", []):
            node = self.follow(part) | {k: v for k, v in node.items() if k != "allOf"}
        return node

    def faults(self, value: object, schema: dict[str, Any], *, uuids: bool = True) -> list[str]:
        """Where a value breaks its schema. `uuids` False overlooks that its examples are none."""
        schema = self.follow(schema)
        if "anyOf" in schema:
            each = [self.faults(value, part, uuids=uuids) for part in schema["anyOf"]]
            return min(each, key=len)
        kinds = {
            "string": str,
            "integer": int,
            "boolean": bool,
            "null": type(None),
            "array": list,
            "object": dict,
        }
        if not isinstance(value, kinds[schema["type"]]):
            return [f"{value!r} is no {schema['type']}"]
        found = [f"{value!r} not in enum"] * (value not in schema.get("enum", [value]))
        if uuids and schema.get("format") == "uuid" and not is_uuid(str(value)):
            found.append(f"{value!r} is no UUID")
        for item in value if isinstance(value, list) else []:
            found += self.faults(item, schema["items"], uuids=uuids)
        if isinstance(value, dict):
            found += self._object_faults(value, schema, uuids=uuids)
        return found

    def _object_faults(
        self, value: dict[str, Any], schema: dict[str, Any], *, uuids: bool
    ) -> list[str]:
        known = schema["properties"]
        found = [f"{name} is missing" for name in schema.get("required", []) if name not in value]
        if schema.get("unevaluatedProperties") == {"not": {}}:
            found += [f"{name} is unknown" for name in value if name not in known]
        for name in known.keys() & value.keys():
            found += self.faults(value[name], known[name], uuids=uuids)
        return found

    def example(self, schema: dict[str, Any]) -> Any:
        """An example object of a schema, made of the examples of its properties."""
        schema = self.follow(schema)
        if schema.get("type") == "object":
            properties = schema["properties"]
            return {name: self.example(part) for name, part in properties.items()}
        return (schema.get("examples") or schema.get("enum") or ["x"])[0]

    def mock(self, request: httpx.Request) -> httpx.Response:
        """Answer a request by the description: an example, or the error that fits."""
        path = request.url.raw_path.decode().removeprefix("/api/laml/2010-04-01")
        for template, methods in self.document["paths"].items():
            match = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template), path)
            if match and request.method.lower() in methods:
                operation = methods[request.method.lower()]
                values = {name: unquote(text) for name, text in match.groupdict().items()}
                return self._answer(operation, request, values)
        return self._reply({}, 404)

    def _answer(
        self, operation: dict[str, Any], request: httpx.Request, values: dict[str, str]
    ) -> httpx.Response:
        pair = b64encode(f"{PROJECT_ID}:{API_TOKEN}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {pair}":
            return self._reply(operation, 401)
        (kind, body), *_ = operation["requestBody"]["content"].items()
        schema = self.follow(body["schema"])
        form: dict[str, Any] = dict(parse_qsl(request.content.decode(), keep_blank_values=True))
        for name in form.keys() & schema["properties"].keys():
            if schema["properties"][name]["type"] == "boolean":
                form[name] = json.loads(form[name])
        found = self.faults(form, schema)
        for parameter in map(self.follow, operation["parameters"]):
            found += self.faults(values[parameter["name"]], parameter["schema"])
        if request.headers["Content-Type"] != kind or found:
            return self._reply(operation, 422)
        return self._reply(operation, 200)

    def _reply(self, operation: dict[str, Any], status: int) -> httpx.Response:
        if not operation:
            return httpx.Response(status)
        content = operation["responses"][str(status)]["content"]["application/json"]
        return httpx.Response(status, json=self.example(content["schema"]))


def is_uuid(text: str) -> bool:
    """Whether the text is written as UUIDs are."""
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


@pytest.fixture(scope="module")
def description() -> Description:
    """The provider's description."""
    return Description(yaml.safe_load(DESCRIPTION.read_text()))


def client(description: Description, api_token: str = API_TOKEN) -> StreamClient:
    """A client whose provider is the mock."""
    transport = httpx.MockTransport(description.mock)
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


async def test_the_mock_accepts_start_and_stop(description: Description) -> None:
    """Nothing unknown, nothing missing; the example answers become handles."""
    async with client(description) as asking:
        started = await asking.start(CALL_SID, full_request())
        stopped = await asking.stop(CALL_SID, CALL_SID)

    assert "my_first_stream" == started.name == stopped.name
    assert (2018, "+00:00") == (
        getattr(started.date_updated, "year", None),
        str(started.date_updated)[-6:],
    )


async def test_the_mock_accepts_conferences(description: Description) -> None:
    """With codec and real time; their example date says Sept."""
    async with client(description) as asking:
        request = full_request(codec=Codec.L16_24000, real_time=True)
        started = await asking.start_conference(CALL_SID, request)
        await asking.stop_conference(CALL_SID, CALL_SID)

    assert "b3877c40-da60-4998-90ad-b792e98472cf" == started.conference_sid
    assert 9 == getattr(started.date_updated, "month", None)


async def test_the_mocks_errors_are_understood(description: Description) -> None:
    """The mock is strict, and both forms of its errors have their class."""
    async with client(description, "wrong") as stranger:
        with pytest.raises(RefusedError) as refused:
            await stranger.start(CALL_SID, full_request())
    async with client(description) as asking:
        with pytest.raises(RejectedError) as rejected:
            # the description names the first two parameters only
            await asking.start_conference(
                CALL_SID, StreamRequest(url="/a", parameters={"a": "", "b": "", "c": ""})
            )

    assert 20003 == refused.value.code
    assert "Validation error message" == rejected.value.message


@pytest.mark.parametrize(
    ("schema", "request_", "form"),
    [
        ("CallStreamResponse", full_request(), "Calls"),
        ("CallStreamResponse", StreamRequest(url="/a"), "Calls"),
        ("ConferenceStreamResponse", full_request(), "Conferences"),
        ("ConferenceStreamResponse", StreamRequest(url="/a"), "Conferences"),
    ],
)
def test_the_simulated_provider_answers_by_the_description(
    description: Description, schema: str, request_: StreamRequest, form: str
) -> None:
    """Its streams have exactly the described fields, with real UUIDs."""
    identity = Identity(PROJECT_ID, CALL_SID, "7d56cc11-0000-4000-8000-000000000003")
    calls = SimulatedCalls.__new__(SimulatedCalls)  # describing a stream needs nothing of it
    stream = LiveStream(request_, identity, Target(form), calls)
    schemas = description.document["components"]["schemas"]

    assert [] == description.faults(describe(stream), schemas[schema])


@pytest.mark.parametrize("form", ["Calls", "Conferences"])
def test_the_simulated_provider_refuses_by_the_description(
    description: Description, form: str
) -> None:
    """401, 404 and 422 have exactly the fields that the description gives each kind."""
    schemas = description.document["components"]["schemas"]
    errors = schemas["CompatibilityErrorResponse"]
    texts = schemas["CompatibilityErrorStringArrayResponse"]
    invalid_schema = errors if form == "Calls" else texts

    assert [] == description.faults(Refusal(401, 20003, "no").reply().body, errors)
    assert [] == description.faults(invalid(Target(form), "no").reply().body, invalid_schema)
