"""The account itself: each way to go wrong is seen, so that a passing fault means something."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from receiver.journal import records as journal
from receiver.journal.records import ChunkRecord, EndRecord, Header, MessageRecord
from receiver.media import EndReason, GapKind, Track
from receiver.recording import publish
from receiver.recording.document import RenderOptions
from tests.end_to_end import sender
from tests.faults.accounting import Allowance, Sent, Tally, account, recording_folders
from tests.faults.payloads import CHUNK_BYTES, Name, names_in, payload
from tests.receiver.helpers.journals import STARTED_AT_MS

CHUNKS = 50
NAMES = [Name(7, Track.INBOUND, chunk) for chunk in range(1, CHUNKS + 1)]
Edit = Callable[[dict[int, Name]], None]


def sent(names: list[Name]) -> Sent:
    """Return a sender that sent one chunk every 20 ms, from second 0 on."""
    return Sent(7, {name: 0.02 * name.chunk for name in names})


def published(folder: Path, names: dict[int, Name], *, number: int = 7) -> Path:
    """Publish a recording in which chunk number n has the payload of `names[n]`."""
    header = Header(f"{number:016x}", STARTED_AT_MS, journal.VERSION, "0.1.0")
    start = sender.start(stream_sid=Sent(7).stream_sid).encode()
    chunks = [
        ChunkRecord(Track.INBOUND, None, n, (n - 1) * 20, n * 20, payload(name))
        for n, name in names.items()
    ]
    end = EndRecord(2000, EndReason.STOP, "")
    path = folder / f"{header.recording_id}.journal"
    records: list[journal.Record] = [header, MessageRecord(0, start), *chunks, end]
    path.write_bytes(b"".join(journal.encode(record) for record in records))
    publish.publish_journal(path, folder / "recordings", RenderOptions())
    return folder / "recordings"


def account_of(folder: Path, edit: Edit, allowance: Allowance | None = None) -> Tally:
    """Return the account of a recording that `edit` has spoilt."""
    names = {name.chunk: name for name in NAMES}
    edit(names)
    return account([sent(NAMES)], published(folder, names), allowance or Allowance())


def drop(*chunks: int) -> Edit:
    """Return an edit that removes chunks."""

    def edit(names: dict[int, Name]) -> None:
        for chunk in chunks:
            del names[chunk]

    return edit


def test_what_is_kept_passes(tmp_path: Path) -> None:
    """Every chunk at its place, once."""
    assert Tally(sent=CHUNKS, kept=CHUNKS) == account_of(tmp_path, drop())


def test_a_missing_chunk_is_lost_although_it_is_listed(tmp_path: Path) -> None:
    """A listed gap passes only where the fault allows its kind."""
    tally = account_of(tmp_path, drop(20))
    assert (CHUNKS - 1, 1, False) == (tally.kept, tally.lost, tally.passed)


def test_a_listed_gap_of_the_right_kind_listed_gaps(tmp_path: Path) -> None:
    """The same recording passes where such gaps are what the fault makes."""
    tally = account_of(tmp_path, drop(20), Allowance(frozenset({GapKind.LOST})))
    assert (CHUNKS - 1, 1, True) == (tally.kept, tally.listed, tally.passed)


@pytest.mark.parametrize(("cut_at", "in_flight", "lost"), [(1.02, 2, 0), (2.0, 0, 2)])
def test_only_the_last_0_7_s_is_in_flight(
    tmp_path: Path, cut_at: float, in_flight: int, lost: int
) -> None:
    """What was sent longer than 0.7 s before the cut has to be there."""
    tally = account_of(tmp_path, drop(CHUNKS - 1, CHUNKS), Allowance(cut_at=cut_at, seconds=0.7))
    assert (in_flight, lost) == (tally.in_flight, tally.lost)


def test_a_chunk_missing_before_the_end_is_never_in_flight(tmp_path: Path) -> None:
    """A chunk with others behind it was not cut off."""
    tally = account_of(tmp_path, drop(CHUNKS - 1), Allowance(cut_at=1.02))
    assert 1 == tally.lost


def test_a_chunk_in_two_places_is_doubled(tmp_path: Path) -> None:
    """Also where the second place is free."""
    tally = account_of(tmp_path, lambda names: names.update({CHUNKS + 1: NAMES[3]}))
    assert (CHUNKS, 1) == (tally.kept, tally.doubled)


def test_a_chunk_in_two_recordings_is_doubled(tmp_path: Path) -> None:
    """The same stream published twice has every chunk twice."""
    names = {name.chunk: name for name in NAMES}
    published(tmp_path, names, number=1)
    tally = account([sent(NAMES)], published(tmp_path, names, number=2), Allowance())
    assert CHUNKS == tally.doubled


def test_a_chunk_at_another_place_is_misplaced(tmp_path: Path) -> None:
    """Two chunks that changed places are two."""
    tally = account_of(tmp_path, lambda names: names.update({4: NAMES[4], 5: NAMES[3]}))
    assert (CHUNKS - 2, 2, 0) == (tally.kept, tally.misplaced, tally.lost)


def test_another_streams_sound_is_foreign(tmp_path: Path) -> None:
    """And what it took the place of is lost."""
    tally = account_of(tmp_path, lambda names: names.update({9: Name(8, Track.INBOUND, 9)}))
    assert (1, 1) == (tally.foreign, tally.lost)


def test_a_gap_that_is_no_silence_is_a_problem(tmp_path: Path) -> None:
    """Bounds are exact to the sample, or the account fails."""
    recordings = published(tmp_path, {name.chunk: name for name in NAMES if name.chunk != 20})
    document = recording_folders(recordings)[0] / "recording.json"
    for wrong in (b'"start_ms": 379', b'"start_ms": 381'):
        document.write_bytes(document.read_bytes().replace(b'"start_ms": 380', wrong))
        tally = account([sent(NAMES)], recordings, Allowance(frozenset(GapKind)))
        assert ["its gaps are not its silence"] == [p.partition(": ")[2] for p in tally.problems]


def test_a_recording_without_a_call_is_a_problem(tmp_path: Path) -> None:
    """Every published recording belongs to a call that was placed."""
    recordings = published(tmp_path, {name.chunk: name for name in NAMES})
    assert not account([], recordings, Allowance()).passed


def test_names_are_read_at_any_offset() -> None:
    """Sound that slipped by some samples is still identified; noise is none of it."""
    first, second = payload(NAMES[0]), payload(NAMES[1])
    assert [NAMES[0], NAMES[1]] == list(names_in(b"\xff" * 3 + first + b"\xff" + second[16:]))
    assert [None, NAMES[1]] == list(names_in(first[5:9] + second))
    assert CHUNK_BYTES == len(first)
    assert not {0xFF, 0x7F} & set(first)
