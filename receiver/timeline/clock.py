"""What a sender's clock counts, where it begins, and how fast it runs.

All of it is decided with the whole track in view, before any chunk is placed. By the providers'
pages timestamps count milliseconds since the stream started. Some senders count samples, or from
long ago, or hardly at all, and some number the chunks of both tracks together. None says so: the
evidence is steps between neighbours. An example, for chunks of 160 bytes (20 ms of mu-law):

    step    numbers    what it says if most steps are so
    20      1, 2       the clock counts milliseconds (`clock_rule`)
    160     1, 2       it counts samples
    7       1, 2       it leaves too little room to place by it
    20      1, 3       2 is the other track's: numbers are shared (`without_useless_numbers`)
    40      1, 3       2 was lost
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from receiver.media import ClockRule, Finding, MediaFormat
from receiver.timeline.anchoring import TrackClock
from receiver.timeline.jumps import LARGEST_JITTER_MS, LONGEST_JUMP_MS, origin_of_first
from receiver.timeline.ordering import Order
from receiver.timeline.track_index import MISSING, Column, TrackIndex

Flags = NDArray[np.bool_]

_BEGINNING: Final = 50
"""No chunk is overtaken by more at the beginning; what is behind is not the first one."""
_LOOK_AHEAD: Final = 25  # chunks: half a second
_FULL_ROOM: Final = 0.99
"""Below this share of the room that the audio needs, timestamps cannot place it."""
_SHORTEST_DRIFT_MS: Final = 10_000
"""Over less time than this, arrival times say nothing about a clock's drift."""
_EXACT: Final = 0.02
"""A clock that counts samples is no further from their number than this share."""
_JITTERING: Final = 0.5
_EXACT_MEAN: Final = 0.1
"""If it jitters, its usual step may be further away, but hardly the mean of its steps."""
_LONGEST_STEP: Final = 2.0  # times the samples in it: what is longer is a pause
_NOT_RARE: Final = 0.99
"""This share of a track's chunks is no larger than one of them that is missing."""
_ENOUGH: Final = 4
"""From fewer neighbours than this nothing is concluded."""
_NOISES: Final = 4
"""A sum of n is hardly off by more than so many times what one is usually off by, and √n."""
_SHORT: Final = 0.05  # this share of steps is shorter than what timestamps usually jitter by
_MOST_DRIFT: Final = 0.003  # what differs by more counts something else
_PAUSE_MS: Final = 500  # timestamps hardly jitter by more
_LEAST_PAUSE_MS: Final = 100  # in the whole track
_SENT_APART_MS: Final = 500  # between timestamp and arrival, by the network's delays
_SHORTEST_SENT_MS: Final = 1000
_SHORTEST_SPEECH_MS: Final = 5000  # from less running audio no drift is concluded


def origin_ms(tracks: Iterable[TrackIndex]) -> int:
    """Return the timestamp at which stream time begins, for all tracks of a recording.

    It is 0, or the earliest first timestamp where all of them are more than `LONGEST_JUMP_MS`
    ahead of their arrival: a sender that counts from long ago still says how its tracks lie to
    each other.
    """
    first = [(_first_stamp(track), int(track.arrival[0])) for track in tracks]
    if any(stamp == MISSING for stamp, _ in first):
        return 0
    return min((origin_of_first(stamp, arrival) for stamp, arrival in first), default=0)


def _first_stamp(track: TrackIndex) -> int:
    """Return the earliest timestamp of a track: its first chunks may have overtaken each other."""
    early = track.timestamp[:_BEGINNING]
    first = int(early[0])
    return first if first == MISSING else int(early[early >= first - LONGEST_JUMP_MS].min())


