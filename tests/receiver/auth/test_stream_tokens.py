"""Stream tokens: which header values are admitted, and why others are refused."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.auth.bearer import LEEWAY_SECONDS, Grant, RefusalReason, StreamTokens, key_id
from receiver.errors import Refused

NOW = 1_800_000_000
KEY = "k" * 32
OTHER_KEY = "o" * 32
TOKENS = StreamTokens(
    ["first-token-0123456789", "second-token-0123456789"], [KEY, "old-key-" + KEY]
)


def signed(key: str = KEY, *, kid: str | None = None, **claims: Any) -> str:
    """Return a stream token; a claim of `None` is left out."""
    every = {"sub": "CA1", "aud": "receiver", "exp": NOW + 10, "jti": "once"} | claims
    given_claims = {name: value for name, value in every.items() if value is not None}
    headers = {"kid": key_id(key.encode()) if kid is None else kid}
    return jwt.encode(given_claims, key, "HS256", headers)


def refusal(*values: str, tokens: StreamTokens = TOKENS, now: float = NOW) -> RefusalReason:
    """Return why `values` are refused."""
    with pytest.raises(Refused) as caught:
        tokens.admit(values, now=now)
    assert not any(value in str(caught.value) for value in values if value)
    return caught.value.reason


def outcome(*values: str) -> Grant | RefusalReason:
    """Return the grant for `values`, or why they are refused."""
    try:
        return TOKENS.admit(values, now=NOW)
    except Refused as refused:
        return refused.reason


@pytest.mark.parametrize("token", ["first-token-0123456789", "second-token-0123456789"])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
def test_every_static_token_is_admitted(scheme: str, token: str) -> None:
    """Several tokens are valid at once, and the scheme's case does not matter."""
    assert Grant(call_sid=None, jti=None, expires_at=None) == TOKENS.admit(
        [f"{scheme} {token}"], now=NOW
    )


@pytest.mark.parametrize(
    ("reason", "values"),
    [
        ("missing", []),
        ("duplicated", ["Bearer first-token-0123456789"] * 2),
        ("too_long", ["Bearer " + "a" * 8186]),
        ("unknown", ["Bearer " + "a" * 8185]),
        ("non_ascii", ["Bearer first-token-0123456789\xff"]),
        ("non_ascii", ["Bearer \u20ac"]),
        ("malformed", [""]),
        ("malformed", ["Bearer"]),
        ("malformed", ["Bearer "]),
        ("malformed", ["Basic first-token-0123456789"]),
        ("malformed", ["first-token-0123456789"]),
        ("malformed", ["Bearer first-token-0123456789, Bearer first-token-0123456789"]),
        ("malformed", ["Bearer first-token-0123456789\n"]),
        ("malformed", ["Bearer\tfirst-token-0123456789"]),
        ("unknown", ["Bearer first-token-012345678"]),
        ("unknown", ["Bearer first-token-01234567890"]),
        ("unknown", ["Bearer FIRST-TOKEN-0123456789"]),
        ("unknown", ["Bearer a.b"]),
        ("unknown", ["Bearer a.b.c"]),
    ],
)
def test_other_header_values_are_refused(reason: str, values: list[str]) -> None:
    """Each kind of wrong header has its own reason."""
    assert RefusalReason(reason) is refusal(*values)


def test_no_tokens_admit_nobody() -> None:
    """Without tokens and keys even a well signed token is unknown."""
    assert RefusalReason.UNKNOWN is refusal(f"Bearer {signed()}", tokens=StreamTokens())


@given(st.lists(st.text() | st.from_regex(r"(?a)[Bb]earer [!-~]+\Z"), max_size=3))
def test_any_header_values_are_granted_or_refused(values: list[str]) -> None:
    """No header value raises anything but Refused, and no guess is granted."""
    assert isinstance(outcome(*values), RefusalReason)


@given(st.lists(st.binary(max_size=60), min_size=3, max_size=3), st.sampled_from(["HS256", "none"]))
def test_any_signed_token_is_granted_or_refused(parts: list[bytes], algorithm: str) -> None:
    """Three parts of any bytes, with or without a header that looks right, are only refused."""
    head = json.dumps({"alg": algorithm, "kid": key_id(KEY.encode())}).encode()
    for start in (parts[0], head):
        pieces = [base64.urlsafe_b64encode(part).decode() for part in (start, *parts[1:])]
        refusal("Bearer " + ".".join(pieces))


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists), st.data())
def test_any_claims_are_granted_or_refused(value: Any, chosen: st.DataObject) -> None:
    """Well signed claims of any type raise nothing but Refused."""
    name = chosen.draw(st.sampled_from(["exp", "nbf", "iat"]))
    claims = {"sub": "CA1", "aud": "receiver", "exp": NOW, "jti": "once", name: value}
    head = json.dumps({"alg": "HS256", "kid": key_id(KEY.encode())}).encode()
    token = jwt.PyJWS().encode(json.dumps(claims).encode(), KEY, headers=json.loads(head))
    became = outcome(f"Bearer {token}")
    assert isinstance(became, Grant | RefusalReason)


