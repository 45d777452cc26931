"""Audio and other files of a recording over HTTP: ranges, what changed, and the ledger before it.

Who hears what is in the ledger before the first byte goes out, each time: `downloaded` for a whole
file, `heard` for the part of it that a program asks for, `fetched` for what a page's player loads
ahead, in whole minutes and each once a minute; what of that was played, the player reports.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from receiver.catalogue.rows import Row
from receiver.console.audio import (
    MEDIA_TYPES,
    BlockStream,
    ByteSource,
    ZipFolder,
    names_of,
    open_source,
    zip_blocks,
)
from receiver.console.context import Console, console_of, who_asks
from receiver.console.problems import Problem, not_found
from receiver.console.who import Who
from receiver.disk import layout
from receiver.disk.files import BLOCK_BYTES, open_regular
from receiver.errors import UnreadableError
from receiver.recording import store
from receiver.recording.document import Recording, decode, encode

KEPT: Final = "private, no-cache"
"""Kept by the browser alone, and asked for again each time: who may hear it can change."""
_RANGE: Final = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))")
_MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True)
class WantedBytes:
    """The part of a file that is asked for: bytes from `start` to before `stop`."""

    start: int
    stop: int
    is_part: bool


def wanted_range(request: Request, size: int, etag: str) -> WantedBytes:
    """Return which bytes a request asks for (RFC 9110, section 14); several ranges are all of it.

    Raises:
        Problem: 416, it begins behind the end.
    """
    whole = WantedBytes(0, size, is_part=False)
    match = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if match is None or request.method != "GET":
        return whole
    if request.headers.get("if-range", etag) != etag:
        return whole
    first, last, suffix = match.groups()
    start = max(0, size - int(suffix)) if suffix else int(first)
    stop = min(size, int(last) + 1) if last else size
    if last and int(last) < int(first):
        return whole  # no valid range: as if it were not there
    if start >= size or suffix == "0":
        text = f"The file ends at byte {size}."
        raise Problem(416, text, headers={"Content-Range": f"bytes */{size}"})
    return WantedBytes(start, stop, is_part=True)


def is_unchanged(request: Request, etag: str) -> bool:
    """Return whether whoever asks has this already (If-None-Match)."""
    known = request.headers.get("if-none-match", "")
    return known == "*" or etag in [tag.strip().removeprefix("W/") for tag in known.split(",")]


def not_modified(etag: str) -> Response:
    """Return the answer to who has it already."""
    return Response(status_code=304, headers={"ETag": etag, "Cache-Control": KEPT})


async def track_response(request: Request, row: Row, name: str, kind: str) -> Response:
    """Return a track, or `stereo`, as WAV, FLAC or Opus.

    Raises:
        Problem: 404, it has no such track; 416 and 422.
    """
    console = console_of(request)
    folder = console.config.recordings / row.folder
    threads = console.threads if kind == "wav" else console.encoding
    source = await threads.run(open_source, console.encoded, folder, row, name, kind)
    return await _source_response(request, row, source, f"{name}.{kind}", MEDIA_TYPES[kind])


async def _source_response(
    request: Request, row: Row, source: ByteSource, name: str, media_type: str
) -> Response:
    """Enter what is asked for into the ledger, and return it."""
    console, who = console_of(request), who_asks(request)
    try:
        if is_unchanged(request, source.etag):
            source.close()
            return not_modified(source.etag)
        wanted = wanted_range(request, source.size, source.etag)
        if request.method == "GET":
            await _enter(console, who, row, name, wanted, source.size)
    except BaseException:
        source.close()
        raise
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": KEPT,
        "Content-Disposition": f'inline; filename="{row.id}-{name}"',
        "Content-Length": str(wanted.stop - wanted.start),
        "ETag": source.etag,
    }
    if wanted.is_part:
        headers["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{source.size}"
    if request.method == "HEAD":
        source.close()
        return Response(None, 200, headers, media_type)
    body = _sent(console, BlockStream(_blocks_of(source, wanted), source.close))
    return StreamingResponse(body, 206 if wanted.is_part else 200, headers, media_type)


def _blocks_of(source: ByteSource, wanted: WantedBytes) -> Iterator[bytes]:
    place = wanted.start
    while place < wanted.stop:
        block = source.read(place, min(BLOCK_BYTES, wanted.stop - place))
        if not block:
            raise OSError("the file became shorter while it was read")
        place += len(block)
        yield block


async def _sent(console: Console, blocks: BlockStream, first: bytes = b"") -> AsyncIterator[bytes]:
    """Yield blocks that are made in threads; close behind them, also if whoever reads is gone."""
    try:
        if first:
            yield first
        while block := await console.threads.run(blocks.next):
            yield block
    finally:
        blocks.close()


async def _enter(
    console: Console, who: Who, row: Row, name: str, wanted: WantedBytes, size: int
) -> None:
    """Enter what goes out now: a download, or the seconds that are in a part of a file.

    What a page loads is entered in whole minutes, each once a minute.
    """
    if not wanted.is_part or (wanted.start, wanted.stop) == (0, size):
        await console.enter(who, "downloaded", row.id, file=name)
        return
    seconds = row.duration_ms / 1000
    start_s, stop_s = wanted.start / size * seconds, wanted.stop / size * seconds
    if not who.is_ambient:
        part = {"from_s": round(start_s, 3), "to_s": round(stop_s, 3)}
        await console.enter(who, "heard", row.id, file=name, **part)
        return
    minutes = range(int(start_s // _MINUTE), max(1, math.ceil(stop_s / _MINUTE)))
    key, now = (who.key, row.id, name), time.monotonic()
    if console.loaded.is_new(key, minutes, now):
        to_s = round(min(seconds, minutes.stop * _MINUTE), 3)
        from_s = minutes.start * _MINUTE
        await console.enter(who, "fetched", row.id, file=name, from_s=from_s, to_s=to_s)
        console.loaded.add(key, minutes, now)  # only now: what was refused is asked for again


async def file_response(request: Request, row: Row, name: str, media_type: str) -> Response:
    """Return a file of a recording that is no audio: it is not entered into the ledger."""
    console = console_of(request)

    def read() -> tuple[bytes, str]:
        folder = console.config.recordings / row.folder
        try:
            with open_regular(folder / name) as file:
                status = os.fstat(file.fileno())
                content, etag = file.read(), f"{status.st_mtime_ns:x}-{status.st_size:x}"
        except FileNotFoundError:
            raise not_found() from None
        if name == layout.RECORDING_JSON and (shown := _without_hidden(row, decode(content))):
            return shown, f'"{etag}-{len(shown):x}"'
        return content, f'"{etag}"'

    content, etag = await console.threads.run(read)
    if is_unchanged(request, etag):
        return not_modified(etag)
    wanted = wanted_range(request, len(content), etag)
    headers = {"ETag": etag, "Cache-Control": KEPT, "Accept-Ranges": "bytes"}
    if wanted.is_part:
        headers["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{len(content)}"
    part = content[wanted.start : wanted.stop]
    return Response(part, 206 if wanted.is_part else 200, headers, media_type)


def _without_hidden(row: Row, document: Recording) -> bytes | None:
    """Return a document that does not name a part before it which is out of the reader's scope.

    `None` is that it names none, so that the file is sent as it is.
    """
    if document.previous is None or row.previous is not None:
        return None
    return encode(msgspec.structs.replace(document, previous=None))


async def zip_response(request: Request, rows: Sequence[Row], name: str) -> Response:
    """Return all files of some recordings as one zip archive, which is made while it is sent.

    Each recording is in the ledger before its first byte goes out. One that cannot be read is
    told of in the archive, where there are others.

    Raises:
        LedgerError: nothing can be entered.
        UnreadableError: the only one cannot be read.
    """
    console, who = console_of(request), who_asks(request)
    headers = {
        "Cache-Control": "no-store",
        "Content-Disposition": f'attachment; filename="{name}"',
    }
    if request.method == "HEAD":
        return Response(None, 200, headers, "application/zip")
    packed = zip_blocks(_folders(console, who, rows))
    blocks = BlockStream(packed, packed.close)
    try:
        first = await console.threads.run(blocks.next)
    except BaseException:
        blocks.close()
        raise
    return StreamingResponse(_sent(console, blocks, first), 200, headers, "application/zip")


def _folders(console: Console, who: Who, rows: Sequence[Row]) -> Iterator[ZipFolder]:
    """Yield what an archive has of each recording, behind its entry. Waits for the disk."""
    for row in rows:
        folder = console.config.recordings / row.folder
        try:
            document = store.read(folder).recording
        except UnreadableError as error:
            if len(rows) == 1:
                raise
            text = f"This recording cannot be read: {error}.\n"
            yield ZipFolder(folder, contents={"unreadable.txt": text.encode()})
            continue
        console.enter_now(who, "downloaded", row.id, file="all.zip")
        shown = _without_hidden(row, document)
        contents = {} if shown is None else {layout.RECORDING_JSON: shown}
        yield ZipFolder(folder, names_of(document), contents)


async def rows_of(request: Request, ids: Sequence[str]) -> list[Row]:
    """Return the rows of several recordings, each once.

    Raises:
        NotFoundError: one of them does not exist for who asks.
    """
    console, scope = console_of(request), who_asks(request).scope

    def read() -> list[Row]:
        return [console.catalogue.get(recording_id, scope) for recording_id in dict.fromkeys(ids)]

    return await console.threads.run(read)
