"""Pages, facets and single rows: the same from SQLite and PostgreSQL, and only within a scope."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from receiver.catalogue import postings, search
from receiver.catalogue.catalogue import Catalogue
from receiver.catalogue.query import parse
from receiver.errors import BadWord, NotFoundError
from receiver.media import Finding, Track
from receiver.recording import annotations as notes
from receiver.recording.document import PreviousRecording
from tests.receiver.catalogue.conftest import DATABASES, new_url
from tests.receiver.helpers import recordings_builder as builder

HOUR_MS = 3_600_000
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
AT = "2026-11-23T00:00:00Z"
LOST = Finding("audio_lost", "20 ms in 1 gaps", Track.INBOUND)
Words = list[tuple[str, str]]


def recording_id(number: int) -> str:
    """Return the id of one of several recordings; the lowest is the newest."""
    return f"{number:02x}{'0' * 13}{number % 16:x}"


@pytest.fixture
def catalogue(url: str | None, recordings: Path) -> Iterator[Catalogue]:
    """Yield a catalogue of six recordings, one in each hour."""
    yield from made(url, recordings)


@pytest.fixture(scope="module", params=DATABASES)
def unchanged(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Catalogue]:
    """Yield the same for all tests that only read it."""
    yield from made(new_url(request), tmp_path_factory.mktemp("unchanged") / "recordings")


def made(url: str | None, recordings: Path) -> Iterator[Catalogue]:
    """Yield a catalogue of six recordings, one in each hour, and close it."""
    agents = ("Ana García", "Ben 佐藤", "Ana García", "Chloé", "Dmitri", "Ana Nowak")
    for number, agent in enumerate(agents):
        lost = number % 2
        builder.put(
            recordings,
            recording_id(number),
            started_at_ms=builder.STARTED_AT_MS - number * HOUR_MS,
            parameters={
                "queue": ("sales", "support")[number // 3],
                "agent": agent,
                "caller": f"+1555{number:07}",
                "n": number,
            },
            call_sid=f"call-{number // 2}",
            duration_ms=(number + 1) * 60_000.0,
            complete=not lost,
            findings=(LOST,) if lost else (),
        )
    with Catalogue(url, recordings) as catalogue:
        catalogue.reconcile()
        yield catalogue


def found(catalogue: Catalogue, words: Words, scope: dict[str, str] | None = None) -> list[int]:
    """Return the numbers of the recordings that a search finds, in order."""
    page = catalogue.page(parse(words, NOW, in_notes=True), scope or {})
    assert (len(page.rows), True) == (page.total, page.total_is_exact)
    return [int(row.id[:2], 16) for row in page.rows]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], [0, 1, 2, 3, 4, 5]),
        ([("sort", "oldest")], [5, 4, 3, 2, 1, 0]),
        ([("sort", "longest")], [5, 4, 3, 2, 1, 0]),
        ([("sort", "shortest"), ("param.queue", "support")], [3, 4, 5]),
        ([("sort", "longest"), ("from", "2026-11-22T18:00Z")], [2, 1, 0]),
        ([("param.queue", "sales")], [0, 1, 2]),
        ([("param.queue", "Sales")], []),
        ([("param.queue", "sal*")], [0, 1, 2]),
        ([("param.queue", "*")], [0, 1, 2, 3, 4, 5]),
        ([("param.caller", "+15550000*")], [0, 1, 2, 3, 4, 5]),
        ([("param.caller", "+15550000004*")], [4]),
        ([("param.n", "3")], [3]),
        ([("param.queue", "sales"), ("param.agent", "Ana*")], [0, 2]),
        ([("q", "gar")], [0, 2]),
        ([("q", "ana sales")], [0, 2]),
        ([("q", "佐藤")], [1]),
        ([("q", "15550000005")], [5]),
        ([("q", "155500")], [0, 1, 2, 3, 4, 5]),
        ([("q", recording_id(3))], [3]),
        ([("q", "nobody")], []),
        ([("complete", "no")], [1, 3, 5]),
        ([("finding", "audio_lost"), ("param.queue", "support")], [3, 5]),
        ([("call", "call-1")], [2, 3]),
        ([("min_duration", "2m"), ("max_duration", "3m")], [1, 2]),
        ([("min_duration", "119.9"), ("param.agent", "Ana García")], [2]),
        ([("from", "2026-11-22T18:30:00Z"), ("to", "2026-11-22T20:30:00Z")], [1, 2]),
        ([("from", "16h"), ("param.queue", "sales")], [0]),
        ([("to", "2026-11-21")], []),
        ([("state", "present"), ("track", "inbound")], []),
        ([("held", "no"), ("sort", "oldest"), ("param.queue", "support")], [5, 4, 3]),
        ([("state", "deleted")], []),
    ],
    ids=str,
)
def test_searches(unchanged: Catalogue, words: Words, expected: list[int]) -> None:
    """Every word, alone and with others."""
    assert expected == found(unchanged, words)


@pytest.mark.parametrize("sort", ["newest", "oldest", "longest", "shortest"])
@pytest.mark.parametrize("words", [[], [("q", "ana")]], ids=str)
def test_pages_follow_each_other(unchanged: Catalogue, sort: str, words: Words) -> None:
    """Every row once, in the order of the whole; and the total stands on each page."""
    whole = found(unchanged, [*words, ("sort", sort)])
    seen: list[int] = []
    after = ""
    while True:
        asked = [*words, ("sort", sort), ("limit", "2"), ("after", after)]
        page = unchanged.page(parse(asked, NOW), {})
        seen += [int(row.id[:2], 16) for row in page.rows]
        assert (len(whole), True) == (page.total, page.total_is_exact)
        if page.next_after is None:
            break
        after = page.next_after
    assert whole == seen


def test_a_cursor_of_another_order_is_refused(catalogue: Catalogue) -> None:
    """It does not say how long the last one was."""
    with pytest.raises(BadWord, match="after"):
        catalogue.page(parse([("sort", "longest"), ("after", "5")], NOW), {})


def test_totals_are_counted_so_far(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    """And said to be more, because counting a million takes long."""
    monkeypatch.setattr(search, "MOST_COUNTED", 4)
    page = catalogue.page(parse([("limit", "2")], NOW), {})
    assert (4, False) == (page.total, page.total_is_exact)


def test_too_many_are_not_sorted_by_duration(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for all there are, which lie in that order already."""
    monkeypatch.setattr(search, "MOST_SORTED", 2)
    with pytest.raises(BadWord, match="narrow them down"):
        found(catalogue, [("sort", "longest"), ("param.queue", "sales")])
    assert [5, 4, 3, 2, 1, 0] == found(catalogue, [("sort", "longest")])
    assert [1] == found(catalogue, [("sort", "longest"), ("q", "佐藤")])


