"""The command line: `starter start`, `stop`, `token` and `simulate`."""

from __future__ import annotations

import os
import sys

import click

from starter.errors import StarterError
from starter.simulator.command import simulate


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Start and stop media streams on live calls, or play calls as the provider would."""


cli.add_command(simulate)


def main() -> None:
    """Run the command line and end the process with its exit code; no traceback gets out."""
    sys.exit(_exit_code())


def _exit_code() -> int:
    try:
        cli(standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except StarterError as error:
        return _complain(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        # the reader has gone: keep the interpreter from flushing into the pipe again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # the last resort: one line instead of a traceback
        return _complain(f"unexpected {type(error).__name__}: {error}", 1)
    return 0


def _complain(text: str, exit_code: int) -> int:
    click.echo(f"starter: {' '.join(text.split())}", err=True)
    return exit_code
