"""Asks the provider's REST API to start and stop media streams on live calls."""
