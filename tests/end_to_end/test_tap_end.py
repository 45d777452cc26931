"""What listeners and watchers receive when the receiver itself ends."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.end_to_end import sender
from tests.end_to_end.receiver_process import TOKEN, WAIT_SECONDS
from tests.end_to_end.taps import (
    CALL,
    TAP_TOKEN,
    ask,
    open_tap,
    read_event,
    secret_file,
    send_chunks,
    start_call,
    stopping_receiver,
    tapped_receiver,
    texts_of,
)


def to_the_end(socket: ClientConnection) -> tuple[list[dict[str, Any]], int]:
    """Return all texts, and the code with which the receiver closed."""
    messages = []
    with suppress(ConnectionClosed):
        while True:
            messages.append(socket.recv(timeout=WAIT_SECONDS))
    assert socket.close_code is not None
    return texts_of(messages), socket.close_code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watchers_receive_the_last_recording(tmp_path: Path, number: signal.Signals) -> None:
    """Their sockets are the last to be closed; listeners end with their stream."""
    with (
        tapped_receiver(tmp_path) as receiver,
        open_tap(receiver, "/all") as watcher,
        start_call(receiver) as call,
    ):
        with open_tap(receiver, CALL) as listener:
            send_chunks(call, range(1, 11))
            assert "started" == read_event(listener)["event"]
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


def test_a_token_for_both_is_refused(tmp_path: Path) -> None:
    """At the start with exit code 3; on SIGHUP the old ones stay in force."""
    both = secret_file(tmp_path / "both", TOKEN)
    with stopping_receiver(tmp_path, "--tap-token-file", str(both)) as receiver:
        assert 3 == receiver.ended()
        assert "is a stream token, too" in receiver.raw_log
        assert TOKEN not in receiver.raw_log
    with tapped_receiver(tmp_path) as receiver, open_tap(receiver, "/all") as watcher:
        (tmp_path / "tap-tokens").write_text(f"{TAP_TOKEN}\n{TOKEN}\n")
        receiver.process.send_signal(signal.SIGHUP)
        refused = {receiver.wait_for("reload_failed")["part"] for _ in range(2)}
        assert {"stream tokens", "tap tokens"} == refused
        with start_call(receiver):
            assert "started" == read_event(watcher)["event"]
        assert 401 == ask(receiver, token=TOKEN)[0]
        assert TOKEN not in receiver.raw_log


def test_a_token_that_sighup_takes_away_closes_its_sockets(tmp_path: Path) -> None:
    """1008, whoever listens, waits or watches; the call itself is recorded on."""
    with tapped_receiver(tmp_path) as receiver, start_call(receiver) as call:
        sockets = [open_tap(receiver, rest) for rest in (CALL, "/later?wait=60", "/all")]
        for socket in sockets[::2]:
            assert "started" == read_event(socket)["event"]
        (tmp_path / "tap-tokens").write_text("another-tap-token-for-tests\n")
        receiver.process.send_signal(signal.SIGHUP)
        assert [([], 1008)] * 3 == [to_the_end(socket) for socket in sockets]
        send_chunks(call, range(1, 11))
        call.send(sender.stop())
        assert receiver.published()[1].complete
