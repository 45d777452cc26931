"""Signing in by OpenID Connect: the authorization code flow with PKCE (OpenID Connect Core 1.0).

The provider says who somebody is, and an account here says what they may do: a name that has no
account is refused. At the first sign-in the account is bound to the provider's subject, so that
whoever gets the name later is somebody else.

`authlib` checks the claims of ID tokens, and `joserfc`, which comes with it, their signatures.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

import structlog

from receiver.config.settings import Config
from receiver.console.problems import Problem

PATH: Final = "/login/oidc"
CALLBACK: Final = f"{PATH}/callback"
PENDING_SECONDS: Final = 600.0
"""Somebody must come back from the provider within this time."""
_MOST_PENDING: Final = 1000
_KNOWN_SECONDS: Final = 3600.0
_ANSWER_SECONDS: Final = 10.0
_LEEWAY_SECONDS: Final = 60
_ALGORITHMS: Final = ["RS256", "PS256", "ES256", "ES384", "EdDSA"]
_UNREACHABLE: Final = "The identity provider cannot be reached or is not set up well: see the log."

log = structlog.get_logger("receiver.console")


@dataclass(frozen=True, slots=True)
class Pending:
    """A sign-in that is on its way: what the answer must agree with, and where to go then."""

    nonce: str
    verifier: str
    next_path: str
    began_at: float


@dataclass(slots=True)
class Provider:
    """The provider as the settings name it; its description is read when it is needed."""

    config: Config
    secret: str = field(repr=False)
    _pending: dict[str, Pending] = field(default_factory=dict)
    _metadata: dict[str, Any] = field(default_factory=dict)
    _keys: Any = None
    _read_at: float = 0.0

    async def start(self, redirect_uri: str, next_path: str) -> tuple[str, str]:
        """Return the URL at the provider, and the state that the browser must bring back.

        Raises:
            Problem: 503, the provider cannot be reached.
        """
        from authlib.oauth2.rfc7636 import create_s256_code_challenge  # slow to import

        metadata = await self._described()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        now = time.monotonic()
        self._pending = {
            k: p for k, p in self._pending.items() if now - p.began_at < PENDING_SECONDS
        }
        while len(self._pending) >= _MOST_PENDING:
            del self._pending[next(iter(self._pending))]
        self._pending[state] = Pending(nonce, verifier, next_path, now)
        words = {
            "response_type": "code",
            "client_id": self.config.oidc_client_id,
            "redirect_uri": redirect_uri,
            "scope": "openid email profile",
            "state": state,
            "nonce": nonce,
            "code_challenge": create_s256_code_challenge(verifier),
            "code_challenge_method": "S256",
        }
        return f"{metadata['authorization_endpoint']}?{urlencode(words)}", state

    async def finish(
        self, words: Mapping[str, str], state: str, redirect_uri: str
    ) -> tuple[str, str, str]:
        """Return the subject that has signed in, the name it has there, and where to go.

        Args:
            words: The query with which the browser came back.
            state: What its cookie says.
            redirect_uri: The same as at the start.

        Raises:
            Problem: 400, this browser began no such sign-in, or too long ago; 403, the provider
                refused; 503, it cannot be reached, or its answer cannot be trusted.
        """
        given = words.get("state", "")
        pending = self._pending.pop(given, None) if given and given == state else None
        if pending is None or time.monotonic() - pending.began_at > PENDING_SECONDS:
            raise Problem(400, "This sign-in was not begun here, or too long ago: begin again.")
        if "code" not in words:
            reason = words.get("error", "no reason")
            raise Problem(403, f"The identity provider refused the sign-in: {reason[:100]}.")
        claims = await self._claims(words["code"], pending, redirect_uri)
        name = claims.get(self.config.oidc_user_claim)
        if self.config.oidc_user_claim == "email" and claims.get("email_verified") is not True:
            name = None
        if not isinstance(name, str):
            text = f"The identity provider gives no usable {self.config.oidc_user_claim} for you."
            raise Problem(403, text)
        return str(claims["sub"]), name, pending.next_path

    async def _claims(self, code: str, pending: Pending, redirect_uri: str) -> dict[str, Any]:
        """Exchange the code; return the claims of the ID token, and those that are asked for."""
        metadata = await self._described()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": pending.verifier,
        }
        client = (str(self.config.oidc_client_id), self.secret)
        tokens = await self._json("POST", metadata["token_endpoint"], data=form, auth=client)
        claims = self._verified(str(tokens.get("id_token", "")), pending.nonce)
        if self.config.oidc_user_claim not in claims and "userinfo_endpoint" in metadata:
            bearer = {"Authorization": f"Bearer {tokens.get('access_token', '')}"}
            more = await self._json("GET", metadata["userinfo_endpoint"], headers=bearer)
            if more.get("sub") == claims["sub"]:  # OpenID Connect Core, section 5.3.2
                claims = {**more, **claims}
        return claims

    def _verified(self, id_token: str, nonce: str) -> dict[str, Any]:
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.errors import JoseError

        issuer, client = self._metadata["issuer"], self.config.oidc_client_id
        options = {
            "iss": {"essential": True, "value": issuer},
            "aud": {"essential": True, "value": client},
        }
        try:
            token = jwt.decode(id_token, self._keys, algorithms=_ALGORITHMS)
            params = {"nonce": nonce, "client_id": client}
            claims = CodeIDToken(token.claims, token.header, options, params)
            claims.validate(leeway=_LEEWAY_SECONDS)
        except (JoseError, ValueError) as error:
            log.error("id_token_refused", error=str(error))
            raise Problem(503, _UNREACHABLE) from None
        return dict(claims)

    async def _described(self) -> dict[str, Any]:
        """Return the provider's description; it and its keys are read again once an hour."""
        if self._metadata and time.monotonic() - self._read_at < _KNOWN_SECONDS:
            return self._metadata
        from joserfc.jwk import KeySet

        issuer = str(self.config.oidc_issuer)
        found = await self._json("GET", f"{issuer}/.well-known/openid-configuration")
        if str(found.get("issuer", "")).rstrip("/") != issuer:
            log.error("issuer_differs", configured=issuer, found=str(found.get("issuer")))
            raise Problem(503, _UNREACHABLE)
        self._keys = KeySet.import_key_set(await self._json("GET", found["jwks_uri"]))  # type: ignore[arg-type]
        self._metadata, self._read_at = found, time.monotonic()
        return found

    async def _json(self, method: str, url: str, **options: Any) -> dict[str, Any]:
        import httpx  # only here: few consoles ask a provider

        try:
            async with httpx.AsyncClient(timeout=_ANSWER_SECONDS) as client:
                answer = await client.request(method, url, **options)
                answer.raise_for_status()
                found = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            log.error("identity_provider_failed", url=url.partition("?")[0], error=str(error))
            raise Problem(503, _UNREACHABLE) from None
        if not isinstance(found, dict):
            raise Problem(503, _UNREACHABLE)
        return found
