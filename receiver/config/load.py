"""Loading settings: flag > environment > TOML file > default, each with its source."""

from __future__ import annotations

import difflib
import itertools
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from receiver.config.settings import ALTERNATIVES, SETTINGS, Config, Setting, Source
from receiver.config.value_types import SECRET
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
