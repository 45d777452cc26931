"""Keys that are not to be kept stand nowhere: not on the disk, not on the air, not in a log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end import sender
from tests.end_to_end.media_server import Consumer, rest_of
from tests.end_to_end.receiver_process import ReceiverProcess
from tests.end_to_end.taps import send_chunks, start_call, tapped_receiver
from tests.end_to_end.withheld import Listeners, files_below, metrics_of, places_of

DIGITS = ("4929-0661-7733", "4929066177", "#8351246")
"""No key has such a name; nothing else does either, so wherever one stands is a leak."""


def keys() -> list[str]:
    """Return key presses as providers spell them, and as one may that is not known."""
    first, number, other = DIGITS
    body = {"streamSid": sender.STREAM_SID, "sequenceNumber": "101"}
    return [
        json.dumps({"event": "dtmf", **body, "dtmf": {"digit": first, "track": "inbound_track"}}),
        json.dumps({"event": "dtmf", "sequenceNumber": "102", "dtmf": {"digit": int(number)}}),
        json.dumps({"event": "websocket:dtmf", "sequenceNumber": "103", "digit": other}),
        '{"event": "dtmf", "dtmf": {"digit": "' + first + '"',
    ]


@pytest.fixture
def consumer() -> Iterator[Consumer]:
    """Run a consumer."""
    running = Consumer()
    running.start()
    yield running
    running.stop()


def place_call(receiver: ReceiverProcess) -> bytes:
    """Place a call with keys in its middle; return all that its listeners got."""
    with start_call(receiver) as call:
        listening = Listeners(receiver)
        receiver.wait_for("listener_started")
        send_chunks(call, range(1, 51))
        sender.send_call(call, keys())
        send_chunks(call, range(51, 101))
        listening_later = Listeners(receiver, since="&since=60")
        receiver.wait_for("listener_started")
        before = [content for _, content in files_below(receiver.folder)]
        assert any(before)
        call.send(sender.stop())
    return listening.ended() + listening_later.ended()


@pytest.mark.integration
@pytest.mark.parametrize("mode", ["count", "drop"])
def test_no_digit_stands_anywhere(tmp_path: Path, consumer: Consumer, mode: str) -> None:
    """Journal, recording, database, log, metrics, listeners, their past, and consumers."""
    options = ("--dtmf", mode, "--forward", consumer.url, "--metrics-port", "0")
    with tapped_receiver(tmp_path, *options, "--log-level", "debug") as receiver:
        heard = place_call(receiver)
        forwarded = json.dumps(rest_of(consumer.call())).encode()
        _, document = receiver.published()
        metrics = metrics_of(receiver)
    log = receiver.raw_log.encode()
    markers = [digit.encode() for digit in DIGITS]
    found = places_of(markers, tmp_path, heard=heard, forwarded=forwarded, metrics=metrics, log=log)
    assert [] == found
    expected = [(1000, "?", None)] if mode == "count" else []
    assert expected == [(key.at_ms, key.digit, key.duration_ms) for key in document.dtmf]
    assert (mode == "count") == (b'"digit":"?"' in heard)


@pytest.mark.integration
def test_the_search_would_find_them(tmp_path: Path, consumer: Consumer) -> None:
    """Where keys are kept: in the recording, and with everybody who listened."""
    with tapped_receiver(tmp_path, "--forward", consumer.url) as receiver:
        heard = place_call(receiver)
        forwarded = json.dumps(rest_of(consumer.call())).encode()
        receiver.published()
    found = places_of([DIGITS[0].encode()], tmp_path, heard=heard, forwarded=forwarded)
    names = {Path(place).name for place in found}
    assert {"recording.json", "timeline.json", "heard", "forwarded"} <= names
