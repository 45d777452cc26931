"""Being asked to end while calls go on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from receiver.media import EndReason
from tests.bounds import at_most
from tests.end_to_end.receiver_process import WAIT_SECONDS, read_document
from tests.faults.accounting import Allowance, Tally, recording_folders
from tests.faults.calls import Callers
from tests.faults.faulty_disk import Orders
from tests.faults.trial import Trial
from tests.faults.watching import ask

CALLS = 5
MOST_SECONDS = at_most(10.0)
"""How long the end may take after a second SIGTERM."""
_ON_THE_WIRE_SECONDS = at_most(0.5)
_RENDERING_SECONDS = 7.5
"""Nearly what rendering has, before a journal may be left for the next start."""
_HANG_MS = 60_000
HANGS: dict[str, tuple[str, ...]] = {
    "recordings": ("fsync",),
    "journals": ("fdatasync", "syncfs"),
    "everything": ("fsync", "fdatasync", "syncfs", "pwrite"),
}
"""Calls of a disk that does not come back, by what cannot be written to it any more."""


def drained(folder: Path, seed: int) -> Tally:
    """SIGTERM: not ready at once, no new streams, and the live ones go on to their own end."""
    with Trial(folder) as trial:
        receiver = trial.start()
        with Callers(receiver.url, CALLS, seed) as callers:
            callers.wait_for(50)
            receiver.process.send_signal(signal.SIGTERM)
            receiver.wait_for("draining")
            ready = ask(receiver, "/readyz")
            with Callers(receiver.url, 1, seed, first=900) as late:
                late.wait_for(1)
            callers.wait_for(200)
        code = receiver.ended()
        tally = trial.account(callers.streams)
        tally.expect(ready == 503, f"/readyz answered {ready}")
        tally.expect(late.calls[0].ended_by_peer, "a new stream was admitted")
        tally.expect(code == 0, f"exit code {code}")
        reasons = _reasons(trial)
        tally.expect(reasons == {EndReason.STOP}, f"ended with {reasons}")
        return tally


def frozen(folder: Path, seed: int, *, limit: float = 2.0, seconds: float = 4.0) -> Tally:
    """A process that is paused (SIGSTOP) for longer than memory may bridge a disk: nothing is lost.

    Every write takes so long that the pause comes in the midst of one.
    """
    orders = Orders(folder / "shim")
    with Trial(folder) as trial:
        receiver = trial.start(orders=orders, limits=(f"MOST_HELD_SECONDS={limit}",))
        with Callers(receiver.url, CALLS, seed) as callers:
            callers.wait_for(50)
            orders.give("pwrite delay 100 .journal")
            callers.wait_for(100)
            receiver.process.send_signal(signal.SIGSTOP)
            time.sleep(seconds)  # the time is the fault
            receiver.process.send_signal(signal.SIGCONT)
            callers.wait_for(150)
            orders.give()
            callers.wait_for(250)
        trial.wait_until_published()
        tally = trial.account(callers.streams)
        reasons = _reasons(trial)
        tally.expect(reasons == {EndReason.STOP}, f"ended with {reasons}")
        tally.expect(receiver.stop() == 0, "it did not end well")
        return tally


def reloaded_at_the_start(folder: Path, seed: int) -> Tally:
    """SIGHUP as soon as the program has begun, which would end most programs."""

    def hang_up(process_id: int) -> None:
        status = Path(f"/proc/{process_id}/status")
        while "SigBlk:\t0000000000000001" not in status.read_text():
            time.sleep(0)
        os.kill(process_id, signal.SIGHUP)

    with Trial(folder) as trial:
        receiver = trial.start(started=hang_up)
        receiver.wait_for("reloaded")
        with Callers(receiver.url, CALLS, seed) as callers:
            callers.wait_for(50)
        trial.wait_until_published()
        tally = trial.account(callers.streams)
        tally.expect(receiver.stop() == 0, "it did not end well")
        return tally


def stopped(folder: Path, seed: int) -> Tally:
    """A second SIGTERM: all up to then is published, at once or by the next start."""
    with Trial(folder) as trial:
        receiver = trial.start()
        with Callers(receiver.url, CALLS, seed) as callers:
            callers.wait_for(100)
            receiver.process.send_signal(signal.SIGTERM)
            receiver.wait_for("draining")
            callers.wait_for(120)
            at = time.monotonic()
            receiver.process.send_signal(signal.SIGTERM)
            code = receiver.process.wait(WAIT_SECONDS)
            took = time.monotonic() - at
        left = len(trial.journals())
        if left:  # a busy machine did not render all of them in time
            trial.restart()
        tally = trial.account(callers.streams, Allowance(cut_at=at, seconds=_ON_THE_WIRE_SECONDS))
        tally.expect(code == 0, f"exit code {code}")
        tally.expect(left == 0 or took > _RENDERING_SECONDS, f"{left} journals left too early")
        tally.expect(took < MOST_SECONDS, f"it took {took:.1f} s")
        tally.expect(EndReason.SHUTDOWN in _reasons(trial), "nothing ended with shutdown")
        tally.figures.append(f"ended after {took:.1f} s, {left} journals left")
        return tally


def stopped_while_the_disk_hangs(
    folder: Path, seed: int, *, what: str = "", workers: int = 1
) -> Tally:
    """A second SIGTERM ends a receiver in time although its disk does not answer any more.

    What the journals hold by then is published by the next start. The exit code is 1.
    """
    what = what or list(HANGS)[seed % len(HANGS)]
    orders = Orders(folder / "shim")
    with Trial(folder) as trial:
        receiver = trial.start("--workers", str(workers), orders=orders)
        with Callers(receiver.url, CALLS, seed) as callers:
            callers.wait_for(100)
            where = f"/{trial.recordings.name}"  # nothing else that the process may write hangs
            orders.give(*(f"{call} delay {_HANG_MS} {where}" for call in HANGS[what]))
            hung_at = time.monotonic()
            callers.wait_for(150)
            receiver.process.send_signal(signal.SIGTERM)
            receiver.wait_for("draining")
            at = time.monotonic()
            receiver.process.send_signal(signal.SIGTERM)
            code = receiver.process.wait(WAIT_SECONDS)
            took = time.monotonic() - at
        trial.restart()
        wire = Allowance(cut_at=at, seconds=_ON_THE_WIRE_SECONDS)
        allowance = wire if what == "recordings" else Allowance(cut_at=hung_at)
        tally = trial.account(callers.streams, allowance)
        tally.expect(code == 1, f"exit code {code}")
        tally.expect(took < MOST_SECONDS, f"it took {took:.1f} s")
        tally.figures.append(f"{what}: ended after {took:.1f} s")
        return tally


def _reasons(trial: Trial) -> set[EndReason]:
    return {read_document(folder).end_reason for folder in recording_folders(trial.recordings)}
