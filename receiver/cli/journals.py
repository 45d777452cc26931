"""`receiver recover` and `receiver render`: journals without a running receiver."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from receiver.cli.options import FILE, named_settings
from receiver.errors import ConfigurationError, UnreadableError
from receiver.media import ByteOrder, visible

if TYPE_CHECKING:
    from receiver.recording.outcomes import Outcome, Postponed


@click.command()
@named_settings("recordings", "spool", "byte_order", "stereo")
def recover(recordings: Path, spool: Path, byte_order: ByteOrder, *, stereo: bool) -> None:
    """Publish the journals that a receiver which is no longer running left in its spool."""
    if not spool.exists():
        click.echo("nothing to recover")
        return
    if not spool.is_dir():
        raise ConfigurationError(f"{spool} is not a folder: give the spool that holds the journals")
    from receiver.disk import folders
    from receiver.disk.folders import FolderLock
    from receiver.recording import publish
    from receiver.recording.outcomes import Published, RenderOptions

    os.umask(0o077)
    recovered = failed = 0
    with FolderLock(spool):
        folders.make_recordings_folder(recordings)
        for outcome in publish.recover(spool, recordings, RenderOptions(byte_order, stereo)):
            recovered += isinstance(outcome, Published)
            failed += _report(outcome)
    if failed:
        raise UnreadableError(f"{failed} journals could not be published")
    if not recovered:
        click.echo("nothing to recover")


def _report(outcome: Outcome | Postponed) -> bool:
    """Print the outcome of one journal; return whether it was a failure."""
    from receiver.recording.outcomes import Discarded, Empty, Postponed, Published

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
    from receiver.disk.files import open_folder
    from receiver.journal.backlog import open_whole
    from receiver.recording import render as renderer
    from receiver.recording.journal_scan import scan_file
    from receiver.recording.outcomes import RenderOptions

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
