"""Where a live chunk belongs on its track's time line, decided as it arrives.

The live twin of `placement`, for listeners who cannot wait for the end of the call. The rules
are the same (timestamps place, numbers say what is lost, `JumpBudget` bounds silence), but what
has been given out is never changed, and nothing is known of what comes next. So:

- A chunk that comes after its place was given out is appended where it is late by little;
  otherwise it is left out, and reported as late.
- There is no lookahead: a timestamp that stands alone leaves its silence, once.
- What timestamps count is decided from chunk to chunk, not from the whole track.
- Where the clock has left too little room, missing chunks get no room by their numbers.
- A track whose chunks all belong into silence that was given out, and come as fast as they are
  played, counts from elsewhere (its clock stopped, or began with it): it is anchored anew.

Operations: `feed` places the next chunk and returns the pieces that follow on the time line.
`fill_silence` gives out silence up to a position because nobody waits for the track any longer;
what of it turns out to be lost or late is reported when a chunk comes. A gap is reported once:
`SilencePiece.gap_start` says from where on it is news. `release_due` decides about what is behind.

An example, with chunks of 20 ms of mu-law (160 bytes):

    feed(chunk 1, 0 ms)         audio 0-160
    fill_silence(480)           silence 160-480, sender_silence from 160 on
    feed(chunk 4, 60 ms)        silence 480-480, lost from 160 on (2 and 3); audio 480-640
    feed(chunk 2, 20 ms)        silence 320-320, late from 160 on; it was silent there
    feed(chunk 6, 100 ms)       silence 640-800, lost from 640 on; audio 800-960

Where the numbers of other tracks say that chunks never came, `fill_up_to` reports them as lost.

Of a track that is behind, chunks wait for 60 ms. Then the clock tells a stalled track, whose
backlog comes at once, from one that counts from elsewhere:

    fill_silence(48000)         of a track that starts after six seconds
    feed(chunk 1, 0 ms), ...    nothing, until 60 ms have passed
    feed(chunk 4, 60 ms)        anchored anew, 48000 later; audio of all four from 48000 on

Positions are bytes of payload from stream time 0 on, and are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from receiver.media import Chunk, GapReason, MediaFormat
from receiver.timeline.jitter_buffer import FEW_ON_THEIR_WAY
from receiver.timeline.jumps import LARGEST_JITTER_MS, JumpBudget, shown_ticks_per_ms


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


@dataclass(frozen=True, slots=True)
class ReanchorPiece:
    """A report: from byte `start` on, the track stands `moved` bytes later than its clock says."""

    start: int
    moved: int


Piece = AudioPiece | SilencePiece | ReanchorPiece


@dataclass(frozen=True, slots=True)
class _Behind:
    """A chunk whose place was given out as silence, and that waits to be judged."""

    payload: bytes
    arrival_ms: int
    start: int  # where it belongs
    late: int  # how far behind the cursor that was when it came
    reports: tuple[Piece, ...]  # for when it is late


_APPENDED_MS: Final = 60
"""A chunk that is late by no more, or in part, is appended: the next pause is shorter by it."""
JUDGED_AFTER_MS: Final = 60
"""How long chunks are behind before the track is anchored anew."""
_STEADY_MS: Final = 100
"""Of chunks that are behind by the same amount; those of a backlog are behind by more."""
_GROWN_MS: Final = 1000
"""A loss that goes on is reported again for each second of it."""
_FILLED: Final = 0.9
"""Silence that the missing chunks fill to this share is no pause."""
_MOST_REPORTED: Final = 250
"""Chunks that may still come too late, and are reported as such."""
_MOST_COMPARED: Final = 65_536
"""Numbers that are looked for on the other track: its turn may last for minutes."""


class _SenderClock:
    """What a track's timestamps mean: at which byte of the time line a chunk belongs."""

    def __init__(self, media: MediaFormat, arrival_ms: int) -> None:
        self.arrival_ms = arrival_ms  # of the latest chunk
        self.audio_bytes = 0  # so far
        self.unit = media.bytes_per_ms  # of one tick of the sender's clock
        self.shift = 0  # of the sender's clock, in bytes
        self.candidate: int | None = None  # a shift that one absurd timestamp suggests
        self._media, self._one_ms = media, media.bytes_per_ms
        self._latest_target = -(2**62)
        self._budget = JumpBudget()

    def position_of(self, stamp: int) -> int:
        """Return the byte at which a chunk with this timestamp would begin."""
        return self.shift + stamp * self.unit

    def start_at(self, origin_ms: int, ticks_per_ms: int) -> None:
        """Set the timestamp at which stream time begins, and what timestamps count."""
        self.unit = self._one_ms // ticks_per_ms
        self.shift = -origin_ms * self.unit

    def follow(self, latest: Chunk, cursor: int) -> None:
        """Set the clock so that a chunk ends at a byte."""
        if latest.timestamp_ms is not None:
            self.shift = cursor - latest.timestamp_ms * self.unit - len(latest.payload)

    def count_as(self, other: _SenderClock) -> None:
        """Count the same ticks as another clock, before the first chunk."""
        self.shift = self.shift // self.unit * other.unit
        self.unit = other.unit

    def room(self, start: int, payload: bytes, arrival_ms: int, level_ms: float | None) -> int:
        """Return how much later a chunk would stand that came as late as the other track does."""
        if level_ms is None:
            return 0
        return int((arrival_ms - level_ms) * self._one_ms) - start - len(payload)

    def update_unit(self, chunk: Chunk, latest: Chunk, arrival_ms: int, cursor: int) -> None:
        """Switch to what two neighbours show timestamps to count, so that a mistake is mended."""
        if chunk.timestamp_ms is None or latest.timestamp_ms is None or chunk.chunk is None:
            return
        ticks = shown_ticks_per_ms(latest, chunk, arrival_ms - self.arrival_ms, self._media)
        if ticks is None or ticks * self.unit == self._one_ms:
            return
        self.unit = self._one_ms // ticks
        self.shift = cursor - chunk.timestamp_ms * self.unit
        self._latest_target = latest.timestamp_ms * self.unit

    def jump(self, stamp: int, cursor: int, arrival_ms: int) -> int:
        """Return the bytes from the cursor to where a chunk belongs; 0 appends it.

        An absurd timestamp appends, too; the shift that it suggests is followed if the next
        chunk agrees.
        """
        target = stamp * self.unit
        if 0 < self._latest_target - target <= LARGEST_JITTER_MS * self._one_ms:
            self._latest_target, self.candidate = target, None
            return 0  # there is too little room
        for shift in (self.shift, self.candidate):
            if shift is None:
                continue
            jump = shift + target - cursor
            backwards = target < self._latest_target if shift == self.shift else jump < 0
            if not backwards and self.spend(jump, arrival_ms):
                self.shift, self.candidate, self._latest_target = shift, None, target
                return jump
        self.candidate = cursor - target
        return 0

    def spend(self, jump: int, arrival_ms: int) -> bool:
        """Return whether the budget allows a jump, and spend it if so."""
        one_ms, waited_ms = self._one_ms, arrival_ms - self.arrival_ms
        return self._budget.spend(jump / one_ms, waited_ms, audio_ms=self.audio_bytes / one_ms)


