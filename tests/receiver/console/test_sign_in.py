"""Signing in and out, and who a request is from, on a real socket."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.catalogue import database
from receiver.console.sign_in import own_path
from receiver.console.who import Role
from tests.receiver.helpers.consoles import PASSWORD, Served, serving

pytestmark = pytest.mark.integration


async def test_a_password_signs_in(served: Served) -> None:
    """The cookie is for this host, and for no script."""
    served.console.accounts.add("jane", Role.VIEWER, {}, password=PASSWORD)
    async with served.browser() as browser:
        form = {"name": "Jane", "password": PASSWORD, "next": "/?page=2"}
        answer = await browser.post("/login", data=form)
        assert (303, "/?page=2") == (answer.status_code, answer.headers["location"])
        cookie = answer.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
        assert PASSWORD not in cookie
        page = await browser.get("/")
        assert 200 == page.status_code
        assert "jane" in page.text
        assert 303 == (await browser.get("/login")).status_code


async def test_nobody_is_said_to_have_signed_in_who_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while the database is locked, nor by a session that the ledger does not have."""
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    form = {"name": "jane", "password": PASSWORD}
    async with serving(tmp_path) as served, served.browser() as browser:
        console, recordings = served.console, tmp_path / "recordings"
        console.accounts.add("jane", Role.VIEWER, {}, password=PASSWORD)
        with contextlib.closing(sqlite3.connect(recordings / database.FOLDER / database.FILE)) as o:
            await served.settled()
            o.execute("BEGIN IMMEDIATE")
            assert 503 == (await browser.post("/login", data=form)).status_code
        assert [] == [entry.what for entry in console.ledger.read()]
        assert 303 == (await browser.post("/login", data=form)).status_code
        assert ["signed_in"] == [entry.what for entry in console.ledger.read()]
        (recordings / ".ledger").rename(recordings / ".moved")
        (recordings / ".ledger").write_text("in the way")
        assert 503 == (await browser.post("/login", data=form)).status_code
        assert 1 == len(console.sessions.of("jane"))


async def test_wrong_passwords_get_one_answer_and_are_slowed_down(served: Served) -> None:
    """Whether there is such an account is not said."""
    served.console.accounts.add("jane", Role.VIEWER, {}, password=PASSWORD)
    async with served.browser() as browser:
        texts = set()
        for name in ("jane", "nobody"):
            answer = await browser.post("/login", data={"name": name, "password": "wrong"})
            assert 401 == answer.status_code
            assert "set-cookie" not in answer.headers
            texts.add(answer.text)
        assert 1 == len(texts)
        for _ in range(4):
            await browser.post("/login", data={"name": "jane", "password": "wrong"})
        answer = await browser.post("/login", data={"name": "jane", "password": PASSWORD})
        assert (429, "30") == (answer.status_code, answer.headers["retry-after"])


async def test_a_link_signs_in_once(served: Served) -> None:
    """The second time the page says why not."""
    served.add("jane", Role.VIEWER)
    code = served.console.accounts.make_link("jane")
    async with served.browser() as browser, served.browser() as other:
        assert 303 == (await browser.post("/login/code", data={"code": code})).status_code
        assert 200 == (await browser.get("/")).status_code
        answer = await other.post("/login/code", data={"code": code})
        assert 401 == answer.status_code
        assert "used already" in answer.text


async def test_who_is_not_signed_in_is_sent_to_sign_in_and_back(served: Served) -> None:
    """A program gets a problem document instead."""
    async with served.browser() as browser:
        answer = await browser.get("/", headers={"Accept": "text/html"})
        assert (303, "/login") == (answer.status_code, answer.headers["location"])
        answer = await browser.get("/.json")
        assert (401, "application/problem+json") == (
            answer.status_code,
            answer.headers["content-type"],
        )
        assert "Bearer" in answer.headers["www-authenticate"]


