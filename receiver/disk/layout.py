"""Names of recordings and journals on disk. Ids from the wire never become part of one."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Final, TypeVar

AnyPath = TypeVar("AnyPath", bound=PurePath)
RECORDING_JSON: Final = "recording.json"
STEREO: Final = "stereo"
STEREO_WAV: Final = f"{STEREO}.wav"
REFUSED_RAW: Final = "refused.raw"
"""Payloads that could not be used, or not be decoded; `recording.json` says which is where."""
PEAKS_DAT: Final = "peaks.dat"
TIMELINE_JSON: Final = "timeline.json"
ANNOTATIONS_JSON: Final = "annotations.json"
"""What people have added to a recording; it is not there where nobody has."""
JOURNAL_SUFFIX: Final = ".journal"
REWRITTEN_SUFFIX: Final = ".rewritten"
"""A journal that is being written again, because the disk failed; it replaces the old one."""
SPOOL: Final = ".spool"
"""The spool's default name inside the recordings folder."""
WORKER: Final = "worker-"
"""Inside the spool: folders of workers, by number."""
QUARANTINE: Final = "quarantine"
"""Inside the spool: journals that cannot be trusted, each beside a text that says why."""

LEDGER: Final = ".ledger"
"""Inside the recordings folder: what was done with recordings; see `lifecycle.ledger`."""
TOMBSTONES: Final = ".tombstones"
"""Inside the recordings folder: what is left of recordings that were erased or deleted."""
PUBLISHED: Final = ".published"
"""The folder of the publication log inside the recordings folder."""
CATALOGUE: Final = ".catalogue"
CATALOGUE_SQLITE: Final = "catalogue.sqlite"
"""The catalogue's folder inside the recordings folder, and its database unless it is elsewhere."""
LEVELS: Final = 4
"""Parts of a recording's name below the recordings folder: year, month, day and its own."""

RECORDING_ID: Final = re.compile(r"[0-9a-f]{16}")
_DAY: Final = re.compile(r"[0-9]{4}/[0-9]{2}/[0-9]{2}")
_FOLDER: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z-([0-9a-f]{16})")


def recording_folder(recording_id: str, started_at_ms: int) -> PurePath:
    """Return `2026/11/22/20261122T203000Z-<recording id>`, relative to the recordings folder."""
    moment = datetime.fromtimestamp(started_at_ms // 1000, UTC)
    return PurePath(f"{moment:%Y/%m/%d}") / f"{moment:%Y%m%dT%H%M%SZ}-{recording_id}"


def hidden_folder(folder: PurePath) -> PurePath:
    """Return the name under which `folder` is rendered before it is published."""
    return folder.with_name(f".{folder.name}.partial")


def erasing_folder(folder: AnyPath) -> AnyPath:
    """Return the name under which a new rendition is made; the old one has it behind the change."""
    return folder.with_name(f".{folder.name}.erasing")


def removed_folder(folder: AnyPath) -> AnyPath:
    """Return the name that `folder` has when it is no recording any more, until it is gone."""
    return folder.with_name(f".{folder.name}.removed")


def replacement_name(name: str) -> str:
    """Return the name under which what replaces the file `name` is written."""
    return f".{name}.new"


def recording_id_of(folder: PurePath) -> str | None:
    """Return the recording id in a published folder's name, or `None` for any other name."""
    match = _FOLDER.fullmatch(folder.name)
    return match[1] if match else None


def is_recording_folder(folder: PurePath) -> bool:
    """Return whether this is a recording's folder, relative to the recordings folder."""
    return bool(_DAY.fullmatch(folder.parent.as_posix())) and recording_id_of(folder) is not None


def journal_name(recording_id: str) -> str:
    """Return a journal's file name in the spool."""
    return recording_id + JOURNAL_SUFFIX
