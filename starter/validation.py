"""The provider's rules for requests. Pure: every check returns its value or raises.

All raise InvalidRequestError, in one line that names the field. Source: the provider's public API
description, and Twilio's error 31922 for white space in the stream URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import SplitResult, urlsplit

from starter.errors import InvalidRequestError

MAX_PARAMETERS: Final = 99
MIN_TOKEN_CHARS: Final = 16
MAX_TOKEN_CHARS: Final = 8000  # with "Bearer " it must fit the 8 KiB that receivers accept

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_UNFIT_FOR_URLS = re.compile(r"[\s\x00-\x20\x7f]")
_UNFIT_FOR_NAMES = re.compile(r"[\x00-\x1f\x7f]")
_TOKEN = re.compile(r"[\x21-\x7e]+")


def check_sid(sid: str, what: str, prefix: str) -> str:
    """A UUID, or Twilio's form: `prefix` (CA, AC, CF) and 32 hex digits."""
    if re.fullmatch(f"(?:{_UUID}|(?i:{prefix})[0-9a-f]{{32}})", sid, re.IGNORECASE):
        return sid
    raise InvalidRequestError(
        f"{what} {sid!r} is no sid: expected a UUID or {prefix} and 32 hex digits"
    )


def check_stream_url(url: str) -> str:
    """`Url`: absolute wss or relative, without query, fragment, credentials or white space."""
    parts = _split(url, "the stream URL")
    if "?" in url:
        raise InvalidRequestError(
            "the stream URL has a query, which the provider does not support: use parameters"
        )
    if "#" in url:
        raise InvalidRequestError("the stream URL has a fragment")
    if parts.scheme not in ("", "wss"):
        raise InvalidRequestError(f"the stream URL must be wss, not {parts.scheme}")
    if parts.scheme == "wss" and not parts.hostname:
        raise InvalidRequestError("the stream URL names no host")
    if not parts.scheme and parts.netloc:
        raise InvalidRequestError("the stream URL must start with wss:// when it names a host")
    if "@" in parts.netloc:
        raise InvalidRequestError("the stream URL holds credentials: use a bearer token")
    return url


def check_callback_url(url: str) -> str:
    """`StatusCallback`: an http or https URL with a host."""
    parts = _split(url, "the status callback")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidRequestError("the status callback must be an http or https URL")
    return url


def check_name(name: str) -> str:
    """`Name`: anything that is distinct as a path segment, since stopping puts it there."""
    if not name.strip():
        raise InvalidRequestError("the stream name is empty")
    if _UNFIT_FOR_NAMES.search(name) or not _encodable(name):
        raise InvalidRequestError("the stream name has control characters")
    if not name.strip("."):
        raise InvalidRequestError("the stream name cannot be made of dots only")
    return name


def check_parameters(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Custom parameters: at most 99, with names that are not empty and not repeated."""
    parameters: dict[str, str] = {}
    for name, value in pairs:
        if not name.strip():
            raise InvalidRequestError("a parameter has no name")
        if name in parameters:
            raise InvalidRequestError(f"the parameter {name!r} is given twice")
        if not _encodable(name + value):
            raise InvalidRequestError(f"the parameter {name!r} is not valid Unicode text")
        parameters[name] = value
    if len(parameters) > MAX_PARAMETERS:
        raise InvalidRequestError(
            f"{len(parameters)} parameters are too many: the provider accepts {MAX_PARAMETERS}"
        )
    return parameters


def check_bearer_token(token: str, *, shortest: int = 1) -> str:
    """A token that fits an `Authorization` header; the message never shows it.

    The provider accepts any length; a token of ours should be no shorter than `MIN_TOKEN_CHARS`.
    """
    if not _TOKEN.fullmatch(token):
        raise InvalidRequestError("the bearer token must be visible ASCII without white space")
    if not shortest <= len(token) <= MAX_TOKEN_CHARS:
        raise InvalidRequestError(
            f"the bearer token must have {shortest} to {MAX_TOKEN_CHARS} characters"
        )
    return token


def _split(url: str, what: str) -> SplitResult:
    # white space first: urlsplit drops some of it silently
    if _UNFIT_FOR_URLS.search(url):
        raise InvalidRequestError(f"{what} has white space or control characters (31922)")
    if not url:
        raise InvalidRequestError(f"{what} is empty")
    if not _encodable(url):
        raise InvalidRequestError(f"{what} is not valid Unicode text")
    try:
        parts = urlsplit(url)
        _ = parts.port  # parsed, and refused, only when asked for
    except ValueError:
        # the reason would quote what is in the place of a port, which may be a password
        raise InvalidRequestError(f"{what} is not a URL: see its host and port") from None
    return parts


def _encodable(text: str) -> bool:
    """False for lone surrogates, which arguments with stray bytes turn into."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
