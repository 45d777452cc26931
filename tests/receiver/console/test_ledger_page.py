"""The ledger as a page, and who has heard a recording."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from receiver.console.ledger_page import ACTS, details_text, heard_by
from receiver.console.who import Role
from receiver.lifecycle.ledger import Entry
from tests.receiver.helpers import recordings_builder
from tests.receiver.helpers.consoles import Served, send_form

ID = recordings_builder.RECORDING_ID
HTML = {"Accept": "text/html"}


def entry(who: str, what: str = "heard", at: str = "2026-12-01T08:00:00.000Z", **d: Any) -> Entry:
    """Return an entry about a recording."""
    return Entry(1, at, who, "console", what, "0" * 64, ID, d)


def heard(*entries: Entry, seconds: float = 100) -> list[tuple[str, str]]:
    """Return who has heard what."""
    return [(each["who"], each["text"]) for each in heard_by(entries, seconds)]


def test_what_was_heard_is_joined() -> None:
    """A player reports every ten seconds, and people go back and forth."""
    spans = [entry("jane", from_s=start, to_s=start + 10) for start in (20, 10, 0, 60)]
    assert [("jane", "0:00 to 0:30, 1:00 to 1:10")] == heard(*spans)


def test_nearly_all_is_the_whole() -> None:
    """Nobody waits for the last silence."""
    assert [("jane", "whole")] == heard(entry("jane", from_s=0, to_s=98))


def test_many_parts_are_counted() -> None:
    """The line stays one."""
    spans = [entry("jane", from_s=10 * n, to_s=10 * n + 2) for n in range(5)]
    assert [("jane", "0:00 to 0:02, 0:10 to 0:12, 0:20 to 0:22, 2 more parts")] == heard(*spans)


def test_each_person_stands_once_the_last_first() -> None:
    """With whether the file was taken away."""
    found = [
        entry("amir", "downloaded", at="2026-12-01T09:00:00.000Z", file="stereo.wav"),
        entry("jane", from_s=0, to_s=8),
        entry("amir", from_s=0, to_s=100),
    ]
    assert [("amir", "whole, downloaded"), ("jane", "0:00 to 0:08")] == heard(*found)
    assert "2026-12-01T09:00:00.000Z" == heard_by(found, 100)[0]["at"]


def test_nobody_hears_it_without_being_named() -> None:
    """Neither live, nor by a player that does not report what it played."""
    loaded, live = entry("leo", "fetched", from_s=0, to_s=60), entry("amir", "listened_live")
    played = [entry("jane", from_s=0, to_s=8), entry("jane", "fetched", from_s=0, to_s=60)]
    expected = [("leo", "loaded"), ("amir", "live"), ("jane", "0:00 to 0:08")]
    assert expected == heard(loaded, live, *played)


def test_entries_of_a_later_version_break_nothing() -> None:
    """Their details may be anything."""
    assert [("jane", "")] == heard(entry("jane", from_s="soon", to_s=None))
    assert "x [1], y z" == details_text({"x": [1], "y": "z", "none": None})
    assert "from_s 1" == details_text({"from_s": 1})
    assert "0:01 to 0:03, file a" == details_text({"file": "a", "from_s": 1, "to_s": 2.6})


def test_every_word_of_the_ledger_can_be_chosen() -> None:
    """It is the union of several literals."""
    assert {"published", "heard", "held", "token_revoked"} < set(ACTS)


@pytest.mark.integration
async def test_the_page_shows_who_did_what(served: Served) -> None:
    """Newest first, as a page, as JSON and as a table; a filter is in the address."""
    recordings_builder.build(served.console.catalogue.recordings)
    served.console.catalogue.reconcile()
    served.add("ada", Role.ADMIN)
    async with await served.signed_in("ada") as browser:
        await send_form(browser, f"/recordings/{ID}/labels", name="training")
        await send_form(browser, f"/recordings/{ID}/hold", reason="court")
        page = (await browser.get("/ledger", headers=HTML)).text
        assert page.index("reason court") < page.index("label training")
        found = (await browser.get(f"/ledger.json?what=labelled&recording={ID}")).json()
        assert ["labelled"] == [each["what"] for each in found["entries"]]
        assert "ada" == found["entries"][0]["who"]
        table = list(csv.DictReader(io.StringIO((await browser.get("/ledger.csv")).text)))
        assert {"held", "labelled"} <= {line["what"] for line in table}
        assert 400 == (await browser.get("/ledger?before=x")).status_code
        nothing = (await browser.get("/ledger?who=nobody", headers=HTML)).text
        assert "Show all" in nothing


@pytest.mark.integration
async def test_the_page_leads_to_older_entries(served: Served) -> None:
    """A hundred at a time; the table has all."""
    for number in range(130):
        served.console.ledger.append("heard", who="jane", via="test", recording=f"{number:016x}")
    async with served.browser(headers=served.token("ada", Role.ADMIN)) as browser:
        first = (await browser.get("/ledger.json?what=heard")).json()
        second = (await browser.get(first["next_url"].replace("?", ".json?"))).json()
        table = (await browser.get("/ledger.csv?what=heard")).text
    assert 130 == len(list(csv.DictReader(io.StringIO(table))))
    assert [100, 30] == [len(first["entries"]), len(second["entries"])]
    assert first["entries"][-1]["n"] == second["entries"][0]["n"] + 1
    assert second["next_url"] is None


@pytest.mark.integration
async def test_what_is_out_of_scope_is_not_in_it(served: Served) -> None:
    """Nor is what is about no recording; nor does the head tell how much there is."""
    recordings = served.console.catalogue.recordings
    recordings_builder.build(recordings, parameters={"queue": "sales"})
    recordings_builder.build(recordings, recording_id="11" * 8)
    served.console.catalogue.reconcile()
    for recording in (ID, "11" * 8, ""):
        served.console.ledger.append("heard", who="jane", via="test", recording=recording)
    headers = served.token("sam", Role.ADMIN, {"queue": "sales"})
    async with served.browser(headers=headers) as browser:
        found = (await browser.get("/ledger.json")).json()
    assert {ID} == {each["recording"] for each in found["entries"]}
    assert str(served.console.ledger.head()) not in str(found)


@pytest.mark.integration
async def test_no_number_tells_how_much_others_did(served: Served) -> None:
    """Whoever is limited leafs by hashes, on the page, in the table and in the API."""
    recordings = served.console.catalogue.recordings
    recordings_builder.build(recordings, parameters={"queue": "sales"})
    served.console.catalogue.reconcile()
    for number in range(210):  # every other one is of what does not exist for them
        recording = (ID, "11" * 8)[number % 2]
        served.console.ledger.append("heard", who="jane", via="test", recording=recording)
    headers = served.token("sam", Role.ADMIN, {"queue": "sales"})
    async with served.browser(headers=headers) as browser:
        first = (await browser.get("/ledger.json")).json()
        second = (await browser.get(first["next_url"].replace("?", ".json?"))).json()
        table = (await browser.get("/ledger.csv")).text
        api = f"/api/v1/recordings/{ID}/ledger"
        page = (await browser.get(f"{api}?limit=60")).json()
        last = (await browser.get(page["next"])).json()
        assert 400 == (await browser.get("/ledger?before=7")).status_code
        assert 400 == (await browser.get(f"{api}?before=7")).status_code
    shown = [*first["entries"], *second["entries"]]
    assert [100, 5, None] == [*(len(p["entries"]) for p in (first, second)), second["next_url"]]
    assert 105 == len({each["prev"] for each in shown})
    assert {0} == {each["n"] for each in shown + page["entries"] + last["entries"]}
    assert {"0"} == {line["n"] for line in csv.DictReader(io.StringIO(table))}
    assert [60, 45] == [len(page["entries"]), len(last["entries"])]


@pytest.mark.integration
async def test_a_recording_says_who_has_heard_it(served: Served) -> None:
    """To managers."""
    recordings_builder.build(served.console.catalogue.recordings)
    served.console.catalogue.reconcile()
    served.console.ledger.append("heard", who="jane", via="x", recording=ID, from_s=0, to_s=0.4)
    async with served.browser(headers=served.token("max", Role.MANAGER)) as browser:
        found = (await browser.get(f"/recordings/{ID}.json")).json()
        page = (await browser.get(f"/recordings/{ID}", headers=HTML)).text
    assert [("jane", "0:00 to 0:00")] == [(each["who"], each["text"]) for each in found["heard"]]
    assert "Heard by" in page
