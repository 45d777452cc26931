"""Faults of the disk: full, failing, slow, hanging. The calls go on meanwhile."""

from __future__ import annotations

import random
import time
from pathlib import Path

from receiver.media import GapKind
from receiver.recording.document import Recording
from tests.bounds import at_most
from tests.end_to_end.receiver_process import ReceiverProcess, read_document
from tests.faults.accounting import Allowance, Tally, recording_folders
from tests.faults.calls import Callers
from tests.faults.faulty_disk import Orders, filled, small_disk, without_inodes
from tests.faults.trial import Trial
from tests.faults.watching import Watch, ask

CALLS = 5
DISK = Allowance(frozenset({GapKind.DISK}))
EVERY_SYNC = ("fdatasync {} {} .journal", "syncfs {} {} /")


def full(folder: Path, seed: int, *, seconds: float = 10.0) -> Tally:
    """A disk without a free byte for some time during 5 calls: memory bridges all of it."""
    with small_disk(folder, megabytes=24), Trial(folder) as trial:
        receiver = trial.start()
        with Callers(receiver.url, CALLS, seed) as callers:
            callers.wait_for(random.Random(seed).randint(50, 150))
            with filled(folder), Watch(receiver) as watch:
                refused = _is_refused(receiver, seconds)
            admitted = _is_admitted_again(receiver)
            callers.wait_for(len(callers.streams[0].chunks) + 50)
        trial.wait_until_published()
        tally = trial.account(callers.streams)
        tally.expect(receiver.stop() == 0, "it did not end well")
        tally.expect(refused, "a full disk was not seen by /readyz and new streams")
        tally.expect(admitted, "it was not ready again")
        tally.figures.append(watch.figures)
        return tally


def _is_refused(receiver: ReceiverProcess, seconds: float) -> bool:
    """Return whether /readyz answers 503 at some time, and a new stream is refused then."""
    over = time.monotonic() + seconds
    refused = False
    while time.monotonic() < over:
        if ask(receiver, "/readyz") == 503 and not refused:
            with Callers(receiver.url, 1, first=900) as late:
                late.wait_for(1)
            refused = late.calls[0].ended_by_peer and not late.streams[0].chunks
        time.sleep(0.1)  # the time is the fault
    return refused


def _is_admitted_again(receiver: ReceiverProcess) -> bool:
    deadline = time.monotonic() + at_most(10)
    while time.monotonic() < deadline:
        if ask(receiver, "/readyz") == 200:
            return True
        time.sleep(0.05)  # there is no event for when it looks at the disk
    return False


def full_for_too_long(
    folder: Path, seed: int, *, limit: float = 2.0, seconds: float = 5.0
) -> Tally:
    """Longer than memory may bridge: the rest is one `disk` gap per track, with exact bounds."""
    limits = (f"MOST_HELD_SECONDS={limit}",)
    with small_disk(folder, megabytes=24), Trial(folder) as trial:
        receiver = trial.start(limits=limits)
        with Callers(receiver.url, CALLS, seed) as callers:
            callers.wait_for(random.Random(seed).randint(50, 150))
            with filled(folder), Watch(receiver) as watch:
                time.sleep(seconds)  # the time is the fault
            callers.wait_for(len(callers.streams[0].chunks) + 150)
        trial.wait_until_published()
        tally = trial.account(callers.streams, DISK)
        _expect_one_gap_per_track(tally, trial)
        tally.figures.append(watch.figures)
        return tally


def out_of_inodes(folder: Path, seed: int, *, seconds: float = 8.0) -> Tally:
    """Free bytes and no inode: no new streams after some seconds, and memory bridges all of it.

    The disk is not tried out here, which would refuse the third call: see `idle_without_inodes`.
    """
    with small_disk(folder, megabytes=24, inodes=256), Trial(folder) as trial:
        receiver = trial.start(limits=("service.server._WATCH_SECONDS=600",))
        with Callers(receiver.url, 2, seed) as living:
            living.wait_for(50)
            with without_inodes(folder), Callers(receiver.url, 1, first=3) as unnamed:
                unnamed.wait_for(1)
                refused = _is_refused(receiver, seconds)
                unnamed.wait_for(len(unnamed.streams[0].chunks) + 20)
                streams = [*living.streams, *unnamed.streams]
                held = list(trial.spool.glob("*.journal"))
            admitted = _is_admitted_again(receiver)
            living.wait_for(len(living.streams[0].chunks) + 50)
        trial.wait_until_published()
        tally = trial.account(streams)
        tally.expect(len(held) == 2, f"{len(held)} journals had an inode, instead of 2")
        tally.expect(refused, "a disk that takes nothing was not seen by /readyz and new streams")
        tally.expect(admitted, "it was not ready again")
        return tally


