"""What managers change of a recording, in a page and with many at once."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from receiver.console.who import Role
from receiver.recording import annotations as notes
from tests.receiver.helpers import recordings_builder
from tests.receiver.helpers.consoles import Served, send_form

pytestmark = pytest.mark.integration
ID = recordings_builder.RECORDING_ID
OTHER = "ffeeddccbbaa9988"


@pytest.fixture
def folder(served: Served) -> Path:
    """Return the folder of a recording that the catalogue has."""
    found = recordings_builder.build(served.console.catalogue.recordings)
    served.console.catalogue.reconcile()
    return found


async def test_labels_notes_and_a_hold_come_and_go(served: Served, folder: Path) -> None:
    """Each is in the folder and in the list before the page is there again."""
    served.add("jane", Role.MANAGER)
    async with await served.signed_in("jane") as browser:
        page = f"/recordings/{ID}"
        answer = await send_form(browser, f"{page}/labels", name="training")
        assert (303, f"{page}?said=labelled") == (answer.status_code, answer.headers["location"])
        assert "The label is there." in (await browser.get(f"{page}?said=labelled")).text
        await send_form(browser, f"{page}/notes", text="asks", at="0:00.5")
        await send_form(browser, f"{page}/hold", reason="court")
        now = notes.read(folder)
        assert ["training"] == [label.name for label in now.labels]
        assert [("asks", 500, "jane")] == [(n.text, n.t_ms, n.by) for n in now.notes]
        assert now.hold is not None
        row = served.console.catalogue.get(ID, {})
        assert (["training"], 1, True) == (row.labels, row.notes, row.held)
        assert "asks" in (await browser.get(page)).text
        await send_form(browser, f"{page}/labels", remove="training")
        await send_form(browser, f"{page}/notes", remove=now.notes[0].id)
        await send_form(browser, f"{page}/release")
    assert ((), (), None) == (
        notes.read(folder).labels,
        notes.read(folder).notes,
        notes.read(folder).hold,
    )


@pytest.mark.parametrize(
    ("act", "fields", "words"),
    [
        ("labels", {"name": " "}, "a label"),
        ("labels", {"name": "x" * 65}, "64"),
        ("notes", {"text": ""}, "a note"),
        ("notes", {"text": "x", "at": "soon"}, "62.5"),
        ("hold", {"reason": ""}, "a reason"),
    ],
)
async def test_what_cannot_be_kept_is_told(
    served: Served, folder: Path, act: str, fields: dict[str, str], words: str
) -> None:
    """And nothing is written."""
    served.add("jane", Role.MANAGER)
    async with await served.signed_in("jane") as browser:
        answer = await send_form(browser, f"/recordings/{ID}/{act}", **fields)
    assert 400 == answer.status_code
    assert words in answer.text
    assert not (folder / "annotations.json").exists()


async def test_what_is_not_there_cannot_be_removed(served: Served, folder: Path) -> None:
    """Nor can a recording that does not exist be changed."""
    served.add("jane", Role.MANAGER)
    async with await served.signed_in("jane") as browser:
        for path, fields in (
            (f"/recordings/{ID}/notes", {"remove": "12"}),
            (f"/recordings/{ID}/release", {}),
            (f"/recordings/{OTHER}/labels", {"name": "x"}),
        ):
            assert 404 == (await send_form(browser, path, **fields)).status_code, path
    assert not (folder / "annotations.json").exists()


async def test_who_is_limited_changes_nothing_else(served: Served, folder: Path) -> None:
    """A recording out of scope is not there to be changed."""
    served.add("sam", Role.MANAGER, {"queue": "sales"})
    async with await served.signed_in("sam") as browser:
        answer = await send_form(browser, f"/recordings/{ID}/labels", name="x")
    assert 404 == answer.status_code
    assert not (folder / "annotations.json").exists()


async def test_many_are_changed_at_once(served: Served, folder: Path) -> None:
    """And the way leads back to the same list."""
    other = recordings_builder.build(served.console.catalogue.recordings, recording_id=OTHER)
    served.console.catalogue.reconcile()
    served.add("jane", Role.MANAGER)
    back = "/recordings?param.Name=Jane"
    async with await served.signed_in("jane") as browser:
        answer = await send_form(
            browser, "/recordings/selected", id=[ID, OTHER], act="label", label="a", back=back
        )
        assert f"{back}&said=labelled&done=2&of=2" == answer.headers["location"]
        led_to = await browser.get(answer.headers["location"])
        assert (200, True) == (led_to.status_code, "2 of 2: The label is there." in led_to.text)
        away = await send_form(
            browser, "/recordings/selected", id=ID, act="hold", reason="r", back="//evil.example"
        )
        nothing = await send_form(browser, "/recordings/selected", act="label", label="a")
    assert "/recordings?said=held&done=1&of=1" == away.headers["location"]
    assert 400 == nothing.status_code
    for each in (folder, other):
        assert ["a"] == [label.name for label in notes.read(each).labels]


async def test_one_that_cannot_be_changed_keeps_no_other_from_it(
    served: Served, folder: Path
) -> None:
    """As many may be selected as the longest list has; it is told how many could be changed."""
    served.add("jane", Role.MANAGER)
    ids = [ID, *(f"{number:016x}" for number in range(1, 500))]
    async with await served.signed_in("jane") as browser:
        answer = await send_form(browser, "/recordings/selected", id=ids, act="label", label="a")
        assert "/recordings?said=labelled&done=1&of=500" == answer.headers["location"]
        page = await browser.get(answer.headers["location"])
        assert "1 of 500: The label is there. 499 could not be changed" in page.text
        bad = await send_form(browser, "/recordings/selected", id=ids[:2], act="label", label="")
        assert 400 == bad.status_code
    assert ["a"] == [label.name for label in notes.read(folder).labels]


async def test_a_disk_that_fails_in_the_midst_says_how_far_it_came(
    served: Served, folder: Path
) -> None:
    """Nothing more is tried."""
    served.add("jane", Role.MANAGER)
    ledger = served.console.config.recordings / ".ledger"
    async with await served.signed_in("jane") as browser:
        ledger.rename(ledger.with_name("moved"))
        ledger.write_text("in the way")
        answer = await send_form(browser, "/recordings/selected", id=ID, act="label", label="a")
    assert 503 == answer.status_code
    assert "0 of 1 are changed, and then: Nothing was changed" in answer.text
    assert not (folder / "annotations.json").exists()


async def test_the_selected_are_downloaded_as_one(served: Served, folder: Path) -> None:
    """By whoever hears them, and of these what exists for them."""
    recordings_builder.build(
        served.console.catalogue.recordings, recording_id=OTHER, parameters={"queue": "sales"}
    )
    served.console.catalogue.reconcile()
    for name, scope, status in (("leo", {}, 200), ("sam", {"queue": "sales"}, 404)):
        served.add(name, Role.LISTENER, scope)
        async with await served.signed_in(name) as browser:
            answer = await send_form(browser, "/recordings/selected.zip", id=[ID, OTHER])
            assert status == answer.status_code
            nothing = await send_form(browser, "/recordings/selected.zip", act="label")
            assert 400 == nothing.status_code
            if status == 200:
                names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
                assert {folder.name[-16:], OTHER} == {Path(n).parent.name[-16:] for n in names}
