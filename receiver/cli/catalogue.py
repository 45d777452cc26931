"""`receiver catalogue rebuild`, `check`, `status`; and what `receiver list` asks the catalogue.

SQLAlchemy is imported only where there is a catalogue to be read or made: listing folders needs
none of it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import click

from receiver.catalogue.query import LIMIT, MOST_ROWS, PARAMETER, Cursor, Query, parse
from receiver.cli.options import EXTRAS, named_settings, need_extra
from receiver.disk import layout
from receiver.errors import (
    BadWord,
    CatalogueError,
    ConfigurationError,
    NotFoundError,
    UnreadableError,
)
from receiver.media import timestamp, visible
from receiver.recording import store
from receiver.recording.store import Damaged, Kept, RecordingFilter

if TYPE_CHECKING:
    from receiver.catalogue.catalogue import Catalogue
    from receiver.catalogue.rows import Row

Pairs = Sequence[tuple[str, str]]
_EXTRA: Final = "catalogue"
_PROGRESS_SECONDS: Final = 0.2
_QUIET_PROGRESS_SECONDS: Final = 30.0
"""Between lines where nobody watches: a log shows that it is still at work."""
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


def checked_time(_: click.Context, option: click.Parameter, given: str | None) -> str | None:
    """Return a time of a flag as it was given, if it is one: an age is to stay an age."""
    try:
        if given is not None:
            store.parse_since(given, datetime.now(UTC))
    except ValueError as error:
        raise click.BadParameter(str(error), param=option) from None
    return given


def pairs_of(words: Iterable[str]) -> list[tuple[str, str]]:
    """Return words and values of arguments such as `label=checked`.

    Raises:
        click.UsageError: one of them is none.
    """
    pairs = [word.partition("=") for word in words]
    for name, equals, _ in pairs:
        if not equals or not name:
            raise click.UsageError(f"{name[:100]!r} is no word: give WORD=VALUE")
    return [(name, value) for name, _, value in pairs]


def pairs_of_options(
    *, call_sid: str | None, parameters: Iterable[str], since: str | None
) -> list[tuple[str, str]]:
    """Return what the flags of `receiver list` mean, as words and values."""
    for given in parameters:
        if not given.partition("=")[0] or "=" not in given:
            raise click.BadParameter("it must be NAME=VALUE", param_hint="'--param'")
    literal = [f"{PARAMETER}{_without_star(each)}" for each in parameters]
    named = {"call": call_sid, "from": since}
    return [*pairs_of(literal), *((name, value) for name, value in named.items() if value)]


def _without_star(given: str) -> str:
    """Return a value of `--param` as a word has it, where a star at the end is a wildcard."""
    return given[:-1] + "\\*" if given.endswith("*") else given


def select(
    recordings: Path, url: str | None, pairs: Pairs, *, disk: bool
) -> Iterator[Kept | Damaged]:
    """Yield the recordings that words ask for, newest first, as they are on disk.

    Which these are, the catalogue says, if there is one; `disk` reads all folders instead.

    Raises:
        click.UsageError: a word is unknown or of no use, or needs a catalogue.
        TapreelError: the catalogue cannot be used.
    """
    try:
        query = parse(pairs, datetime.now(UTC), in_notes=True)
    except BadWord as error:
        raise click.UsageError(str(error)) from None
    wanted, beyond = _wanted(pairs, query)
    # A parameter without a value is asked of the folders: in a URL, no value is no word.
    is_empty = any(not value for _, value in pairs)
    if not (disk or is_empty) and _is_there(url, recordings):
        with _opened(recordings, url) as catalogue:
            if catalogue.status().reconciled_ms:  # if not, there are accounts in it, and no more
                yield from _from_catalogue(catalogue, query)
                return
    if beyond:
        advice = "leave --disk out" if disk else "`receiver catalogue rebuild` makes one"
        raise click.UsageError(f"{', '.join(beyond)}: only a catalogue knows; {advice}")
    yield from store.select(recordings, wanted)


def find(recordings: Path, url: str | None, recording_id: str) -> Path:
    """Return the folder of the recording with this id, prefix of an id, or folder name.

    Where there is a catalogue, it is asked: walking a million folders takes seconds. What it does
    not know, or has at another place, is looked for in the folders.

    Raises:
        NotFoundError: there is none, or more than one; or the prefix is too short.
    """
    if _is_there(url, recordings):
        with (
            contextlib.suppress(NotFoundError, CatalogueError),
            _opened(recordings, url) as catalogue,
        ):
            folder = recordings / catalogue.get(recording_id, {}).folder
            if folder.is_dir():
                return folder
    return store.find(recordings, recording_id)


def deleted(recordings: Path, pairs: Pairs) -> list[Row]:
    """Return what is left of the recordings that words ask for and that were deleted.

    Raises:
        click.UsageError: a word is unknown or of no use.
        ConfigurationError: the catalogue's libraries are missing, or tombstones cannot be read.
    """
    need_extra(_EXTRA)
    from receiver.catalogue.search import deleted as page_of

    try:
        query = parse(pairs, datetime.now(UTC))
        if query.limit == LIMIT:
            query = replace(query, limit=MOST_ROWS)
        return page_of(store.tombstones(recordings, newest_first=True), query).rows
    except BadWord as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        text = f"tombstones cannot be read: {error.strerror or error}"
        raise ConfigurationError(text) from error


def _wanted(pairs: Pairs, query: Query) -> tuple[RecordingFilter, list[str]]:
    """Return what can be asked of the folders, and the words that cannot."""
    since = None if query.since_ms is None else _EPOCH + timedelta(milliseconds=query.since_ms)
    parameters = {word: value for word, value in pairs if _is_whole_parameter(word, value)}
    beyond = [word for word, _ in pairs if word not in (*parameters, "call", "from")]
    whole = {
        word.removeprefix(PARAMETER): re.sub(r"\\\*\Z", "*", value)
        for word, value in parameters.items()
    }
    return RecordingFilter(dict(pairs).get("call"), whole, since), beyond


def _is_whole_parameter(word: str, value: str) -> bool:
    """Whether a word asks for a parameter's value, and not for a beginning of it."""
    return word.startswith(PARAMETER) and (not value.endswith("*") or value.endswith("\\*"))