class ClockLookahead:
    """Tells a timestamp that stands alone (jitter) from a pause, by the chunks that follow it.

    A chunk's shift is how far its timestamp puts it behind where it would be had the sender
    never paused. After a pause the shift stays; one that stands alone is a jitter:

        shift of chunks    0  0  40  0  0  0     the third is ahead of the next ones by 40
        shift of chunks    0  0  40  40 40 40    a pause of 40: ahead of the next ones by 0

    Some senders stamp a burst with the time of sending. Its stamps stand still, and neither they
    nor the arrivals go on with its audio, so the shifts fall, and say nothing of the first one.
    """

    def __init__(self, times: SenderTimes) -> None:
        self._shifts = times.targets - times.places
        self._targets, self._places, self._arrivals = times.targets, times.places, times.arrivals

    def ahead(self, chunks: Column) -> Column:
        """Return how many bytes chunks are ahead of where three of four that follow put each.

        The lowest quarter of them is not followed, nor are those above it: what jitters is never
        placed too early, and a track that always jitters does not grow with it.
        """
        rows = chunks[:, None] + np.arange(_LOOK_AHEAD)
        behind_all = rows >= len(self._shifts)
        rows = np.minimum(rows, len(self._shifts) - 1)
        shifts, audio, waited = (
            of[rows] - of[chunks][:, None] for of in (self._shifts, self._places, self._arrivals)
        )
        slow = 2 * shifts < -audio
        at_once = slow & ((2 * waited < audio) | (slow & (waited < audio))[:, -1:])
        at_once[:, 2:] |= slow[:, 2:] & self._stand_still(rows[:, 1:])
        shifts = np.where(at_once, 0, shifts)
        shifts = np.sort(np.where(behind_all, np.iinfo(np.int64).max, shifts), axis=1)
        quarter = (_LOOK_AHEAD - behind_all.sum(axis=1)) // 4
        level = shifts[np.arange(len(chunks)), quarter]
        found: Column = np.maximum(0, -level)
        return found

    def _stand_still(self, rows: Column) -> Flags:
        """Return up to which of these chunks, from the second on, stamps hardly go on at all."""
        steps, audio = np.diff(self._targets[rows], axis=1), np.diff(self._places[rows], axis=1)
        found: Flags = np.logical_and.accumulate(2 * steps < audio, axis=1)
        return found


def usual_size(index: TrackIndex) -> int:
    """Return the most frequent payload size in bytes: what a missing chunk is taken to have."""
    sizes, counts = np.unique(index.size, return_counts=True)
    return int(sizes[counts.argmax()])


def size_bounds(index: TrackIndex) -> tuple[int, int]:
    """Return the smallest and largest payload size in bytes that are not rare.

    A missing chunk is taken to have no less and no more.
    """
    return int(np.quantile(index.size, 1 - _NOT_RARE)), int(np.quantile(index.size, _NOT_RARE))


def without_useless_numbers(index: TrackIndex, ordered: Order, media: MediaFormat) -> Order:
    """Return the order, without its chunk numbers where they do not say what is missing.

    So it is where both tracks share a counter: numbers are missing all the time, and the clock
    goes on as if they were not. They still tell chunks apart, but nothing may be concluded from
    them about loss. Numbers are useless if the clock leaves no room for most of what they skip.
    """
    if ordered.numbers is None or ordered.proven:
        return ordered
    missing = np.diff(ordered.numbers) - 1
    skips = missing > 0
    spare = _spare_room(index, ordered, media)
    off, spare = spare[~skips], spare[skips]
    # Of few losses, a clock that jitters may show no room for most, and by chance for their sum.
    are_many = 4 * len(spare) >= len(missing)
    noise = 0.0 if are_many or len(off) < _ENOUGH else _NOISES * float(np.median(abs(off)))
    no_room = int((spare < 0).sum())
    if no_room < (_ENOUGH if are_many else 3 * _ENOUGH) or 4 * no_room <= 3 * len(spare):
        return ordered
    if float(spare.sum()) >= -noise * math.sqrt(len(spare)):
        return ordered
    text = "chunk numbers are missing where the clock leaves no room"
    finding = Finding("counters_unusable", text, index.track)
    findings = (*ordered.findings, finding)
    return replace(ordered, numbers=None, not_kept_numbers=None, findings=findings)


def _spare_room(index: TrackIndex, ordered: Order, media: MediaFormat) -> NDArray[np.float64]:
    """Return how many ticks more the clock leaves between two neighbours than numbers need there.

    They need the chunk before, and half of each missing one: of a small one where sizes are
    mixed. Where a step makes no sense, there is none if hardly any two numbers of the track
    follow each other.
    """
    assert ordered.numbers is not None  # noqa: S101  (the caller checked)
    missing = np.diff(ordered.numbers) - 1
    stamps, sizes = index.timestamp[ordered.chosen], index.size[ordered.chosen][:-1]
    steps = np.diff(stamps)
    sane = (stamps != MISSING)[1:] & (stamps != MISSING)[:-1] & (abs(steps) <= LONGEST_JUMP_MS)
    sane &= sizes > 0
    ticks = _ticks_per_byte(steps[sane] / sizes[sane], missing[sane] == 0, media)
    smallest = size_bounds(index)[0]
    spare = steps - (sizes + missing * (smallest / 2)) * ticks
    few = (missing == 0).sum() < max(_ENOUGH, len(missing) / 20)
    most = np.where(missing > 0, missing * usual_size(index) * ticks, np.inf)  # else they paused
    return np.where(sane, np.minimum(spare, most), -1.0 if few else 0.0)


