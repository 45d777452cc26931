"""Whole messages are cut out of a byte stream; the library gets everything else as it came."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from receiver.transports.frames import FrameReader
from tests.receiver.helpers.wire import BINARY, CLOSE, CONTINUATION, PING, TEXT, wire

UNMASKED = b"\x81\x02hi"
LONGEST = 2048


@dataclass
class Both:
    """What either side got, in order; the library stops listening after `CLOSE`."""

    got: list[tuple[str, bytes]] = field(default_factory=list)
    sound: bool = True

    def deliver(self, message: bytes) -> None:
        """Take a message."""
        self.got.append(("message", message))

    def library(self, received: bytes) -> None:
        """Take what the library is to read."""
        self.got.append(("library", received))
        self.sound = self.sound and received[:1] != b"\x88"

    def reader(self) -> FrameReader:
        """Return a reader between both."""
        return FrameReader(self.deliver, self.library, lambda: self.sound, longest=LONGEST)


@pytest.mark.parametrize("length", [0, 1, 125, 126, 2048])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_of_one_unit_is_delivered(opcode: int, length: int) -> None:
    """Both short forms of a length are read, and the mask is taken off."""
    both, message = Both(), random.Random(length).randbytes(length)
    both.reader().receive(wire(opcode, message))
    assert [("message", message)] == both.got


@pytest.mark.parametrize("seed", range(20))
def test_any_cut_of_the_stream_gives_the_same(seed: int) -> None:
    """However the bytes come in, messages and units are the same and in order."""
    source = random.Random(seed)
    units = [wire(TEXT, source.randbytes(source.choice([0, 5, 300, 2000]))) for _ in range(20)]
    units.insert(source.randrange(20), wire(PING, b"?"))
    sent, whole, cut = b"".join(units), Both(), Both()
    whole.reader().receive(sent)
    reader, at = cut.reader(), 0
    while at < len(sent):
        step = source.randint(1, 400)
        reader.receive(sent[at : at + step])
        at += step
    assert whole.got == cut.got
    assert 20 == sum(to == "message" for to, _ in cut.got)


def test_messages_between_fragments_are_for_the_library_to_refuse() -> None:
    """While it collects a message of several units, the library sees all others too."""
    both = Both()
    reader = both.reader()
    first, inner = wire(TEXT, b"one", final=False), wire(TEXT, b"wrong")
    last, after = wire(CONTINUATION, b"two"), wire(TEXT, b"right")
    reader.receive(first + wire(PING) + inner + last + after)
    assert ["library"] * 4 + ["message"] == [to for to, _ in both.got]
    assert ("library", inner) == both.got[2]


@pytest.mark.parametrize("unit", [UNMASKED, wire(TEXT, b"x" * 70_000)])
def test_what_is_not_for_us_leaves_all_the_rest_to_the_library(unit: bytes) -> None:
    """Units that are not masked, or very long, are not looked at any further."""
    both = Both()
    reader = both.reader()
    reader.receive(wire(TEXT, b"before") + unit)
    reader.receive(wire(TEXT, b"after"))
    assert ["message", "library", "library"] == [to for to, _ in both.got]
    assert unit == both.got[1][1]


def test_a_message_that_is_too_long_is_for_the_library_to_refuse() -> None:
    """The limit itself is allowed; one byte more is not delivered."""
    both = Both()
    both.reader().receive(wire(TEXT, b"x" * (LONGEST + 1)))
    assert ["library"] == [to for to, _ in both.got]


def test_nothing_is_delivered_behind_the_end() -> None:
    """Once the library takes no more units, no message is cut out either."""
    both = Both()
    reader = both.reader()
    reader.receive(wire(CLOSE) + wire(TEXT, b"late"))
    reader.receive(wire(TEXT, b"later"))
    assert ["library"] * 3 == [to for to, _ in both.got]
