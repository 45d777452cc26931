"""From journal to finished recording: whole or not at all, once, and again after any crash."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from receiver.disk import layout
from receiver.errors import UnsafeFolderError
from receiver.journal import backlog
from receiver.journal import records as journal
from receiver.journal.backlog import Disposal
from receiver.journal.records import Header, NoteRecord, Record
from receiver.media import EndReason, Track
from receiver.recording import document, publication_log
from receiver.recording.document import Discarded, Empty, Published, Quarantined, RenderOptions
from receiver.recording.publication_log import LogMark
from receiver.recording.publish import publish, publish_journal, recover
from receiver.recording.verify import verify
from tests.receiver.helpers.journals import (
    HEADER,
    STARTED_AT_MS,
    chunk,
    records,
    start_message,
    write,
)

FILES = {"inbound.wav", "outbound.wav", "peaks.dat", "recording.json", "timeline.json"}
CALLS = ("fsync", "mkdir", "rename", "unlink")
"""What publishing does to a disk, besides writing into files that nobody knows yet."""


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="not root")


class PowerCut(BaseException):
    """Nothing in the receiver may catch this, as nothing could."""


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """Return a spool with nothing in it."""
    folder = tmp_path / "spool"
    folder.mkdir(0o700)
    return folder


def content(*, reason: EndReason | None = EndReason.STOP) -> list[Record]:
    """Return a journal of two tracks, one with a gap."""
    chunks: list[Record] = [
        chunk(n, b"%03d" % n * 50, track=track, timestamp_ms=20 * n)
        for n in (0, 1, 3, 4)
        for track in Track
    ]
    return records(chunks, reason=reason)


def ended(spool: Path, *, name: str = "00112233aabbccdd") -> Path:
    """Put a whole journal into the spool."""
    return write(spool / layout.journal_name(name), content())


def files(folder: Path) -> dict[str, bytes | None]:
    """Return everything below a folder but the publication log; folders have no content."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if layout.PUBLISHED not in path.parts
    }


def logged(recordings: Path) -> list[str]:
    """Return the folders that the publication log names, in order."""
    entries, _ = publication_log.read(recordings, LogMark())
    return [entry.folder for entry in entries]


def published(journal: Path, recordings: Path) -> Published:
    """Publish a journal with which everything is in order."""
    outcome = publish_journal(journal, recordings, RenderOptions())
    assert isinstance(outcome, Published)
    return outcome


def set_aside(journal: Path, recordings: Path) -> Quarantined:
    """Publish a journal with which something is wrong."""
    outcome = publish_journal(journal, recordings, RenderOptions())
    assert isinstance(outcome, Quarantined)
    assert not journal.exists()
    assert outcome.reason + "\n" == outcome.journal.with_suffix(".txt").read_text()
    return outcome


def test_a_published_recording_is_whole_private_and_replaces_its_journal(
    tmp_path: Path, spool: Path
) -> None:
    """The folder has its final name, nothing is left beside it, and others cannot look."""
    before = os.umask(0o022)
    try:
        outcome = published(ended(spool), tmp_path / "recordings")
    finally:
        os.umask(before)
    expected = layout.recording_folder(HEADER.recording_id, STARTED_AT_MS)
    assert tmp_path / "recordings" / expected == outcome.folder
    assert FILES == files(outcome.folder).keys()
    assert {} == files(spool)
    assert () == verify(outcome.folder, outcome.recording)
    kept = list((tmp_path / "recordings").rglob("*"))
    assert {0o600} == {path.stat().st_mode & 0o777 for path in kept if path.is_file()}
    assert {0o700} == {path.stat().st_mode & 0o777 for path in kept if path.is_dir()}


