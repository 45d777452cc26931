"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum

import click
import pytest
from click.testing import CliRunner

from starter.errors import InvalidRequestError
from starter.options import choice, pairs, with_options


class Colour(StrEnum):
    """A closed set."""

    RED = "red"
    BLUE = "blue"


@click.command()
@with_options(
    click.option("--param", multiple=True, callback=pairs),
    choice("--colour", kind=Colour, help="which"),
)
def command(param: dict[str, str], colour: Colour | None) -> None:
    """Print what was passed."""
    click.echo(f"{param} {colour!r}")


def output(*arguments: str) -> str:
    """Return what a command was handed over."""
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert 0 == result.exit_code, result.output
    return result.output.strip()


def test_pairs_are_split_at_the_first_equals_sign() -> None:
    """A value may hold more of them, or be empty."""
    expected = "{'a': '1', 'b': 'x=y', 'c': ''} None"
    assert expected == output("--param", "a=1", "--param", "b=x=y", "--param", "c=")
    assert "{} None" == output()


def test_what_is_no_pair_is_a_wrong_command_line() -> None:
    """The text has what was expected."""
    result = CliRunner().invoke(command, ["--param", "a"])
    assert 2 == result.exit_code
    assert "expected K=V, not 'a'" in result.output


def test_a_pair_that_the_provider_would_not_take_is_refused() -> None:
    """Here, before anything is sent to it."""
    with pytest.raises(InvalidRequestError):
        output("--param", "a=1", "--param", "a=2")


def test_a_choice_is_a_member_of_its_enum() -> None:
    """Or nothing, where it was not made."""
    assert "{} <Colour.BLUE: 'blue'>" == output("--colour", "blue")
    assert 2 == CliRunner().invoke(command, ["--colour", "green"]).exit_code


def test_options_are_in_the_help_in_the_order_of_the_code() -> None:
    """Decorators alone would turn it round."""
    help_text = output("--help")
    assert help_text.index("--param") < help_text.index("--colour [red|blue]")
