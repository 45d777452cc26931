"""The console: pages for people, an API for programs, in a process beside the receiver."""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from receiver.config.settings import Config


def run_child(config: Config, channel: Connection) -> None:
    """Run a console as a child of the receiver; the target of its process.

    It is here so that the receiver, which names it, loads nothing of the console's.
    """
    from receiver.console import server

    server.run_child(config, channel)
