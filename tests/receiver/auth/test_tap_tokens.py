"""Tap tokens: their own lists, keys and audience; scopes; and short lives in URLs."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.auth.bearer import RefusalReason, StreamTokens, key_id
from receiver.auth.tap_tokens import Scope, TapTokens, mint, parse_scope
from receiver.errors import ConfigurationError, Refused

KEY, OTHER_KEY = "k" * 32, "o" * 32
NOW = 1_795_300_000.0
TOKENS = TapTokens(["static-token-1234"], [KEY])


def signed(key: str = KEY, **changes: Any) -> str:
    """Return a token with changed claims; `None` leaves one out."""
    claims = {"aud": "tap", "scope": "all", "iat": NOW, "exp": NOW + 300} | changes
    present = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(present, key, "HS256", headers={"kid": key_id(key.encode())})


def refusal(token: str, *, in_query: bool = False, now: float = NOW) -> RefusalReason:
    """Return why a token is refused."""
    headers = () if in_query else (f"Bearer {token}",)
    with pytest.raises(Refused) as refused:
        TOKENS.admit(headers, token if in_query else None, now=now)
    return refused.value.reason


def test_a_static_token_opens_every_stream() -> None:
    """Its scope is all."""
    scope = TOKENS.admit(("Bearer static-token-1234",), None, now=NOW).scope
    assert Scope() == scope
    assert scope.permits("any", {})


def test_a_grant_has_the_name_of_its_token() -> None:
    """Or says which token it is, or which key signed it; never the token."""
    tokens = TapTokens(["static-token-1234", "static-token-5678"], [KEY], ["", "support"])
    sent = ("static-token-1234", "static-token-5678", signed())
    names = [tokens.admit((f"Bearer {token}",), None, now=NOW).name for token in sent]
    assert ["token 1", "support", f"key {key_id(KEY.encode())}"] == names


def test_without_tokens_and_keys_there_are_none() -> None:
    """Either is enough."""
    assert [False, True, True] == [
        bool(tokens)
        for tokens in (TapTokens(), TapTokens(["static-token-1234"]), TapTokens([], [KEY]))
    ]


def test_minted_tokens_open_their_scope_again_and_again() -> None:
    """One call, one parameter value, or all; until they expire."""
    call, parameter = Scope(call_sid="CA1"), Scope(parameter=("Queue", "a=b"))
    for scope in (call, parameter, Scope()):
        token = mint(KEY, scope, now=NOW, ttl_seconds=300)
        for _ in range(2):
            assert scope == TOKENS.admit((f"Bearer {token}",), None, now=NOW + 299).scope
            assert scope == TOKENS.admit((), token, now=NOW).scope
    assert [True, False] == [call.permits(sid, {}) for sid in ("CA1", "CA2")]
    calls: tuple[dict[str, str], ...] = ({"Queue": "a=b"}, {"Queue": "a"}, {})
    assert [True, False, False] == [parameter.permits("CA1", p) for p in calls]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aud": "receiver"}, RefusalReason.UNSUITABLE),
        ({"aud": ["tap"]}, RefusalReason.UNSUITABLE),
        ({"scope": None}, RefusalReason.UNSUITABLE),
        ({"scope": "everything"}, RefusalReason.UNSUITABLE),
        ({"scope": "call:"}, RefusalReason.UNSUITABLE),
        ({"scope": "param:x"}, RefusalReason.UNSUITABLE),
        ({"scope": 7}, RefusalReason.UNSUITABLE),
        ({"iat": None}, RefusalReason.UNSUITABLE),
        ({"exp": NOW - 61}, RefusalReason.EXPIRED),
        ({"nbf": NOW + 61}, RefusalReason.NOT_YET_VALID),
    ],
)
def test_other_claims_are_refused(changes: dict[str, Any], reason: RefusalReason) -> None:
    """Of another audience, without a scope, or outside their time."""
    assert reason == refusal(signed(**changes))


def test_other_keys_and_no_signature_are_refused() -> None:
    """A key that is not ours, algorithm none, a stream token, or no token at all."""
    unsigned = jwt.encode({"aud": "tap"}, None, "none")  # type: ignore[arg-type]  # as attackers do
    stream = signed(aud="receiver", sub="CA1", jti="x")
    assert RefusalReason.UNKNOWN == refusal(signed(OTHER_KEY))
    assert RefusalReason.UNKNOWN == refusal(unsigned)
    assert RefusalReason.UNSUITABLE == refusal(stream)
    assert RefusalReason.UNKNOWN == refusal("another-static-token")
    with pytest.raises(Refused):
        TapTokens(["static-token-1234"]).admit((f"Bearer {signed()}",), None, now=NOW)


def test_tap_tokens_do_not_open_streams() -> None:
    """Even one that a stream key signed is for another audience."""
    tap = signed(sub="CA1", jti="x")
    for tokens in (StreamTokens(["stream-token-1234"]), StreamTokens([], [KEY])):
        with pytest.raises(Refused):
            tokens.admit((f"Bearer {tap}",), now=NOW)


@pytest.mark.parametrize(
    "changes",
    [{"exp": NOW + 301}, {"iat": NOW + 3600, "exp": NOW + 3900}, {"iat": NOW + 10**6}],
)
def test_a_url_carries_short_lived_tokens_only(changes: dict[str, Any]) -> None:
    """At most five minutes, whatever its `iat` claims."""
    assert RefusalReason.UNSUITABLE == refusal(signed(**changes), in_query=True)


def test_a_url_carries_no_static_token() -> None:
    """Those live for long, and URLs are kept in histories and logs."""
    assert RefusalReason.UNKNOWN == refusal("static-token-1234", in_query=True)


def test_two_tokens_are_one_too_many() -> None:
    """In the header and in the URL: which one counts is not defined."""
    with pytest.raises(Refused) as refused:
        TOKENS.admit(("Bearer static-token-1234",), signed(), now=NOW)
    assert refused.value.reason is RefusalReason.DUPLICATED


def test_no_secret_is_in_the_text() -> None:
    """How many there are, and nothing else."""
    assert "<TapTokens: 1 static, 1 keys>" == repr(TOKENS)


def test_a_token_lives_for_a_while() -> None:
    """None is minted that is dead at once."""
    with pytest.raises(ConfigurationError, match="at least one second"):
        mint(KEY, Scope(), now=NOW, ttl_seconds=0)


@given(st.text(min_size=1), st.text())
def test_scopes_survive_a_round_trip(name: str, value: str) -> None:
    """Any call sid, and any parameter whose name has no equals sign."""
    assert Scope(call_sid=name) == parse_scope(str(Scope(call_sid=name)))
    scope = Scope(parameter=(name.replace("=", "-"), value))
    assert scope == parse_scope(str(scope))


@given(st.text())
def test_any_text_is_refused_without_another_error(token: str) -> None:
    """Never another exception."""
    for authorization, query in (((f"Bearer {token}",), None), ((), token)):
        with pytest.raises(Refused):
            TOKENS.admit(authorization, query, now=NOW)
