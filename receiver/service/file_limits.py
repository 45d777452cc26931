"""File descriptors: as many as the settings may need, or settings that do with fewer.

The usual soft limit of 1024 is for programs that cannot count further; we can. A receiver that
meets its limit could open neither sockets nor journals, so it takes fewer streams instead.
"""

from __future__ import annotations

import resource
from dataclasses import replace
from typing import Final

import structlog

from receiver.auth import credentials
from receiver.config.settings import Config

PER_STREAM: Final = 2
"""A socket and a journal."""
RESERVE: Final = 128
"""For everything else: 24 when idle, the listening sockets among them, and 5 for each of up to 8
rendering processes; the rest is for journals that a bad disk keeps open after their streams."""

log = structlog.get_logger("receiver.descriptors")


def make_room(config: Config) -> Config:
    """Raise this process's limit to what `config` needs; workers inherit it.

    Where the system does not allow that, return settings that fit below it: fewer streams,
    waiting connections and listeners by the same share, so that none of them starves the rest.
    """
    streams, others = _needed(config)
    needed = RESERVE + streams + others
    limit = _raised(needed)
    if limit >= needed:
        return config
    share = max(0.0, (limit - RESERVE) / (needed - RESERVE))
    fitting = replace(
        config,
        max_streams=max(1, int(config.max_streams * share / config.workers)) * config.workers,
        max_waiting=max(1, int(config.max_waiting * share / config.workers)) * config.workers,
        max_listeners=int(config.max_listeners * share),
    )
    log.warning(
        "too_few_descriptors",
        limit=limit,
        needed=needed,
        max_streams=fitting.max_streams,
        advice="raise LimitNOFILE in the unit (or ulimit -Hn), or lower --max-streams",
    )
    return fitting


def _needed(config: Config) -> tuple[int, int]:
    """Return what the streams of one process take, and whoever else may connect to it."""
    streams, waiting = (-(-n // config.workers) for n in (config.max_streams, config.max_waiting))
    listeners = config.max_listeners if credentials.has_tap_tokens(config) else 0
    return streams * (PER_STREAM + len(config.forward)), waiting + listeners


def _raised(needed: int) -> int:
    """Have the soft limit be as high as needed, or as high as it may be; return what it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return needed
    target = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    except (OSError, ValueError):  # macOS has another limit below the one that it tells
        return soft
    return target
