"""The command `receiver`, also as `python -m receiver`.

Processes that it starts import this module again, so it imports nothing by itself.
"""

import sys


def main() -> int:
    """Run the command line and return its exit code."""
    from receiver.cli import main as cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
