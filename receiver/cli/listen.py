"""The commands for live calls: `receiver listen`, `receiver forward` and `receiver token`.

The first two subscribe to a running receiver; the third mints what they ask with.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import stat
import struct
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from receiver.cli.options import (
    FILE,
    control_token,
    order_options,
    receiver_options,
    tap_token,
    tap_url,
)
from receiver.errors import ConfigurationError
from receiver.media import visible

if TYPE_CHECKING:
    from receiver.listen import Event, Gap, PcmAudio

_STDOUT: Final = 1
_UNKNOWN_BYTES: Final = 0xFFFFFFFF  # the length in the header of a WAV file that still grows
_BYTES_PER_SAMPLE: Final = 2
_HEADER_BYTES: Final = 44
_END_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP)
_SIGNALLED: Final = 128
"""The exit code of a program ended by a signal is this plus the signal's number."""
_READER_GONE: Final = 141
"""The exit code of a program when its pipe has no reader, as shells report it (128 + SIGPIPE)."""
_PIPE_BYTES: Final = 16_384  # a second of samples at 8 kHz


_wait_option = click.option(
    "--wait",
    type=click.FloatRange(0, 3600),
    default=0.0,
    help="seconds to wait for the call to start",
)


@click.command()
@click.argument("call_sid")
@click.option(
    "--track",
    type=click.Choice(("inbound", "outbound", "stereo")),
    default="inbound",
    show_default=True,
    help="track to write; stereo is inbound left, outbound right",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(("wav", "pcm16")),
    default="wav",
    show_default=True,
    help="pcm16 is raw little-endian samples, without a header",
)
@click.option(
    "--rate",
    type=click.Choice(("8000", "16000", "24000", "48000")),
    help="samples per second; default: the stream's own",
)
@click.option(
    "--block-ms",
    type=click.IntRange(10, 500),
    help="milliseconds of audio to write at once; default: those of a chunk",
)
@click.option(
    "--since",
    type=click.FloatRange(0, 86_400),
    default=0.0,
    help="seconds of the call's past to start with",
)
@_wait_option
@receiver_options
def listen(call_sid: str, file_format: str, tap: str, **options: object) -> int:
    """Write a live call's audio to stdout; CALL_SID may also be a stream sid or recording id.

    For example:  receiver listen CALL_SID | ffplay -nodisp -
    """
    if sys.stdout is None:
        raise click.UsageError("stdout is closed: there is nowhere to write to")
    if sys.stdout.isatty():
        raise click.UsageError("audio would go to the terminal: pipe it into a program")
    _shorten_pipe()
    try:
        return asyncio.run(_run(_write(tap_url(tap, call_sid), file_format == "wav", options)))
    except BrokenPipeError:
        return _READER_GONE


async def _run(writing: Coroutine[None, None, None]) -> int:
    """Return the exit code; where stdout is a file, signals end it completed, as Ctrl-C does."""
    task, received = asyncio.ensure_future(writing), list[int]()

    def end(number: int) -> None:
        received.append(number)
        task.cancel()

    for number in _END_SIGNALS if _is_file() else ():
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
            asyncio.get_running_loop().add_signal_handler(number, end, number)
    try:
        await task
    except asyncio.CancelledError:
        if not received:
            raise
    return _SIGNALLED + received[0] if received else 0


async def _write(url: str, with_header: bool, options: dict[str, object]) -> None:
    from receiver.listen import ListenQuery, listen_pcm

    rate = options["rate"]
    query = ListenQuery(
        track=str(options["track"]),
        rate=int(str(rate)) if rate else None,
        since=float(str(options["since"])),
        wait=float(str(options["wait"])),
        block_ms=int(str(options["block_ms"])) if options["block_ms"] else None,
    )
    ca_file = str(options["ca_file"]) if options["ca_file"] else None
    events = listen_pcm(url, query, token=str(options["token"]), trust=ca_file)
    stream = _WavStream(with_header)
    try:
        async for event in events:
            stream.write(event)
    finally:
        stream.close()


