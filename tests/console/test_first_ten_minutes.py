"""A new user's first ten minutes, by keyboard only.

A call is seen and heard while it is spoken; another is found, heard, noted, passed on, downloaded.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import signal
import struct
import subprocess
import sys
import wave
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, Page

from receiver.lifecycle.ledger import EntryFilter, Ledger
from receiver.recording.document import Recording
from tests.bounds import at_most
from tests.console.conftest import Visit, watched
from tests.console.speaker import EARS
from tests.end_to_end.receiver_process import ReceiverProcess

WAIT_SECONDS: Final = at_most(60)
NOTE: Final = "asks for the invoice number"


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[ReceiverProcess]:
    """Yield what `make run` starts."""
    options = ("--self-signed", "--demo", "--console", "--console-port", "0")
    found = ReceiverProcess(tmp_path, *options, token_file=False)
    yield found
    assert 0 == found.stop(signal.SIGINT)
    found.release()
    assert "Traceback" not in found.raw_log


def printed(receiver: ReceiverProcess, pattern: str) -> str:
    """Return what a line that the receiver prints says."""
    assert receiver.process.stdout is not None
    for line in receiver.process.stdout:
        if match := re.match(pattern, line):
            return match[1]
    raise AssertionError(receiver.raw_log)


def place_call(receiver: ReceiverProcess, command: str) -> Recording:
    """Place a simulated call with a parameter, as fast as it goes; return its document."""
    words = [*shlex.split(command), "--speed", "0", "--param", "agent=Noor"]
    subprocess.run(words, cwd=receiver.folder, check=True, timeout=WAIT_SECONDS)
    return receiver.published()[1]


def see_and_hear_live(visit: Visit, receiver: ReceiverProcess, command: str) -> None:
    """See a call while it is spoken, and listen to it."""
    page, file = visit.page, receiver.folder / "tone.wav"
    with wave.open(str(file), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(struct.pack("<2h", 8000, -8000) * 2000 * round(4 * WAIT_SECONDS))
    words = [word for word in shlex.split(command) if word != "--demo"]
    words += ["--inbound", str(file), "--outbound", str(file), "--param", "agent=Mara"]
    with subprocess.Popen(words, cwd=receiver.folder) as call:
        try:
            page.wait_for_selector(".call h2:has-text('Mara')")
            tab_to(page, "[data-listen]")
            page.keyboard.press("Enter")
            visit.wait_until("Math.min(ears.left, ears.right) > 0.1")
            page.wait_for_selector("[data-field=listening_text]:has-text('demo listens')")
            visit.keep_picture("first-ten-minutes-live")
        finally:
            call.terminate()
    page.wait_for_selector("#live-empty:visible")
    receiver.published()
    wanted = EntryFilter(what=frozenset({"listening_live", "listened_live"}))
    entries = list(Ledger(receiver.recordings).read(wanted))
    assert {"demo": 2} == Counter(entry.who for entry in entries)


def window(browser: Browser, url: str) -> Visit:
    """Return a window that trusts the certificate, which nobody has signed."""
    context = browser.new_context(ignore_https_errors=True, accept_downloads=True)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(WAIT_SECONDS * 1000)
    return watched(context, url)


def tab_to(page: Page, selector: str) -> None:
    """Press the tab key until the focus is on an element."""
    for _ in range(80):
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"no way leads to {selector}")


def link_of(receiver: ReceiverProcess, user: str) -> str:
    """Add a listener, and return the code of a link that signs in."""
    place = ("--recordings", str(receiver.recordings))
    program = (sys.executable, "-m", "receiver", "user")
    for words in (("add", user, "--role", "listener", "--no-password"), ("link", user)):
        done = subprocess.run(
            (*program, *words, *place),
            cwd=receiver.folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
        )
    return done.stdout.strip().rpartition("#")[2]


def test_the_first_ten_minutes(browser: Browser, receiver: ReceiverProcess) -> None:
    """Nothing but keys is pressed, and what was heard is in the ledger at the end."""
    link = printed(receiver, r"console (\S+/login#\S+)")
    receiver.published()
    command = printed(receiver, r"another call: (.*)")
    document = place_call(receiver, command)
    visit = window(browser, link.partition("login#")[0])
    page = visit.page
    visit.context.add_init_script(EARS)
    page.goto(link)
    page.wait_for_url(visit.url)
    see_and_hear_live(visit, receiver, command)
    find(page, visit, document)
    hear(page, visit)
    write_note(page, visit)
    address = copy_link(page)
    look_elsewhere(browser, visit.url, link_of(receiver, "leo"), address)
    assert document.tracks[0].sha256 == download(page)
    visit.go(f"/recordings/{document.id}")
    heard = page.inner_text("section:has(h2:text-is('Heard by'))")
    assert re.search(r"demo.*0:00 to 0:0\d.*downloaded", heard, re.DOTALL)
    visit.keep_picture("first-ten-minutes")
    visit.context.close()
    assert [] == visit.problems


def find(page: Page, visit: Visit, document: Recording) -> None:
    """Search for a parameter, and open what is found."""
    page.keyboard.press("/")
    page.keyboard.type("Noor")
    page.keyboard.press("Enter")
    page.wait_for_url("**/recordings?q=Noor")
    visit.wait_until("document.querySelectorAll('tbody tr').length === 1")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/recordings/{document.id}")
    page.wait_for_selector("#player[data-ready]")
    assert "Everything that was sent is here." in page.inner_text("main")


def hear(page: Page, visit: Visit) -> None:
    """Play two seconds."""
    page.keyboard.press("Space")
    visit.wait_until("tapreelPlayer.position > 2")
    with page.expect_response("**/heard") as told:
        page.keyboard.press("Space")
    assert told.value.ok


def write_note(page: Page, visit: Visit) -> None:
    """Write a note at the moment where it stands."""
    at = page.inner_text("#at")
    page.keyboard.press("n")
    page.keyboard.type(NOTE)
    tab_to(page, "#note-menu button")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=The note is there.")
    page.wait_for_selector("#player[data-ready]")
    assert NOTE in page.inner_text("#events")
    page.keyboard.press("Shift+ArrowRight")
    while NOTE not in (page.get_attribute(f"[data-at='{position(page)}'] a", "title") or ""):
        page.keyboard.press("Shift+ArrowRight")
    assert page.inner_text("#at").startswith(at[:-1])


def position(page: Page) -> str:
    """Return where the player stands, as the page's markup has it."""
    return f"{page.evaluate('tapreelPlayer.position')}"


def copy_link(page: Page) -> str:
    """Return the link to this moment."""
    page.keyboard.press("c")
    page.wait_for_selector("text=Copied")
    return str(page.evaluate("navigator.clipboard.readText()"))


def look_elsewhere(browser: Browser, url: str, code: str, address: str) -> None:
    """Open the link in another session, where it leads to the same moment."""
    visit = window(browser, url)
    visit.go(f"login#{code}")
    visit.page.wait_for_url(url)
    visit.page.goto(address)
    visit.page.wait_for_selector("#player[data-ready]")
    assert float(address.partition("?t=")[2]) == visit.page.evaluate("tapreelPlayer.position")
    assert NOTE in visit.page.inner_text("#events")
    visit.context.close()
    assert [] == visit.problems


def download(page: Page) -> str:
    """Download the caller's track; return the SHA-256 of the file."""
    tab_to(page, "summary.primary")
    page.keyboard.press("Enter")
    tab_to(page, "a[href$='inbound.wav']")
    with page.expect_download() as started:
        page.keyboard.press("Enter")
    return hashlib.sha256(Path(started.value.path()).read_bytes()).hexdigest()
