"""Records as bytes: the same for everybody who writes them, and read back one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from receiver.journal import records as journal
from receiver.journal.records import ChunkRecord, Record
from receiver.media import Chunk, Track
from tests.receiver.helpers.any_record import ARRIVAL, COUNTER, RECORD, TRACK


@given(RECORD)
def test_one_record_can_be_read_by_itself(record: Record) -> None:
    """As the bridge over a failing disk does."""
    assert record == journal.decode(journal.encode(record))


@given(st.builds(Chunk, TRACK, COUNTER, COUNTER, COUNTER, st.binary(max_size=400)), ARRIVAL)
def test_the_hot_path_writes_the_same_bytes(chunk: Chunk, arrival_ms: int) -> None:
    """It builds no struct, and the bytes are the same."""
    fields = (chunk.track, chunk.sequence_number, chunk.chunk, chunk.timestamp_ms)
    record = ChunkRecord(*fields, arrival_ms, chunk.payload)
    assert journal.encode(record) == journal.encode_chunk(chunk, arrival_ms)


@given(st.binary(max_size=400))
def test_a_payload_ends_where_its_record_ends(payload: bytes) -> None:
    """So it can be read later without keeping it."""
    assert journal.encode_chunk(Chunk(Track.INBOUND, 1, 1, 1, payload), 5).endswith(payload)