def cut_at(patch: pytest.MonkeyPatch, turn: int, *, after: bool) -> list[str]:
    """Cut the power at one of the disk calls to come; return those that were made."""
    made: list[str] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            made.append(name)
            if len(made) == turn and not after:
                raise PowerCut
            result = real(*arguments, **options)
            if len(made) == turn:
                raise PowerCut
            return result

        return call

    for name in CALLS:
        patch.setattr(os, name, counted(name, getattr(os, name)))
    return made


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_moment_is_mended_by_doing_it_again(tmp_path: Path, after: bool) -> None:
    """Before and after each disk call: the second time gives what one time would have given."""
    (tmp_path / "calm").mkdir()
    calm = tmp_path / "calm" / "recordings"
    published(ended(tmp_path / "calm"), calm)
    for turn in range(1, 100):
        folder = tmp_path / f"{turn}"
        folder.mkdir()
        live = ended(folder)
        with pytest.MonkeyPatch.context() as patch:
            made = cut_at(patch, turn, after=after)
            try:
                publish_journal(live, folder / "recordings", RenderOptions())
            except PowerCut:
                pass
            else:
                break
        assert turn == len(made)
        for folder_name in (folder / "recordings").glob("*/*/*/[0-9]*"):
            assert FILES == files(folder_name).keys()
        list(recover(folder, folder / "recordings", RenderOptions()))
        assert files(calm) == files(folder / "recordings")
        assert [] == list(folder.glob("*.journal"))
        assert set(logged(calm)) == set(logged(folder / "recordings"))
    assert turn > 10


def test_a_journal_stays_until_the_log_has_its_recording(tmp_path: Path, spool: Path) -> None:
    """A follower of the log would miss it for ever; the next attempt appends it."""
    recordings = tmp_path / "recordings"
    (recordings / layout.PUBLISHED).mkdir(0o777, parents=True)
    (recordings / layout.PUBLISHED).chmod(0o777)
    live = ended(spool)
    with pytest.raises(UnsafeFolderError):
        publish_journal(live, recordings, RenderOptions())
    assert live.exists()
    (recordings / layout.PUBLISHED).chmod(0o700)
    outcome = published(live, recordings)
    assert [str(outcome.folder.relative_to(recordings))] == logged(recordings)


def test_what_is_not_published_is_not_in_the_log(tmp_path: Path, spool: Path) -> None:
    """Neither an empty journal nor one that is none."""
    (spool / "none.journal").write_bytes(b"none at all")
    (spool / "empty.journal").touch()
    list(recover(spool, tmp_path / "recordings", RenderOptions()))
    assert [] == logged(tmp_path / "recordings")


