"""The verdict on a recording in plain sentences: who is missing, when, how much, and why.

Pages, the API and commands show the same words. A finding is made for programs; a person who
decides whether a recording can be relied on reads this. An example, of one document:

    Not complete. 320 ms of the caller are missing at 0:07.4: the packets never arrived. 2.1 s of
    both sides were paused on request at 0:12.2. Everything else that was sent is here.

"Caller" is the inbound track and "agent" the outbound one. What others wrote, such as the detail
of a finding, stands in a sentence as it is: whoever shows it on a terminal or in a page escapes
it there. Pure.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from receiver.media import Finding, GapKind, Track, TrackGap
from receiver.recording.document import Recording

SIDES: Final = {Track.INBOUND: "the caller", Track.OUTBOUND: "the agent"}
"""What a track is called before people."""
_PLACES_NAMED: Final = 3
"""Of so many gaps each is named; of more, the first, the last and the longest."""


class Tone(enum.StrEnum):
    """What a badge means, so that it can have a colour."""

    GOOD = "good"
    BAD = "bad"  # a listener misses something that was sent
    PAUSED = "paused"  # something is missing because somebody asked for it
    NEUTRAL = "neutral"


@dataclass(frozen=True, slots=True)
class Badge:
    """A verdict in two or three words, for a row in a list."""

    text: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class Sentence:
    """One fact about a recording; `codes` are the findings that it tells of."""

    text: str
    codes: tuple[str, ...] = ()
    is_loss: bool = False  # whether a listener misses something for it
    is_open: bool = False  # whether nobody can say how much
    is_asked: bool = False  # whether somebody asked that it be missing


@dataclass(frozen=True, slots=True)
class Verdict:
    """What there is to say of a recording, the losses first."""

    is_complete: bool
    sentences: tuple[Sentence, ...]

    @property
    def headline(self) -> str:
        """Return the verdict itself."""
        return "Complete" if self.is_complete else "Not complete"

    @property
    def text(self) -> str:
        """Return all of it as one line, without what leaves no loss."""
        told = [
            each.text for each in self.sentences if each.is_loss or each.is_asked or not each.codes
        ]
        return " ".join([f"{self.headline}.", *told])


def verdict(recording: Recording) -> Verdict:
    """Return the verdict on a recording."""
    found = [*_gap_sentences(recording), *_other_sentences(recording)]
    losses = [each for each in found if each.is_loss or each.is_asked]
    notes = [each for each in found if not (each.is_loss or each.is_asked)]
    closing = Sentence(_closing(losses) if recording.tracks else "No audio was recorded.")
    return Verdict(recording.complete, (*losses, closing, *notes))


def badges(
    codes: Collection[str], *, complete: bool, lost_ms: float, paused_ms: float
) -> tuple[Badge, ...]:
    """Return the verdict on a recording as a list of them shows it.

    Args:
        codes: of its findings.
        complete: whether a listener misses nothing.
        lost_ms: how much of the tracks is missing for any reason but a pause.
        paused_ms: how much was paused.
    """
    paused = [Badge(f"paused {duration(paused_ms)}", Tone.PAUSED)] if paused_ms > 0 else []
    losses = [_LOSSES[code].badge for code in codes if code in _LOSSES and code != _PAUSED]
    if complete:
        return (Badge("complete", Tone.GOOD), *paused)
    if lost_ms > 0:
        losses = [f"{duration(lost_ms)} lost"]
    if not losses and not paused:
        losses = ["not complete"]
    return (*(Badge(text, Tone.BAD) for text in losses[:1]), *paused)


def code_text(code: str) -> str:
    """Return a finding's code in two or three words."""
    return _LOSSES[code].badge if code in _LOSSES else code.replace("_", " ")


def is_loss(code: str) -> bool:
    """Whether a finding of this code means that a listener misses something."""
    return code in _LOSSES and code != _PAUSED


def lost_and_paused_ms(recording: Recording) -> tuple[float, float]:
    """Return how much of a recording is missing and how much was paused, of the worse track."""
    lost, paused = [0.0], [0.0]
    for track in recording.tracks:
        missed = [gap for gap in track.gaps if gap.kind in _GAPS]
        paused.append(sum(gap.duration_ms for gap in missed if gap.kind is GapKind.PAUSED))
        lost.append(sum(gap.duration_ms for gap in missed if gap.kind not in _ON_REQUEST))
    return max(lost), max(paused)


