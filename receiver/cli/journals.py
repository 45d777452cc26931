"""`receiver recover` and `receiver render`: journals without a running receiver."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import click

from receiver.cli.options import spool_folder
from receiver.errors import ConfigurationError, UnreadableError
from receiver.media import ByteOrder


def _render_options(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option(
        "--byte-order",
        type=click.Choice([order.value for order in ByteOrder]),
        default=ByteOrder.LITTLE.value,
        show_default=True,
        help="Order of the two bytes of an L16 sample.",
    )(command)
    return click.option("--stereo", is_flag=True, help="Add stereo.wav.")(command)


@click.command()
@spool_folder
@_render_options
def recover(recordings: Path, spool: Path, *, byte_order: str, stereo: bool) -> None:
    """Publish what a receiver that is no longer running left in its spool."""
    if not spool.is_dir():
        click.echo("nothing to recover")
        return
    from receiver import publish
    from receiver.folders import FolderLock
    from receiver.render import RenderOptions

    os.umask(0o077)
    options = RenderOptions(ByteOrder(byte_order), stereo)
    quarantined = recovered = 0
    with FolderLock(spool):
        for outcome in publish.recover(spool, recordings, options):
            if isinstance(outcome, publish.Published):
                recovered += 1
                click.echo(f"published {outcome.folder}")
            else:
                quarantined += 1
                click.echo(f"set aside {outcome.journal}: {outcome.reason}", err=True)
    if not recovered and not quarantined:
        click.echo("nothing to recover")
    if quarantined:
        raise UnreadableError(f"{quarantined} journals cannot be read; they are in quarantine")


@click.command()
@click.argument("journal", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="New folder for the result; default: the journal's name in this folder.",
)
@_render_options
def render(journal: Path, output: Path | None, *, byte_order: str, stereo: bool) -> None:
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
    renderer.render(journal, folder, RenderOptions(ByteOrder(byte_order), stereo))
    click.echo(str(folder))
