"""From the publication log to the outbox, on either database."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from receiver.catalogue.catalogue import Catalogue
from receiver.catalogue.database import Database
from receiver.disk import layout
from receiver.lifecycle.acts import Acts
from receiver.lifecycle.delete import Remover
from receiver.lifecycle.erase import erase
from receiver.notifications import events, recordings_feed
from receiver.notifications.http_client import PostAnswer
from receiver.notifications.outbox import Outbox
from receiver.notifications.recordings_feed import RecordingsFeed
from receiver.notifications.webhooks import WebhookEndpoint
from receiver.recording import publication_log
from tests.receiver.helpers import recordings_builder as builder

EVERYTHING = WebhookEndpoint("all", events.TYPES)
ABOUT_RECORDINGS = WebhookEndpoint(
    "all", [kind for kind in events.TYPES if not kind.startswith("stream.")]
)
SALES = WebhookEndpoint("sales", events.TYPES, events.clauses_of(["param.queue=sales"]))


def a_feed(database: Database, recordings: Path) -> RecordingsFeed:
    """Return a feed whose mark is behind all that is there now."""
    recordings.mkdir(exist_ok=True)
    feed = RecordingsFeed(database, recordings, recordings / layout.SPOOL, lambda i: {"page": i})
    feed.catch_up([EVERYTHING])
    return feed


def publish(recordings: Path, number: int = 1, **fields: Any) -> Path:
    """Publish a recording, as the renderer does; return its folder."""
    folder = builder.build(recordings, recording_id=f"{number:016x}", **fields)
    publication_log.append(recordings, folder)
    return folder


def told(database: Database, endpoint: str = "all") -> list[dict[str, Any]]:
    """Return what an endpoint is told, the oldest first."""
    found = Outbox(database).page(endpoint=endpoint, limit=10_000)
    return [msgspec.json.decode(delivery.body) for delivery in reversed(found)]


def types(database: Database, endpoint: str = "all") -> list[str]:
    """Return the types of what an endpoint is told."""
    return [event["type"] for event in told(database, endpoint)]


def test_nobody_is_told_of_what_was_there_before(database: Database, recordings: Path) -> None:
    """The first webhook gets none of a thousand recordings that are there already."""
    recordings.mkdir(exist_ok=True)
    publish(recordings)
    quarantine = recordings / layout.SPOOL / layout.QUARANTINE
    quarantine.mkdir(parents=True)
    (quarantine / "00000000000000ee.journal").touch()
    feed = a_feed(database, recordings)
    assert 0 == feed.catch_up([EVERYTHING])
    assert [] == told(database)


def test_a_publication_tells_that_its_stream_was(database: Database, recordings: Path) -> None:
    """In this order; nobody may have been there to hear it begin."""
    feed = a_feed(database, recordings)
    publish(recordings, parameters={"queue": "sales"})
    assert 3 == feed.catch_up([EVERYTHING, SALES])
    assert ["stream.started", "stream.ended", "recording.published"] == types(database)
    assert types(database) == types(database, "sales")
    started, ended, published = (event["data"] for event in told(database))
    assert "stop" == ended["reason"]
    assert {"queue": "sales"} == started["parameters"] == published["parameters"]
    assert {"page": f"{1:016x}"} == published["links"]


def test_a_line_that_comes_twice_is_one_event(database: Database, recordings: Path) -> None:
    """It is in the log at least once."""
    feed = a_feed(database, recordings)
    folder = publish(recordings)
    publication_log.append(recordings, folder)
    feed.catch_up([ABOUT_RECORDINGS])
    publication_log.append(recordings, folder)
    feed.catch_up([ABOUT_RECORDINGS])
    assert ["recording.published"] == types(database)


def test_many_at_once_are_read_in_parts(
    database: Database, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark moves with the last of them."""
    monkeypatch.setattr(recordings_feed, "BATCH", 3)
    feed = a_feed(database, recordings)
    for number in range(1, 8):
        publish(recordings, number)
    assert 7 == feed.catch_up([ABOUT_RECORDINGS])
    assert 0 == feed.catch_up([ABOUT_RECORDINGS])
    assert [f"{n:016x}" for n in range(1, 8)] == [
        event["data"]["recording_id"] for event in told(database)
    ]


