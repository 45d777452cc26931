"""The settings: names, types, defaults, what each is for, and how they are loaded and checked.

`Config` is the one list of settings: flags, `TAPREEL_...` variables, TOML keys and the output
of `receiver config` are all derived from its fields. A `ValueType` says which values a setting
accepts, and how the text of a variable is parsed. `load` takes each setting from its first source:
flag > environment > TOML file > default. `check_serving` says which settings exclude each other.

Secrets come from the environment only, or from files that are named here and read by
`receiver.auth.credentials`.
"""

from __future__ import annotations

import difflib
import enum
import ipaddress
import itertools
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Final, get_type_hints
from urllib.parse import urlsplit

from receiver.disk.layout import SPOOL
from receiver.errors import ConfigurationError
from receiver.media import ByteOrder


@dataclass(frozen=True, slots=True)
class ValueType:
    """Which values a setting accepts: `accept` returns the value to use, or raises `ValueError`."""

    expected: str  # completes "... must be"
    accept: Callable[[Any], object]
    parse: Callable[[str], object] = str  # text of the environment -> argument of accept


def _number(low: float, high: float, types: tuple[type, ...]) -> Callable[[Any], object]:
    def accept(value: Any) -> object:
        if type(value) not in types or not low <= value <= high:
            raise ValueError(value)
        return value

    return accept


def integer(low: int, high: int) -> ValueType:
    """Return the type of a whole number within bounds."""
    return ValueType(f"a whole number from {low} to {high}", _number(low, high, (int,)), int)


def seconds(low: float, high: float) -> ValueType:
    """Return the type of a duration within bounds."""
    accept = _number(low, high, (int, float))
    return ValueType(f"a number of seconds from {low:g} to {high:g}", accept, float)


def choice(words: Iterable[str], made: Callable[[str], object] = str) -> ValueType:
    """Return the type of one of several words; `made` converts the word to its value."""
    known = tuple(words)

    def accept(value: Any) -> object:
        return made(known[known.index(value)])

    return ValueType(" or ".join(known), accept)


def _parse_switch(text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True}
    words |= {"0": False, "false": False, "no": False, "off": False}
    if text.strip().lower() not in words:
        raise ValueError(text)
    return words[text.strip().lower()]


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(value)
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError(value)
    return value.strip()


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(value)
    return tuple(_text(item) for item in value)


