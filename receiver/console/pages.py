"""The pages for people; each has a JSON twin, and lists are CSV, too."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request

from receiver.console.context import who_asks
from receiver.console.routes import page
from receiver.console.who import Role


async def _home(request: Request) -> dict[str, Any]:
    who = who_asks(request)
    return {"user": who.name, "role": who.role}


ENDPOINTS: Final = (*page("/", "home.html", Role.VIEWER, _home),)
