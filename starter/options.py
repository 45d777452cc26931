"""Command line options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, TypeVar

import click

from starter.validation import check_parameters

FILE: Final = click.Path(readable=False)
"""A file, checked where it is read: an unusable one is a configuration error, not a usage error."""

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Option = Callable[[_Command], _Command]


def with_options(*options: _Option[Any]) -> _Option[Any]:
    """Add several options to a command, in the order of the help text."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def pairs(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """Split repeated `K=V`; the value may hold more equals signs or be empty.

    Raises InvalidRequestError for what the provider would refuse.
    """
    split = []
    for value in values:
        name, equals, text = value.partition("=")
        if not equals:
            raise click.BadParameter(f"expected K=V, not {value!r}")
        split.append((name, text))
    return check_parameters(split)


def choice(*names: str, kind: type[StrEnum], **settings: Any) -> _Option[Any]:
    """An option for the values of an enum; the command gets the member, or None."""

    def member(_: click.Context, __: click.Parameter, value: str | None) -> StrEnum | None:
        return None if value is None else kind(value)

    return click.option(
        *names, type=click.Choice([each.value for each in kind]), callback=member, **settings
    )
