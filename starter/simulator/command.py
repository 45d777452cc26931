"""The `simulate` command; what is heavy to import waits until it runs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import click

from starter.config import load_settings
from starter.models import Codec
from starter.options import FILE, choice, pairs, with_options
from starter.simulator.options import SimulateOptions
from starter.simulator.provider_rules import Account
from starter.simulator.stream_info import ByteOrder, Keypress

_RECEIVER_URL = re.compile(r"wss?://[^/@\s]+(?:/\S*)?$", re.IGNORECASE)  # no credentials
_KEYPRESS = re.compile(r"(\d+):([0-9A-Da-d*#])")
_WAV = click.Path(exists=True, dir_okay=False, path_type=Path)
_CHANCE = click.FloatRange(0, 1)


def _keypresses(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[Keypress, ...]:
    presses = []
    for value in values:
        if not (match := _KEYPRESS.fullmatch(value)):
            raise click.BadParameter(f"expected AT_MS:DIGIT, not {value!r}")
        presses.append(Keypress(int(match[1]), match[2].upper()))
    return tuple(presses)


_AUDIO = (
    click.option("--inbound", type=_WAV, help="WAV file of the inbound track."),
    click.option("--outbound", type=_WAV, help="WAV file of the outbound track."),
    click.option("--demo", is_flag=True, help="Play the included demo conversation."),
    choice("--codec", kind=Codec, default=Codec.PCMU.value, show_default=True),
    choice(
        "--byte-order",
        kind=ByteOrder,
        default=ByteOrder.LITTLE.value,
        show_default=True,
        help="Byte order of L16 samples.",
    ),
    click.option(
        "--resample", is_flag=True, help="Convert WAV files of another rate than the codec's."
    ),
    click.option(
        "--packet-ms",
        type=click.IntRange(1, 1000),
        default=20,
        show_default=True,
        help="Milliseconds of audio per chunk.",
    ),
    click.option(
        "--first-timestamp",
        type=click.IntRange(0),
        default=0,
        metavar="MS",
        help="Timestamp of the first chunk.",
    ),
)
_CALL = (
    click.option(
        "--param",
        multiple=True,
        callback=pairs,
        metavar="K=V",
        help="Custom parameter for the start message; repeatable.",
    ),
    click.option(
        "--dtmf",
        multiple=True,
        callback=_keypresses,
        metavar="AT_MS:DIGIT",
        help="Press a key; repeatable.",
    ),
    click.option("--call-sid", metavar="SID", help="The call's sid instead of a new one."),
    click.option(
        "--calls",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Number of calls, all at the same time.",
    ),
    click.option(
        "--provider-shape",
        type=click.Choice(["signalwire", "twilio"]),
        default="signalwire",
        show_default=True,
        help="Provider whose messages and ids to send.",
    ),
    click.option(
        "--speed",
        type=click.FloatRange(0),
        default=1.0,
        show_default=True,
        help="1 is real time, 0 as fast as possible.",
    ),
)
_FAULTS = (
    click.option("--seed", type=int, default=0, show_default=True, help="Seed of all faults."),
    click.option("--loss", type=_CHANCE, default=0.0, help="Share of chunks that get lost."),
    click.option(
        "--jitter", type=click.FloatRange(0), default=0.0, metavar="MS", help="Up to this late."
    ),
    click.option(
        "--reorder", type=_CHANCE, default=0.0, help="Share of chunks to arrive behind later ones."
    ),
    click.option("--duplicate", type=_CHANCE, default=0.0, help="Share of chunks sent twice."),
    click.option("--no-stop", is_flag=True, help="Close without a stop message."),
    click.option("--abort", is_flag=True, help="End with a TCP reset: no stop, no close."),
)
_RECEIVER = (
    click.option("--bearer-token-file", type=FILE, help="File with the receiver's token."),
    click.option("--stream-key-file", type=FILE, help="Key to sign one token per call with."),
    click.option("--ca-file", type=FILE, help="Trust the authorities in this file only."),
    click.option("--insecure", is_flag=True, help="Do not check the receiver's certificate."),
)


@click.command()
@click.argument("url", required=False)
@with_options(*_AUDIO, *_CALL, *_FAULTS, *_RECEIVER)
@click.option(
    "--provider-port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Answer as the provider's REST API on this port of 127.0.0.1 (0: any free one).",
)
@click.option("--config", type=FILE, help="TOML file with a [starter] table.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def simulate(
    url: str | None,
    *,
    provider_port: int | None,
    bearer_token_file: str | None,
    stream_key_file: str | None,
    config: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Play calls into the receiver at URL as the provider would.

    With --provider-port instead of URL, simulate the provider's REST API, too, and play
    the streams that are requested there.
    """
    chosen = SimulateOptions(**options)
    _check(url, provider_port, chosen)
    settings = load_settings(config, os.environ)
    if provider_port is None:
        bearer = settings.bearer(token_file=bearer_token_file, key_file=stream_key_file)
        from starter.simulator.report import run_calls

        run_calls(chosen, str(url), bearer, as_json=as_json)
        return
    from starter.simulator.run_provider import run_provider

    signing_key = os.environ.get("SIGNALWIRE_SIGNING_KEY") or None
    account = Account(*settings.account())
    run_provider(account, chosen, provider_port, signing_key=signing_key, as_json=as_json)


def _check(url: str | None, provider_port: int | None, options: SimulateOptions) -> None:
    if (url is None) == (provider_port is None):
        raise click.UsageError("give either the receiver's URL or --provider-port")
    if url is not None and not _RECEIVER_URL.match(url):
        raise click.UsageError("the receiver's URL must be wss://HOST… or ws://HOST…")
    given = options.inbound or options.outbound
    if bool(given) == options.demo:
        raise click.UsageError("give --inbound, --outbound or both, or else --demo")
    if provider_port is not None and (options.param or options.calls > 1):
        raise click.UsageError(
            "--param and --calls go with a URL: here the requests name what to play"
        )
    if options.call_sid and options.calls > 1:
        raise click.UsageError("--call-sid names one call, so --calls cannot be more than 1")
