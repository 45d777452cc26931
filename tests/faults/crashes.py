"""Faults that kill the receiver."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

from receiver.disk.layout import JOURNAL_SUFFIX, REWRITTEN_SUFFIX
from tests.end_to_end.receiver_process import WAIT_SECONDS
from tests.faults.accounting import Allowance, Tally, summed
from tests.faults.calls import Callers
from tests.faults.disks import syncs
from tests.faults.faulty_disk import Orders
from tests.faults.trial import Trial, kill

DEATHS = (
    "fsync before 0 inbound.wav",
    "fsync after 0 inbound.wav",  # between two tracks
    "fsync after 0 outbound.wav",
    "fsync after 0 recording.json",
    "rename before 0 .partial",
    "rename after 0 .partial",  # between rename and journal removal
    "fsync before 0 .published/",  # the log has the line, perhaps not on disk
    "fsync after 0 .published/",
    "unlink before 0 .journal",
    "unlink after 0 .journal",
)
"""When a receiver is killed while it publishes, as orders for the shim."""
BEFORE_LOG = 6
"""Of these: where the publication log is about to be synced."""


def killed(folder: Path, seed: int) -> Tally:
    """SIGKILL at a random time during several calls, then a start that recovers."""
    source = random.Random(seed)
    with Trial(folder) as trial:
        receiver = trial.start()
        with Callers(receiver.url, source.randint(2, 6), seed) as callers:
            callers.wait_for(source.randint(60, 200))
            cut_at = kill(receiver)
        trial.restart()
        tally = trial.account(callers.streams, Allowance(cut_at=cut_at))
        trial.check_that_recovery_is_over(tally)
        return tally


def killed_while_syncing(folder: Path, seed: int) -> Tally:
    """SIGKILL while every sync takes 3 s, one by one or all at once: what was written is there."""
    orders = Orders(folder / "shim")
    source = random.Random(seed)
    with Trial(folder) as trial:
        receiver = trial.start(orders=orders)
        orders.give(*syncs("delay", 3000), f"fsync delay 3000 /{trial.spool.name}")
        with Callers(receiver.url, (3, 6)[seed % 2], seed) as callers:
            callers.wait_for(source.randint(160, 300))
            cut_at = kill(receiver)
        orders.give()
        trial.restart()
        tally = trial.account(callers.streams, Allowance(cut_at=cut_at))
        trial.check_that_recovery_is_over(tally)
        return tally


def worker_killed(folder: Path, seed: int) -> Tally:
    """SIGKILL of one of two workers: it is replaced, and the other's calls are whole."""
    source = random.Random(seed)
    with Trial(folder) as trial:
        receiver = trial.start("--workers", "2")
        lines = [receiver.wait_for("worker_serving") for _ in range(2)]
        victim = source.choice(lines)
        with Callers(receiver.url, 6, seed) as callers:
            started = [receiver.wait_for("stream_started") for _ in callers.calls]
            callers.wait_for(source.randint(60, 200))
            cut_at = time.monotonic()
            os.kill(victim["pid"], signal.SIGKILL)
            receiver.wait_for("worker_died")
            callers.wait_for(250)
        trial.wait_until_published()
        carried = {line["stream_sid"] for line in started if line["worker"] == victim["worker"]}
        cut = [sent for sent in callers.streams if sent.stream_sid in carried]
        whole = [sent for sent in callers.streams if sent.stream_sid not in carried]
        tallies = trial.account(cut, Allowance(cut_at=cut_at)), trial.account(whole)
        for tally in tallies:  # each account is of its own callers only
            tally.problems[:] = [p for p in tally.problems if "who never called" not in p]
        tally = summed(tallies)
        tally.expect(bool(cut and whole), f"{len(cut)} of {len(callers.streams)} were cut")
        tally.expect(receiver.stop() == 0, "it did not end in peace")
        return tally


def killed_while_rewriting(folder: Path, seed: int) -> Tally:
    """SIGKILL while a journal is written again because a sync failed."""
    orders = Orders(folder / "shim")
    with Trial(folder) as trial:
        receiver = trial.start(orders=orders)
        with Callers(receiver.url, 3, seed) as callers:
            callers.wait_for(60)
            when = ("before", "after")[seed % 2]
            orders.give("fdatasync error 5 .journal", f"rename {when} 0 {REWRITTEN_SUFFIX}")
            receiver.process.wait(WAIT_SECONDS)
            cut_at = time.monotonic()
        trial.restart()
        tally = trial.account(callers.streams, Allowance(cut_at=cut_at))
        left = [path.name for path in trial.spool.glob(f"*{REWRITTEN_SUFFIX}")]
        tally.expect(not left, f"half copies are left: {left}")
        trial.check_that_recovery_is_over(tally)
        return tally


