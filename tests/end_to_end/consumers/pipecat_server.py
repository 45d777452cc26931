"""Runs pipecat's WebSocket server, as it comes from the registry, until its client leaves.

It prints `ready`, and in the end one line of JSON: the samples it took, in hexadecimal.
Started with the interpreter of `.venv-consumers`; it imports nothing of tapreel.
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

    def __init__(self) -> None:
        super().__init__()
        self.audio = b""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Take one of pipecat's events."""
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            self.audio += frame.audio
        await self.push_frame(frame, direction)


async def main(port: int) -> None:
    """Serve one client."""
    serializer = TwilioFrameSerializer(
        "stream", params=TwilioFrameSerializer.InputParams(auto_hang_up=False)
    )
    params = SingleClientWebsocketServerParams(serializer=serializer, audio_in_enabled=True)
    transport = SingleClientWebsocketServerTransport(params, "127.0.0.1", port)
    collector = Collector()
    task = PipelineTask(
        Pipeline([transport.input(), collector]),
        params=PipelineParams(audio_in_sample_rate=8000),
    )

    @transport.event_handler("on_websocket_ready")  # type: ignore[untyped-decorator]  # as above
    async def ready(_: object) -> None:
        print("ready", flush=True)

    @transport.event_handler("on_client_disconnected")  # type: ignore[untyped-decorator]  # as above
    async def left(_: object, __: object) -> None:
        await task.queue_frame(EndFrame())

    await PipelineRunner(handle_sigint=False).run(task)
    print(json.dumps({"audio": collector.audio.hex()}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
