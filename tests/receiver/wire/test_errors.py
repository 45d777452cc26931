"""What can be wrong with a message or a stream, and what it says."""

from __future__ import annotations

from receiver.wire.messages import MessageRejected, ProtocolViolation


def test_a_rejected_message_begins_with_its_code() -> None:
    """The stable word is for counters, the detail for people."""
    error = MessageRejected("bad_chunk", "no payload")
    assert ("bad_chunk", "no payload", None) == (error.code, error.detail, error.chunk)
    assert "bad_chunk: no payload" == str(error)


def test_a_violation_closes_with_a_code() -> None:
    """1008, a policy violation, unless another one says more."""
    assert 1008 == ProtocolViolation("why").close_code
    assert 1003 == ProtocolViolation("why", close_code=1003).close_code
