"""Options that several commands share; each reads flag > environment > TOML > default."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from receiver.config.load import load
from receiver.config.settings import (
    NETWORKS,
    PAIR,
    PATH,
    SECRET,
    SETTINGS,
    SWITCH,
    TEXTS,
    Config,
    Setting,
)

Command = Callable[..., Any]
FILE: Final = click.Path(readable=False, path_type=Path)
"""A file, checked where it is read: an unusable one is a configuration error, not a usage error."""
_METAVARS: Final = {"host": "HOST", "port": "PORT", "recordings": "DIR", "spool": "DIR"}


class _SettingType(click.ParamType[Any]):
    """The value type of a setting, as a type of click's."""

    def __init__(self, setting: Setting) -> None:
        self.name = "file" if setting.value_type is PATH else "value"
        self._value_type = setting.value_type

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        try:
            return self._value_type.accept(self._value_type.parse(value))
        except ValueError:
            self.fail(f"it must be {self._value_type.expected}", param, ctx)


def _option(setting: Setting) -> Callable[[Command], Command]:
    flag = "--" + setting.name.replace("_", "-")
    if setting.value_type is SWITCH:
        return click.option(flag, setting.name, is_flag=True, default=None, help=setting.meaning)
    if setting.value_type is PAIR:
        return click.option(
            flag, setting.name, nargs=2, type=FILE, metavar="CERT KEY", help=setting.meaning
        )
    if setting.value_type in (TEXTS, NETWORKS):
        return click.option(
            flag,
            setting.name,
            multiple=True,
            callback=lambda _, __, given: given or None,  # none: the other sources decide
            metavar="TEXT" if setting.value_type is TEXTS else "CIDR",
            help=setting.meaning,
        )
    return click.option(
        flag,
        setting.name,
        type=_SettingType(setting),
        metavar=_METAVARS.get(setting.name),
        help=setting.meaning,
    )


def _with_settings(names: list[str], given: Callable[[Config], dict[str, Any]]) -> Any:
    """Return a decorator that adds flags for `names` and passes the result of `given(config)`."""

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def command(*arguments: Any, config_file: Path | None, **options: Any) -> Any:
            flags = {name: options.pop(name) for name in names}
            config = load(flags, environ=os.environ, file=config_file)
            return function(*arguments, **options, **given(config))

        decorated: Command = command
        for name in reversed(names):
            decorated = _option(SETTINGS[name])(decorated)
        return _config_option(decorated)

    return decorate


_config_option = click.option(
    "--config",
    "config_file",
    type=FILE,
    envvar="TAPREEL_CONFIG",
    metavar="FILE",
    help="TOML file of settings",
)


def recordings_folder(function: Command) -> Command:
    """Add `--recordings` and `--config`; pass `recordings: Path`."""
    given = _with_settings(["recordings"], lambda config: {"recordings": config.recordings})
    decorated: Command = given(function)
    return decorated


def named_settings(*names: str) -> Callable[[Command], Command]:
    """Return a decorator: a flag for each of these settings and `--config`; pass their values."""
    decorate: Callable[[Command], Command] = _with_settings(
        list(names), lambda config: {name: getattr(config, name) for name in names}
    )
    return decorate


def settings(function: Command) -> Command:
    """Add a flag for every setting that is no secret, and `--config`; pass `config: Config`."""
    names = [name for name, setting in SETTINGS.items() if setting.value_type is not SECRET]
    decorated: Command = _with_settings(names, lambda config: {"config": config})(function)
    return decorated
