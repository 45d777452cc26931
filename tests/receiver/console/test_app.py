"""What is asked of every request before its handler: headers, limits, roles, forms of ours."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from receiver.console.app import MOST_BODY_BYTES, Rates, endpoints
from receiver.console.routes import Endpoint
from receiver.console.who import Role
from tests.receiver.helpers.consoles import Served, serving

pytestmark = pytest.mark.integration


async def test_every_answer_has_the_headers_that_protect(served: Served) -> None:
    """Pages, errors, and what the framework answers by itself."""
    served.add("jane", Role.VIEWER)
    async with await served.signed_in("jane") as browser:
        for path in ("/", "/.json", "/nowhere", "/login", "/static/x/console.css", "/healthz"):
            headers = (await browser.get(path)).headers
            policy = headers["content-security-policy"]
            assert policy.startswith("default-src 'none'")
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert "DENY" == headers["x-frame-options"]
            assert "nosniff" == headers["x-content-type-options"]
            assert 16 == len(headers["x-request-id"])
            assert "server" not in headers
            assert "cache-control" in headers
        assert "no-store" == (await browser.get("/")).headers["cache-control"]


async def test_an_error_is_a_page_or_a_problem_document(served: Served) -> None:
    """By who asks; both have the id that the log has."""
    served.add("jane", Role.VIEWER)
    async with await served.signed_in("jane") as browser:
        page = await browser.get("/nowhere", headers={"Accept": "text/html,*/*"})
        assert 404 == page.status_code
        assert page.headers["x-request-id"] in page.text
        for path, accept in (("/api/nowhere", "*/*"), ("/x.json", "*/*"), ("/x", "text/json")):
            answer = await browser.get(path, headers={"Accept": accept})
            problem = answer.json()
            assert (404, 404, "Not Found") == (
                answer.status_code,
                problem["status"],
                problem["title"],
            )
            assert answer.headers["x-request-id"] == problem["request_id"]


async def test_a_wrong_method_is_told_which_are_right(served: Served) -> None:
    """RFC 9110 wants it in Allow."""
    async with served.browser() as browser:
        answer = await browser.delete("/login")
        assert (405, "GET, HEAD, POST") == (answer.status_code, answer.headers["allow"])
        assert 200 == (await browser.head("/login")).status_code


async def test_a_form_of_another_site_changes_nothing(served: Served) -> None:
    """Without our token, with another site's Origin, or sent across sites."""
    served.add("jane", Role.VIEWER)
    async with await served.signed_in("jane") as browser:
        page = await browser.get("/")
        csrf = page.text.partition('name="csrf" value="')[2].partition('"')[0]
        forged: tuple[tuple[dict[str, str], dict[str, str]], ...] = (
            ({}, {}),
            ({"csrf": "0" * 32}, {}),
            ({"csrf": csrf}, {"Origin": "https://evil.example"}),
            ({"csrf": csrf}, {"Origin": "null"}),
            ({"csrf": csrf}, {"Sec-Fetch-Site": "cross-site"}),
            ({"csrf": csrf}, {"Sec-Fetch-Site": "same-site"}),
        )
        for form, headers in forged:
            assert 403 == (await browser.post("/logout", data=form, headers=headers)).status_code
        as_json = await browser.post("/logout", json={"csrf": csrf})
        assert 403 == as_json.status_code
        assert 200 == (await browser.get("/")).status_code
        headers = {"Origin": served.url.rstrip("/"), "Sec-Fetch-Site": "same-origin"}
        headers["X-CSRF-Token"] = csrf
        assert 303 == (await browser.post("/logout", headers=headers)).status_code


async def test_nobody_is_signed_in_by_another_site(served: Served) -> None:
    """Which could make somebody work in an account that is not theirs."""
    served.add("jane", Role.VIEWER)
    code = served.console.accounts.make_link("jane")
    async with served.browser() as browser:
        foreign = {"Origin": "https://evil.example"}
        answer = await browser.post("/login/code", data={"code": code}, headers=foreign)
        assert 403 == answer.status_code
        assert 303 == (await browser.post("/login/code", data={"code": code})).status_code


async def test_every_row_needs_its_role(served: Served) -> None:
    """Every role below gets 403, and nobody gets 401 or the sign-in page."""
    headers = {role: served.token(role, role) for role in Role}
    rows = [row for row in endpoints() if isinstance(row, Endpoint) and row.role is not None]
    assert rows
    async with served.browser() as browser:
        for row in rows:
            path = row.path.replace("{", "").replace("}", "")
            for method in row.methods:
                answer = await browser.request(method, path)
                assert answer.status_code in (303, 401), path
                assert row.role is not None
                below = [role for role in Role if not role.includes(row.role)]
                for role in below:
                    refused = await browser.request(method, path, headers=headers[role])
                    assert 403 == refused.status_code, (path, role)


async def test_who_asks_too_often_waits(tmp_path: Path) -> None:
    """An account, however many tokens; and an address, whoever it is."""
    async with serving(tmp_path, rates=Rates(1e6, 0.5)) as served, served.browser() as browser:
        headers = served.token("program", Role.VIEWER)
        codes = [(await browser.get("/.json", headers=headers)).status_code for _ in range(8)]
        assert {200, 429} == set(codes)
        assert 200 == codes[0]
        other = served.token("other", Role.VIEWER)
        assert 200 == (await browser.get("/.json", headers=other)).status_code
    async with serving(tmp_path, rates=Rates(0.5, 1e6)) as served, served.browser() as browser:
        answers = [await browser.get("/healthz") for _ in range(8)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert "retry-after" in refused[0].headers


async def test_a_body_that_is_too_long_is_refused(served: Served) -> None:
    """Whether it says its length or not."""
    async with served.browser() as browser:
        body = b"x" * (MOST_BODY_BYTES + 1)
        form = {"Content-Type": "application/x-www-form-urlencoded"}

        async def in_pieces() -> object:
            for _ in range(20):
                yield body[: MOST_BODY_BYTES // 10]

        for content in (body, in_pieces()):
            answer = await browser.post("/login", content=content, headers=form)  # type: ignore[arg-type]
            assert 413 == answer.status_code
        files = {"name": ("x.txt", b"content")}
        assert 400 == (await browser.post("/login", files=files)).status_code
        many = "&".join(f"a{n}=1" for n in range(1000))
        assert 400 == (await browser.post("/login", content=many, headers=form)).status_code


async def test_static_files_are_kept_for_ever_under_their_version(served: Served) -> None:
    """And nothing else is behind that path."""
    async with served.browser() as browser:
        path = served.console.static_url("console.css")
        answer = await browser.get(path)
        assert "text/css" in answer.headers["content-type"]
        assert "immutable" in answer.headers["cache-control"]
        old = await browser.get("/static/old/console.css")
        assert (200, "no-cache") == (old.status_code, old.headers["cache-control"])
        for name in ("..%2fapp.py", "../app.py", "%2e%2e/app.py", "nothing.css", "..%5capp.py"):
            assert 404 == (await browser.get(f"/static/x/{name}")).status_code
        raw = await raw_status(served.url, "/static/x/../../app.py")
        assert raw.startswith("HTTP/1.1 404")


async def raw_status(url: str, path: str) -> str:
    """Return the first line of the answer to a path that no client would leave as it is."""
    host, _, port = url.removeprefix("http://").rstrip("/").rpartition(":")
    with socket.create_connection((host, int(port))) as tcp:
        tcp.setblocking(False)
        import asyncio

        loop = asyncio.get_running_loop()
        await loop.sock_sendall(tcp, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return (await loop.sock_recv(tcp, 4096)).decode().splitlines()[0]