def _networks(value: Any) -> tuple[str, ...]:
    return tuple(str(_network(text)) for text in _texts(value))


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Return a network; one of IPv4 that is written in IPv6 (RFC 4291, 2.5.5.2) is of IPv4.

    So are the addresses that it is compared with: they come in both forms, by the socket's kind.
    """
    network = ipaddress.ip_network(text, strict=False)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < _MAPPED_BITS:
        return network
    return ipaddress.IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))


_MAPPED_BITS: Final = 96
"""How many bits of ::ffff:0:0 stand in front of an address of IPv4."""


def _path(value: Any) -> Path:
    try:
        return Path(_text(str(value) if isinstance(value, Path) else value)).expanduser()
    except RuntimeError as error:  # "~" where there is no home
        raise ValueError(value) from error


def _pair(value: Any) -> tuple[Path, Path]:
    if isinstance(value, dict) and value.keys() == {"cert", "key"}:
        value = (value["cert"], value["key"])
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(value)
    return _path(value[0]), _path(value[1])


def _size(value: Any) -> int:
    """Return a number of bytes, written as such or with K, M, G or T behind it."""
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        return int(match[1]) << 10 * " KMGT".index(match[2].upper() or " ")
    if type(value) is not int or value < 0:
        raise ValueError(value)
    return value


def _origin(value: Any) -> str:
    parts = urlsplit(_text(value))
    rest = (parts.username, parts.password, parts.path.strip("/"), parts.query, parts.fragment)
    if parts.scheme not in ("http", "https") or not parts.hostname or any(rest):
        raise ValueError(value)
    port = "" if parts.port is None else f":{parts.port}"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}"


def _issuer(value: Any) -> str:
    url = _text(value).rstrip("/")
    parts = urlsplit(url)
    is_safe = parts.scheme == "https" or (
        parts.scheme == "http" and is_loopback(parts.hostname or "")
    )
    if not is_safe or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError(value)
    return url


def _header(value: Any) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", _text(value)):
        raise ValueError(value)
    return _text(value).lower()


_SIZE = re.compile(r"([0-9]{1,15})([KMGTkmgt]?)")
SIZE: Final = ValueType("a number of bytes, or one with K, M, G or T behind it", _size)
SWITCH: Final = ValueType("true or false", _switch, _parse_switch)
TEXT: Final = ValueType("a text", _text)
TEXTS: Final = ValueType("a list of texts", _texts, str.split)
NETWORKS: Final = ValueType(
    "a list of addresses or networks, such as 127.0.0.1 or 10.0.0.0/8", _networks, str.split
)
PATH: Final = ValueType("a path", _path)
PAIR: Final = ValueType(
    "two paths, certificate and key", _pair, lambda text: text.split("," if "," in text else None)
)
ORIGIN: Final = ValueType("a URL of scheme, host and perhaps port, without a path", _origin)
ISSUER: Final = ValueType("an https URL, or http on loopback", _issuer)
HEADER: Final = ValueType("the name of an HTTP header", _header)
SECRET: Final = ValueType("a text", str)


LAST_PORT: Final = 65_535


class Source(enum.StrEnum):
    """Where a setting's value came from, highest first."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name, which values it accepts, and one line of help."""

    name: str
    value_type: ValueType
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A value for every setting; secrets are left out of its `repr`."""

    host: Annotated[str, TEXT, "address to listen on"] = "127.0.0.1"
    port: Annotated[int, integer(0, LAST_PORT), "port to listen on; 0: a free one"] = 8443
    recordings: Annotated[Path, PATH, "folder of the recordings"] = Path("recordings")
    spool: Annotated[Path, PATH, "folder of the live journals"] = Path("recordings", SPOOL)
    database_url: Annotated[
        str | None, TEXT, "the catalogue's database; default: a file beside the recordings"
    ] = None
    tls: Annotated[tuple[Path, Path] | None, PAIR, "certificate chain and private key"] = None
    self_signed: Annotated[bool, SWITCH, "use a generated self-signed certificate"] = False
    no_tls: Annotated[bool, SWITCH, "plain ws: on loopback, or behind a proxy"] = False
    behind_proxy: Annotated[bool, SWITCH, "a reverse proxy does the TLS"] = False
    trusted_proxy: Annotated[
        tuple[str, ...],
        NETWORKS,
        "address or network of proxies whose X-Forwarded-For names the caller; repeatable",
    ] = ()
    token_file: Annotated[Path | None, PATH, "file of bearer tokens, one per line"] = None
    stream_key_file: Annotated[Path | None, PATH, "file of keys that sign stream tokens"] = None
    tap_token_file: Annotated[
        Path | None, PATH, "file of tokens that open live taps, one per line"
    ] = None
    tap_key_file: Annotated[Path | None, PATH, "file of keys that sign tap tokens"] = None
    tap_queue_seconds: Annotated[
        float,
        seconds(0.1, 60),
        "seconds of audio queued for a slow listener; then the oldest is dropped",
    ] = 2
    tap_wait_ms: Annotated[
        int,
        integer(40, 2000),
        "milliseconds that one track of a live call is waited for at the most by the other",
    ] = 240
    max_listeners: Annotated[int, integer(0, 100_000), "live listeners at the same time"] = 1000
    forward: Annotated[
        tuple[str, ...],
        TEXTS,
        "send each stream on to URL[#track=TRACK&param.NAME=VALUE]; repeatable",
    ] = ()
    forward_token_file: Annotated[
        Path | None, PATH, "file of the bearer token that consumers get"
    ] = None
    demo: Annotated[bool, SWITCH, "generate a token and place one demo call"] = False
    stereo: Annotated[bool, SWITCH, "add stereo.wav: left inbound, right outbound"] = False
    byte_order: Annotated[
        ByteOrder, choice(ByteOrder, ByteOrder), "order of the two bytes of an L16 sample"
    ] = ByteOrder.LITTLE
    sync_interval_ms: Annotated[
        int, integer(0, 60_000), "audio is synced at most this much later; 0 syncs each batch"
    ] = 500
    idle_timeout_seconds: Annotated[
        float, seconds(1, 86_400), "a stream whose other end answers no ping for this long ends"
    ] = 90
    max_message_bytes: Annotated[
        int, integer(1024, 16_777_216), "longest message that is accepted"
    ] = 262_144
    handshake_timeout_seconds: Annotated[
        float, seconds(0.1, 300), "a connection must have opened within this time"
    ] = 5
    metrics_port: Annotated[
        int | None, integer(0, LAST_PORT), "serve metrics on this port of 127.0.0.1; 0: a free one"
    ] = None
    drain_timeout: Annotated[
        float, seconds(0, 604_800), "how long SIGTERM waits for live streams to end"
    ] = 7200
    min_free: Annotated[int, SIZE, "no new streams while less space is free, for example 500M"] = (
        134_217_728
    )
    workers: Annotated[int, integer(1, 256), "processes that share the port"] = 1
    max_waiting: Annotated[
        int,
        integer(1, 1_000_000),
        "pending connections, not admitted yet; one more closes the oldest",
    ] = 256
    max_waiting_per_address: Annotated[
        int,
        integer(1, 1_000_000),
        "pending connections from one address; no limit behind a proxy that is not trusted",
    ] = 16
    max_streams: Annotated[int, integer(1, 1_000_000), "streams at the same time"] = 1000
    state: Annotated[Path, PATH, "folder of the generated certificate and token"] = Path(".tapreel")
    console: Annotated[bool, SWITCH, "start the console, as a process of its own"] = False
    console_host: Annotated[str, TEXT, "address that the console listens on"] = "127.0.0.1"
    console_port: Annotated[int, integer(0, LAST_PORT), "the console's port; 0: a free one"] = 8444
    public_url: Annotated[
        str | None, ORIGIN, "where people reach the console, such as https://calls.example.com"
    ] = None
    console_user_header: Annotated[
        str | None, HEADER, "header in which a trusted proxy names the user that it has signed in"
    ] = None
    oidc_issuer: Annotated[str | None, ISSUER, "OpenID Connect provider that signs users in"] = None
    oidc_client_id: Annotated[str | None, TEXT, "the console's name at that provider"] = None
    oidc_client_secret_file: Annotated[
        Path | None, PATH, "file of the console's secret at that provider"
    ] = None
    oidc_user_claim: Annotated[str, TEXT, "claim that names the account"] = "email"
    tap_url: Annotated[
        tuple[str, ...],
        TEXTS,
        "another receiver whose live calls the console shows, such as wss://HOST:8443; repeatable",
    ] = ()
    tap_ca_file: Annotated[
        Path | None, PATH, "authorities that the console trusts at --tap-url"
    ] = None
    log_level: Annotated[
        str, choice(("debug", "info", "warning", "error")), "least level that is logged"
    ] = "info"
    tokens: Annotated[str | None, SECRET, "bearer tokens"] = field(default=None, repr=False)
    stream_key: Annotated[str | None, SECRET, "keys that sign stream tokens"] = field(
        default=None, repr=False
    )
    tap_tokens: Annotated[str | None, SECRET, "tokens that open live taps"] = field(
        default=None, repr=False
    )
    tap_key: Annotated[str | None, SECRET, "keys that sign tap tokens"] = field(
        default=None, repr=False
    )
    forward_token: Annotated[str | None, SECRET, "bearer token that consumers get"] = field(
        default=None, repr=False
    )
    # No settings: what a receiver gives to its own console.
    console_token: str | None = field(default=None, repr=False)  # opens its taps
    console_taps: tuple[str, ...] = ()  # where these are: of each worker
    sources: Mapping[str, Source] = field(
        default_factory=dict, repr=False
    )  # those that are not DEFAULT

    def source(self, name: str) -> Source:
        """Return where the setting `name` came from."""
        return self.sources.get(name, Source.DEFAULT)

    @property
    def has_credentials(self) -> bool:
        """Whether a token or key for streams is configured."""
        given = (self.tokens, self.token_file, self.stream_key, self.stream_key_file)
        return any(value is not None for value in given)


SETTINGS: Final = {
    name: Setting(name, *hint.__metadata__)
    for name, hint in get_type_hints(Config, include_extras=True).items()
    if hasattr(hint, "__metadata__")
}
"""Every setting by name."""
ALTERNATIVES: Final = (
    ("tls", "self_signed", "no_tls"),
    ("token_file", "tokens"),
    ("stream_key_file", "stream_key"),
    ("tap_token_file", "tap_tokens"),
    ("tap_key_file", "tap_key"),
    ("forward_token_file", "forward_token"),
)
"""Settings that stand for one decision: the highest source that names one of them decides."""
PREFIX: Final = "TAPREEL_"


def load(
    flags: Mapping[str, object], *, environ: Mapping[str, str], file: Path | None = None
) -> Config:
    """Return the settings of `flags`, `environ` and the TOML `file` together.

    Args:
        flags: by the name of the setting; `None` stands for a flag that is not given.
        environ: the environment; only its `TAPREEL_...` variables count.
        file: the TOML file, if there is one.

    Raises:
        ConfigurationError: the file cannot be read, or a value cannot be used; the text names
            place, setting and what is expected, never the value.
    """
    layers = {
        Source.FLAG: _from_flags(flags),
        Source.ENVIRONMENT: _from_environment(environ),
        Source.FILE: _from_file(file) if file is not None else {},
    }
    _resolve_alternatives(layers)
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    for source in reversed(layers):
        values |= layers[source]
        sources |= dict.fromkeys(layers[source], source)
    if "recordings" in values:
        values.setdefault("spool", values["recordings"] / SPOOL)
    return Config(**values, sources=sources)


def as_plain(config: Config) -> dict[str, Any]:
    """Return the settings by name, for a process whose code may be of another version.

    Values are texts, numbers and lists: nothing of ours is needed to unpickle them. Where each
    came from is left out.
    """
    names = [each.name for each in fields(config) if each.name != "sources"]
    return {name: _plain(getattr(config, name)) for name in names}


def from_plain(values: Mapping[str, Any]) -> Config:
    """Return the settings that `as_plain` wrote, of whichever version that was.

    A name that is unknown here is left out, and one that is missing there has its default.

    Raises:
        ConfigurationError: a value that was good there is none here; the text names the setting.
    """
    given = {name: value for name, value in values.items() if value is not None}
    accepted = {
        name: _accepted(setting, given[name], name)
        for name, setting in SETTINGS.items()
        if name in given
    }
    return Config(
        **accepted,  # type: ignore[arg-type]
        console_token=given.get("console_token"),
        console_taps=tuple(given.get("console_taps", ())),
    )


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, enum.Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def _from_flags(flags: Mapping[str, object]) -> dict[str, Any]:
    given = {name: value for name, value in flags.items() if value is not None}
    return {
        name: _accepted(SETTINGS[name], value, "--" + name.replace("_", "-"))
        for name, value in given.items()
    }


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values = {}
    for name, setting in SETTINGS.items():
        variable = PREFIX + name.upper()
        text = environ.get(variable, "")
        if text.strip():
            values[name] = _accepted(setting, text, variable, parse=True)
    return values


def _from_file(file: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{file} is not TOML: {error}") from error
    return {
        name: _accepted(_known(name, file), value, f"{file}: {name}")
        for name, value in document.items()
    }


def _known(name: str, file: Path) -> Setting:
    setting = SETTINGS.get(name)
    if setting is not None and setting.value_type is not SECRET:
        return setting
    if setting is not None:
        advice = "keep secrets out of this file and name a file with token_file or stream_key_file"
    elif close := difflib.get_close_matches(name, SETTINGS, 1):
        advice = f"did you mean {close[0]}?"
    else:
        advice = "remove it; `receiver config` lists all settings"
    raise ConfigurationError(f"{file}: unknown setting {name[:40]!r}: {advice}")


def _accepted(setting: Setting, value: Any, called: str, *, parse: bool = False) -> object:
    # The value itself is never quoted: it may be a secret put in the wrong place.
    try:
        return setting.value_type.accept(setting.value_type.parse(value) if parse else value)
    except ValueError:
        message = f"{called} must be {setting.value_type.expected}"
        raise ConfigurationError(message) from None


def _resolve_alternatives(layers: Mapping[Source, dict[str, Any]]) -> None:
    """Drop each alternative that a lower source names when a higher one has chosen."""
    for names in ALTERNATIVES:
        deciding = [layer for layer in layers.values() if any(map(layer.get, names))]
        overruled = [layer for layer in layers.values() if deciding and layer is not deciding[0]]
        for layer, name in itertools.product(overruled, names):
            layer.pop(name, None)


def check_serving(config: Config) -> None:
    """Refuse settings that `receiver serve` must not start with.

    Raises:
        ConfigurationError: the text says what to choose.
    """
    check_tls(config, config.host)
    if not config.has_credentials and not config.demo:
        raise ConfigurationError(
            "no token is configured, so no stream could be admitted: give --token-file FILE,"
            " --stream-key-file FILE, TAPREEL_TOKENS, or --demo"
        )
    _check_workers(config)


def check_tls(config: Config, host: str, flag: str = "--host") -> None:
    """Refuse settings that say not, or twice, how an address is protected.

    Raises:
        ConfigurationError: the text says what to choose.
    """
    chosen = [name for name in ALTERNATIVES[0] if getattr(config, name)]
    if len(chosen) != 1:
        problem = "more than one of them is set" if chosen else "none of them is set"
        raise ConfigurationError(
            f"choose one of --tls CERT KEY, --self-signed and --no-tls: {problem}"
        )
    if config.no_tls and not config.behind_proxy and not is_loopback(host):
        raise ConfigurationError(
            "--no-tls on a public address sends tokens and audio in the clear:"
            f" use --tls, listen on 127.0.0.1 ({flag}), or say --behind-proxy"
        )


def _check_workers(config: Config) -> None:
    if config.max_streams < config.workers:
        raise ConfigurationError(
            f"--max-streams {config.max_streams} is less than one for each"
            f" of {config.workers} workers:"
            f" give {config.workers} or more, or fewer workers"
        )
    last = (config.metrics_port or 0) + config.workers - 1
    if config.metrics_port and last > LAST_PORT:
        raise ConfigurationError(
            f"--metrics-port {config.metrics_port} has too few ports above it for"
            f" {config.workers} workers: give {LAST_PORT + 1 - config.workers} or a lower one"
        )


def is_loopback(host: str) -> bool:
    """Return whether `host` can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
