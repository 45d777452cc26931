"""`receiver` with other limits: what takes half a minute in production takes a second in a test.

Usage: python -m tests.faults.launcher [MODULE.]NAME=SECONDS ... -- serve ..., with
a module as in `service.shutdown_deadline.LAST_SECONDS=60`; without one it is a limit of memory.
"""

from __future__ import annotations

import importlib
import sys

from receiver.cli import main

if __name__ == "__main__":
    separator = sys.argv.index("--")
    for setting in sys.argv[1:separator]:
        name, _, value = setting.partition("=")
        place, _, name = name.rpartition(".")
        module = importlib.import_module(f"receiver.{place or 'journal.spool'}")
        assert isinstance(getattr(module, name), int | float), f"{module} has no limit {name}"
        setattr(module, name, float(value))
    sys.exit(main.main(sys.argv[separator + 1 :]))
