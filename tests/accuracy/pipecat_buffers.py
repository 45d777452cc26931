"""Hands calls to pipecat's AudioBufferProcessor, as it comes from the registry.

It reads calls from stdin, as JSON: by name, a list of `[arrival_ms, track, samples]`, the samples
16-bit at 8000 Hz in base64. It writes what the processor gives back of each: by name and track,
samples in base64. It is started with the interpreter of `.venv-consumers`, and imports nothing of
tapreel.

pipecat's serializers ignore the track, so chunks are handed over as frames: those of inbound as
what the user says, those of outbound as what the bot says. Its clock is the call's arrival time.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from types import SimpleNamespace
from typing import Any

from pipecat.frames.frames import Frame, InputAudioRawFrame, OutputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.processors.audio import audio_buffer_processor
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

RATE = 8000


class Clock:
    """The clock that the processor reads; `at_ms` is set before each frame."""

    at_ms = 0.0

    def monotonic(self) -> float:
        return 1000 + self.at_ms / 1000


class Arrivals(FrameProcessor):  # type: ignore[misc]  # pipecat is not here when types are checked
    """Behind the processor: says when a frame has gone through it."""

    def __init__(self) -> None:
        super().__init__()
        self.started = asyncio.Event()
        self.passed: asyncio.Queue[None] = asyncio.Queue()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Receive one of pipecat's events."""
        await super().process_frame(frame, direction)
        self.started.set()
        if isinstance(frame, InputAudioRawFrame | OutputAudioRawFrame):
            self.passed.put_nowait(None)
        await self.push_frame(frame, direction)


async def buffered(call: list[Any]) -> dict[str, str]:
    """Return both tracks of one call as the processor buffers them."""
    clock = Clock()
    audio_buffer_processor.time = SimpleNamespace(monotonic=clock.monotonic)
    buffers = audio_buffer_processor.AudioBufferProcessor(
        sample_rate=RATE, num_channels=2, auto_start_recording=True
    )
    arrivals = Arrivals()
    tracks: dict[str, str] = {}

    @buffers.event_handler("on_track_audio_data")  # type: ignore[untyped-decorator]  # as above
    async def keep(_: object, user: bytes, bot: bytes, rate: int, channels: int) -> None:
        assert (RATE, 2) == (rate, channels)
        tracks["inbound"] = base64.b64encode(user).decode()
        tracks["outbound"] = base64.b64encode(bot).decode()

    task = PipelineTask(
        Pipeline([buffers, arrivals]),
        params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE),
    )
    running = asyncio.create_task(PipelineRunner(handle_sigint=False).run(task))
    await arrivals.started.wait()
    for at_ms, track, samples in call:
        clock.at_ms = at_ms
        kind = InputAudioRawFrame if track == "inbound" else OutputAudioRawFrame
        audio = base64.b64decode(samples)
        await task.queue_frame(kind(audio=audio, sample_rate=RATE, num_channels=1))
        await arrivals.passed.get()
    await buffers.stop_recording()
    await task.cancel()
    await running
    return tracks


async def main() -> None:
    """Receive all calls, one behind the other."""
    calls = json.load(sys.stdin)
    found = {name: await buffered(call) for name, call in calls.items()}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
