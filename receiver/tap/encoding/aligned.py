"""One track, or both as one, aligned by the stream's clock.

Every track drives that clock, also one that is not sent: where it goes on and a track that is
sent does not, silence is sent, so that a listener's clock is the stream's.
"""

from __future__ import annotations

from bisect import insort_right
from collections import deque
from collections.abc import Iterable
from operator import itemgetter
from typing import Final

from receiver.media import Chunk, Track
from receiver.tap.encoding.notices import LONGEST_WAIT_MS, event_items, stopped_notice
from receiver.tap.encoding.samples import SampleFormatter, hole_notice, live_placer
from receiver.tap.events import (
    LiveChunk,
    LiveMessage,
    PrecedingChunk,
    StreamEnded,
    StreamEvent,
    StreamPosition,
    Subscribed,
)
from receiver.tap.queue import OutMessage
from receiver.timeline.jitter_buffer import JitterBuffer
from receiver.timeline.jumps import live_origin_ms
from receiver.timeline.live_placement import AudioPiece, SilencePiece

_WAIT_IN_THE_PAST_MS: Final = 1000
"""The order of the past is known: to wait there for what came later delays nobody."""
_FURTHEST_AHEAD_MS: Final = 5000
"""A track that is further ahead, in the stream's time, waits no more, however fast it came."""
_LONG_PACKETS: Final = 3
"""What long ones are waited for: a counterpart may end one later, and be overtaken by another."""


class _AlignedTrack:
    """One track on its way to its listeners."""

    def __init__(
        self, joined: Subscribed, output: SampleFormatter, begin: float | None, wait_ms: int
    ) -> None:
        self.placer = live_placer(joined, output.media, begin)
        self.order = JitterBuffer(output.media, wait_ms, from_the_first=not self.placer.cursor)
        self.order.origin_ms = joined.position.origin_ms
        self.audio: deque[AudioPiece] = deque()
        self.arrivals: deque[tuple[int, int]] = deque()  # up to where it came, and when
        self.heard_ms = -(2**31)  # when the latest chunk came
        self.size = 0  # of that chunk

    @property
    def left_out(self) -> int:
        """Return how many chunks came too late, or twice."""
        return self.placer.left_out + self.order.duplicates

    def count_from(self, origin_ms: int) -> None:
        """Learn at which timestamp stream time begins."""
        self.placer.set_origin(origin_ms)
        self.order.origin_ms = origin_ms

    def begin_behind(self, chunk: Chunk, arrival_ms: int) -> None:
        """Learn what came just before: what follows tells what is missing in between."""
        self.placer.start_after(chunk, arrival_ms)
        self.order.start_after(chunk)

    def border(self, start: int, *, runs: bool) -> int:
        """Return where the track next changes between audio and silence; or between chunks."""
        border = start
        for audio in self.audio:
            if audio.start > border:
                return audio.start if border == start else border
            border = audio.end
            if not runs:
                return border
        return border if border > start else 2**62

    def taken(self, end: int) -> bytes:
        """Take the audio up to `end`; none is silence."""
        audio, taken = self.audio, b""
        while audio and audio[0].start < end:
            first = audio.popleft()
            inside = end - first.start
            taken += first.payload[:inside]
            if first.end > end:
                audio.appendleft(AudioPiece(end, first.payload[inside:]))
        return taken


