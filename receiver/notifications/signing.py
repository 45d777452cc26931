"""Signatures of webhooks, as the Standard Webhooks specification has them. Pure.

    webhook-id: evt_5f…                       the same at every attempt
    webhook-timestamp: 1796119200             seconds since 1970, of this attempt
    webhook-signature: v1,K5oZ… v1,9aTr…      one for each secret, while they are exchanged

A signature is the HMAC-SHA256 of `id.timestamp.body`, in Base64. A secret is `whsec_` and 24 to 64
random bytes in Base64.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

PREFIX: Final = "whsec_"
SHORTEST_BYTES, LONGEST_BYTES = 24, 64
MOST_SECRETS: Final = 8


def parse_secrets(text: str) -> tuple[bytes, ...]:
    """Return the secrets of a file with one per line, and `#` comments.

    Raises:
        ValueError: there is none, there are too many, or one is none; the text says which line.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if (word := line.strip()) and not word.startswith("#"):
            found.append(_secret(word, number))
    if not found:
        raise ValueError("it holds no secret")
    if len(found) > MOST_SECRETS:
        raise ValueError(f"it holds more than {MOST_SECRETS} secrets")
    return tuple(found)


def _secret(word: str, number: int) -> bytes:
    try:
        secret = base64.b64decode(word.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not word.startswith(PREFIX) or not SHORTEST_BYTES <= len(secret) <= LONGEST_BYTES:
        raise ValueError(
            f"line {number} is no secret: {PREFIX} and {SHORTEST_BYTES} to {LONGEST_BYTES} bytes"
            f' in Base64, such as of echo "{PREFIX}$(openssl rand -base64 32)"'
        )
    return secret


def headers(
    message_id: str, timestamp: int, body: bytes, secrets: Iterable[bytes]
) -> dict[str, str]:
    """Return the headers of one attempt.

    Args:
        message_id: The event's id.
        timestamp: When it is sent, in seconds since 1970.
        body: What is sent.
        secrets: Each signs it; whoever receives it needs one of them.
    """
    content = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": f"{timestamp}",
        "webhook-signature": " ".join(_signature(secret, content) for secret in secrets),
    }


def _signature(secret: bytes, content: bytes) -> str:
    digest = hmac.new(secret, content, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"
