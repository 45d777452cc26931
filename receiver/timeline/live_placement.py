"""Where a live chunk belongs on its track's time line, decided as it arrives.

The live twin of `placement`, for listeners who cannot wait for the end of the call. The rules
are the same (timestamps place, numbers say what is lost, `JumpBudget` bounds silence), but what
has been given out is never changed, and nothing is known of what comes next. So:

- A chunk that comes after its place was given out is left out, and reported as late.
- There is no lookahead: a timestamp that stands alone leaves its silence, once.
- What timestamps count is decided from chunk to chunk, not from the whole track.
- Where the clock has left too little room, missing chunks get no room by their numbers.

Operations: `feed` places the next chunk and returns the pieces that follow on the time line.
`fill_silence` gives out silence up to a position because nobody waits for the track any longer;
what of it turns out to be lost or late is reported when a chunk comes. A gap is reported once:
`SilencePiece.gap_start` says from where on it is news.

An example, with chunks of 20 ms of mu-law (160 bytes):

    feed(chunk 1, 0 ms)         audio 0-160
    fill_silence(480)           silence 160-480, sender_silence from 160 on
    feed(chunk 4, 60 ms)        silence 480-480, lost from 160 on (2 and 3); audio 480-640
    feed(chunk 2, 20 ms)        silence 320-320, late from 160 on; it was silent there
    feed(chunk 6, 100 ms)       silence 640-800, lost from 640 on; audio 800-960

Positions are bytes of payload from stream time 0 on, and are exact.
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
    """Silence from byte `start` to `end`, and a gap to report from `gap_start` to `end`.

    What is between `gap_start` and `start` has been given out as silence already; what is before
    `gap_start` has been reported already. A piece of no length is only a report.
    """

    start: int
    end: int
    reason: GapReason
    gap_start: int


Piece = AudioPiece | SilencePiece

_MOST_REPORTED: Final = 250
"""Chunks that may still come too late, and are reported as such."""


class LivePlacer:
    """One track's live time line; the module's docstring has the rules and an example.

    Args:
        media: the format of the payloads.
        begin: the byte at which the time line begins; what belongs before is cut off.
        arrival_ms: when listening began, on the clock of the chunks' arrival times.
    """

    def __init__(self, media: MediaFormat, *, begin: int = 0, arrival_ms: int = 0) -> None:
        self.cursor = begin  # where what was given out so far ends
        self.left_out = 0  # chunks that came too late, or twice
        self._one_ms = media.bytes_per_ms
        self._sample = media.bytes_per_sample
        self._unit = media.bytes_per_ms  # of one tick of the sender's clock
        self._filled_from = begin  # where silence that was filled and not yet explained began
        self._filled_to = begin  # and where it ends
        self._lost_reported_to = begin  # up to where `fill_silence` reported a loss
        self._reported: dict[int, int] = {}  # chunks that were reported as lost: their places
        self._shift = 0  # of the sender's clock, in bytes
        self._candidate: int | None = None  # a shift that one absurd timestamp suggests
        self._half = b""  # of a sample, at the end of a chunk of an odd number of bytes
        self._latest: Chunk | None = None
        self._latest_target = -(2**62)
        self._arrival_ms = arrival_ms  # of the latest chunk
        self._budget = JumpBudget()
        self._audio_bytes = 0  # so far

    def set_origin(self, origin_ms: int) -> None:
        """Set the timestamp at which stream time begins, before the first chunk."""
        self._shift = -origin_ms * self._unit

    def follow_clock(self, latest: Chunk) -> None:
        """Set the clock so that `latest` ends where this time line begins, in mid-call."""
        if latest.timestamp_ms is not None:
            end = latest.timestamp_ms * self._unit + len(latest.payload)
            self._shift = self.cursor - end

    def start_after(self, chunk: Chunk, arrival_ms: int) -> None:
        """Set the chunk that came before the first one that is fed; it is not given out."""
        self._latest, self._arrival_ms = chunk, arrival_ms

    def feed(self, chunk: Chunk, arrival_ms: int) -> tuple[Piece, ...]:
        """Return what follows on the time line now: silence, audio, both, or nothing.

        Args:
            chunk: the next one to place, as the jitter buffer released it.
            arrival_ms: when it arrived.
        """
        if self._is_late(chunk):
            self.left_out += self._audio_bytes > 0  # else it is from before the beginning
            return self._late_report(chunk)
        self._update_unit(chunk, arrival_ms)
        jump = self._jump(chunk, arrival_ms)
        missing = self._missing_before(chunk)
        self._latest, self._arrival_ms = chunk, arrival_ms
        self._audio_bytes += len(chunk.payload)
        filled = 0 < self._filled_to == self.cursor
        cut = min(max(0, -jump), len(chunk.payload)) if filled else 0
        if cut:
            return self._feed_late(chunk, cut, self.cursor + jump, missing)
        # Timestamps are whole ms, so less is rounding.
        silence = self._skip(jump if jump >= self._one_ms else 0, missing)
        if missing and silence is not None:
            silence = self._report_lost(chunk, missing, silence)
        audio = self._append(chunk.payload)
        if silence is None:
            return () if audio is None else (audio,)
        return (silence,) if audio is None else (silence, audio)

    def position_of(self, chunk: Chunk) -> int:
        """Return at which byte a chunk that is held back would begin, as far as is known."""
        if chunk.timestamp_ms is None:
            return self.cursor
        return self._shift + chunk.timestamp_ms * self._unit

    def fill_silence(self, position: int, *, lost: bool = False) -> SilencePiece | None:
        """Give out silence up to `position`, which nothing that comes later can take back.

        Args:
            position: in bytes, on a sample.
            lost: whether chunks are known to be missing there.

        Returns:
            The silence if it begins here; `None` where it goes on, or where audio is that far.
        """
        start = self.cursor
        if position <= start:
            return None
        begins = self._filled_to != start or self._filled_from == self._filled_to
        if begins:
            self._filled_from = start
        self._half = b""
        self.cursor = self._filled_to = position
        if not begins:
            return None
        if lost:
            self._lost_reported_to = position
            return SilencePiece(start, position, GapReason.LOST, start)
        return SilencePiece(start, position, GapReason.SENDER_SILENCE, start)

    def _feed_late(self, chunk: Chunk, cut: int, start: int, missing: int) -> tuple[Piece, ...]:
        """Return the reports, and the rest, of a chunk that belongs into silence given out.

        Args:
            chunk: the newest one by its counters, but its place was filled, at least in part.
            cut: how many of its bytes.
            start: where it belongs.
            missing: how many chunks are missing before it.
        """
        pieces: list[Piece] = []
        whole = cut == len(chunk.payload)
        if self._filled_from < self._filled_to:  # otherwise it is from before the beginning
            self.left_out += whole
            if missing and start > self._filled_from:
                report = SilencePiece(start, start, GapReason.LOST, self._filled_from)
                lost = self._report_lost(chunk, missing, report)
                pieces += [lost] if lost else []
            if whole or cut >= self._one_ms:  # less is rounding
                pieces.append(SilencePiece(start + cut, start + cut, GapReason.LATE, start))
            self._filled_from = max(self._filled_from, start + cut)
        audio = None if whole else self._append(chunk.payload[cut:])
        return (*pieces, audio) if audio else tuple(pieces)

    def _late_report(self, chunk: Chunk) -> tuple[Piece, ...]:
        """Return the report of a chunk that comes after it was reported as lost; once."""
        start = self._reported.pop(chunk.chunk, None) if chunk.chunk is not None else None
        if start is None:
            return ()
        end = start + len(chunk.payload)
        return (SilencePiece(end, end, GapReason.LATE, start),)

    def _report_lost(
        self, chunk: Chunk, missing: int, silence: SilencePiece
    ) -> SilencePiece | None:
        """Return what has yet to be reported of silence where chunks are missing, if anything."""
        self._remember_missing(chunk, missing, silence)
        gap_start = max(silence.gap_start, self._lost_reported_to)
        return replace(silence, gap_start=gap_start) if gap_start < silence.end else None

    def _remember_missing(self, chunk: Chunk, missing: int, silence: SilencePiece) -> None:
        """Remember where the latest chunks that are missing before this one belong."""
        assert chunk.chunk is not None  # noqa: S101  or nothing would be known to be missing
        size = len(chunk.payload)
        for back in range(min(missing, _MOST_REPORTED), 0, -1):
            start = silence.end - back * size
            if start >= silence.gap_start:
                self._reported[chunk.chunk - back] = start
        while len(self._reported) > _MOST_REPORTED:
            del self._reported[next(iter(self._reported))]

    def _is_late(self, chunk: Chunk) -> bool:
        """Whether all that is known of a chunk says that it belongs before the latest one.

        A counter that restarted is behind by number but not by timestamp, and so is not late.
        """
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

    def _update_unit(self, chunk: Chunk, arrival_ms: int) -> None:
        """Switch to ticks of samples or of milliseconds where two neighbours show which they are.

        Neighbours by number whose step is their length, in samples, and that arrived too soon for
        it to be milliseconds, count samples; so a mistake about it is mended later.
        """
        latest = self._latest
        if latest is None or chunk.timestamp_ms is None or latest.timestamp_ms is None:
            return
        if self._missing_before(chunk) or chunk.chunk is None:
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
            self._shift = self.cursor - chunk.timestamp_ms * unit
            self._latest_target = latest.timestamp_ms * unit

    def _jump(self, chunk: Chunk, arrival_ms: int) -> int:
        """Return the bytes from the cursor to where the chunk belongs; 0 appends it.

        An absurd timestamp appends, too; the shift that it suggests is followed if the next
        chunk agrees.
        """
        if chunk.timestamp_ms is None:
            usual = len(self._latest.payload) if self._latest else 0
            jump = self._missing_before(chunk) * usual
            return jump if self._spend(jump, arrival_ms) else 0
        target = chunk.timestamp_ms * self._unit
        if 0 < self._latest_target - target <= LARGEST_JITTER_MS * self._one_ms:
            self._latest_target, self._candidate = target, None
            return 0  # there is too little room
        for shift in (self._shift, self._candidate):
            if shift is None:
                continue
            jump = shift + target - self.cursor
            backwards = target < self._latest_target if shift == self._shift else jump < 0
            if not backwards and self._spend(jump, arrival_ms):
                self._shift, self._candidate, self._latest_target = shift, None, target
                return jump
        self._candidate = self.cursor - target
        return 0

    def _spend(self, jump: int, arrival_ms: int) -> bool:
        """Return whether the budget allows a jump, and spend it if so."""
        one_ms, waited_ms = self._one_ms, arrival_ms - self._arrival_ms
        return self._budget.spend(jump / one_ms, waited_ms, audio_ms=self._audio_bytes / one_ms)

    def _missing_before(self, chunk: Chunk) -> int:
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
        for counter_start in (1, 0):
            if self.position_of(chunk) == (number - counter_start) * len(chunk.payload):
                return number - counter_start
        return 0

    def _skip(self, jump: int, missing: int) -> SilencePiece | None:
        """Move the cursor over silence that begins and ends on a sample, and return it.

        Where it goes on from silence that was filled, and chunks are missing, the gap is all of
        it. Half a sample before it is silenced with it.
        """
        filled = self._filled_from < self._filled_to == self.cursor
        gap_start = self._filled_from if filled else self.cursor
        unit = self._sample
        start = self.cursor - len(self._half)
        end = (self.cursor + jump) // unit * unit
        if end <= start and not filled:
            return None
        if jump:
            self._half, self.cursor = b"", end
        self._filled_to = self._filled_from = 0
        if missing:
            return SilencePiece(start, max(start, end), GapReason.LOST, min(gap_start, start))
        # What was filled has been reported already as a silence of the sender.
        return SilencePiece(start, end, GapReason.SENDER_SILENCE, start) if end > start else None

    def _append(self, payload: bytes) -> AudioPiece | None:
        """Move the cursor over audio, and return its whole samples, if any."""
        unit = self._sample
        start = self.cursor - len(self._half)
        payload = self._half + payload if self._half else payload
        whole = len(payload) // unit * unit
        self._half = payload[whole:]
        self.cursor = start + len(payload)
        if not whole:
            return None
        return AudioPiece(start, payload if whole == len(payload) else payload[:whole])
