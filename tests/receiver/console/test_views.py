"""What pages show, as values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from receiver.catalogue.rows import Row
from receiver.console import views
from receiver.media import Finding, GapKind, Track, TrackGap
from receiver.recording import annotations as notes
from receiver.recording import store
from receiver.recording.annotations import Annotations
from tests.receiver.helpers import recordings_builder

AT = "2026-12-01T08:00:00.000Z"
ROW = Row(
    id="00112233aabbccdd",
    folder="2026/11/22/x",
    state="present",
    call_sid="76ac3c36-aaaa-4bbb-8ccc-ddddeeeeffff",
    stream_sid="s",
    account_sid="a",
    provider="signalwire",
    started_at="2026-11-22T20:30:00.000Z",
    duration_ms=20000.0,
    tracks=["inbound", "outbound"],
    complete=False,
    findings=["audio_lost"],
    verdict="Not complete.",
    lost_ms=320.0,
    paused_ms=0.0,
    parameters={"queue": "sales", "agent": "Jane", "n": 5},
    labels=["training"],
    held=True,
    notes=2,
    previous=None,
    sha256="0" * 64,
)


def shown(folder: Path, annotations: Annotations | None = None) -> dict[str, Any]:
    """Return what the page of a recording in a folder shows."""
    return views.recording_view(store.read(folder).recording, annotations or Annotations())


@pytest.mark.parametrize(
    ("moment", "form", "text"),
    [
        ("2026-11-30T14:31:07.123Z", "", "30 Nov 2026, 14:31:07"),
        ("2026-11-30T23:31:07.123-03:00", "day", "1 Dec 2026"),
        ("never", "", "never"),
    ],
)
def test_a_time_is_written_in_utc(moment: str, form: str, text: str) -> None:
    """A script puts the reader's own time in its place."""
    assert text == views.day_and_time(moment, form)


@pytest.mark.parametrize(
    ("ms", "decimals", "text"),
    [(252000, 0, "4:12"), (3723000, 0, "1:02:03"), (20000, 2, "0:20.00"), (59999, 0, "1:00")],
)
def test_a_length_is_written_as_on_a_clock(ms: float, decimals: int, text: str) -> None:
    """With hours where there are some."""
    assert text == views.length_text(ms, decimals)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("62.5", 62.5), ("1:02.5", 62.5), ("1:02:03", 3723.0), (" ", None), ("0", 0.0)],
)
def test_a_position_is_read_as_people_write_it(text: str, seconds: float | None) -> None:
    """In seconds, or with minutes and hours."""
    assert seconds == views.seconds_of(text)


@pytest.mark.parametrize("text", ["x", "1:-2", "nan", "1e9", "1::2", "inf"])
def test_what_is_no_position_is_refused(text: str) -> None:
    """Rather than that a note stands somewhere else."""
    with pytest.raises(ValueError, match="no position"):
        views.seconds_of(text)


@pytest.mark.parametrize(
    ("parameters", "title"),
    [
        ({"queue": "sales", "agent": "Jane", "case": "1"}, "Jane, sales"),
        ({"Agent": "Jane"}, "Jane"),
        ({"note": "x" * 400, "n": 5, "site": "Berlin"}, "Berlin"),
        ({"agent": "Ja\u202ene"}, "Ja\\u202ene"),
        ({}, "Call …eeeeffff"),
    ],
)
def test_a_recording_is_called_by_what_tells_most(parameters: dict[str, Any], title: str) -> None:
    """Or by its call."""
    assert title == views.title_of(parameters, ROW.call_sid)


def test_a_row_shows_its_verdict_and_leads_to_its_like() -> None:
    """Each parameter is a search for others that have it."""
    row = views.row_view(ROW)
    assert [{"text": "320 ms lost", "tone": "bad"}] == row["badges"]
    assert "/recordings/00112233aabbccdd" == row["url"]
    assert {"name": "n", "value": "5", "url": "/recordings?param.n=5"} == row["chips"][2]
    assert "/calls/76ac3c36-aaaa-4bbb-8ccc-ddddeeeeffff" == row["call_url"]
    json.dumps(row)


def test_a_row_with_many_parameters_shows_some_of_them() -> None:
    """All are in its JSON."""
    many = {f"p{n}": "x" * 200 for n in range(9)}
    row = views.row_view(msgspec.structs.replace(ROW, parameters=many))
    assert (5, 4, 9) == (len(row["chips"]), row["more_parameters"], len(row["parameters"]))
    assert 80 == len(row["chips"][0]["value"])
    assert row["chips"][0]["url"].endswith("x" * 200)


