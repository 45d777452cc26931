"""A call in real time, whose sides sound when a test says so; it remembers when that was sent."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Final, Self

import numpy as np

from tests.end_to_end import sender
from tests.receiver.helpers.g711 import MULAW

CHUNK_SECONDS: Final = 0.02
SILENCE: Final = b"\xff" * 160
EARS: Final = """
// Measures what a page plays: the loudest sample of each ear, every few milliseconds, and when
// either is loud again after it was silent.
window.ears = {left: 0, right: 0, began: []};
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (target, ...rest) {
  if (target instanceof AudioDestinationNode) {
    const splitter = new ChannelSplitterNode(this.context, {numberOfOutputs: 2});
    connect.call(this, splitter);
    const sides = [0, 1].map((channel) => {
      const analyser = new AnalyserNode(this.context, {fftSize: 128});
      connect.call(splitter, analyser, channel);
      return analyser;
    });
    const samples = new Float32Array(128);
    let silentSince = 0;
    setInterval(() => {
      const [left, right] = sides.map((analyser) => {
        analyser.getFloatTimeDomainData(samples);
        return samples.reduce((most, each) => Math.max(most, Math.abs(each)), 0);
      });
      window.ears.left = left;
      window.ears.right = right;
      const now = Date.now();
      if (Math.max(left, right) > 0.1) {
        if (now - silentSince > 0 && silentSince) window.ears.began.push(now / 1000);
        silentSince = 0;
      } else silentSince ||= now;
    }, 4);
  }
  return connect.call(this, target, ...rest);
};
"""
"""For a page before its own scripts."""


def tone() -> bytes:
    """Return 20 ms of a tone of 1 kHz, loud enough to be told from all else, in mu-law."""
    samples = 16_000 * np.sin(2 * np.pi * np.arange(160) / 8)
    codes = np.abs(samples[:, None] - np.asarray(MULAW, dtype=float)[None, :]).argmin(axis=1)
    return bytes(codes.astype(np.uint8))


class Speaker:
    """Both sides of a call, on a thread of its own from `with` to `hang_up`.

    `sounding` says which sides sound from the next chunk on. `sent_at` has for each time that a
    side began when its first sample would have been spoken, in seconds since 1970: a packet is
    sent when it is full.
    """

    def __init__(self, url: str, call_sid: str = "call-1", **parameters: str) -> None:
        self.sounding: set[str] = set()
        self.sent_at: list[float] = []
        self._call_sid = call_sid
        self._url = url
        self._parameters = parameters
        self._hung_up = threading.Event()
        self._thread = threading.Thread(target=self._talk, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def sound(self, side: str, seconds: float) -> float:
        """Make a side sound for so long; return when its first sample was spoken."""
        before = len(self.sent_at)
        self.sounding.add(side)
        while len(self.sent_at) == before:
            time.sleep(0.001)  # there is no event for that
        time.sleep(seconds)
        self.sounding.discard(side)
        return self.sent_at[before]

    def hang_up(self) -> None:
        """End the call; idempotent."""
        self._hung_up.set()
        self._thread.join()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.hang_up()

    def _talk(self) -> None:
        sound, began, number, sequence = tone(), time.monotonic(), 0, 1
        sounded: set[str] = set()
        with sender.dial(self._url) as socket:
            sid = f"stream-{self._call_sid}"
            start = sender.start(self._parameters, call_sid=self._call_sid, stream_sid=sid)
            sender.send_call(socket, [sender.connected(), start])
            while not self._hung_up.wait(max(0, began + number * CHUNK_SECONDS - time.monotonic())):
                number += 1
                sounding = set(self.sounding)
                for track in ("inbound", "outbound"):
                    sequence += 1
                    payload = sound if track in sounding else SILENCE
                    socket.send(sender.media(track, number, payload, sequence=sequence))
                if sounding - sounded:
                    self.sent_at.append(time.time() - CHUNK_SECONDS)
                sounded = sounding
            socket.send(sender.stop())
