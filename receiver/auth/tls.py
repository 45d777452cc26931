"""TLS: the context that serves the configured certificate, or a self-signed one, for trials.

The library that makes and reads certificates is slow to import, so the functions that need it do
it, and no others.
"""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from receiver.auth.credentials import read_plain, read_secret, state_folder, write_secret
from receiver.config.settings import Config
from receiver.errors import ConfigurationError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

LIFETIME: Final = timedelta(days=825)
"""Apple's clients refuse certificates that are valid for longer."""
RENEWED_BEFORE: Final = timedelta(days=30)
_NAMES: Final = ("localhost", "127.0.0.1", "::1")
_BACKDATED: Final = timedelta(hours=1)  # for clients with a slow clock

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
    return self_signed(config.state, config.host)


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
        return f"it stands alone: {_CHAIN}" if _stands_alone(certificate) else ""
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
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(read_plain(certificate))
    except (ConfigurationError, ValueError):
        return None
    return found.not_valid_after_utc.timestamp()


def _no_password() -> bytes:
    """Return no password, so that OpenSSL does not ask the terminal for one."""
    return b""


def _stands_alone(certificate: Path) -> bool:
    """Return whether a file holds one certificate only, and that of another issuer than itself."""
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificates(read_plain(certificate))
    except (ConfigurationError, ValueError):
        return False
    return len(found) == 1 and found[0].issuer != found[0].subject


def self_signed(state: Path, host: str, *, now: datetime | None = None) -> tuple[Path, Path]:
    """Return the paths of a certificate for `host` and its key; make them where needed.

    Raises:
        ConfigurationError: `state` cannot be used, or `host` is no name for a certificate.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = state_folder(state)
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    names = _general_names(host)
    now = now or datetime.now(UTC)
    if not _serves(certificate, key, names, now):
        private_key = ec.generate_private_key(ec.SECP256R1())
        made = _made(private_key, names, now)
        write_secret(key, _pem(private_key))
        write_secret(certificate, made.public_bytes(serialization.Encoding.PEM))
    return certificate, key


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _general_names(host: str) -> list[x509.GeneralName]:
    from cryptography import x509

    names: list[x509.GeneralName] = []
    for name in dict.fromkeys((*_NAMES, host)):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            names.append(_dns_name(name))
    return names


def _dns_name(name: str) -> x509.DNSName:
    from cryptography import x509

    try:
        return x509.DNSName(name)
    except ValueError as error:
        raise ConfigurationError(f"{name!r} is no host name for a certificate") from error


def _serves(certificate: Path, key: Path, names: list[x509.GeneralName], now: datetime) -> bool:
    """Return whether the stored pair belongs together, names `names`, and is valid for a while."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    if certificate.is_symlink() or key.is_symlink():
        return False
    try:
        found = x509.load_pem_x509_certificate(read_plain(certificate))
        private_key = serialization.load_pem_private_key(read_plain(key), password=None)
        extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (ConfigurationError, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    return (
        private_key.public_key() == found.public_key()
        and set(names) <= set(extension.value)
        and found.not_valid_before_utc <= now < found.not_valid_after_utc - RENEWED_BEFORE
    )


def _made(
    key: ec.EllipticCurvePrivateKey, names: list[x509.GeneralName], now: datetime
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tapreel receiver")])
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    builder = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now - _BACKDATED + LIFETIME)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        # No authority: a client that trusts this certificate trusts no other by it.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA256())
