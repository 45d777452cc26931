"""Settings: flag, then environment, then the `[starter]` table of a TOML file, then default."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote, urlsplit

from starter import validation
from starter.errors import ConfigError, InvalidRequestError
from starter.models import Target
from starter.tokens import (
    Bearer,
    StaticToken,
    StreamKey,
    key_from_file,
    key_from_text,
    read_secret,
    token_from_file,
    token_from_text,
)

# setting -> the environment variable that carries it
_VARIABLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "project_id": "SIGNALWIRE_PROJECT_ID",
        "api_token_file": "SIGNALWIRE_API_TOKEN_FILE",
        "space": "SIGNALWIRE_SPACE",
        "bearer_token_file": "TAPREEL_TOKEN_FILE",
        "stream_key_file": "TAPREEL_STREAM_KEY_FILE",
        "url": "TAPREEL_URL",
        "track": "TAPREEL_TRACK",
        "status_callback": "TAPREEL_STATUS_CALLBACK",
        "status_callback_method": "TAPREEL_STATUS_CALLBACK_METHOD",
        "expect_url": "TAPREEL_EXPECT_URL",
        "expect_token_file": "TAPREEL_EXPECT_TOKEN_FILE",
        "expect_ca_file": "TAPREEL_EXPECT_CA_FILE",
        "expect_database_url": "TAPREEL_EXPECT_DATABASE_URL",
    }
)
_API_PATH: Final = "/api/laml/2010-04-01"
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Account and address of the provider; `base_url` has neither path nor trailing slash."""

    project_id: str
    base_url: str
    api_token: str = field(repr=False)

    def streams_url(self, target: Target, sid: str, stream: str | None = None) -> str:
        """The address of a call's or conference's streams, or of one of them by sid or name."""
        segments = ["Accounts", self.project_id, target.value, sid, "Streams"]
        segments += [] if stream is None else [stream]
        path = "/".join(quote(segment, safe="") for segment in segments)
        return f"{self.base_url}{_API_PATH}/{path}"


@dataclass(frozen=True, slots=True)
class Settings:
    """The sources of settings below the flags.

    `environ` is the process environment, `table` the file's; neither is in the repr, for the
    one holds secrets, and the other may hold a callback's password.
    """

    environ: Mapping[str, str] = field(repr=False)
    table: Mapping[str, str] = field(default_factory=dict, repr=False)

    def text(self, name: str, flag: str | None = None) -> str | None:
        """The value of one setting from the first source that has it; an empty one is not set."""
        return flag or self.environ.get(_VARIABLES[name]) or self.table.get(name)

    def credentials(self, *, token_needed: bool = True) -> Credentials:
        """The provider's credentials. Raises ConfigError that names all that is missing."""
        project_id, space = self.text("project_id"), self.text("space")
        api_token = self._api_token()
        if not project_id or not space or (token_needed and not api_token):
            wanted = {
                "SIGNALWIRE_PROJECT_ID": project_id,
                "SIGNALWIRE_API_TOKEN": api_token or not token_needed,
                "SIGNALWIRE_SPACE": space,
            }
            raise ConfigError(f"not set: {', '.join(name for name in wanted if not wanted[name])}")
        return Credentials(_checked_project(project_id), base_url(space), api_token or "")

    def account(self) -> tuple[str, str]:
        """Project id and API token alone, as the simulated provider needs them."""
        project_id, api_token = self.text("project_id"), self._api_token()
        if not project_id or not api_token:
            raise ConfigError(
                "set SIGNALWIRE_PROJECT_ID (any UUID, or AC and 32 hex digits) and"
                " SIGNALWIRE_API_TOKEN (any text): callers must give the same"
            )
        return _checked_project(project_id), api_token

    def _api_token(self) -> str | None:
        if token := self.environ.get("SIGNALWIRE_API_TOKEN", "").strip():
            return token
        path = self.text("api_token_file")
        return read_secret(Path(path)).decode("utf-8", "replace").strip() if path else None

    def bearer(
        self, *, token_file: str | None = None, key_file: str | None = None
    ) -> Bearer | None:
        """The source of bearer tokens: from the flags, the environment, or the file, in this order.

        In each of them a key comes before a token, since its tokens are good for one call only.
        Raises ConfigError.
        """
        if key_file or token_file:
            return _bearer_of(key_file, token_file)
        environ = self.environ
        if key := environ.get("TAPREEL_STREAM_KEY"):
            return key_from_text(key)
        if key_file := environ.get("TAPREEL_STREAM_KEY_FILE"):
            return _bearer_of(key_file, None)
        if tokens := environ.get("TAPREEL_TOKENS"):
            return token_from_text(tokens, "TAPREEL_TOKENS")
        if token_file := environ.get("TAPREEL_TOKEN_FILE"):
            return _bearer_of(None, token_file)
        return _bearer_of(self.table.get("stream_key_file"), self.table.get("bearer_token_file"))

    def stream_key(self, key_file: str | None = None) -> StreamKey:
        """The signing key alone. Raises ConfigError if there is none."""
        environ = self.environ
        if not key_file and (key := environ.get("TAPREEL_STREAM_KEY")):
            return key_from_text(key)
        if path := self.text("stream_key_file", key_file):
            return key_from_file(Path(path))
        raise ConfigError("no stream key: give --stream-key-file or set TAPREEL_STREAM_KEY_FILE")


def load_settings(config_file: str | None, environ: Mapping[str, str]) -> Settings:
    """Read the `[starter]` table of a TOML file, if one is given. Raises ConfigError."""
    return Settings(environ, {} if config_file is None else _read_table(Path(config_file)))


def base_url(space: str) -> str:
    """The provider's address for a space: a name, a host, an https URL, or a loopback host:port.

    Plain http is for loopback only. Raises ConfigError.
    """
    space = space.strip()
    try:
        parts = urlsplit(space if "://" in space else f"//{space}")
        host, port = parts.hostname, parts.port
    except ValueError:
        # the reason would quote what is in the place of a port, which may be a password
        raise ConfigError("SIGNALWIRE_SPACE is not an address: see its host and port") from None
    beyond_origin = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if not host or not _HOST.fullmatch(host) or beyond_origin:
        raise ConfigError("SIGNALWIRE_SPACE is no name, host or https URL")
    loopback = host in _LOOPBACK
    scheme = parts.scheme or ("http" if loopback else "https")
    if scheme != "https" and not (scheme == "http" and loopback):
        raise ConfigError("SIGNALWIRE_SPACE must be https; plain http is for this machine only")
    if not parts.scheme and not loopback and port is None and "." not in host:
        host = f"{host}.signalwire.com"
    netloc = f"[{host}]" if ":" in host else host
    return f"{scheme}://{netloc}" + ("" if port is None else f":{port}")


def _checked_project(project_id: str) -> str:
    try:
        return validation.check_sid(project_id, "SIGNALWIRE_PROJECT_ID", "AC")
    except InvalidRequestError as error:
        raise ConfigError(str(error)) from error


def _bearer_of(key_file: str | None, token_file: str | None) -> StreamKey | StaticToken | None:
    if key_file:
        return key_from_file(Path(key_file))
    return token_from_file(Path(token_file)) if token_file else None


def _read_table(path: Path) -> dict[str, str]:
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    table = document.get("starter", {})
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: starter must be a table")
    for name, value in table.items():
        if name not in _VARIABLES:
            raise ConfigError(f"{path}: unknown setting starter.{name}")
        if not isinstance(value, str):
            raise ConfigError(f"{path}: starter.{name} must be a string")
    return table
