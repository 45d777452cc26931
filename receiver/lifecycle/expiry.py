"""Carrying out retention: which recordings are over, by the catalogue; then, by their files.

The catalogue says which ones may be; before one is deleted, everything is read again from its
folder, and decided again by the same rules (`lifecycle.retention`). So a catalogue that is wrong,
old or of another store deletes nothing.

Runs in the console's process, in a thread of low priority, and in commands; never in a process
that records. Everything waits for database and disk.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePath
from typing import Final

import sqlalchemy as sa
import structlog

from receiver.catalogue import rows
from receiver.catalogue.catalogue import Catalogue
from receiver.catalogue.schema import recordings as table
from receiver.config.settings import Config
from receiver.disk import layout
from receiver.disk.folders import folder_within, free_bytes
from receiver.errors import (
    NotFoundError,
    RemovalError,
    TapreelError,
    UnreadableError,
)
from receiver.lifecycle import delete, retention
from receiver.lifecycle.delete import Remover
from receiver.lifecycle.ledger import EntryFilter, Ledger
from receiver.lifecycle.retention import Expiry, Facts
from receiver.recording import store

EVERY_SECONDS: Final = 3600.0
HEARD_SECONDS: Final = 3600.0
"""For so long behind the last time that somebody was sent audio of it, a recording is in use."""
_USES: Final = frozenset({"heard", "fetched", "downloaded"})
_BATCH: Final = 5000
_LOOK_AGAIN_SECONDS: Final = 30.0
_NICENESS: Final = 19
_END_SECONDS: Final = 1.0
_LAST_RUN: Final = "retention"
"""Inside the folder of tombstones: its time is that of the last run."""
_COLUMNS: Final = [
    table.c[name] for name in ("n", "id", "folder", "started_at", "duration_ms", "held", "tokens")
]

log = structlog.get_logger("receiver.retention")


@dataclass
class Plan:
    """What would be deleted now: the oldest first, each with its reason.

    `in_use` would be, too, if nobody had heard them within the last hour; `wanting` is how many
    bytes cannot be freed, because holds and rules protect what is there.
    """

    total: int = 0
    expired: list[Expiry] = field(default_factory=list)
    in_use: list[Expiry] = field(default_factory=list)
    wanting: int = 0


@dataclass
class Outcome:
    """What a run has done: how many were deleted, kept after all, and failed."""

    deleted: int = 0
    kept: int = 0
    failed: int = 0


def facts_of(recordings: Path, folder: PurePath) -> Facts:
    """Return what of a recording matters for its retention, as its files have it.

    Raises:
        UnreadableError: its document cannot be read.
    """
    found = rows.read(recordings, folder)
    return retention.facts_from(found, _written_ms(recordings / folder))


def _written_ms(folder: Path) -> int | None:
    with contextlib.suppress(OSError):
        return (folder / layout.RECORDING_JSON).lstat().st_mtime_ns // 1_000_000
    return None


class Retention:
    """What the settings ask to be deleted of a store.

    Args:
        config: The settings.
        catalogue: Says what there is.
        now_ms: The clock; tests have one of their own.
        who: Who deletes; the ledger has it.
        via: Which way it came.

    Raises:
        ConfigurationError: a rule cannot be used.
    """

    def __init__(
        self,
        config: Config,
        catalogue: Catalogue,
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        who: str = "receiver",
        via: str = "retention",
    ) -> None:
        self.rules = retention.rules_of(config)
        self._config = config
        self._catalogue = catalogue
        self._now_ms = now_ms
        self._remover = Remover(config.recordings, config.spool, who=who, via=via)

    @property
    def is_asked_for(self) -> bool:
        """Whether any setting may delete anything."""
        sizes = (self._config.retention_min_free, self._config.retention_max_bytes)
        return bool(self.rules) or any(size is not None for size in sizes)

    def plan(self) -> Plan:
        """Return what would be deleted now.

        Raises:
            CatalogueError: the database cannot be used.
            TapreelError, OSError: a file or folder cannot be read.
        """
        self._catalogue.catch_up()
        now_ms, used = self._now_ms(), self._in_use()
        plan = Plan(total=self._total())
        for facts in self._old(now_ms, retention.shortest_ms(self.rules)):
            if found := retention.expired(self.rules, self._dated(facts), now_ms):
                (plan.in_use if facts.id in used else plan.expired).append(_lean(found))
        self._plan_for_space(plan, now_ms, used)
        return plan

    def run(self, *, max_share: int | None = None, stop: threading.Event | None = None) -> Outcome:
        """Delete what is to be deleted.

        Args:
            max_share: Percent of all recordings that may go at once; the setting by default.
            stop: Ends it between two recordings when it is set.

        Raises:
            RemovalError: more than that share would go; nothing was deleted.
            LedgerError: the ledger takes no entry; the rest is not deleted.
            Others as `plan`.
        """
        plan, outcome = self.plan(), Outcome()
        share = self._config.retention_max_share if max_share is None else max_share
        retention.refuse_too_many(len(plan.expired), plan.total, share)
        used, looked = self._in_use(), time.monotonic()
        for expiry in plan.expired:
            if stop is not None and stop.is_set():
                break
            if time.monotonic() - looked > _LOOK_AGAIN_SECONDS:
                used, looked = self._in_use(), time.monotonic()
            if expiry.facts.id in used:
                outcome.kept += 1
            else:
                self._delete(expiry, outcome)
        if plan.expired:
            self._catalogue.catch_up()
        return outcome

    def _delete(self, expiry: Expiry, outcome: Outcome) -> None:
        """Delete one recording, if its files say, too, that its time is over."""
        folder = self._config.recordings / expiry.facts.folder
        try:
            if not self._is_over(expiry):
                outcome.kept += 1
                return
            self._remover.delete(folder, f"retention, {expiry.rule}", rule=expiry.rule)
        except (RemovalError, NotFoundError):  # it is held since, or somebody was faster
            outcome.kept += 1
        except UnreadableError as error:
            outcome.failed += 1
            log.warning("retention_failed", folder=str(folder), error=str(error))
        else:
            outcome.deleted += 1

    def _is_over(self, expiry: Expiry) -> bool:
        now_ms, folder = self._now_ms(), PurePath(expiry.facts.folder)
        facts = facts_of(self._config.recordings, folder)
        found = retention.expired(self.rules, facts, now_ms)
        if found is not None:
            return found.rule == expiry.rule
        is_for_space = expiry.rule.startswith(_SPACE)
        return is_for_space and retention.is_unprotected(self.rules, facts, now_ms)

    def _dated(self, facts: Facts) -> Facts:
        """Return facts with the time of the file, which is read only of what is old otherwise."""
        until, _ = retention.until_ms(self.rules, facts)
        if until is None or until > self._now_ms():
            return facts
        return self._with_written(facts)

    def _total(self) -> int:
        with self._catalogue.database.reading() as connection:
            counted = sa.select(sa.func.count()).select_from(table).where(_IS_PRESENT)
            return int(connection.execute(counted).scalar_one())

    def _old(self, now_ms: int, age_ms: int | None) -> Iterator[Facts]:
        """Yield what the catalogue has, the oldest first, of at least some age; `None` is none."""
        if age_ms is None:
            return
        end, last = rows.first_number(now_ms - age_ms), -1
        while True:
            selected = sa.select(*_COLUMNS).where(table.c.n > last, table.c.n < end, _IS_PRESENT)
            with self._catalogue.database.reading() as connection:
                found = connection.execute(selected.order_by(table.c.n).limit(_BATCH)).mappings()
                batch = [dict(row) for row in found]
            yield from map(retention.facts_from, batch)
            if len(batch) < _BATCH:
                return
            last = batch[-1]["n"]

    def _in_use(self) -> frozenset[str]:
        """Return the ids of what somebody heard or was sent within the last hour."""
        since = datetime.now(UTC) - timedelta(seconds=HEARD_SECONDS)
        wanted = EntryFilter(what=_USES, since=store.rfc3339(since))
        return frozenset(entry.recording for entry in Ledger(self._config.recordings).read(wanted))

    def _plan_for_space(self, plan: Plan, now_ms: int, used: frozenset[str]) -> None:
        """Add the oldest that nothing protects, where more space is asked for."""
        wanted, asked_by = self._space_wanted()
        if wanted <= 0:
            return
        wanted -= sum(self._size(each.facts) for each in plan.expired)
        candidates = (
            (facts, self._size(facts))
            for facts in self._old(now_ms, retention.LEAST_MS)
            if facts.id not in used
            and retention.is_unprotected(self.rules, self._with_written(facts), now_ms)
        )
        for expiry in retention.enough(candidates, wanted, asked_by):
            plan.expired.append(_lean(expiry))
            wanted -= self._size(expiry.facts)
        plan.wanting = max(0, wanted)

    def _with_written(self, facts: Facts) -> Facts:
        written_ms = _written_ms(self._config.recordings / facts.folder)
        return replace(facts, written_ms=written_ms)

    def _space_wanted(self) -> tuple[int, str]:
        """Return how many bytes must be freed, and by which setting."""
        config, wanted = self._config, [(0, "")]
        if config.retention_min_free is not None:
            missing = config.retention_min_free - free_bytes(config.recordings)
            wanted.append((missing, f"{_SPACE} retention_min_free"))
        if config.retention_max_bytes is not None:
            too_many = self._stored_bytes() - config.retention_max_bytes
            wanted.append((too_many, f"{_SPACE} retention_max_bytes"))
        return max(wanted)

    def _stored_bytes(self) -> int:
        found = store.folders(self._config.recordings)
        return sum(_bytes_in(each) for each in found if isinstance(each, Path))

    def _size(self, facts: Facts) -> int:
        return _bytes_in(self._config.recordings / facts.folder)


_SPACE: Final = "space:"
_IS_PRESENT: Final = table.c.state == rows.PRESENT


def _lean(expiry: Expiry) -> Expiry:
    """Return it without what it was found by, which would be most of a large plan."""
    return replace(expiry, facts=replace(expiry.facts, tokens=()))


def _bytes_in(folder: Path) -> int:
    """Return how much the files of a recording take on the disk."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        return sum(entry.stat(follow_symlinks=False).st_blocks for entry in entries) * 512
    return 0


