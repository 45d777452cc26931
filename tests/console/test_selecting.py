"""Many recordings of the list at once, in a browser."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser

from receiver.catalogue.catalogue import Catalogue
from receiver.console.accounts import Accounts
from receiver.console.who import Role
from receiver.recording import annotations as notes
from tests.console.conftest import RunningConsole
from tests.end_to_end.receiver_process import ReceiverProcess
from tests.receiver.helpers import recordings_builder

COUNT: Final = 30
"""More than a page sends at once."""


@pytest.fixture
def many(tmp_path: Path, browser: Browser) -> Iterator[RunningConsole]:
    """Yield the console of a receiver with as many recordings."""
    running = ReceiverProcess(tmp_path, "--console", "--console-port", "0")
    assert running.process.stdout is not None
    url = running.process.stdout.readline().split()[1]
    for number in range(COUNT):
        recordings_builder.build(running.recordings, recording_id=f"{number:016x}")
    with Catalogue(None, running.recordings) as catalogue:
        catalogue.reconcile()
        accounts = Accounts(catalogue.database)
        accounts.add("max", Role.MANAGER, {})
        accounts.add("leo", Role.LISTENER, {})
    yield RunningConsole(url, running.recordings, {}, browser)
    running.release()


def test_many_are_labelled_and_downloaded(many: RunningConsole) -> None:
    """In portions that the page counts, by keyboard; and as one archive, also by a listener."""
    visit = many.visit("max")
    page = visit.page
    visit.go("/recordings")
    page.locator("#all").focus()
    page.keyboard.press("Space")
    assert f"{COUNT} selected" == page.inner_text("#chosen")
    visit.keep_picture("selected")
    page.locator("input[name=label]").fill("training")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"text={COUNT} of {COUNT}: The label is there.")
    for folder in many.recordings.rglob("*-0*"):
        assert ["training"] == [label.name for label in notes.read(folder).labels]
    assert COUNT == page.locator("tbody .badge.label").count()
    visit.context.close()
    assert [] == visit.problems
    visit = many.visit("leo", accept_downloads=True, viewport={"width": 360, "height": 740})
    visit.go("/recordings")
    for number in range(2):
        visit.page.locator("input[name=id]").nth(number).check()
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    visit.keep_picture("selected-narrow")
    with visit.page.expect_download() as started:
        visit.page.get_by_role("button", name="Download").click()
    with zipfile.ZipFile(started.value.path()) as archive:
        assert archive.testzip() is None
        assert 2 == len({Path(name).parent for name in archive.namelist()})
    visit.context.close()
    assert [] == visit.problems
