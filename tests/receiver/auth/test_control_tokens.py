"""Control tokens: one order about one call, for a short time, by whoever the token names."""

from __future__ import annotations

from typing import Any

import pytest

from receiver.auth.bearer import ControlTokens, encode, key_id, mint_control
from receiver.auth.tap_tokens import Scope, mint
from receiver.errors import ConfigurationError, Refused

KEY = "a-control-key-for-tests-of-32-letters"
NOW = 1_800_000_000.0
TOKENS = ControlTokens([KEY])


def minted(call_sid: str = "CA1", *, ttl: int = 60, who: str = "", via: str = "") -> str:
    """Return a token."""
    return mint_control(KEY, call_sid, jti="j", who=who, via=via, now=NOW, ttl_seconds=ttl)


def admitted(token: str, *, now: float = NOW) -> Any:
    """Return the grant of a token."""
    return TOKENS.admit([f"Bearer {token}"], now=now)


def test_a_token_is_for_one_call_and_says_who_gives_the_order() -> None:
    """Or for any; without a name it is that of its key."""
    grant = admitted(minted(who="ann", via="console"))
    assert (True, False) == (grant.permits("CA1"), grant.permits("CA2"))
    assert ("j", "ann", "console") == (grant.jti, grant.who, grant.via)
    grant = admitted(minted("*"))
    assert grant.permits("CA2")
    assert (f"key {key_id(KEY.encode())}", "command") == (grant.who, grant.via)


@pytest.mark.parametrize("ttl", [0, -1, 301])
def test_a_token_lives_for_a_short_time(ttl: int) -> None:
    """A longer one is not minted."""
    with pytest.raises(ConfigurationError, match="1 to 300 s"):
        minted(ttl=ttl)


@pytest.mark.parametrize(
    "token",
    [
        mint(KEY, Scope(), now=NOW, ttl_seconds=60),
        encode({"aud": "control", "sub": "x", "jti": "j", "iat": NOW, "exp": NOW + 301}, KEY),
        encode({"aud": "control", "sub": "x", "iat": NOW, "exp": NOW + 60}, KEY),
        encode({"aud": "control", "sub": "", "jti": "j", "iat": NOW, "exp": NOW + 60}, KEY),
        encode({"aud": "control", "sub": "x", "jti": "j", "iat": NOW + 9e5, "exp": NOW + 9e5}, KEY),
        encode({"aud": "control", "sub": "x", "jti": 5, "iat": NOW, "exp": NOW + 60}, KEY),
        mint_control(KEY * 2, "x", jti="j", who="", now=NOW, ttl_seconds=60),
        "a-token-for-tests-only",
    ],
)
def test_other_tokens_are_refused(token: str) -> None:
    """Those of listeners, long ones, ones that lack something, and those of other keys."""
    with pytest.raises(Refused):
        admitted(token)


def test_it_expires() -> None:
    """A minute later than it says, since clocks differ."""
    assert admitted(minted(), now=NOW + 119)
    with pytest.raises(Refused):
        admitted(minted(), now=NOW + 120)
