"""`receiver listen`."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import stat
import struct
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Final

import click

from receiver.cli.tap_options import receiver_options, tap_url

if TYPE_CHECKING:
    from receiver.listen import Event, Gap

_STDOUT: Final = 1
_UNKNOWN_BYTES: Final = 0xFFFFFFFF  # the length of a WAV file that is still growing
_BYTES_PER_SAMPLE: Final = 2
_HEAD_BYTES: Final = 44
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)
_SIGNALLED: Final = 128
"""The exit code of a program that a signal has ended is so much more than the signal's number."""
_NOBODY_READS: Final = 141
"""The exit code of a program whose reader has gone, as shells tell it (128 + SIGPIPE)."""
_PIPE_BYTES: Final = 16_384  # a second of samples at 8 kHz


@click.command()
@click.argument("call_sid")
@click.option(
    "--track",
    type=click.Choice(("inbound", "outbound", "stereo")),
    default="inbound",
    show_default=True,
    help="whom to hear; stereo is inbound left, outbound right",
)
@click.option(
    "--format",
    "shape",
    type=click.Choice(("wav", "pcm16")),
    default="wav",
    show_default=True,
    help="pcm16 is raw little-endian samples, without a header",
)
@click.option(
    "--rate",
    type=click.Choice(("8000", "16000", "24000", "48000")),
    help="samples per second; default: the stream's own (others need the extra dsp)",
)
@click.option("--since", type=click.FloatRange(0, 86_400), default=0.0, help="seconds of the past")
@click.option("--wait", type=click.FloatRange(0, 3600), default=0.0, help="seconds for it to begin")
@receiver_options
def listen(call_sid: str, shape: str, tap: str, **options: object) -> int:
    """Write a live call's audio to stdout; CALL_SID may be a stream's or recording's id, too.

    For example:  receiver listen CALL_SID | ffplay -nodisp -
    """
    if sys.stdout is None:
        raise click.UsageError("stdout is closed: there is nowhere to write to")
    if sys.stdout.isatty():
        raise click.UsageError("audio would go to the terminal: pipe it into a program")
    _shorten_pipe()
    try:
        return asyncio.run(_run(_write(tap_url(tap, call_sid), shape == "wav", options)))
    except BrokenPipeError:
        return _NOBODY_READS


async def _run(writing: Coroutine[None, None, None]) -> int:
    """Return the exit code; where a file is to be completed, signals end it as Ctrl-C does."""
    task, numbers = asyncio.ensure_future(writing), list[int]()

    def end(number: int) -> None:
        numbers.append(number)
        task.cancel()

    for number in _ENDING if _is_file() else ():
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup has it ignored
            asyncio.get_running_loop().add_signal_handler(number, end, number)
    try:
        await task
    except asyncio.CancelledError:
        if not numbers:
            raise
    return _SIGNALLED + numbers[0] if numbers else 0


async def _write(url: str, with_header: bool, options: dict[str, object]) -> None:
    from receiver.listen import listen as hear

    rate = options["rate"]
    events = hear(
        url,
        token=str(options["token"]),
        track=str(options["track"]),
        rate=int(str(rate)) if rate else None,
        since=float(str(options["since"])),
        wait=float(str(options["wait"])),
        trust=str(options["ca_file"]) if options["ca_file"] else None,
    )
    tape = _WavStream(with_header)
    try:
        async for event in events:
            tape.take(event)
    finally:
        tape.close()


class _WavStream:
    """Keeps the output's clock that of the stream: what was missed is written as silence."""

    def __init__(self, with_header: bool) -> None:
        self._with_header = with_header
        self._bytes_per_second = 0
        self._unit = _BYTES_PER_SAMPLE
        self._head_at: int | None = None  # where in a file it can be completed

    def close(self) -> None:
        """Complete the header of a file, now that its length is known."""
        if self._head_at is not None:
            length = os.lseek(_STDOUT, 0, os.SEEK_CUR) - self._head_at
            if length < _UNKNOWN_BYTES:
                os.pwrite(_STDOUT, struct.pack("<I", length - 8), self._head_at + 4)
                data = struct.pack("<I", length - _HEAD_BYTES)
                os.pwrite(_STDOUT, data, self._head_at + _HEAD_BYTES - 4)

    def take(self, event: Event) -> None:
        from receiver.listen import Audio, Gap, Started, Stopped

        match event:
            case Audio():
                _put(event.samples.astype("<i2").tobytes())
            case Started():
                self._start(event.sample_rate, event.channels)
            case Gap():
                self._bridge(event)
            case Stopped(reason="unknown"):
                click.echo("receiver: the stream ended while we were cut off", err=True)

    def _bridge(self, gap: Gap) -> None:
        click.echo(f"receiver: {gap}", err=True)
        if not gap.is_silent:
            self._be_silent(gap.duration_ms)

    def _start(self, rate: int, channels: int) -> None:
        self._unit = channels * _BYTES_PER_SAMPLE
        self._bytes_per_second = rate * self._unit
        if self._with_header:
            self._head_at = _position()
            _put(_header(rate, channels))
            self._with_header = False

    def _be_silent(self, duration_ms: float) -> None:
        left = round(duration_ms * self._bytes_per_second / 1000 / self._unit) * self._unit
        while left > 0:
            block = min(left, self._bytes_per_second)
            _put(bytes(block))
            left -= block


def _header(rate: int, channels: int) -> bytes:
    """Return the head of a WAV file of unknown length, as programs that read pipes accept it."""
    unit = channels * _BYTES_PER_SAMPLE
    shape = struct.pack("<HHIIHH", 1, channels, rate, rate * unit, unit, 8 * _BYTES_PER_SAMPLE)
    length = struct.pack("<I", _UNKNOWN_BYTES)
    return b"RIFF" + length + b"WAVEfmt " + struct.pack("<I", 16) + shape + b"data" + length


def _position() -> int | None:
    """Return where stdout is written to, if it is a file that can be changed there later."""
    if not _is_file() or fcntl.fcntl(_STDOUT, fcntl.F_GETFL) & os.O_APPEND:
        return None
    return os.lseek(_STDOUT, 0, os.SEEK_CUR)


def _is_file() -> bool:
    return stat.S_ISREG(os.fstat(_STDOUT).st_mode)


def _shorten_pipe() -> None:
    """Let little audio wait for a slow program: the receiver drops what is old, and says so."""
    is_pipe = stat.S_ISFIFO(os.fstat(_STDOUT).st_mode)
    if is_pipe and hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):  # it is full already, or not ours to change
            fcntl.fcntl(_STDOUT, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _put(content: bytes) -> None:
    """Write to stdout now: nothing of a live call waits in a buffer."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(_STDOUT, rest) :]
