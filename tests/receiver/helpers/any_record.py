"""Strategies of hypothesis for records of a journal: every kind, any values."""

from __future__ import annotations

from hypothesis import strategies as st

from receiver.journal.records import (
    ChunkRecord,
    DroppedRecord,
    EndRecord,
    Header,
    MessageRecord,
    NoteRecord,
    PauseRecord,
    Record,
    RejectedRecord,
    ResumeRecord,
)
from receiver.media import EndReason, GapKind, PauseEnd, RejectedChunk, Track

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
COUNTER = st.none() | st.integers(-(2**53), 2**53)
ARRIVAL = st.integers(0, 2**40)
TRACK = st.sampled_from(Track)
RECORD: st.SearchStrategy[Record] = st.one_of(
    st.builds(Header, TEXT, st.integers(0, 2**50), st.integers(0, 100), TEXT),
    st.builds(MessageRecord, ARRIVAL, st.binary(max_size=200)),
    st.builds(ChunkRecord, TRACK, COUNTER, COUNTER, COUNTER, ARRIVAL, st.binary(max_size=400)),
    st.builds(
        RejectedRecord,
        ARRIVAL,
        TEXT,
        st.none() | st.builds(RejectedChunk, TRACK, COUNTER, COUNTER, COUNTER),
    ),
    st.builds(EndRecord, ARRIVAL, st.sampled_from(EndReason), TEXT),
    st.builds(NoteRecord, ARRIVAL, TEXT, TEXT),
    st.builds(DroppedRecord, st.sampled_from(GapKind), TRACK, ARRIVAL, *[COUNTER] * 4),
    st.builds(PauseRecord, ARRIVAL, TEXT, st.integers(0, 2**50)),
    st.builds(ResumeRecord, ARRIVAL, st.sampled_from(PauseEnd), ARRIVAL, ARRIVAL),
)
RECORDS = st.lists(RECORD, max_size=12)
