"""How far a sender's clock is followed: one rule for recordings and for live listeners.

No numpy here: the serving process, which needs this for live streams, loads none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from receiver.media import Chunk, MediaFormat

LONGEST_JUMP_MS: Final = 60_000
"""A longer jump of the clock is silence only if arrival times agree with it. So are shorter ones,
once their sum exceeds this and the audio that the track has brought."""
LARGEST_JITTER_MS: Final = 1000
"""A step back of the clock by at most this is jitter (there is too little room, the audio is
appended); a longer one is absurd."""


def continued_origin_ms(first_ms: int, continues_ms: int) -> int:
    """Return where time begins in a recording that goes on where another one ended.

    What lies between them is silence in this one, unless it is longer than any pause.

    Args:
        first_ms: the earliest timestamp of the recording.
        continues_ms: the timestamp at which the one before it ended.
    """
    return first_ms if first_ms - continues_ms > LONGEST_JUMP_MS else min(first_ms, continues_ms)


def live_origin_ms(first: Chunk, arrival_ms: int, continues_ms: int | None = None) -> int:
    """Return the timestamp at which a stream's time begins, from its first chunk alone.

    `clock.origin_ms` decides it from all tracks; live listeners cannot wait for the others.
    `continues_ms` is where the stream ended that goes on here, if one does.
    """
    stamp = first.timestamp_ms
    if stamp is not None and continues_ms is not None and stamp >= continues_ms - LARGEST_JITTER_MS:
        return continued_origin_ms(stamp, continues_ms)
    return 0 if first.timestamp_ms is None else origin_of_first(first.timestamp_ms, arrival_ms)


def origin_of_first(stamp_ms: int, arrival_ms: int) -> int:
    """Return 0, or a first timestamp itself if it is too far ahead of its arrival to count from 0.

    Args:
        stamp_ms: the first timestamp of a track.
        arrival_ms: when its chunk arrived, since the recording opened.
    """
    return stamp_ms if stamp_ms - arrival_ms > LONGEST_JUMP_MS else 0


def shown_ticks_per_ms(
    latest: Chunk, chunk: Chunk, waited_ms: int, media: MediaFormat
) -> int | None:
    """Return what two neighbours of a track show timestamps to count, if they do.

    It is 1 for milliseconds. Those whose step is their length in samples, and that came too soon
    for it to be milliseconds, count samples.

    Args:
        latest: a chunk.
        chunk: the next one.
        waited_ms: between their arrivals.
        media: the format of their payloads.
    """
    if chunk.timestamp_ms is None or latest.timestamp_ms is None:
        return None
    step, size = chunk.timestamp_ms - latest.timestamp_ms, len(latest.payload)
    if step * media.bytes_per_sample == size and 2 * waited_ms < step:
        return media.sample_rate // 1000
    return 1 if step * media.bytes_per_ms == size and step else None


@dataclass(slots=True)
class JumpBudget:
    """How much silence one track may still get on its sender's word alone.

    The wait for a chunk supports a jump of the clock of that length, and costs nothing. What
    goes beyond is unsupported: at most `LONGEST_JUMP_MS` at once, and in sum at most that and
    the audio that the track has brought so far. For example, with chunks of 20 ms:

        jump      waited    unsupported   followed
        600 s     600 s     0             yes: we were on hold for ten minutes
        59 s      0         59 s          yes
        59 s      0         59 s          no: 118 s in sum, and 40 ms of audio (a creeping clock)
        59 s      0         59 s          yes, had there been 58 s of audio (a call sent at once)
    """

    _spent_ms: float = 0.0

    def spend(self, jump_ms: float, waited_ms: float, *, audio_ms: float) -> bool:
        """Return whether a jump is to be followed; what it costs is spent then.

        Args:
            jump_ms: how much silence would be left; negative is none.
            waited_ms: how long nothing of the track arrived before this chunk.
            audio_ms: how much audio the track has brought before this chunk.
        """
        unsupported = max(0.0, jump_ms - max(0.0, waited_ms))
        in_sum = self._spent_ms + unsupported
        if unsupported > LONGEST_JUMP_MS or in_sum > LONGEST_JUMP_MS + audio_ms:
            return False
        self._spent_ms = in_sum
        return True
