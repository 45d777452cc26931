"""The console: pages for people, an API for programs, in a process beside the receiver."""

from __future__ import annotations

from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import urlsplit

from receiver.config import is_loopback
from receiver.config.settings import Config, check_tls
from receiver.errors import ConfigurationError


def run_child(settings: Mapping[str, Any], channel: Connection) -> None:
    """Run a console as a child of the receiver; the target of its process.

    It is here so that the receiver, which names it, loads nothing of the console's.
    """
    from receiver.console import server

    server.run_child(settings, channel)


def check_console(config: Config) -> None:
    """Refuse settings that the console must not start with.

    Raises:
        ConfigurationError: the text says what to choose.
    """
    check_tls(config, config.console_host, "--console-host")
    given = (config.oidc_issuer, config.oidc_client_id, config.oidc_client_secret_file)
    if any(given) and not all(given):
        raise ConfigurationError(
            "OpenID Connect needs all of --oidc-issuer URL, --oidc-client-id ID"
            " and --oidc-client-secret-file FILE"
        )
    if config.console_user_header and not config.behind_proxy:
        raise ConfigurationError(
            "--console-user-header believes whoever connects: it needs --behind-proxy"
        )
    if (
        config.console_user_header
        and not config.trusted_proxy
        and not is_loopback(config.console_host)
    ):
        raise ConfigurationError(
            "--console-user-header on a public address needs --trusted-proxy NETWORK:"
            " everybody else could name a user, too"
        )
    for url in config.tap_url:
        _check_tap_url(url)
    if config.callback_key_file and not config.public_url:
        raise ConfigurationError(
            "--callback-key-file needs --public-url: providers sign the URL that they call"
        )
    if config.callback_key_file or config.callback_secret_file:
        from receiver.notifications.webhooks import callback_secrets  # only where there are some

        callback_secrets(config)
    if config.webhook or config.on_published:
        from receiver.notifications.webhooks import endpoints_of

        endpoints_of(config)
    if config.tap_url and config.tap_token_file is None and config.tap_tokens is None:
        raise ConfigurationError("--tap-url needs --tap-token-file FILE, or TAPREEL_TAP_TOKENS")


def _check_tap_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("ws", "wss") or parts.path.strip("/"):
        raise ConfigurationError("--tap-url must be like wss://127.0.0.1:8443")
    if parts.scheme == "ws" and not is_loopback(host):
        raise ConfigurationError("a receiver elsewhere needs wss: ws sends the token in the clear")
