"""A burst that ends in a TCP reset, while the disk is slow."""

from __future__ import annotations

import array
import asyncio
import fcntl
import socket
import struct
import termios
import time
from pathlib import Path

from receiver.media import Track
from tests.bounds import at_most
from tests.end_to_end import sender
from tests.end_to_end.receiver_process import read_document
from tests.faults.accounting import Sent, Tally, recording_folders
from tests.faults.calls import Call, dial
from tests.faults.faulty_disk import Orders
from tests.faults.payloads import Name
from tests.faults.trial import Trial

CHUNKS = 3000
_NO_LINGER = struct.pack("ii", 1, 0)
_WAIT_SECONDS = at_most(30.0)


def burst(folder: Path, seed: int, *, streams: int = 2) -> Tally:
    """3000 chunks as fast as the socket allows, then a reset: all of them are kept."""
    orders = Orders(folder / "shim")
    calls = [Call(Sent(number), seed) for number in range(1, streams + 1)]
    with Trial(folder) as trial:
        receiver = trial.start(orders=orders)
        orders.give("fdatasync delay 2000 .journal", "syncfs delay 2000 /")
        asyncio.run(_burst_all(receiver.url, calls))
        orders.give()
        receiver.wait_for("recording_published")
        trial.wait_until_published()
        tally = trial.account([call.sent for call in calls])
        for document in map(read_document, recording_folders(trial.recordings)):
            codes = [finding.code for finding in document.findings]
            tally.expect("connection_lost" in codes, "the reset was not noticed")
        return tally


async def _burst_all(url: str, calls: list[Call]) -> None:
    await asyncio.gather(*(_burst(url, call) for call in calls))


async def _burst(url: str, call: Call) -> None:
    connection = await dial(url)
    await connection.send(sender.start(stream_sid=call.sent.stream_sid))
    for number in range(CHUNKS):
        track = tuple(Track)[number % 2]
        await call.send(connection, Name(call.sent.number, track, number // 2 + 1))
    tcp = connection.transport.get_extra_info("socket")
    await _until_all_arrived(connection.transport, tcp)
    # The transport's own socket object may not set this one.
    with socket.socket(fileno=tcp.fileno()) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        raw.detach()
    connection.transport.abort()


async def _until_all_arrived(transport: asyncio.WriteTransport, tcp: socket.socket) -> None:
    """Wait until the other end's kernel has everything: a reset discards what is unsent."""
    deadline = time.monotonic() + _WAIT_SECONDS
    unsent = array.array("i", [1])
    while transport.get_write_buffer_size() or unsent[0]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)  # there is no event for when the last byte was acknowledged
        fcntl.ioctl(tcp.fileno(), termios.TIOCOUTQ, unsent)