class _WavStream:
    """The WAV file or raw samples on stdout; what was missed is written as silence.

    So the output's clock stays that of the stream.
    """

    def __init__(self, with_header: bool) -> None:
        self._with_header = with_header
        self._bytes_per_second = 0
        self._frame_bytes = _BYTES_PER_SAMPLE
        self._header_at: int | None = None  # its offset, in a file where it can be completed

    def close(self) -> None:
        """Complete the header of a file, now that its length is known."""
        if self._header_at is not None:
            length = os.lseek(_STDOUT, 0, os.SEEK_CUR) - self._header_at
            if length < _UNKNOWN_BYTES:
                os.pwrite(_STDOUT, struct.pack("<I", length - 8), self._header_at + 4)
                data = struct.pack("<I", length - _HEADER_BYTES)
                os.pwrite(_STDOUT, data, self._header_at + _HEADER_BYTES - 4)

    def write(self, event: Event | PcmAudio) -> None:
        """Write one event of the stream: audio, or silence for what was missed."""
        from receiver.listen import Gap, PcmAudio, Started, Stopped

        match event:
            case PcmAudio():
                _write_all(event.payload)
            case Started():
                self._start(event.sample_rate, event.channels)
            case Gap():
                self._write_gap(event)
            case Stopped(reason="unknown"):
                click.echo("receiver: the stream ended while the connection was broken", err=True)

    def _write_gap(self, gap: Gap) -> None:
        click.echo(visible(f"receiver: {gap}"), err=True)
        if not gap.is_silent:
            self._write_silence(gap.duration_ms)

    def _start(self, rate: int, channels: int) -> None:
        self._frame_bytes = channels * _BYTES_PER_SAMPLE
        self._bytes_per_second = rate * self._frame_bytes
        if self._with_header:
            self._header_at = _position()
            _write_all(_header(rate, channels))
            self._with_header = False

    def _write_silence(self, duration_ms: float) -> None:
        left = (
            round(duration_ms * self._bytes_per_second / 1000 / self._frame_bytes)
            * self._frame_bytes
        )
        while left > 0:
            block = min(left, self._bytes_per_second)
            _write_all(bytes(block))
            left -= block


def _header(rate: int, channels: int) -> bytes:
    """Return the header of a WAV file of unknown length, as programs that read pipes accept it."""
    frame_bytes = channels * _BYTES_PER_SAMPLE
    fields = struct.pack(
        "<HHIIHH", 1, channels, rate, rate * frame_bytes, frame_bytes, 8 * _BYTES_PER_SAMPLE
    )
    length = struct.pack("<I", _UNKNOWN_BYTES)
    return b"RIFF" + length + b"WAVEfmt " + struct.pack("<I", 16) + fields + b"data" + length


def _position() -> int | None:
    """Return the offset of stdout, if it is a file that can be changed there later."""
    if not _is_file() or fcntl.fcntl(_STDOUT, fcntl.F_GETFL) & os.O_APPEND:
        return None
    return os.lseek(_STDOUT, 0, os.SEEK_CUR)


def _is_file() -> bool:
    return stat.S_ISREG(os.fstat(_STDOUT).st_mode)


