"""Runs `receiver` as it is without the `fast` extra: its libraries cannot be imported."""

from __future__ import annotations

import sys

for name in ("uvloop", "picows", "aiofastnet"):
    sys.modules[name] = None  # type: ignore[assignment]  # the documented way to hide a module

if __name__ == "__main__":
    from receiver.cli import main

    sys.exit(main())
