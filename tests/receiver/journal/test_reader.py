"""Reading a journal: what was appended is what is read, and damage never passes for a record."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.journal import records as journal
from receiver.journal.records import (
    ChunkRecord,
    DroppedRecord,
    EndRecord,
    Header,
    MessageRecord,
    NoteRecord,
    Reader,
    Record,
    RejectedRecord,
    trusted,
    whole_records,
)
from receiver.media import EndReason, GapKind, RejectedChunk, Track
from tests.receiver.helpers.any_record import RECORDS

SAMPLE: list[Record] = [
    Header("00112233aabbccdd", 1_795_379_400_000, journal.VERSION, "0.1.0"),
    MessageRecord(0, b'{"event":"start","start":{}}'),
    ChunkRecord(Track.INBOUND, 2, 1, 0, 5, b"\xff\x7e\x97\x02\x00" * 8),
    ChunkRecord(Track.OUTBOUND, None, None, None, 5, b""),
    RejectedRecord(9, "bad_base64", RejectedChunk(Track.INBOUND, 3, 2, 20)),
    ChunkRecord(Track.INBOUND, 2**40, 3, 40, 45, b"\x7f" * 40),
    MessageRecord(50, b'{"event":"dtmf","dtmf":{"digit":"5"}}'),
    DroppedRecord(GapKind.DISK, Track.INBOUND, 900, 4, 903, 60, 18_040),
    NoteRecord(0, "journal_rewritten", "Input/output error"),
    EndRecord(60, EndReason.STOP, ""),
]
ENCODED = [journal.encode(record) for record in SAMPLE]
WHOLE = b"".join(ENCODED)
ENDS = [sum(map(len, ENCODED[: count + 1])) for count in range(len(ENCODED))]


def read(blocks: Iterable[bytes]) -> tuple[list[Record], Reader]:
    """Return all records that can be trusted, and the reader that read them."""
    reader = Reader(blocks)
    return [record for _, record in reader], reader


def damaged(content: bytes) -> tuple[list[Record], str | None]:
    """Return what a changed journal gives, and the damage that is reported."""
    records, reader = read([content])
    return records, reader.damage


def is_prefix(records: list[Record], whole: list[Record]) -> bool:
    """Whether `records` are the first ones of `whole`, unchanged."""
    return whole[: len(records)] == records


def raw(body: bytes) -> bytes:
    """Return a record of any body, with the right length and checksum."""
    return struct.pack("<II", len(body), zlib.crc32(body)) + body


@given(RECORDS)
def test_what_is_appended_is_what_is_read(records: list[Record]) -> None:
    """Every kind of record, any values."""
    content = b"".join(map(journal.encode, records))
    found, reader = read([content])
    assert records == found
    assert (len(content), None) == (reader.trusted_bytes, reader.damage)


@given(RECORDS, st.integers(1, 50))
def test_blocks_of_any_size_give_the_same(records: list[Record], size: int) -> None:
    """Records lie across blocks as they like."""
    content = b"".join(map(journal.encode, records))
    blocks = [content[at : at + size] for at in range(0, len(content), size)]
    found, reader = read(blocks)
    assert records == found
    assert (len(content), None) == (reader.trusted_bytes, reader.damage)


@given(st.integers(1, 50), st.integers(0, len(WHOLE) - 1))
def test_blocks_of_any_size_give_the_same_damage(size: int, position: int) -> None:
    """What is trusted does not depend on how the file was read."""
    changed = bytearray(WHOLE)
    changed[position] ^= 0xFF
    content = bytes(changed)
    whole, reader = read([content])
    pieces, other = read(content[at : at + size] for at in range(0, len(content), size))
    assert whole == pieces
    assert (reader.trusted_bytes, reader.damage) == (other.trusted_bytes, other.damage)


def test_offsets_come_with_the_records() -> None:
    """They are the offsets behind each."""
    assert list(zip(ENDS, SAMPLE, strict=True)) == list(Reader([WHOLE]))


def test_an_empty_journal_holds_nothing() -> None:
    """And is not damaged."""
    assert ([], None) == damaged(b"")


def test_truncation_at_every_byte_is_a_torn_tail() -> None:
    """A power cut leaves whole records, and the first bytes of one: that is no damage."""
    for length in range(len(WHOLE)):
        records, reader = read([WHOLE[:length]])
        count = sum(end <= length for end in ENDS)
        assert SAMPLE[:count] == records, length
        assert (ENDS[count - 1] if count else 0) == reader.trusted_bytes, length
        assert reader.damage is None, length


@pytest.mark.parametrize("index", range(len(SAMPLE)))
def test_a_changed_byte_never_gives_a_wrong_record(index: int) -> None:
    """Whichever it is and whatever it becomes: those before it are read, and it is damage."""
    start = ENDS[index - 1] if index else 0
    for position in range(start, ENDS[index]):
        for value in set(range(256)) - {WHOLE[position]}:
            changed = WHOLE[:position] + bytes([value]) + WHOLE[position + 1 :]
            records, reader = read([changed])
            assert SAMPLE[:index] == records, (position, value)
            assert reader.trusted_bytes == start, (position, value)
            # Where no whole record is behind it, it may be a write that a power cut tore.
            assert reader.damage or index == len(SAMPLE) - 1, (position, value)


@given(RECORDS, st.data())
def test_any_change_gives_a_prefix(records: list[Record], drawn: st.DataObject) -> None:
    """Bytes changed, put in or taken out, anywhere."""
    content = b"".join(map(journal.encode, records))
    start = drawn.draw(st.integers(0, len(content)))
    stop = drawn.draw(st.integers(start, min(start + 20, len(content))))
    changed = content[:start] + drawn.draw(st.binary(max_size=20)) + content[stop:]
    found, _ = damaged(changed)
    if changed.startswith(content):  # appended: what was put behind may be a record itself
        found = found[: len(records)]
    intact = sum(end <= start for end in _ends(records))
    assert is_prefix(found[:intact], records)
    assert intact <= len(found)


def _ends(records: list[Record]) -> list[int]:
    sizes = [len(journal.encode(record)) for record in records]
    return [sum(sizes[: count + 1]) for count in range(len(sizes))]


@pytest.mark.parametrize("zeros", [1, 7, 8, 9, 100, 4096, 2**20])
@pytest.mark.parametrize("torn", [0, 1, 7, 8, 20])
def test_a_tail_of_zeros_is_torn(zeros: int, torn: int) -> None:
    """File systems grow a file before its bytes come."""
    content = WHOLE + ENCODED[2][:torn] + bytes(zeros)
    records, damage = damaged(content)
    assert SAMPLE == records
    assert damage is None


def test_zeros_with_something_behind_are_damage() -> None:
    """A power cut does not write behind what it leaves out."""
    records, damage = damaged(ENCODED[0] + bytes(4096) + ENCODED[1])
    assert SAMPLE[:1] == records
    assert f"a record of 0 bytes at byte {ENDS[0]}" == damage


def test_zeros_with_something_behind_are_damage_in_any_blocks() -> None:
    """Also when it is megabytes later."""
    blocks = [ENCODED[0], *[bytes(2**20)] * 3, b"\0" * 100 + b"x"]
    records, reader = read(blocks)
    assert SAMPLE[:1] == records
    assert f"a record of 0 bytes at byte {ENDS[0]}" == reader.damage


@pytest.mark.parametrize("length", [0, journal.LONGEST_RECORD_BYTES + 1, 2**31, 2**32 - 1])
def test_an_impossible_length_is_damage(length: int) -> None:
    """No record is empty, none is longer than the longest."""
    content = ENCODED[0] + struct.pack("<II", length, 1) + WHOLE
    records, damage = damaged(content)
    assert SAMPLE[:1] == records
    assert f"a record of {length} bytes at byte {ENDS[0]}" == damage


def test_a_length_that_swallows_what_follows_is_damage() -> None:
    """It points beyond the file as a torn tail does, but whole records lie behind it."""
    changed = bytearray(WHOLE)
    changed[ENDS[0] + 1] = 0x40
    records, damage = damaged(bytes(changed))
    assert SAMPLE[:1] == records
    assert f"a record of a wrong length at byte {ENDS[0]}" == damage


def test_a_length_that_swallows_exactly_what_follows_is_damage() -> None:
    """The record then ends with the file, as the last one of a torn batch does."""
    changed = struct.pack("<I", len(WHOLE) - ENDS[0] - 8)
    content = ENCODED[0] + changed + WHOLE[ENDS[0] + 4 :]
    records, damage = damaged(content)
    assert SAMPLE[:1] == records
    assert f"a record that fails its checksum at byte {ENDS[0]}" == damage


@pytest.mark.parametrize("behind", SAMPLE[1:])
def test_a_length_that_swallows_any_record_is_damage(behind: Record) -> None:
    """Also where it is the only one, and no chunk: a call that nobody spoke in has none."""
    content = ENCODED[0] + struct.pack("<I", 2**16) + ENCODED[1][4:] + journal.encode(behind)
    records, damage = damaged(content)
    assert SAMPLE[:1] == records
    assert f"a record of a wrong length at byte {ENDS[0]}" == damage


@pytest.mark.parametrize("size", [8, 90, 2**17])
@pytest.mark.parametrize("zeros", [0, 1, 2**20])
def test_a_length_that_swallows_all_but_zeros_is_damage(size: int, zeros: int) -> None:
    """The record within it may end among them, as quiet audio does."""
    quiet = journal.encode(ChunkRecord(Track.INBOUND, 2, 1, 0, 5, b"\1" + bytes(size)))
    changed = struct.pack("<I", len(ENCODED[1]) - 8 + len(quiet) - size)
    content = ENCODED[0] + changed + ENCODED[1][4:] + quiet + bytes(zeros)
    for blocks in ([content], [content[at : at + 1000] for at in range(0, len(content), 1000)]):
        records, reader = read(blocks)
        assert SAMPLE[:1] == records
        assert f"a record that fails its checksum at byte {ENDS[0]}" == reader.damage


def test_a_rest_that_only_looks_like_records_is_searched_in_bounded_time() -> None:
    """As many first bytes as fit, each of a record that would reach to the end."""
    count = journal.LONGEST_RECORD_BYTES // 10 - 1
    sizes = [10 * left - 8 for left in range(count, 0, -1)]
    beginnings = b"".join(struct.pack("<II", size, 0) + b"\x97\x02" for size in sizes)
    torn = struct.pack("<II", journal.LONGEST_RECORD_BYTES, 0) + beginnings
    records, damage = damaged(ENCODED[0] + torn)
    assert SAMPLE[:1] == records
    assert f"a record of a wrong length at byte {ENDS[0]}" == damage


def test_a_bad_checksum_with_records_behind_is_damage() -> None:
    """The trust ends there, though the next ones look fine."""
    changed = bytearray(WHOLE)
    changed[ENDS[0] + 12] ^= 1
    records, damage = damaged(bytes(changed))
    assert SAMPLE[:1] == records
    assert f"a record that fails its checksum at byte {ENDS[0]}" == damage


@pytest.mark.parametrize(
    "body",
    [
        b"\x00",
        b"\xc1",
        b"\x90",
        b"\x91\x63",
        msgspec.msgpack.encode([1]),
        msgspec.msgpack.encode([1, "now", b""]),
        msgspec.msgpack.encode([2, "sideways", 1, 1, 1, 1, b""]),
        msgspec.msgpack.encode([4, 1, "unheard of", ""]),
        b"\x95\x00\xa1\xff\x00\x01\xa0",
        b"\x91" * 100_000,
    ],
)
def test_a_record_of_an_unknown_kind_is_damage(body: bytes) -> None:
    """Its checksum is right: something else wrote it."""
    records, damage = damaged(ENCODED[0] + raw(body) + ENCODED[1])
    assert SAMPLE[:1] == records
    assert f"a record of an unknown kind at byte {ENDS[0]}" == damage


def test_fields_of_a_later_version_are_tolerated() -> None:
    """At the end of a record."""
    body = msgspec.msgpack.encode([4, 60, "stop", "", "added later"])
    assert ([SAMPLE[-1]], None) == damaged(raw(body))


@pytest.mark.parametrize("garbage", [b"RIFF", b"RIFF\x24\0\0\0WAVEfmt ", b"{" * 100, b"\xff" * 64])
def test_another_file_holds_no_records(garbage: bytes) -> None:
    """Whatever it is."""
    records, reader = read([garbage])
    assert ([], 0) == (records, reader.trusted_bytes)


@given(st.lists(st.binary(max_size=300).filter(bool), max_size=5))
def test_any_bytes_can_be_read(blocks: list[bytes]) -> None:
    """Without an exception, and without trusting more than there is."""
    records, reader = read(blocks)
    assert reader.trusted_bytes <= sum(map(len, blocks))
    assert bool(records) is bool(reader.trusted_bytes)


def test_the_longest_record_can_be_read() -> None:
    """A message that is as long as they come."""
    message = MessageRecord(0, bytes(journal.LONGEST_RECORD_BYTES - 100))
    content = journal.encode(message)
    blocks = [content[at : at + 2**17] for at in range(0, len(content), 2**17)]
    found, reader = read(blocks)
    assert ([message], None) == (found, reader.damage)


@given(st.integers(1, 300), st.integers(0, len(WHOLE)), st.integers(0, 40))
def test_the_hash_is_that_of_what_is_trusted(size: int, cut: int, zeros: int) -> None:
    """However the file is read, and whatever is behind."""
    content = WHOLE[:cut] + bytes(zeros)
    blocks = [content[at : at + size] for at in range(0, len(content), size)]
    reader = Reader(blocks, hashing=True)
    list(reader)
    assert hashlib.sha256(content[: reader.trusted_bytes]).hexdigest() == reader.sha256
    assert "" == read(blocks)[1].sha256


@pytest.mark.parametrize("damage", [b"", b"torn", bytes(100), b"?" * 100])
def test_a_file_is_trusted_up_to_what_can_be_read(tmp_path: Path, damage: bytes) -> None:
    """In bytes, and as the SHA-256 of these; where the file stands makes no difference."""
    (tmp_path / "j").write_bytes(WHOLE + damage)
    with open(tmp_path / "j", "rb", buffering=0) as file:
        file.seek(7)
        assert (len(WHOLE), hashlib.sha256(WHOLE).hexdigest()) == trusted(file)


@pytest.mark.parametrize("content", [b"", b"RIFF", ENCODED[1], bytes(50)])
def test_nothing_is_trusted_of_a_file_without_a_header(tmp_path: Path, content: bytes) -> None:
    """It is no journal, whatever records it holds."""
    (tmp_path / "j").write_bytes(content)
    with open(tmp_path / "j", "rb", buffering=0) as file:
        assert (0, hashlib.sha256(b"").hexdigest()) == trusted(file)


@pytest.mark.parametrize("cut", [0, 1, ENDS[0] - 1, ENDS[0], ENDS[0] + 1, ENDS[2] + 9])
def test_whole_records_are_found_in_a_piece_of_a_journal(cut: int) -> None:
    """Behind the one in which it begins, and up to the one in which it ends."""
    behind = [record for record, end in zip(SAMPLE, (0, *ENDS), strict=False) if end >= cut]
    assert behind == list(whole_records(WHOLE[cut:]))
    assert behind[:-1] == list(whole_records(WHOLE[cut:-1]))


def test_a_piece_without_a_whole_record_has_none() -> None:
    """Whatever is in it."""
    for piece in (b"", b"\0" * 99, b"\xff" * 99, WHOLE[1 : ENDS[0]]):
        assert [] == list(whole_records(piece))
