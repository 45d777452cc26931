"""File descriptors: as many as the settings may need, or settings that do with fewer.

The usual soft limit of 1024 is for programs that use `select`, which cannot count further; we
do not. A receiver at its limit could open neither sockets nor journals, so it admits fewer
streams instead.
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


def raise_limit(config: Config) -> Config:
    """Raise this process's limit to what the settings need; workers inherit it.

    Returns:
        The settings. Where the system allows no such limit they are those that fit below it:
        fewer streams, waiting connections and listeners by the same share, so that none of
        them starves the rest.
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
    """Return how many the streams of one process need, and how many everything else does."""
    streams, waiting = (-(-n // config.workers) for n in (config.max_streams, config.max_waiting))
    listeners = config.max_listeners if credentials.has_tap_tokens(config) else 0
    return streams * (PER_STREAM + len(config.forward)), waiting + listeners


def _raised(needed: int) -> int:
    """Raise the soft limit as far as needed and allowed, and return what it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return needed
    target = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    except (OSError, ValueError):  # macOS has another limit below the one that it reports
        return soft
    return target
