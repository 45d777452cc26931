"""What is on disk, without a running receiver: recordings and journals.

`receiver list`, `show` and `verify` read recordings; `recover` and `render` make them of journals.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from receiver.catalogue.rows import Row
from receiver.cli import catalogue as search
from receiver.cli.options import FILE, config_of, named_settings
from receiver.config.settings import Config
from receiver.disk.files import open_folder
from receiver.disk.folders import FolderLock, make_recordings_folder
from receiver.errors import ConfigurationError, UnreadableError
from receiver.journal.backlog import open_whole
from receiver.lifecycle.delete import finish_alone
from receiver.lifecycle.ledger import enter_published
from receiver.media import ByteOrder, TrackGap, parameter_text, visible
from receiver.recording import store
from receiver.recording.annotations import Note
from receiver.recording.annotations import read as read_annotations
from receiver.recording.document import (
    Discarded,
    Empty,
    Level,
    Outcome,
    Postponed,
    Published,
    RecordedTrack,
    Recording,
    RenderOptions,
    has_hash,
    json_escape,
)
from receiver.recording.store import Damaged, Kept, RecordingFilter
from receiver.recording.verdict import verdict
from receiver.recording.verify import verify as problems_in

DAMAGED: Final = UnreadableError.exit_code
GAPS_SHOWN: Final = 10
"""Gaps listed of each track; all of them are in the JSON."""
SHORTEST_PARAMETERS: Final = 20
"""Columns that parameters get in the table however narrow the terminal is."""
_ROW: Final = "{:<16}  {:<20}  {:>9}  {:<8}  {:<36}  {:<8}  "
_HEADING: Final = ("ID", "STARTED", "DURATION", "TRACKS", "CALL", "COMPLETE")


@click.command("list")
@click.argument("words", nargs=-1, metavar="[WORD=VALUE]...")
@click.option("--json", "as_json", is_flag=True, help="print a JSON array of whole documents")
@click.option("--call-sid", help="only recordings of this call: call=SID")
@click.option(
    "--param",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="only recordings with this custom parameter; may be repeated, all must agree",
)
@click.option(
    "--since",
    callback=search.checked_time,
    metavar="WHEN",
    help="a date, an RFC 3339 time, or an age (2h, 3d)",
)
@click.option(
    "--state",
    type=click.Choice(("present", "missing")),
    help="state=present; missing: streams that were asked for and did not come",
)
@click.option("--disk", is_flag=True, help="read the folders, also where there is a catalogue")
@named_settings("recordings", "database_url")
def list_recordings(
    recordings: Path,
    database_url: str | None,
    words: tuple[str, ...],
    *,
    as_json: bool,
    disk: bool,
    state: str | None,
    **options: Any,
) -> None:
    """List recordings, newest first.

    Words narrow the list: from, to, call, stream, param.NAME, label, finding, track, complete,
    held, min_duration, max_duration, state, q, sort, limit. For example:

        receiver list param.queue=sales complete=no from=24h q='refund jane'

    Where there is a catalogue, it says which recordings there are; without one, only call,
    param.NAME and from can be asked for. `receiver catalogue rebuild` makes one.
    """
    pairs = [*search.pairs_of(words), *search.pairs_of_options(**options)]
    if state == "missing" or ("state", "missing") in pairs:
        from receiver.cli.notifications import print_missing

        print_missing(recordings, database_url, pairs, as_json=as_json)
        return
    pairs += [("state", state)] if state else []
    if ("state", "deleted") in pairs:
        _print_deleted(search.deleted(recordings, pairs), as_json=as_json)
        return
    found = _readable(search.select(recordings, database_url, pairs, disk=disk), recordings)
    if as_json:
        _print_array(found)
    else:
        _print_table(found)


def _print_deleted(found: Iterable[Row], *, as_json: bool) -> None:
    """Print what is left of recordings that were deleted."""
    if as_json:
        rows = [visible(msgspec.json.encode(row).decode(), json_escape) for row in found]
        _print_line("[" + ",\n".join(rows) + "]")
        return
    for row in found:
        started, call = f"{row.started_at[:19]}Z", visible(row.call_sid) or "-"
        _print_line(visible(f"{row.id:<16}  {started:<20}  {call:<36}  {row.verdict}"))


def _readable(entries: Iterable[Kept | Damaged], recordings: Path) -> Iterator[Kept]:
    """Yield the recordings; report on stderr what cannot be read, or that there is none."""
    is_empty = True
    for entry in entries:
        is_empty = False
        if isinstance(entry, Kept):
            yield entry
        else:
            _print_line(f"receiver: {entry.folder}: {visible(entry.problem)}", err=True)
    if is_empty:
        _print_line(f"receiver: no recordings found in {recordings}", err=True)


def _print_array(found: Iterable[Kept]) -> None:
    """Print one document after the other, so that memory does not grow with their number."""
    separator = "["
    for kept in found:
        document = {**json.loads(kept.document), "folder": str(kept.folder)}
        _print_line(f"{separator}{json.dumps(document)}", newline=False)
        separator = ",\n"
    _print_line("[]" if separator == "[" else "]")


def _print_table(found: Iterable[Kept]) -> None:
    width = shutil.get_terminal_size((sys.maxsize, 24)).columns  # no limit where it is none
    for number, kept in enumerate(found):
        if number == 0:
            _print_line(_ROW.format(*_HEADING) + "PARAMETERS")
        row = _row(kept.recording)
        left = max(width - len(row), SHORTEST_PARAMETERS)
        _print_line((row + _cut(_parameters(kept.recording), left)).rstrip())


def _row(document: Recording) -> str:
    tracks = [track.track.value for track in document.tracks] or ["none"]
    return _ROW.format(
        document.id,
        document.started_at[:19] + "Z",
        _duration(document.duration_ms),
        tracks[0] if len(tracks) == 1 else "both",
        visible(document.call_sid) or "-",
        _completeness(document),
    )


def _completeness(document: Recording) -> str:
    codes = ",".join(dict.fromkeys(visible(finding.code) for finding in document.findings))
    return "yes" if document.complete else codes or "no"


def _parameters(document: Recording) -> str:
    return " ".join(
        f"{visible(k)}={visible(parameter_text(v))}" for k, v in document.parameters.items()
    )


def _duration(duration_ms: float) -> str:
    minutes, rest = divmod(round(duration_ms / 10), 6000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest // 100:02}.{rest % 100:02}"
    return f"{hours}:{minutes:02}:{seconds}" if hours else f"{minutes}:{seconds}"


def _cut(line: str, width: int) -> str:
    """Shorten a line to `width` columns of a terminal, where some letters are two wide."""
    if len(line) * 2 <= width:
        return line
    used = end = 0
    for index, letter in enumerate(line):
        end = index if used < width else end  # one column is for the mark
        used += 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if used > width:
            return line[:end] + "…"
    return line


def _print_line(line: str, *, err: bool = False, newline: bool = True) -> None:
    """Print, escaping what the terminal's character set lacks."""
    stream = sys.stderr if err else sys.stdout
    charset = stream.encoding or "utf-8"
    shown = line.encode(charset, "backslashreplace").decode(charset)
    click.echo(shown, err=err, nl=newline)


