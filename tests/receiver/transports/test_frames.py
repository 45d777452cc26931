"""Whole messages are cut out of a byte stream; the library gets every other frame as it came."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.transports.frames import FrameReader
from tests.receiver.helpers.wire import BINARY, CLOSE, CONTINUATION, PING, TEXT, frame

UNMASKED = b"\x81\x02hi"
LONGEST = 2048


@dataclass
class Received:
    """What either callback got, in order; the library takes no more after a close frame."""

    got: list[tuple[str, bytes]] = field(default_factory=list)
    wanted: bool = True

    def message(self, message: bytes) -> None:
        """Keep a message; fail at one that says so."""
        self.got.append(("message", message))
        if message == b"fail":
            raise ValueError("made to fail")

    def other(self, received: bytes) -> bool:
        """Keep what the library is to read."""
        self.got.append(("library", received))
        self.wanted = self.wanted and received[:1] != b"\x88"
        return self.wanted

    def kinds(self) -> list[str]:
        """Return which callback got each."""
        return [kind for kind, _ in self.got]

    def reader(self) -> FrameReader:
        """Return a reader with both callbacks."""
        return FrameReader(self.message, self.other, max_message_bytes=LONGEST)


@pytest.mark.parametrize("length", [0, 1, 125, 126, 2048])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_in_one_frame_is_unmasked(opcode: int, length: int) -> None:
    """Both short forms of a length are read."""
    received, message = Received(), random.Random(length).randbytes(length)
    received.reader().feed(frame(opcode, message))
    assert [("message", message)] == received.got


@given(st.integers(), st.lists(st.integers(1, 400), min_size=1))
def test_any_cut_of_the_stream_gives_the_same(seed: int, cuts: list[int]) -> None:
    """However the bytes come in, messages and frames are the same and in order."""
    source = random.Random(seed)
    frames = [frame(TEXT, source.randbytes(source.choice([0, 5, 300, 2000]))) for _ in range(20)]
    frames.insert(source.randrange(20), frame(PING, b"?"))
    sent, whole, cut = b"".join(frames), Received(), Received()
    whole.reader().feed(sent)
    reader, at = cut.reader(), 0
    while at < len(sent):
        step = source.choice(cuts)
        reader.feed(sent[at : at + step])
        at += step
    assert whole.got == cut.got
    assert 20 == cut.kinds().count("message")


@given(st.lists(st.binary(max_size=30)))
def test_any_bytes_are_split_or_passed_on(parts: list[bytes]) -> None:
    """Nothing that a peer sends raises an error, and the library sees all that is not a message."""
    received = Received()
    reader = received.reader()
    for part in parts:
        reader.feed(part)
    assert sum(len(passed) for _, passed in received.got) <= sum(map(len, parts))


def test_messages_between_fragments_are_for_the_library_to_refuse() -> None:
    """While it collects a message in fragments, the library sees all other frames too."""
    received = Received()
    reader = received.reader()
    first, inner = frame(TEXT, b"one", final=False), frame(TEXT, b"wrong")
    last, after = frame(CONTINUATION, b"two"), frame(TEXT, b"right")
    reader.feed(first + frame(PING) + inner + last + after)
    assert ["library"] * 4 + ["message"] == received.kinds()
    assert ("library", inner) == received.got[2]


@pytest.mark.parametrize("other", [UNMASKED, frame(TEXT, b"x" * 70_000)])
def test_what_is_not_for_us_leaves_all_the_rest_to_the_library(other: bytes) -> None:
    """Frames that are not masked, or very long, are not looked at any further."""
    received = Received()
    reader = received.reader()
    reader.feed(frame(TEXT, b"before") + other)
    reader.feed(frame(TEXT, b"after"))
    assert ["message", "library", "library"] == received.kinds()
    assert other == received.got[1][1]


def test_a_message_that_is_too_long_is_for_the_library_to_refuse() -> None:
    """The limit itself is allowed; one byte more is not handed on."""
    received = Received()
    received.reader().feed(frame(TEXT, b"x" * (LONGEST + 1)))
    assert ["library"] == received.kinds()


@pytest.mark.parametrize("end", [frame(CLOSE), b"\x88\x00"], ids=["masked", "not masked"])
def test_nothing_is_handed_on_behind_the_end(end: bytes) -> None:
    """Once the library takes no more frames, all that still comes is dropped."""
    received = Received()
    reader = received.reader()
    reader.feed(end)
    reader.feed(frame(TEXT, b"late"))
    assert ["library"] == received.kinds()


def test_nothing_is_handed_on_behind_the_end_of_the_same_read() -> None:
    """Nor is what came with the last frame."""
    received = Received()
    received.reader().feed(frame(TEXT, b"in time") + frame(CLOSE) + frame(TEXT, b"late"))
    assert ["message", "library"] == received.kinds()


def test_an_error_loses_nothing() -> None:
    """What was read behind the message at which the peer failed is still there."""
    received = Received()
    reader = received.reader()
    with pytest.raises(ValueError, match="made to fail"):
        reader.feed(frame(TEXT, b"fail") + frame(TEXT, b"next") + frame(PING)[:3])
    reader.feed(b"")
    reader.feed(frame(PING)[3:])
    assert ["message", "message", "library"] == received.kinds()
