"""The pages about the installation: users, deliveries, health."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import dataclasses
import io
from pathlib import Path

import pytest

from receiver.config.settings import Webhook
from receiver.console.admin_pages import size_text
from receiver.console.who import Role
from receiver.errors import NotFoundError
from receiver.notifications.events import OutboxEvent
from receiver.notifications.outbox import Outbox, add
from tests.bounds import at_most
from tests.receiver.helpers import hooks, recordings_builder
from tests.receiver.helpers.consoles import PASSWORD, Served, send_form, serving
from tests.receiver.helpers.serving import TOKEN, serving_taps

pytestmark = pytest.mark.integration
HTML = {"Accept": "text/html"}


async def test_users_come_change_and_go(served: Served) -> None:
    """Each act is said on the page that it leads back to."""
    accounts = served.console.accounts
    served.add("ada", Role.ADMIN)
    async with await served.signed_in("ada") as browser:
        answer = await send_form(
            browser,
            "/users/add",
            name="Leo",
            role="listener",
            param="queue=sales",
            password=PASSWORD,
        )
        assert (303, "/users?said=user_added") == (answer.status_code, answer.headers["location"])
        leo = accounts.user("leo")
        assert (Role.LISTENER, {"queue": "sales"}, True) == (leo.role, leo.scope, leo.has_password)
        page = (await browser.get("/users?said=user_added")).text
        assert "The user is added." in page
        assert "sales" in page
        await send_form(browser, "/users/role", name="leo", role="manager")
        assert Role.MANAGER is accounts.user("leo").role
        _, token = served.console.tokens.make("leo", label="reports")
        assert "reports" in (await browser.get("/users")).text
        await send_form(browser, "/users/revoke", id=token.id)
        assert [] == served.console.tokens.all()
        await send_form(browser, "/users/remove", name="leo")
    with pytest.raises(NotFoundError):
        accounts.user("leo")


async def test_accounts_are_a_table_too(served: Served) -> None:
    """With their limits; it has no secret."""
    served.add("ada", Role.ADMIN)
    served.add("leo", Role.LISTENER, {"queue": "sales", "site": "2"})
    async with await served.signed_in("ada") as browser:
        table = (await browser.get("/users.csv")).text
        assert "/users.csv" in (await browser.get("/users")).text
    ada, leo = csv.DictReader(io.StringIO(table))
    assert ("ada", "admin", "", "no") == tuple(ada.values())[:4]
    assert "T" in ada["seen_at"]
    assert ["leo", "listener", "queue=sales, site=2", "no", ""] == list(leo.values())


@pytest.mark.parametrize(
    ("path", "fields", "words"),
    [
        ("add", {"name": "leo", "role": "king", "password": PASSWORD}, "viewer"),
        ("add", {"name": "leo", "role": "viewer", "password": "short"}, "10"),
        ("add", {"name": "leo", "role": "viewer", "param": "sales"}, "queue=sales"),
        ("add", {"name": "ada", "role": "viewer", "password": PASSWORD}, "already"),
        ("role", {"name": "Ada ", "role": "viewer"}, "his own account"),
        ("remove", {"name": "ada"}, "his own account"),
    ],
)
async def test_what_cannot_be_done_is_told(
    served: Served, path: str, fields: dict[str, str], words: str
) -> None:
    """And the accounts are as they were."""
    served.add("ada", Role.ADMIN)
    async with await served.signed_in("ada") as browser:
        answer = await send_form(browser, f"/users/{path}", **fields)
    assert 400 == answer.status_code
    assert words in answer.text
    assert [("ada", Role.ADMIN)] == [(u.name, u.role) for u in served.console.accounts.all()]


async def test_an_admin_of_some_recordings_makes_nobody_who_sees_more(served: Served) -> None:
    """He manages no accounts at all."""
    served.add("sam", Role.ADMIN, {"queue": "sales"})
    async with await served.signed_in("sam") as browser:
        page = await browser.get("/users", headers=HTML)
        answer = await send_form(browser, "/users/add", name="x", role="admin", password=PASSWORD)
    assert [403, 403] == [page.status_code, answer.status_code]
    assert ["sam"] == [user.name for user in served.console.accounts.all()]


async def test_deliveries_say_what_there_is_instead(served: Served) -> None:
    """Nothing is configured, so nothing waits."""
    async with served.browser(headers=served.token("max", Role.MANAGER)) as browser:
        page = await browser.get("/deliveries", headers=HTML)
        twin = (await browser.get("/deliveries.json")).json()
    assert "Nothing is delivered" in page.text
    assert [] == twin["deliveries"]


async def attempted(outbox: Outbox) -> None:
    """Wait until the first delivery was attempted."""
    async with asyncio.timeout(at_most(20)):
        while not (await asyncio.to_thread(outbox.page))[0].attempts:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_deliveries_are_shown_and_sent_again(tmp_path: Path) -> None:
    """With what came of each; a limited account has no such page."""
    table = {**hooks.table("http://127.0.0.1:1/very-secret", tmp_path), "name": "crm"}
    async with serving(tmp_path, webhook=(Webhook(**table),)) as served:
        outbox = served.console.notifier.outbox
        event = OutboxEvent("evt_1", "recording.published", "now", {"recording_id": "0a" * 8})
        with served.console.catalogue.database.writing() as connection:
            add(connection, [event], served.console.notifier.endpoints)
        await attempted(outbox)
        found = outbox.page()
        served.add("max", Role.MANAGER)
        async with await served.signed_in("max") as browser:
            page = (await browser.get("/deliveries", headers=HTML)).text
            answer = await send_form(browser, "/deliveries/resend", number=f"{found[0].n}")
            assert "/deliveries?said=resent" == answer.headers["location"]
            rows = list(csv.DictReader(io.StringIO((await browser.get("/deliveries.csv")).text)))
            for words, count in (("state=dead", 0), ("webhook=crm", 1), ("recording=x", 0)):
                twin = (await browser.get(f"/deliveries.json?{words}")).json()
                assert count == len(twin["deliveries"]), words
            for number in ("999", "x", ""):
                refused = await send_form(browser, "/deliveries/resend", number=number)
                assert refused.status_code in (400, 404)
            assert 400 == (await browser.get("/deliveries?state=lost")).status_code
        served.add("lim", Role.MANAGER, {"queue": "sales"})
        async with await served.signed_in("lim") as browser:
            assert 403 == (await browser.get("/deliveries", headers=HTML)).status_code
            assert "/deliveries" not in (await browser.get("/recordings", headers=HTML)).text
    assert "no connection" in page
    assert "secret" not in page
    assert ["evt_1", "crm"] == [rows[0]["event"], rows[0]["webhook"]]


async def test_health_counts_what_is_missing_per_day(served: Served) -> None:
    """As a picture, as a table, and as JSON."""
    from datetime import UTC, datetime

    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    started = round(today.timestamp() * 1000)
    recordings = served.console.catalogue.recordings
    recordings_builder.build(recordings, started_at_ms=started)
    recordings_builder.build(
        recordings, recording_id="11" * 8, started_at_ms=started, complete=True
    )
    served.console.catalogue.reconcile()
    async with served.browser(headers=served.token("max", Role.MANAGER)) as browser:
        page = await browser.get("/health", headers=HTML)
        twin = (await browser.get("/health.json")).json()
        url = twin["days"][-1]["url"].replace("?", ".json?", 1)
        assert 1 == (await browser.get(url)).json()["total"]["count"]
    assert 200 == page.status_code
    assert (2, 1) == (twin["days"][-1]["count"], twin["days"][-1]["bad"])
    assert 14 == len(twin["days"])
    assert {"Free space", "Something missing", "Catalogue", "Oldest audio not on disk"} == {
        figure["name"] for figure in twin["figures"]
    }


async def test_health_says_that_a_disk_may_not_be_mounted(served: Served) -> None:
    """The catalogue has recordings, and their folder has none."""
    recordings = served.console.catalogue.recordings
    recordings_builder.build(recordings)
    served.console.catalogue.reconcile()
    headers = served.token("max", Role.MANAGER)
    async with served.browser(headers=headers) as browser:
        told = [(await browser.get("/health.json")).json()["problems"]]
        (year,) = (each for each in recordings.iterdir() if each.name.isdigit())
        year.rename(recordings / "elsewhere")
        told.append((await browser.get("/health.json")).json()["problems"])
    assert ([], 1) == (told[0], len(told[1]))
    assert "is the disk of recordings mounted?" in told[1][0]


async def test_health_reads_what_the_receiver_says_of_itself(tmp_path: Path) -> None:
    """Over its taps, whether a live page is open or not; and says so where it does not answer."""
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving_taps(tmp_path / "x.journal"))
        server.taps.options = dataclasses.replace(server.taps.options, unsynced_seconds=lambda: 7.5)
        server.open_stream()
        taps = (f"ws://127.0.0.1:{server.transport.port}",)
        served = await stack.enter_async_context(
            serving(tmp_path, console_token=TOKEN, console_taps=taps)
        )
        headers = served.token("max", Role.MANAGER)
        browser = await stack.enter_async_context(served.browser(headers=headers))
        slow = (await browser.get("/health.json")).json()
        limited = served.token("sam", Role.MANAGER, {"queue": "sales"})
        some = (await browser.get("/health.json", headers=limited)).json()
        await server.transport.close()
        served.console.live.close()
        gone = (await browser.get("/health.json")).json()
        hidden = (await browser.get("/health.json", headers=limited)).json()
    assert ["The disk is slow: audio of 7.5 s waits in memory."] == slow["problems"]
    assert ("7.5 s", "1 stream now") == tuple(slow["figures"][-1][n] for n in ("value", "note"))
    assert "of live calls" == some["figures"][-1]["note"]
    assert "not known" == gone["figures"][-1]["value"]
    assert [True, False] == [taps[0] in each["problems"][0] for each in (gone, hidden)]
    assert "A receiver does not answer: is it running?" == hidden["problems"][0]


@pytest.mark.parametrize(
    ("size", "text"), [(5, "5 bytes"), (1500, "2 KB"), (80e9, "80 GB"), (2.5e12, "2.5 TB")]
)
def test_sizes_are_written_as_people_say_them(size: float, text: str) -> None:
    """In one unit."""
    assert text == size_text(size)