@click.command()
@click.argument("recording_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="print recording.json as it is")
@config_of("recordings", "database_url")
def show(config: Config, recording_id: str, *, as_json: bool) -> None:
    """Show one recording. ID may be the first characters of an id, 4 at least."""
    recordings = config.recordings
    kept = store.read(search.find(recordings, config.database_url, recording_id))
    if as_json:
        click.echo(_shown(kept.document), nl=False)
        return
    for line in _page(kept, store.next_part(recordings, kept.recording)):
        _print_line(line)
    if config.retention:
        from receiver.lifecycle import expiry, retention

        folder = kept.folder.relative_to(recordings)
        rules, facts = retention.rules_of(config), expiry.facts_of(recordings, folder)
        if text := retention.kept_text(rules, facts):
            _print_line(f"{'kept':<12}{visible(text)}")


def _shown(document: bytes) -> bytes | str:
    """Return a document as it is; for a terminal with that escaped which it would obey."""
    if not _is_terminal():
        return document
    lines = document.decode("utf-8", "backslashreplace").split("\n")
    return "\n".join(visible(line, json_escape) for line in lines)


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _page(kept: Kept, following: Recording | None) -> Iterator[str]:
    document = kept.recording
    yield from _facts(document)
    for track in document.tracks:
        yield from _track_lines(track, kept.folder)
    if document.stereo:
        yield f"stereo      {kept.folder / visible(document.stereo.get('file', ''))}"
    for name, entry in (("peaks", document.peaks), ("timeline", document.timeline)):
        if entry:
            yield f"{name:<12}{kept.folder / visible(entry.get('file', ''))}"
    if document.refused:
        yield f"refused     {kept.folder / visible(document.refused.file)}"
        for part in document.refused.parts:
            what = f"{part.chunks} payloads, {part.size} bytes"
            yield f"  {visible(part.code)} {visible(part.label)}: {what}"
    yield from _other_parts(document, following)
    yield f"document    {kept.folder / 'recording.json'}"
    for title, lines in (
        ("findings", [_finding_line(document, index) for index in range(len(document.findings))]),
        (
            "parameters",
            [f"{visible(k)}: {visible(parameter_text(v))}" for k, v in document.parameters.items()],
        ),
        ("keys", [f"{_duration(p.at_ms)}  {visible(p.digit)}" for p in document.dtmf]),
        ("marks", [f"{_duration(m.at_ms)}  {visible(m.name)}" for m in document.marks]),
        *_annotations(kept.folder),
    ):
        if lines:
            yield title
            yield from (f"  {line}" for line in lines)


def _other_parts(document: Recording, following: Recording | None) -> Iterator[str]:
    """Yield in which recordings the stream began and goes on, if it does."""
    if document.previous:
        gap = _duration(document.previous.gap_ms)
        yield f"before      {visible(document.previous.id)}, {gap} between the two"
    if following and following.previous:
        gap = _duration(following.previous.gap_ms)
        yield f"behind      {visible(following.id)}, {gap} between the two"


def _annotations(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield what people have added to a recording: titles, each with its lines."""
    try:
        added = read_annotations(folder)
    except UnreadableError as error:
        _print_line(f"receiver: {visible(str(error))}", err=True)
        return
    yield "labels", [f"{visible(label.name)} ({visible(label.by)})" for label in added.labels]
    yield "notes", [_note_line(note) for note in added.notes]
    if added.hold is not None:
        yield "held", [visible(f"{added.hold.reason} ({added.hold.by}, {added.hold.at})")]


def _note_line(note: Note) -> str:
    where = "" if note.t_ms is None else f"  {_duration(note.t_ms)}"
    return f"{visible(note.id)}{where}  {visible(note.text)} ({visible(note.by)})"


def _facts(document: Recording) -> Iterator[str]:
    media = document.media_format
    order = f", {document.byte_order.value}-endian" if document.byte_order else ""
    for name, value in (
        ("recording", document.id),
        ("started", document.started_at),
        ("ended", f"{document.ended_at} ({document.end_reason.value})"),
        ("duration", _duration(document.duration_ms)),
        ("complete", "yes" if document.complete else "no, see findings"),
        ("verdict", verdict(document).text),
        ("provider", document.provider),
        ("account", document.account_sid),
        ("call", document.call_sid),
        ("stream", document.stream_sid),
        ("format", f"{media.encoding.value}, {media.sample_rate} Hz{order}"),
        ("clock", document.clock_rule.value),
    ):
        yield f"{name:<12}{visible(value)}".rstrip()


def _track_lines(track: RecordedTrack, folder: Path) -> Iterator[str]:
    ledger = track.chunks
    yield f"{track.track.value:<12}{folder / visible(track.file)}"
    faults = {name: getattr(ledger, name) for name in ("late", "duplicate", "conflict", "rejected")}
    counted = [f", {count} {name}" for name, count in faults.items() if count]
    yield f"  {ledger.received} chunks received, {ledger.written} written{''.join(counted)}"
    if track.level_dbfs is not None:
        yield f"  {_level(track.level_dbfs, track.silence_share or 0)}"
    if track.drift_ppm is not None:
        yield f"  the sender's clock is off by {track.drift_ppm:g} ppm"
    yield from _gap_lines(track)


def _level(level: Level, silence_share: float) -> str:
    """Return how loud a track is."""
    if level.rms is None:
        return "nothing but silence"
    peak = "" if level.peak is None else f", highest {level.peak:g} dBFS"
    return f"level {level.rms:g} dBFS{peak}, silent for {silence_share:.0%} of the time"


def _gap_lines(track: RecordedTrack) -> Iterator[str]:
    if not track.gaps:
        return
    kinds = Counter(gap.kind.value for gap in track.gaps)
    of_kinds = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    yield f"  {track.silence_ms:g} ms of silence in {len(track.gaps)} gaps: {of_kinds}"
    yield from (f"    {_gap_line(gap)}" for gap in track.gaps[:GAPS_SHOWN])
    if len(track.gaps) > GAPS_SHOWN:
        yield f"    and {len(track.gaps) - GAPS_SHOWN} more"


def _gap_line(gap: TrackGap) -> str:
    return f"{_duration(gap.start_ms)}  {gap.duration_ms:g} ms  {gap.kind.value}"


def _finding_line(document: Recording, index: int) -> str:
    finding = document.findings[index]
    where = f" ({finding.track.value})" if finding.track else ""
    return f"{visible(finding.code)}{where}: {visible(finding.detail)}"


@click.command()
@click.argument("recording_id", metavar="[ID]", required=False)
@named_settings("recordings", "database_url")
@click.pass_context
def verify(
    context: click.Context, recordings: Path, database_url: str | None, recording_id: str | None
) -> None:
    """Read recordings again: hashes, lengths, counts of chunks. Without ID, all of them.

    Ends with exit code 6 when anything is damaged.
    """
    damaged = 0
    for entry in _to_verify(recordings, database_url, recording_id):
        problems = _problems(entry)
        damaged += bool(problems)
        remark = "; ".join(problems) or _remark(entry)
        verdict = "damaged" if problems else "ok"
        _print_line("  ".join([entry.folder.name, verdict, remark]).rstrip())
    if damaged:
        context.exit(DAMAGED)


def _remark(entry: Kept | Damaged) -> str:
    """Return what could not be checked of a recording that is sound as far as it could."""
    if isinstance(entry, Damaged) or has_hash(entry.document):
        return ""
    return "recording.json is of an earlier version, without a hash of its own"


def _to_verify(
    recordings: Path, database_url: str | None, recording_id: str | None
) -> Iterator[Kept | Damaged]:
    if recording_id is None:
        entries = store.select(recordings, RecordingFilter())
        first = next(entries, None)
        if first is None:
            _print_line(f"receiver: no recordings found in {recordings}", err=True)
            return
        yield first
        yield from entries
        return
    folder = search.find(recordings, database_url, recording_id)
    try:
        yield store.read(folder)
    except UnreadableError as error:
        yield Damaged(folder, str(error))


def _problems(entry: Kept | Damaged) -> tuple[str, ...]:
    if isinstance(entry, Damaged):
        return (visible(entry.problem),)
    return tuple(visible(problem) for problem in problems_in(entry.folder, entry.recording))


@click.command()
@named_settings("recordings", "spool", "byte_order", "stereo")
def recover(recordings: Path, spool: Path, byte_order: ByteOrder, *, stereo: bool) -> None:
    """Publish the journals that a receiver which is no longer running left in its spool.

    What a crash left of erasing and deleting is finished, too.
    """
    if finished := finish_alone(recordings, spool):
        click.echo(f"finished {finished} that were being erased or deleted")
    if not spool.exists():
        click.echo("nothing to recover")
        return
    if not spool.is_dir():
        raise ConfigurationError(f"{spool} is not a folder: give the spool that holds the journals")
    from receiver.recording import publish  # here and below: numpy is slow to import

    os.umask(0o077)
    recovered = failed = 0
    with FolderLock(spool):
        make_recordings_folder(recordings)
        options, enter = RenderOptions(byte_order, stereo), partial(enter_published, recordings)
        for outcome in publish.recover(spool, recordings, options, enter):
            recovered += isinstance(outcome, Published)
            failed += _report(outcome)
    if failed:
        raise UnreadableError(f"not published: {failed}, see above")
    if not recovered and not finished:
        click.echo("nothing to recover")


def _report(outcome: Outcome | Postponed) -> bool:
    """Print the outcome of one journal; return whether it was a failure."""
    if isinstance(outcome, Published):
        click.echo(visible(f"published {outcome.folder}"))
        return outcome.quarantined is not None and _report(outcome.quarantined)
    if isinstance(outcome, Empty):
        click.echo(visible(f"removed {outcome.journal}: it was empty"), err=True)
        return False
    if isinstance(outcome, Discarded):
        click.echo(visible(f"removed {outcome.journal}: {outcome.reason}"), err=True)
        return False
    what = "left" if isinstance(outcome, Postponed) else "set aside"
    click.echo(visible(f"{what} {outcome.journal}: {outcome.reason}"), err=True)
    return True


@click.command()
@click.argument("journal", type=FILE)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="New folder for the result; default: the journal's name in this folder.",
)
@named_settings("byte_order", "stereo")
def render(journal: Path, output: Path | None, byte_order: ByteOrder, *, stereo: bool) -> None:
    """Turn one JOURNAL into WAV files and recording.json; the journal stays as it is."""
    from receiver.recording import render as renderer
    from receiver.recording.journal_scan import scan_file

    os.umask(0o077)
    folder = output or Path(journal.name).with_suffix("")
    with open_whole(journal) as file:
        scanned = scan_file(file)  # refuse what is no journal before a folder is made
        try:
            folder.mkdir(0o700)
        except OSError as error:
            raise ConfigurationError(f"cannot create folder {folder}: {error.strerror}") from error
        with open_folder(folder) as descriptor:
            renderer.render(file, scanned, descriptor, RenderOptions(byte_order, stereo))
    click.echo(str(folder))
