"""`python -m starter` is the `starter` command."""

from starter.cli import main

main()
