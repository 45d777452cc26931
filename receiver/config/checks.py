"""Checks of settings that depend on each other."""

from __future__ import annotations

import ipaddress

from receiver.config.settings import ALTERNATIVES, LAST_PORT, Config
from receiver.errors import ConfigurationError


def check_serving(config: Config) -> None:
    """Refuse settings that `receiver serve` must not start with.

    Raises:
        ConfigurationError: the text says what to choose.
    """
    chosen = [name for name in ALTERNATIVES[0] if getattr(config, name)]
    if len(chosen) != 1:
        problem = "more than one of them is set" if chosen else "none of them is set"
        raise ConfigurationError(
            f"choose one of --tls CERT KEY, --self-signed and --no-tls: {problem}"
        )
    if config.no_tls and not config.behind_proxy and not is_loopback(config.host):
        raise ConfigurationError(
            "--no-tls on a public address sends tokens and audio in the clear:"
            " use --tls, listen on 127.0.0.1, or say --behind-proxy"
        )
    if not config.has_credentials and not config.demo:
        raise ConfigurationError(
            "no token is configured, so no stream could be admitted: give --token-file FILE,"
            " --stream-key-file FILE, TAPREEL_TOKENS, or --demo"
        )
    _check_workers(config)


def _check_workers(config: Config) -> None:
    if config.max_streams < config.workers:
        raise ConfigurationError(
            f"--max-streams {config.max_streams} is less than one for each"
            f" of {config.workers} workers:"
            f" give {config.workers} or more, or fewer workers"
        )
    last = (config.metrics_port or 0) + config.workers - 1
    if config.metrics_port and last > LAST_PORT:
        raise ConfigurationError(
            f"--metrics-port {config.metrics_port} has too few ports above it for"
            f" {config.workers} workers: give {LAST_PORT + 1 - config.workers} or a lower one"
        )


def is_loopback(host: str) -> bool:
    """Return whether `host` can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
