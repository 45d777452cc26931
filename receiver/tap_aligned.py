"""Both tracks as one: inbound left, outbound right, aligned by the stream's clock."""

from __future__ import annotations

from collections import deque
from typing import Final

from receiver.media import Chunk, Track
from receiver.placing import Audio
from receiver.tap import ChunkHeard, Event, Joined, MessageHeard, StreamEnded
from receiver.tap_kinds import event_items, stopped
from receiver.tap_queue import Item
from receiver.tap_samples import Output, hole_notice, placer_for

LONGEST_WAIT_MS: Final = 60
"""How long a chunk of one track waits for its counterpart of the other."""
_FURTHEST_AHEAD_MS: Final = 5000
"""A track that is further ahead, in the stream's time, waits no more, however fast it came."""
_TRACKS: Final = (Track.INBOUND, Track.OUTBOUND)  # left, right


class StereoEncoder:
    """Both tracks, inbound left, aligned by the stream's clock."""

    def __init__(self, joined: Joined, output: Output, begin: float | None) -> None:
        self._output = output
        self._placers = {track: placer_for(joined, output.media, begin) for track in _TRACKS}
        self._audio: dict[Track, deque[Audio]] = {track: deque() for track in _TRACKS}
        self._arrivals: dict[Track, deque[tuple[int, int]]] = {t: deque() for t in _TRACKS}
        self._notices: deque[tuple[int, Item]] = deque()
        self._given = self._placers[Track.INBOUND].cursor  # what is before has been sent

    @property
    def position_ms(self) -> float:
        """Return where a listener begins that joins now."""
        return self._output.milliseconds(self._given)

    @property
    def left_out(self) -> int:
        """Return how many chunks came too late, or twice."""
        return sum(placer.left_out for placer in self._placers.values())

    @property
    def waiting_since_ms(self) -> int | None:
        """Return when the oldest audio came that is held back."""
        return min((waiting[0][1] for waiting in self._arrivals.values() if waiting), default=None)

    def take(self, event: Event) -> list[Item]:
        """Return what follows from an event."""
        if type(event) is ChunkHeard:
            self._place(event.chunk, event.arrival_ms)
            return self._emit(self._limit(event.arrival_ms))
        if isinstance(event, MessageHeard):
            return event_items(event, self.position_ms)
        if isinstance(event, StreamEnded):
            rest = self._emit(max(placer.cursor for placer in self._placers.values()))
            return [*rest, stopped(event.reason, self.position_ms)]
        return []

    def due(self, now_ms: int) -> list[Item]:
        """Return what has waited long enough."""
        return self._emit(self._limit(now_ms))

    def _place(self, chunk: Chunk, arrival_ms: int) -> None:
        track, placer = chunk.track, self._placers[chunk.track]
        for piece in placer.take(chunk, arrival_ms):
            if isinstance(piece, Audio):
                self._audio[track].append(piece)
            else:
                item = Item(hole_notice(self._output, track.value, piece))
                self._notices.append((piece.start, item))
        if placer.cursor > self._given:
            self._arrivals[track].append((placer.cursor, arrival_ms))

    def _limit(self, now_ms: int) -> int:
        """Return up to where the tracks are there, or nobody waits for them any longer."""
        cursors = [placer.cursor for placer in self._placers.values()]
        ahead = _FURTHEST_AHEAD_MS * self._output.media.bytes_per_ms
        limit = max(min(cursors), max(cursors) - ahead)
        for waiting in self._arrivals.values():
            for end, arrival_ms in waiting:
                if now_ms - arrival_ms < LONGEST_WAIT_MS:
                    break
                limit = max(limit, end)
        return limit

    def _emit(self, limit: int) -> list[Item]:
        limit -= limit % self._output.media.bytes_per_sample
        items: list[Item] = []
        while self._given < limit:
            end = min(limit, *(self._border(track) for track in _TRACKS))
            while self._notices and self._notices[0][0] < end:
                items.append(self._notices.popleft()[1])
            items.append(self._segment(end))
            self._given = end
        for track, placer in self._placers.items():
            placer.give_up(limit)
            waiting = self._arrivals[track]
            while waiting and waiting[0][0] <= self._given:
                waiting.popleft()
        return items

    def _border(self, track: Track) -> int:
        """Return where a track next changes between audio and silence."""
        border = self._given
        for audio in self._audio[track]:
            if audio.start > border:
                return audio.start if border == self._given else border
            border = audio.end
        return border if border > self._given else 2**62

    def _segment(self, end: int) -> Item:
        """Return what is between what was given and `end`; no track changes in between."""
        output, start = self._output, self._given
        sides = [self._taken(track, end) for track in _TRACKS]
        if not any(sides):
            return output.silent("stereo", start, end - start, 2)
        silence = output.silence * ((end - start) // output.media.bytes_per_sample)
        left, right = (output.audio(side) if side else silence for side in sides)
        both = output.interleave(left, right)
        length_ms = output.milliseconds(end - start)
        return Item(both, "stereo", output.milliseconds(start), length_ms)

    def _taken(self, track: Track, end: int) -> bytes:
        """Take a track's audio up to `end`; none is silence."""
        audio, taken = self._audio[track], b""
        while audio and audio[0].start < end:
            first = audio.popleft()
            inside = end - first.start
            taken += first.payload[:inside]
            if first.end > end:
                audio.appendleft(Audio(end, first.payload[inside:]))
        return taken
