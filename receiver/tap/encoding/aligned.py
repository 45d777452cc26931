"""Samples or payloads of one track, or of both as one, aligned by the stream's clock.

Goal: a listener's clock is the stream's. Every track drives that clock, also one that is not
sent: where it goes on and a track that is sent does not, silence is sent.

Each chunk goes through its track's jitter buffer, which puts chunks in order, and its placer,
which says where on the time line it belongs. What is placed waits in `_AlignedTrack.audio` until
both tracks have come that far, or have been waited for long enough. `LiveClock` says how long
that is: not for audio that is sent ahead of time, and longer where a track is always behind.

    inbound:   audio up to 100 ms
    outbound:  audio up to 60 ms, then nothing came for 60 ms
    sent:      0 to 60 ms of both at once; 60 to 100 ms with silence for outbound, when it is due
    notice:    a gap at 60 ms, once it is known to be one
    later:     outbound audio for 60 to 100 ms is late, and left out

`_sent_to` is where the listeners have come to. What is before it is never changed.
"""

from __future__ import annotations

import math
from bisect import insort_right
from collections import deque
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Final

from receiver.audio import codec
from receiver.media import ByteOrder, Chunk, Encoding, MediaFormat, Track
from receiver.tap.encoding.format import (
    LONGEST_CLOCK_MS,
    LONGEST_WAIT_MS,
    ORDER_WAIT_MS,
    Format,
    OutMessage,
    event_notices,
    gap_notice,
    reanchored_notice,
    sequence_number,
    start_ms,
    stopped_notice,
)
from receiver.tap.hub import (
    LiveChunk,
    LiveMessage,
    PrecedingChunk,
    StreamEnded,
    StreamEvent,
    StreamPosition,
    Subscribed,
)
from receiver.timeline.jitter_buffer import JitterBuffer, LiveLedger
from receiver.timeline.jumps import live_origin_ms
from receiver.timeline.live_clock import LiveClock
from receiver.timeline.live_placement import (
    JUDGED_AFTER_MS,
    AudioPiece,
    LivePlacer,
    Piece,
    ReanchorPiece,
    SilencePiece,
)

_WAIT_IN_THE_PAST_MS: Final = 1000
"""The order of the past is known: to wait there for what came later delays nobody."""
_TRACK_WAIT_IN_THE_PAST_MS: Final = 500
"""For the other track: in the recording, too, a clock that is behind by more had stopped."""
_FURTHEST_AHEAD_MS: Final = 30_000
"""A track that is further ahead, in the stream's time, waits no more, however fast it came."""
_NEVER: Final = -(2**31)
_PROBE_BYTES: Final = 32_000
_SILENCE: Final = {Encoding.PCMU: b"\xff", Encoding.PCMA: b"\xd5", Encoding.L16: b"\0\0"}


class SampleFormatter:
    """Samples or payloads: how encoded audio and silence are written."""

    def __init__(self, media: MediaFormat, shape: Format, byte_order: ByteOrder) -> None:
        self.media = media
        self.decodes = shape is Format.PCM16
        self.silence = b"\0\0" if self.decodes else _SILENCE[media.encoding]
        self._byte_order = byte_order
        self._probe = b"" if byte_order is ByteOrder.AUTO else None

    def audio(self, payload: bytes) -> bytes:
        """Return whole samples as they are sent."""
        if not self.decodes:
            return payload
        encoding = self.media.encoding
        if self._probe is not None and encoding is Encoding.L16:
            self._probe_byte_order(payload)
        order = ByteOrder.LITTLE if self._byte_order is ByteOrder.AUTO else self._byte_order
        return codec.decode(payload, encoding, byte_order=order).astype("<i2").tobytes()

    def _probe_byte_order(self, payload: bytes) -> None:
        """Choose the smoother byte order, until there was enough audio to be sure."""
        assert self._probe is not None  # noqa: S101  the caller looked
        self._probe += payload
        self._byte_order = codec.smoother_byte_order(self._probe)
        if len(self._probe) >= _PROBE_BYTES:
            self._probe = None

    def milliseconds(self, size: int) -> float:
        """Return a position or length in payload bytes as milliseconds."""
        return size / self.media.bytes_per_ms

    def starts_within(self, payload: bytes) -> bool:
        """Return whether a payload sounds as if it started with half a sample."""
        little = self._byte_order is not ByteOrder.BIG
        return codec.starts_within(payload, ByteOrder.LITTLE if little else ByteOrder.BIG)

    def silent(self, track: str, start: int, size: int, channels: int) -> OutMessage:
        """Return silence of `size` payload bytes."""
        return OutMessage(
            self.silence * channels,
            track,
            self.milliseconds(start),
            self.milliseconds(size),
            size // self.media.bytes_per_sample,
        )

    def interleave(self, left: bytes, right: bytes) -> bytes:
        """Return two tracks as one, sample by sample."""
        if len(self.silence) == 2:
            return codec.interleave(left, right)
        both = bytearray(2 * len(left))
        both[::2], both[1::2] = left, right
        return bytes(both)