def duration(ms: float) -> str:
    """Return a length of time as people say it: `320 ms`, `1.2 s`, `2 min 5 s`, `1 h 3 min`."""
    if round(ms) < 1000:
        return f"{round(ms)} ms"
    if round(ms / 100) < 600:
        return f"{round(ms / 1000, 1):g} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    parts = (f"{hours} h", f"{minutes} min") if hours else (f"{minutes} min", f"{seconds} s")
    return " ".join(part for part in parts if not part.startswith("0 "))


def clock(ms: float) -> str:
    """Return a position in a recording to the tenth of a second: `0:07.4`, `1:02:03.0`."""
    minutes, tenths = divmod(int(ms / 100 + 1e-6), 600)  # never behind what it points at
    hours, minutes = divmod(minutes, 60)
    seconds = f"{tenths // 10:02}.{tenths % 10}"
    return f"{hours}:{minutes:02}:{seconds}" if hours else f"{minutes}:{seconds}"


@dataclass(frozen=True, slots=True)
class _Gap:
    """How the gaps of one kind are told: why they are, and what stands over the span."""

    why: str
    mark: str


_GAPS: Final = {
    GapKind.LOST: _Gap("the packets never arrived", "lost"),
    GapKind.REJECTED: _Gap("the packets came, but could not be used", "refused"),
    GapKind.DISK: _Gap("the receiver's disk took nothing", "disk full"),
    GapKind.PAUSED: _Gap("on request", "paused"),
    GapKind.CRASH: _Gap("the receiver was not running", "receiver down"),
    GapKind.ERASED: _Gap("on request", "erased"),
}
"""All kinds but the silence of a sender, of which a listener misses nothing."""
_ON_REQUEST: Final = {GapKind.PAUSED: "paused", GapKind.ERASED: "erased"}
"""What is missing because somebody asked for it, and what he did."""


def gap_text(gap: TrackGap, side: str) -> str:
    """Return what one gap is, for whoever points at it: a sentence without its full stop.

    Args:
        gap: any gap.
        side: whose it is, as in "the caller".
    """
    told, length = _GAPS.get(gap.kind), duration(gap.duration_ms)
    if told is None:
        return f"{length} in which {side} sent nothing"
    if gap.kind in _ON_REQUEST:
        return f"{length} of {side} {_ON_REQUEST[gap.kind]} on request"
    return f"{length} of {side} missing: {told.why}"


def gap_mark(kind: GapKind) -> str:
    """Return one or two words for a gap in a waveform."""
    return _GAPS[kind].mark if kind in _GAPS else "nothing sent"


def _gap_sentences(recording: Recording) -> Iterator[Sentence]:
    """Yield a sentence for the gaps of each kind; both sides share it where theirs are equal."""
    for kind in _GAPS:
        of_side = {
            SIDES[track.track]: [gap for gap in track.gaps if gap.kind is kind]
            for track in recording.tracks
        }
        first, *others = of_side.values() or [[]]
        if others and others == [first]:
            of_side = {"both sides": first}
        for side, gaps in of_side.items():
            if gaps:
                text = _gaps_text(kind, side, gaps)
                asked = kind is GapKind.PAUSED
                codes = (f"audio_{kind.value}",)
                yield Sentence(text, codes, is_loss=not asked, is_asked=asked)


def _gaps_text(kind: GapKind, side: str, gaps: Sequence[TrackGap]) -> str:
    total, places = duration(sum(gap.duration_ms for gap in gaps)), _places(gaps)
    if kind in _ON_REQUEST:
        return f"{total} of {side} were {_ON_REQUEST[kind]} on request {places}."
    return f"{total} of {side} are missing {places}: {_GAPS[kind].why}."


def _places(gaps: Sequence[TrackGap]) -> str:
    """Return where gaps are."""
    starts = [clock(gap.start_ms) for gap in gaps]
    if len(gaps) <= _PLACES_NAMED:
        return "at " + " and ".join(filter(None, [", ".join(starts[:-1]), starts[-1]]))
    longest = max(gaps, key=lambda gap: gap.duration_ms)
    return (
        f"in {len(gaps)} places from {starts[0]} to {starts[-1]}, the longest of "
        f"{duration(longest.duration_ms)} at {clock(longest.start_ms)}"
    )


@dataclass(frozen=True, slots=True)
class _Loss:
    """How a finding that leaves a loss is told, where no gap tells of it."""

    text: str
    badge: str
    is_open: bool = False


