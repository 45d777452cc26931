"""What is asked of rendering, and what became of a journal: values that cross processes.

None of this imports numpy or libsndfile, so the serving process and the commands can speak of
outcomes without mapping either.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from receiver.media import ByteOrder
from receiver.recording.document import Recording


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A journal that was set aside; `journal` is where it is now."""

    journal: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Postponed:
    """A journal that cannot be published now and stays where it is."""

    journal: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Published:
    """A recording that is on disk under its final name."""

    folder: Path
    recording: Recording
    quarantined: Quarantined | None = None  # its journal, where that holds more


@dataclass(frozen=True, slots=True)
class Empty:
    """A journal of no bytes at all, which was removed."""

    journal: Path


@dataclass(frozen=True, slots=True)
class Discarded:
    """A journal that was removed because nothing of it may be kept."""

    journal: Path
    reason: str


Outcome = Published | Quarantined | Empty | Discarded


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """`byte_order` is for L16 payloads; `stereo` adds `stereo.wav` (left is inbound)."""

    byte_order: ByteOrder = ByteOrder.LITTLE
    stereo: bool = False
