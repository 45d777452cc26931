"""The provider's rules for values."""

import traceback
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starter import validation
from starter.errors import InvalidRequestError

UUID = "76ac3c36-0000-4000-8000-000000000002"
SECRET = "a secret token with spaces"


@pytest.mark.parametrize("sid", [UUID, UUID.upper(), "CA" + "0123456789abcdef" * 2])
def test_well_formed_sids_pass(sid: str) -> None:
    """UUIDs and Twilio's form are both sids."""
    assert sid == validation.check_sid(sid, "the call sid", "CA")


@pytest.mark.parametrize(
    "sid",
    ["", "x", UUID[:-1], UUID + "0", UUID + "\n", "AC" + "0" * 32, "CA" + "g" * 32, "../" + UUID],
)
def test_other_sids_are_refused(sid: str) -> None:
    """Anything else is refused in a line that shows it."""
    with pytest.raises(InvalidRequestError, match="the call sid"):
        validation.check_sid(sid, "the call sid", "CA")


@pytest.mark.parametrize(
    "url",
    [
        "wss://rec.example.com/audio",
        "wss://rec.example.com",
        "WSS://rec.example.com:8443/a/b",
        "wss://[::1]:8443/audio",
        "/audio",
        "audio/live",
    ],
)
def test_stream_urls_pass(url: str) -> None:
    """Absolute wss URLs and relative ones are accepted as they are."""
    assert url == validation.check_stream_url(url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "empty"),
        ("ws://rec.example.com/audio", "must be wss"),
        ("https://rec.example.com/audio", "must be wss"),
        ("rec.example.com:8443/audio", "must be wss"),
        ("//rec.example.com/audio", "must start with wss://"),
        ("wss:///audio", "no host"),
        ("wss:audio", "no host"),
        ("wss://rec.example.com/audio?call=1", "query"),
        ("wss://rec.example.com/audio?", "query"),
        ("/audio?call=1", "query"),
        ("wss://rec.example.com/audio#x", "fragment"),
        (" wss://rec.example.com/audio", "white space"),
        ("wss://rec.example.com/audio\n", "white space"),
        ("wss://rec.example.com/au dio", "white space"),
        ("wss://rec.example.com/au\u00a0dio", "white space"),
        ("wss://rec.example.com/\x00", "white space"),
        ("wss://rec.example.com/\udc80", "Unicode"),
        ("wss://user:password@rec.example.com/", "credentials"),
        ("wss://rec.example.com:99999/", "not a URL"),
        ("wss://rec.example.com:x/", "not a URL"),
        ("wss://[::1/", "not a URL"),
    ],
)
def test_other_stream_urls_are_refused(url: str, why: str) -> None:
    """Every broken rule has its own words."""
    with pytest.raises(InvalidRequestError, match=why):
        validation.check_stream_url(url)


@pytest.mark.parametrize("check", [validation.check_stream_url, validation.check_callback_url])
@pytest.mark.parametrize("password", ["hunter22", "hunter22/x", "hunter22#x", "[hunter22"])
def test_a_password_in_the_url_is_not_repeated(check: Callable[[str], str], password: str) -> None:
    """The refusal does not show it, nor the part of it that would be a port."""
    with pytest.raises(InvalidRequestError) as refusal:
        check(f"wss://user:{password}@rec.example.com/")
    shown = "".join(traceback.format_exception(refusal.value))
    assert "hunter22" not in shown


@given(st.text())
def test_any_stream_url_passes_or_is_refused(url: str) -> None:
    """No text makes the check fail in another way, and what passes holds no query or space."""
    try:
        checked = validation.check_stream_url(url)
    except InvalidRequestError:
        return
    assert not set("?# \t\r\n") & set(checked)


@pytest.mark.parametrize("url", ["http://h.example/x?y=1", "https://u:p@h.example:81"])
def test_callback_urls_pass(url: str) -> None:
    """Status callbacks may have a query and credentials."""
    assert url == validation.check_callback_url(url)


@pytest.mark.parametrize("url", ["", "/x", "wss://h.example", "http://", "http://h.example/ x"])
def test_other_callback_urls_are_refused(url: str) -> None:
    """A status callback is an http or https URL with a host."""
    with pytest.raises(InvalidRequestError, match="status callback"):
        validation.check_callback_url(url)


@pytest.mark.parametrize("name", ["a", "my stream/1", "Größe", "..a"])
def test_names_pass(name: str) -> None:
    """Names may hold what has to be escaped in a path."""
    assert name == validation.check_name(name)


@pytest.mark.parametrize("name", ["", "  ", ".", "..", "a\nb", "a\x7f", "\ud800"])
def test_other_names_are_refused(name: str) -> None:
    """A name that cannot be a path segment could not be stopped by."""
    with pytest.raises(InvalidRequestError, match="the stream name"):
        validation.check_name(name)


def test_99_parameters_pass() -> None:
    """Up to 99 parameters of any text are kept in order."""
    pairs = [(f"größe {n}", "=" * n) for n in range(99)]
    assert dict(pairs) == validation.check_parameters(pairs)


@pytest.mark.parametrize(
    ("pairs", "why"),
    [
        ([(str(n), "") for n in range(100)], "100 parameters"),
        ([("", "x")], "no name"),
        ([(" ", "x")], "no name"),
        ([("a", "1"), ("a", "2")], "given twice"),
        ([("a", "\udc80")], "Unicode"),
    ],
)
def test_other_parameters_are_refused(pairs: list[tuple[str, str]], why: str) -> None:
    """Too many, nameless, doubled or broken parameters are refused."""
    with pytest.raises(InvalidRequestError, match=why):
        validation.check_parameters(pairs)


@pytest.mark.parametrize("token", ["t", "t" * 16, "t" * 8000, "!~" * 8])
def test_bearer_tokens_pass(token: str) -> None:
    """Visible ASCII is a token for the provider, however short."""
    assert token == validation.check_bearer_token(token)


def test_a_token_of_ours_has_a_fair_length() -> None:
    """Where a shortest length is given."""
    with pytest.raises(InvalidRequestError, match="16 to 8000"):
        validation.check_bearer_token("t" * 15, shortest=validation.MIN_TOKEN_CHARS)


@pytest.mark.parametrize("token", ["", "t" * 8001, SECRET, "t" * 16 + "\n", "ü" * 16])
def test_other_bearer_tokens_are_refused_without_being_shown(token: str) -> None:
    """What does not fit a header is refused, and the text does not hold it."""
    with pytest.raises(InvalidRequestError) as refusal:
        validation.check_bearer_token(token)
    assert not token or token not in str(refusal.value)
