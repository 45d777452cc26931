"""The description of the API (OpenAPI 3.1), made from the rows of its table; pure but for msgspec.

An `Operation` is a row: the same object routes a request, reads its body, and is described.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from receiver import __version__
from receiver.console.problems import PROBLEM_JSON
from receiver.console.who import Role

API: Final = "/api/v1"
_REFS: Final = "#/components/schemas/{name}"
_PATH_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_CONVERTER: Final = ":path"  # of Starlette's: the word may have a slash in it


class ProblemDocument(msgspec.Struct, frozen=True):
    """An error (RFC 9457); `request_id` finds it in the log."""

    title: str
    status: int
    detail: str
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing that a program can ask for.

    `result` and `body` are types of msgspec's; `media` is what the answer is where it is no JSON,
    and `query` describes the words of the URL. `errors` are the statuses that it may have beside
    those that every operation may have.
    """

    method: str
    path: str  # below `API`
    summary: str
    handler: Callable[..., Awaitable[Response]]
    role: Role | None
    is_unlimited: bool = False
    body: Any = None
    result: Any = None
    status: int = 200
    media: tuple[str, ...] = ()
    query: tuple[Mapping[str, Any], ...] = ()
    errors: tuple[int, ...] = ()

    @property
    def described_path(self) -> str:
        """Return its path as OpenAPI has it."""
        return self.path.replace(_CONVERTER, "")

    @property
    def identity(self) -> str:
        """Return its id in the description."""
        words = re.findall(r"\w+", self.described_path)
        return "_".join([self.method.lower(), *words])


def query_word(name: str, description: str, **schema: Any) -> dict[str, Any]:
    """Return the description of a word in the URL."""
    schema = schema or {"type": "string"}
    return {"name": name, "in": "query", "description": description, "schema": schema}


def document(operations: Iterable[Operation], path_words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI document of these operations.

    Args:
        operations: All that there are.
        path_words: The schema of each word that stands in a path.
    """
    operations = tuple(operations)
    types = [t for o in operations for t in (o.body, o.result) if t is not None]
    schemas, components = msgspec.json.schema_components(
        [*types, ProblemDocument], ref_template=_REFS
    )
    found = dict(zip(map(id, [*types, ProblemDocument]), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        at = paths.setdefault(f"{API}{operation.described_path}", {})
        at[operation.method.lower()] = _described(operation, found, path_words)
    return {
        "openapi": "3.1.0",
        "info": {"title": "tapreel", "version": __version__},
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "`receiver user token NAME` prints one.",
                }
            },
        },
    }


def _described(
    operation: Operation, schemas: Mapping[int, Any], path_words: Mapping[str, Any]
) -> dict[str, Any]:
    names = _PATH_PARAMETER.findall(operation.described_path)
    words = [
        {"name": name, "in": "path", "required": True, "schema": path_words[name]} for name in names
    ]
    described: dict[str, Any] = {
        "operationId": operation.identity,
        "summary": operation.summary,
        "parameters": [*words, *operation.query],
        "responses": _responses(operation, schemas),
    }
    if operation.role is None:
        described["security"] = []
    else:
        described["description"] = f"Needs the role {operation.role}."
    if operation.body is not None:
        schema = schemas[id(operation.body)]
        content = {"application/json": {"schema": schema}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _responses(operation: Operation, schemas: Mapping[int, Any]) -> dict[str, Any]:
    good: dict[str, Any] = {"description": HTTPStatus(operation.status).phrase}
    if operation.result is not None:
        good["content"] = {"application/json": {"schema": schemas[id(operation.result)]}}
    elif operation.media:
        good["content"] = {media: {} for media in operation.media}
    problem = {"schema": schemas[id(ProblemDocument)]}
    errors = {400, 429, 503, *operation.errors}
    errors |= set() if operation.role is None else {401, 403}
    errors |= {413, 415} if operation.body is not None else set()
    return {
        str(operation.status): good,
        **({"206": {**good, "description": "Part of it"}} if operation.media else {}),
        **({"304": {"description": "Not Modified"}} if operation.media else {}),
        **{
            str(status): {
                "description": HTTPStatus(status).phrase,
                "content": {PROBLEM_JSON: problem},
            }
            for status in sorted(errors)
        },
    }


async def body_of(request: Request, kind: Any) -> Any:
    """Return the body of a request, which is JSON of this type.

    Raises:
        ValueError: it is not; the text says what is wrong.
    """
    return msgspec.json.decode(await request.body(), type=kind)
