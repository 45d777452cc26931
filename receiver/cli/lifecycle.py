"""What people do with recordings (`label`, `note`, `hold`, `erase`, …), and `receiver ledger`."""

from __future__ import annotations

import itertools
import os
import pwd
import re
import socket
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from receiver.cli import catalogue as search
from receiver.cli.options import FILE, config_of, need_extra, recordings_folder
from receiver.config.settings import Config
from receiver.disk import layout
from receiver.disk.files import open_regular
from receiver.errors import ConfigurationError, NotFoundError, TapreelError, UnreadableError
from receiver.lifecycle.acts import Acts
from receiver.lifecycle.delete import Remover
from receiver.lifecycle.ledger import Entry, EntryFilter, Head, Ledger, parse_head
from receiver.media import Track, parameter_text, visible
from receiver.recording import store
from receiver.recording.document import json_escape
from receiver.recording.store import Damaged, Kept

if TYPE_CHECKING:
    from receiver.lifecycle.expiry import Plan

_POSITION: Final = re.compile(r"(?:(?:([0-9]{1,3}):)?([0-9]{1,2}):)?([0-9]{1,7}(?:\.[0-9]{1,3})?)")
_VIA: Final = "command"
_TRACKS: Final = [track.value for track in Track]
_ENTRY: Final = "{:>7}  {:<20}  {:<14}  {:<20}  {:<16}  {}"
_HEADING: Final = ("N", "AT", "WHAT", "WHO (VIA)", "RECORDING", "DETAILS")


class _Position(click.ParamType[int]):
    """A position in a recording: seconds, or minutes and hours before them; milliseconds then."""

    name = "position"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the milliseconds that a text means."""
        found = _POSITION.fullmatch(value)
        if found is None:
            self.fail("give seconds as in 73.2, or 1:13.2, or 1:02:13", param, ctx)
        hours, minutes, seconds = int(found[1] or 0), int(found[2] or 0), float(found[3])
        return round((hours * 3600 + minutes * 60 + seconds) * 1000)


def account() -> str:
    """Return the name of the system's account that calls."""
    user = os.getuid()
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:  # as in containers
        return str(user)


def _acts(recordings: Path, recording_id: str) -> tuple[Acts, Path]:
    """Return what the caller can do, and the folder of the recording with that id."""
    folder = store.find(recordings, recording_id)
    return Acts(recordings, who=account(), via=_VIA), folder


@click.command()
@click.argument("recording_id", metavar="ID")
@click.argument("name")
@click.option("--remove", is_flag=True, help="take this label off instead")
@recordings_folder
def label(recordings: Path, recording_id: str, name: str, *, remove: bool) -> None:
    """Put the label NAME on a recording. ID may be the first characters of an id, 4 at least."""
    acts, folder = _acts(recordings, recording_id)
    changed = acts.remove_label(folder, name) if remove else acts.add_label(folder, name)
    click.echo(visible("labels: " + (", ".join(each.name for each in changed.labels) or "none")))


@click.command()
@click.argument("recording_id", metavar="ID")
@click.argument("text", required=False)
@click.option(
    "--at", "t_ms", type=_Position(), metavar="S", help="position: seconds, M:SS or H:MM:SS"
)
@click.option("--remove", "removed", metavar="NOTE", help="remove the note with this id instead")
@recordings_folder
def note(
    recordings: Path, recording_id: str, text: str | None, t_ms: int | None, removed: str | None
) -> None:
    """Write the note TEXT about a recording, or with --at about one position of it.

    ID may be the first characters of an id, 4 at least.
    """
    if (text is None) == (removed is None):
        raise click.UsageError("give TEXT, or --remove NOTE")
    acts, folder = _acts(recordings, recording_id)
    if removed is not None:
        acts.remove_note(folder, removed)
        click.echo(visible(f"removed note {removed}"))
    elif text is not None:
        click.echo(f"note {acts.add_note(folder, text, t_ms=t_ms).id}")


@click.command()
@click.argument("recording_id", metavar="ID")
@click.option("--reason", required=True, metavar="TEXT", help="why it must be kept")
@recordings_folder
def hold(recordings: Path, recording_id: str, *, reason: str) -> None:
    """Keep a recording from being deleted or erased. ID may be the first characters of an id."""
    acts, folder = _acts(recordings, recording_id)
    held = acts.hold(folder, reason).hold
    click.echo(visible(f"held: {held.reason if held else ''}"))


@click.command()
@click.argument("recording_id", metavar="ID")
@recordings_folder
def release(recordings: Path, recording_id: str) -> None:
    """End the hold of a recording. ID may be the first characters of an id, 4 at least."""
    acts, folder = _acts(recordings, recording_id)
    acts.release(folder)
    click.echo("released")


