"""The URL of a listener: every word is known, or the answer says which one is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import BadRequest
from receiver.tap.encoding.format import Format, OutputSpec
from receiver.tap.query import (
    TapQuery,
    access_token,
    is_tap,
    matches,
    name_in,
    parse,
    parse_filters,
    parse_watch,
)


def test_paths() -> None:
    """`/tap` and what is under it."""
    assert [True, True, False] == [is_tap(path) for path in ("/tap", "/tap/x", "/tapx")]
    assert ["", "", "CA1", "a b/c"] == [
        name_in(p) for p in ("/tap", "/tap/", "/tap/CA1", "/tap/a%20b/c")
    ]


def test_nothing_asked_is_samples_of_the_caller() -> None:
    """The inbound track as pcm16, from now on."""
    assert TapQuery(OutputSpec(Format.PCM16, "inbound")) == parse("")


def test_everything_asked() -> None:
    """Each parameter has its place; a token is not one of them."""
    query = "track=stereo&format=pcm16&since=2.5&rate=16000&wait=60&access_token=x"
    assert TapQuery(OutputSpec(Format.PCM16, "stereo", 16000), 2.5, 60) == parse(query)
    assert OutputSpec(Format.PAYLOAD, "inbound", None, 32) == (
        parse("format=payload&block_ms=32").spec
    )
    assert "x" == access_token(query)
    assert access_token("track=stereo") is None
    assert access_token("&".join(["access_token=x", *(f"a{n}=1" for n in range(200))])) is None
    assert OutputSpec(Format.MESSAGES, "stereo") == parse("format=messages").spec
    assert OutputSpec(Format.MESSAGES, "inbound") == parse("format=messages&track=inbound").spec


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("format=mp3", "format must be pcm16 or payload or messages"),
        ("track=left", "track must be inbound or outbound or stereo"),
        ("track=", "track must be"),
        ("rate=44100", "rate must be 8000 or 16000 or 24000 or 48000"),
        ("rate=", "rate must be"),
        ("format=payload&rate=8000", "for format pcm16 only"),
        ("format=messages&track=left", "track must be inbound or outbound or stereo"),
        ("block_ms=9", "block_ms must be whole milliseconds from 10 to 500"),
        ("block_ms=501", "block_ms must be"),
        ("block_ms=20.5", "block_ms must be"),
        ("block_ms=", "block_ms must be"),
        ("format=messages&block_ms=20", "for formats pcm16 and payload only"),
        ("since=-1", "since must be a number of seconds from 0 to 86400"),
        ("since=nan", "since must be"),
        ("since=1e999", "since must be"),
        ("since=1_0", "since must be"),
        ("since=%D9%A1", "since must be"),
        ("since=", "since must be"),
        ("=1", "unknown parameter ''"),
        ("since=soon", "since must be"),
        ("wait=3601", "wait must be"),
        ("trak=inbound", "unknown parameter 'trak'"),
        ("track=inbound&track=outbound", "'track' is given twice"),
        ("&".join(f"a{n}=1" for n in range(200)), "cannot be read"),
    ],
)
def test_bad_requests_are_named(query: str, reason: str) -> None:
    """One clear sentence each."""
    with pytest.raises(BadRequest, match=reason):
        parse(query)


def test_filters() -> None:
    """Custom parameters that a stream must have."""
    filters = parse_filters("param.Queue=sales&param.a.b=")
    assert {"Queue": "sales", "a.b": ""} == filters
    assert matches(filters, {"Queue": "sales", "a.b": "", "more": 1})
    assert not matches(filters, {"Queue": "sales"})
    assert matches({"n": "7"}, {"n": 7})
    assert matches({"a": "true", "b": "null", "c": "[1]"}, {"a": True, "b": None, "c": [1]})
    assert not matches({"a": "True"}, {"a": True})
    for query in ("track=inbound", "param.=x", "param.a=1&param.a=2"):
        with pytest.raises(BadRequest):
            parse_filters(query)


@given(st.text())
def test_any_query_is_understood_or_refused(query: str) -> None:
    """Never another exception."""
    for function in (parse, parse_filters, access_token):
        try:
            function(query)
        except BadRequest:
            continue


def test_a_watcher_asks_for_levels_besides_its_filters() -> None:
    """Without the word it gets none."""
    assert ({"A": "b"}, True) == parse_watch("param.A=b&levels=yes")
    assert ({}, False) == parse_watch("") == parse_watch("levels=no")
    for query in ("levels=1", "levels=yes&levels=yes", "level=yes"):
        with pytest.raises(BadRequest):
            parse_watch(query)
