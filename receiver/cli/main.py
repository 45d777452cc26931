"""The command `receiver`. Subcommands are imported when they are called, not before."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from receiver import __version__
from receiver.errors import TapreelError

COMMANDS: Final = {
    "serve": ("receiver.cli.serve:serve", "Receive streams and record them."),
    "recover": ("receiver.cli.archive:recover", "Publish what a crash left in the spool."),
    "catalogue": (
        "receiver.cli.catalogue:catalogue",
        "Rebuild, check or describe the catalogue.",
    ),
    "list": ("receiver.cli.archive:list_recordings", "List recordings."),
    "show": ("receiver.cli.archive:show", "Show one recording."),
    "verify": ("receiver.cli.archive:verify", "Read recordings again and check them."),
    "label": ("receiver.cli.lifecycle:label", "Put a label on a recording."),
    "note": ("receiver.cli.lifecycle:note", "Write a note about a recording."),
    "hold": ("receiver.cli.lifecycle:hold", "Keep a recording from being deleted or erased."),
    "release": ("receiver.cli.lifecycle:release", "End the hold of a recording."),
    "erase": ("receiver.cli.lifecycle:erase", "Replace a span of a recording by silence."),
    "delete": ("receiver.cli.lifecycle:delete", "Delete recordings."),
    "retention": ("receiver.cli.lifecycle:retention", "Delete what is kept no longer."),
    "subject": ("receiver.cli.lifecycle:subject", "Hand over or delete all of one person."),
    "ledger": ("receiver.cli.lifecycle:ledger", "Show or check what was done with recordings."),
    "render": ("receiver.cli.archive:render", "Turn one journal into a recording."),
    "listen": ("receiver.cli.listen:listen", "Write a live call's audio to stdout."),
    "forward": ("receiver.cli.listen:forward", "Send a live call on to another server."),
    "pause": ("receiver.cli.listen:pause", "Keep nothing of a live call for a while."),
    "resume": ("receiver.cli.listen:resume", "Go on recording a call that is paused."),
    "token": ("receiver.cli.listen:token", "Mint tokens for listeners and orders."),
    "console": ("receiver.cli.console:console", "Serve the console: pages and the API."),
    "user": ("receiver.cli.console:user", "Manage the accounts of the console."),
    "webhook": (
        "receiver.cli.notifications:webhook",
        "Show, resend or try out what other programs are told.",
    ),
    "config": ("receiver.cli.serve:config", "Print the effective settings."),
}
"""Module and function of each subcommand, and its line in `receiver --help`."""
INTERRUPTED: Final = 130


class LazyGroup(click.Group):
    """A group that imports a subcommand when it is called: `--help` needs none of their imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one subcommand."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101  a slip in the table above
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, short) for name, (_, short) in COMMANDS.items()])


@click.group(
    cls=LazyGroup, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, "-v", "--version", prog_name="receiver")
def receiver() -> None:
    """Receive media streams of phone calls: record every track, serve the audio live."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; every error is one line on stderr."""
    # numpy would start a thread per core for linear algebra, which is not used here.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        code = receiver.main(arguments, prog_name="receiver", standalone_mode=False)
        if sys.stdout is not None:  # as after >&-
            sys.stdout.flush()
    except click.ClickException as error:
        return _fail(error.format_message() + _hint(error), error.exit_code)
    except click.Abort:  # Ctrl-C
        return INTERRUPTED
    except TapreelError as error:
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:
        return 1
    except Exception as error:  # the last resort: one line instead of a traceback
        _print_traceback()
        return _fail(f"unexpected {type(error).__name__}: {error}", 1)
    return code if isinstance(code, int) else 0


def _hint(error: click.ClickException) -> str:
    """Return which help a usage error refers to."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f" (see {context.command_path} --help)" if context else ""


def _fail(message: str, exit_code: int) -> int:
    from receiver.media import visible  # only here: `--help` needs nothing of it

    click.echo("receiver: " + visible(" ".join(message.split())), err=True)
    return exit_code


def _print_traceback() -> None:
    """Print the traceback where the log level is debug."""
    import logging
    import traceback

    from receiver.media import visible

    if logging.getLogger().isEnabledFor(logging.DEBUG):
        for line in traceback.format_exc().splitlines():
            click.echo(visible(line), err=True)
