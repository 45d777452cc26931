"""A span becomes silence for good, in one step, or nothing changes."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import (
    AnnotationError,
    LedgerError,
    NotFoundError,
    RemovalError,
    UnreadableError,
)
from receiver.lifecycle import tombstones
from receiver.lifecycle.acts import Acts
from receiver.lifecycle.delete import Remover, finish_alone
from receiver.lifecycle.erase import Span, erase, span_of, with_gaps
from receiver.lifecycle.ledger import Ledger
from receiver.media import GapKind, Track, TrackGap
from receiver.recording import annotations as notes
from receiver.recording import publication_log, store
from receiver.recording.publication_log import CHANGED, LogMark
from receiver.recording.verdict import lost_and_paused_ms, verdict
from receiver.recording.verify import verify
from tests.bounds import at_most
from tests.faults.faulty_disk import Orders
from tests.receiver.helpers import recordings_builder as builder
from tests.receiver.lifecycle import removals


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Return the path of a recordings folder."""
    return tmp_path / "recordings"


@pytest.fixture
def folder(recordings: Path) -> Path:
    """Return the folder of a published recording of a second, with a stereo file."""
    return builder.build(recordings, stereo=True)


@pytest.fixture
def ann(recordings: Path) -> Remover:
    """Return what Ann does in the console."""
    return Remover(recordings, recordings / ".spool", who="ann", via="console")


def samples(folder: Path, name: str) -> np.ndarray[Any, Any]:
    """Return the samples of one file."""
    found: np.ndarray[Any, Any] = soundfile.read(folder / name, dtype="int16")[0]
    return found


def test_a_span_of_both_tracks_becomes_silence(folder: Path, ann: Remover) -> None:
    """In every file, and nothing else of them changes."""
    before = {name: samples(folder, f"{name}.wav") for name in ("inbound", "outbound", "stereo")}
    erase(ann, folder, 200, 700, "card number")
    for name, old in before.items():
        now = samples(folder, f"{name}.wav")
        assert not now[1600:5600].any()
        assert np.array_equal(old[:1600], now[:1600])
        assert np.array_equal(old[5600:], now[5600:])


def test_a_span_of_one_track_leaves_the_other(folder: Path, ann: Remover) -> None:
    """In its own file, and in its channel of the stereo file."""
    before = samples(folder, "stereo.wav")
    erase(ann, folder, 200, 700, "card number", tracks=[Track.OUTBOUND])
    assert samples(folder, "inbound.wav")[1600:5600].any()
    assert not samples(folder, "outbound.wav")[1600:5600].any()
    now = samples(folder, "stereo.wav")
    assert np.array_equal(before[:, 0], now[:, 0])
    assert not now[1600:5600, 1].any()
    assert np.array_equal(before[5600:, 1], now[5600:, 1])


def test_the_document_agrees_with_what_is_left(folder: Path, ann: Remover) -> None:
    """Hashes, gaps, keys and the span itself; `verify` finds nothing, also a second time."""
    assert () == verify(folder, store.read(folder).recording)
    erase(ann, folder, 200.01, 700, "card number")
    erase(ann, folder, 600, 9000, "address")
    document = store.read(folder).recording
    assert () == verify(folder, document)
    inbound, outbound = document.tracks
    assert (builder.GAP, TrackGap(200, 500, GapKind.ERASED)) == inbound.gaps[:2]
    assert TrackGap(700, 300, GapKind.ERASED) == inbound.gaps[2]
    assert [GapKind.ERASED] * 2 == [gap.kind for gap in outbound.gaps]
    assert () == document.dtmf
    assert () == document.marks
    assert [(200, 700), (600, 1000)] == [(e.from_ms, e.to_ms) for e in document.erased]
    assert ("ann", "card number") == (document.erased[0].by, document.erased[0].reason)
    assert (20, 0) == lost_and_paused_ms(document)
    assert "800 ms of both sides were erased on request at 0:00.2 and 0:00.7." in (
        verdict(document).text
    )


def test_keys_are_the_callers_and_marks_the_agents(folder: Path, ann: Remover) -> None:
    """So each goes with its own track, also where a key was pressed before the span began."""
    erase(ann, folder, 260, 900, "card number", tracks=[Track.INBOUND])
    document = store.read(folder).recording
    assert () == document.dtmf
    assert builder.a_document("0" * 16, 0, {}).marks == document.marks
    erase(ann, folder, 260, 900, "card number", tracks=[Track.OUTBOUND])
    assert () == store.read(folder).recording.marks


