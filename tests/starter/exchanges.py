"""A provider for tests of the REST client: answers in turn, and keeps the requests."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import httpx

from starter.client import StreamClient
from starter.config import Credentials
from tests.starter.conftest import API_TOKEN, PROJECT_ID

Answer = httpx.Response | Exception


class Exchange:
    """A provider: gives the answers in turn, and keeps requests and waits."""

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []
        self._answers = list(answers)
        self._credentials = Credentials(PROJECT_ID, "https://x.example", API_TOKEN)

    @property
    def forms(self) -> list[dict[str, str]]:
        """The forms of all requests."""
        return [dict(parse_qsl(request.content.decode())) for request in self.requests]

    def client(self, **settings: Any) -> StreamClient:
        """A client of this exchange and does not really wait."""
        return StreamClient(
            self._credentials,
            transport=httpx.MockTransport(self._answer),
            sleep=self._wait,
            dice=lambda: 1.0,
            **settings,
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _wait(self, seconds: float) -> None:
        self.waits.append(seconds)
