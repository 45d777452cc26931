"""Lets `python -m starter` do what the `starter` command does."""

from starter.cli import main

main()
