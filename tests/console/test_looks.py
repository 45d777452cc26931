"""Every page in light and dark, wide and narrow: nothing is in the way of anybody."""

from __future__ import annotations

from typing import Final

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.console.conftest import RunningConsole, Visit

NARROW, WIDE = 360, 1280
PAGES: Final = {
    "live": "/",
    "recordings": "/recordings",
    "searched": "/recordings?from=24h&complete=no",
    "nothing_found": "/recordings?q=nobody",
    "recording": "/recordings/{gaps}",
    "call": "/calls/{call}",
    "ledger": "/ledger",
    "deliveries": "/deliveries",
    "users": "/users",
    "health": "/health",
    "help": "/help",
}


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_nothing_keeps_anybody_from_a_page(console: RunningConsole, width: int) -> None:
    """Axe finds nothing, no page is wider than its window, none logs or asks elsewhere."""
    found = []
    visit = console.visit(viewport={"width": width, "height": 800})
    for name, path in PAGES.items():
        visit.page.emulate_media(color_scheme="light")
        visit.go(path.format(**console.ids))
        visit.page.wait_for_load_state("networkidle")
        found += [f"{name}: {each['id']}: {each['nodes'][0]['html']}" for each in violations(visit)]
        too_wide = visit.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert 0 >= too_wide, name
        visit.keep_picture(f"{name}-light-{width}")
        found += [f"{name}: dark: {each['nodes'][0]['html']}" for each in violations_in_dark(visit)]
        visit.keep_picture(f"{name}-dark-{width}")
    visit.context.close()
    assert [] == found
    assert [] == visit.problems


def test_nothing_keeps_anybody_from_signing_in(console: RunningConsole) -> None:
    """Nor from understanding why something is not there."""
    for user, path, name in (
        (None, "/recordings", "login"),
        ("ada", "/recordings/00000000", "error"),
    ):
        visit = console.visit(user, color_scheme="light")
        visit.go(path)
        assert [] == violations(visit)
        visit.keep_picture(f"{name}-light")
        assert [] == violations_in_dark(visit)
        visit.keep_picture(f"{name}-dark")
        visit.context.close()
        assert user or [] == visit.problems


def violations(visit: Visit, **options: object) -> list[dict[str, list[dict[str, str]]]]:
    """Return what axe finds on the page that is shown."""
    options = {"resultTypes": ["violations"], **options}
    found: list[dict[str, list[dict[str, str]]]] = (
        Axe().run(visit.page, options=options).response["violations"]
    )
    return found


def violations_in_dark(visit: Visit) -> list[dict[str, list[dict[str, str]]]]:
    """Return what axe finds of the page's dark colours: nothing else follows the scheme."""
    visit.page.emulate_media(color_scheme="dark")
    return violations(visit, runOnly=["color-contrast"])


def test_menus_and_help_open_and_close_by_keys(console: RunningConsole) -> None:
    """And axe finds nothing in them either."""
    visit = console.visit()
    visit.go(f"/recordings/{console.ids['gaps']}")
    page = visit.page
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    assert [] == violations(visit)
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()
    page.keyboard.press("n")
    assert page.locator("textarea").evaluate("e => e === document.activeElement")
    assert [] == violations(visit)
    page.keyboard.press("Escape")
    assert not page.locator("textarea").is_visible()
    visit.context.close()
    assert [] == visit.problems
