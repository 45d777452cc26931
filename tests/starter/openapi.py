"""An OpenAPI description as a schema checker and as a mock of the provider."""

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
import yaml

DESCRIPTION = Path(__file__).with_name("provider.openapi.yaml")
API_PATH = "/api/laml/2010-04-01"
_TYPES: dict[str, type] = {
    "string": str,
    "integer": int,
    "boolean": bool,
    "null": type(None),
    "array": list,
    "object": dict,
}


@dataclass
class Description:
    """A parsed description, with its references resolved as they are met.

    Of JSON Schema it has what descriptions of this API use: `type`, `enum`, `format: uuid`,
    `items`, `properties`, `patternProperties`, `required`, `unevaluatedProperties: false`.
    """

    document: dict[str, Any]

    def follow(self, node: dict[str, Any]) -> dict[str, Any]:
        """The node, or what it refers to."""
        while "$ref" in node:
            target: Any = self.document
            for step in node["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            node = target
        return node

    def schema(self, name: str) -> dict[str, Any]:
        """A schema of the components by its name."""
        schema: dict[str, Any] = self.document["components"]["schemas"][name]
        return schema

    def faults(self, value: object, schema: dict[str, Any]) -> list[str]:
        """Where a value breaks its schema."""
        schema = self.follow(schema)
        types = types_of(schema)
        if not any(type(value) is _TYPES[name] for name in types):
            return [f"{value!r} is no {' or '.join(types)}"]
        found = [f"{value!r} not in enum"] * (value not in schema.get("enum", [value]))
        if schema.get("format") == "uuid" and not is_uuid(str(value)):
            found.append(f"{value!r} is no UUID")
        for item in value if isinstance(value, list) else []:
            found += self.faults(item, schema["items"])
        if isinstance(value, dict):
            found += self._object_faults(value, schema)
        return found

    def _object_faults(self, value: dict[str, Any], schema: dict[str, Any]) -> list[str]:
        found = [f"{name} is missing" for name in schema.get("required", []) if name not in value]
        for name, item in value.items():
            part = property_of(schema, name)
            if part is not None:
                found += self.faults(item, part)
            elif schema.get("unevaluatedProperties") is False:
                found.append(f"{name} is unknown")
        return found

    def example(self, schema: dict[str, Any]) -> Any:
        """An example object of a schema, made of the examples of its properties."""
        schema = self.follow(schema)
        if schema["type"] == "object":
            properties = schema["properties"]
            return {name: self.example(part) for name, part in properties.items()}
        return (schema.get("examples") or schema["enum"])[0]

    def mock(self, request: httpx.Request, project_id: str, api_token: str) -> httpx.Response:
        """Answer a request by the description: an example, or the error that fits."""
        path = request.url.raw_path.decode().removeprefix(API_PATH)
        for template, methods in self.document["paths"].items():
            match = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template), path)
            if match and request.method.lower() in methods:
                operation = methods[request.method.lower()]
                values = {name: unquote(text) for name, text in match.groupdict().items()}
                basic = b64encode(f"{project_id}:{api_token}".encode()).decode()
                if request.headers.get("Authorization") != f"Basic {basic}":
                    return self._reply(operation, 401)
                found = self._path_faults(methods["parameters"], values)
                found += self._form_faults(operation, request)
                return self._reply(operation, 422 if found else 200)
        return httpx.Response(404)

    def _path_faults(self, parameters: list[dict[str, Any]], values: dict[str, str]) -> list[str]:
        found = []
        for parameter in map(self.follow, parameters):
            found += self.faults(values[parameter["name"]], parameter["schema"])
        return found

    def _form_faults(self, operation: dict[str, Any], request: httpx.Request) -> list[str]:
        ((kind, body),) = operation["requestBody"]["content"].items()
        if request.headers["Content-Type"] != kind:
            return [f"the body is no {kind}"]
        schema = self.follow(body["schema"])
        form: dict[str, Any] = dict(parse_qsl(request.content.decode(), keep_blank_values=True))
        for name in form.keys() & schema["properties"].keys():
            if types_of(schema["properties"][name]) == ["boolean"]:
                form[name] = json.loads(form[name])
        return self.faults(form, schema)

    def _reply(self, operation: dict[str, Any], status: int) -> httpx.Response:
        response = self.follow(operation["responses"][str(status)])
        schema = response["content"]["application/json"]["schema"]
        return httpx.Response(status, json=self.example(schema))


def read_description(path: Path = DESCRIPTION) -> Description:
    """Our description of the provider's API, or another."""
    return Description(yaml.safe_load(path.read_text("utf-8")))


def types_of(schema: dict[str, Any]) -> list[str]:
    """The types that a schema allows."""
    types: str | list[str] = schema["type"]
    return [types] if isinstance(types, str) else types


def property_of(schema: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The schema of a property, or None if the object has none of this name."""
    if part := schema.get("properties", {}).get(name):
        found: dict[str, Any] = part
        return found
    patterns = schema.get("patternProperties", {})
    return next((part for pattern, part in patterns.items() if re.search(pattern, name)), None)


def is_uuid(text: str) -> bool:
    """Whether the text is written as UUIDs are."""
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
