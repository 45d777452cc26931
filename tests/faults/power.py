"""A power cut: what a disk image held at that time is all there is.

The spool lives on a loop-mounted ext4 image. The image is copied while calls go on, and a copy
counts only if the block device wrote nothing meanwhile, so it is what one instant left behind.
What the receiver wrote but did not sync is in the page cache above the image, not in the copy.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from pathlib import Path

from receiver.disk import layout
from tests.bounds import at_most
from tests.faults.accounting import Allowance, Tally
from tests.faults.calls import Callers
from tests.faults.faulty_disk import ext4_image, sectors_written
from tests.faults.trial import Trial, kill

_MEMORY = Path("/dev/shm")  # noqa: S108  copied in milliseconds, so that an instant is found
_WAIT_SECONDS = at_most(20.0)
RECOVERY_SECONDS = 0.1
"""Over the 0.7 s: how long a sync may take to reach a disk of memory on a busy machine."""


def cut(folder: Path, seed: int, *, streams: int = 0) -> Tally:
    """A copy of the disk, taken under load, recovers to everything that was synced by then."""
    source = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_MEMORY) as images:
        live, copy = Path(images, "live.img"), Path(images, "copy.img")
        with ext4_image(live, folder / "live") as device, Trial(folder / "live" / "trial") as trial:
            receiver = trial.start()
            with Callers(receiver.url, streams or source.choice((2, 8)), seed) as callers:
                callers.wait_for(source.randint(100, 300))
                cut_at = _copy_an_instant(live, copy, device)
                kill(receiver)
        with ext4_image(copy, folder / "copy"), Trial(folder / "copy" / "trial") as after:
            after.recover()
            allowance = Allowance(cut_at=cut_at, seconds=0.7 + RECOVERY_SECONDS)
            tally = after.account(callers.streams, allowance)
            tally.expect(not after.journals(), "recovery left a journal")
            after.check_that_recovery_is_over(tally)
            tally.expect(not list(after.spool.glob(f"*{layout.REWRITTEN_SUFFIX}")), "a half copy")
            return tally


def _copy_an_instant(image: Path, copy: Path, device: str) -> float:
    """Copy an image between two writes of its device; return when."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        before, at = sectors_written(device), time.monotonic()
        shutil.copyfile(image, copy)
        if sectors_written(device) == before:
            return at
        assert time.monotonic() < deadline, "the device never rests"