def test_it_is_entered_told_and_remembered(recordings: Path, folder: Path, ann: Remover) -> None:
    """With the hashes before and after; labels and notes stay; nothing else is left over."""
    Acts(recordings, who="ann", via="console").add_label(folder, "complaint")
    before = builder.sha256(folder / "inbound.wav")
    old = store.read(folder).document
    done = erase(ann, folder, 200, 700, "card number")
    assert [done] == list(store.tombstones(recordings))
    assert ("erased", "ann", "console", "card number") == (
        *(done.what, done.who, done.via, done.reason),
    )
    assert before == done.before["inbound.wav"]
    for name, sha256 in done.after.items():
        assert sha256 == builder.sha256(folder / name)
    entry = next(Ledger(recordings).read())
    assert ("erased", "ann", builder.RECORDING_ID) == (entry.what, entry.who, entry.recording)
    assert {"from_s": 0.2, "to_s": 0.7, "tracks": ["inbound", "outbound"]}.items() <= (
        entry.details.items()
    )
    told = [entry.what for entry in publication_log.read(recordings, LogMark())[0]]
    assert [CHANGED, CHANGED] == told
    assert ["complaint"] == [label.name for label in notes.read(folder).labels]
    assert [] == removals.hidden(recordings)
    assert [] == list(tombstones.pending(recordings))
    assert old not in removals.content(recordings)


def test_audio_in_no_track_goes_whole(recordings: Path, ann: Remover) -> None:
    """Nobody knows what of it is of the span; a journal that was set aside has everything."""
    folder = builder.build(recordings)
    quarantine = recordings / ".spool" / "quarantine"
    quarantine.mkdir(0o700, parents=True)
    for name in (f"{builder.RECORDING_ID}.journal", f"{builder.RECORDING_ID}.txt", "other.journal"):
        (quarantine / name).write_bytes(b"secret")
    erase(ann, folder, 200, 700, "card number")
    assert ["other.journal"] == [path.name for path in quarantine.iterdir()]


@pytest.mark.parametrize(
    ("prepare", "error", "text"),
    [
        (lambda acts, f: acts.hold(f, "case 1"), RemovalError, "is held by bob .*: case 1"),
        (
            lambda acts, f: (f / "annotations.json").write_text("{"),
            UnreadableError,
            "not an annotations.json",
        ),
        (
            lambda acts, f: (f / "inbound.wav").write_bytes(b"RIFF"),
            RemovalError,
            "does not agree with its document",
        ),
        (lambda acts, f: shutil.rmtree(f), NotFoundError, "it was deleted"),
        (
            lambda acts, f: (f.parents[3] / ".spool" / f"{builder.RECORDING_ID}.journal").touch(),
            RemovalError,
            "it is being published",
        ),
    ],
)
def test_what_is_refused_changes_nothing(
    recordings: Path,
    folder: Path,
    ann: Remover,
    prepare: Callable[[Acts, Path], object],
    error: type[Exception],
    text: str,
) -> None:
    """Not even the ledger has it; one error says why."""
    (recordings / ".spool").mkdir(0o700)
    prepare(Acts(recordings, who="bob", via="console"), folder)
    before = removals.content(folder)
    entries = len(list(Ledger(recordings).read()))
    with pytest.raises(error, match=text):
        erase(ann, folder, 200, 700, "card number")
    assert before == removals.content(folder)
    assert entries == len(list(Ledger(recordings).read()))
    assert [] == list(store.tombstones(recordings))
    assert [] == removals.hidden(recordings)


@pytest.mark.parametrize(
    ("span", "text"),
    [
        ((700, 200), "ends behind its beginning"),
        ((200, 200), "ends behind its beginning"),
        ((1000, 1200), "it ends at 1 s"),
    ],
)
def test_there_must_be_such_a_span(
    folder: Path, ann: Remover, span: tuple[float, float], text: str
) -> None:
    """And such a track."""
    with pytest.raises(RemovalError, match=text):
        erase(ann, folder, *span, "card number")
    with pytest.raises(AnnotationError, match="a reason is empty"):
        erase(ann, folder, 200, 700, " ")


def test_there_must_be_such_a_track(recordings: Path, ann: Remover) -> None:
    """A recording may have one, or none."""
    folder = builder.build(recordings, tracks=[Track.INBOUND])
    with pytest.raises(RemovalError, match="it has no outbound track"):
        erase(ann, folder, 200, 700, "x", tracks=[Track.OUTBOUND])
    empty = builder.put(recordings, "ffff000011112222")
    with pytest.raises(RemovalError, match="'receiver delete' removes all of it"):
        erase(ann, empty, 200, 700, "x")


