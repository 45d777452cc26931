"""Signed tokens: names of keys, and claims that are verified before they are read."""

from __future__ import annotations

from hashlib import sha256

import pytest

from receiver.auth.bearer import (
    RefusalReason,
    claim_text,
    encode,
    expiry,
    key_id,
    keys_by_id,
    signing_key_id,
    verified_claims,
)
from receiver.errors import Refused

KEY = "k" * 32
OTHER_KEY = "o" * 32
CLAIMS = {"aud": "tap", "exp": 100, "scope": "all"}


def test_the_key_id_is_the_beginning_of_the_keys_hash() -> None:
    """Minter and receiver name a key by 8 hex characters of its SHA-256."""
    assert sha256(b"some key").hexdigest()[:8] == key_id(b"some key")


def test_what_was_signed_is_verified() -> None:
    """With any of the known keys, and the token names the one that signed it."""
    keys = keys_by_id([OTHER_KEY, KEY])
    token = encode(CLAIMS, KEY)
    assert CLAIMS == verified_claims(token, keys, audience="tap", required=["scope"])
    assert key_id(KEY.encode()) == signing_key_id(token)


@pytest.mark.parametrize(
    ("keys", "audience", "required", "reason"),
    [
        ([], "tap", [], RefusalReason.UNKNOWN),
        ([OTHER_KEY], "tap", [], RefusalReason.UNKNOWN),
        ([KEY], "receiver", [], RefusalReason.UNSUITABLE),
        ([KEY], "tap", ["jti"], RefusalReason.UNSUITABLE),
    ],
)
def test_other_keys_audiences_and_claims_are_refused(
    keys: list[str], audience: str, required: list[str], reason: RefusalReason
) -> None:
    """A signature says who made the token, the rest what it is for."""
    with pytest.raises(Refused) as refused:
        verified_claims(encode(CLAIMS, KEY), keys_by_id(keys), audience=audience, required=required)
    assert reason is refused.value.reason


def test_the_expiry_includes_the_leeway() -> None:
    """Clocks may be a minute apart, in both directions."""
    assert 160 == expiry({"exp": 100, "nbf": 60}, now=0)
    for claims, now, reason in (
        ({"exp": 100}, 160, RefusalReason.EXPIRED),
        ({"exp": 100, "nbf": 61}, 0, RefusalReason.NOT_YET_VALID),
    ):
        with pytest.raises(Refused) as refused:
            expiry(claims, now=now)
        assert reason is refused.value.reason


@pytest.mark.parametrize("claim", ["", "x" * 257, 7, None, ["x"]])
def test_other_texts_are_refused(claim: object) -> None:
    """A claim that is kept is a text of 1 to 256 characters."""
    assert "x" * 256 == claim_text("x" * 256)
    with pytest.raises(Refused):
        claim_text(claim)
