"""Faults that end the receiver without a word."""

from __future__ import annotations

import random
from pathlib import Path

from tests.faults.accounting import Allowance, Tally
from tests.faults.calls import Callers
from tests.faults.trial import Trial, kill


def killed(folder: Path, seed: int) -> Tally:
    """SIGKILL at a random moment of several calls, then a start that recovers."""
    source = random.Random(seed)
    with Trial(folder) as trial:
        receiver = trial.start()
        with Callers(receiver.url, source.randint(2, 6), seed) as callers:
            callers.wait_for(source.randint(60, 240))
            cut_at = kill(receiver)
        trial.restart()
        tally = trial.account(callers.streams, Allowance(cut_at=cut_at))
        trial.check_that_recovery_is_over(tally)
        return tally
