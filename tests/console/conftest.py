"""A console of sample recordings, a browser, and people who are signed in with it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from receiver.catalogue.catalogue import Catalogue
from receiver.console.accounts import Accounts
from receiver.console.who import Role
from tests.bounds import at_most
from tests.console import samples

CHROMIUM: Final = "/usr/bin/chromium"
ARGUMENTS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
SCREENSHOTS: Final = os.environ.get("TAPREEL_SCREENSHOTS", "")
"""A folder in which pictures of the pages are kept."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the browser, which is all of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.needs("chromium"))


@dataclass
class Visit:
    """A browser window of somebody; `problems` is what a page logged, or fetched from elsewhere."""

    context: BrowserContext
    page: Page
    url: str
    problems: list[str] = field(default_factory=list)

    def go(self, path: str) -> None:
        """Open a page of the console, and wait until it is shown."""
        self.page.goto(self.url + path.lstrip("/"))

    def wait_until(self, expression: str) -> None:
        """Wait until an expression of JavaScript is true of the page.

        Playwright's own way compiles a text within the page, which our policy of content forbids.
        """
        deadline = time.monotonic() + at_most(30)
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, expression
            self.page.wait_for_timeout(20)

    def keep_picture(self, name: str) -> None:
        """Keep a picture of what is seen, where a folder for pictures is given."""
        if SCREENSHOTS:
            Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")


@dataclass(frozen=True)
class RunningConsole:
    """A console that serves; `ids` are the sample recordings by name."""

    url: str
    recordings: Path
    ids: dict[str, str]
    browser: Browser

    def visit(self, user: str | None = "ada", **options: Any) -> Visit:
        """Open a window of a signed-in user, or of nobody; everything elsewhere is blocked."""
        options = {"viewport": {"width": 1280, "height": 800}, "timezone_id": "UTC"} | options
        context = self.browser.new_context(**options)
        context.set_default_timeout(at_most(30) * 1000)
        visit = watched(context, self.url)
        if user is not None:
            with Catalogue(None, self.recordings) as catalogue:
                code = Accounts(catalogue.database).make_link(user)
            if options.get("java_script_enabled", True):
                visit.go(f"login#{code}")
                visit.page.wait_for_url(self.url)
            else:
                visit.go("login")
                visit.page.fill("[name=code]", code)
                visit.page.click("text=Use it")
        return visit


def watched(context: BrowserContext, url: str) -> Visit:
    """Return a window in which nothing of another host is let through, and nothing goes unseen."""
    visit = Visit(context, context.new_page(), url)

    def route(route: Any) -> None:
        if route.request.url.startswith((url, "blob:", "data:")):
            route.continue_()
        else:
            visit.problems.append(f"asks for {route.request.url}")
            route.abort()

    context.route("**/*", route)

    def logged(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            visit.problems.append(message.text)

    visit.page.on("console", logged)
    visit.page.on("pageerror", lambda error: visit.problems.append(str(error)))
    return visit


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield the system's Chromium; each window has a profile of its own.

    It ends with the module: as long as Playwright runs, its event loop does, and no test of
    another module that is asynchronous could have one.
    """
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield found
        found.close()


@pytest.fixture(scope="session")
def samples_console(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, Path, dict[str, str]]]:
    """Yield a console of a process of its own, with one account of each role.

    It is its URL, the recordings folder, and the ids of the sample recordings by name.
    """
    folder = tmp_path_factory.mktemp("console")
    recordings = folder / "recordings"
    root = tmp_path_factory.getbasetemp()
    of_all = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    ids = samples.copied(of_all / "samples", recordings)
    with Catalogue(None, recordings) as catalogue:
        catalogue.rebuild()
        accounts = Accounts(catalogue.database)
        for name, role in (
            ("ada", Role.ADMIN),
            ("max", Role.MANAGER),
            ("leo", Role.LISTENER),
            ("vera", Role.VIEWER),
        ):
            accounts.add(name, role, {})
    command = (sys.executable, "-m", "receiver", "console", "--no-tls", "--console-port", "0")
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[1]
        try:
            yield url, recordings, ids
        finally:
            process.terminate()
            process.wait(at_most(30))


@pytest.fixture(scope="module")
def console(browser: Browser, samples_console: tuple[str, Path, dict[str, str]]) -> RunningConsole:
    """Return the console of sample recordings, and a browser for it."""
    return RunningConsole(*samples_console, browser)


@pytest.fixture
def visit(console: RunningConsole) -> Iterator[Visit]:
    """Yield a window of the admin; at the end nothing may have been logged or blocked."""
    found = console.visit()
    yield found
    found.context.close()
    assert [] == found.problems