class _AlignedTrack:
    """One track on its way to the listeners; positions are payload bytes from stream time 0."""

    def __init__(
        self,
        subscribed: Subscribed,
        output: SampleFormatter,
        start: float | None,
        name: Track,
        ledger: LiveLedger,
    ) -> None:
        self._media = output.media
        self.placer = _live_placer(subscribed, output, start)
        self._name, self._ledger, counter = name, ledger, ledger.counter
        self.order_wait_ms = ORDER_WAIT_MS if start is None else _WAIT_IN_THE_PAST_MS
        wait_ms = self.order_wait_ms
        self.buffer = JitterBuffer(output.media, wait_ms, from_the_first=not self.placer.cursor)
        self.placer.elsewhere = self.buffer.elsewhere = counter.elsewhere(name)
        self.placer.on_lost = lambda numbers: counter.add_lost(name, numbers)
        self.buffer.origin_ms = subscribed.position.origin_ms
        self.audio: deque[AudioPiece] = deque()  # placed, and not sent
        self.arrivals: deque[tuple[int, int]] = deque()  # up to which position, and when it came
        self.latest_ms = _NEVER  # when the latest chunk came
        self.latest_size = 0  # of that chunk

    @property
    def left_out(self) -> int:
        """Return how many chunks came too late, or twice."""
        return self.placer.left_out + self.buffer.duplicates

    def set_origin(self, origin_ms: int) -> None:
        """Set the timestamp at which stream time starts."""
        self.placer.set_origin(origin_ms)
        self.buffer.origin_ms = origin_ms

    def start_after(self, chunk: Chunk, arrival_ms: int) -> None:
        """Record what came just before: the next chunk shows what is missing in between."""
        self._ledger.start_after(chunk)
        self.placer.start_after(chunk, arrival_ms)
        self.buffer.start_after(chunk)

    def add_arrival(self, arrival_ms: int, sent_to: int) -> None:
        """Record up to where the track has come, and when."""
        arrivals, cursor = self.arrivals, self.placer.cursor
        if cursor <= sent_to:
            return
        while arrivals and arrivals[-1][1] > arrival_ms:
            arrivals.pop()  # it is due with what is behind it
        if not arrivals or arrivals[-1][0] < cursor:
            arrivals.append((cursor, arrival_ms))

    def fill_up_to(self, end_ms: float) -> None:
        """Make silence of what has not come before a position."""
        up_to = int(end_ms * self._media.bytes_per_ms)
        self.placer.fill_silence(up_to - up_to % self._media.bytes_per_sample)

    def fill_silence(self, position: int) -> Iterable[SilencePiece]:
        """Make silence of what has not come before a position; what is held is behind a loss."""
        missing = self._ledger.missing(self._name)
        return self.placer.fill_up_to(position, missing=missing, lost=bool(self.buffer))

    def last_pieces(self, arrival_ms: int) -> Iterator[Piece]:
        """Yield what follows at the end: what was behind, and what never came."""
        yield from self.placer.release_due(arrival_ms, last=True)
        missing = self._ledger.missing_at_end(self._name)
        end = self.placer.cursor + missing * self.latest_size
        end -= end % self._media.bytes_per_sample
        yield from self.placer.fill_up_to(end, missing=missing, lost=True)

    def latest_span(self, chunk: Chunk) -> tuple[float, float]:
        """Return where a chunk that was placed ends, and how long it is, in milliseconds."""
        one_ms = self._media.bytes_per_ms
        return self.placer.latest_end / one_ms, len(chunk.payload) / one_ms

    def ready_placer(self, clock: LiveClock, name: Track) -> LivePlacer:
        """Return the placer, which knows what the clock knows."""
        placer = self.placer
        placer.tolerated_ms = max(0, clock.longest_ms - clock.wait_ms)
        placer.level_ms = clock.level_of_others_ms(name)
        return placer

    def release_due(self, clock: LiveClock, name: Track, now_ms: int) -> list[tuple[Chunk, int]]:
        """Return what has waited long enough for a chunk before it.

        Of a shared counter, what is missing may be the other track's, and on its way.
        """
        if self._ledger.counter.is_shared:
            ahead_ms = int(min(clock.ahead_ms(name), clock.longest_ms))
            self.buffer.max_wait_ms = self.order_wait_ms + ahead_ms
        return self.buffer.release_due(now_ms)

    @property
    def order_due_ms(self) -> float:
        """Return when it is to be decided about chunks that are out of order, or behind."""
        since, behind = self.buffer.waiting_since_ms, self.placer.behind_since_ms
        due_ms = math.inf if since is None else since + self.buffer.max_wait_ms
        return due_ms if behind is None else min(due_ms, behind + JUDGED_AFTER_MS)

    def next_change(self, position: int, *, merge: bool) -> int:
        """Return where behind `position` the track next changes between audio and silence.

        Without `merge`, two chunks that follow each other are a change, too.
        """
        change = position
        for audio in self.audio:
            if audio.start > change:
                return audio.start if change == position else change
            change = audio.end
            if not merge:
                return change
        return change if change > position else 2**62

    def pop_audio(self, end: int) -> bytes:
        """Remove and return the audio up to `end`; nothing is silence."""
        audio, popped = self.audio, b""
        while audio and audio[0].start < end:
            first = audio.popleft()
            inside = end - first.start
            popped += first.payload[:inside]
            if first.end > end:
                audio.appendleft(AudioPiece(end, first.payload[inside:]))
        return popped


