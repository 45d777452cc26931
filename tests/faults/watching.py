"""What a receiver looks like from outside while it suffers: its answers and its memory."""

from __future__ import annotations

import http.client
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bounds import at_most
from tests.end_to_end.receiver_process import ReceiverProcess

_INTERVAL_SECONDS = 0.02


def ask(receiver: ReceiverProcess, path: str) -> int:
    """Return the status with which the receiver answers a request."""
    connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=at_most(10))
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def memory_bytes(process_id: int) -> int:
    """Return how much memory a process holds."""
    status = Path(f"/proc/{process_id}/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return int(kilobytes) * 1024


class Watch:
    """Asks for `/healthz` and reads the memory, again and again, within a `with` block."""

    def __init__(self, receiver: ReceiverProcess) -> None:
        self._receiver = receiver
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.slowest_seconds = 0.0
        self.memory_before = memory_bytes(receiver.process.pid)
        self.memory_most = self.memory_before

    @property
    def growth_bytes(self) -> int:
        """Return by how much memory grew at most."""
        return self.memory_most - self.memory_before

    @property
    def figures(self) -> str:
        """Return what was seen, for people."""
        answer = f"slowest answer {1000 * self.slowest_seconds:.0f} ms"
        return f"{answer}, memory +{self.growth_bytes / 2**20:.0f} MiB"

    def _run(self) -> None:
        while not self._over.wait(_INTERVAL_SECONDS):
            began = time.monotonic()
            try:
                ask(self._receiver, "/healthz")
            except OSError:
                continue  # refused, as in a flood of connections; memory still counts
            finally:
                self._weigh()
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)

    def _weigh(self) -> None:
        self.memory_most = max(self.memory_most, memory_bytes(self._receiver.process.pid))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        self._weigh()
