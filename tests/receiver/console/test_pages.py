"""The pages about recordings, asked for as a browser and as a program does."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

from receiver.console.who import Role
from receiver.lifecycle.acts import Acts
from receiver.lifecycle.ledger import EntryFilter
from receiver.recording.document import PreviousRecording
from tests.receiver.helpers import recordings_builder
from tests.receiver.helpers.consoles import Served

pytestmark = pytest.mark.integration
HOUR_MS = 3_600_000
ID = recordings_builder.RECORDING_ID
HTML = {"Accept": "text/html"}


def publish(served: Served, number: int = 0, **fields: object) -> Path:
    """Put a recording into the folder, and its row into the catalogue."""
    fields = {"recording_id": f"{number:016x}"} | fields if number else fields
    started = recordings_builder.STARTED_AT_MS + number * HOUR_MS
    recordings = served.console.catalogue.recordings
    folder = recordings_builder.build(recordings, started_at_ms=started, **fields)  # type: ignore[arg-type]
    served.console.catalogue.reconcile()
    return folder


async def test_the_list_shows_what_there_is_newest_first(served: Served) -> None:
    """As a page, and as JSON with the same values."""
    publish(served, 1, parameters={"queue": "sales"})
    publish(served, 2, parameters={"queue": "support"})
    headers = served.token("jane", Role.VIEWER)
    async with served.browser(headers=headers) as browser:
        page = await browser.get("/recordings", headers=HTML)
        twin = (await browser.get("/recordings.json")).json()
    assert 200 == page.status_code
    assert page.text.index("support") < page.text.index("sales")
    assert ["0000000000000002", "0000000000000001"] == [row["id"] for row in twin["rows"]]
    assert "2 recordings" in page.text


async def test_a_search_is_in_the_address_and_can_be_taken_apart(served: Served) -> None:
    """Each filter has a link that removes it, and each value of a facet one that adds it."""
    for number in (1, 2):
        publish(served, number, parameters={"queue": "sales"})
        publish(served, number + 2, parameters={"queue": "support"})
    headers = served.token("jane", Role.VIEWER)
    async with served.browser(headers=headers) as browser:
        asked = "/recordings.json?from=2026-11-01&param.queue=sales&complete=no"
        found = (await browser.get(asked)).json()
        assert [2, 1] == [int(row["id"], 16) for row in found["rows"]]
        by_name = {each["name"]: each["url"] for each in found["filters"]}
        assert "/recordings?complete=no&from=2026-11-01" == by_name["queue"]
        whole = (await browser.get("/recordings.json?from=2026-11-01")).json()
        (facet,) = [facet for facet in whole["facets"] if facet["title"] == "queue"]
        urls = {value["text"]: value["url"] for value in facet["values"]}
        assert "/recordings?from=2026-11-01&param.queue=sales" == urls["sales"]
        (chosen,) = [facet for facet in found["facets"] if facet["title"] == "queue"]
        assert [True] == [value["is_chosen"] for value in chosen["values"]]


async def test_pages_follow_each_other(served: Served) -> None:
    """By the link to the older ones, until there is none."""
    for number in range(1, 6):
        publish(served, number)
    headers = served.token("jane", Role.VIEWER)
    seen, url = [], "/recordings?limit=2"
    async with served.browser(headers=headers) as browser:
        while url:
            page = (await browser.get(url.replace("?", ".json?", 1))).json()
            seen += [int(row["id"], 16) for row in page["rows"]]
            url = page["next_url"]
    assert [5, 4, 3, 2, 1] == seen


async def test_the_table_has_all_pages(served: Served) -> None:
    """A spreadsheet gets what was searched for, whole."""
    for number in range(1, 4):
        publish(served, number, parameters={"queue": "=1+1"})
    headers = served.token("jane", Role.VIEWER)
    async with served.browser(headers=headers) as browser:
        answer = await browser.get("/recordings.csv?sort=oldest")
    lines = list(csv.DictReader(io.StringIO(answer.text)))
    assert "text/csv; charset=utf-8" == answer.headers["content-type"]
    assert ["'=1+1"] * 3 == [line["param.queue"] for line in lines]
    assert [1, 2, 3] == [int(line["id"], 16) for line in lines]


async def test_the_table_is_in_the_ledger_with_what_was_searched_for(served: Served) -> None:
    """A search that cannot be used gives no table, and no entry."""
    publish(served)
    async with served.browser(headers=served.token("jane", Role.VIEWER)) as browser:
        await browser.get("/recordings.csv?sort=oldest&q=sales")
        assert 400 == (await browser.get("/recordings.csv?colour=red")).status_code
    (entry,) = served.console.ledger.read(EntryFilter(what=frozenset({"exported"})))
    assert ("jane", "") == (entry.who, entry.recording)
    assert {"file": "recordings.csv", "search": "q=sales&sort=oldest"} == entry.details


@pytest.mark.parametrize("path", ["/recordings", "/recordings.json", "/recordings.csv"])
async def test_a_bad_word_is_named(served: Served, path: str) -> None:
    """With what there is in its place."""
    async with served.browser(headers=served.token("jane", Role.VIEWER)) as browser:
        answer = await browser.get(f"{path}?colour=red")
    assert 400 == answer.status_code
    assert "colour" in answer.text


@pytest.mark.parametrize("query", ["", "?q=nobody", "?from=1h"])
async def test_an_empty_list_says_what_to_do(served: Served, query: str) -> None:
    """Where there is nothing at all, how to make a recording."""
    async with served.browser(headers=served.token("jane", Role.VIEWER)) as browser:
        page = await browser.get(f"/recordings{query}", headers=HTML)
    assert ("starter simulate" in page.text) is (query == "")
    assert ("Show all recordings" in page.text) is (query != "")


async def test_a_recording_says_what_is_missing_in_words(served: Served) -> None:
    """On its page, and in its JSON."""
    publish(served)
    async with served.browser(headers=served.token("jane", Role.LISTENER)) as browser:
        page = await browser.get(f"/recordings/{ID}", headers=HTML)
        twin = (await browser.get(f"/recordings/{ID}.json")).json()
    sentence = "20 ms of the caller are missing at 0:00.1: the packets never arrived."
    assert sentence in page.text
    assert sentence in twin["verdict"]["text"]
    assert 'id="player"' in page.text


async def test_a_viewer_has_nothing_to_play_or_to_change(served: Served) -> None:
    """Nor has a listener anything to change, nor sees who has heard it."""
    publish(served)
    listener = served.token("leo", Role.LISTENER)
    async with served.browser(headers=served.token("vera", Role.VIEWER)) as browser:
        page = (await browser.get(f"/recordings/{ID}", headers=HTML)).text
        audible = (await browser.get(f"/recordings/{ID}", headers=HTML | listener)).text
        twin = (await browser.get(f"/recordings/{ID}.json")).text
    for text in ('id="player"', "stereo.wav", "<canvas"):
        assert text not in page
        assert text in audible
    for text in ("/notes", "/hold", "Heard by"):
        assert text not in audible
    assert "key 5" not in page + twin
    assert "key 5" in audible


async def test_a_viewer_reads_no_notes(served: Served) -> None:
    """On the page, in its JSON, in the API, nor why it is held; whoever may hear it reads all."""
    folder = publish(served)
    acts = Acts(served.console.config.recordings, who="mia", via="console")
    acts.add_note(folder, "She named her doctor.", t_ms=None)
    acts.add_note(folder, "Her doctor again.", t_ms=20)
    acts.hold(folder, "The court asked.")
    await served.settled()
    listener = served.token("leo", Role.LISTENER)
    async with served.browser(headers=served.token("vera", Role.VIEWER)) as browser:
        for path in (f"/recordings/{ID}", f"/recordings/{ID}.json", f"/api/v1/recordings/{ID}"):
            seen = (await browser.get(path, headers=HTML)).text
            heard = (await browser.get(path, headers=HTML | listener)).text
            for secret in ("doctor", "court", "mia"):
                assert secret not in seen
                assert secret in heard
        (row,) = (await browser.get("/recordings.json")).json()["rows"]
        assert (2, True) == (row["notes"], row["held"])
        assert "It is held" in (await browser.get(f"/recordings/{ID}", headers=HTML)).text


async def test_a_viewer_finds_nothing_by_notes(served: Served) -> None:
    """In the list, its table, its totals and facets, and in the API."""
    folder = publish(served)
    acts = Acts(served.console.config.recordings, who="mia", via="console")
    acts.add_note(folder, "She named her doctor.", t_ms=None)
    await served.settled()
    listener = served.token("leo", Role.LISTENER)
    async with served.browser(headers=served.token("vera", Role.VIEWER)) as browser:
        for path in ("/recordings.json", "/recordings.csv", "/api/v1/recordings"):
            assert ID not in (await browser.get(f"{path}?q=doctor")).text
            assert ID in (await browser.get(f"{path}?q=doctor", headers=listener)).text
        facets = [
            (await browser.get("/api/v1/facets?q=doctor&from=2000-01-01", headers=given)).json()
            for given in ({}, listener)
        ]
    assert [0, 1] == [found["counted"] for found in facets]


async def test_markup_of_a_caller_stays_text(served: Served) -> None:
    """In attributes, too."""
    evil = "\"><script>alert(1)</script>'"
    publish(served, parameters={evil: evil}, call_sid=evil)
    async with served.browser(headers=served.token("jane", Role.ADMIN)) as browser:
        for path in (
            "/recordings",
            f"/recordings/{ID}",
            f"/recordings?q=script&param.{evil}={evil}",
        ):
            page = (await browser.get(path, headers=HTML)).text
            assert "alert(1)" in page
            assert "<script>alert" not in page
            assert re.findall(r"<script(?! type=\"module\" src=\"/static/)", page) == []


async def test_no_page_has_code_or_style_of_its_own(served: Served) -> None:
    """The policy of content permits neither, nor another host."""
    publish(served)
    async with served.browser(headers=served.token("jane", Role.ADMIN)) as browser:
        for path in ("/", "/recordings", f"/recordings/{ID}", "/help", "/users", "/health"):
            page = (await browser.get(path, headers=HTML)).text
            assert [] == re.findall(r"\s(?:style|on\w+)=|<style|https?://(?!www\.w3\.org/)", page)


async def test_the_list_is_small_over_the_wire(served: Served) -> None:
    """A first page with its style and scripts is at most 60 kB."""
    for number in range(1, 51):
        publish(served, number, parameters={"queue": "sales", "agent": f"Jane {number}", "c": "4"})
    size = 0
    async with served.browser(headers=served.token("jane", Role.ADMIN)) as browser:
        todo, seen = ["/recordings"], set[str]()
        while todo:
            path = todo.pop()
            seen.add(path)
            async with browser.stream("GET", path, headers=HTML) as answer:
                size += sum([len(part) async for part in answer.aiter_raw()])
            async with browser.stream("GET", path, headers=HTML) as answer:
                text = (await answer.aread()).decode()
            found = re.findall(r'(?:href|src)="(/static/[^"]+)"', text)
            folder = path.rpartition("/")[0]
            found += [f"{folder}/{name}" for name in re.findall(r'from "\./([\w.]+)"', text)]
            todo += [each for each in found if each not in seen and each not in todo]
    assert any(path.endswith("player.js") for path in seen)
    assert size <= 60_000


async def test_a_call_is_its_recordings_in_order(served: Served) -> None:
    """With what is missing between them."""
    first = publish(served, 1)
    publish(served, 2, previous=PreviousRecording("0000000000000001", "s", 1500))
    publish(served, 3)
    sid = recordings_builder.CALL_SID
    assert first.exists()
    async with served.browser(headers=served.token("jane", Role.LISTENER)) as browser:
        page = await browser.get(f"/calls/{sid}", headers=HTML)
        call = (await browser.get(f"/calls/{sid}.json")).json()["call"]
        missing = await browser.get("/calls/other", headers=HTML)
    assert 200 == page.status_code
    assert [
        "",
        "The stream went on 1.5 s later, by the sender's clock.",
        "Another stream of the call, which began 59 min 59 s later.",
    ] == [part["before"] for part in call["parts"]]
    assert 404 == missing.status_code


async def test_what_is_out_of_scope_is_not_there(served: Served) -> None:
    """Neither in the list and its table, nor in facets and counts, nor by its address."""
    publish(served, 1, parameters={"queue": "sales"})
    publish(served, 2, parameters={"queue": "support"}, call_sid="call-2")
    headers = served.token("sam", Role.ADMIN, {"queue": "sales"})
    async with served.browser(headers=headers) as browser:
        found = (await browser.get("/recordings.json?from=2026-11-01")).json()
        table = (await browser.get("/recordings.csv")).text
        refused = [
            (await browser.get(path, headers=HTML)).status_code
            for path in ("/recordings/0000000000000002", "/calls/call-2")
        ]
        health = (await browser.get("/health.json")).text
    assert 1 == found["total"]["count"]
    assert "support" not in str(found)
    assert "support" not in table
    assert [404, 404] == refused
    assert "recordings; follows" not in health


async def test_files_that_cannot_be_read_are_told(served: Served) -> None:
    """With what can be done."""
    folder = publish(served)
    (folder / "recording.json").write_text("{}")
    async with served.browser(headers=served.token("jane", Role.LISTENER)) as browser:
        page = await browser.get(f"/recordings/{ID}", headers=HTML)
    assert 503 == page.status_code
    assert f"receiver verify {ID}" in page.text


async def test_help_names_every_word_of_a_search(served: Served) -> None:
    """It is where people look for them."""
    from receiver.catalogue.query import WORDS

    async with served.browser(headers=served.token("jane", Role.VIEWER)) as browser:
        page = (await browser.get("/help", headers=HTML)).text
    assert [] == [word for word in WORDS if word not in page and word not in ("after", "state")]
