"""`receiver recover` and `receiver render`: journals without a running receiver."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from receiver.cli.options import named_settings
from receiver.errors import ConfigurationError, UnreadableError
from receiver.media import ByteOrder

if TYPE_CHECKING:
    from receiver.publish import Postponed, Quarantined


@click.command()
@named_settings("recordings", "spool", "byte_order", "stereo")
def recover(recordings: Path, spool: Path, byte_order: ByteOrder, *, stereo: bool) -> None:
    """Publish what a receiver that is no longer running left in its spool."""
    if not spool.is_dir():
        click.echo("nothing to recover")
        return
    from receiver import publish
    from receiver.folders import FolderLock
    from receiver.render import RenderOptions

    os.umask(0o077)
    recovered = troubled = 0
    with FolderLock(spool):
        for outcome in publish.recover(spool, recordings, RenderOptions(byte_order, stereo)):
            trouble: Quarantined | Postponed | None
            if isinstance(outcome, publish.Published):
                recovered += 1
                click.echo(f"published {outcome.folder}")
                trouble = outcome.set_aside
            else:
                trouble = outcome
            if trouble is not None:
                troubled += 1
                click.echo(_told(trouble), err=True)
    if troubled:
        raise UnreadableError(f"{troubled} journals could not be used up")
    if not recovered:
        click.echo("nothing to recover")


def _told(trouble: Quarantined | Postponed) -> str:
    from receiver.publish import Postponed

    what = "left" if isinstance(trouble, Postponed) else "set aside"
    return f"{what} {trouble.journal}: {trouble.reason}"


@click.command()
@click.argument("journal", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="New folder for the result; default: the journal's name in this folder.",
)
@named_settings("byte_order", "stereo")
def render(journal: Path, output: Path | None, byte_order: ByteOrder, *, stereo: bool) -> None:
    """Turn one JOURNAL into WAV files and recording.json; the journal stays as it is."""
    from receiver import render as renderer
    from receiver.render import RenderOptions

    os.umask(0o077)
    renderer.identify(journal)  # refuse what is no journal before a folder is made
    folder = output or Path(journal.name).with_suffix("")
    try:
        folder.mkdir(0o700)
    except OSError as error:
        raise ConfigurationError(f"cannot create folder {folder}: {error.strerror}") from error
    renderer.render(journal, folder, RenderOptions(byte_order, stereo))
    click.echo(str(folder))
