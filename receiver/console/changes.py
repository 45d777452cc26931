"""What managers change of a recording in its page, or of many in the list; erasing and deleting.

Each change is in the ledger before it is made (`lifecycle.acts`), and in the catalogue before the
answer goes out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlencode

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from receiver.console import downloads, views
from receiver.console.context import Console, console_of, json_response, who_asks
from receiver.console.openapi import Operation, query_word
from receiver.console.problems import Problem, not_found
from receiver.console.routes import Endpoint
from receiver.console.sign_in import form_of
from receiver.console.who import Role, Who
from receiver.disk import layout
from receiver.errors import (
    AnnotationError,
    CatalogueError,
    ConfigurationError,
    LedgerError,
    NotFoundError,
    RemovalError,
    UnreadableError,
)
from receiver.lifecycle.acts import Acts
from receiver.lifecycle.delete import Remover
from receiver.media import Track
from receiver.recording.annotations import LONGEST_REASON
from receiver.recording.store import Tombstone

Change = Callable[[Acts, Path], object]
SAID: Final = ("said", "done", "of")
"""Words of an address that say what the page before did."""
_SAID: Final = {
    "labelled": "The label is there.",
    "unlabelled": "The label is removed.",
    "noted": "The note is there.",
    "note_removed": "The note is removed.",
    "held": "It is held: nothing erases, expires or deletes it.",
    "released": "It is released.",
    "erased": "The span is erased, for good.",
    "deleted": "The recording is deleted, for good.",
    "user_added": "The user is added.",
    "user_changed": "The role is changed; it counts from the next request on.",
    "user_removed": "The user is removed.",
    "token_revoked": "The token is revoked.",
    "resent": "It is sent again now.",
}


_LONGEST_AUDIO_S: Final = 1e7
_Seconds = Annotated[float, Meta(ge=0, le=_LONGEST_AUDIO_S)]
_Removal = Callable[[Remover, Path], Tombstone]


def said_of(request: Request) -> dict[str, str] | None:
    """Return what the page before did, in words; its name is in the address, and how often."""
    text = _SAID.get(request.query_params.get("said", ""))
    if text is None:
        return None
    done, of = (_count(request.query_params.get(name, "")) for name in ("done", "of"))
    if of < 2 and done == of:
        return {"text": text, "tone": "good"}
    left = f" {of - done:,} could not be changed: open them to see why." if done < of else ""
    return {"text": f"{done:,} of {of:,}: {text}{left}", "tone": "bad" if left else "good"}


def _count(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0


def change(console: Console, who: Who, recording_id: str, act: Change) -> None:
    """Change one recording. Waits for the disk.

    Args:
        console: the console.
        who: who asks; what is out of scope is not found.
        recording_id: an id, or its beginning.
        act: is called with what this user can do, and the recording's folder.

    Raises:
        NotFoundError: there is no such recording within the scope, or nothing of it to remove.
        Problem: 400, the text cannot be kept; 503, its files or the ledger cannot be used.
    """
    row = console.catalogue.get(recording_id, who.scope)
    recordings = console.config.recordings
    try:
        act(Acts(recordings, who=who.name, via=who.way), recordings / row.folder)
    except AnnotationError as error:
        raise Problem(400, f"This cannot be kept: {error}.") from None
    except (LedgerError, UnreadableError, ConfigurationError) as error:
        raise Problem(503, f"Nothing was changed: {error}.") from error
    with contextlib.suppress(CatalogueError):  # it is done, and followers are told of it
        console.catalogue.touch(row.id)


async def _labels(request: Request) -> Response:
    form = await form_of(request)
    if "remove" in form:
        name = form["remove"]
        return await _changed(request, "unlabelled", lambda acts, f: acts.remove_label(f, name))
    name = form.get("name", "")
    return await _changed(request, "labelled", lambda acts, f: acts.add_label(f, name))


async def _notes(request: Request) -> Response:
    form = await form_of(request)
    if "remove" in form:
        note_id = form["remove"]
        return await _changed(request, "note_removed", lambda acts, f: acts.remove_note(f, note_id))
    text = form.get("text", "")
    try:
        at = views.seconds_of(form.get("at", ""))
    except ValueError:
        raise Problem(400, "The position must be like 62.5, 1:02.5 or 1:02:03.") from None
    t_ms = None if at is None else round(at * 1000)
    return await _changed(request, "noted", lambda acts, f: acts.add_note(f, text, t_ms=t_ms))


async def _hold(request: Request) -> Response:
    reason = (await form_of(request)).get("reason", "")
    return await _changed(request, "held", lambda acts, f: acts.hold(f, reason))


async def _release(request: Request) -> Response:
    return await _changed(request, "released", lambda acts, f: acts.release(f))


async def _changed(request: Request, said: str, act: Change) -> Response:
    """Change one recording, and lead back to its page."""
    console, who = console_of(request), who_asks(request)
    recording_id = request.path_params["recording_id"]
    await console.threads.run(change, console, who, recording_id, act)
    return RedirectResponse(f"{views.recording_url(recording_id)}?said={said}", 303)


async def _selected(request: Request) -> Response:
    """Change all recordings that were selected in a list, and lead back to the list."""
    console, who = console_of(request), who_asks(request)
    form = await request.form()
    ids = [value for value in form.getlist("id") if isinstance(value, str)]
    texts = {name: value for name, value in form.items() if isinstance(value, str)}
    if not ids:
        raise Problem(400, "No recording was selected.")
    said, act = _act_on_many(texts)
    done = await _change_all(console, who, ids, act)
    back = texts.get("back", "")
    back = back if back.startswith("/recordings") else "/recordings"
    words = urlencode({"said": said, "done": done, "of": len(ids)})
    return RedirectResponse(f"{back}{'&' if '?' in back else '?'}{words}", 303)


def _act_on_many(form: Mapping[str, str]) -> tuple[str, Change]:
    if form.get("act") == "hold":
        reason = form.get("reason", "")
        return "held", lambda acts, folder: acts.hold(folder, reason)
    name = form.get("label", "")
    return "labelled", lambda acts, folder: acts.add_label(folder, name)


async def _change_all(console: Console, who: Who, ids: Sequence[str], act: Change) -> int:
    """Change one recording after the other, each within its own time; return how many could be.

    Raises:
        Problem: nothing could be changed; or 503, in the midst of it, which says how many were.
        NotFoundError: none is there.
    """
    done, first = 0, None
    for recording_id in ids:
        try:
            await console.threads.run(change, console, who, recording_id, act)
            done += 1
        except (Problem, NotFoundError) as error:
            if isinstance(error, Problem) and error.status == HTTPStatus.SERVICE_UNAVAILABLE:
                text = f"{done} of {len(ids)} are changed, and then: {error.detail}"
                raise Problem(503, text, headers=error.headers) from None
            first = first or error
    if first is not None and not done:
        raise first
    return done


async def _selected_zip(request: Request) -> Response:
    """Send all files of the recordings that were selected in a list."""
    form = await request.form()
    ids = [value for value in form.getlist("id") if isinstance(value, str)]
    if not ids:
        raise Problem(400, "No recording was selected.")
    rows = await downloads.rows_of(request, ids)
    return await downloads.zip_response(request, rows, "recordings.zip")


class NewErasure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which seconds of a recording are to become silence, and why; no tracks are all of them."""

    from_s: _Seconds
    to_s: _Seconds
    reason: Annotated[str, Meta(min_length=1, max_length=LONGEST_REASON)]
    tracks: Annotated[list[Track], Meta(max_length=len(Track))] = []  # msgspec copies it