def _is_there(url: str | None, recordings: Path) -> bool:
    """Whether there is a catalogue that can be read: made, and its libraries installed."""
    is_made = bool(url) or (recordings / layout.CATALOGUE / layout.CATALOGUE_SQLITE).is_file()
    return is_made and all(importlib.util.find_spec(module) for module in EXTRAS[_EXTRA])


def _opened(recordings: Path, url: str | None) -> Catalogue:
    need_extra(_EXTRA)
    from receiver.catalogue.catalogue import Catalogue

    return Catalogue(url, recordings)


def _from_catalogue(catalogue: Catalogue, query: Query) -> Iterator[Kept | Damaged]:
    """Yield what a search finds, page after page; first let the catalogue follow."""
    try:
        if not catalogue.is_reconciled():
            with _Progress("compared") as progress:
                catalogue.reconcile(progress)
        catalogue.catch_up()
    except (CatalogueError, OSError) as error:  # reading may be possible nevertheless
        _say(f"receiver: what follows may be out of date: {error}")
    is_limited = any(word == "limit" for word, _ in query.canonical())
    if not is_limited:
        query = replace(query, limit=MOST_ROWS)
    while True:
        page = catalogue.page(query, {})
        for row in page.rows:
            yield _read(catalogue.recordings / row.folder)
        if page.next_after is None or is_limited:
            return
        query = replace(query, after=Cursor.parse(page.next_after))


def _read(folder: Path) -> Kept | Damaged:
    try:
        return store.read(folder)
    except UnreadableError as error:
        return Damaged(folder, str(error))


