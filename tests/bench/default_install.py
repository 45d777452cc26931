"""Runs `receiver` as it is without the `fast` extra: its libraries cannot be imported.

`--as MODULE` runs another module that way.
"""

from __future__ import annotations

import runpy
import sys

for name in ("uvloop", "picows", "aiofastnet"):
    sys.modules[name] = None  # type: ignore[assignment]  # the documented way to hide a module

if __name__ == "__main__":
    if sys.argv[1:2] == ["--as"]:
        module = sys.argv[2]
        del sys.argv[1:3]
        runpy.run_module(module, run_name="__main__")
    else:
        from receiver.cli.main import main

        sys.exit(main())