async def _removed(request: Request, remove: _Removal) -> Tombstone:
    """Erase or delete the recording in a request's path; return what is left of what was.

    Raises:
        NotFoundError: there is none within the scope of who asks.
        Problem: 404, that is no id; 409, it is held, or cannot be changed now; 422, the reason
            cannot be kept.
    """
    console, who = console_of(request), who_asks(request)
    recording_id, config = request.path_params["recording_id"], console.config
    if not layout.RECORDING_ID.fullmatch(recording_id):
        raise not_found()

    def work() -> Tombstone:
        row = console.catalogue.get(recording_id, who.scope)
        remover = Remover(config.recordings, config.spool, who=who.name, via=who.way)
        done = remove(remover, config.recordings / row.folder)
        with contextlib.suppress(CatalogueError):  # it is done, and followers are told of it
            console.catalogue.touch(row.id)
        return done

    try:
        return await console.encoding.run(work)
    except RemovalError as error:
        raise Problem(409, f"Nothing was changed: {error}.") from None
    except AnnotationError as error:
        raise Problem(422, f"This cannot be kept: {error}.") from None


async def _delete(request: Request) -> Response:
    reason = request.query_params.get("reason", "")
    await _removed(request, lambda remover, folder: remover.delete(folder, reason))
    return Response(status_code=204)