def _remover(config: Config) -> Remover:
    return Remover(config.recordings, config.spool, who=account(), via=_VIA)


@click.command()
@click.argument("recording_id", metavar="ID")
@click.option(
    "--from", "from_ms", type=_Position(), required=True, metavar="S", help="where it begins"
)
@click.option("--to", "to_ms", type=_Position(), required=True, metavar="S", help="where it ends")
@click.option(
    "--track", "tracks", multiple=True, type=click.Choice(_TRACKS), help="only this track"
)
@click.option("--reason", required=True, metavar="TEXT", help="why; it stays in the ledger")
@config_of("recordings", "spool")
def erase(
    config: Config,
    recording_id: str,
    *,
    from_ms: int,
    to_ms: int,
    tracks: tuple[str, ...],
    reason: str,
) -> None:
    """Replace a span of a recording by silence, for ever.

    Positions are seconds, M:SS or H:MM:SS. Keys that the caller pressed in the span go with the
    inbound track, marks with the outbound one. What is held is left as it is.
    """
    from receiver.lifecycle.erase import (
        erase as erase_span,
    )  # numpy: not for delete, nor for --help

    folder = store.find(config.recordings, recording_id)
    chosen = [Track(track) for track in tracks]
    done = erase_span(_remover(config), folder, from_ms, to_ms, reason, tracks=chosen)
    sides = " and ".join(track.value for track in done.tracks)
    span = f"from {(done.from_ms or 0) / 1000:g} s to {(done.to_ms or 0) / 1000:g} s"
    click.echo(visible(f"erased {sides} {span} of {done.id}"))


@click.command()
@click.argument("recording_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--reason", required=True, metavar="TEXT", help="why; it stays in the ledger")
@config_of("recordings", "spool")
@click.pass_context
def delete(
    context: click.Context, config: Config, recording_ids: tuple[str, ...], *, reason: str
) -> None:
    """Delete recordings, for ever. What is held is left as it is.

    A tombstone stays of each: ids, hashes, who, when and why. Where one cannot be deleted, the
    others are all the same.
    """
    find = partial(store.find, config.recordings)
    _delete_all(context, config, [partial(find, each) for each in recording_ids], reason)


def _delete_all(
    context: click.Context, config: Config, wanted: Iterable[Callable[[], Path]], reason: str
) -> None:
    """Delete what is found; end with the exit code of the first error, if there is one."""
    remover, failed = _remover(config), 0
    for find in wanted:
        try:
            done = remover.delete(find(), reason)
        except TapreelError as error:
            failed = failed or error.exit_code
            click.echo("receiver: " + visible(str(error)), err=True)
        else:
            click.echo(f"deleted {done.id}")
    if failed:
        context.exit(failed)


@click.command()
@click.argument("act", type=click.Choice(["run"]), required=False, metavar="[run]")
@click.option("--dry-run", is_flag=True, help="print what would be deleted, and why")
@click.option(
    "--max-share", type=click.IntRange(0, 100), help="percent that may be deleted, this time"
)
@config_of("recordings", "spool", "database_url")
def retention(config: Config, act: str | None, *, dry_run: bool, max_share: int | None) -> None:
    """Delete recordings that are kept no longer, as [[retention]] in the settings says.

    A console does so once an hour by itself. What is held stays, and what somebody heard within
    the last hour, and all that is younger than a day.
    """
    if bool(act) == dry_run:
        raise click.UsageError("give --dry-run, or run")
    need_extra("catalogue")
    from receiver.catalogue.catalogue import Catalogue
    from receiver.lifecycle.expiry import Retention

    with Catalogue(config.database_url, config.recordings) as catalogue:
        if not catalogue.is_reconciled():
            catalogue.reconcile()
        kept = Retention(config, catalogue, who=account())
        if not kept.is_asked_for:
            click.echo("receiver: no setting asks for anything to be deleted", err=True)
            return
        if dry_run:
            _print_plan(kept.plan())
            return
        outcome = kept.run(max_share=max_share)
    left = outcome.kept + outcome.failed
    click.echo(f"deleted {outcome.deleted} recordings; {left} stayed for now")


def _print_plan(plan: Plan) -> None:
    """Print what would be deleted, one recording in each line, the oldest first."""
    for state, found in (("", plan.expired), ("in use: ", plan.in_use)):
        for each in found:
            click.echo(visible(f"{each.facts.id}  {each.facts.folder}  {state}{each.rule}"))
    if plan.wanting:
        text = f"{plan.wanting} bytes cannot be freed: holds and rules protect the rest"
        click.echo(f"receiver: {text}", err=True)
    click.echo(f"{len(plan.expired)} of {plan.total} recordings would be deleted")


