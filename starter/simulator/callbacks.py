"""Status callbacks: the events of a stream, reported to the caller's web server."""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha1
from hmac import digest
from http.client import HTTP_PORT, HTTPS_PORT, HTTPConnection, HTTPException, HTTPSConnection
from typing import Final
from urllib.parse import SplitResult, urlencode, urlsplit

from starter.errors import UnreachableError
from starter.models import CallbackMethod

SIGNATURE_HEADER: Final = "X-SignalWire-Signature"
_TIMEOUT_SECONDS: Final = 5.0


def sign(key: str, url: str, fields: Iterable[tuple[str, str]] = ()) -> str:
    """The provider's signature: base64 of HMAC-SHA1 over the URL and the POSTed fields.

    The fields follow the URL sorted by name, each as name and value without anything between.
    """
    text = url + "".join(name + value for name, value in sorted(fields))
    return b64encode(digest(key.encode(), text.encode(), sha1)).decode("ascii")


@dataclass(frozen=True, slots=True)
class Callback:
    """Where and how to report; `signing_key` None leaves the signature out."""

    url: str = field(repr=False)  # may hold a password
    method: CallbackMethod
    signing_key: str | None = field(default=None, repr=False)
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)

    def send(self, fields: Mapping[str, str]) -> None:
        """Report one event; blocks, at most some seconds. Raises UnreachableError."""
        pairs = sorted(fields.items())
        url, body = self.url, urlencode(pairs)
        headers = {}
        if self.method is CallbackMethod.GET:
            url, body, pairs = url + ("&" if "?" in url else "?") + body, "", []
        else:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        if self.signing_key:
            headers[SIGNATURE_HEADER] = sign(self.signing_key, url, pairs)
        self._request(url, body, headers)

    def _request(self, url: str, body: str, headers: Mapping[str, str]) -> None:
        try:
            status = self._exchange(urlsplit(url), body, headers)
        except (OSError, HTTPException, ValueError) as error:  # ValueError: not for a request line
            raise UnreachableError(f"the status callback failed: {error}") from error
        if status >= 400:
            raise UnreachableError(f"the status callback was answered with HTTP {status}")

    def _exchange(self, parts: SplitResult, body: str, headers: Mapping[str, str]) -> int:
        path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        with closing(self._connection(parts)) as connection:
            connection.request(self.method.value, path, body or None, dict(headers))
            return connection.getresponse().status

    def _connection(self, parts: SplitResult) -> HTTPConnection:
        host = str(parts.hostname)
        # always with a port: of an IPv6 address without one, http.client would take the last group
        if parts.scheme == "https":
            port = parts.port or HTTPS_PORT
            return HTTPSConnection(host, port, timeout=_TIMEOUT_SECONDS, context=self.ssl_context)
        return HTTPConnection(host, parts.port or HTTP_PORT, timeout=_TIMEOUT_SECONDS)
