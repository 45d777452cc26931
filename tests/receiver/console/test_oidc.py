"""Signing in by OpenID Connect, at a provider that others wrote (npm's oidc-provider)."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urljoin

import httpx
import pytest

from receiver.config.settings import Config
from receiver.console.oidc import Provider
from receiver.console.problems import Problem
from receiver.console.who import Role
from tests.receiver.helpers.consoles import Served, serving

PROVIDER: Final = Path(__file__).with_name("oidc_provider.mjs")
INSTALLED: Final = Path(__file__).parents[3] / ".venv-oidc"
SECRET: Final = "a secret of the console"
needs_provider = [
    pytest.mark.needs("node"),
    pytest.mark.skipif(
        not INSTALLED.exists(),
        reason="oidc-provider is not installed: npm install --prefix .venv-oidc oidc-provider@9",
    ),
]


def free_port() -> int:
    """Return a port for a console that its provider must know before."""
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        return int(tcp.getsockname()[1])


@pytest.fixture
def port() -> int:
    """Return the console's port."""
    return free_port()


@pytest.fixture
def issuer(port: int) -> Iterator[str]:
    """Yield the issuer of a provider that runs."""
    callback = f"http://127.0.0.1:{port}/login/oidc/callback"
    command = ("node", str(PROVIDER), str(INSTALLED), callback)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


@pytest.fixture
async def console(tmp_path: Path, port: int, issuer: str) -> AsyncIterator[Served]:
    """Yield a console that knows the provider."""
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    file.chmod(0o600)
    settings = {"oidc_issuer": issuer, "oidc_client_id": "tapreel", "console_port": port}
    async with serving(tmp_path, **settings, oidc_client_secret_file=file) as served:  # type: ignore[arg-type]
        yield served


async def come_back(browser: httpx.AsyncClient, name: str) -> str:
    """Go to the provider, sign in there as somebody, and return where it sends us back to."""
    answer = await browser.get("/login/oidc", params={"next": "/recordings?q=1"})
    assert 303 == answer.status_code
    url = answer.headers["location"]
    for _ in range(12):
        answer = await browser.get(url)
        while answer.is_redirect:
            url = urljoin(str(answer.url), answer.headers["location"])
            if "/login/oidc/callback" in url:
                return url
            answer = await browser.get(url)
        action = re.search(r'action="([^"]+)"', answer.text)
        prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)
        assert action is not None, answer.text
        assert prompt is not None
        form = {"prompt": prompt[1], "login": name, "password": "anything"}
        answer = await browser.post(urljoin(str(answer.url), action[1]), data=form)
        url = urljoin(str(answer.url), answer.headers["location"])
    raise AssertionError(url)


class TestProvider:
    """A real provider, and a browser that keeps cookies."""

    pytestmark = needs_provider

    async def test_an_account_is_opened_by_its_email(self, console: Served) -> None:
        """The page that follows is ours, so that the new cookie is sent with what comes next."""
        console.add("jane@example.com", Role.LISTENER)
        async with console.browser() as browser:
            login = (await browser.get("/login")).text
            assert "/login/oidc" in login
            answer = await browser.get(await come_back(browser, "jane"))
            assert 200 == answer.status_code
            assert "/recordings?q=1" in answer.text
            me = (await browser.get("/api/v1/me")).json()
            assert {"name": "jane@example.com", "role": "listener", "parameters": {}} == me

    @pytest.mark.parametrize(
        ("name", "problem"), [("nobody", "no account"), ("unverified", "no usable email")]
    )
    async def test_who_has_no_account_is_refused(
        self, console: Served, name: str, problem: str
    ) -> None:
        """Nor is an address believed that the provider has not verified."""
        console.add("unverified@example.com", Role.ADMIN)
        async with console.browser() as browser:
            answer = await browser.get(await come_back(browser, name))
            assert 403 == answer.status_code
            assert problem in answer.text
            assert 401 == (await browser.get("/api/v1/me")).status_code

    async def test_an_answer_is_good_once_and_in_one_browser(self, console: Served) -> None:
        """So nobody is signed in to somebody else's account, and no code is used twice."""
        console.add("jane@example.com", Role.LISTENER)
        async with console.browser() as browser, console.browser() as other:
            url = await come_back(browser, "jane")
            assert 400 == (await other.get(url)).status_code
            begun = await come_back(browser, "jane")
            assert 200 == (await browser.get(begun)).status_code
            assert 400 == (await browser.get(begun)).status_code
            answer = await browser.get("/login/oidc/callback", params={"state": "x", "code": "y"})
            assert 400 == answer.status_code


@pytest.mark.integration
async def test_without_a_provider_there_is_no_such_page(served: Served) -> None:
    """And the sign-in page does not offer it."""
    async with served.browser() as browser:
        assert "/login/oidc" not in (await browser.get("/login")).text
        for path in ("/login/oidc", "/login/oidc/callback"):
            assert 404 == (await browser.get(path)).status_code


@pytest.mark.integration
async def test_a_provider_that_is_away_is_an_error_of_its_own() -> None:
    """Nobody waits for ever, and the page says what is wrong."""
    url = f"http://127.0.0.1:{free_port()}"
    provider = Provider(Config(oidc_issuer=url, oidc_client_id="x"), SECRET)
    with pytest.raises(Problem) as refused:
        await provider.start("http://x/callback", "/")
    assert 503 == refused.value.status


async def test_a_sign_in_that_was_not_begun_is_refused() -> None:
    """Whatever the browser says."""
    provider = Provider(Config(oidc_issuer="https://x", oidc_client_id="x"), SECRET)
    for words in ({}, {"state": "a", "code": "b"}):
        with pytest.raises(Problem, match="not begun here"):
            await provider.finish(words, "a", "http://x/callback")
