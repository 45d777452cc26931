"""`receiver` with other limits: what takes half a minute in earnest takes a moment in a test.

Usage: python -m tests.faults.launcher NAME=SECONDS ... -- serve ...
"""

from __future__ import annotations

import sys

from receiver import cli, spool

if __name__ == "__main__":
    separator = sys.argv.index("--")
    for setting in sys.argv[1:separator]:
        name, _, value = setting.partition("=")
        assert isinstance(getattr(spool, name), int | float), f"the spool has no limit {name}"
        setattr(spool, name, float(value))
    sys.exit(cli.main(sys.argv[separator + 1 :]))
