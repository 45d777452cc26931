"""The command `receiver`, also as `python -m receiver`.

Processes that it starts import this module again, so it imports next to nothing by itself.
"""

import signal
import sys


def main() -> int:
    """Run the command line and return its exit code.

    SIGHUP means to `serve` that it is to read its tokens again. Until it can do so, the kernel
    keeps the signal; it would end the process otherwise.
    """
    if sys.argv[1:2] == ["serve"]:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    from receiver.cli import main as cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
