"""Runs the stand-in for the provider until a signal ends it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys

import click

from starter.errors import StarterError
from starter.simulator.calls import Result, interruptible
from starter.simulator.http_server import HOST, serve
from starter.simulator.live_stream import Studio
from starter.simulator.options import SimulateOptions
from starter.simulator.provider import Provider
from starter.simulator.provider_rules import Account
from starter.simulator.report import report_fields, report_line, warn_of_answers

_log = logging.getLogger("starter.simulator")


def run_stand_in(
    account: Account,
    options: SimulateOptions,
    port: int,
    *,
    signing_key: str | None,
    as_json: bool,
) -> None:
    """Serve on 127.0.0.1 until SIGINT or SIGTERM, then stop all streams in good order.

    Prints `listening http://…` once ready, then a line for each stream that has ended. Raises
    ConfigError if the port is taken or the CA file unusable, AudioError if the WAV files do not
    suit the codec.
    """
    studio = Studio(options, signing_key)
    # what is wrong is noticed now, not at the first call
    studio.tracks(options.codec)
    studio.tls()

    def on_end(result: Result) -> None:
        _tell(result, as_json=as_json)

    asyncio.run(_serve(Provider(account, studio, on_end=on_end), port))


async def _serve(provider: Provider, port: int) -> None:
    with interruptible() as interrupted:
        async with serve(port, provider.answer) as chosen_port:
            click.echo(f"listening http://{HOST}:{chosen_port}")
            await interrupted.wait()
        await provider.close()


def _tell(result: Result, *, as_json: bool) -> None:
    if isinstance(result, StarterError):
        _log.warning("%s", result)
        return
    try:
        click.echo(json.dumps(report_fields(result)) if as_json else report_line(result))
    except BrokenPipeError:
        # whoever read the address has left: go on, and write what follows to nobody
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    warn_of_answers(result)
