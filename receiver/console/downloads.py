"""Audio and other files of a recording over HTTP: ranges, what changed, and the ledger before it.

Who hears what is in the ledger before the first byte goes out: `downloaded` for a whole file,
`heard` for the part of it that a program asks for, `fetched` for what a page's player loads ahead;
what of that was played, the player reports.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from receiver.catalogue.rows import Row
from receiver.console.audio import MEDIA_TYPES, ByteSource, names_of, open_source, zip_blocks
from receiver.console.context import Console, console_of, who_asks
from receiver.console.problems import Problem, not_found
from receiver.console.who import Who
from receiver.disk.files import BLOCK_BYTES, open_regular
from receiver.lifecycle.ledger import Act
from receiver.recording import store

KEPT: Final = "private, no-cache"
"""Kept by the browser alone, and asked for again each time: who may hear it can change."""
_RANGE: Final = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))")
_WINDOW_SECONDS: Final = 60.0
"""What a player fetches is entered in whole minutes: it asks for a few seconds at a time."""


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
    body = _bytes_of(console, source, wanted)
    return StreamingResponse(body, 206 if wanted.is_part else 200, headers, media_type)


async def _bytes_of(
    console: Console, source: ByteSource, wanted: WantedBytes
) -> AsyncIterator[bytes]:
    try:
        place = wanted.start
        while place < wanted.stop:
            length = min(BLOCK_BYTES, wanted.stop - place)
            block = await console.threads.run(source.read, place, length)
            if not block:
                raise OSError("the file became shorter while it was read")
            place += len(block)
            yield block
    finally:
        source.close()


async def _enter(
    console: Console, who: Who, row: Row, name: str, wanted: WantedBytes, size: int
) -> None:
    """Enter a download, or the seconds that are in a part of a file, unless that is known."""
    if not wanted.is_part or (wanted.start, wanted.stop) == (0, size):
        await console.enter(who, "downloaded", row.id, file=name)
        return
    seconds = row.duration_ms / 1000
    span = (wanted.start / size * seconds, wanted.stop / size * seconds)
    if who.is_ambient:
        end = -(-span[1] // _WINDOW_SECONDS) * _WINDOW_SECONDS
        span = (span[0] // _WINDOW_SECONDS * _WINDOW_SECONDS, min(seconds, end))
    if not console.sent.is_new((who.key, row.id, name), span, time.monotonic()):
        return
    from_s, to_s = round(span[0], 3), round(span[1], 3)
    act: Act = "fetched" if who.is_ambient else "heard"
    await console.enter(who, act, row.id, file=name, from_s=from_s, to_s=to_s)


async def file_response(request: Request, row: Row, name: str, media_type: str) -> Response:
    """Return a file of a recording that is no audio: it is not entered into the ledger."""
    console = console_of(request)

    def read() -> tuple[bytes, str]:
        folder = console.config.recordings / row.folder
        try:
            with open_regular(folder / name) as file:
                status = os.fstat(file.fileno())
                return file.read(), f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
        except FileNotFoundError:
            raise not_found() from None

    content, etag = await console.threads.run(read)
    if is_unchanged(request, etag):
        return not_modified(etag)
    wanted = wanted_range(request, len(content), etag)
    headers = {"ETag": etag, "Cache-Control": KEPT, "Accept-Ranges": "bytes"}
    if wanted.is_part:
        headers["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{len(content)}"
    part = content[wanted.start : wanted.stop]
    return Response(part, 206 if wanted.is_part else 200, headers, media_type)


async def zip_response(request: Request, row: Row) -> Response:
    """Return all files of a recording as one zip archive, which is made while it is sent."""
    console, who = console_of(request), who_asks(request)
    folder = console.config.recordings / row.folder
    document = (await console.threads.run(store.read, folder)).recording
    headers = {
        "Cache-Control": "no-store",
        "Content-Disposition": f'attachment; filename="{row.id}.zip"',
    }
    if request.method == "HEAD":
        return Response(None, 200, headers, "application/zip")
    await console.enter(who, "downloaded", row.id, file="all.zip")
    blocks = zip_blocks(folder, names_of(document))

    async def body() -> AsyncIterator[bytes]:
        try:
            while block := await console.threads.run(next, blocks, b""):
                yield block
        finally:
            blocks.close()

    return StreamingResponse(body(), 200, headers, "application/zip")
