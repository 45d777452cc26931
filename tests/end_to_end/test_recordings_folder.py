"""Where a real receiver refuses to write, and that nothing is lost by it."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from receiver.disk import layout
from tests.bounds import at_most
from tests.end_to_end import sender
from tests.end_to_end.receiver_process import (
    WAIT_SECONDS,
    ReceiverProcess,
    read_document,
    running_receiver,
)

AUDIO = bytes(range(160))


def call(receiver: ReceiverProcess) -> None:
    """Stream one short call."""
    with sender.dial(receiver.url) as socket:
        sender.send_call(socket, [sender.start(), sender.media("inbound", 1, AUDIO)])
        socket.send(sender.stop())
        receiver.wait_for("stream_ended")


def figure(url: str, name: str) -> float:
    """Return one of the receiver's metrics."""
    with urllib.request.urlopen(url, timeout=at_most(10)) as answer:  # noqa: S310  our own loopback url
        found = re.search(rf"^{name} ([0-9.]+)$", answer.read().decode(), re.MULTILINE)
    assert found, name
    return float(found[1])


def test_a_planted_link_keeps_a_recording_back_until_it_is_gone(tmp_path: Path) -> None:
    """It is logged and counted; the journal stays and is published once it is possible."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "recordings").mkdir(0o775)
    years = [tmp_path / "recordings" / str(year) for year in range(2024, 2100)]
    for year in years:
        year.symlink_to(elsewhere)
    with running_receiver(tmp_path, "--metrics-port", "0") as receiver:
        url = receiver.wait_for("serving_metrics")["url"]
        call(receiver)
        line = receiver.wait_for("publishing_failed")
        assert "it is a symbolic link" in line["error"]
        assert figure(url, "tapreel_publishing_failed_total") >= 1
        assert (receiver.spool / line["journal"]).is_file()
        assert [] == list(elsewhere.iterdir())
        for year in years:
            year.unlink()
        _, document = receiver.published()
        assert document.complete
    assert [] == list(receiver.spool.glob("*.journal"))


def test_the_recordings_folder_may_be_a_link(tmp_path: Path) -> None:
    """A user may keep recordings on another disk."""
    (tmp_path / "disk").mkdir(0o775)
    (tmp_path / "recordings").symlink_to("disk")
    with running_receiver(tmp_path) as receiver:
        call(receiver)
        receiver.published()
    (document,) = (tmp_path / "disk").rglob(layout.RECORDING_JSON)
    assert read_document(document.parent).complete


@pytest.mark.parametrize("options", [[], ["--workers", "2"]], ids=["one", "workers"])
def test_recordings_that_everybody_can_write_to_are_refused(
    tmp_path: Path, options: list[str]
) -> None:
    """One line has the reason and what to do, and the exit code is that of a setting."""
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings").chmod(0o777)
    (tmp_path / "tokens").write_text("a-token-for-tests-only\n")
    (tmp_path / "tokens").chmod(0o600)
    command = [sys.executable, "-m", "receiver", "serve", "--no-tls", "--port", "0"]
    ended = subprocess.run(
        [*command, "--token-file", "tokens", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert (3, "") == (ended.returncode, ended.stdout)
    problem = "folder recordings can be written to by everybody: chmod o-w"
    assert f"receiver: {problem}\n" == ended.stderr
    assert [] == list((tmp_path / "recordings").rglob("*.journal"))
