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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_nothing_keeps_anybody_from_a_page(
    console: RunningConsole, scheme: str, width: int
) -> None:
    """Axe finds nothing, no page is wider than its window, none logs or asks elsewhere."""
    found = []
    visit = console.visit(color_scheme=scheme, viewport={"width": width, "height": 800})
    for name, path in PAGES.items():
        visit.go(path.format(**console.ids))
        visit.page.wait_for_load_state("networkidle")
        found += [f"{name}: {each['id']}: {each['nodes'][0]['html']}" for each in violations(visit)]
        too_wide = visit.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert 0 >= too_wide, name
        visit.keep_picture(f"{name}-{scheme}-{width}")
    visit.context.close()
    assert [] == found
    assert [] == visit.problems


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_anybody_from_signing_in(console: RunningConsole, scheme: str) -> None:
    """Nor from understanding why something is not there."""
    visit = console.visit(None, color_scheme=scheme)
    visit.go("/recordings")
    assert [] == violations(visit)
    visit.keep_picture(f"login-{scheme}")
    visit.context.close()
    assert [] == visit.problems
    visit = console.visit(color_scheme=scheme)
    visit.go("/recordings/00000000")
    assert [] == violations(visit)
    visit.keep_picture(f"error-{scheme}")
    visit.context.close()


def violations(visit: Visit) -> list[dict[str, list[dict[str, str]]]]:
    """Return what axe finds on the page that is shown."""
    found: list[dict[str, list[dict[str, str]]]] = Axe().run(visit.page).response["violations"]
    return found


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