def test_what_is_published_already_is_left_as_it_is(tmp_path: Path, spool: Path) -> None:
    """A journal that comes again finds its recording and goes."""
    first = published(ended(spool), tmp_path / "recordings")
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    again = published(ended(spool), tmp_path / "recordings")
    assert first == again
    assert before == {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    assert {} == files(spool)


def test_another_journal_under_the_same_name_is_set_aside(tmp_path: Path, spool: Path) -> None:
    """Nothing that is published is ever replaced."""
    first = published(ended(spool), tmp_path / "recordings")
    before = files(first.folder)
    other = write(spool / "other.journal", content(reason=None))
    assert "another journal" in set_aside(other, tmp_path / "recordings").reason
    assert before == files(first.folder)


@pytest.mark.parametrize("spoilt", ["inbound.wav", "recording.json"])
def test_a_journal_goes_only_when_the_files_read_back_agree(
    tmp_path: Path, spool: Path, spoilt: str
) -> None:
    """A file that is not what was written keeps its journal from being removed."""
    first = published(ended(spool), tmp_path / "recordings")
    file = first.folder / spoilt
    file.write_bytes(file.read_bytes()[:-30])
    outcome = set_aside(ended(spool), tmp_path / "recordings")
    assert first.folder.name in outcome.reason
    assert b"".join(map(journal.encode, content())) == outcome.journal.read_bytes()


@pytest.mark.parametrize("spoilt", ["inbound.wav", "recording.json"])
def test_a_disk_that_returns_something_else_keeps_the_journal(
    tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch, spoilt: str
) -> None:
    """Also of a recording that was written just now: its length, or the hash in its document."""
    live, rename = ended(spool), os.rename

    def rename_and_spoil(*names: Any, **folders: Any) -> None:
        rename(*names, **folders)
        for file in (tmp_path / "recordings").rglob(spoilt) if folders else ():
            content = file.read_bytes()
            hexadecimal = content.index(b'"sha256": "') + 11 if spoilt.endswith("json") else 4
            file.write_bytes(content[:hexadecimal] + b"x" + content[hexadecimal + 1 :])

    monkeypatch.setattr(os, "rename", rename_and_spoil)
    assert "does not agree" in set_aside(live, tmp_path / "recordings").reason


def test_a_damaged_journal_is_published_and_kept(tmp_path: Path, spool: Path) -> None:
    """What can be trusted becomes a recording; the rest is for somebody to look at."""
    live = ended(spool)
    whole = live.read_bytes()
    spoilt = bytearray(whole)
    spoilt[len(whole) - 300] ^= 1
    live.write_bytes(spoilt)
    outcome = published(live, tmp_path / "recordings")
    assert "journal_damaged" in [finding.code for finding in outcome.recording.findings]
    quarantined = spool / layout.QUARANTINE / live.name
    assert bytes(spoilt) == quarantined.read_bytes()
    assert "published up to" in quarantined.with_suffix(".txt").read_text()


def test_audio_that_nobody_can_decode_is_published_as_it_came(tmp_path: Path, spool: Path) -> None:
    """No sample of it is a guess; the journal is kept, too."""
    rows = records([chunk(1, b"opus" * 40)], start=start_message(encoding="audio/opus", who="A"))
    live = write(spool / layout.journal_name(HEADER.recording_id), rows)
    whole = live.read_bytes()
    outcome = published(live, tmp_path / "recordings")
    codes = [finding.code for finding in outcome.recording.findings]
    assert (False, True) == (outcome.recording.complete, "format_refused" in codes)
    assert b"opus" * 40 == (outcome.folder / "refused.raw").read_bytes()
    assert {"who": "A"} == outcome.recording.parameters
    assert outcome.quarantined is not None
    assert whole == outcome.quarantined.journal.read_bytes()
    assert "audio/opus" in outcome.quarantined.journal.with_suffix(".txt").read_text()


def test_a_recording_of_an_assumed_format_keeps_its_journal(tmp_path: Path, spool: Path) -> None:
    """What sounds like noise can be rendered again."""
    start = b'{"event":"start","start":{"callSid":"c","mediaFormat":{"encoding":"L16"}}}'
    live = write(
        spool / layout.journal_name(HEADER.recording_id),
        records([chunk(1, bytes(160), timestamp_ms=0)], start=start, reason=EndReason.STOP),
    )
    outcome = published(live, tmp_path / "recordings")
    assert ["format_assumed"] == [finding.code for finding in outcome.recording.findings]
    assert not outcome.recording.complete
    assert outcome.quarantined is not None
    assert "8000 Hz was assumed" in outcome.quarantined.reason


@pytest.mark.parametrize("junk", [b"\0", b"\0" * 100, b"RIFF....", os.urandom(3000)])
def test_what_is_no_journal_is_set_aside(tmp_path: Path, spool: Path, junk: bytes) -> None:
    """It is never deleted, nothing is published, and a second one overwrites neither."""
    for _ in range(2):
        (spool / "x.journal").write_bytes(junk)
        set_aside(spool / "x.journal", tmp_path / "recordings")
    aside = files(spool / layout.QUARANTINE)
    assert {"x.journal", "x.txt", "x-1.journal", "x-1.txt"} == set(aside)
    assert junk == aside["x.journal"] == aside["x-1.journal"]
    assert not (tmp_path / "recordings").exists()


def test_a_journal_of_no_bytes_goes_without_alarm(tmp_path: Path, spool: Path) -> None:
    """Its receiver was killed before it had written the header: there is nothing to keep."""
    (spool / "x.journal").touch()
    outcome = publish_journal(spool / "x.journal", tmp_path / "recordings", RenderOptions())
    assert Empty(spool / "x.journal") == outcome
    assert {} == files(spool)
    assert not (tmp_path / "recordings").exists()


TOKEN_NOTE = NoteRecord(0, journal.CLAIMED_CALL, "76ac3c36-aaaa-4bbb-8ccc-ddddeeeeffff")
OTHER_NOTE = NoteRecord(0, journal.CLAIMED_CALL, "another")


@pytest.mark.parametrize(
    "kept",
    [content(reason=None), content(), content()[:1], [HEADER, *content()[2:]]],
    ids=["killed", "ended", "only a header", "no start"],
)
def test_nothing_is_kept_of_a_stream_that_its_token_is_not_for(
    tmp_path: Path, spool: Path, kept: list[Record]
) -> None:
    """Whatever its start message says, or if none came; recovery does the same."""
    for number in range(2):
        live = write(spool / f"{number}.journal", [kept[0], OTHER_NOTE, *kept[1:]])
    recordings = tmp_path / "recordings"
    outcome = publish_journal(live, recordings, RenderOptions())
    assert Discarded(live, "no start message named the call of the token") == outcome
    (recovered,) = recover(spool, recordings, RenderOptions())
    assert isinstance(recovered, Discarded)
    assert ({}, {}) == (files(spool), files(recordings))


def test_a_stream_that_its_token_is_for_is_as_any_other(tmp_path: Path, spool: Path) -> None:
    """The note is nothing that a listener should know."""
    live = write(spool / "a.journal", [HEADER, TOKEN_NOTE, *content()[2:4], *content()[1:]])
    outcome = published(live, tmp_path / "recordings")
    assert not [finding for finding in outcome.recording.findings if "token" in finding.code]


def test_a_damaged_journal_that_names_no_call_is_set_aside(tmp_path: Path, spool: Path) -> None:
    """The start message may stand behind the damage: it is neither published nor removed."""
    live = write(spool / "a.journal", [HEADER, OTHER_NOTE, *content()[1:]])
    spoilt = bytearray(live.read_bytes())
    spoilt[-300] ^= 1
    live.write_bytes(spoilt)
    assert "no start message named" in set_aside(live, tmp_path / "recordings").reason
    assert {} == files(tmp_path / "recordings")


def test_an_empty_journal_with_a_successor_is_set_aside(tmp_path: Path, spool: Path) -> None:
    """The disk had failed: what was being written again may hold what the journal lacks."""
    (spool / "x.journal").touch()
    (spool / "x.rewritten").write_bytes(b"something")
    set_aside(spool / "x.journal", tmp_path / "recordings")
    assert b"something" == (spool / layout.QUARANTINE / "x.rewritten").read_bytes()


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_nothing_is_written_through_a_link_below_the_recordings(
    tmp_path: Path, spool: Path, depth: int
) -> None:
    """A year, month or day that leads elsewhere is refused, and the journal stays."""
    elsewhere, day = tmp_path / "elsewhere", tmp_path / "recordings"
    elsewhere.mkdir()
    parts = layout.recording_folder(HEADER.recording_id, STARTED_AT_MS).parent.parts
    day = day.joinpath(*parts[:depth])
    day.mkdir(parents=True)
    (day / parts[depth]).symlink_to(elsewhere)
    live = ended(spool)
    with pytest.raises(UnsafeFolderError, match=f"{parts[depth]}: it is a symbolic link"):
        publish_journal(live, tmp_path / "recordings", RenderOptions())
    assert live.exists()
    assert {} == files(elsewhere)


def test_the_recordings_folder_itself_may_be_a_link(tmp_path: Path, spool: Path) -> None:
    """Its owner has put it there, for example to a larger disk."""
    (tmp_path / "mount").mkdir()
    (tmp_path / "recordings").symlink_to("mount")
    outcome = published(ended(spool), tmp_path / "recordings")
    assert "recording.json" in files(
        tmp_path / "mount" / outcome.folder.relative_to(tmp_path / "recordings")
    )


@pytest.mark.parametrize("bits", [0o702, 0o777, 0o1777])
@pytest.mark.parametrize("inner", ["", "2026"])
def test_nothing_is_written_where_everybody_can_write(
    tmp_path: Path, spool: Path, bits: int, inner: str
) -> None:
    """Others could plant there what looks like ours."""
    folder = tmp_path / "recordings" / inner
    folder.mkdir(parents=True)
    folder.chmod(bits)
    live = ended(spool)
    with pytest.raises(UnsafeFolderError, match="can be written to by everybody"):
        publish_journal(live, tmp_path / "recordings", RenderOptions())
    assert live.exists()


@needs_root
def test_nothing_is_written_into_a_strangers_folder(tmp_path: Path, spool: Path) -> None:
    """Its owner can do with a recording in it what he likes."""
    folder = tmp_path / "recordings" / "2026" / "11"
    folder.mkdir(parents=True)
    os.chown(folder, 12345, 12345)
    live = ended(spool)
    with pytest.raises(UnsafeFolderError, match="11: it belongs to another user"):
        publish_journal(live, tmp_path / "recordings", RenderOptions())
    assert live.exists()
    assert [] == list(folder.iterdir())


def test_a_symbolic_link_is_set_aside_unread(tmp_path: Path, spool: Path) -> None:
    """Somebody else's file does not become a recording."""
    target = write(tmp_path / "target", content())
    (spool / "x.journal").symlink_to(target)
    outcome = set_aside(spool / "x.journal", tmp_path / "recordings")
    assert outcome.journal.is_symlink()
    assert not (tmp_path / "recordings").exists()


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["fifo", "folder"])
def test_what_is_no_file_is_set_aside(
    tmp_path: Path, spool: Path, make: Callable[[Path], None]
) -> None:
    """It will not become one, and nobody waits for a pipe's writer."""
    make(spool / "x.journal")
    set_aside(spool / "x.journal", tmp_path / "recordings")
    assert not (spool / "x.journal").exists()


