"""What it costs to make files of a journal, and to check and publish them.

`measure` writes the journal of one call of two tracks, and has a process of its own publish it,
which is what this module does when it is run: `python -m tests.bench.rendering JOURNAL FOLDER`.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from receiver.disk import layout
from receiver.journal import records
from receiver.journal.records import ChunkRecord, EndRecord, Header, MessageRecord
from receiver.media import ByteOrder, EndReason, Track

CHUNKS_PER_HOUR: Final = 180_000
_START: Final = (
    b'{"event":"start","start":{"streamSid":"s","accountSid":"a","callSid":"c",'
    b'"tracks":["inbound","outbound"],"mediaFormat":'
    b'{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}}'
)


def write_journal(path: Path, hours: float) -> None:
    """Write the journal of one call as a live stream would leave it."""
    payloads = [random.Random(number).randbytes(160) for number in range(97)]
    header = Header("00112233aabbccdd", time.time_ns() // 1_000_000, records.VERSION, "bench")
    with path.open("wb") as file:
        file.write(records.encode(header) + records.encode(MessageRecord(0, _START)))
        count = int(hours * CHUNKS_PER_HOUR)
        for number in range(count):
            at_ms = number * 20
            for index, track in enumerate(Track):
                payload = payloads[(number + index) % len(payloads)]
                sequence = number * 2 + index + 2
                record = ChunkRecord(track, sequence, number + 1, at_ms, at_ms, payload)
                file.write(records.encode(record))
        file.write(records.encode(EndRecord(count * 20, EndReason.STOP, "")))


def publish(path: Path, recordings: Path) -> dict[str, float]:
    """Publish in this process, and return seconds of processor time and memory at its peak."""
    from receiver.recording import publish as publisher
    from receiver.recording.document import RenderOptions

    before = resource.getrusage(resource.RUSAGE_SELF)
    publisher.publish_journal(path, recordings, RenderOptions(ByteOrder.LITTLE, False))
    after = resource.getrusage(resource.RUSAGE_SELF)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_seconds": spent, "peak_mib": after.ru_maxrss / 1024}


def measure(hours: float) -> dict[str, float]:
    """Render a call of so many hours in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="tapreel-bench-") as folder:
        path = Path(folder) / layout.journal_name("00112233aabbccdd")
        write_journal(path, hours)
        command = [sys.executable, "-m", __spec__.name, str(path), str(Path(folder) / "out")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        figures: dict[str, float] = json.loads(done.stdout)
    call_hours_per_minute = hours / figures["cpu_seconds"] * 60
    return {"call_hours_per_cpu_minute": call_hours_per_minute, "peak_mib": figures["peak_mib"]}


if __name__ == "__main__":
    print(json.dumps(publish(Path(sys.argv[1]), Path(sys.argv[2]))))  # noqa: T201  for `measure`
