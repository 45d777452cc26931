"""Searching for what must be nowhere: in every file of a receiver, and in all that it gave out."""

from __future__ import annotations

import base64
import contextlib
import threading
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.bounds import at_most
from tests.end_to_end.receiver_process import WAIT_SECONDS, ReceiverProcess
from tests.end_to_end.taps import CALL, open_tap

SHAPES = ("pcm16", "payload", "messages")


class Listeners:
    """Listeners of one call in all shapes; they keep every byte that they get."""

    def __init__(self, receiver: ReceiverProcess, *, since: str = "") -> None:
        self.heard: dict[str, list[bytes | str]] = {}
        self._threads: list[threading.Thread] = []
        for shape in SHAPES:
            query = f"?track=stereo&format={shape}{since}"
            self.add(shape, open_tap(receiver, CALL + query))

    def add(self, name: str, socket: ClientConnection) -> None:
        """Listen on one more socket, until it is closed."""
        kept = self.heard[name] = []
        thread = threading.Thread(target=_keep, args=(socket, kept), daemon=True)
        self._threads.append(thread)
        thread.start()

    def ended(self) -> bytes:
        """Wait until all are closed; return all that they got."""
        for thread in self._threads:
            thread.join(at_most(60))
            assert not thread.is_alive(), "a listener is never closed"
        everything = [each for kept in self.heard.values() for each in kept]
        return b"\n".join(m.encode() if isinstance(m, str) else m for m in everything)


def _keep(socket: ClientConnection, kept: list[bytes | str]) -> None:
    with contextlib.suppress(ConnectionClosed):
        kept.extend(iter(socket))


def metrics_of(receiver: ReceiverProcess) -> bytes:
    """Return what Prometheus would get."""
    line = next((line for line in receiver.log if line["event"] == "serving_metrics"), None)
    url = (line or receiver.wait_for("serving_metrics"))["url"]
    with urllib.request.urlopen(url, timeout=WAIT_SECONDS) as answer:  # noqa: S310  loopback
        content: bytes = answer.read()
        return content


def files_below(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield every file below a folder, with its bytes; one that is just being removed is not."""
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                yield path, path.read_bytes()


def spelled(marker: bytes) -> list[bytes]:
    """Return how bytes may stand in a file: as they are, in hexadecimal, in base64 of any phase."""
    ways = [marker, marker.hex().encode()]
    for phase in range(3):
        shifted = base64.b64encode(bytes(phase) + marker)
        ways.append(shifted[4 if phase else 0 :][:-4] if len(marker) > 6 else shifted[4:-4])
    return [way for way in ways if len(way) >= 4]


def places_of(markers: Iterable[bytes], folder: Path, **others: bytes) -> list[str]:
    """Return where one of the markers stands: in which files, or in which of the `others`."""
    ways = [way for marker in markers for way in spelled(marker)]
    places = [(str(path), content) for path, content in files_below(folder)]
    places += [(f"{path} (its name)", path.encode()) for path, _ in places]
    places += list(others.items())
    return [place for place, content in places if any(way in content for way in ways)]