def test_prefixes_of_many_words_are_asked_of_the_index(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same result."""
    monkeypatch.setattr(postings, "MOST_EXPANSIONS", 2)
    assert [0, 1, 2, 3, 4, 5] == found(catalogue, [("param.caller", "+15550000*")])
    assert [0, 1, 2, 3, 4, 5] == found(catalogue, [("q", "15550000")])
    assert [4] == found(catalogue, [("param.caller", "+15550000004*")])


def test_a_row_says_what_lists_show(catalogue: Catalogue) -> None:
    """Where it is, whose it is, how it went, in words too."""
    row = catalogue.get(recording_id(1), {})
    assert ("call-0", ["audio_lost"], False, False, 0) == (
        row.call_sid, row.findings, row.complete, row.held, row.notes,
    )  # fmt: skip
    assert {
        "queue": "sales",
        "agent": "Ben 佐藤",
        "caller": "+15550000001",
        "n": 1,
    } == row.parameters
    assert row.folder.endswith(recording_id(1))
    assert row.verdict.startswith("Not complete.")
    assert "2026-11-22T19:30:00.000Z" == row.started_at
    assert ("present", None, 64) == (row.state, row.previous, len(row.sha256))


def test_labels_notes_and_holds_are_found(catalogue: Catalogue) -> None:
    """As soon as somebody says that they have changed."""
    folder = catalogue.recordings / catalogue.get(recording_id(2), {}).folder

    def edit(now: notes.Annotations) -> notes.Annotations:
        now = notes.add_label(now, "To check", by="ana", at=AT)
        now = notes.add_note(now, "asked for a refund", note_id="1", by="ana", at=AT)
        return notes.set_hold(now, "claim 7", by="ana", at=AT)

    notes.change(folder, edit)
    catalogue.touch(recording_id(2))
    for words in ([("label", "To check")], [("q", "refun")], [("held", "yes")], [("q", "check")]):
        assert [2] == found(catalogue, words), words
    row = catalogue.get(recording_id(2), {})
    assert (["To check"], True, 1) == (row.labels, row.held, row.notes)
    notes.change(folder, lambda now: notes.remove_label(now, "To check"))
    catalogue.touch(recording_id(2))
    assert [] == found(catalogue, [("label", "To check")])
    catalogue.touch("ffffffffffffffff")  # nothing of ours


def test_notes_are_searched_only_for_who_may_read_them(catalogue: Catalogue) -> None:
    """By short and long beginnings, and in scripts without spaces; facets do not tell, either."""
    folder = catalogue.recordings / catalogue.get(recording_id(2), {}).folder
    text = "asked for a hospitalization 病院"
    notes.change(folder, lambda now: notes.add_note(now, text, note_id="1", by="ana", at=AT))
    catalogue.touch(recording_id(2))
    for searched in ("asked", "hospitaliz", "病院", "院"):
        words = [("q", searched)]
        assert [2] == found(catalogue, words)
        assert 1 == catalogue.facets(parse(words, NOW, in_notes=True), {}, NOW).counted
        assert [] == catalogue.page(parse(words, NOW), {}).rows
        assert 0 == catalogue.facets(parse(words, NOW), {}, NOW).counted


@pytest.mark.parametrize("scope", [{"queue": "sales"}, {"queue": "sales", "agent": "Ana García"}])
def test_what_is_out_of_scope_does_not_exist(catalogue: Catalogue, scope: dict[str, str]) -> None:
    """In no list, count, facet, call or id."""
    expected = [0, 1, 2] if len(scope) == 1 else [0, 2]
    assert expected == found(catalogue, [], scope)
    assert [] == found(catalogue, [("param.queue", "support")], scope)
    assert len(expected) == catalogue.facets(parse([], NOW), scope, NOW).counted
    assert 1 == len(catalogue.call("call-1", scope))
    assert [] == catalogue.call("call-2", scope)
    assert recording_id(0) == catalogue.get(recording_id(0), scope).id
    with pytest.raises(NotFoundError, match="no recording"):
        catalogue.get(recording_id(3), scope)


@pytest.mark.parametrize(("before", "is_named"), [("sales", True), ("support", False)])
def test_a_part_before_that_is_out_of_scope_is_not_named(
    url: str | None, recordings: Path, before: str, is_named: bool
) -> None:
    """By no row that may be seen: not in a list, by its id or in its call."""
    earlier = PreviousRecording(recording_id(1), "stream-1", 400)
    builder.put(recordings, recording_id(1), parameters={"queue": before})
    builder.put(recordings, recording_id(0), parameters={"queue": "sales"}, previous=earlier)
    with Catalogue(url, recordings) as catalogue:
        catalogue.reconcile()
        assert earlier == catalogue.get(recording_id(0), {}).previous
        scope = {"queue": "sales"}
        expected = earlier if is_named else None
        assert expected == catalogue.get(recording_id(0), scope).previous
        for sort in ("newest", "longest"):
            rows = catalogue.page(parse([("sort", sort)], NOW), scope).rows
            assert expected in [row.previous for row in rows if row.id == recording_id(0)]
        rows = catalogue.call(builder.CALL_SID, scope)
        assert expected in [row.previous for row in rows if row.id == recording_id(0)]


def test_ids_may_be_shortened(catalogue: Catalogue) -> None:
    """As far as they are unique among what may be seen; a folder's name will do, too."""
    row = catalogue.get(recording_id(4)[:4], {})
    assert recording_id(4) == row.id
    assert row == catalogue.get(Path(row.folder).name, {})
    for asked, problem in (("0", "no id"), ("----", "no id"), ("abcd", "no recording")):
        with pytest.raises(NotFoundError, match=problem):
            catalogue.get(asked, {})
    builder.put(catalogue.recordings, "0400ffffffffffff", parameters={"queue": "x"})
    catalogue.reconcile()
    with pytest.raises(NotFoundError, match="ambiguous: 2"):
        catalogue.get("0400", {})
    assert row == catalogue.get("0400", {"queue": "support"})


def test_the_recordings_of_a_call_are_in_order(catalogue: Catalogue) -> None:
    """The oldest first, as they were spoken."""
    assert [recording_id(3), recording_id(2)] == [row.id for row in catalogue.call("call-1", {})]
    assert [] == catalogue.call("never", {})


def test_facets_count_what_a_search_has_in_common(catalogue: Catalogue) -> None:
    """Values that are in few recordings each tell no groups apart, and are left out."""
    facets = catalogue.facets(parse([], NOW), {}, NOW)
    assert (6, True, "2026-11-16T12:00:00.000Z") == (facets.counted, facets.is_all, facets.since)
    assert [("no", 3), ("yes", 3)] == [(each.value, each.count) for each in facets.complete]
    assert [("finding", "audio_lost", 3)] == [(f.word, f.value, f.count) for f in facets.findings]
    assert {"queue"} == facets.parameters.keys()
    queues = facets.parameters["queue"]
    assert [("param.queue", "sales", 3), ("param.queue", "support", 3)] == [
        (each.word, each.value, each.count) for each in queues
    ]
    narrowed = catalogue.facets(parse([("q", "ana"), ("from", "2026-11-22")], NOW), {}, NOW)
    assert (3, "2026-11-22T00:00:00.000Z") == (narrowed.counted, narrowed.since)
    agents = narrowed.parameters["queue"]
    assert [("sales", 2), ("support", 1)] == [(each.value, each.count) for each in agents]


def test_facets_are_bounded(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    """By time, and by number: then they are of the newest, and say so."""
    monkeypatch.setattr(search, "MOST_SAMPLED", 3)
    facets = catalogue.facets(parse([], NOW), {}, NOW)
    assert (3, False) == (facets.counted, facets.is_all)
    assert ["sales"] == [each.value for each in facets.parameters["queue"]]
    later = datetime(2026, 12, 24, tzinfo=UTC)
    assert 0 == catalogue.facets(parse([], later), {}, later).counted


def test_recordings_of_the_same_millisecond_are_two(url: str | None, recordings: Path) -> None:
    """Also where their ids give the same number."""
    ids = [f"{number:08x}00000000" for number in (0, 1024, 2048, 1)]
    for each in ids:
        builder.put(recordings, each)
    with Catalogue(url, recordings) as catalogue:
        catalogue.reconcile()
        assert set(ids) == {row.id for row in catalogue.page(parse([], NOW), {}).rows}
        catalogue.rebuild()
        assert catalogue.check().is_whole
        assert set(ids) == {row.id for row in catalogue.page(parse([], NOW), {}).rows}


@pytest.mark.parametrize(
    "value",
    [
        "'",
        '"',
        "\\",
        "%",
        "a' OR 1=1 --",
        '") OR ("',
        "\0",
        "x\0y",
        "*",
        "a & b | !c",
        ":*",
        "\U0001f600",
    ],
)
def test_no_value_is_taken_for_a_part_of_a_statement(
    url: str | None, recordings: Path, value: str
) -> None:
    """It is found by itself, and finds nothing else."""
    builder.put(recordings, "aaaa000000000000", parameters={"v": value, value: "x"})
    builder.put(recordings, "bbbb000000000000", parameters={"v": "other"})

    with Catalogue(url, recordings) as catalogue:
        catalogue.reconcile()
        searches: list[Words] = [
            [("param.v", value.replace("*", "\\*"))],
            [(f"param.{value}", "x")],
        ]
        if value[0] != "\\":  # which would make the star one
            searches.append([("param.v", value[0] + "*")])
        for words in searches:
            page = catalogue.page(parse(words, NOW), {})
            assert ["aaaa000000000000"] == [row.id for row in page.rows], words
        assert 1 == catalogue.page(parse([], NOW), {"v": value}).total
