"""TLS: the context that serves the configured certificate, or a self-signed one."""

from __future__ import annotations

import ssl
from pathlib import Path

from receiver.auth.credentials import read_plain, read_secret
from receiver.config.settings import Config
from receiver.errors import ConfigurationError


def pair(config: Config) -> tuple[Path, Path]:
    """Return the paths of the certificate to serve with and of its key.

    Raises:
        ConfigurationError: a self-signed one cannot be made.
    """
    if config.tls is not None:
        return config.tls
    from receiver.auth import self_signed  # only here: its library is slow to import

    return self_signed.self_signed(config.state, config.host)


def serving(config: Config) -> ssl.SSLContext | None:
    """Return the context to serve with, or `None` without TLS.

    Raises:
        ConfigurationError: certificate or key cannot be used, or others can read the key.
    """
    return None if config.no_tls else ssl_context(*pair(config))


def ssl_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return a context for TLS 1.2 or later that serves a certificate.

    Raises:
        ConfigurationError: certificate or key cannot be used, or others can read the key.
    """
    read_plain(certificate)
    read_secret(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = f"{key} is not the key of {certificate}"
        else:
            problem = f"{certificate} and {key} must be a certificate and its key, both PEM"
        raise ConfigurationError(problem) from error
    except OSError as error:
        raise ConfigurationError(f"{certificate} was changed meanwhile: try again") from error
    return context


def reload(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Read certificate and key again for new connections; open ones keep theirs.

    Raises:
        ConfigurationError: they cannot be used; `context` keeps what it has.
    """
    fresh = ssl_context(certificate, key)

    def use_fresh(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = fresh

    # It is called whether or not the client sends a server name. A context holds one pair for each
    # kind of key: loaded into `context`, an RSA pair would be beside an old EC one, which most
    # clients prefer.
    context.sni_callback = use_fresh


def expires_at(certificate: Path) -> float | None:
    """Return when a certificate expires, in seconds since 1970; `None` if it cannot be read."""
    from receiver.auth import self_signed  # only here: its library is slow to import

    return self_signed.expires_at(certificate)


def _no_password() -> bytes:
    """Return no password, so that OpenSSL does not ask the terminal for one."""
    return b""
