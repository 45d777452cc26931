"""Signed tokens: JWT, HS256, the key named by `kid`; signature, audience, claims and times.

Pure: a token, the known keys and the time come in, verified claims or `Refused` come out. Both
kinds of signed tokens are checked here; which claims they need is said in `stream_tokens` and
`tap_tokens`. The JWT library is imported only where a key is configured.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from receiver.auth.bearer import RefusalReason
from receiver.errors import Refused

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
