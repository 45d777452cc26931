"""`python -m receiver` is the command `receiver`."""

import sys

from receiver.cli import main

sys.exit(main())
