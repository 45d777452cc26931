"""Runs pipecat's WebSocket server, as it comes from the registry, until it has so many samples.

It prints `ready`, and in the end one line of JSON: the samples it took, in hexadecimal.
Its arguments are a port and how many bytes of samples to take. It is started with the
interpreter of `.venv-consumers`, and imports nothing of tapreel.
"""

from __future__ import annotations

import asyncio
import json
import sys

from pipecat.frames.frames import EndFrame, Frame, InputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.transports.websocket.server import (
    SingleClientWebsocketServerParams,
    SingleClientWebsocketServerTransport,
)


class Collector(FrameProcessor):  # type: ignore[misc]  # pipecat is not here when types are checked
    """Keeps every sample that reaches it."""

    def __init__(self, wanted_bytes: int) -> None:
        super().__init__()
        self.audio = b""
        self.complete = asyncio.Event()
        self._wanted_bytes = wanted_bytes

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Receive one of pipecat's events."""
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            self.audio += frame.audio
            if len(self.audio) >= self._wanted_bytes:
                self.complete.set()
        await self.push_frame(frame, direction)


async def main(port: int, wanted_bytes: int) -> None:
    """Serve one client."""
    serializer = TwilioFrameSerializer(
        "stream", params=TwilioFrameSerializer.InputParams(auto_hang_up=False)
    )
    params = SingleClientWebsocketServerParams(serializer=serializer, audio_in_enabled=True)
    transport = SingleClientWebsocketServerTransport(params, "127.0.0.1", port)
    collector = Collector(wanted_bytes)
    task = PipelineTask(
        Pipeline([transport.input(), collector, transport.output()]),
        params=PipelineParams(audio_in_sample_rate=8000),
    )

    @transport.event_handler("on_websocket_ready")  # type: ignore[untyped-decorator]  # as above
    async def ready(_: object) -> None:
        print("ready", flush=True)  # noqa: T201  the test waits for it

    running = asyncio.create_task(PipelineRunner(handle_sigint=False).run(task))
    await collector.complete.wait()
    await task.queue_frame(EndFrame())
    await running
    print(json.dumps({"audio": collector.audio.hex()}), flush=True)  # noqa: T201  the result


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
