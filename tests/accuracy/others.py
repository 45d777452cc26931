"""Other ways to record the same messages: without a clock, by the wall clock, and pipecat's."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from receiver.audio import codec
from receiver.media import ByteOrder, Encoding, Track
from tests.accuracy.senders import BYTES_PER_MS, Call

Lines = dict[Track, bytes]
"""Each track's samples, 16-bit at 8000 Hz, from the beginning of its file."""

PYTHON: Final = Path(sys.prefix).parent / ".venv-consumers" / "bin" / "python"
"""The environment of the consumers that somebody else wrote; `.ci/run` makes it."""
_BYTES_PER_MS: Final = 2 * BYTES_PER_MS
_PACKET_MS: Final = 20


def arrivals(call: Call) -> list[tuple[float, Track, bytes]]:
    """Return when each chunk arrived, its track, and its samples, in the order of arrival."""
    found = []
    for at_ms, message in call.messages:
        if message["event"] == "media":
            payload = base64.b64decode(message["media"]["payload"])
            samples = codec.decode(payload, Encoding.PCMU, byte_order=ByteOrder.LITTLE)
            found.append((at_ms, Track(message["media"]["track"]), samples.tobytes()))
    return found


def naive(call: Call) -> Lines:
    """Append what comes, as the recorder of `tests/bench/naive.py` does."""
    lines: dict[Track, bytearray] = {}
    for _, track, samples in arrivals(call):
        lines.setdefault(track, bytearray()).extend(samples)
    return {track: bytes(line) for track, line in lines.items()}


def wall_clock(call: Call) -> Lines:
    """Append what comes, behind silence for as long as nothing came.

    A chunk that comes more than a packet later than its track's file is long has had silence
    before it; files begin when the first chunk of the call arrives.
    """
    lines: dict[Track, bytearray] = {}
    found = arrivals(call)
    for at_ms, track, samples in found:
        line = lines.setdefault(track, bytearray())
        silent = (at_ms - found[0][0]) - len(line) / _BYTES_PER_MS
        if silent > _PACKET_MS:
            line.extend(bytes(round(silent) * _BYTES_PER_MS))
        line.extend(samples)
    return {track: bytes(line) for track, line in lines.items()}


def each(record: Callable[[Call], Lines]) -> Callable[[Mapping[str, Call]], dict[str, Lines]]:
    """Return what records many calls with a function for one."""
    return lambda calls: {name: record(call) for name, call in calls.items()}


def pipecat(calls: Mapping[str, Call]) -> dict[str, Lines]:
    """Hand calls to pipecat's AudioBufferProcessor; see `pipecat_buffers.py`."""
    sent = {
        name: [
            (at_ms, track.value, base64.b64encode(samples).decode())
            for at_ms, track, samples in arrivals(call)
        ]
        for name, call in calls.items()
    }
    done = subprocess.run(
        [PYTHON, Path(__file__).with_name("pipecat_buffers.py")],
        input=json.dumps(sent),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"pipecat failed:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout[done.stdout.index("{") :])
    return {
        name: {Track(track): base64.b64decode(line) for track, line in lines.items()}
        for name, lines in found.items()
    }
