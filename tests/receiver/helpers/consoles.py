"""A console on a real socket of this process, and people who ask it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from receiver.config.settings import Config
from receiver.console.accounts import User
from receiver.console.app import Rates
from receiver.console.context import Console
from receiver.console.server import Runner
from receiver.console.who import Role
from tests.bounds import at_most

PASSWORD = "correct horse battery"
UNLIMITED = Rates(1e6, 1e6)


class Served:
    """A console that serves, at `url`."""

    def __init__(self, runner: Runner, url: str) -> None:
        self.runner = runner
        self.console: Console = runner.console
        self.url = url

    def add(self, name: str, role: Role, scope: dict[str, str] | None = None) -> User:
        """Add an account without a password: its hash would take longer than the test."""
        return self.console.accounts.add(name, role, scope or {})

    def token(self, name: str, role: Role, scope: dict[str, str] | None = None) -> dict[str, str]:
        """Add an account, and return the header with which a program of it asks."""
        self.add(name, role, scope)
        return {"Authorization": f"Bearer {self.console.tokens.make(name)[0]}"}

    async def settled(self) -> None:
        """Wait until the catalogue has every recording that is there."""
        await asyncio.to_thread(self.console.catalogue.reconcile)

    def browser(self, **options: Any) -> httpx.AsyncClient:
        """Return a client that keeps cookies, and follows nothing by itself."""
        timeout = httpx.Timeout(at_most(20))
        return httpx.AsyncClient(base_url=self.url, timeout=timeout, **options)

    async def signed_in(self, name: str) -> httpx.AsyncClient:
        """Return a client with a session of an account, opened by a link."""
        code = self.console.accounts.make_link(name)
        async with self.browser() as browser:
            answer = await browser.post("/login/code", data={"code": code})
            assert 303 == answer.status_code
            return self.browser(cookies=browser.cookies)


async def send_form(
    browser: httpx.AsyncClient, path: str, **fields: str | list[str]
) -> httpx.Response:
    """Send a form as a page of ours does, with the page's own token."""
    page = (await browser.get("/help", headers={"Accept": "text/html"})).text
    token = page.split('name="csrf" content="')[1].split('"')[0]
    return await browser.post(path, data={"csrf": token, **fields})


@contextlib.asynccontextmanager
async def serving(
    folder: Path, *, rates: Rates = UNLIMITED, **settings: Any
) -> AsyncIterator[Served]:
    """Serve a console of these settings, without TLS and on a free port."""
    config = replace(Config(), **{"no_tls": True, "console_port": 0, **settings})
    config = replace(config, recordings=folder / "recordings", state=folder / "state")
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    runner = Runner(config, listening.set_result, rates=rates)
    task = asyncio.create_task(runner.run())
    task.add_done_callback(lambda _: listening.cancel())  # it did not start
    try:
        async with asyncio.timeout(at_most(20)):
            url = await listening
        yield Served(runner, url)
    finally:
        runner.stop()
        await task
        runner.close()
