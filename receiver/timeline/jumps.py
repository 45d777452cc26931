"""How far a sender's clock is followed, for the recording and for live listeners alike.

No numpy here: the serving process, which needs this for live streams, loads none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from receiver.media import Chunk

LONGEST_JUMP_MS: Final = 60_000
"""A longer jump of the clock is silence only if the arrival times agree with it; so are shorter
ones, once in sum they exceed this and the audio there is."""
LARGEST_JITTER_MS: Final = 1000
"""Timestamps that are off by less are those of a sender that looks at its clock too late or too
early; such a step back is too little room, and only a longer one is absurd."""


def live_origin_ms(first: Chunk, arrival_ms: int) -> int:
    """Return the same as far as the first chunk of a stream tells: listeners cannot wait."""
    return 0 if first.timestamp_ms is None else origin_of_first(first.timestamp_ms, arrival_ms)


def origin_of_first(stamp: int, arrival_ms: int) -> int:
    """Return where stream time begins, as far as one track's first timestamp says."""
    return stamp if stamp - arrival_ms > LONGEST_JUMP_MS else 0


@dataclass(slots=True)
class JumpBudget:
    """What a track is believed of silence for which arrival times do not speak.

    One pause may be long, but in sum they are no longer than the audio, and what one pause may
    be: a clock that creeps by just under a minute with each chunk makes no file of hours. A
    whole call that is sent at once has more audio than pauses.
    """

    _followed_ms: float = 0.0  # so far, on no other word than the sender's

    def follows(self, jump_ms: float, waited_ms: float, *, audio_ms: float) -> bool:
        """Tell whether a jump of the clock is followed, and remember it if so.

        `waited_ms` is for how long nothing came, `audio_ms` what the track has brought so far.
        """
        unsupported = max(0.0, jump_ms - max(0.0, waited_ms))
        in_sum = self._followed_ms + unsupported
        if unsupported > LONGEST_JUMP_MS or in_sum > LONGEST_JUMP_MS + audio_ms:
            return False
        self._followed_ms = in_sum
        return True
