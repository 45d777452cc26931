"""The API for programs, version 1: every operation is a row of `OPERATIONS`.

A program sends an API token. What its account or token may not see does not exist: the answer is
the same 404 as for what never was there.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from receiver.catalogue.query import LONGEST_VALUE, MOST_ROWS, SORTS, STATES
from receiver.catalogue.rows import Row
from receiver.catalogue.search import Facets
from receiver.console import admin_api, changes, downloads, live_page
from receiver.console.admin_api import LEDGER_WORDS, LedgerPage, ledger_page
from receiver.console.audio import MEDIA_TYPES
from receiver.console.context import console_of, json_response, who_asks
from receiver.console.openapi import API, Operation, body_of, document, query_word
from receiver.console.problems import Problem, not_found
from receiver.console.routes import Endpoint
from receiver.console.who import Role
from receiver.disk import layout
from receiver.errors import AnnotationError, BadWord
from receiver.lifecycle.acts import Acts
from receiver.recording import annotations as notes
from receiver.recording.annotations import (
    LONGEST_LABEL,
    LONGEST_NOTE,
    LONGEST_REASON,
    Annotations,
    Note,
)

_LONGEST_AUDIO_S: Final = 1e7


class Me(msgspec.Struct, frozen=True):
    """Who asks: the account, what it may do, and the parameters that it is limited to."""

    name: str
    role: Role
    parameters: dict[str, str]


class Recordings(msgspec.Struct, frozen=True):
    """A page of recordings; `next` is the path of the one behind it.

    `total` is how many agree on all pages, and at least so many if `total_is_exact` is false.
    """

    recordings: list[Row]
    next: str | None
    total: int
    total_is_exact: bool


class Details(msgspec.Struct, frozen=True):
    """A recording, what people added to it, and the paths of its files that may be fetched."""

    recording: Row
    annotations: Annotations
    files: list[str]


class Selection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Several recordings, by their ids."""

    ids: Annotated[
        list[Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]],
        Meta(min_length=1, max_length=MOST_ROWS),
    ]


class NewLabel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A label to be put on a recording."""

    name: Annotated[str, Meta(min_length=1, max_length=LONGEST_LABEL)]


class NewNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A note to be written, about the whole recording or about the position `t_ms`."""

    text: Annotated[str, Meta(min_length=1, max_length=LONGEST_NOTE)]
    t_ms: Annotated[float, Meta(ge=0, le=2**53)] | None = None


class NewHold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a recording must be kept."""

    reason: Annotated[str, Meta(min_length=1, max_length=LONGEST_REASON)]


class Heard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which seconds of a recording were played."""

    from_s: Annotated[float, Meta(ge=0, le=_LONGEST_AUDIO_S)]
    to_s: Annotated[float, Meta(ge=0, le=_LONGEST_AUDIO_S)]


async def row_of(request: Request) -> Row:
    """Return the row of the recording in a request's path, within the scope of who asks.

    Raises:
        NotFoundError: there is none.
    """
    console, recording_id = console_of(request), request.path_params["recording_id"]
    if not layout.RECORDING_ID.fullmatch(recording_id):
        raise not_found()
    return await console.threads.run(console.catalogue.get, recording_id, who_asks(request).scope)


async def _me(request: Request) -> Response:
    who = who_asks(request)
    return json_response(request, Me(who.name, who.role, dict(who.scope)))


async def _recordings(request: Request) -> Response:
    console, who = console_of(request), who_asks(request)
    with _bad_words():
        query = who.search(request.query_params.multi_items(), datetime.now(UTC))
        page = await console.threads.run(console.catalogue.page, query, who.scope)
    following = None
    if page.next_after is not None:
        words = urlencode([*query.canonical(), ("after", page.next_after)])
        following = f"{API}/recordings?{words}"
    found = Recordings(page.rows, following, page.total, page.total_is_exact)
    return json_response(request, found)


async def _facets(request: Request) -> Response:
    console, who = console_of(request), who_asks(request)
    with _bad_words():
        query = who.search(request.query_params.multi_items(), datetime.now(UTC))
        return json_response(
            request, await console.threads.run(console.catalogue.facets, query, who.scope)
        )