class _LossReports:
    """What was reported as lost: each loss once, and as late what of it comes after all."""

    def __init__(self, begin: int, *, rounding: int) -> None:
        self._rounding = rounding  # bytes: timestamps are whole milliseconds
        self.reported_to = begin  # up to where `fill_silence` reported a loss
        self._reported = 0  # bytes of the silence that goes on
        self._places: dict[int, int] = {}  # chunks that were reported as lost
        self._largest = 0  # payload so far

    def observe(self, chunk: Chunk) -> None:
        """Record how long a chunk is that came."""
        self._largest = max(self._largest, len(chunk.payload))

    def report(self, start: int, end: int, gap_start: int, *, begins: bool) -> SilencePiece:
        """Return the report that silence is lost from `gap_start` on."""
        self._reported = end - gap_start + (0 if begins else self._reported)
        self.reported_to = end
        return SilencePiece(start, end, GapReason.LOST, gap_start)

    def late(self, chunk: Chunk) -> tuple[Piece, ...]:
        """Return the report of a chunk that comes after it was reported as lost; once."""
        start = self._places.pop(chunk.chunk, None) if chunk.chunk is not None else None
        if start is None:
            return ()
        end = start + len(chunk.payload)
        return (SilencePiece(end, end, GapReason.LATE, start),)

    def lost(self, chunk: Chunk, missing: int, silence: SilencePiece) -> tuple[SilencePiece, ...]:
        """Return what has yet to be reported of silence where chunks are missing, if anything.

        More than they can have been is a pause of the sender, and comes first.
        """
        self._remember(chunk, missing, silence)
        lost_from = silence.gap_start
        if silence.end - lost_from > missing * self._largest + self._rounding:
            lost_from = silence.end - max(0, missing * len(chunk.payload) - self._reported)
        self._reported = 0
        pause_to = max(silence.start, lost_from)
        pause = SilencePiece(silence.start, pause_to, GapReason.SENDER_SILENCE, silence.start)
        gap_start = max(lost_from, self.reported_to)
        lost = replace(silence, start=pause_to, gap_start=gap_start)
        paused = (pause,) if pause.end > pause.start else ()
        return (*paused, lost) if gap_start < silence.end else paused

    def _remember(self, chunk: Chunk, missing: int, silence: SilencePiece) -> None:
        """Remember where the latest chunks that are missing before this one belong."""
        assert chunk.chunk is not None  # noqa: S101  or nothing would be known to be missing
        size = len(chunk.payload)
        for back in range(min(missing, _MOST_REPORTED), 0, -1):
            start = silence.end - back * size
            if start >= silence.gap_start:
                self._places[chunk.chunk - back] = start
        while len(self._places) > _MOST_REPORTED:
            del self._places[next(iter(self._places))]


