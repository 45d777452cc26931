"""The options of a simulation, and the audio files and ids that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from uuid import uuid4

from starter.models import Codec
from starter.simulator.stream_info import ByteOrder, Identity, Keypress

DEMO: Final = Path(__file__).parent / "demo"

ProviderShape = Literal["signalwire", "twilio"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateOptions:
    """The command's options under the command's names; paths were checked to exist."""

    inbound: Path | None
    outbound: Path | None
    demo: bool
    param: dict[str, str]
    dtmf: tuple[Keypress, ...]
    codec: Codec
    byte_order: ByteOrder
    resample: bool
    packet_ms: int
    first_timestamp: int
    provider_shape: ProviderShape
    speed: float
    seed: int
    loss: float
    jitter: float
    reorder: float
    duplicate: float
    no_stop: bool
    abort: bool
    call_sid: str | None
    calls: int
    ca_file: str | None
    insecure: bool

    def sources(self) -> dict[str, Path]:
        """The WAV file of each track that is to be played."""
        demo = {"inbound": DEMO / "inbound.wav", "outbound": DEMO / "outbound.wav"}
        given = {"inbound": self.inbound, "outbound": self.outbound}
        return {track: path for track, path in given.items() if path} or demo

    def identity(self) -> Identity:
        """A new stream of a new call (or of `call_sid`), with ids as the provider makes them."""
        if self.provider_shape == "twilio":
            return Identity(
                _twilio_sid("AC"), self.call_sid or _twilio_sid("CA"), _twilio_sid("MZ")
            )
        return Identity(str(uuid4()), self.call_sid or str(uuid4()), str(uuid4()))


def _twilio_sid(prefix: str) -> str:
    return prefix + uuid4().hex
