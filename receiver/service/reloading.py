"""What SIGHUP reads again. Each part is taken, or kept as it is, on its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from receiver.errors import ConfigurationError

log = structlog.get_logger("receiver.reloading")


def reload(parts: Mapping[str, Callable[[], object]]) -> None:
    """Have each part read its files again; one line of the log tells what became of each.

    A part takes all of its files or, with a `ConfigurationError`, none: what is bad leaves the
    old in force, and holds back no other part.
    """
    for part, take in parts.items():
        try:
            take()
        except ConfigurationError as error:
            log.error("reload_failed", part=part, error=str(error), in_force="the old")
        else:
            log.info("reloaded", part=part)
