"""Every route as every role, with and without limits, asked well and badly."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Final

import httpx
import pytest

from receiver.console.accounts import User
from receiver.console.app import endpoints
from receiver.console.routes import SAFE, Endpoint
from receiver.console.who import Role
from receiver.lifecycle.acts import Acts
from receiver.recording import store
from tests.receiver.helpers import recordings_builder as builder
from tests.receiver.helpers.consoles import Served, serving

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
MINE, HIDDEN = "00000000000000aa", "00000000000000bb"
SECRET: Final = "zebra"
"""Stands in the hidden recording alone, as a parameter's value and in its call's id."""
NOTED: Final = "wombat"
REASON: Final = "gazelle"
"""A word of a note, and of the reason of a hold: nothing for who does not hear recordings."""
MARKUP: Final = "<script>alert(1)</script>"
LINK: Final = re.compile(r'(?:href|action)="(/[^"#]*)')
MOST_PAGES: Final = 60
HOSTILE: Final = (
    *("..%2f..%2fetc%2fpasswd", "%00%FF", "%3Cscript%3Ealert(1)%3C/script%3E%0d%0aSet-Cookie:a=b"),
    *(HIDDEN, "call-zebra"),
)
NAMING_THE_HIDDEN: Final = 2
"""So many of them at the end name what is hidden."""
QUERIES: Final = (
    "",
    "q=%00&limit=-1&after=x&from=zzz&before=9e9&sort=x&t=NaN&said=x&what=%00&who=%FF",
    "q=%3Cscript%3Ealert(1)%3C/script%3E&param.a%3Cb=%22%3E%3Cscript%3Ealert(1)%3C/script%3E",
    "limit=99999999999999999999&before=99999999999999999999&t=1e999&page=2&from=9999-12-31",
    "param.queue=zebra&call=call-zebra&q=zebra",
)


def publish(folder: Path) -> None:
    """Put a recording into a folder that a limited caller may see, and one that is hidden."""
    for recording_id, queue in ((MINE, "sales"), (HIDDEN, SECRET)):
        builder.build(
            folder / "recordings",
            recording_id=recording_id,
            started_at_ms=builder.STARTED_AT_MS + int(queue == SECRET),
            parameters={"queue": queue, MARKUP: MARKUP},
            call_sid=f"call-{queue}",
        )
    acts = Acts(folder / "recordings", who="mia", via="test")
    mine = store.find(folder / "recordings", MINE)
    acts.add_note(mine, f"She said {NOTED}.", t_ms=None)
    acts.hold(mine, f"{REASON} against gnu")


def asks_for_all(user: User) -> bool:
    """Whether it is asked in every bad way: as an admin, who reaches all of the code.

    Of the others, those are enough that name what is hidden: they are refused before that.
    """
    return user.role is Role.ADMIN


def paths_of(row: Endpoint, user: User) -> list[str]:
    """Return paths that a row answers: with each hostile word in the place of each parameter."""
    pattern = re.sub(r"\{\w+(:\w+)?\}", "{}", row.path)
    if "{}" not in pattern:
        return [pattern]
    words = HOSTILE if asks_for_all(user) else HOSTILE[-NAMING_THE_HIDDEN:]
    return [pattern.replace("{}", word) for word in words]


def check(answer: httpx.Response, user: User) -> None:
    """Fail where an answer is a mistake of ours, or says what it must not."""
    is_limited = bool(user.scope)
    asked = f"{answer.request.method} {answer.request.url}"
    assert answer.status_code < 500 or answer.status_code == 503, (asked, answer.text[:300])
    assert "set-cookie" not in answer.headers or "a=b" not in answer.headers["set-cookie"], asked
    if "text/html" in answer.headers.get("content-type", ""):
        assert MARKUP not in answer.text, asked
    if is_limited:
        # What was asked for may be repeated; nothing else may name what is hidden.
        found = answer.text.replace(str(answer.request.url.query, "latin-1"), "")
        repeated = SECRET in str(answer.request.url) or HIDDEN in str(answer.request.url)
        assert repeated or (SECRET not in found and HIDDEN not in found), asked
        if repeated and HIDDEN in answer.request.url.path:
            assert answer.status_code in (400, 403, 404, 405, 415), asked

    if not user.role.includes(Role.LISTENER):
        assert REASON not in answer.text, asked
        assert NOTED not in answer.text or NOTED in asked, asked
        assert MINE not in answer.text or NOTED not in asked or MINE in asked, asked


async def crawl(browser: httpx.AsyncClient, user: User) -> int:
    """Follow every link from the first page on; return how many pages there were."""
    waiting, seen = ["/"], set[str]()
    while waiting and len(seen) < MOST_PAGES:
        path = waiting.pop(0)
        if path in seen or path.startswith("/logout"):
            continue
        seen.add(path)
        answer = await browser.get(path, headers={"Accept": "text/html"})
        check(answer, user)
        if "text/html" in answer.headers.get("content-type", ""):
            waiting += [html.unescape(link) for link in LINK.findall(answer.text)]
    return len(seen)


@pytest.mark.parametrize(
    ("role", "scope"),
    [(Role.ADMIN, {}), *((role, {"queue": "sales"}) for role in Role)],
    ids=["admin of all", *Role],
)
async def test_no_route_fails_or_tells_what_is_hidden(
    tmp_path: Path, role: Role, scope: dict[str, str]
) -> None:
    """Pages that are linked, every row with hostile words, every change with rubbish."""
    publish(tmp_path)
    async with serving(tmp_path) as served:
        await served.settled()
        user = served.add("jane", role, scope)
        async with await served.signed_in("jane") as browser:
            browser.headers["X-CSRF-Token"] = csrf_of(served, browser)
            assert await crawl(browser, user) > 5
            for row in endpoints():
                if isinstance(row, Endpoint) and not row.path.startswith("/log"):
                    await ask_badly(browser, row, user)


async def test_a_role_reads_no_more_than_it_may(tmp_path: Path) -> None:
    """Also where all recordings exist for it: pages that are linked, and every row that is read."""
    publish(tmp_path)
    async with serving(tmp_path) as served:
        await served.settled()
        for role in (Role.VIEWER, Role.LISTENER, Role.MANAGER):
            user = served.add(role, role)
            async with await served.signed_in(role) as browser:
                assert await crawl(browser, user) > 5
                for row in endpoints():
                    if isinstance(row, Endpoint) and "GET" in row.methods:
                        path = re.sub(r"\{\w+(:\w+)?\}", MINE, row.path)
                        answer = await browser.get(f"{path}?q={NOTED}")
                        check(answer, user)
                        found = MINE in answer.text and path.startswith("/recordings.")
                        assert not found or role.includes(Role.LISTENER), path


async def ask_badly(browser: httpx.AsyncClient, row: Endpoint, user: User) -> None:
    """Ask for one row in every bad way that there is here."""
    queries = QUERIES if asks_for_all(user) else QUERIES[-1:]
    for path in paths_of(row, user):
        for method in row.methods:
            if method in SAFE:
                for query in queries if "{" not in row.path else QUERIES[:1]:
                    check(await browser.request(method, f"{path}?{query}"), user)
                continue
            rubbish: tuple[dict[str, object], ...] = (
                {"content": b"\xff{", "headers": {"Content-Type": "application/json"}},
                {"json": {"name": MARKUP, "text": MARKUP, "reason": MARKUP, "role": "x"}},
                {"data": {"name": MARKUP, "text": "\0", "at": "NaN", "reason": "", "id": HIDDEN}},
            )
            for body in rubbish if asks_for_all(user) else rubbish[-1:]:
                answer = await browser.request(method, path, **body)  # type: ignore[arg-type]
                check(answer, user)


def csrf_of(served: Served, browser: httpx.AsyncClient) -> str:
    """Return the token that the forms of this browser have."""
    who = served.console.sessions.who(browser.cookies["tapreel"])
    assert who is not None
    return who.csrf_token(served.console.secret)