def test_a_table_has_a_column_for_each_parameter() -> None:
    """And a last one with all of them."""
    head = views.csv_head(["queue", "site"])
    (line,) = views.csv_lines([views.row_view(ROW)], ["queue", "site"])
    cells = dict(zip(head, line, strict=True))
    assert ("sales", "", "yes") == (cells["param.queue"], cells["param.site"], cells["held"])
    assert "inbound outbound" == cells["tracks"]
    assert ROW.parameters == json.loads(str(cells["parameters"]))


def test_the_caller_stands_above_the_agent(tmp_path: Path) -> None:
    """Whichever was written first."""
    folder = recordings_builder.build(tmp_path, tracks=(Track.OUTBOUND, Track.INBOUND))
    assert ["caller", "agent"] == [track["side"] for track in shown(folder)["tracks"]]


def test_gaps_are_spans_with_words(tmp_path: Path) -> None:
    """Those of silence are drawn, and not listed as missing."""
    gaps = (TrackGap(100, 20, GapKind.LOST), TrackGap(500, 200, GapKind.SENDER_SILENCE))
    page = shown(recordings_builder.build(tmp_path, gaps=gaps))
    assert [("inbound", 0.1, 0.12, "lost"), ("inbound", 0.5, 0.7, "silent")] == [
        (span["track"], span["from"], span["to"], span["look"]) for span in page["spans"]
    ]
    assert ["20 ms of the caller missing: the packets never arrived"] == [
        gap["text"] for gap in page["gaps"]
    ]


def test_what_happened_stands_on_one_line_in_order(tmp_path: Path) -> None:
    """Gaps, keys, marks and notes."""
    folder = recordings_builder.build(tmp_path)
    added = notes.add_note(Annotations(), "asks", note_id="1", by="jane", at=AT, t_ms=200)
    added = notes.add_note(added, "no position", note_id="2", by="jane", at=AT)
    page = shown(folder, added)
    assert [
        ("lost", "bad", 0.1),
        ("“asks”", "note-at", 0.2),
        ("5", "key", 0.25),
        ("greeting", "mark", 0.5),
    ] == [(event["text"], event["look"], event["at"]) for event in page["events"]]
    assert ["0:00.2", ""] == [note["clock"] for note in page["notes"]]


def test_a_pause_of_both_sides_is_one_event(tmp_path: Path) -> None:
    """It is drawn over both."""
    folder = recordings_builder.build(tmp_path, gaps=(TrackGap(100, 300, GapKind.PAUSED),))
    document = store.read(folder).recording
    gaps = document.tracks[0].gaps
    both = tuple(msgspec.structs.replace(track, gaps=gaps) for track in document.tracks)
    page = views.recording_view(
        msgspec.structs.replace(document, tracks=both, dtmf=(), marks=()), Annotations()
    )
    assert ["300 ms of both sides paused on request"] == [e["title"] for e in page["events"]]
    assert ["inbound", "outbound"] == [span["track"] for span in page["spans"]]


def test_a_page_is_bounded_however_many_gaps_there_are(tmp_path: Path) -> None:
    """The rest is in the document."""
    gaps = tuple(TrackGap(n / 10, 0.05, GapKind.LOST) for n in range(9000))
    folder = recordings_builder.build(tmp_path)
    document = store.read(folder).recording
    track = msgspec.structs.replace(document.tracks[0], gaps=gaps)
    page = views.recording_view(msgspec.structs.replace(document, tracks=(track,)), Annotations())
    assert views.MOST_SPANS == len(page["spans"])
    assert (views.MOST_GAPS, 9000 - views.MOST_GAPS) == (len(page["gaps"]), page["more_gaps"])
    assert views.MOST_EVENTS == len(page["events"])


def test_what_a_terminal_or_page_would_obey_is_escaped(tmp_path: Path) -> None:
    """A parameter cannot turn the text around it."""
    folder = recordings_builder.build(
        tmp_path,
        parameters={"a\u202eb": "c\u2066d"},
        findings=(Finding("gremlins", "x\u202ey"),),
        account_sid="acc\u202eount",
    )
    page = shown(folder)
    texts = [page["parameters"][0]["name"], page["verdict"]["sentences"][0]["text"]]
    texts += [fact["value"] for fact in page["facts"]]
    assert [] == [text for text in texts if "\u202e" in text]


def test_downloads_are_of_what_is_there() -> None:
    """Of a recording without audio, its documents."""
    urls = [item["url"] for item in views.downloads(["inbound"], "ab")]
    assert "/api/v1/recordings/ab/inbound.wav" in urls
    assert "/api/v1/recordings/ab/outbound.wav" not in urls
    assert ["/api/v1/recordings/ab/all.zip"] == [item["url"] for item in views.downloads([], "ab")]
