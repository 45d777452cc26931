"""The recorder that a provider's guide suggests: websockets, json, one write per chunk."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import ssl
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from websockets.asyncio.server import ServerConnection, serve

folder = Path(sys.argv[1])
steps = np.arange(256) ^ 0xFF
levels = (((steps & 0x0F) << 3) + 0x84 << ((steps & 0x70) >> 4)) - 0x84
MULAW = np.where(steps & 0x80, -levels, levels).astype(np.int16)


async def record(connection: ServerConnection) -> None:
    """Write every chunk of one stream to its track's file as it comes."""
    files: dict[str, Any] = {}
    async for text in connection:
        message = json.loads(text)
        if message["event"] != "media":
            continue
        media = message["media"]
        track = media["track"]
        if track not in files:
            name = folder / f"{id(connection)}-{track}.wav"
            files[track] = soundfile.SoundFile(name, "w", 8000, 1, "PCM_16")
        codes = np.frombuffer(base64.b64decode(media["payload"]), np.uint8)
        files[track].write(MULAW[codes])
    for file in files.values():
        file.close()


async def main() -> None:
    """Serve until SIGTERM."""
    context = None
    if len(sys.argv) > 2:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*sys.argv[2:4])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with serve(record, "127.0.0.1", 0, ssl=context, compression=None) as server:
        print("listening", next(iter(server.sockets)).getsockname()[1], flush=True)  # noqa: T201
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