def killed_while_a_worker_rewrites(folder: Path, seed: int) -> Tally:
    """The same in a worker that is not wanted any more; and the disk has lost pages of the first.

    What was being written again is all there is of them. It must follow its journal.
    """
    orders = Orders(folder / "shim")
    with Trial(folder) as trial:
        receiver = trial.start("--workers", "2", orders=orders)
        with Callers(receiver.url, 4, seed) as callers:
            callers.wait_for(100)
            orders.give("fdatasync error 5 .journal", f"rename before 0 {REWRITTEN_SUFFIX}")
            receiver.process.wait(WAIT_SECONDS)
            cut_at = time.monotonic()
        rewritten = list(trial.spool.glob(f"worker-*/*{REWRITTEN_SUFFIX}"))
        for path in rewritten:
            journal = path.with_suffix(JOURNAL_SUFFIX)
            os.truncate(journal, journal.stat().st_size // 2)
        trial.restart(*(("--workers", "3") if seed % 2 else ()))
        tally = trial.account(callers.streams, Allowance(cut_at=cut_at))
        tally.expect(bool(rewritten), "no journal was being written again")
        left = list(trial.spool.rglob(f"*{REWRITTEN_SUFFIX}"))
        tally.expect(not left, f"half copies are left: {left}")
        trial.check_that_recovery_is_over(tally)
        return tally


def renderer_killed(folder: Path, seed: int) -> Tally:
    """SIGKILL of the rendering process, twice in the midst of the same journal."""
    orders = Orders(folder / "shim")
    with Trial(folder) as trial:
        receiver = trial.start(orders=orders)
        orders.give("fsync delay 60000 recording.json")
        with Callers(receiver.url, 1, seed) as callers:
            callers.wait_for(60)
            callers.hang_up()
            for times in (1, 2):
                while not (renderers := _renderers(receiver.process.pid)):
                    time.sleep(0.02)  # there is no event for when it runs
                time.sleep(0.3)  # the time is the fault
                os.kill(renderers[0], signal.SIGKILL)
                orders.give(*(["fsync delay 60000 recording.json"] if times == 1 else []))
                receiver.wait_for("renderer_failed")
            trial.wait_until_published()
        tally = trial.account(callers.streams)
        tally.expect(receiver.stop() == 0, "it did not end well")
        return tally


def _renderers(parent: int) -> list[int]:
    """Return the processes that a receiver has started to render in."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    found = []
    for child in children:
        with contextlib.suppress(OSError):  # it has just ended
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


def recovered_too_early(folder: Path, seed: int) -> Tally:
    """`receiver recover` and a second receiver beside a living one: both are refused."""
    with Trial(folder) as trial:
        receiver = trial.start()
        with Callers(receiver.url, 2, seed) as callers:
            callers.wait_for(60)
            output = trial.recover()
            with contextlib.suppress(AssertionError):
                output += trial.start().url
            callers.wait_for(120)
        trial.wait_until_published()
        tally = trial.account(callers.streams)
        tally.expect("in use by another receiver" in output, f"recover printed {output!r}")
        tally.expect(
            "listening" not in output and "ws:" not in output, "two receivers share a spool"
        )
        return tally


def killed_twice(folder: Path, seed: int) -> Tally:
    """SIGKILL during calls, and again while the next start recovers and records other calls."""
    source = random.Random(seed)
    with Trial(folder) as trial:
        receiver = trial.start()
        with Callers(receiver.url, 4, seed) as callers:
            callers.wait_for(source.randint(60, 200))
            cut_at = kill(receiver)
        receiver = trial.start()
        with Callers(receiver.url, 2, seed, first=5) as later:
            later.wait_for(source.randint(1, 120))
            cut_again_at = kill(receiver)
        trial.restart()
        by_cut = ((callers, cut_at), (later, cut_again_at))
        cuts = {sent.stream_sid: at for group, at in by_cut for sent in group.streams}
        streams = [*callers.streams, *later.streams]
        tally = trial.account(streams, Allowance(cut_at=cut_at, later_cuts=cuts))
        trial.check_that_recovery_is_over(tally)
        return tally


def killed_while_publishing(folder: Path, seed: int) -> Tally:
    """SIGKILL of all processes before or after one of the disk calls of publishing."""
    orders = Orders(folder / "shim")
    with Trial(folder) as trial:
        receiver = trial.start(orders=orders)
        orders.give(DEATHS[seed % len(DEATHS)])
        with Callers(receiver.url, 2, seed) as callers:
            callers.wait_for(60)
            callers.hang_up()
            receiver.process.wait(WAIT_SECONDS)
            cut_at = time.monotonic()
        trial.restart()
        tally = trial.account(callers.streams, Allowance(cut_at=cut_at))
        trial.check_that_recovery_is_over(tally)
        return tally
