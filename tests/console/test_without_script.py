"""Without JavaScript everything works but the waveform and live listening."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.console.conftest import RunningConsole, Visit


@pytest.fixture
def plain(console: RunningConsole) -> Iterator[Visit]:
    """Yield a window that executes no script."""
    found = console.visit(java_script_enabled=False)
    yield found
    found.context.close()
    assert [] == found.problems


def test_recordings_are_searched_opened_and_heard(plain: Visit, console: RunningConsole) -> None:
    """By links, forms, and an audio element of both sides."""
    plain.go("/recordings")
    plain.page.click("nav[aria-label=Pages] >> text=Recordings")
    plain.page.fill("#search", "王小明")
    plain.page.press("#search", "Enter")
    assert 1 == plain.page.locator("tbody tr").count()
    plain.page.click("tbody a.open")
    assert "320 ms of the caller are missing" in plain.page.inner_text("main")
    audio = plain.page.locator("audio")
    assert audio.is_visible()
    source = audio.get_attribute("src")
    assert source is not None
    answer = plain.context.request.get(plain.url + source.lstrip("/"))
    assert (200, b"RIFF") == (answer.status, answer.body()[:4])
    assert "asks for the invoice number" in plain.page.inner_text("#events")


def test_labels_notes_and_holds_are_made(plain: Visit, console: RunningConsole) -> None:
    """Each by a form, which leads back to the page."""
    plain.go(f"/recordings/{console.ids['hour']}")
    page = plain.page
    page.click("summary:text-is('Label')")
    page.fill("input[name=name]", "by hand")
    page.click("text=Add")
    assert "The label is there." in page.inner_text("main")
    page.click("summary:has-text('Note')")
    page.fill("textarea", "written without a script")
    page.fill("input[name=at]", "1:02.5")
    page.click("text=Write")
    assert "1:02.5" in page.inner_text("main")
    page.click("summary:text-is('Hold')")
    page.fill("input[name=reason]", "court")
    page.click("button:text-is('Hold')")
    assert "court" in page.inner_text("main")
    page.click("text=Release")
    assert "It is released." in page.inner_text("main")


def test_signing_out_ends_it(console: RunningConsole) -> None:
    """And everything leads to the sign-in page then."""
    plain = console.visit("vera", java_script_enabled=False)
    plain.page.click("summary:has-text('vera')")
    plain.page.click("text=Sign out >> nth=0")
    plain.go("/recordings")
    assert "/login?next=%2Frecordings" in plain.page.url
    plain.context.close()