class _bad_words:  # noqa: N801  it is used as a function
    """Turns the errors of a search into problems."""

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, BadWord):
            raise Problem(400, f"The search cannot be used: {error}.", word=error.word) from None


async def _recording(request: Request) -> Response:
    console, row = console_of(request), await row_of(request)
    folder = console.config.recordings / row.folder
    who = who_asks(request)
    added = who.seen(await console.threads.run(notes.read, folder))
    details = Details(row, added, _paths_of(row) if who.hears else [])
    etag = f'"{hashlib.sha256(msgspec.json.encode(details)).hexdigest()[:32]}"'
    if downloads.is_unchanged(request, etag):
        return downloads.not_modified(etag)
    response = json_response(request, details)
    response.headers.update({"ETag": etag, "Cache-Control": downloads.KEPT})
    return response


def _paths_of(row: Row) -> list[str]:
    names = [*row.tracks, *([layout.STEREO] if row.tracks else [])]
    audio = [f"{name}.{kind}" for name in names for kind in MEDIA_TYPES]
    files = (layout.RECORDING_JSON, layout.PEAKS_DAT, layout.TIMELINE_JSON, "all.zip")
    return [f"{API}/recordings/{row.id}/{name}" for name in (*audio, *files)]


def _audio(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        return await downloads.track_response(request, await row_of(request), name, kind)

    return handle


def _file(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        return await downloads.file_response(request, await row_of(request), name, media_type)

    return handle


async def _zip(request: Request) -> Response:
    row = await row_of(request)
    return await downloads.zip_response(request, [row], f"{row.id}.zip")


async def _zip_of_many(request: Request, body: Selection) -> Response:
    rows = await downloads.rows_of(request, body.ids)
    return await downloads.zip_response(request, rows, "recordings.zip")


async def _heard(request: Request, body: Heard) -> Response:
    row = await row_of(request)
    if not body.from_s < body.to_s or body.from_s * 1000 > row.duration_ms:
        raise Problem(422, f"from_s must be before to_s, and within {row.duration_ms / 1000:g} s.")
    to_s = min(body.to_s, row.duration_ms / 1000)
    await console_of(request).enter(
        who_asks(request), "heard", row.id, from_s=body.from_s, to_s=to_s
    )
    return Response(status_code=204)


async def _act(request: Request, act: Callable[[Acts, Path], Any]) -> Any:
    """Return what an act returns that changes the annotations of the recording in the path."""
    console, who, row = console_of(request), who_asks(request), await row_of(request)
    acts = Acts(console.config.recordings, who=who.name, via=who.way)

    def change() -> Any:
        result = act(acts, console.config.recordings / row.folder)
        console.catalogue.touch(row.id)
        return result

    try:
        return await console.threads.run(change)
    except AnnotationError as error:
        raise Problem(422, f"This cannot be added: {error}.") from None


async def _add_label(request: Request, body: NewLabel) -> Response:
    added = await _act(request, lambda acts, folder: acts.add_label(folder, body.name))
    return json_response(request, added, 201)


async def _remove_label(request: Request) -> Response:
    name = request.path_params["label"]
    await _act(request, lambda acts, folder: acts.remove_label(folder, name))
    return Response(status_code=204)


async def _add_note(request: Request, body: NewNote) -> Response:
    t_ms = None if body.t_ms is None else round(body.t_ms)
    note = await _act(request, lambda acts, folder: acts.add_note(folder, body.text, t_ms=t_ms))
    return json_response(request, note, 201)


async def _remove_note(request: Request) -> Response:
    note_id = request.path_params["note_id"]
    await _act(request, lambda acts, folder: acts.remove_note(folder, note_id))
    return Response(status_code=204)


async def _hold(request: Request, body: NewHold) -> Response:
    held = await _act(request, lambda acts, folder: acts.hold(folder, body.reason))
    return json_response(request, held, 201)


async def _release(request: Request) -> Response:
    await _act(request, lambda acts, folder: acts.release(folder))
    return Response(status_code=204)


async def _call(request: Request) -> Response:
    console, who = console_of(request), who_asks(request)
    call_sid = request.path_params["call_sid"]
    found = await console.threads.run(console.catalogue.call, call_sid, who.scope)
    if not found:
        raise not_found()
    return json_response(request, found)


async def _history(request: Request) -> Response:
    return await ledger_page(request, (await row_of(request)).id)


async def _description(request: Request) -> Response:
    return json_response(request, described())


# A word without a value is as if it were not there: forms send all of theirs.
_TIME: Final = {
    "anyOf": [
        {"type": "string", "format": "date-time"},
        {"type": "string", "format": "date"},
        {"type": "string", "pattern": "^([0-9]{1,4}[smhdw])?$"},
    ]
}
_DURATION: Final = {"type": "string", "pattern": r"^([0-9]{1,9}(\.[0-9]{1,3})?[smh]?)?$"}
_AFTER: Final = {"type": "string", "pattern": r"^([0-9]{1,18}(_[0-9]{1,15}(\.[0-9]{1,12})?)?)?$"}
_SEARCH: Final = (
    query_word(
        "q",
        "words, or their beginnings, in parameters, labels and notes",
        type="string",
        pattern=r"^$|[\p{L}\p{N}]",
        maxLength=LONGEST_VALUE,
    ),
    query_word("from", "RFC 3339, a date, or an age such as 24h", **_TIME),
    query_word("to", "the same; a date is included", **_TIME),
    query_word("call", "the call's id"),
    query_word("stream", "the stream's id"),
    query_word("label", "a label; may come several times"),
    query_word("finding", "the code of a finding; may come several times"),
    query_word("track", "which it has", enum=["inbound", "outbound", ""]),
    query_word("complete", "whether a listener misses nothing", enum=["yes", "no", ""]),
    query_word("held", "whether it is held", enum=["yes", "no", ""]),
    query_word("min_duration", "seconds, or with a unit: 90, 5m, 1h", **_DURATION),
    query_word("max_duration", "the same", **_DURATION),
    query_word("state", "where its audio is", enum=[*STATES, ""]),
    {
        **query_word("param", "`param.NAME=VALUE`; * at the end stands for any rest"),
        "style": "form",
        "explode": True,
        "schema": {
            "type": "object",
            "patternProperties": {r"^param\..{1,50}$": {"type": "string", "maxLength": 500}},
            "additionalProperties": False,
        },
    },
)
_PAGING: Final = (
    query_word("sort", "the order", enum=[*SORTS, ""]),
    query_word("after", "as in `next` of the page before, and of the same sort", **_AFTER),
    query_word("limit", "how many", type="integer", minimum=1, maximum=MOST_ROWS),
)
_ONE: Final = "/recordings/{recording_id}"
_get: Final = functools.partial(Operation, method="GET")
_post: Final = functools.partial(Operation, method="POST")
_delete: Final = functools.partial(Operation, method="DELETE", status=204)
_NAMES: Final = ("inbound", "outbound", layout.STEREO)
_BINARY: Final = "application/octet-stream"

OPERATIONS: Final = (
    _get(path="/me", summary="Who asks", handler=_me, role=Role.VIEWER, result=Me),
    _get(
        path="/recordings",
        summary="Find recordings",
        handler=_recordings,
        role=Role.VIEWER,
        result=Recordings,
        query=(*_SEARCH, *_PAGING),
    ),
    _get(
        path="/facets",
        summary="What the recordings of a search have in common",
        handler=_facets,
        role=Role.VIEWER,
        result=Facets,
        query=_SEARCH,
    ),
    _get(
        path="/calls/{call_sid}",
        summary="All recordings of a call, the oldest first",
        handler=_call,
        role=Role.VIEWER,
        result=list[Row],
        errors=(404,),
    ),
    _post(
        path="/recordings/recordings.zip",
        summary="All files of several recordings",
        handler=_zip_of_many,
        role=Role.LISTENER,
        body=Selection,
        media=("application/zip",),
        errors=(404,),
    ),
    _get(
        path=_ONE,
        summary="One recording",
        handler=_recording,
        role=Role.VIEWER,
        result=Details,
        errors=(404,),
    ),
    *(
        _get(
            path=f"{_ONE}/{name}.{kind}",
            summary=f"The {name} audio as {kind}",
            handler=_audio(name, kind),
            role=Role.LISTENER,
            media=(media_type,),
            errors=(404, 416, *((422,) if kind == "opus" or name == layout.STEREO else ())),
        )
        for name in _NAMES
        for kind, media_type in MEDIA_TYPES.items()
    ),
    *(
        _get(
            path=f"{_ONE}/{name}",
            summary=summary,
            handler=_file(name, media_type),
            role=Role.LISTENER,
            media=(media_type,),
            errors=(404, 416),
        )
        for name, media_type, summary in (
            (layout.RECORDING_JSON, "application/json", "The document as it is on disk"),
            (layout.TIMELINE_JSON, "application/json", "What happened when"),
            (layout.PEAKS_DAT, _BINARY, "The waveform, in audiowaveform's format, version 2"),
        )
    ),
    _get(
        path=f"{_ONE}/all.zip",
        summary="All files of the recording",
        handler=_zip,
        role=Role.LISTENER,
        media=("application/zip",),
        errors=(404,),
    ),
    _get(
        path=f"{_ONE}/ledger",
        summary="Who heard and changed it",
        handler=_history,
        role=Role.MANAGER,
        result=LedgerPage,
        query=LEDGER_WORDS,
        errors=(404,),
    ),
    _post(
        path=f"{_ONE}/heard",
        summary="Report which seconds were played",
        handler=_heard,
        role=Role.LISTENER,
        body=Heard,
        status=204,
        errors=(404, 422),
    ),
    *(
        _post(
            path=f"{_ONE}/{path}",
            summary=summary,
            handler=handler,
            role=Role.MANAGER,
            body=body,
            result=result,
            status=201,
            errors=(404, 422),
        )
        for path, summary, handler, body, result in (
            ("labels", "Put a label on it", _add_label, NewLabel, Annotations),
            ("notes", "Write a note about it", _add_note, NewNote, Note),
            ("hold", "Keep it from being erased or deleted", _hold, NewHold, Annotations),
        )
    ),
    *(
        _delete(
            path=f"{_ONE}/{path}",
            summary=summary,
            handler=handler,
            role=Role.MANAGER,
            errors=(404, 422),
        )
        for path, summary, handler in (
            ("labels/{label:path}", "Remove a label", _remove_label),
            ("notes/{note_id}", "Remove a note", _remove_note),
            ("hold", "End the hold", _release),
        )
    ),
    *changes.OPERATIONS,
    *live_page.OPERATIONS,
    *admin_api.OPERATIONS,
    _get(
        path="/openapi.json",
        summary="This description",
        handler=_description,
        role=None,
        result=dict[str, Any],
    ),
)
"""Every operation of the API."""
_PATH_WORDS: Final = {
    "recording_id": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
    "delivery": {"type": "string", "pattern": "^[0-9]{1,15}$"},
    **{
        name: {"type": "string", "minLength": 1}
        for name in ("call_sid", "expectation", "label", "note_id", "account", "token_id")
    },
}


@functools.cache
def described() -> dict[str, Any]:
    """Return the description of all operations."""
    return document(OPERATIONS, _PATH_WORDS)


def _handler(operation: Operation) -> Callable[[Request], Awaitable[Response]]:
    """Return the handler of an operation, which reads its body before."""
    if operation.body is None:
        return operation.handler

    async def handle(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise Problem(415, "Send JSON, with Content-Type: application/json.")
        try:
            body = await body_of(request, operation.body)
        except ValueError as error:
            raise Problem(400, f"The body cannot be used: {error}.") from None
        return await operation.handler(request, body)

    return handle


ENDPOINTS: Final = tuple(
    Endpoint(
        path=f"{API}{operation.path}",
        handler=_handler(operation),
        role=operation.role,
        methods=(operation.method,),
        is_unlimited=operation.is_unlimited,
    )
    for operation in OPERATIONS
)