def test_what_cannot_be_entered_is_not_done(recordings: Path, folder: Path, ann: Remover) -> None:
    """As where the disk is full: here something else is in the ledger's place."""
    (recordings / ".ledger").mkdir(0o700)
    (recordings / ".ledger" / "head").mkdir()
    with pytest.raises(LedgerError, match="nothing was done"):
        erase(ann, folder, 200, 700, "card number")
    assert samples(folder, "inbound.wav")[1600:5600].all()
    assert [] == removals.hidden(recordings)


@pytest.mark.integration
def test_killed_at_any_step_it_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    """Whole, at once; and when the rest was finished, nothing of the other one is left."""
    outcomes = set()
    number = 0
    is_killed = True
    while is_killed:
        recordings = tmp_path / str(number) / "recordings"
        folder = builder.build(recordings)
        old = builder.sha256(folder / "recording.json")
        sound = samples(folder, "outbound.wav")[1600:5600].tobytes()
        ann = Remover(recordings, recordings / ".spool", who="ann", via="console")
        is_killed = removals.killed_before(
            number, partial(erase, ann, folder, 200, 700, "card number")
        )
        at_once = store.read(folder)
        assert () == verify(folder, at_once.recording), number
        is_old = not at_once.recording.erased
        assert is_old == (builder.sha256(folder / "recording.json") == old)
        finish_alone(recordings, recordings / ".spool")
        assert at_once.document == store.read(folder).document, number
        assert [] == list(tombstones.pending(recordings)), number
        assert [] == [name for name in removals.hidden(recordings) if "annotations" not in name]
        assert is_old == (sound in removals.content(recordings)), number
        assert ([] if is_old else ["erased"]) == [t.what for t in store.tombstones(recordings)]
        outcomes.add(is_old)
        shutil.rmtree(recordings)
        number += 1
    assert {True, False} == outcomes
    assert number > 30


def erased_by_command(recordings: Path, orders: Orders) -> int:
    """Return how `receiver erase` ends, in a process group of its own, on a disk with orders."""
    words = ("erase", builder.RECORDING_ID, "--from", "0.2", "--to", "0.7", "--reason", "card")
    return subprocess.run(
        [sys.executable, "-m", "receiver", *words, "--recordings", recordings],
        env={**os.environ, **orders.environment},
        start_new_session=True,
        capture_output=True,
        check=False,
        timeout=at_most(60),
    ).returncode


@pytest.mark.integration
@pytest.mark.needs("cc")
@pytest.mark.parametrize("killed", [False, True])
def test_where_folders_cannot_change_places_it_takes_two_steps(
    tmp_path: Path, recordings: Path, folder: Path, killed: bool
) -> None:
    """As on NFS; whoever comes after a crash between the two takes the second one."""
    orders = Orders(tmp_path / "shim")
    refuse = f"exchange error {errno.EINVAL} {folder.name}"
    orders.give(refuse, *([f"rename after 0 {folder.name}"] if killed else []))
    assert (-signal.SIGKILL if killed else 0) == erased_by_command(recordings, orders)
    assert killed == (not folder.exists())
    finish_alone(recordings, recordings / ".spool")
    document = store.read(folder).recording
    assert () == verify(folder, document)
    assert [(200, 700)] == [(each.from_ms, each.to_ms) for each in document.erased]
    assert [] == removals.hidden(recordings)


GAPS = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), max_size=6)


@given(GAPS, st.integers(0, 2000), st.integers(1, 900))
def test_gaps_and_the_span_cover_what_they_should(
    pieces: list[tuple[int, int]], first: int, length: int
) -> None:
    """They are in order and overlap nowhere; together they are the old ones and the span."""
    gaps, position = [], 0
    for sound, silence in pieces:
        gaps.append(TrackGap((position + sound) / 8, silence / 8, GapKind.LOST))
        position += sound + silence
    span = Span(first, first + length, 8000, tuple(Track))
    found = with_gaps(gaps, span)
    covered: set[int] = set()
    for gap in found:
        start = round(gap.start_ms * 8)
        here = set(range(start, start + round(gap.duration_ms * 8)))
        assert here
        assert not covered & here
        assert min(here) > max(covered, default=-1)
        covered |= here
    old = {
        n
        for gap in gaps
        for n in range(round(gap.start_ms * 8), round((gap.start_ms + gap.duration_ms) * 8))
    }
    assert old | set(range(first, first + length)) == covered
    assert gaps == [gap for gap in found if gap.kind is GapKind.LOST]


def test_a_span_is_widened_to_whole_samples(folder: Path) -> None:
    """Nothing of what was asked for may stay."""
    span = span_of(store.read(folder).recording, 200.01, 700.01)
    assert (1600, 5601, 200, 700.125) == (span.first, span.last, span.from_ms, span.to_ms)
