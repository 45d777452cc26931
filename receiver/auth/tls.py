"""TLS: the context that serves the configured certificate, or a self-signed one."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from receiver.auth.credentials import read_plain, read_secret
from receiver.config.settings import Config
from receiver.errors import ConfigurationError

_ISSUER_MISSING: Final = (20, 21)
"""X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE."""

_CHAIN: Final = (
    "does the file hold the intermediate certificates, too, behind its own (fullchain.pem)?"
)


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


def distrust(certificate: Path, key: Path) -> str:
    """Return why clients with this system's authorities refuse a certificate; "" if they do not.

    It is what a client says who shakes hands with us in memory: whatever its library checks is
    checked, except the name, which only the client knows. Where the system has no authorities,
    as in a small container, all that can be said is that an intermediate is missing.

    Raises:
        ConfigurationError: certificate or key cannot be used, or others can read the key.
    """
    client = ssl.create_default_context()
    client.check_hostname = False
    places = ssl.get_default_verify_paths()
    if places.cafile is None and places.capath is None:
        from receiver.auth import self_signed  # only here: its library is slow to import

        return f"it stands alone: {_CHAIN}" if self_signed.stands_alone(certificate) else ""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server),
        ssl_context(certificate, key).wrap_bio(to_server, to_client, server_side=True),
    )
    for end in ends * 2:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            return _explained(error)
    return ""


def _explained(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _ISSUER_MISSING:
        return f"{error.verify_message}: {_CHAIN}"
    return error.verify_message


def expires_at(certificate: Path) -> float | None:
    """Return when a certificate expires, in seconds since 1970; `None` if it cannot be read."""
    from receiver.auth import self_signed  # only here: its library is slow to import

    return self_signed.expires_at(certificate)


def _no_password() -> bytes:
    """Return no password, so that OpenSSL does not ask the terminal for one."""
    return b""