class AlignedEncoder:
    """One track, promptly; or both, inbound left, each waiting a moment for the other."""

    def __init__(
        self, joined: Subscribed, output: SampleFormatter, track: str, begin: float | None
    ) -> None:
        self._output = output
        self._name = track
        self._wait_ms = LONGEST_WAIT_MS if begin is None else _WAIT_IN_THE_PAST_MS
        # What a track lacks at its end is sent as what all tracks were given.
        self._sides = {
            track: _AlignedTrack(joined, output, begin, self._wait_ms) for track in Track
        }
        self._sent = {t: self._sides[t] for t in Track if track in (t.value, "stereo")}
        self._alone = next(iter(self._sent.values())) if len(self._sent) == 1 else None
        self._notices: list[tuple[int, OutMessage]] = []  # in the order of their positions
        self._given = self._sides[Track.INBOUND].placer.cursor  # what is before has been sent
        self._settled = joined.position.latest is not None  # where stream time begins
        if begin is None:
            self._begin_behind(joined.position)

    @property
    def position_ms(self) -> float:
        """Return where a listener begins that joins now."""
        return self._output.milliseconds(self._given)

    @property
    def left_out(self) -> int:
        """Return how many chunks came too late, or twice."""
        return sum(side.left_out for side in self._sent.values())

    @property
    def waiting_since_ms(self) -> int | None:
        """Return when the oldest audio came that is held back."""
        since = [side.arrivals[0][1] for side in self._sides.values() if side.arrivals]
        if since:
            since = [max(min(since), self._quiet_since_ms()) + self._longer_ms()]
        held = (side.order.waiting_since_ms for side in self._sides.values() if side.order)
        return min((*since, *(ms for ms in held if ms is not None)), default=None)

    def take(self, event: StreamEvent) -> list[OutMessage]:
        """Return what follows from an event."""
        if type(event) is LiveChunk:
            return self._hear(event.chunk, event.arrival_ms)
        if isinstance(event, LiveMessage):
            # As in the recording: what has no time of its own is behind the latest chunk.
            now = max(side.placer.cursor for side in self._sides.values())
            now -= now % self._output.media.bytes_per_sample
            for item in event_items(event, self._output.milliseconds(now)):
                self._note(now, item)
            return self._emit(self._limit(event.arrival_ms))
        if isinstance(event, StreamEnded):
            return self._end(event)
        if isinstance(event, PrecedingChunk):
            self._sides[event.chunk.track].begin_behind(event.chunk, event.arrival_ms)
        return []

    def due(self, now_ms: int) -> list[OutMessage]:
        """Return what has waited long enough."""
        self._let_go(now_ms)
        return self._emit(self._limit(now_ms))

    def reach_the_present(self) -> None:
        """Wait no longer than a live listener should."""
        self._wait_ms = LONGEST_WAIT_MS
        for side in self._sides.values():
            side.order.max_wait_ms = LONGEST_WAIT_MS

    def _begin_behind(self, standing: StreamPosition) -> None:
        for chunk in (*standing.others, standing.latest):
            if chunk is not None:
                self._sides[chunk.track].begin_behind(chunk, standing.arrival_ms)

    def _end(self, event: StreamEnded) -> list[OutMessage]:
        for track, side in self._sides.items():
            self._place(track, side.order.release_all())
        items = self._emit(max(side.placer.cursor for side in self._sides.values()))
        return [*items, stopped_notice(event.reason, self.position_ms)]

    def _settle(self, first: Chunk, arrival_ms: int) -> None:
        """Learn from a stream's first chunk where its time begins."""
        self._settled = True
        for side in self._sides.values():
            side.count_from(live_origin_ms(first, arrival_ms))

    def _hear(self, chunk: Chunk, arrival_ms: int) -> list[OutMessage]:
        if not self._settled:
            self._settle(chunk, arrival_ms)
        self._let_go(arrival_ms)
        side = self._sides[chunk.track]
        side.heard_ms, side.size = arrival_ms, len(chunk.payload)
        self._place(chunk.track, side.order.feed(chunk, arrival_ms))
        alone = self._alone
        if alone is None or self._notices:
            return self._emit(self._limit(arrival_ms))
        # Nearly always a single track is in order, and the other one changes nothing.
        if alone is side and len(side.audio) == 1 and side.audio[0].start == self._given:
            return [self._whole(side)]
        if side is not alone and arrival_ms - alone.heard_ms < self._wait_ms:
            return []
        return self._emit(self._limit(arrival_ms))

    def _whole(self, side: _AlignedTrack) -> OutMessage:
        """Return the only audio there is, which belongs where the listener has come to."""
        start, audio = self._given, side.audio.popleft()
        self._given = audio.end
        self._forget_arrivals()
        output = self._output
        length_ms = output.milliseconds(len(audio.payload))
        return OutMessage(
            output.audio(audio.payload), self._name, output.milliseconds(start), length_ms
        )

    def _let_go(self, now_ms: int) -> None:
        """Place what has waited long enough for a chunk of its own track."""
        for track, side in self._sides.items():
            if side.order:
                self._place(track, side.order.release_due(now_ms))

    def _place(self, track: Track, chunks: Iterable[tuple[Chunk, int]]) -> None:
        side, placer = self._sides[track], self._sides[track].placer
        for chunk, arrival_ms in chunks:
            pieces = placer.feed(chunk, arrival_ms)
            if track in self._sent:
                for piece in pieces:
                    self._keep(track, piece)
            if placer.cursor > self._given:
                while side.arrivals and side.arrivals[-1][1] >= arrival_ms:
                    side.arrivals.pop()  # it is due with what is behind it
                side.arrivals.append((placer.cursor, arrival_ms))

    def _keep(self, track: Track, piece: AudioPiece | SilencePiece) -> None:
        if isinstance(piece, AudioPiece):
            self._sides[track].audio.append(piece)
        else:
            self._note(piece.start, OutMessage(hole_notice(self._output, track.value, piece)))

    def _note(self, position: int, notice: OutMessage) -> None:
        insort_right(self._notices, (position, notice), key=itemgetter(0))

    def _quiet_since_ms(self) -> int:
        """Return since when a listener may be given silence for what has not come.

        A single track that keeps coming is not silent, however far the other is ahead: its next
        chunk comes when the latest one has been played.
        """
        alone = self._alone
        if alone is None:
            return -(2**31)
        return alone.heard_ms + alone.size // self._output.media.bytes_per_ms

    def _longer_ms(self) -> int:
        """Return how much longer than `LONGEST_WAIT_MS` is waited where packets are long."""
        longest = max(side.size for side in self._sides.values())
        packets_ms = _LONG_PACKETS * longest // self._output.media.bytes_per_ms
        return max(0, packets_ms - LONGEST_WAIT_MS)

    def _limit(self, now_ms: int) -> int:
        """Return up to where the tracks are there, or nobody waits for them any longer."""
        cursors = [side.placer.cursor for side in self._sent.values()]
        ahead = _FURTHEST_AHEAD_MS * self._output.media.bytes_per_ms
        limit = max(min(cursors), max(cursors) - ahead)
        now_ms -= self._longer_ms()
        if now_ms - self._quiet_since_ms() < self._wait_ms:
            return limit
        for side in self._sides.values():
            for end, arrival_ms in side.arrivals:
                if now_ms - arrival_ms < self._wait_ms:
                    break
                limit = max(limit, end)
        return limit

    def _emit(self, limit: int) -> list[OutMessage]:
        limit -= limit % self._output.media.bytes_per_sample
        self._give_up(limit)
        items: list[OutMessage] = []
        runs = self._alone is None
        while self._given < limit:
            self._tell(items)
            borders = [side.border(self._given, runs=runs) for side in self._sent.values()]
            notices = [self._notices[0][0]] if self._notices else []
            end = min(limit, *borders, *notices)
            items.append(self._segment(end))
            self._given = end
        self._tell(items)
        self._forget_arrivals()
        return items

    def _forget_arrivals(self) -> None:
        for side in self._sides.values():
            while side.arrivals and side.arrivals[0][0] <= self._given:
                side.arrivals.popleft()

    def _tell(self, items: list[OutMessage]) -> None:
        """Add what is to be told where the listener has come to."""
        while self._notices and self._notices[0][0] <= self._given:
            items.append(self._notices.pop(0)[1])

    def _give_up(self, limit: int) -> None:
        """Make silence of what is not there up to `limit`; what is held behind it may follow."""
        for track, side in self._sent.items():
            while side.order and side.placer.position_of(side.order.first) < limit:
                self._place(track, side.order.release_first_run())
            # What is held is behind a number that is missing.
            silence = side.placer.fill_silence(limit, lost=bool(side.order))
            if silence is not None:
                self._keep(track, silence)

    def _segment(self, end: int) -> OutMessage:
        """Return what is between what was given and `end`; no track changes in between."""
        output, start = self._output, self._given
        sides = [side.taken(end) for side in self._sent.values()]
        if not any(sides):
            return output.silent(self._name, start, end - start, len(sides))
        silence = output.silence * ((end - start) // output.media.bytes_per_sample)
        made = [output.audio(side) if side else silence for side in sides]
        both = output.interleave(*made) if len(made) > 1 else made[0]
        length_ms = output.milliseconds(end - start)
        return OutMessage(both, self._name, output.milliseconds(start), length_ms)