class _Silences:
    """Where a time line ends, and the silence that is given out where nothing comes."""

    def __init__(self, media: MediaFormat, begin: int) -> None:
        self.cursor = begin  # where what was given out so far ends
        self._one_ms = media.bytes_per_ms
        self._filled_from = begin  # where silence that was filled and not yet explained began
        self._filled_to = begin  # and where it ends
        self._losses = _LossReports(begin, rounding=media.bytes_per_ms)
        self._half = b""  # of a sample, at the end of a chunk of an odd number of bytes
        self._is_torn = False  # bytes are missing before the next one
        self._is_lost = False  # what was filled, by the numbers of other tracks
        self._latest: Chunk | None = None

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
        self._half, self._is_torn = b"", True
        self.cursor = self._filled_to = position
        was_lost, self._is_lost = self._is_lost and not begins, False
        if lost and begins:
            return self._losses.report(start, position, start, begins=True)
        if not begins and not was_lost:
            return None
        return SilencePiece(start, position, GapReason.SENDER_SILENCE, start)

    def fill_up_to(self, position: int, *, missing: int, lost: bool) -> Iterator[SilencePiece]:
        """Give out silence up to `position`, and yield what is to be reported of it.

        Args:
            position: in bytes, on a sample.
            missing: how many chunks never came, as the numbers of other tracks say.
            lost: whether chunks are missing before one that is held back.
        """
        if position <= self.cursor:
            return
        if lost or not self._is_filled_by(missing, position):
            yield from self.report_loss()
            if (silence := self.fill_silence(position, lost=lost)) is not None:
                yield silence
            return
        start, was_lost = self.cursor, self._is_lost and self._is_in_silence
        silence = self.fill_silence(position, lost=not self._is_in_silence)
        self._is_lost = True
        gap_start = max(self._filled_from, self._losses.reported_to)
        if silence is not None and silence.reason is GapReason.LOST:
            yield silence
        elif not was_lost or position - gap_start >= _GROWN_MS * self._one_ms:
            yield self._losses.report(start, position, gap_start, begins=not was_lost)

    def report_loss(self) -> Iterator[SilencePiece]:
        """Yield the report of what was lost up to here and has yet to be reported, if any."""
        reported_to = self._losses.reported_to
        if self._is_lost and self._is_in_silence and reported_to < self.cursor:
            yield self._losses.report(self.cursor, self.cursor, reported_to, begins=False)

    @property
    def _is_in_silence(self) -> bool:
        """Return whether what was given out last is silence, of which no chunk has told yet."""
        return self._filled_from < self._filled_to == self.cursor

    def _is_filled_by(self, missing: int, position: int) -> bool:
        """Whether so many chunks would fill the silence up to `position`."""
        if self._latest is None or not missing:
            return False
        continues = self._is_in_silence
        length = position - (self._filled_from if continues else self.cursor)
        size = len(self._latest.payload)
        # The number that shows the latest may be on its way: what is lost goes on.
        known = missing + (continues and self._is_lost)
        return missing * size >= _FILLED * length or known * size >= length


