"""The rules of retention: which counts, until when, and what stops all of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.catalogue import tokens
from receiver.errors import ConfigurationError, RemovalError
from receiver.lifecycle import retention
from receiver.lifecycle.retention import Facts

DAY = 86_400_000
NOW = 400 * DAY


def facts(
    days: float = 100,
    *,
    written_days: float | None = None,
    held: bool = False,
    duration_ms: float = 60_000,
    labels: Sequence[str] = (),
    complete: bool = True,
    **parameters: str,
) -> Facts:
    """Return what is known of a recording that is so many days old."""
    found = tokens.of_recording(
        recording_id="00112233aabbccdd",
        call_sid="CA1",
        stream_sid="MZ1",
        state="present",
        duration_ms=duration_ms,
        complete=complete,
        held=held,
        tracks=["inbound"],
        findings=[] if complete else ["audio_lost"],
        labels=labels,
        parameters=parameters,
    )
    written = days if written_days is None else written_days
    return Facts(
        id="00112233aabbccdd",
        folder="2026/11/22/20261122T203000Z-00112233aabbccdd",
        started_ms=round(NOW - days * DAY),
        written_ms=round(NOW - written * DAY),
        duration_ms=duration_ms,
        held=held,
        tokens=frozenset(found),
    )


def rules(*pairs: tuple[str, str]) -> tuple[retention.Rule, ...]:
    """Return rules of words, separated by spaces, and how long each keeps."""
    return tuple(retention.rule(n, words.split(), keep) for n, (words, keep) in enumerate(pairs, 1))


@pytest.mark.parametrize(
    ("words", "fits"),
    [
        ("", True),
        ("param.queue=sales", True),
        ("param.queue=sal*", True),
        ("param.queue=a-long-value-of-a-queue*", False),
        ("param.long=a-value-that-is-lo*", True),
        ("param.queue=Sales", False),
        ("param.queue=*", True),
        ("param.other=*", False),
        ("label=complaint", True),
        ("label=praise", False),
        ("complete=yes param.queue=sales", True),
        ("complete=no param.queue=sales", False),
        ("finding=audio_lost", False),
        ("call=CA1 stream=MZ1 track=inbound", True),
        ("min_duration=60 max_duration=1m", True),
        ("min_duration=61", False),
        ("max_duration=59.9", False),
    ],
)
def test_a_rule_has_the_words_of_a_search(words: str, fits: bool) -> None:
    """All of them must agree."""
    found = facts(queue="sales", long="a-value-that-is-long", labels=["complaint"])
    assert fits == (retention.rule_of(rules((words, "90d")), found) is not None)


def test_the_first_rule_that_matches_counts() -> None:
    """Also where a later one would keep for a shorter time; without any it is for ever."""
    found = rules(("label=keep", "forever"), ("param.queue=sales", "90d"), ("", "1y"))
    sales, other = facts(queue="sales"), facts(queue="support")
    assert (sales.started_ms + 90 * DAY, "param.queue=sales: 90d") == (
        retention.until_ms(found, sales)
    )
    assert (other.started_ms + 365 * DAY, "all: 1y") == retention.until_ms(found, other)
    kept = facts(queue="sales", labels=["keep"])
    assert (None, "label=keep: forever") == retention.until_ms(found, kept)
    assert (None, "") == retention.until_ms(found[:2], other)
    assert retention.expired(found, sales, NOW) is not None
    assert retention.expired(found, other, NOW) is None
    assert retention.expired(found, kept, NOW) is None


@pytest.mark.parametrize(
    ("found", "is_over"),
    [
        (facts(90), True),
        (facts(89.99), False),
        (facts(3000, written_days=89), False),  # copied, or the sender's clock was wrong
        (facts(89, written_days=3000), False),
        (facts(3000, held=True), False),
    ],
)
def test_both_clocks_must_say_that_it_is_old(found: Facts, is_over: bool) -> None:
    """And nothing that is held ever expires."""
    assert is_over == (retention.expired(rules(("", "90d")), found, NOW) is not None)


def test_what_no_rule_protects_may_go_for_space() -> None:
    """But what is held, or younger than a day, may not; the first that are enough go."""
    found = rules(("label=keep", "forever"), ("label=old", "90d"))
    assert retention.is_unprotected(found, facts(2), NOW)
    for stays in (facts(0.9), facts(2, held=True), facts(9, labels=["keep"])):
        assert not retention.is_unprotected(found, stays, NOW)
    assert not retention.is_unprotected(found, facts(9, labels=["old"]), NOW)
    sized = [(facts(9), 100), (facts(8), 100), (facts(7), 100)]
    chosen = [each.facts.started_ms for each in retention.enough(sized, 150, "space")]
    assert [facts(9).started_ms, facts(8).started_ms] == chosen
    assert [] == list(retention.enough(sized, 0, "space"))


@pytest.mark.parametrize(
    ("words", "keep", "text"),
    [
        ("quue=1", "90d", "retention 1: match: 'quue' is none of"),
        ("from=24h", "90d", "'from' is none of"),
        ("param.=1", "90d", "none of"),
        ("label=", "90d", "label needs a value"),
        ("complete=maybe", "90d", "match: complete: it must be yes or no"),
        ("", "90", "keep must be like 90d"),
        ("", "23h", "at least a day"),
        ("", "0d", "at least a day"),
        ("", "never", "or forever"),
    ],
)
def test_a_rule_that_cannot_be_used_is_named(words: str, keep: str, text: str) -> None:
    """By its number among the tables, with what is wrong."""
    with pytest.raises(ConfigurationError, match=text):
        rules((words, keep))


def test_too_many_at_once_are_none() -> None:
    """A clock that jumps ahead by years lets everything expire at once."""
    retention.refuse_too_many(10, 100, 10)
    retention.refuse_too_many(0, 0, 0)
    retention.refuse_too_many(5, 5, 100)
    with pytest.raises(RemovalError, match=r"11 of 100 recordings .* more than 10 %"):
        retention.refuse_too_many(11, 100, 10)


def test_the_shortest_rule_bounds_what_must_be_looked_at() -> None:
    """Nothing younger can be over."""
    assert 7 * DAY == retention.shortest_ms(rules(("", "90d"), ("", "1w"), ("", "forever")))
    assert retention.shortest_ms(rules(("", "forever"))) is None


@given(
    days=st.floats(0, 400),
    written=st.floats(0, 400),
    held=st.booleans(),
    keeps=st.lists(st.sampled_from(["1d", "36h", "30d", "1y", "forever"]), max_size=3),
    matches=st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_only_what_is_old_by_the_first_rule_expires(
    days: float, written: float, held: bool, keeps: list[str], matches: list[bool]
) -> None:
    """Against the rules as one would say them."""
    words = ["label=here" if fits else "label=elsewhere" for fits in matches]
    found = rules(*zip(words, keeps, strict=False))
    recording = facts(days, written_days=written, held=held, labels=["here"])
    counting = next((k for k, fits in zip(keeps, matches, strict=False) if fits), "forever")
    age_ms = NOW - max(recording.started_ms, recording.written_ms or 0)
    length = retention.keep_ms(counting)
    is_over = not held and length is not None and age_ms >= length
    assert is_over == (retention.expired(found, recording, NOW) is not None)


def test_how_long_it_is_kept_in_words() -> None:
    """Nothing is said where no rule matches."""
    found = rules(("label=keep", "forever"), ("param.queue=sales", "90d"))
    assert "for ever by the rule label=keep: forever" == (
        retention.kept_text(found, facts(labels=["keep"]))
    )
    assert "until 1971-01-26T00:00Z by the rule param.queue=sales: 90d" == (
        retention.kept_text(found, facts(100, queue="sales"))
    )
    assert "" == retention.kept_text(found, facts())


def test_unknown_times_are_no_younger() -> None:
    """Where the file's time is not known yet, the recording's own counts."""
    unknown = facts(100)
    unknown = Facts(**{**{n: getattr(unknown, n) for n in unknown.__slots__}, "written_ms": None})
    assert unknown.started_ms == unknown.from_ms
