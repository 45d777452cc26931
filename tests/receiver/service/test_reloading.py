"""What SIGHUP reads again: part by part."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from receiver.errors import ConfigurationError
from receiver.service.reloading import reload


def bad() -> None:
    """Be a part whose file cannot be used."""
    raise ConfigurationError("it is empty")


@pytest.mark.parametrize("order", [("good", "bad"), ("bad", "good")])
def test_a_bad_part_holds_back_no_good_one(order: tuple[str, ...]) -> None:
    """Each is tried, in either order, and has a line of its own."""
    taken: list[str] = []
    parts = {"good": lambda: taken.append("good"), "bad": bad}
    with capture_logs() as lines:
        reload({name: parts[name] for name in order})
    assert ["good"] == taken
    told = {line["part"]: (line["event"], line.get("error")) for line in lines}
    assert {"good": ("reloaded", None), "bad": ("reload_failed", "it is empty")} == told


def test_a_mistake_of_ours_is_not_a_bad_file() -> None:
    """What nobody foresaw is not told as the user's error."""
    with pytest.raises(ZeroDivisionError):
        reload({"broken": lambda: 1 // 0})
