"""The live page in a browser: cards that move, and a call that is heard while it is spoken."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from receiver.catalogue.catalogue import Catalogue
from receiver.console.accounts import Accounts
from receiver.console.who import Role
from receiver.lifecycle.ledger import EntryFilter, Ledger
from tests.bounds import at_most
from tests.console.conftest import RunningConsole, Visit
from tests.console.speaker import EARS, Speaker
from tests.end_to_end.receiver_process import ReceiverProcess

MOST_DELAY_SECONDS: Final = at_most(0.3)
"""From a sound to its leaving the page's audio graph."""


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverProcess]:
    """Yield a receiver with a console."""
    running = ReceiverProcess(
        tmp_path_factory.mktemp("live"), "--console", "--console-port", "0", "--max-streams", "9"
    )
    yield running
    running.release()


@pytest.fixture(scope="module")
def live(receiver: ReceiverProcess, browser: Browser) -> RunningConsole:
    """Return its console, with an account of each role that matters here."""
    assert receiver.process.stdout is not None
    url = receiver.process.stdout.readline().split()[1]
    with Catalogue(None, receiver.recordings) as catalogue:
        accounts = Accounts(catalogue.database)
        accounts.add("ada", Role.ADMIN, {})
        accounts.add("vera", Role.VIEWER, {"queue": "sales"})
    return RunningConsole(url, receiver.recordings, {}, browser)


@pytest.fixture
def visit(live: RunningConsole) -> Iterator[Visit]:
    """Yield a window of the admin whose ears are measured."""
    found = live.visit()
    found.context.add_init_script(EARS)
    yield found
    found.context.close()
    assert [] == found.problems


def text_of(visit: Visit, selector: str) -> str:
    """Return the text of the first element."""
    return visit.page.locator(selector).first.inner_text()


def until(visit: Visit, selector: str, text: str) -> None:
    """Wait until an element has this text in it."""
    visit.page.locator(selector, has_text=text).first.wait_for()


def test_a_page_that_is_open_follows_the_calls(
    visit: Visit, receiver: ReceiverProcess, tmp_path: Path
) -> None:
    """From none to one and back, without being loaded again; with levels, and nothing for axe."""
    visit.go("/")
    until(visit, "#live-empty", "No call is received now")
    with Speaker(receiver.url, agent="Jane", queue="sales", case="<b>4711") as speaker:
        until(visit, ".call h2", "Jane, sales")
        until(visit, ".call .chip", "<b>4711")
        until(visit, "[data-field=text]", "nothing missing")
        assert "room for 8 more" in text_of(visit, "#live-summary")
        speaker.sounding.add("inbound")
        highest = "Math.max(...[...document.querySelectorAll('[data-track={}] rect')].map("
        highest += "(bar) => Number(bar.getAttribute('height'))))"
        visit.wait_until(highest.format("inbound") + " > 15")
        assert 2 == visit.page.evaluate(highest.format("outbound"))
        with Speaker(receiver.url, "call-2", agent="Amir"):
            until(visit, ".call h2", "Amir")
            until(visit, "h1", "2 calls now")
            for scheme in ("light", "dark"):
                visit.page.emulate_media(color_scheme=scheme)
                found = Axe().run(visit.page)
                assert 0 == found.violations_count, found.generate_report()
                visit.keep_picture(f"live-{scheme}")
            visit.page.set_viewport_size({"width": 360, "height": 740})
            assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            visit.keep_picture("live-narrow")
        until(visit, "h1", "1 call now")
    until(visit, "#live-empty", "No call is received now")


def test_a_call_is_heard_while_it_is_spoken(visit: Visit, receiver: ReceiverProcess) -> None:
    """Within 300 ms of the sound, the caller to the left; by keyboard alone."""
    with Speaker(receiver.url, agent="Jane") as speaker:
        visit.go("/")
        visit.page.locator("[data-listen]").first.wait_for()
        visit.page.locator("[data-listen]").first.focus()
        visit.page.keyboard.press("Enter")
        until(visit, "#listening-text", "live")
        until(visit, "[data-field=listening_text]", "ada listens")
        delays = []
        for _ in range(7):
            visit.page.wait_for_timeout(700)
            heard = visit.page.evaluate("ears.began.length")
            spoken = speaker.sound("inbound", 0.3)
            visit.wait_until(f"ears.began.length > {heard}")
            delays.append(visit.page.evaluate(f"ears.began[{heard}]") - spoken)
        assert 0 < statistics.median(delays) < MOST_DELAY_SECONDS
        speaker.sounding.add("inbound")
        visit.wait_until("ears.left > 0.3 && ears.left > 2 * ears.right && ears.right > 0.01")
        speaker.sounding = {"outbound"}
        visit.wait_until("ears.right > 0.3 && ears.right > 2 * ears.left && ears.left > 0.01")
        visit.page.get_by_role("button", name="Mute agent").press("Space")
        visit.wait_until("Math.max(ears.left, ears.right) < 0.001")
        speaker.sounding = {"inbound", "outbound"}
        visit.wait_until("ears.left > 0.3 && ears.left > 2 * ears.right")
        visit.page.locator("#listening-volume").fill("0")
        visit.wait_until("Math.max(ears.left, ears.right) < 0.001")
        speaker.hang_up()
        until(visit, "#toast", "The call has ended.")
        assert visit.page.locator("#listening").is_hidden()


def test_listening_ends_when_it_is_stopped(visit: Visit, receiver: ReceiverProcess) -> None:
    """Another call takes its place; and the ledger has both, under the account's name."""
    with Speaker(receiver.url, "call-8", agent="Ann"), Speaker(receiver.url, "call-9", agent="Bob"):
        visit.go("/")
        for name in ("Ann", "Bob"):
            visit.page.get_by_role("button", name=f"Listen to {name}").click()
            until(visit, "#listening-title", name)
            until(visit, "#listening-text", "live")
            until(visit, f".call:has-text('{name}') [data-field=listening_text]", "ada listens")
        visit.page.get_by_role("button", name="Stop listening to Bob").click()
        assert visit.page.locator("#listening").is_hidden()
        visit.wait_until(
            "[...document.querySelectorAll('[data-field=listening_text]')]"
            ".every((text) => !text.textContent)"
        )
    wanted = EntryFilter(who="ada", what=frozenset({"listened_live"}))
    calls = [entry.details["call"] for entry in Ledger(receiver.recordings).read(wanted)]
    assert ["call-9", "call-8"] == calls[:2]


def test_a_viewer_with_limits_sees_only_some_calls(
    live: RunningConsole, receiver: ReceiverProcess
) -> None:
    """And has no button to listen."""
    vera = live.visit("vera")
    with (
        Speaker(receiver.url, "call-5", agent="Ann", queue="sales"),
        Speaker(receiver.url, "call-6", agent="Bob", queue="support"),
    ):
        until(vera, ".call h2", "Ann")
        vera.page.wait_for_timeout(600)
        assert 1 == vera.page.locator(".call").count()
        assert 0 == vera.page.locator("[data-listen]").count()
    vera.context.close()
    assert [] == vera.problems
