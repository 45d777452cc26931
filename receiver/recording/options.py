"""How journals are rendered: values that the serving process hands to the one that renders."""

from __future__ import annotations

from dataclasses import dataclass

from receiver.media import ByteOrder


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """`byte_order` is for L16 payloads; `stereo` adds `stereo.wav` (left is inbound)."""

    byte_order: ByteOrder = ByteOrder.LITTLE
    stereo: bool = False
