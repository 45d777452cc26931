"""The fastest transport that is installed serves, unless another one is asked for."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from receiver.errors import ConfigurationError
from receiver.transports.choice import choose
from tests.end_to_end.receiver_process import ReceiverProcess


def test_the_fastest_is_chosen() -> None:
    """picows where it is installed."""
    name, listen = choose(None)
    assert "picows" == name
    assert importlib.import_module("receiver.transports.picows").listen is listen


def test_without_the_extra_websockets_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not installed is not chosen."""
    monkeypatch.setitem(sys.modules, "picows", None)
    assert "websockets" == choose(None)[0]


def test_a_transport_that_is_asked_for_must_be_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing else is taken in its place, and the text says what to install."""
    assert "websockets" == choose("websockets")[0]
    monkeypatch.setitem(sys.modules, "picows", None)
    with pytest.raises(ConfigurationError, match="picows is not installed: pip install"):
        choose("picows")


@pytest.mark.parametrize(
    ("program", "options", "expected"),
    [
        (("-m", "receiver"), (), ("picows", "uvloop")),
        (("-m", "receiver"), ("--transport", "websockets"), ("websockets", "uvloop")),
        (("-m", "tests.bench.default_install"), (), ("websockets", "asyncio")),
    ],
)
def test_the_log_says_what_serves(
    tmp_path: Path, program: tuple[str, ...], options: tuple[str, ...], expected: tuple[str, str]
) -> None:
    """Transport and event loop are told when the receiver starts."""
    root = str(Path(__file__).parents[3])
    environment = {"PYTHONPATH": root}
    receiver = ReceiverProcess(tmp_path, *options, program=program, environment=environment)
    try:
        line = receiver.wait_for("listening")
        assert expected == (line["transport"], line["event_loop"])
        assert 0 == receiver.stop()
    finally:
        receiver.release()
