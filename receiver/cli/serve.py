"""`receiver serve`."""

from __future__ import annotations

import click

from receiver.cli.options import settings
from receiver.config.load import check_serving
from receiver.config.settings import Config


@click.command()
@settings
def serve(config: Config) -> None:
    """Receive streams and record every track until Ctrl-C or SIGTERM."""
    check_serving(config)
    from receiver import logs
    from receiver.service import run

    logs.configure(config.log_level)
    run.run(config)
