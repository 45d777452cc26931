"""Loading settings: flag > environment > TOML file > default, each with its source.

`check_serving` and its like say which settings exclude each other.
"""

from __future__ import annotations

import difflib
import ipaddress
import itertools
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from receiver.config.settings import (
    ALTERNATIVES,
    LAST_PORT,
    SECRET,
    SETTINGS,
    Config,
    Setting,
    Source,
)
from receiver.disk.layout import SPOOL
from receiver.errors import ConfigurationError

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
    chosen = [name for name in ALTERNATIVES[0] if getattr(config, name)]
    if len(chosen) != 1:
        problem = "more than one of them is set" if chosen else "none of them is set"
        raise ConfigurationError(
            f"choose one of --tls CERT KEY, --self-signed and --no-tls: {problem}"
        )
    if config.no_tls and not config.behind_proxy and not is_loopback(config.host):
        raise ConfigurationError(
            "--no-tls on a public address sends tokens and audio in the clear:"
            " use --tls, listen on 127.0.0.1, or say --behind-proxy"
        )
    if not config.has_credentials and not config.demo:
        raise ConfigurationError(
            "no token is configured, so no stream could be admitted: give --token-file FILE,"
            " --stream-key-file FILE, TAPREEL_TOKENS, or --demo"
        )
    _check_workers(config)


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
