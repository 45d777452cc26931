"""The simulated provider as a process, until a signal ends it."""

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
from starter.simulator.live_stream import SimulatedCalls
from starter.simulator.options import SimulateOptions
from starter.simulator.provider import Provider
from starter.simulator.provider_rules import Account
from starter.simulator.report import report_fields, report_line, warn_about_answers

_log = logging.getLogger("starter.simulator")


def run_provider(
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
    calls = SimulatedCalls(options, signing_key)
    # bad audio or a bad CA file is an error now, not at the first call
    calls.tracks(options.codec)
    calls.tls()

    def on_end(result: Result) -> None:
        _report(result, as_json=as_json)

    asyncio.run(_serve(Provider(account, calls, on_end=on_end), port))


async def _serve(provider: Provider, port: int) -> None:
    with interruptible() as interrupted:
        async with serve(port, provider.answer) as chosen_port:
            click.echo(f"listening http://{HOST}:{chosen_port}")
            await interrupted.wait()
        await provider.close()


def _report(result: Result, *, as_json: bool) -> None:
    if isinstance(result, StarterError):
        _log.warning("%s", result)
        return
    try:
        click.echo(json.dumps(report_fields(result)) if as_json else report_line(result))
    except BrokenPipeError:
        # the reader of the address has gone: go on, and discard what follows
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    warn_about_answers(result)
