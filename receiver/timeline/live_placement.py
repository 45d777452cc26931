"""Where a live chunk belongs on its track's time line, decided as it arrives.

The rules are those of `receiver.timeline`, which sees the whole track and may look ahead; a
listener cannot wait, so here the past is settled: what has been given away is never changed,
and a chunk that comes too late for its place is left out. Positions are counted in payload
bytes from stream time 0 and are exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from receiver.media import Chunk, GapReason, MediaFormat
from receiver.timeline.jumps import LARGEST_JITTER_MS, JumpBudget


@dataclass(frozen=True, slots=True)
class AudioPiece:
    """Whole samples, still encoded, from byte `start` of the time line on."""

    start: int
    payload: bytes

    @property
    def end(self) -> int:
        """Return where it ends."""
        return self.start + len(self.payload)


@dataclass(frozen=True, slots=True)
class SilencePiece:
    """Silence from byte `start` to `end`; `reason` covers all of it from `gap_start` on.

    What is before `start` has been given away as silence already.
    """

    start: int
    end: int
    reason: GapReason
    gap_start: int


Piece = AudioPiece | SilencePiece

_MOST_MISSED: Final = 250
"""Chunks that may still come too late, and are told as such."""


class LivePlacer:
    """One track's live time line.

    It begins at byte `begin`: what belongs before is cut off. `arrival_ms` is when listening
    began, on the clock of the chunks' arrival times.
    """

    def __init__(self, media: MediaFormat, *, begin: int = 0, arrival_ms: int = 0) -> None:
        self.cursor = begin  # where the audio so far ends
        self.left_out = 0  # chunks that came too late, or twice
        self._one_ms = media.bytes_per_ms
        self._sample = media.bytes_per_sample
        self._unit = media.bytes_per_ms  # of one tick of the sender's clock
        self._missed: dict[int, int] = {}  # chunks that were told as lost, and their places
        self._floor = begin  # what is before has been given away
        self._noticed = begin  # where silence that was given away unasked began
        self._told_lost = begin  # up to where it was told then that chunks are missing
        self._base = 0  # what the sender's clock is shifted by
        self._candidate: int | None = None  # a base that one absurd timestamp suggests
        self._half = b""  # of a sample, at the end of a chunk of an odd number of bytes
        self._latest: Chunk | None = None
        self._latest_target = -(2**62)
        self._arrival_ms = arrival_ms  # of the latest chunk
        self._belief = JumpBudget()
        self._brought = 0  # bytes of audio so far

    def set_origin(self, origin_ms: int) -> None:
        """Learn at which timestamp stream time begins, before anything is taken."""
        self._base = -origin_ms * self._unit

    def follow_clock(self, latest: Chunk) -> None:
        """Take over a sender's clock in mid-call: `latest` is what came just before `begin`."""
        if latest.timestamp_ms is not None:
            end = latest.timestamp_ms * self._unit + len(latest.payload)
            self._base = self.cursor - end

    def start_after(self, chunk: Chunk, arrival_ms: int) -> None:
        """Learn what came on this track before what will be taken; it is not heard."""
        self._latest, self._arrival_ms = chunk, arrival_ms

    def feed(self, chunk: Chunk, arrival_ms: int) -> tuple[Piece, ...]:
        """Return what follows on the time line now: silence, audio, both, or nothing."""
        if self._is_late(chunk):
            self.left_out += self._brought > 0  # else it is from before the beginning
            return self._told_late(chunk)
        self._settle_unit(chunk, arrival_ms)
        jump = self._jump(chunk, arrival_ms)
        missing = self._missing(chunk)
        self._latest, self._arrival_ms = chunk, arrival_ms
        self._brought += len(chunk.payload)
        given_away = 0 < self._floor == self.cursor
        cut = min(max(0, -jump), len(chunk.payload)) if given_away else 0
        if cut:
            return self._take_late(chunk, cut, self.cursor + jump, missing)
        # Timestamps are whole ms, so less is rounding.
        hole = self._hole(jump if jump >= self._one_ms else 0, missing)
        if missing and hole is not None:
            hole = self._lost(chunk, missing, hole)
        audio = self._audio(chunk.payload)
        if hole is None:
            return () if audio is None else (audio,)
        return (hole,) if audio is None else (hole, audio)

    def position_of(self, chunk: Chunk) -> int:
        """Return where a chunk that waits would begin, as far as is known."""
        if chunk.timestamp_ms is None:
            return self.cursor
        return self._base + chunk.timestamp_ms * self._unit

    def fill_silence(self, position: int, *, lost: bool = False) -> SilencePiece | None:
        """Give away the time up to `position` as silence: nobody waits for it any longer.

        `lost` says that chunks are known to be missing there. Return the silence if it begins
        here, and `None` where it goes on.
        """
        start = self.cursor
        if position <= start:
            return None
        begins = self._floor != start or self._noticed == self._floor
        if begins:
            self._noticed = start
        self._half = b""
        self.cursor = self._floor = position
        if not begins:
            return None
        if lost:
            self._told_lost = position
            return SilencePiece(start, position, GapReason.LOST, start)
        return SilencePiece(start, position, GapReason.SENDER_SILENCE, start)

    def _take_late(self, chunk: Chunk, cut: int, start: int, missing: int) -> tuple[Piece, ...]:
        """Return what is told, and what is left, of a chunk whose place was given away in part."""
        pieces: list[Piece] = []
        whole = cut == len(chunk.payload)
        if self._noticed < self._floor:  # otherwise it is from before the beginning
            self.left_out += whole
            if missing and start > self._noticed:
                told = SilencePiece(start, start, GapReason.LOST, self._noticed)
                lost = self._lost(chunk, missing, told)
                pieces += [lost] if lost else []
            if whole or cut >= self._one_ms:  # less is rounding
                pieces.append(SilencePiece(start + cut, start + cut, GapReason.LATE, start))
            self._noticed = max(self._noticed, start + cut)
        audio = None if whole else self._audio(chunk.payload[cut:])
        return (*pieces, audio) if audio else tuple(pieces)

    def _told_late(self, chunk: Chunk) -> tuple[Piece, ...]:
        """Return the notice of a chunk that comes after it was told as lost; twice is nothing."""
        start = self._missed.pop(chunk.chunk, None) if chunk.chunk is not None else None
        if start is None:
            return ()
        end = start + len(chunk.payload)
        return (SilencePiece(end, end, GapReason.LATE, start),)

    def _lost(self, chunk: Chunk, missing: int, hole: SilencePiece) -> SilencePiece | None:
        """Return what has yet to be told of a hole where chunks are missing."""
        self._remember_missing(chunk, missing, hole)
        gap_start = max(hole.gap_start, self._told_lost)
        return replace(hole, gap_start=gap_start) if gap_start < hole.end else None

    def _remember_missing(self, chunk: Chunk, missing: int, hole: SilencePiece) -> None:
        """Remember where the latest chunks that are missing before this one belong."""
        assert chunk.chunk is not None  # noqa: S101  or nothing would be known to be missing
        size = len(chunk.payload)
        for back in range(min(missing, _MOST_MISSED), 0, -1):
            start = hole.end - back * size
            if start >= hole.gap_start:
                self._missed[chunk.chunk - back] = start
        while len(self._missed) > _MOST_MISSED:
            del self._missed[next(iter(self._missed))]

    def _is_late(self, chunk: Chunk) -> bool:
        """Whether all that is known of a chunk says that it belongs before the latest one."""
        latest = self._latest
        if latest is None:
            return False
        if chunk.chunk is not None and latest.chunk is not None and chunk.chunk > latest.chunk:
            return False
        pairs = ((chunk.chunk, latest.chunk), (chunk.timestamp_ms, latest.timestamp_ms))
        known = [
            mine <= newest for mine, newest in pairs if mine is not None and newest is not None
        ]
        if not known and chunk.sequence_number is not None and latest.sequence_number is not None:
            return chunk.sequence_number <= latest.sequence_number
        return bool(known) and all(known)

    def _settle_unit(self, chunk: Chunk, arrival_ms: int) -> None:
        """Notice a sender whose timestamps count samples, not milliseconds (and a mistake)."""
        latest = self._latest
        if latest is None or chunk.timestamp_ms is None or latest.timestamp_ms is None:
            return
        if self._missing(chunk) or chunk.chunk is None:
            return
        step, size = chunk.timestamp_ms - latest.timestamp_ms, len(latest.payload)
        waited = arrival_ms - self._arrival_ms
        if step * self._sample == size and 2 * waited < step:
            unit = self._sample
        elif step * self._one_ms == size:
            unit = self._one_ms
        else:
            return
        if unit != self._unit:
            self._unit = unit
            self._base = self.cursor - chunk.timestamp_ms * unit
            self._latest_target = latest.timestamp_ms * unit

    def _jump(self, chunk: Chunk, arrival_ms: int) -> int:
        """Return the bytes from the cursor to where the chunk belongs; 0 is `append`."""
        if chunk.timestamp_ms is None:
            usual = len(self._latest.payload) if self._latest else 0
            jump = self._missing(chunk) * usual
            return jump if self._believable(jump, arrival_ms) else 0
        target = chunk.timestamp_ms * self._unit
        if 0 < self._latest_target - target <= LARGEST_JITTER_MS * self._one_ms:
            self._latest_target, self._candidate = target, None
            return 0  # there is too little room
        for base in (self._base, self._candidate):
            if base is None:
                continue
            jump = base + target - self.cursor
            backwards = target < self._latest_target if base == self._base else jump < 0
            if not backwards and self._believable(jump, arrival_ms):
                self._base, self._candidate, self._latest_target = base, None, target
                return jump
        self._candidate = self.cursor - target
        return 0

    def _believable(self, jump: int, arrival_ms: int) -> bool:
        one_ms, waited_ms = self._one_ms, arrival_ms - self._arrival_ms
        return self._belief.follows(jump / one_ms, waited_ms, audio_ms=self._brought / one_ms)

    def _missing(self, chunk: Chunk) -> int:
        """Return how many chunk numbers are missing before this one."""
        latest = self._latest
        if latest is None:
            return self._missing_at_first(chunk)
        if latest.chunk is None or chunk.chunk is None:
            return 0
        return max(0, chunk.chunk - latest.chunk - 1)

    def _missing_at_first(self, chunk: Chunk) -> int:
        """Return how many are known to be missing before the first: clock and counter agree."""
        number = chunk.chunk
        if number is None or number <= 1 or chunk.timestamp_ms is None:
            return 0
        for first in (1, 0):
            if self.position_of(chunk) == (number - first) * len(chunk.payload):
                return number - first
        return 0

    def _hole(self, jump: int, missing: int) -> SilencePiece | None:
        """Move the cursor over a hole that begins and ends on a sample."""
        given_up = self._noticed < self._floor == self.cursor
        gap_start = self._noticed if given_up else self.cursor
        unit = self._sample
        start = self.cursor - len(self._half)
        end = (self.cursor + jump) // unit * unit
        if end <= start and not given_up:
            return None
        if jump:
            self._half, self.cursor = b"", end
        self._floor = self._noticed = 0
        if missing:
            return SilencePiece(start, max(start, end), GapReason.LOST, min(gap_start, start))
        # Of what was given away it was told already that the sender said nothing.
        return SilencePiece(start, end, GapReason.SENDER_SILENCE, start) if end > start else None

    def _audio(self, payload: bytes) -> AudioPiece | None:
        unit = self._sample
        start = self.cursor - len(self._half)
        payload = self._half + payload if self._half else payload
        whole = len(payload) // unit * unit
        self._half = payload[whole:]
        self.cursor = start + len(payload)
        if not whole:
            return None
        return AudioPiece(start, payload if whole == len(payload) else payload[:whole])