def idle_without_inodes(folder: Path, seed: int) -> Tally:
    """Free bytes and no inode while there is no call: /readyz says so before the first one."""
    with small_disk(folder, megabytes=24, inodes=256), Trial(folder) as trial:
        receiver = trial.start()
        with without_inodes(folder):
            refused = _is_refused(receiver, at_most(4))
        admitted = _is_admitted_again(receiver)
        with Callers(receiver.url, 1, seed) as callers:
            callers.wait_for(20)
        trial.wait_until_published()
        tally = trial.account(callers.streams)
        tally.expect(refused, "an idle receiver did not see that its disk takes no file")
        tally.expect(admitted, "it was not ready again")
        return tally


def full_for_files(folder: Path, seed: int) -> Tally:
    """Space for the journals, but not for the recordings: they are published when there is."""
    with small_disk(folder, megabytes=24), Trial(folder) as trial:
        receiver = trial.start()
        with Callers(receiver.url, 2, seed) as ending, Callers(receiver.url, 2, first=3) as living:
            ending.wait_for(500)
            with filled(folder, spare_bytes=96 * 1024):
                ending.hang_up()
                receiver.wait_for("publishing_failed")
                living.wait_for(len(living.streams[0].chunks) + 20)
            living.wait_for(len(living.streams[0].chunks) + 50)
        trial.wait_until_published()
        return trial.account([*ending.streams, *living.streams])


def hanging(folder: Path, seed: int) -> Tally:
    """One write takes longer than memory may bridge: the same gap, and no more memory."""
    orders = Orders(folder / "shim")
    with Trial(folder) as trial:
        receiver = trial.start(orders=orders, limits=("MOST_HELD_SECONDS=2",))
        with Callers(receiver.url, CALLS, seed) as callers:
            callers.wait_for(100)
            orders.give("pwrite delay 5000 .journal")
            callers.wait_for(300)
            orders.give()
            callers.wait_for(1000)
        trial.wait_until_published()
        tally = trial.account(callers.streams, DISK)
        _expect_one_gap_per_track(tally, trial)
        return tally


def sync_hangs(folder: Path, seed: int) -> Tally:
    """One sync takes longer than that: writing goes on, and nothing is lost."""
    orders = Orders(folder / "shim")
    with Trial(folder) as trial:
        receiver = trial.start(orders=orders, limits=("MOST_HELD_SECONDS=2",))
        with Callers(receiver.url, CALLS, seed) as callers:
            callers.wait_for(100)
            orders.give(*syncs("delay", 5000))
            callers.wait_for(300)
            orders.give()
            callers.wait_for(500)
        trial.wait_until_published()
        return trial.account(callers.streams)


def failing(folder: Path, seed: int) -> Tally:
    """Every sync fails with EIO for a while: the journals are written again, nothing is lost."""
    orders = Orders(folder / "shim")
    source = random.Random(seed)
    with Trial(folder) as trial:
        receiver = trial.start(orders=orders)
        with Callers(receiver.url, source.choice((2, 6)), seed) as callers:
            callers.wait_for(source.randint(20, 150))
            orders.give(*syncs("error", 5))
            receiver.wait_for("journal_sync_failed")
            callers.wait_for(len(callers.streams[0].chunks) + source.randint(1, 100))
            orders.give()
            callers.wait_for(len(callers.streams[0].chunks) + 100)
        trial.wait_until_published()
        tally = trial.account(callers.streams)
        rewritten = [_codes(document) for document in _documents(trial)]
        listed = any("journal_rewritten" in codes for codes in rewritten)
        tally.expect(listed, "no recording has the finding that its journal was rewritten")
        return tally


def slow(folder: Path, seed: int, *, seconds: float = 3.0) -> Tally:
    """Every sync takes 3 s: nothing is lost, and the event loop is not delayed."""
    orders = Orders(folder / "shim")
    with Trial(folder) as trial:
        receiver = trial.start(orders=orders)
        orders.give(*syncs("delay", int(seconds * 1000)))
        with Callers(receiver.url, CALLS, seed) as callers, Watch(receiver) as watch:
            callers.wait_for(600)
        trial.wait_until_published()
        tally = trial.account(callers.streams)
        tally.figures.append(watch.figures)
        return tally


def syncs(action: str, argument: int) -> list[str]:
    """Return the orders that make every way to sync fail or wait."""
    return [order.format(action, argument) for order in EVERY_SYNC]


def _documents(trial: Trial) -> list[Recording]:
    return [read_document(folder) for folder in recording_folders(trial.recordings)]


def _codes(document: Recording) -> set[str]:
    return {finding.code for finding in document.findings}


def _expect_one_gap_per_track(tally: Tally, trial: Trial) -> None:
    tally.expect(tally.listed > 0, "memory bridged what it should not have")
    for document in _documents(trial):
        for track in document.tracks:
            kinds = [gap.kind for gap in track.gaps].count(GapKind.DISK)
            tally.expect(kinds == 1, f"{kinds} disk gaps on a track")
        tally.expect("audio_disk" in _codes(document), "the disk gap is no finding")
        tally.expect(not document.complete, "it claims to be complete")
