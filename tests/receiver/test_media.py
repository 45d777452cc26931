"""The words: sizes of formats, how times are spelt, and what the closed sets are."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver import media
from receiver.media import Encoding, GapKind, MediaFormat, Track, timestamp

YEAR_9999_MS = 253_402_300_799_999
PCMA, L16 = Encoding.PCMA, Encoding.L16


@pytest.mark.parametrize(
    ("media", "per_sample", "per_ms"),
    [
        (MediaFormat(), 1, 8),
        (MediaFormat(PCMA), 1, 8),
        (MediaFormat(L16), 2, 16),
        (MediaFormat(L16, 24_000), 2, 48),
    ],
)
def test_sizes_follow_from_the_format(media: MediaFormat, per_sample: int, per_ms: int) -> None:
    """Bytes per sample and per millisecond, both exact."""
    assert (per_sample, per_ms) == (media.bytes_per_sample, media.bytes_per_ms)


def test_closed_sets_are_closed() -> None:
    """Programs match on them: a new value is a new version of the document."""
    assert ["inbound", "outbound"] == list(Track)
    kinds = ["lost", "sender_silence", "rejected", "disk", "paused", "crash", "erased"]
    assert kinds == list(GapKind)


@given(st.integers(0, YEAR_9999_MS))
def test_timestamps_are_rfc_3339_to_the_millisecond(milliseconds: int) -> None:
    """Exact, in UTC, of one length, so that they sort as text."""
    text = timestamp(milliseconds)
    moment = datetime.fromisoformat(text)
    assert UTC.utcoffset(None) == moment.utcoffset()
    assert milliseconds == round(moment.timestamp() * 1000)
    assert len("2026-11-22T20:30:00.007Z") == len(text)
    assert text.endswith("Z")


def test_a_timestamp_of_a_known_moment() -> None:
    """Leading zeros of the milliseconds included."""
    assert "2026-11-22T20:30:00.007Z" == timestamp(1_795_379_400_007)


@given(st.text())
def test_what_is_visible_stays_and_nothing_else_does(text: str) -> None:
    """Escapes are printable ASCII; nothing is lost, and doing it twice changes nothing."""
    shown = media.visible(text)
    assert shown.isprintable()
    assert shown == media.visible(shown)


@pytest.mark.parametrize(
    "kind", ["Zo\u00eb", "\u4e2d\u6587", "\u041a\u043e\u0442", "\U0001f600", "e\u0301", " a b"]
)
def test_letters_of_any_script_are_visible(kind: str) -> None:
    """Marks that combine with letters, too."""
    assert kind == media.visible(kind)


@pytest.mark.parametrize(
    "hidden",
    [
        *("\0", "\n", "\x1b", "\x7f", "\x9b", "\u2028", "\ud800"),
        *("\u061c", "\u200e", "\u200f", "\u202a", "\u202e", "\u2066", "\u2069"),
        *("\xa0", "\xad", "\u034f", "\u115f", "\u180e", "\u200b", "\u2060", "\u2800"),
        *("\u3000", "\u3164", "\ufe0f", "\ufeff", "\uffa0", "\U000e0041", "\U000e0100"),
    ],
)
def test_what_controls_reorders_or_hides_is_escaped(hidden: str) -> None:
    """As Python writes it in a string."""
    assert f"a{hidden.encode('unicode_escape').decode()}b" == media.visible(f"a{hidden}b")