_PAUSED: Final = "audio_paused"
_LOSSES: Final = {
    "crashed": _Loss(
        "The receiver ended without warning during the call.", "receiver crashed", is_open=True
    ),
    "cut_short": _Loss("The recording was cut short: {detail}.", "cut short", is_open=True),
    "connection_lost": _Loss(
        "The connection broke before the call ended ({detail}).", "line broke", is_open=True
    ),
    "journal_damaged": _Loss(
        "What was written during the call is damaged: {detail}.", "damaged", is_open=True
    ),
    "ledger_mismatch": _Loss(
        "The packets of {side} do not add up ({detail}).", "does not add up", is_open=True
    ),
    "between_parts": _Loss("The call began in another recording: {detail}.", "part missing"),
    "audio_lost": _Loss("Of {side}, {detail}.", "packets lost"),
    "audio_rejected": _Loss("Of {side}, {detail}.", "packets refused"),
    "audio_disk": _Loss("Of {side}, {detail}.", "disk full"),
    _PAUSED: _Loss("Of {side}, {detail}: recording was paused on request.", "paused"),
    "audio_crash": _Loss("Of {side}, {detail}.", "receiver down"),
    "chunk_conflicts": _Loss(
        "Of {side}, {detail}: which is right cannot be known.", "packets in conflict"
    ),
    "start_missing": _Loss("The provider never said which call this is: {detail}.", "no start"),
    "start_assumed": _Loss("It is not certain whose audio this is: {detail}.", "no start"),
    "format_assumed": _Loss("The audio's format was partly guessed: {detail}.", "format guessed"),
    "format_refused": _Loss(
        "The audio's format cannot be decoded ({detail}); it is kept as it came.", "not decoded"
    ),
    "format_restated": _Loss("The audio may change its format: {detail}.", "two formats"),
    "streams_mixed": _Loss("Audio of another call may be in it: {detail}.", "calls mixed"),
}
"""By code: the findings of which a listener misses something."""
_NOTES: Final = {
    "byte_order_chosen": "The order of bytes was chosen by comparing both: {detail}.",
    "clock_rule": "The time line of {side} is not the sender's clock: {detail}.",
    "clock_reanchored": "The sender's clock for {side} was set anew: {detail}.",
    "clock_origin": "The sender's clock did not begin at zero: {detail}.",
    "counters_restarted": "The packet numbers of {side} began anew: {detail}.",
    "counters_unusable": "The packet numbers of {side} were of no use: {detail}.",
    "journal_rewritten": "The disk failed for a while, and all was written again: {detail}.",
    "track_silent": "There is nothing of {side}: {detail}.",
    "track_assumed": "The provider did not say whose audio this is: {detail}.",
    "audio_kept_aside": "Audio that could not be used is kept beside the recording: {detail}.",
    "parameters_not_kept": "The parameters were too many to keep: {detail}.",
    "messages_not_kept": "Some messages that are no audio were not kept: {detail}.",
    "unknown_events": "The provider sent messages of a kind that is not known: {detail}.",
    "start_restated": "The provider described the call twice: {detail}.",
    "messages_rejected": "Some messages could not be used: {detail}.",
    "timestamps_missing": "Timestamps of {side} are missing: {detail}.",
    "timestamps_overlap": "Audio of {side} came faster than its clock: {detail}.",
    "timestamps_absurd": "Timestamps of {side} made no sense: {detail}.",
}
"""By code: the findings of which a listener misses nothing."""
_CHUNKS: Final = re.compile(r"\bchunks\b")
_IN_GAPS: Final = re.compile(r"[\d.e+]+ ms in \d+ gaps")


def _other_sentences(recording: Recording) -> Iterator[Sentence]:
    shown = {
        (f"audio_{gap.kind.value}", track.track) for track in recording.tracks for gap in track.gaps
    }
    for finding in recording.findings:
        in_gaps = _IN_GAPS.fullmatch(finding.detail) is not None
        if not (in_gaps and (finding.code, finding.track) in shown):
            yield _sentence(finding, recording)


def _sentence(finding: Finding, recording: Recording) -> Sentence:
    loss = _LOSSES.get(finding.code)
    form = loss.text if loss else _NOTES.get(finding.code, "{detail} ({code}).")
    detail = _CHUNKS.sub("packets", finding.detail).rstrip(". ")
    side = SIDES[finding.track] if finding.track else "no known side"
    # What a later version finds is a loss where nothing that is known explains the verdict.
    is_asked = finding.code == _PAUSED
    is_loss = not is_asked and (
        loss is not None or not (finding.code in _NOTES or recording.complete)
    )
    text = form.format(detail=detail, side=side, code=finding.code)
    is_open = loss is not None and loss.is_open
    return Sentence(text, (finding.code,), is_loss=is_loss, is_open=is_open, is_asked=is_asked)


def _closing(losses: Sequence[Sentence]) -> str:
    """Return the last word on what is there."""
    if any(each.is_open for each in losses):
        return "Whether anything else is missing cannot be known."
    return f"Everything {'else ' if losses else ''}that was sent is here."
