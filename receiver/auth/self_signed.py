"""Self-signed certificates, for trials; and when a certificate expires."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from receiver.auth.credentials import read_plain, state_folder, write_secret
from receiver.errors import ConfigurationError

LIFETIME: Final = timedelta(days=825)
"""Apple's clients refuse certificates that are valid for longer."""
RENEWED_BEFORE: Final = timedelta(days=30)
_NAMES: Final = ("localhost", "127.0.0.1", "::1")
_BACKDATED: Final = timedelta(hours=1)  # for clients with a slow clock


def expires_at(certificate: Path) -> float | None:
    """Return when a certificate expires, in seconds since 1970; `None` if it cannot be read."""
    try:
        found = x509.load_pem_x509_certificate(read_plain(certificate))
    except (ConfigurationError, ValueError):
        return None
    return found.not_valid_after_utc.timestamp()


def stands_alone(certificate: Path) -> bool:
    """Return whether a file holds one certificate only, and that of another issuer than itself."""
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
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _general_names(host: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for name in dict.fromkeys((*_NAMES, host)):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            names.append(_dns_name(name))
    return names


def _dns_name(name: str) -> x509.DNSName:
    try:
        return x509.DNSName(name)
    except ValueError as error:
        raise ConfigurationError(f"{name!r} is no host name for a certificate") from error


def _serves(certificate: Path, key: Path, names: list[x509.GeneralName], now: datetime) -> bool:
    """Return whether the stored pair belongs together, names `names`, and is valid for a while."""
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
