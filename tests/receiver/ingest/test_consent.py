"""Streams that lack a required parameter are not recorded; a recording says what was required."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from receiver.auth.bearer import Grant
from receiver.counters import Counters
from receiver.errors import UnprovenError
from receiver.ingest.recorder import Recorder
from receiver.ingest.session import Session
from receiver.journal.backlog import open_journal
from receiver.journal.spool import Spool
from receiver.lifecycle.ledger import Ledger
from receiver.lifecycle.ledger_thread import LedgerThread
from receiver.media import lacking
from receiver.recording.journal_scan import scan_file
from receiver.tap.local_hub import LocalHub
from tests.receiver.helpers.journals import render, start_message
from tests.receiver.helpers.taps import ManualScheduler

EARLY = (
    b'{"event":"media","media":{"track":"inbound","chunk":"1","timestamp":"0","payload":"//8="}}'
)
STOP = b'{"event":"stop","sequenceNumber":"9"}'


class Socket:
    """A connection that remembers how it was closed."""

    remote_address = "192.0.2.7"

    def __init__(self) -> None:
        self.closings: list[tuple[int, str]] = []

    def close(self, code: int, reason: str) -> None:
        self.closings.append((code, reason))


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """A spool in an empty folder."""
    made = Spool(tmp_path / "spool")
    yield made
    made.close()


def recorder_of(
    spool: Spool, *required: str, ended: list[Path], ledger: LedgerThread | None = None
) -> Recorder:
    """Return a recorder that requires parameters."""
    hub = LocalHub(ManualScheduler())
    counters = Counters()
    return Recorder(
        spool, hub, counters, journal_ended=ended.append, required=required, ledger=ledger
    )


def opened(recorder: Recorder) -> tuple[Session, Socket]:
    """Return a session on an open socket."""
    made, socket = Session(recorder, Grant(), remote_address="192.0.2.7"), Socket()
    made.opened(socket)  # type: ignore[arg-type]  # it has what a session uses
    return made, socket


@pytest.mark.parametrize(
    ("required", "parameters", "missing"),
    [
        (["consent"], {}, ("consent",)),
        (["consent"], {"consent": ""}, ("consent",)),
        (["consent"], {"consent": "no"}, ()),
        (["consent=yes"], {"consent": "no"}, ("consent=yes",)),
        (["consent=yes"], {"consent": "yes"}, ()),
        (["consent=true"], {"consent": True}, ()),
        (["consent=a=b"], {"consent": "a=b"}, ()),
        (["consent="], {"consent": ""}, ()),
        (["a", "b=2"], {"a": 1, "b": "3"}, ("b=2",)),
    ],
)
def test_what_a_stream_lacks(
    required: list[str], parameters: dict[str, object], missing: tuple[str, ...]
) -> None:
    """A name alone wants any text, a name with a value wants that one; each must be there."""
    assert missing == lacking(required, parameters)


@pytest.mark.parametrize("early", [[], [EARLY]])
def test_a_stream_without_consent_is_closed_and_nothing_is_kept(
    spool: Spool, early: list[bytes]
) -> None:
    """Not the audio that came before its start either; it is counted, and logged once."""
    ended: list[Path] = []
    recorder = recorder_of(spool, "consent=yes", ended=ended)
    with capture_logs() as lines:
        for _ in range(2):
            made, socket = opened(recorder)
            for message in (*early, start_message(consent="no"), EARLY, STOP):
                made.message_received(message)
            made.closed(code=1008, clean=True)
    spool.close()
    assert [(1008, "not recorded: the start message lacks consent=yes")] == socket.closings
    assert 2 == recorder.counters.without_parameter
    (line,) = [line for line in lines if line["event"] == "stream_refused"]
    assert "not recorded: the start message lacks consent=yes" == line["reason"]
    assert ([], []) == (ended, list(spool.folder.glob("*.journal")))


def test_a_refused_call_is_in_the_ledger(tmp_path: Path, spool: Spool) -> None:
    """Once for each call, however often it comes again."""

    async def refuse() -> None:
        ledger = LedgerThread(tmp_path)
        recorder = recorder_of(spool, "consent", ended=[], ledger=ledger)
        for _ in range(3):
            opened(recorder)[0].message_received(start_message())
        await ledger.close()

    asyncio.run(refuse())
    (entry,) = Ledger(tmp_path).read()
    assert ("not_recorded", "receiver") == (entry.what, entry.who)
    assert {"call": "76ac3c36-aaaa-4bbb-8ccc-ddddeeeeffff", "lacks": ["consent"]} == {
        name: entry.details[name] for name in ("call", "lacks")
    }


def test_a_recording_says_what_was_required(tmp_path: Path, spool: Spool) -> None:
    """As it came; of a stream of which nothing is required, nothing."""
    ended: list[Path] = []
    for required in (("consent=yes", "queue"), ()):
        made, _ = opened(recorder_of(spool, *required, ended=ended))
        for message in (start_message(consent="yes", queue="sales"), EARLY, STOP):
            made.message_received(message)
    spool.close()
    documents = []
    for number, journal in enumerate(ended):
        folder = tmp_path / str(number)
        folder.mkdir()
        documents.append(render(journal, folder))
    assert {"consent": "yes", "queue": "sales"} in [document.consent for document in documents]
    assert None in [document.consent for document in documents]


def test_after_a_crash_nothing_is_published_without_consent(spool: Spool) -> None:
    """The journal says from its first record on what its start message must have."""
    made, _ = opened(recorder_of(spool, "consent", ended=[]))
    made.message_received(EARLY)
    spool.close()
    (journal,) = spool.folder.glob("*.journal")
    with open_journal(journal) as file, pytest.raises(UnprovenError, match="consent"):
        scan_file(file)


def test_a_second_start_without_consent_ends_the_stream(spool: Spool) -> None:
    """What came while there was consent is kept."""
    ended: list[Path] = []
    made, socket = opened(recorder_of(spool, "consent", ended=ended))
    for message in (start_message(consent="yes"), EARLY, start_message(), EARLY):
        made.message_received(message)
    spool.close()
    assert [1008] == [code for code, _ in socket.closings]
    with open_journal(ended[0]) as file:
        scanned = scan_file(file)
    assert (1, {"consent": "yes"}) == (sum(map(len, scanned.tracks.values())), scanned.consent)
