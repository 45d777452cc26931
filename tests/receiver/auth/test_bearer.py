"""Bearer tokens as text: the header, digests, and lists of secrets in files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.auth.bearer import bearer_token, digest, is_among, parse_keys, parse_tokens
from receiver.errors import ConfigurationError, Refused

KEY = "k" * 32
OTHER_KEY = "o" * 32


@given(st.lists(st.text() | st.from_regex(r"(?a)[Bb]earer [!-~]+\Z"), max_size=3))
def test_a_header_has_one_token_or_is_refused(values: list[str]) -> None:
    """Nothing but Refused is raised, and the token is what follows the scheme."""
    try:
        token = bearer_token(values)
    except Refused:
        return
    assert token == values[0].split(" ", 1)[1].strip(" ")


def test_a_digest_is_found_among_others() -> None:
    """At any place, and only as a whole."""
    known = [digest("one"), digest("two")]
    assert [True, True, False] == [is_among(digest(t), known) for t in ("one", "two", "on")]
    assert not is_among(digest("one"), [])


def test_a_token_file_may_have_comments_and_blank_lines() -> None:
    """One token per line; white space around it does not count."""
    text = "# rotated\n\n  first-token-0123456789 \r\nsecond-token-0123456789"
    assert ("first-token-0123456789", "second-token-0123456789") == parse_tokens(text)
    assert () == parse_tokens("# nothing yet\n")


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        ("the token on line 2 is shorter than 16 characters", "# old\nsecret\n"),
        ("the token on line 1 has a character outside visible ASCII", "secret with white space"),
        ("the token on line 3 has a character outside visible ASCII", "\n\nsecret-0123456789\xe4"),
        ("the token on line 1 has a character outside visible ASCII", "\ufeffsecret-0123456789"),
    ],
)
def test_unusable_tokens_are_named_by_line(problem: str, text: str) -> None:
    """The error names the line, and never quotes the token."""
    with pytest.raises(ConfigurationError) as caught:
        parse_tokens(text)
    assert problem == str(caught.value)


def test_keys_are_longer_than_tokens() -> None:
    """A key needs 32 characters."""
    assert (KEY, OTHER_KEY) == parse_keys(f"{KEY}\n{OTHER_KEY}\n")
    with pytest.raises(ConfigurationError, match=r"^the key on line 1 is shorter than 32"):
        parse_keys("k" * 31)
