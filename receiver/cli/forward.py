"""`receiver forward`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from receiver.cli.options import FILE, receiver_options, tap_url
from receiver.errors import ConfigurationError


@click.command()
@click.argument("call_sid")
@click.argument("url")
@click.option(
    "--forward-token-file",
    type=FILE,
    help="file of the bearer token to send to the consumer",
)
@click.option(
    "--consumer-ca-file",
    type=FILE,
    help="certificate to trust for the consumer",
)
@click.option(
    "--wait",
    type=click.FloatRange(0, 3600),
    default=0.0,
    help="seconds to wait for the call to start",
)
@receiver_options
def forward(
    call_sid: str,
    url: str,
    *,
    forward_token_file: Path | None,
    consumer_ca_file: Path | None,
    wait: float,
    tap: str,
    token: str,
    ca_file: str | None,
) -> None:
    """Send one live call on to the media-stream server at URL, as the provider would."""
    from receiver import logs
    from receiver.cli.options import tap_token
    from receiver.forwarding.relay import BOTH, ForwardOptions, parse_consumer
    from receiver.forwarding.remote_source import carry_call
    from receiver.transports.client import trust_in

    logs.configure("info")
    consumer = parse_consumer(url)
    options = ForwardOptions(
        token=tap_token(forward_token_file) if forward_token_file else None,
        trust=trust_in(str(consumer_ca_file) if consumer_ca_file else None),
    )
    if consumer.filters:
        raise ConfigurationError("param.NAME=VALUE chooses calls, and here one is named already")
    source = f"{tap_url(tap, call_sid)}?format=messages&wait={wait:g}"
    if consumer.track != BOTH:
        source += f"&track={consumer.track}"
    trust = trust_in(ca_file)
    asyncio.run(carry_call(source, consumer, options, token=token, trust=trust))
