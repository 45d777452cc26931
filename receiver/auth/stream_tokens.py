"""Who may stream: static bearer tokens, and signed ones that name one call.

Pure. A signed stream token is a JWT (HS256, `kid`) with `aud` "receiver", `sub` (the call sid),
`jti` and `exp`. It opens one stream once; `replay_store` remembers its `jti`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from receiver.auth.bearer import bearer_token, digest, is_among
from receiver.auth.signed import claim_text, expiry, keys_by_id, verified_claims

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