class _Progress:
    """Says on stderr how many folders were read, where people watch; and now and then elsewhere."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._is_watched = _is_watched()
        self._interval = _PROGRESS_SECONDS if self._is_watched else _QUIET_PROGRESS_SECONDS
        self._began = self._shown_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_watched:
            click.echo("\r\033[K", err=True, nl=False)

    def __call__(self, count: int) -> None:
        """Say so, if it is time for it."""
        now = time.monotonic()
        if now - self._shown_at < self._interval:
            return
        self._shown_at = now
        rate = count / (now - self._began)
        text = f"{count} recordings {self._verb}, {rate:.0f} a second"
        click.echo(
            f"\r{text}\033[K" if self._is_watched else text, err=True, nl=not self._is_watched
        )


def _is_watched() -> bool:
    return sys.stderr.isatty()


def _say(text: str) -> None:
    click.echo(visible(text), err=True)


@click.group()
def catalogue() -> None:
    """Rebuild, check or describe the catalogue: the index by which recordings are found.

    It is made from files. Losing it loses nothing that `rebuild` does not bring back, but for the
    accounts of the console, which are in the same database.
    """


@catalogue.command()
@named_settings("recordings", "database_url")
def rebuild(recordings: Path, database_url: str | None) -> None:
    """Make the catalogue anew from the recordings folder; accounts stay.

    Recordings go on meanwhile, and what is interrupted can be run again. Ends with exit code 6
    where a recording cannot be read.
    """
    with _opened(recordings, database_url) as made, _Progress("read") as progress:
        changes = made.rebuild(progress)
    click.echo(f"{changes.added} recordings in the catalogue")
    _report(changes.problems, changes.unreadable)
    if changes.unreadable:
        raise UnreadableError(f"{changes.unreadable} recordings could not be read")


@catalogue.command()
@named_settings("recordings", "database_url")
def check(recordings: Path, database_url: str | None) -> None:
    """Compare the catalogue with every recording, and change nothing.

    Ends with exit code 6 where they differ.
    """
    _require(recordings, database_url)
    with _opened(recordings, database_url) as made, _Progress("checked") as progress:
        found = made.check(progress)
    click.echo(f"{found.checked} recordings checked")
    _report(found.problems, found.missing + found.outdated + found.left_over + found.unreadable)
    if not found.is_whole:
        raise UnreadableError(
            f"{found.missing} recordings are missing, {found.outdated} rows are out of date and"
            f" {found.left_over} are left over: `receiver catalogue rebuild` mends it"
        )
    if found.unreadable:
        raise UnreadableError(f"{found.unreadable} recordings could not be read")


@catalogue.command()
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@named_settings("recordings", "database_url")
def status(recordings: Path, database_url: str | None, *, as_json: bool) -> None:
    """Say where the catalogue is, how much is in it, and how far it is behind."""
    _require(recordings, database_url)
    with _opened(recordings, database_url) as made:
        found = made.status()
    compared = timestamp(found.reconciled_ms) if found.reconciled_ms else None
    values = {
        "database": found.where,
        "schema": found.schema,
        "recordings": found.recordings,
        "unread_bytes": found.unread_bytes,
        "compared_at": compared,
    }
    if as_json:
        click.echo(json.dumps(values, indent=2))
        return
    behind = "nothing" if not found.unread_bytes else f"{found.unread_bytes} bytes of its log"
    shown = {**values, "unread_bytes": behind, "compared_at": compared or "never, or interrupted"}
    names = {"unread_bytes": "not yet read", "compared_at": "compared"}
    for name, value in shown.items():
        click.echo(visible(f"{names.get(name, name):<14}{value}"))


def _require(recordings: Path, url: str | None) -> None:
    if not url and not (recordings / layout.CATALOGUE / layout.CATALOGUE_SQLITE).is_file():
        raise NotFoundError(
            f"there is no catalogue in {recordings}: `receiver catalogue rebuild` makes one"
        )


def _report(problems: Sequence[str], count: int) -> None:
    for problem in problems:
        _say(f"receiver: {problem}")
    if count > len(problems):
        _say(f"receiver: and {count - len(problems)} more")
