"""The settings: names, types, defaults, what each is for, and how they are loaded and checked.

`Config` is the one list of settings: flags, `TAPREEL_...` variables, TOML keys and the output
of `receiver config` are all derived from its fields. A `ValueType` of this package says which
values a setting accepts. `load` takes each setting from its first source:
flag > environment > TOML file > default. `check_serving` says which settings exclude each other.

Secrets come from the environment only, or from files that are named here and read by
`receiver.auth.credentials`.
"""

from __future__ import annotations

import difflib
import enum
import itertools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Final, get_type_hints

from receiver.config import (
    HEADER,
    ISSUER,
    NETWORKS,
    ORIGIN,
    PAIR,
    PARAMETERS,
    PATH,
    SECRET,
    SIZE,
    SWITCH,
    TEXT,
    TEXT_OR_TEXTS,
    TEXTS,
    WEB_URL,
    UnfitTable,
    ValueType,
    choice,
    integer,
    is_loopback,
    seconds,
    tables,
)
from receiver.disk.layout import SPOOL
from receiver.errors import ConfigurationError
from receiver.media import ByteOrder, DtmfMode

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
class RetentionRule:
    """How long some recordings are kept: one `[[retention]]` of the file."""

    keep: Annotated[str, TEXT, "how long, such as 90d, 12w or 7y; or forever"]
    match: Annotated[
        tuple[str, ...], TEXT_OR_TEXTS, "words of a search that all must agree; default: all"
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A program elsewhere that is told of events: one `[[webhook]]` of the file."""

    url: Annotated[str, WEB_URL, "address that events are posted to"]
    secret_file: Annotated[Path, PATH, "file of the secrets that sign them, one per line"]
    name: Annotated[str | None, TEXT, "what it is called; default: the URL's host"] = None
    events: Annotated[tuple[str, ...], TEXTS, "which ones; default: all"] = ()
    match: Annotated[
        tuple[str, ...], TEXT_OR_TEXTS, "words of a search, such as param.queue=sales"
    ] = ()
    ca_file: Annotated[Path | None, PATH, "authorities that are trusted; default: the system's"] = (
        None
    )
    allow_private: Annotated[bool, SWITCH, "whether its address may be private, or loopback"] = (
        False
    )


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
    control_key_file: Annotated[
        Path | None, PATH, "file of keys that sign tokens for /control, which pauses calls"
    ] = None
    longest_pause: Annotated[
        float, seconds(1, 86_400), "seconds that a call may be paused for by one order"
    ] = 3600
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
    dtmf: Annotated[
        DtmfMode,
        choice(DtmfMode, DtmfMode),
        "keys that callers press: keep them, count them (never which), or drop them",
    ] = DtmfMode.KEEP
    require_param: Annotated[
        tuple[str, ...],
        PARAMETERS,
        "record only streams that have this parameter, NAME or NAME=VALUE; repeatable",
    ] = ()
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
    retention: Annotated[
        tuple[RetentionRule, ...], tables(RetentionRule), "how long recordings are kept"
    ] = ()
    retention_min_free: Annotated[
        int | None, SIZE, "delete the oldest that no rule protects while less space is free"
    ] = None
    retention_max_bytes: Annotated[
        int | None, SIZE, "delete the oldest that no rule protects while all take more than this"
    ] = None
    retention_max_share: Annotated[
        int, integer(0, 100), "percent of all recordings that may be deleted at once"
    ] = 10
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
    webhook: Annotated[
        tuple[Webhook, ...], tables(Webhook), "programs elsewhere that are told of events"
    ] = ()
    on_published: Annotated[
        str | None, TEXT, "program that gets each published recording as JSON on its stdin"
    ] = None
    on_published_seconds: Annotated[float, seconds(1, 3600), "how long that program may take"] = 60
    callback_key_file: Annotated[
        Path | None, PATH, "file of the keys with which providers sign status callbacks"
    ] = None
    callback_secret_file: Annotated[
        Path | None, PATH, "file of the last part of the path of callbacks that are not signed"
    ] = None
    expect_seconds: Annotated[
        float, seconds(1, 3600), "a stream that was asked for is missing after this time"
    ] = 30
    ledger_key_file: Annotated[
        Path | None, PATH, "Ed25519 key in PEM that signs checkpoints of the ledger"
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
    control_key: Annotated[str | None, SECRET, "keys that sign control tokens"] = field(
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
    ("control_key_file", "control_key"),
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
    if is_dataclass(value):  # a table
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
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
        if text.strip() and not setting.value_type.is_tables:
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
    except UnfitTable as error:
        raise ConfigurationError(f"{called}: {error}") from None
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