async def _erase(request: Request, body: NewErasure) -> Response:
    return json_response(request, await _removed(request, _erasure(body)))


def _erasure(body: NewErasure) -> _Removal:
    def work(remover: Remover, folder: Path) -> Tombstone:
        from receiver.lifecycle.erase import erase  # numpy, which a console needs for nothing else

        span = body.from_s * 1000, body.to_s * 1000
        return erase(remover, folder, *span, body.reason, tracks=body.tracks)

    return work


async def _delete_form(request: Request) -> Response:
    reason = (await form_of(request)).get("reason", "")
    await _removed(request, lambda remover, folder: remover.delete(folder, reason))
    return RedirectResponse(f"/recordings?{urlencode({'said': 'deleted'})}", 303)


async def _erase_form(request: Request) -> Response:
    form = await form_of(request)
    try:
        begin, end = (views.seconds_of(form.get(name, "")) for name in ("from", "to"))
        tracks = [Track(form["track"])] if form.get("track") else []
    except ValueError:
        raise Problem(400, "The positions must be like 62.5, 1:02.5 or 1:02:03.") from None
    if begin is None or end is None:
        raise Problem(400, "Write from where to where it is to be erased.")
    body = NewErasure(begin, end, form.get("reason", ""), tracks)
    await _removed(request, _erasure(body))
    url = views.recording_url(request.path_params["recording_id"])
    return RedirectResponse(f"{url}?said=erased", 303)


_ONE: Final = "/recordings/{recording_id}"
OPERATIONS: Final = (
    Operation(
        method="DELETE",
        path=_ONE,
        summary="Delete it for good; a tombstone stays",
        handler=_delete,
        role=Role.MANAGER,
        status=204,
        query=(
            {
                **query_word("reason", "why; it stays in the ledger", maxLength=LONGEST_REASON),
                "required": True,
            },
        ),
        errors=(404, 409, 422),
    ),
    Operation(
        method="POST",
        path=f"{_ONE}/erase",
        summary="Replace a span of it by silence, for good",
        handler=_erase,
        role=Role.ADMIN,
        body=NewErasure,
        result=Tombstone,
        errors=(404, 409, 422),
    ),
)
"""Operations of the API."""
ENDPOINTS: Final = (
    Endpoint(path=f"{_ONE}/delete", handler=_delete_form, role=Role.MANAGER, methods=("POST",)),
    Endpoint(path=f"{_ONE}/erase", handler=_erase_form, role=Role.ADMIN, methods=("POST",)),
    *(
        Endpoint(
            path=f"/recordings/{{recording_id}}/{name}",
            handler=handler,
            role=Role.MANAGER,
            methods=("POST",),
        )
        for name, handler in (
            ("labels", _labels),
            ("notes", _notes),
            ("hold", _hold),
            ("release", _release),
        )
    ),
    Endpoint(path="/recordings/selected", handler=_selected, role=Role.MANAGER, methods=("POST",)),
    Endpoint(
        path="/recordings/selected.zip",
        handler=_selected_zip,
        role=Role.LISTENER,
        methods=("POST",),
    ),
)
