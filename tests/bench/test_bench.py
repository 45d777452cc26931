"""The benchmark itself: it runs with a tiny load, and prints what it measured."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from receiver.media import Chunk, Track
from receiver.wire.parse import parse
from tests.bench import __main__ as bench
from tests.bench import bench_catalogue, table
from tests.bench.load import masked_message, prepare_chunks
from tests.bench.rounds import Figures
from tests.bench.table import Report


@pytest.mark.integration
def test_a_tiny_run_measures_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every figure of the table is there, for people and for machines."""
    markdown = tmp_path / "table.md"
    amount = ["--calls", "2", "--seconds", "0.3", "--rounds", "1"]
    only = ["--only", "tapreel", "--only", "tapreel-tls"]
    assert 0 == bench.main([*amount, *only, "--json", "--markdown", str(markdown)])
    found = json.loads(capsys.readouterr().out)
    assert {"tapreel", "tapreel-tls"} == found["subjects"].keys() == found["beside"].keys()
    assert all(each["us_per_chunk"] > 0 for each in found["subjects"].values())
    assert {
        *("idle_kib", "active_kib", "journal_p99_ms", "synced_p99_ms"),
        *("lag_p99_ms", "lag_worst_ms", "serve_seconds"),
    } == found["beside"]["tapreel"].keys()
    assert 0 < found["rendering"]["call_hours_per_cpu_minute"]
    assert 0 < found["help_seconds"]
    assert "| tapreel, TLS" in markdown.read_text("utf-8")


@pytest.mark.parametrize(
    ("page", "written"),
    [
        (None, "| table |\n"),
        ("an older table", "| table |\n"),
        (
            "# Page\n<!-- bench -->\nold\n<!-- /bench -->\nmore\n",
            "# Page\n<!-- bench -->\n| table |\n<!-- /bench -->\nmore\n",
        ),
    ],
)
def test_tables_are_written_between_the_marks_of_a_page(
    page: str | None, written: str, tmp_path: Path
) -> None:
    """What a page says around its tables stays; a file without marks is written anew."""
    file = tmp_path / "page.md"
    if page is not None:
        file.write_text(page)
    bench.write_tables(file, "| table |")
    assert written == file.read_text()


@pytest.mark.integration
@pytest.mark.parametrize("name", ["naive", "only-reads"])
def test_what_we_compare_with_runs_too(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A round on the naive recorder and on the mere reader gives a figure."""
    amount = ["--calls", "1", "--seconds", "0.1", "--rounds", "1", "--chunks-only", "--json"]
    assert 0 == bench.main([*amount, "--only", name])
    assert 0 < json.loads(capsys.readouterr().out)["subjects"][name]["us_per_chunk"]


def test_the_load_sends_what_a_provider_sends() -> None:
    """A prepared message, unmasked, is a chunk of 160 bytes on each track."""
    for number, messages in enumerate(prepare_chunks(3, random.Random(1))):
        for message, track in zip(messages, Track, strict=True):
            mask, masked = message[4:8], message[8:]
            text = bytes(byte ^ mask[index % 4] for index, byte in enumerate(masked))
            chunk = parse(text)
            assert isinstance(chunk, Chunk)
            assert (track, number + 1, number * 20) == (
                *(chunk.track, chunk.chunk, chunk.timestamp_ms),
            )
            assert 160 == len(chunk.payload)


def test_short_messages_have_the_short_head() -> None:
    """Below 126 bytes the length has no bytes of its own."""
    assert b"\x81\x82" == masked_message(b"hi", random.Random(1))[:2]


def test_ratios_are_of_the_same_round() -> None:
    """A round in which everything was slow changes no ratio."""
    report = Report(1, 1.0, 2)
    report.per_chunk["tapreel"] = Figures([10.0, 30.0], [0.0, 0.0])
    report.per_chunk["naive"] = Figures([40.0, 120.0], [0.0, 0.0])
    assert [0.25, 0.25] == report.ratios()["tapreel/naive"]
    assert "tapreel/naive" in table.as_text(report)
    assert 500 == report.per_chunk["tapreel"].calls_per_core


@pytest.mark.parametrize("options", [["--calls", "0"], ["--seconds", "61"], ["--rounds", "21"]])
def test_amounts_are_bounded(options: list[str]) -> None:
    """No benchmark runs for hours by mistake."""
    with pytest.raises(SystemExit):
        bench.main(options)


@pytest.mark.integration
def test_the_catalogue_is_measured_with_few_recordings_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every kind of search finds what it should, and the figures are those of this run."""
    bench_catalogue.main(["--count", "2000", "--rebuilt", "500", "--keep", str(tmp_path)])
    printed = capsys.readouterr().out
    rows = [line.split(" | ") for line in printed.splitlines() if line.startswith("| ")][1:]
    found = {row[0][2:]: int(row[1]) for row in rows}
    assert 0 == found["two values that never meet"] == found["nothing there"]
    assert 50 == found["the newest"] == found["the longest of all"]
    assert 0 < found["a word"]
    assert 1 == found["one recording"] == found["a call"] == found["adding one"]
    assert 3 == printed.count("ok      ") + printed.count("MISSED  ")
    assert "2800 recordings with 4 parameters" in printed
