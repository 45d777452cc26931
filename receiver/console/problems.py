"""Errors as problem documents (RFC 9457), and the responses that carry them.

A `Problem` is raised wherever a request cannot be answered; the text is for who asked, says what
can be done, and never repeats a secret.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.requests import HTTPConnection
from starlette.responses import Response

PROBLEM_JSON: Final = "application/problem+json"


class Problem(Exception):
    """A request that cannot be answered; `status` is the answer's."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members

    @property
    def title(self) -> str:
        """The status in words."""
        return HTTPStatus(self.status).phrase

    def document(self, request_id: str) -> dict[str, Any]:
        """Return the problem document; `type` is left at its default, about:blank."""
        return {
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
            **self.members,
        }


def not_found() -> Problem:
    """Return the answer to what does not exist, or does not for who asks."""
    return Problem(404, "There is nothing at this address, or nothing that you may see.")


def too_many(seconds: float) -> Problem:
    """Return the answer to who asks too often, and when to come again."""
    wait = max(1, round(seconds))
    text = f"Too many requests: try again in {wait} s."
    return Problem(429, text, headers={"Retry-After": str(wait)})


def wants_document(connection: HTTPConnection) -> bool:
    """Return whether an error is to be a problem document, and not a page."""
    path = connection.url.path
    if path.startswith("/api/") or path.endswith((".json", ".csv")):
        return True
    accepted = connection.headers.get("accept", "*/*")
    return "text/html" not in accepted and "json" in accepted


def problem_response(problem: Problem, request_id: str) -> Response:
    """Return the problem document as a response."""
    return Response(
        json.dumps(problem.document(request_id), ensure_ascii=False),
        problem.status,
        problem.headers,
        PROBLEM_JSON,
    )