def test_a_signed_token_names_its_call() -> None:
    """The grant holds the call, the token's own id, and how long to remember it."""
    expected = Grant(call_sid="CA1", jti="once", expires_at=NOW + 10 + LEEWAY_SECONDS)
    assert expected == TOKENS.admit([f"Bearer {signed()}"], now=NOW)
    assert expected == TOKENS.admit([f"bearer {signed('old-key-' + KEY)}"], now=NOW)


def test_clocks_may_differ_by_the_leeway() -> None:
    """A token is good until a minute after its end, by the clock that is passed in."""
    token = f"Bearer {signed(exp=NOW)}"
    assert "CA1" == TOKENS.admit([token], now=NOW + 59.9).call_sid
    assert RefusalReason.EXPIRED is refusal(token, now=NOW + 60)


def test_a_token_for_later_is_refused() -> None:
    """`nbf` holds, with the same leeway."""
    token = f"Bearer {signed(nbf=NOW + 60, exp=NOW + 100)}"
    assert "CA1" == TOKENS.admit([token], now=NOW).call_sid
    assert RefusalReason.NOT_YET_VALID is refusal(token, now=NOW - 1)


@pytest.mark.parametrize(
    ("reason", "token"),
    [
        ("unknown", signed(OTHER_KEY)),
        ("unknown", signed(OTHER_KEY, kid=key_id(KEY.encode()))),
        ("unknown", signed(kid="")),
        ("unknown", signed()[:-4] + "AAAA"),
        ("unknown", jwt.encode({"sub": "CA1", "aud": "receiver", "exp": NOW, "jti": "1"}, KEY)),
        (
            "unknown",
            jwt.encode({"sub": "CA1"}, "", "none", headers={"kid": key_id(KEY.encode())}),
        ),
        (
            "unknown",
            jwt.encode({"sub": "CA1"}, KEY * 2, "HS512", headers={"kid": key_id(KEY.encode())}),
        ),
        ("unsuitable", signed(aud="sender")),
        ("unsuitable", signed(aud=["receiver"])),
        ("unsuitable", signed(aud=None)),
        ("unsuitable", signed(sub=None)),
        ("unsuitable", signed(sub="")),
        ("unsuitable", signed(sub="C" * 300)),
        ("unsuitable", signed(jti=None)),
        ("unsuitable", signed(jti="")),
        ("unsuitable", signed(exp=None)),
        ("unsuitable", signed(exp="tomorrow")),
        ("unsuitable", signed(exp=True)),
        ("unsuitable", signed(exp=2**60)),
        ("unsuitable", signed(exp=float("inf"))),
        ("unsuitable", signed(exp=float("nan"))),
        ("unsuitable", signed(nbf="yesterday")),
    ],
)
def test_other_signed_tokens_are_refused(reason: str, token: str) -> None:
    """Wrong key, key id, algorithm, audience or claims are refused."""
    assert RefusalReason(reason) is refusal(f"Bearer {token}")


def test_deep_nesting_is_refused() -> None:
    """A header nested deeper than the JSON reader goes is refused like any other."""
    head = base64.urlsafe_b64encode(b'{"kid":' + b"[" * 5000).decode().rstrip("=")
    assert RefusalReason.UNKNOWN is refusal(f"Bearer {head}.e30.AA")


def test_no_secret_is_in_the_text() -> None:
    """How many there are, and nothing else."""
    assert "<StreamTokens: 2 static, 2 keys>" == repr(TOKENS) == str(TOKENS)


@pytest.mark.integration
def test_jwt_is_imported_only_where_a_key_is_configured() -> None:
    """Static tokens need no JWT library."""
    code = (
        "import sys; from receiver.auth.bearer import StreamTokens as Tokens;"
        "Tokens(['t' * 16]).admit(['Bearer ' + 't' * 16], now=0); assert 'jwt' not in sys.modules"
    )
    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode
