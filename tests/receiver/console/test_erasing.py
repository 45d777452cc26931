"""Erasing and deleting, in pages and by the API: who may, what stays, what is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.console.who import Role
from receiver.lifecycle.acts import Acts
from receiver.lifecycle.ledger import Ledger
from receiver.recording import store
from receiver.recording.verify import verify
from tests.receiver.helpers import recordings_builder as builder
from tests.receiver.helpers.consoles import Served, send_form

pytestmark = pytest.mark.integration
ID = builder.RECORDING_ID
PAGE = f"/recordings/{ID}"
ONE = f"/api/v1/recordings/{ID}"
SPAN = {"from_s": 0.2, "to_s": 0.7, "reason": "card number"}


@pytest.fixture
def folder(served: Served) -> Path:
    """Return the folder of a recording that the catalogue has."""
    found = builder.build(served.console.catalogue.recordings)
    served.console.catalogue.reconcile()
    return found


def is_there(folder: Path) -> bool:
    """Return whether a recording has not been deleted."""
    return folder.is_dir()


async def ask(served: Served, headers: dict[str, str], method: str, path: str, **more: Any) -> int:
    """Ask the API; return the status."""
    async with served.browser(headers=headers) as program:
        answer: httpx.Response = await program.request(method, path, **more)
    return answer.status_code


async def test_an_admin_erases_in_the_page(served: Served, folder: Path) -> None:
    """The button is for admins; the page says what became of it, and the ledger who did it."""
    served.add("boss", Role.ADMIN)
    async with await served.signed_in("boss") as browser:
        assert f'action="{PAGE}/erase"' in (await browser.get(PAGE)).text
        fields = {"from": "0:00.2", "to": "0.7", "track": "inbound", "reason": "card number"}
        answer = await send_form(browser, f"{PAGE}/erase", **fields)
        assert (303, f"{PAGE}?said=erased") == (answer.status_code, answer.headers["location"])
        text = (await browser.get(f"{PAGE}?said=erased")).text
        assert "The span is erased, for good." in text
        assert "500 ms of the caller were erased on request" in text
        for wrong in ({**fields, "from": "soon"}, {**fields, "to": ""}):
            assert 400 == (await send_form(browser, f"{PAGE}/erase", **wrong)).status_code
    document = store.read(folder).recording
    assert () == verify(folder, document)
    entries = list(Ledger(served.console.config.recordings).read())
    (entry,) = [each for each in entries if each.what == "erased"]
    assert ("boss", "console", ID) == (entry.who, entry.via, entry.recording)


async def test_a_manager_deletes_in_the_page(served: Served, folder: Path) -> None:
    """And erases nothing; the list does not have it any more."""
    served.add("jane", Role.MANAGER)
    async with await served.signed_in("jane") as browser:
        text = (await browser.get(PAGE)).text
        assert f'action="{PAGE}/delete"' in text
        assert f'action="{PAGE}/erase"' not in text
        refused = await send_form(
            browser, f"{PAGE}/erase", **{"from": "0", "to": "1", "reason": "x"}
        )
        assert 403 == refused.status_code
        assert 422 == (await send_form(browser, f"{PAGE}/delete", reason=" ")).status_code
        assert is_there(folder)
        answer = await send_form(browser, f"{PAGE}/delete", reason="asked for")
        assert "/recordings?said=deleted" == answer.headers["location"]
        assert "The recording is deleted" in (await browser.get("/recordings?said=deleted")).text
        assert 404 == (await browser.get(PAGE)).status_code
    assert not is_there(folder)


async def test_a_program_erases_and_deletes(served: Served, folder: Path) -> None:
    """By the same rules; a tombstone is the answer to erasing."""
    boss = served.token("boss", Role.ADMIN)
    async with served.browser(headers=boss) as program:
        answer = await program.post(f"{ONE}/erase", json={**SPAN, "tracks": ["outbound"]})
        assert 200 == answer.status_code
        found = answer.json()
        assert ("erased", "boss", ["outbound"]) == (found["what"], found["who"], found["tracks"])
        assert builder.sha256(folder / "outbound.wav") == found["after"]["outbound.wav"]
        too_late = await program.post(f"{ONE}/erase", json={**SPAN, "from_s": 5, "to_s": 6})
        assert 409 == too_late.status_code
        assert "it ends at 1 s" in too_late.text
        assert 422 == (await program.delete(ONE, params={"reason": ""})).status_code
        assert 204 == (await program.delete(ONE, params={"reason": "asked for"})).status_code
        assert 404 == (await program.delete(ONE, params={"reason": "again"})).status_code
        assert 404 == (await program.get(ONE)).status_code


async def test_what_is_held_stays(served: Served, folder: Path) -> None:
    """A 409 says by whom it is held, and why."""
    acts = Acts(served.console.config.recordings, who="bob", via="test")
    await asyncio.to_thread(acts.hold, folder, "case 1")
    boss = served.token("boss", Role.ADMIN)
    before = store.read(folder).document
    async with served.browser(headers=boss) as program:
        for answer in (
            await program.post(f"{ONE}/erase", json=SPAN),
            await program.delete(ONE, params={"reason": "asked for"}),
        ):
            assert 409 == answer.status_code
            assert "held by bob" in answer.json()["detail"]
            assert "case 1" in answer.json()["detail"]
    assert before == store.read(folder).document


@pytest.mark.parametrize(
    ("role", "scope", "erased", "deleted"),
    [
        (Role.LISTENER, {}, 403, 403),
        (Role.MANAGER, {}, 403, 204),
        (Role.ADMIN, {"Name": "Joe"}, 404, 404),
        (Role.MANAGER, {"Name": "Jane"}, 403, 204),
    ],
)
async def test_who_may(
    served: Served,
    folder: Path,
    role: Role,
    scope: dict[str, str],
    erased: int,
    deleted: int,
) -> None:
    """Admins erase and managers delete, what is within their limits; nothing else exists."""
    headers = served.token("jane", role, scope)
    assert erased == await ask(served, headers, "POST", f"{ONE}/erase", json=SPAN)
    assert deleted == await ask(served, headers, "DELETE", ONE, params={"reason": "asked for"})
    assert (deleted == 204) == (not is_there(folder))
    hostile = "/api/v1/recordings/..%2f..%2fx"
    assert await ask(served, headers, "DELETE", hostile, params={"reason": "x"}) in (403, 404)
