"""Who may stream: bearer tokens of a header, static ones and signed ones that name one call.

Pure: header values and texts come in, a token or `Refused` comes out. Tokens are held as digests,
so that comparing costs the same time whatever their length, and no digest can be printed as a
token. A signed stream token is a JWT (HS256, `kid`) with `aud` "receiver", `sub` (the call sid),
`jti` and `exp`. It opens one stream once; `replay_store` keeps its `jti`.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from receiver.errors import ConfigurationError, Refused

ALGORITHM: Final = "HS256"
LEEWAY_SECONDS: Final = 60
"""How far the clocks of minter and receiver may be apart."""
_LONGEST_CLAIM: Final = 256


def key_id(key: bytes) -> str:
    """Return the `kid` that names a key without giving it away."""
    return hashlib.sha256(key).hexdigest()[:8]


def keys_by_id(keys: Iterable[str]) -> dict[str, bytes]:
    """Return keys by their `kid`."""
    return {key_id(key.encode()): key.encode() for key in keys}


def encode(claims: Mapping[str, Any], key: str) -> str:
    """Return a token with these claims, signed with `key`."""
    import jwt

    return jwt.encode(dict(claims), key.encode(), ALGORITHM, headers={"kid": key_id(key.encode())})


def verified_claims(
    token: str, keys: Mapping[str, bytes], *, audience: str, required: Sequence[str]
) -> Mapping[str, Any]:
    """Return the claims of a signed token, its times still unchecked.

    Args:
        token: what stood behind "Bearer", or in the query.
        keys: the known keys by `kid`.
        audience: the one `aud` that is accepted.
        required: claims that must be there besides `aud` and `exp`.

    Raises:
        Refused: no known key signed it, or it is for another audience or lacks a claim.
    """
    if not keys or token.count(".") != 2:
        raise Refused(RefusalReason.UNKNOWN)
    import jwt

    options: Any = {  # the time is checked here, against the caller's clock
        "require": ["aud", "exp", *required],
        "strict_aud": True,
        "verify_exp": False,
        "verify_nbf": False,
        "verify_iat": False,
    }
    try:
        key = keys[jwt.get_unverified_header(token)["kid"]]
        return jwt.decode(token, key, [ALGORITHM], options, audience=audience)
    except (jwt.InvalidAudienceError, jwt.MissingRequiredClaimError) as error:
        raise Refused(RefusalReason.UNSUITABLE) from error
    except Exception as error:  # hostile bytes end in many exceptions, RecursionError among them
        raise Refused(RefusalReason.UNKNOWN) from error


def signing_key_id(token: str) -> str:
    """Return the `kid` of the key that signed a verified token."""
    import jwt

    return str(jwt.get_unverified_header(token)["kid"])


def expiry(claims: Mapping[str, Any], *, now: float) -> float:
    """Return the second since 1970 from which on a token is refused, leeway included.

    Raises:
        Refused: that is past, or `nbf` is still to come.
    """
    expires_at = seconds(claims["exp"]) + LEEWAY_SECONDS
    if now >= expires_at:
        raise Refused(RefusalReason.EXPIRED)
    if now < seconds(claims.get("nbf", 0)) - LEEWAY_SECONDS:
        raise Refused(RefusalReason.NOT_YET_VALID)
    return expires_at


def seconds(claim: object) -> float:
    """Return a claim that is a time, in seconds since 1970.

    Raises:
        Refused: it is none.
    """
    if isinstance(claim, bool) or not isinstance(claim, int | float):
        raise Refused(RefusalReason.UNSUITABLE)
    if not (math.isfinite(claim) and abs(claim) < 2**53):
        raise Refused(RefusalReason.UNSUITABLE)
    return float(claim)


def claim_text(claim: object) -> str:
    """Return a claim that is a text of 1 to 256 characters.

    Raises:
        Refused: it is none.
    """
    if not isinstance(claim, str) or not 0 < len(claim) <= _LONGEST_CLAIM:
        raise Refused(RefusalReason.UNSUITABLE)
    return claim


LONGEST_HEADER: Final = 8192
SHORTEST_TOKEN: Final = 16
SHORTEST_KEY: Final = 32
"""A key for HS256 has at least 256 bits (RFC 7518, section 3.2)."""
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_NAMED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,39}):[ \t]+(?P<token>[^#\s].*)")
_CREDENTIALS = re.compile(r"(?P<scheme>[!-~]+) +(?P<token>[!-~]+) *")


class RefusalReason(enum.StrEnum):
    """Why a request was refused. A closed set, for counters; the caller gets a bare 401."""

    MISSING = "missing"
    DUPLICATED = "duplicated"
    TOO_LONG = "too_long"
    NON_ASCII = "non_ascii"
    MALFORMED = "malformed"  # not "Bearer" and one token
    UNKNOWN = "unknown"  # no configured token, and not a token that a known key signed
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    UNSUITABLE = "unsuitable"  # well signed, but for another audience or without a claim


def bearer_token(values: Sequence[str]) -> str:
    """Return the token in the values of an Authorization header.

    Raises:
        Refused: there is not exactly one.
    """
    if not values:
        raise Refused(RefusalReason.MISSING)
    if len(values) > 1:
        raise Refused(RefusalReason.DUPLICATED)
    if len(values[0]) > LONGEST_HEADER:
        raise Refused(RefusalReason.TOO_LONG)
    if not values[0].isascii():
        raise Refused(RefusalReason.NON_ASCII)
    match = _CREDENTIALS.fullmatch(values[0])
    if match is None or match["scheme"].lower() != "bearer":
        raise Refused(RefusalReason.MALFORMED)
    return match["token"]


def digest(token: str) -> bytes:
    """Return the SHA-256 of a token, which is kept in its place."""
    return hashlib.sha256(token.encode()).digest()


def is_among(token_digest: bytes, known: Iterable[bytes]) -> bool:
    """Return whether a digest is one of the known ones, in the same time for each of them."""
    # Every token is compared, so that the time says nothing about which one came close.
    matches = [hmac.compare_digest(each, token_digest) for each in known]
    return any(matches)


def parse_tokens(text: str) -> tuple[str, ...]:
    """Return the tokens of a token file: one per line, without blank lines and `#` comments.

    Raises:
        ConfigurationError: a line holds no usable token; the text names the line only.
    """
    return _secrets(text, "token", SHORTEST_TOKEN)


def parse_named_tokens(text: str) -> tuple[tuple[str, str], ...]:
    """Return names and tokens of a file whose lines may be `NAME: TOKEN`; others have no name.

    A token has no white space in it, so a colon alone belongs to the token.

    Raises:
        ConfigurationError: a line holds no usable token; the text names the line only.
    """
    names, lines = [], []
    for line in text.split("\n"):
        named = _NAMED.fullmatch(line.strip(" \t\r"))
        lines.append(named["token"] if named else line)
        if lines[-1].strip(" \t\r") and not lines[-1].lstrip(" \t\r").startswith("#"):
            names.append(named["name"] if named else "")
    return tuple(zip(names, parse_tokens("\n".join(lines)), strict=True))


def parse_keys(text: str) -> tuple[str, ...]:
    """Return the keys of a key file, which has the form of a token file.

    Raises:
        ConfigurationError: a line holds no usable key; the text names the line only.
    """
    return _secrets(text, "key", SHORTEST_KEY)


def _secrets(text: str, what: str, shortest: int) -> tuple[str, ...]:
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        secret = line.strip(" \t\r")
        if not secret or secret.startswith("#"):
            continue
        if not _VISIBLE.fullmatch(secret):
            problem = "has a character outside visible ASCII"
        elif len(secret) < shortest:
            problem = f"is shorter than {shortest} characters"
        else:
            found.append(secret)
            continue
        raise ConfigurationError(f"the {what} on line {number} {problem}")
    return tuple(found)


CONTROL_AUDIENCE: Final = "control"
ANY_CALL: Final = "*"
LONGEST_CONTROL_SECONDS: Final = 300
"""How long a control token may live: it is minted for one order."""


@dataclass(frozen=True, slots=True)
class ControlGrant:
    """The right to give one order about one call, or any; and by whom it is given, which way."""

    call_sid: str  # or `ANY_CALL`
    jti: str
    expires_at: float
    who: str
    via: str

    def permits(self, call_sid: str) -> bool:
        """Whether an order may be about this call."""
        return self.call_sid in (ANY_CALL, call_sid)


class ControlTokens:
    """The keys that sign control tokens. A token is a JWT with `aud` "control", `sub` (a call sid,
    or `*`), `jti`, `iat` and `exp`; `who` and `via` are for the ledger.
    """

    __slots__ = ("_keys",)

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._keys = keys_by_id(keys)

    def __bool__(self) -> bool:
        """Whether any token could be admitted at all."""
        return bool(self._keys)

    def __repr__(self) -> str:
        """Return how many keys there are, and nothing else."""
        return f"<ControlTokens: {len(self._keys)} keys>"

    def admit(self, authorization_values: Sequence[str], *, now: float) -> ControlGrant:
        """Return what the caller may order; that it is used once is the caller's to check.

        Raises:
            Refused: the caller has no valid token.
        """
        token = bearer_token(authorization_values)
        required = ("sub", "jti", "iat")
        claims = verified_claims(token, self._keys, audience=CONTROL_AUDIENCE, required=required)
        expires_at = expiry(claims, now=now)
        lifetime = seconds(claims["exp"]) - seconds(claims["iat"])
        left = expires_at - LEEWAY_SECONDS - now
        if not 0 < lifetime <= LONGEST_CONTROL_SECONDS >= left - LEEWAY_SECONDS:
            raise Refused(RefusalReason.UNSUITABLE)
        who = claim_text(claims.get("who", f"key {signing_key_id(token)}"))
        via = claim_text(claims.get("via", "command"))
        call_sid, jti = claim_text(claims["sub"]), claim_text(claims["jti"])
        return ControlGrant(call_sid, jti, expires_at, who, via)


def mint_control(
    key: str, call_sid: str, *, jti: str, who: str, now: float, ttl_seconds: int, via: str = ""
) -> str:
    """Return a signed token for one order about a call, or about any (`ANY_CALL`).

    Args:
        key: the key that signs it.
        call_sid: the call.
        jti: any text that no other token has.
        who: the user that the ledger names; empty for the key's id.
        now: seconds since 1970.
        ttl_seconds: until it expires.
        via: which way the order comes; empty for `command`.

    Raises:
        ConfigurationError: it would live too long, or not at all.
    """
    if not 0 < ttl_seconds <= LONGEST_CONTROL_SECONDS:
        raise ConfigurationError(f"a control token lives for 1 to {LONGEST_CONTROL_SECONDS} s")
    claims = {"aud": CONTROL_AUDIENCE, "sub": call_sid, "jti": jti, "iat": int(now)}
    named = {"who": who, "via": via}
    claims |= {"exp": int(now) + ttl_seconds, **{k: text for k, text in named.items() if text}}
    return encode(claims, key)


AUDIENCE: Final = "receiver"


@dataclass(frozen=True, slots=True)
class Grant:
    """The right to open a stream. A static token leaves every field `None`.

    `expires_at` is the second since 1970 from which on the token is refused, leeway included:
    until then `jti` must be remembered for the token to be used only once.
    """

    call_sid: str | None = None
    jti: str | None = None
    expires_at: float | None = None


class StreamTokens:
    """All stream tokens and keys that are valid at present."""

    __slots__ = ("_digests", "_keys")

    def __init__(self, tokens: Iterable[str] = (), keys: Iterable[str] = ()) -> None:
        self._digests = tuple(map(digest, tokens))
        self._keys = keys_by_id(keys)

    def __repr__(self) -> str:
        """Return how many there are, and nothing else."""
        return f"<StreamTokens: {len(self._digests)} static, {len(self._keys)} keys>"

    def has_any(self, digests: Iterable[bytes]) -> bool:
        """Whether one of these is the digest of a static token of ours."""
        return not set(digests).isdisjoint(self._digests)

    def admit(self, authorization_values: Sequence[str], *, now: float) -> Grant:
        """Return what the caller may do, given every value of its Authorization header.

        Raises:
            Refused: the caller has no valid token.
        """
        token = bearer_token(authorization_values)
        if is_among(digest(token), self._digests):
            return Grant()
        claims = verified_claims(token, self._keys, audience=AUDIENCE, required=("sub", "jti"))
        expires_at = expiry(claims, now=now)
        return Grant(claim_text(claims["sub"]), claim_text(claims["jti"]), expires_at)