@click.group()
def subject() -> None:
    """All recordings of one person: hand them over, or delete them."""


def _of_person(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--param`, and the settings that finding recordings needs."""
    option = click.option(
        "--param",
        "parameters",
        multiple=True,
        required=True,
        metavar="NAME=VALUE",
        help="who it is, such as caller=+4930…; may be repeated, all must agree",
    )
    return config_of("recordings", "spool", "database_url")(option(function))


def _found(config: Config, parameters: tuple[str, ...]) -> list[Kept]:
    """Return the recordings of a person.

    Raises:
        click.UsageError: a parameter has no value, or it is not known which one is meant.
        NotFoundError: there is none.
        UnreadableError: a folder cannot be read, so nobody knows whose it is.
    """
    pairs = search.pairs_of_options(call_sid=None, parameters=parameters, since=None)
    if any(not value.strip() for _, value in pairs):
        raise click.BadParameter("it must be NAME=VALUE", param_hint="'--param'")
    entries = list(search.select(config.recordings, config.database_url, pairs, disk=False))
    if damaged := [entry for entry in entries if isinstance(entry, Damaged)]:
        first = damaged[0]
        raise UnreadableError(
            f"{len(damaged)} folders cannot be read, so nobody knows whose they are; "
            f"the first is {first.folder}: {first.problem}"
        )
    found = [entry for entry in entries if isinstance(entry, Kept)]
    if not found:
        raise NotFoundError(f"no recordings with {' '.join(parameters)} in {config.recordings}")
    return found


@subject.command()
@click.option("--to", "target", required=True, type=FILE, metavar="DIR|ZIP", help="where to")
@_of_person
@click.pass_context
def export(
    context: click.Context, config: Config, target: Path, *, parameters: tuple[str, ...]
) -> None:
    """Write all recordings of a person into a new folder, or a zip file.

    It has a page that plays everything without a server, a manifest with hashes, and a vCon
    document of each call. Ends with exit code 6 where a file does not agree with its document.
    """
    from receiver.lifecycle import subject as copies

    done = copies.export(
        _found(config, parameters),
        target,
        recordings=config.recordings,
        parameters=dict(search.pairs_of(parameters)),
        who=account(),
        now_ms=time.time_ns() // 1_000_000,
    )
    click.echo(visible(f"{done.recordings} recordings, {done.size} bytes in {target}"))
    for problem in done.problems:
        click.echo("receiver: " + visible(problem), err=True)
    if done.problems:
        context.exit(UnreadableError.exit_code)


@subject.command("delete")
@click.option("--reason", required=True, metavar="TEXT", help="why; it stays in the ledger")
@click.option("--dry-run", is_flag=True, help="print what would be deleted")
@_of_person
@click.pass_context
def delete_subject(
    context: click.Context,
    config: Config,
    *,
    parameters: tuple[str, ...],
    reason: str,
    dry_run: bool,
) -> None:
    """Delete all recordings of a person. What is held stays, and is named."""
    folders = [kept.folder for kept in _found(config, parameters)]
    if dry_run:
        click.echo("\n".join(layout.recording_id_of(folder) or "" for folder in folders))
    else:
        _delete_all(context, config, [partial(Path, folder) for folder in folders], reason)


@click.group()
def ledger() -> None:
    """What was done with recordings, by whom and when."""


def _head(context: click.Context, option: click.Parameter, given: str | None) -> Head | None:
    try:
        return None if given is None else parse_head(given)
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from None


@ledger.command()
@click.option(
    "--head", "known", callback=_head, metavar="N:HASH", help="a head that was kept elsewhere"
)
@click.option("--checkpoint", "note", type=FILE, metavar="FILE", help="a checkpoint that was kept")
@click.option("--key", metavar="KEY", help="the key that signed it, as `checkpoint --key` shows it")
@recordings_folder
@click.pass_context
def verify(
    context: click.Context,
    recordings: Path,
    *,
    known: Head | None,
    note: Path | None,
    key: str | None,
) -> None:
    """Check that no entry was changed, left out, put in or moved.

    Prints the head, which is worth keeping elsewhere: with it, another time, --head shows whether
    somebody made the whole ledger anew. So does --checkpoint with one that was signed. Ends with
    exit code 6 when something is wrong.
    """
    if (note is None) != (key is None) or (note is not None and known is not None):
        raise click.UsageError("give --head, or --checkpoint and --key, or neither")
    if note is not None and key is not None:
        known = _kept_head(note, key)
    found = Ledger(recordings).verify(known)
    for line in (*found.problems, *(f"remark: {remark}" for remark in found.remarks)):
        click.echo(visible(line))
    verdict = "damaged" if found.problems else "ok"
    click.echo(f"{verdict}: {found.entries} entries, head {found.head}")
    if found.problems:
        context.exit(UnreadableError.exit_code)


def _kept_head(note: Path, key: str) -> Head:
    """Return the head that a checkpoint in a file is of."""
    from receiver.lifecycle.checkpoint import LONGEST, VerifierKey, head_of

    try:
        verifier = VerifierKey.parse(key)
    except ValueError as error:
        raise click.UsageError(f"--key: {error}") from None
    try:
        with open_regular(note, follow_links=True) as file:
            text = file.read(LONGEST).decode("utf-8", "replace")
    except OSError as error:
        raise ConfigurationError(f"{note} cannot be read: {error.strerror}") from error
    try:
        return head_of(text, verifier)
    except UnreadableError as error:
        raise UnreadableError(f"{note}: {error}") from None


@ledger.command("checkpoint")
@click.option(
    "--origin",
    default=f"{socket.gethostname()}/tapreel",
    metavar="NAME",
    help="whose ledger it is; default: this host's name",
)
@click.option("--key", "show_key", is_flag=True, help="print the public key instead")
@config_of("recordings", "ledger_key_file")
def checkpoint_head(config: Config, *, origin: str, show_key: bool) -> None:
    """Print the head, signed, for somebody outside to keep: a C2SP checkpoint.

    `receiver ledger verify --checkpoint FILE --key KEY` compares it with the ledger, another time.
    """
    from receiver.auth.credentials import read_secret
    from receiver.lifecycle.checkpoint import checkpoint, signer_of

    file = config.ledger_key_file
    if file is None:
        raise ConfigurationError("no key signs: give --ledger-key-file FILE")
    signer = signer_of(file, read_secret(file), origin)
    if show_key:
        click.echo(str(signer.verifier))
    else:
        head = Ledger(config.recordings).head()
        click.echo(checkpoint(head, signer), nl=False)


def _since(context: click.Context, option: click.Parameter, given: str | None) -> str:
    try:
        since = None if given is None else store.parse_since(given, datetime.now(UTC))
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from None
    return "" if since is None else store.rfc3339(since)


@ledger.command("show")
@click.argument("recording_id", metavar="[ID]", required=False)
@click.option("--who", default="", help="only what this user, token or account did")
@click.option("--what", multiple=True, metavar="WORD", help="only this; may be repeated")
@click.option(
    "--since", callback=_since, metavar="WHEN", help="a date, an RFC 3339 time, or an age (2h, 3d)"
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="entries to show at most",
)
@click.option("--json", "as_json", is_flag=True, help="print a JSON array of entries")
@recordings_folder
def show_ledger(
    recordings: Path,
    recording_id: str | None,
    *,
    who: str,
    what: tuple[str, ...],
    since: str,
    limit: int,
    as_json: bool,
) -> None:
    """Show the newest entries, of one recording or of all. ID may be the beginning of an id."""
    wanted = EntryFilter(_full_id(recordings, recording_id), who, frozenset(what), since)
    found = list(itertools.islice(Ledger(recordings).read(wanted), limit + 1))
    if as_json:
        lines = (
            visible(msgspec.json.encode(e, order="sorted").decode(), json_escape)
            for e in found[:limit]
        )
        click.echo("[" + ",\n".join(lines) + "]")
    elif found:
        for line in (_ENTRY.format(*_HEADING), *map(_entry_line, found[:limit])):
            click.echo(line)
    else:
        click.echo(f"receiver: no such entries in the ledger of {recordings}", err=True)
    if len(found) > limit:
        click.echo(f"receiver: there are older ones: --limit shows more than {limit}", err=True)


def _full_id(recordings: Path, recording_id: str | None) -> str:
    """Return the whole id; one given whole may be of a recording that is not there any more."""
    if recording_id is None or layout.RECORDING_ID.fullmatch(recording_id):
        return recording_id or ""
    return layout.recording_id_of(store.find(recordings, recording_id)) or ""


def _entry_line(entry: Entry) -> str:
    details = " ".join(f"{name}={parameter_text(value)}" for name, value in entry.details.items())
    who = f"{entry.who} ({entry.via})"
    line = _ENTRY.format(
        entry.n, f"{entry.at[:19]}Z", entry.what, who, entry.recording or "-", details
    )
    return visible(line.rstrip())
