"""The words: how formats and times are spelt, and what the closed sets are."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import ProtocolViolation
from receiver.media import (
    SAMPLE_RATES,
    Encoding,
    GapKind,
    MediaFormat,
    Track,
    media_format,
    timestamp,
)

YEAR_9999_MS = 253_402_300_799_999
PCMU, PCMA, L16 = Encoding.PCMU, Encoding.PCMA, Encoding.L16


@pytest.mark.parametrize(
    ("spelling", "sample_rate", "expected"),
    [
        ("audio/x-mulaw", 8000, (PCMU, 8000)),
        ("audio/x-mulaw", None, (PCMU, 8000)),
        ("AUDIO/X-MULAW", None, (PCMU, 8000)),
        (" audio/x-mulaw ", None, (PCMU, 8000)),
        ("audio/mulaw", None, (PCMU, 8000)),
        ("mulaw", None, (PCMU, 8000)),
        ("audio/x-ulaw", None, (PCMU, 8000)),
        ("audio/basic", None, (PCMU, 8000)),
        ("PCMU", None, (PCMU, 8000)),
        ("pcmu", None, (PCMU, 8000)),
        ("audio/PCMU", None, (PCMU, 8000)),
        ("PCMU@40i", None, (PCMU, 8000)),
        ("PCMU@8000h@20i", None, (PCMU, 8000)),
        ("audio/x-alaw", 8000, (PCMA, 8000)),
        ("PCMA", None, (PCMA, 8000)),
        ("PCMA@40i", None, (PCMA, 8000)),
        ("audio/x-L16", 16_000, (L16, 16_000)),
        ("audio/x-l16", 24_000, (L16, 24_000)),
        ("audio/L16", 8000, (L16, 8000)),
        ("audio/l16;rate=16000", None, (L16, 16_000)),
        ("audio/L16; channels=1; rate=24000", None, (L16, 24_000)),
        ("audio/l16;rate=16000", 24_000, (L16, 24_000)),
        ("L16", None, (L16, 8000)),
        ("L16@16000h", None, (L16, 16_000)),
        ("L16@24000h", None, (L16, 24_000)),
        ("L16@24000h@40i", None, (L16, 24_000)),
        ("l16@16000H@20I", None, (L16, 16_000)),
        ("audio/x-L16", 48_000, (L16, 48_000)),
    ],
)
def test_every_known_spelling(
    spelling: str, sample_rate: int | None, expected: tuple[Encoding, int]
) -> None:
    """Case, prefix, packet time: one encoding is written in many ways."""
    assert MediaFormat(*expected, 1) == media_format(spelling, sample_rate, None)
    assert MediaFormat(*expected, 1) == media_format(spelling, sample_rate, 1)


@pytest.mark.parametrize(
    "spelling",
    [
        "",
        " ",
        "opus",
        "audio/opus",
        "audio/x-",
        "audio/",
        "G722",
        "L24",
        "mulaw2",
        "video/x-mulaw",
        "PCMU PCMA",
        "audio/x-mulaw\0",
        "PCMU,PCMA",
        "l16rate=8000",
        "é",
        "x" * 10_000,
    ],
)
def test_other_encodings_are_refused(spelling: str) -> None:
    """Never guessed: the stream is closed as unsupported, and the reason stays short."""
    with pytest.raises(ProtocolViolation, match="unsupported encoding") as caught:
        media_format(spelling, 8000, 1)
    assert 1003 == caught.value.close_code
    assert len(caught.value.detail) < 120


@pytest.mark.parametrize("rate", [0, -8000, 7999, 8001, 11_025, 22_050, 44_100, 96_000, 2**52])
def test_rates_without_whole_samples_per_millisecond_are_refused(rate: int) -> None:
    """Placing by milliseconds would not be exact."""
    with pytest.raises(ProtocolViolation, match=f"unsupported sample rate {rate}") as caught:
        media_format("audio/x-L16", rate, 1)
    assert 1003 == caught.value.close_code


def test_a_rate_in_the_name_is_checked_too() -> None:
    """As the one beside it."""
    with pytest.raises(ProtocolViolation, match="unsupported sample rate 11025"):
        media_format("audio/l16;rate=11025", None, 1)


@pytest.mark.parametrize("channels", [0, 2, -1])
def test_other_channels_than_one_are_refused(channels: int) -> None:
    """Each track is mono, always."""
    with pytest.raises(ProtocolViolation, match="unsupported number of channels") as caught:
        media_format("audio/x-mulaw", 8000, channels)
    assert 1003 == caught.value.close_code


@given(st.text(), st.none() | st.integers(), st.none() | st.integers())
def test_any_text_is_a_format_or_refused(
    spelling: str, sample_rate: int | None, channels: int | None
) -> None:
    """Never another exception, never a format that cannot be decoded."""
    try:
        found = media_format(spelling, sample_rate, channels)
    except ProtocolViolation as refused:
        assert 1003 == refused.close_code  # noqa: PT017  (both outcomes are right)
    else:
        assert found.sample_rate in SAMPLE_RATES


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
    kinds = ["lost", "sender_silence", "rejected", "disk", "paused", "crash"]
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