def test_what_failed_in_the_midst_is_done_again(
    database: Database, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark is where its events are."""
    feed = a_feed(database, recordings)
    publish(recordings)

    def fail(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(recordings_feed, "_move", fail)
        with pytest.raises(RuntimeError, match="killed"):
            feed.catch_up([ABOUT_RECORDINGS])
    assert [] == told(database)
    another = RecordingsFeed(database, recordings, recordings / layout.SPOOL, lambda _: {})
    assert 1 == another.catch_up([ABOUT_RECORDINGS])


def test_a_hold_is_told_when_it_changes(database: Database, recordings: Path) -> None:
    """And nothing else that changes is taken for one."""
    feed = a_feed(database, recordings)
    folder = publish(recordings)
    acts = Acts(recordings, who="ann", via="test")
    acts.add_label(folder, "checked")
    acts.hold(folder, "case 4711")
    feed.catch_up([ABOUT_RECORDINGS])
    acts.add_label(folder, "again")
    feed.catch_up([ABOUT_RECORDINGS])
    acts.release(folder)
    acts.remove_label(folder, "again")
    feed.catch_up([ABOUT_RECORDINGS])
    acts.hold(folder, "case 4711")
    feed.catch_up([ABOUT_RECORDINGS])
    changes = [event["data"] for event in told(database) if event["type"] == "hold.changed"]
    assert ["case 4711", None, "case 4711"] == [
        change["hold"] and change["hold"]["reason"] for change in changes
    ]
    assert [True, False, True] == [change["held"] for change in changes]


def test_what_was_erased_is_told_once(database: Database, recordings: Path) -> None:
    """Each time that there is more of it, and not with whatever else changes."""
    feed = a_feed(database, recordings)
    folder = publish(recordings, gaps=())
    acts = Acts(recordings, who="ann", via="test")
    ann = Remover(recordings, recordings / ".spool", who="ann", via="test")
    for start_ms in (100, 500):
        erase(ann, folder, start_ms, start_ms + 100, "card number")
        feed.catch_up([ABOUT_RECORDINGS])
        acts.add_label(folder, f"l{start_ms}")
        feed.catch_up([ABOUT_RECORDINGS])
    changes = [event["data"] for event in told(database) if event["type"] == "recording.erased"]
    assert [1, 2] == [len(change["erased"]) for change in changes]


@pytest.mark.parametrize("has_row", [False, True])
def test_what_was_deleted_is_told_without_what_it_was(
    database: Database, recordings: Path, has_row: bool
) -> None:
    """Whoever was told of it is told that it is gone; its parameters are gone, too."""
    feed = a_feed(database, recordings)
    folder = publish(recordings, parameters={"queue": "sales", "caller": "Jane"})
    publish(recordings, 2, parameters={"queue": "support"}, started_at_ms=builder.STARTED_AT_MS + 1)
    if has_row:
        url = str(database.engine.url.render_as_string(hide_password=False))
        with Catalogue(url, recordings) as catalogue:
            catalogue.reconcile()
    feed.catch_up([ABOUT_RECORDINGS, SALES])
    made = Outbox(database)
    for name in ("all", "sales"):
        for delivery in made.claim(name, 9):
            made.settle(delivery, PostAnswer(200))
    shutil.rmtree(folder)
    publication_log.append(recordings, folder, publication_log.DELETED)
    feed.catch_up([ABOUT_RECORDINGS, SALES])
    (deleted,) = (event for event in told(database) if event["type"] == "recording.deleted")
    assert {f"{1:016x}", builder.CALL_SID} <= set(deleted["data"].values())
    assert "parameters" not in deleted["data"]
    assert ["recording.deleted"] == types(database, "sales")
    assert ["recording.published", "recording.deleted"] == types(database)
    assert "Jane" not in str(told(database))


def test_one_that_is_gone_before_it_was_told_of_is_told_by_its_id(
    database: Database, recordings: Path
) -> None:
    """Nothing is passed over."""
    feed = a_feed(database, recordings)
    folder = publish(recordings)
    shutil.rmtree(folder)
    publication_log.append(recordings, folder, publication_log.DELETED)
    feed.catch_up([EVERYTHING])
    assert ["recording.published", "recording.deleted"] == types(database)
    assert [{"recording_id": f"{1:016x}"}] * 2 == [event["data"] for event in told(database)]


def test_a_journal_that_is_set_aside_is_a_failure(database: Database, recordings: Path) -> None:
    """With the reason that stands beside it; of a worker's spool, too, and after a new start."""
    feed = a_feed(database, recordings)
    spool = recordings / layout.SPOOL
    for folder, name in ((spool, "00000000000000ee"), (spool / "worker-2", "00000000000000ff")):
        quarantine = folder / layout.QUARANTINE
        quarantine.mkdir(parents=True)
        (quarantine / f"{name}.txt").write_text("it is no journal\n")
        (quarantine / f"{name}.journal").touch()
    assert 2 == feed.catch_up([ABOUT_RECORDINGS])
    again = RecordingsFeed(database, recordings, spool, lambda _: {})
    assert [0, 0] == [each.catch_up([ABOUT_RECORDINGS]) for each in (feed, again)]
    assert ["recording.failed"] * 2 == types(database)
    assert {
        "recording_id": "00000000000000ee",
        "journal": "00000000000000ee.journal",
        "reason": "it is no journal",
    } in [event["data"] for event in told(database)]