def _shorten_pipe() -> None:
    """Make the pipe's buffer small: for a slow program the receiver drops audio and reports it."""
    is_pipe = stat.S_ISFIFO(os.fstat(_STDOUT).st_mode)
    if is_pipe and hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):  # it is full already, or may not be changed
            fcntl.fcntl(_STDOUT, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _write_all(content: bytes) -> None:
    """Write to stdout without a buffer, so that live audio is not delayed."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(_STDOUT, rest) :]


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
@_wait_option
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
    from receiver.forwarding.relay import BOTH, ForwardOptions, carry_call, parse_consumer
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


@click.command()
@click.argument("call_sid")
@click.option("--reason", default="", help="why, for the recording and the ledger")
@click.option(
    "--max-seconds",
    type=click.FloatRange(1, 86_400),
    default=300.0,
    show_default=True,
    help="seconds after which recording goes on by itself",
)
@order_options
def pause(
    call_sid: str, reason: str, max_seconds: float, give: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Keep nothing of a live call, until it is resumed or the time is over.

    Audio, key presses and marks are counted and thrown away: they reach no file and no listener.
    """
    order = {"order": "pause", "call_sid": call_sid, "reason": reason, "max_seconds": max_seconds}
    answer = give(order)
    click.echo(visible(f"paused {call_sid} until {answer['until']}"))


@click.command()
@click.argument("call_sid")
@order_options
def resume(call_sid: str, give: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Go on recording a call that is paused."""
    give({"order": "resume", "call_sid": call_sid})
    click.echo(visible(f"resumed {call_sid}"))


@click.group()
def token() -> None:
    """Mint tokens for live listeners, and for orders about live calls."""


@token.command()
@click.option("--call", "call_sid", metavar="CALL_SID", help="orders about one call")
@click.option("--all", "everything", is_flag=True, help="orders about any call")
@click.option("--who", default="", help="who gives the order, for the ledger")
@click.option(
    "--ttl",
    type=click.IntRange(1, 300),
    default=60,
    show_default=True,
    help="seconds until it expires; it is used once",
)
@click.option(
    "--control-key-file",
    type=FILE,
    help="file of the receiver's control keys; else TAPREEL_CONTROL_KEY or"
    " TAPREEL_CONTROL_KEY_FILE",
)
def control(
    call_sid: str | None, *, everything: bool, who: str, ttl: int, control_key_file: Path | None
) -> None:
    """Print a signed token for one order: to pause a call, or to resume it."""
    if everything == (call_sid is not None) or call_sid == "":
        raise click.UsageError("choose one of --call CALL_SID and --all")
    click.echo(control_token(control_key_file, call_sid or "*", ttl_seconds=ttl, who=who))


@token.command()
@click.option("--call", "call_sid", metavar="CALL_SID", help="the streams of one call")
@click.option("--param", "parameter", metavar="NAME=VALUE", help="streams with this parameter")
@click.option("--all", "everything", is_flag=True, help="every stream")
@click.option(
    "--ttl",
    type=click.IntRange(1, 31_536_000),
    default=300,
    show_default=True,
    help="seconds until it expires; up to 300 it may be used as ?access_token=",
)
@click.option(
    "--tap-key-file",
    type=FILE,
    help="file of the receiver's tap keys; else TAPREEL_TAP_KEY or TAPREEL_TAP_KEY_FILE",
)
def tap(
    call_sid: str | None,
    parameter: str | None,
    *,
    everything: bool,
    ttl: int,
    tap_key_file: Path | None,
) -> None:
    """Print a signed tap token: for one call, one parameter value, or all."""
    from receiver.auth import credentials
    from receiver.auth.tap_tokens import mint, parse_scope
    from receiver.config.settings import load

    if sum((call_sid is not None, parameter is not None, everything)) != 1:
        raise click.UsageError("choose one of --call CALL_SID, --param NAME=VALUE and --all")
    claim = "all"
    if call_sid is not None:
        claim = f"call:{call_sid}"
    elif parameter is not None:
        claim = f"param:{parameter}"
    try:
        scope = parse_scope(claim)
    except ValueError:
        raise click.UsageError("give --call CALL_SID, or --param NAME=VALUE") from None
    keys = credentials.tap_keys(load({"tap_key_file": tap_key_file}, environ=os.environ))
    if not keys:
        raise ConfigurationError("no tap key: give --tap-key-file FILE, or TAPREEL_TAP_KEY")
    click.echo(mint(keys[0], scope, now=time.time(), ttl_seconds=ttl))