def _ticks_per_byte(steps: NDArray[np.float64], beside: Flags, media: MediaFormat) -> float:
    """Return how many ticks of the clock a byte of audio takes.

    Args:
        steps: ticks per byte between neighbours.
        beside: which of those have numbers that follow each other; they are asked first.
        media: the format, for what it should be.
    """
    if beside.sum() >= _ENOUGH:
        return float(np.median(steps[beside]))
    samples = 1 / media.bytes_per_sample
    counts_samples = len(steps) and abs(np.median(steps) / samples - 1) < _EXACT
    return samples if counts_samples else 1 / media.bytes_per_ms


def clock_rules(
    indices: Sequence[TrackIndex], ordered: Sequence[Order], media: MediaFormat
) -> list[ClockRule]:
    """Return what the timestamps of each track count.

    A track of a few chunks is no evidence: it counts what the sender's other track counts, or
    milliseconds, as documented.
    """
    found = [_rule(*track, media) for track in zip(indices, ordered, strict=True)]
    otherwise = ClockRule.SAMPLES if ClockRule.SAMPLES in found else ClockRule.TIMESTAMP
    return [otherwise if rule is None else rule for rule in found]


def _rule(index: TrackIndex, ordered: Order, media: MediaFormat) -> ClockRule | None:
    """Return what the timestamps of a track count, from neighbours whose step is sane."""
    stamps = index.timestamp[ordered.chosen]
    present = stamps != MISSING
    if 2 * present.sum() < len(stamps) or not present.any():
        return ClockRule.CHUNKS
    steps_ms = np.diff(stamps)
    room_ms = index.size[ordered.chosen][:-1] / media.bytes_per_ms
    if ordered.numbers is not None:
        missing = np.diff(ordered.numbers) - 1
        room_ms = room_ms + missing * (usual_size(index) / media.bytes_per_ms)
    sane = present[1:] & present[:-1] & (steps_ms >= 0) & (steps_ms <= LONGEST_JUMP_MS)
    sane &= room_ms > 0
    steps_ms, room_ms = steps_ms[sane], room_ms[sane]
    if len(steps_ms) < _ENOUGH:
        return None
    usual_step = float(np.median(steps_ms / room_ms))
    if counts_samples(steps_ms / room_ms / (media.sample_rate / 1000)):
        return ClockRule.SAMPLES
    # One chunk that is too long for its step is no slow clock, and neither is one that steps
    # in bursts: either the usual step or the whole way leaves enough room.
    whole_way = float(steps_ms.sum()) / float(room_ms.sum())
    if max(usual_step, whole_way) >= _FULL_ROOM or _is_time_of_sending(index, ordered, media):
        return ClockRule.TIMESTAMP
    return ClockRule.CHUNKS


def counts_samples(steps: NDArray[np.float64]) -> bool:
    """Return whether most steps, as shares of the samples in them, are about 1.

    A clock that jitters has no step that is, but their mean is: what one is too long, the next
    ones are too short. Pauses are not in it.
    """
    running = steps[steps <= _LONGEST_STEP]
    usual = float(np.median(steps))
    return abs(usual - 1) < _EXACT or (
        abs(usual - 1) < _JITTERING and abs(float(running.mean()) - 1) < _EXACT_MEAN
    )


def _is_time_of_sending(index: TrackIndex, ordered: Order, media: MediaFormat) -> bool:
    """Return whether timestamps go with the arrivals of audio that is sent faster than it sounds.

    So do those of bursts that are stamped when they are sent: they leave too little room, but say
    where each burst begins.
    """
    chosen = ordered.chosen[index.timestamp[ordered.chosen] != MISSING]
    stamped_ms = int(np.ptp(index.timestamp[chosen]))
    came_ms = int(np.ptp(index.arrival[chosen]))
    audio_ms = int(index.size[chosen[:-1]].sum()) / media.bytes_per_ms
    near = abs(stamped_ms - came_ms) <= _SENT_APART_MS
    return near and came_ms >= _SHORTEST_SENT_MS and came_ms < _FULL_ROOM * audio_ms