async def test_a_token_is_who_asks_whatever_the_cookie_says(served: Served) -> None:
    """A bad one is refused, although the cookie is good."""
    headers = served.token("program", Role.VIEWER)
    served.add("jane", Role.ADMIN)
    async with await served.signed_in("jane") as browser:
        assert "jane" == (await browser.get("/api/v1/me")).json()["name"]
        assert "program" == (await browser.get("/api/v1/me", headers=headers)).json()["name"]
        for bad in ("Bearer tapreel_" + "x" * 43, "Basic amFuZTp4", "Bearer", "", "Bearer ü"):
            sent = {"Authorization": bad.encode("latin-1")}
            assert 401 == (await browser.get("/.json", headers=sent)).status_code  # type: ignore[arg-type]
        twice = [("Authorization", headers["Authorization"])] * 2
        assert 401 == (await browser.get("/.json", headers=twice)).status_code


async def test_signing_out_ends_the_session_and_everywhere_ends_all(served: Served) -> None:
    """A copied cookie is worth nothing afterwards."""
    served.add("jane", Role.VIEWER)
    opened = [await served.signed_in("jane") for _ in range(3)]
    async with opened[0] as first, opened[1] as second, opened[2] as third:
        copied = dict(first.cookies)
        assert 303 == (await first.post("/logout", data={"csrf": await csrf_of(first)})).status_code
        async with served.browser(cookies=copied) as thief:
            assert 401 == (await thief.get("/.json")).status_code
        csrf = await csrf_of(second)
        everywhere = await second.post("/logout/everywhere", data={"csrf": csrf})
        assert 303 == everywhere.status_code
        assert 401 == (await third.get("/.json")).status_code


async def csrf_of(browser: httpx.AsyncClient) -> str:
    """Return the token in the forms of a page."""
    page = await browser.get("/")
    return str(page.text.partition('name="csrf" value="')[2].partition('"')[0])


@pytest.mark.parametrize(
    ("text", "path"),
    [
        *(("/recordings?q=1", "/recordings?q=1"), ("", "/"), ("recordings", "/")),
        *(("//evil.example", "/"), ("/\\evil.example", "/"), ("https://evil.example", "/")),
        *(("/a\\b", "/"), ("/\n", "/"), ("javascript:alert(1)", "/"), ("/\t/evil.example", "/")),
    ],
)
def test_signing_in_leads_to_no_other_site(text: str, path: str) -> None:
    """Whatever the link says."""
    assert path == own_path(text)


async def test_a_proxy_names_the_user_in_a_header(tmp_path: Path) -> None:
    """Of an account that there is, and once."""
    settings: dict[str, Any] = {"behind_proxy": True, "console_user_header": "x-user"}
    async with serving(tmp_path, **settings) as served, served.browser() as browser:
        served.add("jane", Role.MANAGER)
        answer = await browser.get("/api/v1/me", headers={"X-User": "Jane"})
        assert ("jane", "manager") == (answer.json()["name"], answer.json()["role"])
        unknown = await browser.get("/.json", headers={"X-User": "john"})
        assert 403 == unknown.status_code
        assert "ask an admin" in unknown.json()["detail"]
        twice = [("X-User", "jane"), ("X-User", "jane")]
        assert 403 == (await browser.get("/.json", headers=twice)).status_code
        assert 401 == (await browser.get("/.json")).status_code


async def test_the_header_is_believed_of_the_proxy_only(tmp_path: Path) -> None:
    """Of nobody where it was not configured."""
    settings: dict[str, Any] = {
        "behind_proxy": True,
        "console_user_header": "x-user",
        "trusted_proxy": ("192.0.2.1",),
    }
    async with serving(tmp_path, **settings) as served, served.browser() as browser:
        served.add("jane", Role.MANAGER)
        assert 401 == (await browser.get("/.json", headers={"X-User": "jane"})).status_code
    async with serving(tmp_path) as served, served.browser() as browser:
        assert 401 == (await browser.get("/.json", headers={"X-User": "jane"})).status_code
