"""How soon a pause takes effect: from the order to the first silence that a listener gets.

`python -m tests.bench.bench_pause [ORDERS]` runs a real receiver with one call of two tracks, and
pauses and resumes it. Of each order it measures the time from the moment before its connection is
opened to the first silent chunk at a listener: that is the handshake, the order, up to 20 ms until
the next chunk comes, and its way to the listener.
"""

from __future__ import annotations

import base64
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.end_to_end.pausing import Live, order, paused_receiver, pausing, resuming, token
from tests.end_to_end.taps import CALL, open_tap

SILENCE = b"\xff" * 160


def measured(folder: Path, orders: int) -> list[float]:
    """Return the milliseconds of so many orders."""
    with paused_receiver(folder) as receiver:
        call = Live(receiver)
        receiver.wait_for("stream_started")
        listener, found = open_tap(receiver, f"{CALL}?format=messages"), []
        receiver.wait_for("listener_started")

        def until(silent: bool) -> None:
            for message in listener:
                body = json.loads(message).get("media")
                if body and (base64.b64decode(body["payload"]) == SILENCE) == silent:
                    return

        for _ in range(orders):
            given = (receiver, token(), pausing())  # its library is imported by the first one
            started = time.perf_counter()
            asking = threading.Thread(target=order, args=given)
            asking.start()
            until(silent=True)
            found.append(1000 * (time.perf_counter() - started))
            asking.join()
            order(receiver, token(), resuming())
            until(silent=False)
        call.hang_up()
        listener.close()
        return found


def main() -> None:
    """Measure, and print the figures."""
    orders = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory() as folder:
        found = sorted(measured(Path(folder), orders))
    shares = statistics.quantiles(found, n=100)
    print(f"{orders} orders: median {shares[49]:.1f} ms, 99th percentile {shares[98]:.1f} ms")  # noqa: T201  the figures
    print(f"longest {found[-1]:.1f} ms")  # noqa: T201  the figures


if __name__ == "__main__":
    main()
