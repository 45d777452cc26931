"""What listeners and watchers are told when the receiver itself comes to its end."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.end_to_end import sender
from tests.end_to_end.receiver_process import PATIENCE_SECONDS
from tests.end_to_end.taps import event, hear, tapped_receiver, told
from tests.end_to_end.test_tap import CALL, begin, both_transports, say


def to_the_end(socket: ClientConnection) -> tuple[list[dict[str, Any]], int]:
    """Return all texts, and the code with which the receiver closed."""
    messages = []
    with suppress(ConnectionClosed):
        while True:
            messages.append(socket.recv(timeout=PATIENCE_SECONDS))
    assert socket.close_code is not None
    return told(messages), socket.close_code


@both_transports
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watchers_hear_of_the_last_recording(
    tmp_path: Path, transport: str, number: signal.Signals
) -> None:
    """Their sockets are the last to be closed; listeners end with their stream."""
    with (
        tapped_receiver(tmp_path, "--transport", transport) as receiver,
        hear(receiver, "/all") as watcher,
        begin(receiver) as call,
    ):
        with hear(receiver, CALL) as listener:
            say(call, range(1, 11))
            assert "started" == event(listener)["event"]
            receiver.process.send_signal(number)
            if number == signal.SIGTERM:
                receiver.wait_for("draining")
                call.send(sender.stop())
            _, code = to_the_end(listener)
            assert 1000 == code
        news, code = to_the_end(watcher)
        assert 0 == receiver.ended()
    assert ["started", "stopped", "recorded"] == [one["event"] for one in news]
    assert (number == signal.SIGTERM, 1001) == (news[-1]["complete"], code)
    assert Path(news[-1]["folder"], "recording.json").exists()
