"""The console killed, frozen, flooded, or without its database, while calls go on beside it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from websockets.sync.client import ClientConnection, connect

from receiver.catalogue.database import open_database
from receiver.console.accounts import Accounts, ApiTokens
from receiver.console.who import Role
from tests.bounds import at_most
from tests.end_to_end.console_process import children_of, console_line, is_healthy
from tests.end_to_end.receiver_process import WAIT_SECONDS, ReceiverProcess
from tests.faults.accounting import Sent, Tally
from tests.faults.calls import Callers
from tests.faults.payloads import CHUNK_MS
from tests.faults.trial import Trial
from tests.faults.watching import Watch

STREAMS = 20
SECONDS = 4.0
"""How long each of these goes on."""
CONNECTIONS = 40
REQUESTS_PER_SECOND = 5000
LONGEST_ANSWER_SECONDS = at_most(1.0)
"""The longest allowed wait for the receiver's `/healthz` meanwhile."""
_STARVED_SECONDS = 0.1
"""What is sent later than that, and never caught up, has another place than its timestamps say."""
_REQUEST = b"GET /recordings HTTP/1.1\r\nHost: x\r\nCookie: tapreel=nobody\r\n\r\n"
Attack = Callable[[ReceiverProcess, str], str]
"""Does it to the console of a receiver, at a URL; returns what can be said of it in figures."""


def killed(receiver: ReceiverProcess, _url: str) -> str:
    """SIGKILL, and again as soon as it is there again."""
    deaths = 0
    over = time.monotonic() + SECONDS
    while time.monotonic() < over:
        for console in children_of(receiver.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(console, signal.SIGKILL)
                deaths += 1
        time.sleep(0.1)  # there is no event for its being there again
    return f"killed {deaths} times"


def frozen(receiver: ReceiverProcess, url: str) -> str:
    """SIGSTOP: it accepts connections and answers nothing."""
    (console,) = children_of(receiver.process.pid)
    os.kill(console, signal.SIGSTOP)
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as tcp:
        tcp.sendall(_REQUEST)
        time.sleep(SECONDS)  # for so long it is frozen
    os.kill(console, signal.SIGCONT)
    return f"frozen for {SECONDS:g} s"


def without_database(receiver: ReceiverProcess, url: str) -> str:
    """Somebody holds the lock of the catalogue, and requests wait for it."""
    file = receiver.recordings / ".catalogue" / "catalogue.sqlite"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        flooded(receiver, url)
        other.execute("ROLLBACK")
    return f"locked for {SECONDS:g} s"


def flooded(_receiver: ReceiverProcess, url: str) -> str:
    """Requests on many connections, one behind the other, at a rate that it cannot answer."""
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or 0)
    block, sent, began = _REQUEST * 25, 0, time.monotonic()
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(_dial(address)) for _ in range(CONNECTIONS)]
        while (passed := time.monotonic() - began) < SECONDS:
            if sent >= REQUESTS_PER_SECOND * passed:
                time.sleep(0.002)  # the rate is the fault
                continue
            _, writable, _ = select.select([], sockets, [], 0.05)
            for tcp in writable:
                sent += _pour(tcp, block) // len(_REQUEST)
            for tcp in sockets:
                _drain(tcp)
    return f"{sent / SECONDS:.0f} requests a second"


def _dial(address: tuple[str, int]) -> socket.socket:
    tcp = socket.create_connection(address, timeout=at_most(5))
    tcp.setblocking(False)
    return tcp


def _pour(tcp: socket.socket, block: bytes) -> int:
    with contextlib.suppress(OSError):
        return tcp.send(block)
    return 0


def _drain(tcp: socket.socket) -> None:
    with contextlib.suppress(OSError):
        tcp.recv(65_536)


ATTACKS = (killed, frozen, flooded, without_database)


@contextlib.contextmanager
def _somebody_looks(receiver: ReceiverProcess, url: str) -> Iterator[None]:
    """Open a live page and listen to a call, and read no further."""
    with contextlib.closing(open_database(None, receiver.recordings)) as database:
        Accounts(database).add("leo", Role.LISTENER, {})
        token, _ = ApiTokens(database).make("leo")
    with contextlib.ExitStack() as stack:

        def opened(path: str) -> ClientConnection:
            address = url.replace("http:", "ws:") + path
            headers = {"Authorization": f"Bearer {token}"}
            dialled = connect(
                address, additional_headers=headers, proxy=None, max_queue=2, close_timeout=0.1
            )
            return stack.enter_context(dialled)

        calls = json.loads(opened("live/events").recv())["calls"]
        assert "started" == json.loads(opened(f"live/audio/{calls[0]['id']}").recv())["event"]
        yield


def attacked(folder: Path, seed: int, *, streams: int = STREAMS) -> Tally:
    """Twenty calls lose no chunk, and the console serves again afterwards.

    Somebody looks at them, and listens, when it happens: it is a listener that no longer reads.
    The receiver answers meanwhile as fast as ever.
    """
    attack = ATTACKS[seed % len(ATTACKS)]
    with Trial(folder) as trial:
        receiver = trial.start("--console", "--console-port", str(_free_port()))
        url = console_line(receiver)
        with Callers(receiver.url, streams, seed) as callers:
            callers.wait_for(50)
            with _somebody_looks(receiver, url), Watch(receiver) as watch:
                figure = attack(receiver, url)
            callers.wait_for(len(callers.streams[0].chunks) + 50)
        trial.wait_until_published()
        tally = trial.account(callers.streams)
        tally.figures.append(f"{attack.__name__}: {figure}, {watch.figures}")
        behind = max(_behind_seconds(sent) for sent in callers.streams)
        if behind > _STARVED_SECONDS:  # a sender that never catches up is placed by its arrivals
            tally.figures.append(f"senders starved: {behind:.1f} s behind at the end")
            tally.kept, tally.misplaced = tally.kept + tally.misplaced, 0
        waited = watch.slowest_seconds
        tally.expect(waited < LONGEST_ANSWER_SECONDS, f"{attack.__name__}: {waited:.1f} s")
        tally.expect(_serves_again(url), f"{attack.__name__}: the console is gone")
        return tally


def _behind_seconds(sent: Sent) -> float:
    """Return how much later than it should the last chunk of a call was sent."""
    (first, began), *_, (last, ended) = sent.chunks.items()
    return ended - began - (last.chunk - first.chunk) * CHUNK_MS / 1000


def _free_port() -> int:
    """Return a port that every console of the trial can have."""
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        return int(tcp.getsockname()[1])


def _serves_again(url: str) -> bool:
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_healthy(url):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)  # there is no event for that
    return True