class AlignedEncoder:
    """One track, promptly; or both, inbound left, each waiting a moment for the other.

    Args:
        subscribed: where the stream stood.
        output: how samples are written.
        track: "inbound", "outbound" or "stereo".
        start: milliseconds on the stream's clock at which a replay starts; `None` at the present.
        longest_wait_ms: for the other track.
    """

    def __init__(
        self,
        subscribed: Subscribed,
        output: SampleFormatter,
        track: str,
        start: float | None,
        *,
        longest_wait_ms: int = LONGEST_WAIT_MS,
    ) -> None:
        self._output = output
        self._name = track
        self._least_wait_ms = 0 if start is None else _TRACK_WAIT_IN_THE_PAST_MS
        self._clock = LiveClock(Track, longest_wait_ms)
        self._ledger = ledger = LiveLedger(subscribed.position.chunks, subscribed.position.missing)
        # What a track lacks at its end is sent as what all tracks were given.
        self._tracks = {
            track: _AlignedTrack(subscribed, output, start, track, ledger) for track in Track
        }
        self._sent = {t: self._tracks[t] for t in Track if track in (t.value, "stereo")}
        self._alone = next(iter(self._sent.values())) if len(self._sent) == 1 else None
        self._notices: list[tuple[int, OutMessage]] = []  # in the order of their positions
        self._sent_to = self._tracks[Track.INBOUND].placer.cursor
        self._continues_ms = subscribed.live.continues_ms
        self._has_origin = subscribed.position.latest is not None  # where stream time starts
        if start is None:
            self._start_after(subscribed.position)

    @property
    def position_ms(self) -> float:
        """Return where a listener starts that subscribes now."""
        return self._output.milliseconds(self._sent_to)

    @property
    def left_out(self) -> int:
        """Return how many chunks came too late, or twice."""
        return sum(track.left_out for track in self._sent.values())

    @property
    def late_ms(self) -> float:
        """Return how much later than its place in the stream audio comes, since the start."""
        return self._clock.level_ms

    @property
    def due_ms(self) -> int | None:
        """Return when audio that is held back is due."""
        due_ms = min(track.order_due_ms for track in self._tracks.values())
        for track in self._tracks.values():
            if track.arrivals:
                due_ms = min(due_ms, max(self._due_ms(*track.arrivals[0]), self._silent_from_ms()))
        return None if due_ms == math.inf else math.ceil(due_ms)

    def feed(self, event: StreamEvent) -> list[OutMessage]:
        """Return what follows from an event."""
        if type(event) is LiveChunk:
            return self._feed_chunk(event.chunk, event.arrival_ms)
        if isinstance(event, LiveMessage):
            self._ledger.add(sequence_number(event))
            # As in the recording: what has no time of its own is behind the latest chunk.
            now = max(track.placer.cursor for track in self._tracks.values())
            for notice in event_notices(event, self._output.milliseconds(now)):
                self._add_notice(now, notice)
            return self._emit(self._limit(event.arrival_ms))
        if isinstance(event, StreamEnded):
            return self._end(event)
        if isinstance(event, PrecedingChunk):
            self._tracks[event.chunk.track].start_after(event.chunk, event.arrival_ms)
        return []

    def flush_due(self, now_ms: int) -> list[OutMessage]:
        """Return what has waited long enough."""
        self._release_due(now_ms)
        return self._emit(self._limit(now_ms))

    def reach_present(self) -> None:
        """Wait no longer than a live listener should."""
        self._least_wait_ms = 0
        for track in self._tracks.values():
            track.order_wait_ms = track.buffer.max_wait_ms = ORDER_WAIT_MS

    def _start_after(self, position: StreamPosition) -> None:
        for chunk in (*position.others, position.latest):
            if chunk is not None:
                self._tracks[chunk.track].start_after(chunk, position.arrival_ms)

    def _end(self, event: StreamEnded) -> list[OutMessage]:
        for name, track in self._tracks.items():
            self._place(name, track.buffer.release_all())
            self._add_pieces(name, track.last_pieces(event.arrival_ms))
        items = self._emit(max(track.placer.cursor for track in self._tracks.values()))
        for name, track in self._sent.items():
            self._add_pieces(name, track.placer.report_loss())
        self._emit_notices(items)
        return [*items, stopped_notice(event.reason, self.position_ms)]

    def _set_origin(self, first: Chunk, arrival_ms: int) -> None:
        """Start stream time where the first chunk of the stream says."""
        self._has_origin = True
        for track in self._tracks.values():
            track.set_origin(live_origin_ms(first, arrival_ms, self._continues_ms))

    def _feed_chunk(self, chunk: Chunk, arrival_ms: int) -> list[OutMessage]:
        if not self._has_origin:
            self._set_origin(chunk, arrival_ms)
        self._ledger.add_chunk(chunk)
        self._release_due(arrival_ms)
        track = self._tracks[chunk.track]
        track.latest_ms, track.latest_size = arrival_ms, len(chunk.payload)
        self._place(chunk.track, track.buffer.feed(chunk, arrival_ms))
        alone = self._alone
        if alone is None or self._notices:
            return self._emit(self._limit(arrival_ms))
        # Nearly always a single track is in order, and the other one changes nothing.
        if alone is track and len(track.audio) == 1 and track.audio[0].start == self._sent_to:
            return [self._pop_only_piece(track)]
        if track is not alone and arrival_ms < self._silent_from_ms():
            return []
        return self._emit(self._limit(arrival_ms))

    def _pop_only_piece(self, track: _AlignedTrack) -> OutMessage:
        """Return the only audio there is, which belongs where the listeners have come to."""
        start, audio = self._sent_to, track.audio.popleft()
        self._sent_to = audio.end
        self._forget_arrivals()
        output = self._output
        length_ms = output.milliseconds(len(audio.payload))
        return OutMessage(
            output.audio(audio.payload), self._name, output.milliseconds(start), length_ms
        )

    def _release_due(self, now_ms: int) -> None:
        """Place what has waited long enough for a chunk of its own track."""
        for name, track in self._tracks.items():
            if track.buffer:
                self._place(name, track.release_due(self._clock, name, now_ms))
            if track.placer.behind_since_ms is not None:
                self._add_pieces(name, self._ready_placer(name, now_ms).release_due(now_ms))
                track.add_arrival(now_ms, self._sent_to)

    def _place(self, name: Track, chunks: Iterable[tuple[Chunk, int]]) -> None:
        track, clock = self._tracks[name], self._clock
        for chunk, arrival_ms in chunks:
            self._add_pieces(name, self._ready_placer(name, arrival_ms).feed(chunk, arrival_ms))
            clock.observe(name, *track.latest_span(chunk), arrival_ms, chunk.timestamp_ms)
            for other in self._tracks.values():
                track.placer.share_unit(other.placer)
            track.add_arrival(arrival_ms, self._sent_to)

    def _ready_placer(self, name: Track, arrival_ms: int) -> LivePlacer:
        """Return a track's placer, which knows what the clock knows."""
        track = self._tracks[name]
        if name not in self._sent:  # as for those who listen to both: its clock may have stopped
            track.fill_up_to(self._clock.due_end_ms(name, arrival_ms, self._wait_ms))
        return track.ready_placer(self._clock, name)

    def _add_pieces(self, name: Track, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            if isinstance(piece, ReanchorPiece):
                self._clock.restart(name, self._tracks[name].latest_ms)
            if name in self._sent:
                self._add_piece(name, piece)

    def _add_piece(self, name: Track, piece: Piece) -> None:
        if isinstance(piece, AudioPiece):
            self._tracks[name].audio.append(piece)
        else:
            self._add_notice(piece.start, OutMessage(_notice(self._output, name.value, piece)))

    def _add_notice(self, position: int, notice: OutMessage) -> None:
        position -= position % self._output.media.bytes_per_sample  # what is lost may end within
        insort_right(self._notices, (position, notice), key=itemgetter(0))

    @property
    def _wait_ms(self) -> int:
        """Return how long one track is waited for."""
        return max(self._clock.wait_ms, self._least_wait_ms)

    def _due_ms(self, end: int, arrival_ms: int) -> float:
        """Return when audio is due that ends at a byte, and whose counterpart does not come."""
        due_ms = self._clock.due_ms(end / self._output.media.bytes_per_ms, arrival_ms)
        return due_ms - self._clock.wait_ms + self._wait_ms

    def _silent_from_ms(self) -> float:
        """Return from when on a listener may be sent silence for what has not come.

        A single track that keeps coming is not silent, however far the other is ahead: its next
        chunk comes when the latest one has been played.
        """
        alone = self._alone
        if alone is None:
            return _NEVER
        played_ms = alone.latest_ms + alone.latest_size // self._output.media.bytes_per_ms
        return played_ms + self._wait_ms

    def _limit(self, now_ms: int) -> int:
        """Return up to where the tracks are there, or have been waited for long enough."""
        cursors = [track.placer.cursor for track in self._sent.values()]
        ahead = _FURTHEST_AHEAD_MS * self._output.media.bytes_per_ms
        limit = max(min(cursors), max(cursors) - ahead)
        if now_ms < self._silent_from_ms():
            return limit
        for track in self._tracks.values():
            for end, arrival_ms in track.arrivals:
                if now_ms < self._due_ms(end, arrival_ms):
                    break
                limit = max(limit, end)
        return limit

    def _emit(self, limit: int) -> list[OutMessage]:
        """Return everything up to `limit`, cut where audio, silence or a notice starts."""
        limit -= limit % self._output.media.bytes_per_sample
        self._fill_silence(limit)
        items: list[OutMessage] = []
        merge = self._alone is None
        while self._sent_to < limit:
            self._emit_notices(items)
            changes = [t.next_change(self._sent_to, merge=merge) for t in self._sent.values()]
            notices = [self._notices[0][0]] if self._notices else []
            end = min(limit, *changes, *notices)
            items.append(self._segment(end))
            self._sent_to = end
        self._emit_notices(items)
        self._forget_arrivals()
        return items

    def _forget_arrivals(self) -> None:
        for track in self._tracks.values():
            while track.arrivals and track.arrivals[0][0] <= self._sent_to:
                track.arrivals.popleft()

    def _emit_notices(self, items: list[OutMessage]) -> None:
        """Append the notices that belong where the listeners have come to."""
        while self._notices and self._notices[0][0] <= self._sent_to:
            items.append(self._notices.pop(0)[1])

    def _fill_silence(self, limit: int) -> None:
        """Make silence of what is not there up to `limit`; what is held behind it may follow."""
        for name, track in self._sent.items():
            while track.buffer and track.placer.position_of(track.buffer.first) < limit:
                self._place(name, track.buffer.release_first_run())
            self._add_pieces(name, track.fill_silence(limit))

    def _segment(self, end: int) -> OutMessage:
        """Return what is between `_sent_to` and `end`, where no track changes in between."""
        output, start = self._output, self._sent_to
        tracks = [track.pop_audio(end) for track in self._sent.values()]
        if not any(tracks):
            return output.silent(self._name, start, end - start, len(tracks))
        silence = output.silence * ((end - start) // output.media.bytes_per_sample)
        written = [output.audio(track) if track else silence for track in tracks]
        both = output.interleave(*written) if len(written) > 1 else written[0]
        length_ms = output.milliseconds(end - start)
        return OutMessage(both, self._name, output.milliseconds(start), length_ms)


def _live_placer(
    subscribed: Subscribed, output: SampleFormatter, start: float | None
) -> LivePlacer:
    """Return a placer that starts at `start` milliseconds, or where the stream stands now."""
    position, media = subscribed.position, output.media
    at_ms = start_ms(subscribed) if start is None else start
    place = int(at_ms * media.bytes_per_ms) // media.bytes_per_sample * media.bytes_per_sample
    arrival_ms = position.arrival_ms if start is None else 0
    placer = LivePlacer(
        media, begin=place, arrival_ms=arrival_ms, starts_within=output.starts_within
    )
    placer.set_origin(position.origin_ms, position.ticks_per_ms)
    latest = position.latest
    stamp = latest.timestamp_ms if latest else None
    if latest and stamp is not None and not 0 <= position.stream_ms(stamp) < LONGEST_CLOCK_MS:
        placer.follow_clock(latest)
    return placer


def _notice(output: SampleFormatter, track: str, piece: SilencePiece | ReanchorPiece) -> str:
    """Return the notice of a gap in whose place silence is sent, or of a clock that is off."""
    if isinstance(piece, ReanchorPiece):
        at_ms, moved_ms = output.milliseconds(piece.start), output.milliseconds(piece.moved)
        return reanchored_notice(track, at_ms, moved_ms)
    start, length = piece.gap_start, piece.end - piece.gap_start
    return gap_notice(piece.reason, track, output.milliseconds(start), output.milliseconds(length))
