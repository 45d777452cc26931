"""The command line: `starter start`, `stop`, `token` and `simulate`."""

from __future__ import annotations

import logging
import os
import sys
from io import TextIOWrapper
from typing import Final

import click

from starter.commands import start, stop, token
from starter.errors import StarterError, one_line
from starter.simulator.command import simulate

_INTERRUPTED: Final = 130


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Start and stop media streams on live calls, or simulate the provider."""


for _command in (start, stop, token, simulate):
    cli.add_command(_command)


def main() -> None:
    """Run the command line and end the process with its exit code; no traceback gets out."""
    # numpy would start a thread per core for linear algebra, which is not used here.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if isinstance(sys.stdout, TextIOWrapper):
        # a name that the terminal cannot show must not hide the sid beside it
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="starter: %(message)s")
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; every failure is one line on stderr.

    A pipe without a reader ends the process silently with exit code 1; click does that.
    """
    try:
        code = cli.main(arguments, prog_name="starter", standalone_mode=False)
    except click.UsageError as error:
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        return _fail(error.format_message() + hint, error.exit_code)
    except StarterError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _INTERRUPTED
    except Exception as error:  # the last resort: one line instead of a traceback
        return _fail(f"unexpected {type(error).__name__}: {error}", 1)
    return code if isinstance(code, int) else 0


def _fail(text: str, exit_code: int) -> int:
    click.echo(f"starter: {one_line(text)}", err=True)
    return exit_code