def test_trouble_that_passes_leaves_the_journal_where_it_is(
    tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many open files say nothing of a journal."""
    live = ended(spool)

    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        publish_journal(live, tmp_path / "recordings", RenderOptions())
    monkeypatch.undo()
    assert [live.name] == list(files(spool))
    published(live, tmp_path / "recordings")


def test_rendering_that_fails_leaves_no_half_recording(
    tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Live journals may need the space; the journal stays and can be tried again."""
    live = ended(spool)
    real = document.encode

    def fail(_: object) -> bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(document, "encode", fail)
    with pytest.raises(OSError, match="No space"):
        publish_journal(live, tmp_path / "recordings", RenderOptions())
    assert [] == [path for path in (tmp_path / "recordings").rglob("*") if path.is_file()]
    monkeypatch.setattr(document, "encode", real)
    published(live, tmp_path / "recordings")


def test_a_rewritten_journal_that_was_never_finished_goes_with_the_journal(
    tmp_path: Path, spool: Path
) -> None:
    """It is a copy of what the journal holds, left by a crash."""
    live = ended(spool)
    live.with_suffix(layout.REWRITTEN_SUFFIX).write_bytes(b"half")
    published(live, tmp_path / "recordings")
    assert {} == files(spool)


def test_a_successor_that_holds_more_takes_the_journals_place(tmp_path: Path, spool: Path) -> None:
    """The disk had failed and lost what was written last, and we ended before the change."""
    live = write(spool / "a.journal", content()[:4])
    with open(live, "ab") as file:
        file.write(bytes(500))  # pages that the disk did not take
    note = NoteRecord(0, "journal_rewritten", "Input/output error")
    write(live.with_suffix(layout.REWRITTEN_SUFFIX), [*content(reason=None), note])
    outcome = published(live, tmp_path / "recordings")
    assert ["crashed", "journal_rewritten"] == sorted(
        finding.code for finding in outcome.recording.findings if "_lost" not in finding.code
    )
    assert [4, 4] == [track.chunks.written for track in outcome.recording.tracks]
    assert {} == files(spool)


def test_a_successor_of_something_else_is_set_aside(tmp_path: Path, spool: Path) -> None:
    """It holds more, but not what the journal holds: both are kept."""
    live = write(spool / "a.journal", content()[:4])
    other = write(live.with_suffix(layout.REWRITTEN_SUFFIX), [content()[0], *content()[2:]])
    theirs = other.read_bytes()
    published(live, tmp_path / "recordings")
    assert theirs == files(spool / layout.QUARANTINE)["a.rewritten"]
    assert "does not go on" in (spool / layout.QUARANTINE / "a.txt").read_text()
    assert [layout.QUARANTINE] == [path.name for path in spool.iterdir()]


def test_recovery_publishes_everything_oldest_first(tmp_path: Path, spool: Path) -> None:
    """Also streams of which nothing but the start came; what is no journal is set aside."""
    for age, (number, rows) in enumerate([(3, []), (1, content()[2:]), (2, content()[2:])]):
        header = Header(f"{number:016x}", STARTED_AT_MS, journal.VERSION, "0.1.0")
        live = write(spool / f"{number:016x}.journal", [header, content()[1], *rows])
        os.utime(live, (age, age))
    (spool / "junk.journal").write_bytes(b"junk")
    outcomes = list(recover(spool, tmp_path / "recordings", RenderOptions()))
    found = [o.recording.id for o in outcomes if isinstance(o, Published)]
    assert [f"{number:016x}" for number in (3, 1, 2)] == found
    assert 1 == len([outcome for outcome in outcomes if isinstance(outcome, Quarantined)])
    first = outcomes[0]
    assert isinstance(first, Published)
    assert (0, ()) == (first.recording.duration_ms, first.recording.tracks)
    assert [] == list(recover(spool, tmp_path / "recordings", RenderOptions()))


@pytest.mark.parametrize("place", ["", "worker-1"])
@pytest.mark.parametrize("looks", [1, 2])
def test_a_journal_may_vanish_while_it_is_looked_for(
    tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch, place: str, looks: int
) -> None:
    """A killed receiver's renderer removes it: nothing is left to recover, and nothing fails."""
    (spool / place).mkdir(exist_ok=True)
    live, look = ended(spool / place), os.stat
    seen: list[os.stat_result] = []

    def vanishing(path: Any, **options: Any) -> os.stat_result:
        result = look(path, **options)
        if Path(path) == live:
            seen.append(result)
            if len(seen) == looks:
                live.unlink()
        return result

    monkeypatch.setattr(os, "stat", vanishing)
    assert [] == list(recover(spool, tmp_path / "recordings", RenderOptions()))
    assert looks == len(seen)


def test_publishing_reads_the_claimed_file_and_no_other(tmp_path: Path, spool: Path) -> None:
    """Whatever has its name by then; the verdict is for the caller to carry out."""
    live = ended(spool)
    with backlog.claim(live) as claimed:
        live.unlink()
        (spool / live.name).write_bytes(b"something else")
        verdict = publish(claimed, tmp_path / "recordings", RenderOptions())
    assert (Disposal.REMOVE, "") == (verdict.disposal, verdict.reason)
    assert verdict.published is not None
    assert verdict.published.recording.complete is False  # a chunk is lost
    assert {live.name: b"something else"} == files(spool)


def test_recovery_goes_on_where_another_was_faster(
    tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal that went away meanwhile is no trouble."""
    here = ended(spool)
    gone = spool / "gone.journal"

    def list_both(_: Path) -> Iterator[Path]:
        yield from (gone, here)

    monkeypatch.setattr(backlog, "waiting", list_both)
    assert 1 == len(list(recover(spool, tmp_path / "recordings", RenderOptions())))


def test_a_journal_stays_until_its_recording_is_entered(tmp_path: Path, spool: Path) -> None:
    """Whatever is done about a publication is done at least once, before the journal goes."""
    live, recordings, entered = ended(spool), tmp_path / "recordings", list[Path]()

    def enter(published: Published) -> None:
        entered.append(published.folder)
        if len(entered) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space"):
        publish_journal(live, recordings, RenderOptions(), enter)
    assert live.exists()
    (outcome,) = recover(spool, recordings, RenderOptions(), enter)
    assert isinstance(outcome, Published)
    assert [outcome.folder] * 2 == entered
    assert not live.exists()