class LivePlacer(_Silences):
    """One track's live time line; the module's docstring has the rules and an example.

    Args:
        media: the format of the payloads.
        begin: the byte at which the time line begins; what belongs before is cut off.
        arrival_ms: when listening began, on the clock of the chunks' arrival times.
        starts_within: whether a payload sounds as if it started with half a sample.
    """

    def __init__(
        self,
        media: MediaFormat,
        *,
        begin: int = 0,
        arrival_ms: int = 0,
        starts_within: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        super().__init__(media, begin)
        self.left_out = 0  # chunks that came too late, or twice
        self.latest_end = begin  # where the latest chunk ends, or would, had it been in time
        self.elsewhere: Callable[[int], bool] = lambda _: False  # of the other track's numbers
        self.on_lost: Callable[[range], None] = lambda _: None  # numbers that were reported
        self.tolerated_ms = 0.0  # a track that is behind by no more is not anchored anew
        self.level_ms: float | None = None  # how late the other track's audio comes, if known
        self._starts_within = starts_within
        self._behind: list[_Behind] = []
        self._sample = media.bytes_per_sample
        self._clock = _SenderClock(media, arrival_ms)
        self._shares_samples = False  # chunks have such halves

    def set_origin(self, origin_ms: int, ticks_per_ms: int = 1) -> None:
        """Set the timestamp at which stream time begins, and its unit, before the first chunk."""
        self._clock.start_at(origin_ms, ticks_per_ms)

    def follow_clock(self, latest: Chunk) -> None:
        """Set the clock so that `latest` ends where this time line begins, in mid-call."""
        self._clock.follow(latest, self.cursor)

    def share_unit(self, other: LivePlacer) -> None:
        """Count the timestamps of a track that has yet to come as those of the other one."""
        if other._latest is None:
            other._clock.count_as(self._clock)

    def start_after(self, chunk: Chunk, arrival_ms: int) -> None:
        """Set the chunk that came before the first one that is fed; it is not given out."""
        self._latest, self._clock.arrival_ms = chunk, arrival_ms

    def feed(self, chunk: Chunk, arrival_ms: int) -> tuple[Piece, ...]:
        """Return what follows on the time line now: silence, audio, both, or nothing.

        Args:
            chunk: the next one to place, as the jitter buffer released it.
            arrival_ms: when it arrived.
        """
        if _is_late(chunk, self._latest):
            self.left_out += self._clock.audio_bytes > 0  # else it is from before the beginning
            return self._losses.late(chunk)
        missing = self._missing_before(chunk)
        if self._latest is not None and not missing:
            self._clock.update_unit(chunk, self._latest, arrival_ms, self.cursor)
        jump = self._jump(chunk, arrival_ms, missing)
        before, self._latest, self._clock.arrival_ms = self._latest, chunk, arrival_ms
        self._clock.audio_bytes += len(chunk.payload)
        self._losses.observe(chunk)
        cut = min(max(0, -jump), len(chunk.payload)) if 0 < self._filled_to == self.cursor else 0
        self.latest_end = self.cursor + (jump if cut else 0) + len(chunk.payload)
        if cut and self._filled_from < self._filled_to:  # or else it is before the beginning
            if -jump > max(_APPENDED_MS * self._one_ms, len(chunk.payload) - 1):
                return self._hold_behind(chunk, arrival_ms, self.cursor + jump, missing)
            pieces = self._append_late(chunk, self.cursor + jump, missing)
        elif cut:
            pieces = self._feed_late(chunk, cut, self.cursor + jump, missing)
        else:
            pieces = self._feed_in_time(chunk, before, jump, missing)
        if missing and before is not None and any(map(_is_loss, pieces)):
            self.on_lost(range((before.chunk or 0) + 1, chunk.chunk or 0))
        self.latest_end = max(self.latest_end, self.cursor)
        # What was behind, was so for a moment only.
        return (*self._late_reports(), *pieces) if self._behind else pieces

    @property
    def behind_since_ms(self) -> int | None:
        """Return when the first chunk came that waits to be judged."""
        return self._behind[0].arrival_ms if self._behind else None

    def release_due(self, now_ms: int, *, last: bool = False) -> tuple[Piece, ...]:
        """Return what follows of chunks that are behind, once it can be said what they are.

        Args:
            now_ms: on the clock of arrival times.
            last: whether nothing more comes.
        """
        behind = self._behind
        if not behind or not (last or now_ms - behind[0].arrival_ms >= JUDGED_AFTER_MS):
            return ()
        if behind[-1].late <= self.tolerated_ms * self._one_ms:
            return self._late_reports()
        steady = behind[-1].late + _STEADY_MS * self._one_ms
        backlog = [each for each in behind if each.late > steady]
        self._behind = []
        late = tuple(report for each in backlog for report in each.reports)
        return (*late, *self._reanchor([each for each in behind if each.late <= steady]))

    def _feed_in_time(
        self, chunk: Chunk, before: Chunk | None, jump: int, missing: int
    ) -> tuple[Piece, ...]:
        # Timestamps are whole ms, so less is rounding; in running audio a packet is waited for.
        least = self._one_ms
        if before is not None and not missing and self._filled_to != self.cursor:
            least = max(len(chunk.payload), len(before.payload))
        silence = self._skip(jump if jump >= least else 0, missing)
        silences: tuple[SilencePiece, ...] = () if silence is None else (silence,)
        if missing and silence is not None:
            silences = self._losses.lost(chunk, missing, silence)
        audio = self._append(chunk.payload)
        return silences if audio is None else (*silences, audio)

    def _jump(self, chunk: Chunk, arrival_ms: int, missing: int) -> int:
        """Return the bytes from the cursor to where the chunk belongs; 0 appends it."""
        if chunk.timestamp_ms is not None:
            return self._clock.jump(chunk.timestamp_ms, self.cursor, arrival_ms)
        jump = missing * len(self._latest.payload) if self._latest else 0
        if self._filled_from < self._filled_to == self.cursor:
            room = self._clock.room(self.cursor, chunk.payload, arrival_ms, self.level_ms)
            jump = max(jump, room - room % self._sample)
        return jump if self._clock.spend(jump, arrival_ms) else 0

    def position_of(self, chunk: Chunk) -> int:
        """Return at which byte a chunk that is held back would begin, as far as is known."""
        if chunk.timestamp_ms is None:
            return self.cursor
        return self._clock.position_of(chunk.timestamp_ms)

    def _append_late(self, chunk: Chunk, start: int, missing: int) -> tuple[Piece, ...]:
        """Return the audio of a chunk that belongs a little before the cursor, and any loss."""
        pieces = self._lost_before(chunk, start, missing)
        self._filled_to = self._filled_from = 0
        audio = self._append(chunk.payload)
        return (*pieces, audio) if audio else tuple(pieces)

    def _lost_before(self, chunk: Chunk, start: int, missing: int) -> list[Piece]:
        """Return the report of chunks that are missing in what was filled before `start`."""
        if not missing or start <= self._filled_from:
            return []
        report = SilencePiece(start, start, GapReason.LOST, self._filled_from)
        return [*self._losses.lost(chunk, missing, report)]

    def _hold_behind(
        self, chunk: Chunk, arrival_ms: int, start: int, missing: int
    ) -> tuple[Piece, ...]:
        """Hold a chunk whose place was filled, until it can be said why."""
        late = self.cursor - start
        reports = self._feed_late(chunk, len(chunk.payload), start, missing)
        self._behind.append(_Behind(chunk.payload, arrival_ms, start, late, reports))
        return self.release_due(arrival_ms)

    def _late_reports(self) -> tuple[Piece, ...]:
        """Return the reports of chunks that were behind, which are left out."""
        reports = tuple(report for each in self._behind for report in each.reports)
        self._behind = []
        return reports

    def _reanchor(self, chunks: list[_Behind]) -> tuple[Piece, ...]:
        """Follow the track's clock from here on, and return what was held of it.

        It stands where it comes as late as the other track does, as far as there is room.
        """
        self.left_out -= len(chunks)
        moved = self.cursor - chunks[0].start
        by_arrival = min(
            self._clock.room(c.start, c.payload, c.arrival_ms, self.level_ms) for c in chunks
        )
        moved = max(moved, by_arrival)
        moved -= moved % self._sample
        self._clock.shift += moved
        self._clock.candidate = None
        pieces: list[Piece] = [ReanchorPiece(self.cursor, moved)]
        for each in chunks:
            jump = each.start + moved - self.cursor
            if (silence := self._skip(jump if jump >= self._one_ms else 0, 0)) is not None:
                pieces.append(silence)
            if (audio := self._append(each.payload)) is not None:
                pieces.append(audio)
        self.latest_end = self.cursor
        return tuple(pieces)

    def _feed_late(self, chunk: Chunk, cut: int, start: int, missing: int) -> tuple[Piece, ...]:
        """Return the reports of a chunk that belongs into silence given out, and what is behind.

        Args:
            chunk: the newest one by its counters, but its place was filled; or, at the
                beginning, is at least in part before it.
            cut: how many of its bytes.
            start: where it belongs.
            missing: how many chunks are missing before it.
        """
        pieces: list[Piece] = []
        whole = cut == len(chunk.payload)
        if self._filled_from < self._filled_to:  # otherwise it is from before the beginning
            self.left_out += whole
            pieces += self._lost_before(chunk, start, missing)
            if whole or cut >= self._one_ms:  # less is rounding
                pieces.append(SilencePiece(start + cut, start + cut, GapReason.LATE, start))
            self._filled_from = max(self._filled_from, start + cut)
        audio = None if whole else self._append(chunk.payload[cut:])
        return (*pieces, audio) if audio else tuple(pieces)

    def _missing_before(self, chunk: Chunk) -> int:
        """Return how many chunk numbers are missing before this one."""
        if self._latest is not None:
            return _missing_between(self._latest, chunk, self.elsewhere)
        if chunk.chunk is None or chunk.timestamp_ms is None:
            return 0
        return _missing_at_first(chunk, chunk.chunk, self.position_of(chunk), self.elsewhere)

    def _skip(self, jump: int, missing: int) -> SilencePiece | None:
        """Move the cursor over silence that begins and ends on a sample, and return it.

        Where it goes on from silence that was filled, and chunks are missing, the gap is all of
        it. Half a sample before it is silenced with it.
        """
        filled = self._filled_from < self._filled_to == self.cursor
        gap_start = self._filled_from if filled else self.cursor
        start = self.cursor - len(self._half)
        end = (self.cursor + jump) // self._sample * self._sample
        if end <= start and not filled:
            return None
        if jump:
            self._half, self.cursor, self._is_torn = b"", end, True
        self._filled_to = self._filled_from = 0
        if missing:
            return SilencePiece(start, max(start, end), GapReason.LOST, min(gap_start, start))
        # What was filled has been reported already as a silence of the sender.
        return SilencePiece(start, end, GapReason.SENDER_SILENCE, start) if end > start else None

    def _append(self, payload: bytes) -> AudioPiece | None:
        """Move the cursor over audio, and return its whole samples, if any.

        Behind missing bytes, the sound shows whether it starts within a sample, as in the file.
        """
        unit = self._sample
        self._shares_samples = self._shares_samples or len(payload) % unit > 0
        if self._is_torn:
            self._is_torn = False
            if self._shares_samples and self._starts_within(payload):
                payload = payload[1:]
        start = self.cursor - len(self._half)
        payload = self._half + payload if self._half else payload
        whole = len(payload) // unit * unit
        self._half = payload[whole:]
        self.cursor = start + len(payload)
        if not whole:
            return None
        return AudioPiece(start, payload if whole == len(payload) else payload[:whole])


def _is_loss(piece: Piece) -> bool:
    return isinstance(piece, SilencePiece) and piece.reason is GapReason.LOST


def _is_late(chunk: Chunk, latest: Chunk | None) -> bool:
    """Whether all that is known of a chunk says that it belongs before the latest one.

    A counter that restarted is behind by number but not by timestamp, and so is not late.
    """
    if latest is None:
        return False
    if chunk.chunk is not None and latest.chunk is not None and chunk.chunk > latest.chunk:
        return False
    numbers = (chunk.chunk, latest.chunk)
    if None in numbers and chunk.sequence_number and latest.sequence_number:
        return chunk.sequence_number <= latest.sequence_number
    pairs = (numbers, (chunk.timestamp_ms, latest.timestamp_ms))
    known = [mine <= newest for mine, newest in pairs if mine is not None and newest is not None]
    return bool(known) and all(known)


def _missing_between(latest: Chunk, chunk: Chunk, elsewhere: Callable[[int], bool]) -> int:
    """Return how many chunk numbers are missing between two chunks."""
    if latest.chunk is None or chunk.chunk is None:
        return 0
    numbers = range(latest.chunk + 1, chunk.chunk)
    if 0 < len(numbers) <= _MOST_COMPARED:
        return len(numbers) - sum(map(elsewhere, numbers))
    return len(numbers)


def _missing_at_first(
    chunk: Chunk, number: int, position: int, elsewhere: Callable[[int], bool]
) -> int:
    """Return how many are known to be missing before the first: clock and counter agree."""
    if any(map(elsewhere, range(number - FEW_ON_THEIR_WAY - 1, number))):
        return 0  # it goes on with the other track's counter
    for counter_start in (1, 0):
        missing = number - counter_start
        if missing > 0 and position == missing * len(chunk.payload):
            sequence = chunk.sequence_number  # the first behind the start message has 2
            return missing if sequence is None else min(missing, max(0, sequence - 2))
    return 0