class SenderTimes:
    """Where a sender's clock puts the chunks of one track; all columns are in bytes.

    Where timestamps place nothing (`ClockRule.CHUNKS`), only the first of them counts.

    Args:
        index: the track.
        ordered: its chunks in their order.
        media: the format of its payloads.
        rule: what its timestamps count.
        origin_ms: the timestamp at which stream time begins.
    """

    def __init__(
        self, index: TrackIndex, ordered: Order, media: MediaFormat, rule: ClockRule, origin_ms: int
    ) -> None:
        self.rule, self.media = rule, media
        self._origin_ms = origin_ms
        self._drift = 0.0
        self._index, self._chosen = index, ordered.chosen
        self.usual, (self.shortest, self.longest) = usual_size(index), size_bounds(index)
        self.unstamped = int((index.timestamp[ordered.chosen] == MISSING).sum())
        self.sizes = index.size[ordered.chosen].astype(np.int64)
        self.arrivals = index.arrival[ordered.chosen].astype(np.int64) * media.bytes_per_ms
        self.audio_before: Column = np.concatenate(([0], np.cumsum(self.sizes)))
        self.contiguous: Flags = np.ones(len(self.sizes), bool)
        self.places: Column = self.audio_before[:-1]  # had the sender never paused
        if ordered.numbers is not None and len(self.sizes) > 1:
            self.contiguous[1:] = np.diff(ordered.numbers) == 1
        if ordered.numbers is not None and not self.contiguous.all():
            skipped = ordered.numbers - ordered.numbers[0] - np.arange(len(self.sizes))
            self.places = self.places + skipped * self.usual
        self.targets = self._filled()
        steps = (np.diff(self.targets) - self.sizes[:-1])[self.contiguous[1:]]
        self._jitter = max(0, -int(np.quantile(steps, _SHORT))) if len(steps) >= _ENOUGH else 0
        if ordered.numbers is not None and self.shortest < self.longest:
            self.places = self._places_of_mixed_sizes(np.diff(ordered.numbers) - 1)

    def _places_of_mixed_sizes(self, missing: Column) -> Column:
        """Return places in which missing chunks have what the clock leaves them, if they can."""
        room = np.diff(self.targets) - self.sizes[:-1]
        lost = np.where(missing > 0, np.clip(room, 0, missing * self.longest), 0)
        places: Column = self.audio_before[:-1] + np.concatenate(([0], np.cumsum(lost)))
        return places

    @property
    def least_silence(self) -> int:
        """Return how much silence is one: less waits for a pause, or until it is so much.

        It is a packet, and what timestamps usually jitter by: short steps are never of pauses.
        """
        return max(self.usual, self.media.bytes_per_ms, self._jitter)

    def of_stamps(self, stamps: Column) -> Column:
        """Return where each timestamp puts a chunk, before any shift; `MISSING` where none is."""
        counts_samples = self.rule is ClockRule.SAMPLES
        unit = self.media.bytes_per_sample if counts_samples else self.media.bytes_per_ms
        since = (stamps - self._origin_ms) * unit
        if self._drift:
            since = np.rint(since / (1 + self._drift)).astype(np.int64)
        return np.where(stamps == MISSING, MISSING, since)

    def _filled(self) -> Column:
        """Return targets, those that are missing by the audio from the one before them on."""
        targets = self.of_stamps(self._index.timestamp[self._chosen])
        present = np.flatnonzero(targets != MISSING)
        if len(present) == len(targets):
            return targets
        if not len(present):
            return self.places
        before = np.searchsorted(present, np.arange(len(targets)), side="right") - 1
        nearest = present[np.maximum(before, 0)]
        filled: Column = targets[nearest] + self.places - self.places[nearest]
        return filled

    def without_drift(self, drift: float) -> None:
        """Count the time of the audio, whose timestamps run faster by this share."""
        self._drift = drift
        self.targets = self._filled()

    @property
    def expected(self) -> int:
        """Return how many bytes a missing chunk has on the average: where sizes are mixed."""
        mixed = self.shortest < self.longest
        return int(self.audio_before[-1]) // len(self.sizes) if mixed else self.usual

    def number_at(self, target: int) -> int:
        """Return the number that a chunk in this place would have, by the usual size of one."""
        usual = self.usual or 2**62  # if chunks are usually empty, none has a place
        return (target + usual // 2) // usual

    def waited_ms(self, chunk: int) -> int:
        """Return how long after the chunk before it a chunk arrived."""
        before = int(self.arrivals[chunk - 1]) if chunk else 0
        return (int(self.arrivals[chunk]) - before) // self.media.bytes_per_ms

    def breaks(self) -> Flags:
        """Return which chunks do not follow the one before, wherever it is placed."""
        found = ~self.contiguous
        if self.rule is not ClockRule.CHUNKS:
            found[1:] |= np.diff(self.targets) < -LARGEST_JITTER_MS * self.media.bytes_per_ms
        return found

    def clock(self) -> TrackClock:
        """Return the track's clock beside ours."""
        stamps, one_ms = self.targets, float(self.media.bytes_per_ms)
        if self.rule is ClockRule.CHUNKS:
            stamps = self.places + max(0, int(self.targets[0]))
        stamped = self.unstamped < len(self.sizes)
        return TrackClock(
            self.arrivals / one_ms,
            stamps / one_ms,
            self.sizes / one_ms,
            stamped,
            self._shows_pauses(),
        )

    def _shows_pauses(self) -> bool:
        """Return whether timestamps leave silence where no chunk is missing, and go on there."""
        if self.rule is ClockRule.CHUNKS or len(self.sizes) < 2:
            return False
        one_ms = self.media.bytes_per_ms
        steps = (np.diff(self.targets) - self.sizes[:-1])[self.contiguous[1:]]
        if (steps >= _PAUSE_MS * one_ms).any():
            return True
        silence = self.targets - self.places
        shown = np.median(silence[-_LOOK_AHEAD:]) - np.median(silence[:_LOOK_AHEAD])
        return bool(shown >= max(_LEAST_PAUSE_MS * one_ms, 2 * self._jitter))


def running_drift(tracks: Sequence[SenderTimes]) -> float:
    """Return how much faster a sender's timestamps run than its own audio, as a share.

    Audio without a break needs no silence in it, whatever its timestamps say: with 200 ppm they
    are 1 ms ahead after 5 s. It is 0 unless nearly all neighbours say so beyond their rounding.
    All tracks have the sender's clock. A step that is off by half a packet is none of drift.
    """
    ahead = audio = squares = 0.0
    breaks = beside = running = 0
    for track in tracks:
        if track.rule is ClockRule.CHUNKS or track.unstamped:
            continue
        contiguous, sizes = track.contiguous[1:], track.sizes[:-1]
        off = (np.diff(track.targets) - sizes)[contiguous] / track.media.bytes_per_ms
        small = abs(off) < track.usual / track.media.bytes_per_ms / 2
        ahead += float(off[small].sum())
        audio += float(sizes[contiguous][small].sum()) / track.media.bytes_per_ms
        squares += float((off[small] ** 2).sum())
        beside, running = beside + len(off), running + int(small.sum())
        breaks += len(track.sizes) - int(small.sum())
    if running < 0.9 * beside or running < _ENOUGH or audio < _SHORTEST_SPEECH_MS:
        return 0.0
    noise = max(1.0, 4 * math.sqrt(squares / running)) * math.sqrt(breaks)
    drift = ahead / audio
    return drift if abs(ahead) > noise and abs(drift) <= _MOST_DRIFT else 0.0


def drift_ppm(index: TrackIndex, ordered: Order, rule: ClockRule) -> float | None:
    """Return how much faster the sender's clock runs than ours, in parts per million.

    It is the slope of the line that fits timestamps to arrival times best; `None` where
    timestamps are no complete clock of milliseconds, or arrivals span less than ten seconds.
    """
    stamps = index.timestamp[ordered.chosen]
    arrivals = index.arrival[ordered.chosen]
    if rule is not ClockRule.TIMESTAMP or (stamps == MISSING).any():
        return None
    if int(arrivals.max() - arrivals.min()) < _SHORTEST_DRIFT_MS:
        return None
    ours = arrivals - arrivals.mean()
    theirs = stamps - stamps.mean()
    return round(float((ours * theirs).sum() / (ours * ours).sum() - 1) * 1e6, 1)