class RetentionThread:
    """Deletes what is over, once an hour among all processes of a store, at low priority.

    What a crash left of erasing and deleting is finished, too. Whatever fails is logged and tried
    again an hour later.
    """

    def __init__(self, config: Config, retention: Retention) -> None:
        self._config = config
        self._retention = retention
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End between two recordings, and wait for that a while; idempotent.

        Whatever is left half done then, as when the process ends, is finished by the next one.
        """
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(_END_SECONDS)

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # Linux: of this thread alone
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while not self._closing.is_set():
            try:
                wait = self._work()
            except (TapreelError, OSError) as error:
                log.error("retention_failed", error=str(error))
                wait = EVERY_SECONDS
            except Exception:  # a mistake of ours: nothing is deleted
                log.exception("retention_failed")
                wait = EVERY_SECONDS
            self._closing.wait(wait)

    def _work(self) -> float:
        """Do what is due; return after how many seconds it is worth looking again."""
        if finished := delete.finish_alone(self._config.recordings, self._config.spool):
            log.info("removals_finished", count=finished)
        if not self._retention.is_asked_for:
            return EVERY_SECONDS
        if (wait := _claim(self._config.recordings)) > 0:
            return wait
        outcome = self._retention.run(stop=self._closing)
        if outcome.deleted or outcome.failed:
            log.info(
                "retention_run",
                deleted=outcome.deleted,
                kept=outcome.kept,
                failed=outcome.failed,
            )
        return EVERY_SECONDS


def _claim(recordings: Path) -> float:
    """Return after how many seconds a run is due; 0 where it is, and then it is this caller's."""
    with folder_within(recordings, PurePath(layout.TOMBSTONES)) as folder:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        is_new = not os.access(_LAST_RUN, os.F_OK, dir_fd=folder)
        descriptor = os.open(_LAST_RUN, flags, 0o600, dir_fd=folder)
        try:
            age = time.time() - os.fstat(descriptor).st_mtime
            if not is_new and 0 <= age < EVERY_SECONDS:
                return EVERY_SECONDS - age
            os.utime(descriptor)
        finally:
            os.close(descriptor)
    return 0.0
