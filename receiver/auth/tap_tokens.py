"""Who may listen: tap tokens, static ones for every stream and signed ones with a scope.

Pure. Stream tokens do not open taps, nor tap tokens streams: they have lists, keys and an
audience of their own. A signed tap token is a JWT (HS256, `kid`) with `aud` "tap", `iat`, `exp`,
and `scope`: `all`, `call:<call sid>`, or `param:<name>=<value>`. It may be used until it expires.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from receiver.auth.bearer import (
    LEEWAY_SECONDS,
    RefusalReason,
    StreamTokens,
    bearer_token,
    claim_text,
    digest,
    encode,
    expiry,
    is_among,
    keys_by_id,
    seconds,
    signing_key_id,
    verified_claims,
)
from receiver.errors import ConfigurationError, Refused
from receiver.media import parameter_text

AUDIENCE: Final = "tap"
LONGEST_IN_QUERY_SECONDS: Final = 300
"""How long a token may live that comes in a URL, where logs and histories keep it."""
_ALL: Final = "all"
_CALL: Final = "call:"
_PARAMETER: Final = "param:"


@dataclass(frozen=True, slots=True)
class Scope:
    """Which streams may be listened to: those of one call, with one parameter value, or all."""

    call_sid: str | None = None
    parameter: tuple[str, str] | None = None

    def permits(self, call_sid: str, parameters: Mapping[str, Any]) -> bool:
        """Whether a stream of this call, with these parameters, may be listened to."""
        if self.call_sid is not None:
            return self.call_sid == call_sid
        if self.parameter is not None:
            name, value = self.parameter
            return name in parameters and parameter_text(parameters[name]) == value
        return True

    def __str__(self) -> str:
        """Return the claim."""
        if self.call_sid is not None:
            return _CALL + self.call_sid
        return _PARAMETER + "=".join(self.parameter) if self.parameter else _ALL


def parse_scope(text: str) -> Scope:
    """Return the scope of a `scope` claim.

    Raises:
        ValueError: it has none of the three forms.
    """
    if text == _ALL:
        return Scope()
    if text.startswith(_CALL) and len(text) > len(_CALL):
        return Scope(call_sid=text.removeprefix(_CALL))
    name, equals, value = text.removeprefix(_PARAMETER).partition("=")
    if text.startswith(_PARAMETER) and name and equals:
        return Scope(parameter=(name, value))
    raise ValueError(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class TapGrant:
    """The right to listen within a scope, and by which token it was given."""

    scope: Scope = Scope()
    name: str = ""  # of the token, for people
    token_digest: bytes = field(default=b"", repr=False)  # of a static token
    key_id: str = ""  # of a signed one
    expires_at: float | None = None  # the second since 1970 from which on it is refused


class TapTokens:
    """All tap tokens and keys that are valid at present.

    Each grant has a name that logs and metrics may show: that of its static token, or else
    "token 2", the second of all; or "key 1a2b3c4d", by the id of the key that signed it.
    """

    __slots__ = ("_digests", "_keys", "_names")

    def __init__(
        self, tokens: Iterable[str] = (), keys: Iterable[str] = (), names: Sequence[str] = ()
    ) -> None:
        self._digests = tuple(map(digest, tokens))
        self._keys = keys_by_id(keys)
        self._names = tuple(names)  # of the tokens, as far as they have any

    def __bool__(self) -> bool:
        """Whether any token could be admitted at all."""
        return bool(self._digests or self._keys)

    def __repr__(self) -> str:
        """Return how many there are, and nothing else."""
        return f"<TapTokens: {len(self._digests)} static, {len(self._keys)} keys>"

    def shares_with(self, streams: StreamTokens) -> bool:
        """Whether a static token opens both taps and streams, which none must."""
        return streams.has_any(self._digests)

    def admit(
        self, authorization_values: Sequence[str], access_token: str | None, *, now: float
    ) -> TapGrant:
        """Return what the caller may listen to.

        Args:
            authorization_values: every value of the Authorization header.
            access_token: the one of the query, which must be signed and short-lived.
            now: seconds since 1970.

        Raises:
            Refused: the caller has no valid token, or more than one.
        """
        if access_token is not None:
            if authorization_values:
                raise Refused(RefusalReason.DUPLICATED)
            return self._admit_signed(access_token, now, longest=LONGEST_IN_QUERY_SECONDS)
        token = bearer_token(authorization_values)
        grant = TapGrant(token_digest=digest(token))
        if not self.still_has(grant):
            return self._admit_signed(token, now)
        return replace(grant, name=self._name(self._digests.index(grant.token_digest)))

    def _name(self, index: int) -> str:
        """Return the name of a static token, or which one it is."""
        named = index < len(self._names) and self._names[index]
        return named or f"token {index + 1}"

    def still_has(self, grant: TapGrant) -> bool:
        """Whether the token of a grant, or the key that signed it, is still among these."""
        if grant.key_id:
            return grant.key_id in self._keys
        return is_among(grant.token_digest, self._digests)

    def still_admits(self, grant: TapGrant, *, now: float) -> bool:
        """Whether a token that was admitted once would be admitted now."""
        in_time = grant.expires_at is None or now < grant.expires_at
        return in_time and self.still_has(grant)

    def _admit_signed(self, token: str, now: float, *, longest: float | None = None) -> TapGrant:
        required = ("iat", "scope")
        claims = verified_claims(token, self._keys, audience=AUDIENCE, required=required)
        expires_at = expiry(claims, now=now)
        lifetime = seconds(claims["exp"]) - seconds(claims["iat"])
        # What is left counts too: a token that claims to be minted tomorrow is no younger.
        left = expires_at - LEEWAY_SECONDS - now
        if longest is not None and not (
            0 < lifetime <= longest and left <= longest + LEEWAY_SECONDS
        ):
            raise Refused(RefusalReason.UNSUITABLE)
        try:
            scope = parse_scope(claim_text(claims["scope"]))
        except ValueError:
            raise Refused(RefusalReason.UNSUITABLE) from None
        key_id = signing_key_id(token)
        return TapGrant(scope=scope, name=f"key {key_id}", key_id=key_id, expires_at=expires_at)


def mint(key: str, scope: Scope, *, now: float, ttl_seconds: int) -> str:
    """Return a signed tap token.

    Raises:
        ConfigurationError: `ttl_seconds` is not positive.
    """
    if ttl_seconds <= 0:
        raise ConfigurationError("a token must live for at least one second")
    issued_at = int(now)
    claims = {
        "aud": AUDIENCE,
        "scope": str(scope),
        "iat": issued_at,
        "exp": issued_at + ttl_seconds,
    }
    return encode(claims, key)
