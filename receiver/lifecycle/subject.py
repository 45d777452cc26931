"""All recordings of one person, to be handed over: a folder or zip file that needs no server.

    index.html        plays everything in any browser, without a script or a request to anywhere
    manifest.json     what is there, with the SHA-256 of each file
    CALL.vcon.json    a vCon document of each call (draft-ietf-vcon-vcon-core, syntax 0.4.0)
    ID/inbound.wav …  the files of each recording, as they are in the store

Files are compared with their documents while they are copied. It appears under its name when it is
whole, and the ledger has each recording before anything of it is copied.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html
import json
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from receiver.disk import layout
from receiver.disk.files import FILE_MODE, blocks_of, create_private, open_regular, write_all
from receiver.disk.folders import PRIVATE
from receiver.errors import ConfigurationError, TapreelError
from receiver.lifecycle.ledger import Ledger
from receiver.media import Track, parameter_text, timestamp
from receiver.recording import annotations as notes
from receiver.recording.annotations import Annotations
from receiver.recording.document import Recording
from receiver.recording.store import Kept
from receiver.recording.verdict import SIDES, clock, duration, verdict

INDEX: Final = "index.html"
MANIFEST: Final = "manifest.json"
_BASE64_BLOCK: Final = 3 * 2**16
_VCON_SYNTAX: Final = "0.4.0"
_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}"
    "section{border-top:1px solid #999;padding:1rem 0}dt{font-weight:600}dd{margin:0 0 .5rem}"
    "audio{width:100%}"
)


@dataclass
class Exported:
    """What was handed over: recordings, bytes, and what of it does not agree with its document."""

    recordings: int = 0
    size: int = 0
    problems: list[str] = field(default_factory=list)


class _Target(Protocol):
    """Where files go, each written once, under a name with slashes."""

    def write(self, name: str, blocks: Iterable[bytes]) -> None:
        """Write a file."""


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, name: str, blocks: Iterable[bytes]) -> None:
        path = self._path / name
        path.parent.mkdir(PRIVATE, exist_ok=True)
        with create_private(path) as file:
            for block in blocks:
                write_all(file, block)


class _Zip:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def write(self, name: str, blocks: Iterable[bytes]) -> None:
        with self._archive.open(name, "w", force_zip64=True) as file:
            for block in blocks:
                file.write(block)


@dataclass(frozen=True, slots=True)
class _Copied:
    """A recording that was copied: its files with their SHA-256."""

    kept: Kept
    added: Annotations
    files: Mapping[str, str]


def export(
    found: Iterable[Kept],
    target: Path,
    *,
    recordings: Path,
    parameters: Mapping[str, str],
    who: str,
    now_ms: int,
) -> Exported:
    """Write recordings of one person into a new folder, or a zip file by its ending.

    Args:
        found: The recordings.
        target: The folder or file; it must not be there, unless it is an empty folder.
        recordings: The recordings folder, which has the ledger.
        parameters: By which they were found; the manifest has them.
        who: Who takes them; the ledger has it.
        now_ms: When.

    Raises:
        ConfigurationError: the target cannot be written, or is there already.
        LedgerError: the ledger takes no entry; nothing appears under the target's name.
        UnreadableError: a file is missing, or cannot be read.
    """
    done, copied, digests = Exported(), list[_Copied](), dict[str, str]()
    with _target(target) as place:

        def write(name: str, blocks: Iterable[bytes]) -> None:
            digest = hashlib.sha256()
            place.write(name, _counted(blocks, digest.update, done))
            digests[name] = digest.hexdigest()

        for kept in found:
            Ledger(recordings).append(
                "exported",
                who=who,
                via="command",
                recording=kept.recording.id,
                file=target.name[:200],
                search=" ".join(f"param.{name}" for name in parameters),
            )
            copied.append(_copy(kept, write, digests, done))
        done.recordings = len(copied)
        for call, parts in _by_call(copied).items():
            write(f"{call}.vcon.json", _vcon(parts, now_ms))
        write(INDEX, [_page(copied, parameters, now_ms).encode("utf-8", "replace")])
        manifest = _manifest(copied, parameters, digests, now_ms)
        place.write(MANIFEST, [manifest])
    return done


def _counted(
    blocks: Iterable[bytes], update: Callable[[bytes], None], done: Exported
) -> Iterator[bytes]:
    for block in blocks:
        update(block)
        done.size += len(block)
        yield block


@contextlib.contextmanager
def _target(path: Path) -> Iterator[_Target]:
    """Yield where to write; it has its name when the block ends, and is nowhere if that fails."""
    is_zip = path.suffix.lower() == ".zip"
    if path.exists() and (is_zip or not path.is_dir() or any(path.iterdir())):
        raise ConfigurationError(f"{path} is there already: give a new folder, or a new .zip file")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as hidden:
            staged = Path(hidden) / "export"
            with _zip(staged) if is_zip else _folder(staged) as place:
                yield place
            with contextlib.suppress(FileNotFoundError):
                path.rmdir()
            staged.rename(path)
    except TapreelError:
        raise
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def _zip(path: Path) -> Iterator[_Target]:
    with zipfile.ZipFile(path, "x") as archive:
        path.chmod(FILE_MODE)
        yield _Zip(archive)


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[_Target]:
    path.mkdir(PRIVATE)
    yield _Folder(path)


def _copy(
    kept: Kept,
    write: Callable[[str, Iterable[bytes]], None],
    digests: Mapping[str, str],
    done: Exported,
) -> _Copied:
    """Copy the files of a recording, and compare them with its document."""
    document, files = kept.recording, dict[str, str]()
    expected = {track.file: track.sha256 for track in document.tracks}
    for each in (document.stereo, document.timeline):
        expected |= {each["file"]: each["sha256"]} if each else {}
    for name in (*expected, layout.RECORDING_JSON, layout.ANNOTATIONS_JSON):
        inside = f"{document.id}/{name}"
        try:
            with open_regular(kept.folder / name) as file:
                write(inside, blocks_of(file))
        except FileNotFoundError:
            if name in expected:
                done.problems.append(f"{inside} is missing")
            continue
        files[name] = digests[inside]
        if expected.get(name, files[name]) != files[name]:
            done.problems.append(f"{inside}: its SHA-256 is not the document's")
    return _Copied(kept, notes.read(kept.folder), files)


def _by_call(copied: Sequence[_Copied]) -> dict[str, list[_Copied]]:
    """Return recordings by their calls, whose names are safe for files; parts in order."""
    found: dict[str, list[_Copied]] = {}
    for each in sorted(copied, key=lambda one: one.kept.recording.started_at):
        sid = each.kept.recording.call_sid
        is_safe = sid.isascii() and sid.replace("-", "").isalnum() and len(sid) <= 64
        found.setdefault(sid if is_safe else each.kept.recording.id, []).append(each)
    return found


def _manifest(
    copied: Sequence[_Copied],
    parameters: Mapping[str, str],
    digests: Mapping[str, str],
    now_ms: int,
) -> bytes:
    document = {
        "created_at": timestamp(now_ms),
        "parameters": parameters,
        "recordings": [
            {
                "id": each.kept.recording.id,
                "call_sid": each.kept.recording.call_sid,
                "started_at": each.kept.recording.started_at,
                "duration_ms": each.kept.recording.duration_ms,
            }
            for each in copied
        ],
        "sha256": dict(sorted(digests.items())),
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def _vcon(parts: Sequence[_Copied], now_ms: int) -> Iterator[bytes]:
    """Yield a vCon document of a call, with its audio in it: it is whole wherever it goes."""
    first = parts[0].kept.recording
    whole: dict[str, Any] = {
        "vcon": _VCON_SYNTAX,
        "uuid": _uuid8(f"{first.call_sid} {first.id}"),
        "created_at": timestamp(now_ms),
        "subject": f"Call {first.call_sid}",
        "parties": [{"name": SIDES[track]} for track in Track],
        "attachments": [
            {
                "purpose": "parameters",
                "start": each.kept.recording.started_at,
                "party": 0,
                "dialog": 0,
                "encoding": "json",
                "body": each.kept.recording.parameters,
            }
            for each in parts
            if each.kept.recording.parameters
        ],
    }
    head = json.dumps(whole)
    yield head[:-1].encode() + b', "dialog": ['
    separator = b""
    for each in parts:
        for index, track in enumerate(Track):
            found = [one for one in each.kept.recording.tracks if one.track is track]
            if found and found[0].file in each.files:
                yield separator
                yield from _dialog(each.kept, found[0].file, index, track)
                separator = b", "
    yield b"]}\n"


def _uuid8(text: str) -> str:
    """Return a UUID of version 8 (RFC 9562) that is always the same for the same text."""
    digest = bytearray(hashlib.sha256(text.encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(digest)))


def _dialog(kept: Kept, name: str, party: int, track: Track) -> Iterator[bytes]:
    document = kept.recording
    described = {
        "type": "recording",
        "start": document.started_at,
        "duration": document.duration_ms / 1000,
        "parties": [party],
        "mediatype": "audio/x-wav",
        "filename": f"{document.id}-{track.value}.wav",
        "encoding": "base64url",
    }
    yield json.dumps(described)[:-1].encode() + b', "body": "'
    with open_regular(kept.folder / name) as file:
        while block := file.read(_BASE64_BLOCK):
            yield base64.urlsafe_b64encode(block).rstrip(b"=")
    yield b'"}'


def _page(copied: Sequence[_Copied], parameters: Mapping[str, str], now_ms: int) -> str:
    """Return the page that plays everything: HTML without scripts, which loads files beside it."""
    sections = "\n".join(_section(each) for each in copied) or "<p>There are none.</p>"
    asked = ", ".join(f"{name} = {value}" for name, value in parameters.items())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "media-src 'self' file:; style-src 'unsafe-inline'\">"
        f"<title>Recordings</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>Recordings</h1><p>{len(copied)} recordings with {html.escape(asked)}, "
        f"taken on {timestamp(now_ms)}.</p>\n{sections}\n</body></html>\n"
    )


def _section(each: _Copied) -> str:
    document = each.kept.recording
    facts = [
        ("Started", document.started_at),
        ("Length", duration(document.duration_ms)),
        ("Verdict", verdict(document).text),
        *((name, parameter_text(value)) for name, value in document.parameters.items()),
        *_told(document, each.added),
    ]
    listed = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts
    )
    players = "".join(
        f"<h3>{html.escape(SIDES[track.track])}</h3>"
        f'<audio controls preload="none" src="{document.id}/{track.track.value}.wav"></audio>'
        for track in document.tracks
    )
    return f"<section><h2>{document.id}</h2><dl>{listed}</dl>{players}</section>"


def _told(document: Recording, added: Annotations) -> Iterator[tuple[str, str]]:
    if document.dtmf:
        yield "Keys", ", ".join(f"{key.digit} at {clock(key.at_ms)}" for key in document.dtmf)
    if added.labels:
        yield "Labels", ", ".join(label.name for label in added.labels)
    for note in added.notes:
        yield "Note", note.text
