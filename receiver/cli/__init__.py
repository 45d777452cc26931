"""The command `receiver`, one module for each subcommand or group of them."""
