"""TLS: the self-signed certificate, and which of the user's files are refused."""

from __future__ import annotations

import contextlib
import itertools
import os
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from receiver.auth.tls import (
    LIFETIME,
    RENEWED_BEFORE,
    distrust,
    reload,
    self_signed,
    ssl_context,
)
from receiver.errors import ConfigurationError

AUTHORITY = trustme.CA()
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def issued(
    folder: Path,
    name: str = "localhost",
    *,
    authority: trustme.CA = AUTHORITY,
    kind: trustme.KeyType = trustme.KeyType.ECDSA,
) -> tuple[Path, Path]:
    """Return certificate and key as a user would have them."""
    pair = authority.issue_cert(name, key_type=kind)
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    pair.cert_chain_pems[0].write_to_path(certificate)
    pair.private_key_pem.write_to_path(key)
    key.chmod(0o600)
    return certificate, key


def refusal(certificate: Path, key: Path) -> str:
    """Return why a pair is refused."""
    with pytest.raises(ConfigurationError) as caught:
        ssl_context(certificate, key)
    return str(caught.value)


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str | None) -> str | None:
    """Shake hands in memory and return the version that was agreed on."""
    ends = [(ssl.MemoryBIO(), ssl.MemoryBIO()) for _ in range(2)]
    one = client.wrap_bio(*ends[0], server_hostname=name)
    other = server.wrap_bio(*ends[1], server_side=True)
    for _ in range(3):
        for end in (one, other):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
            ends[1][0].write(ends[0][1].read())
            ends[0][0].write(ends[1][1].read())
    return one.version()


def test_a_self_signed_certificate_serves_its_names(tmp_path: Path) -> None:
    """A client that trusts it reaches us by every name, with TLS 1.2 or later."""
    certificate, key = self_signed(tmp_path / "state", "receiver.example.com")
    server = ssl_context(certificate, key)
    client = ssl.create_default_context(cafile=certificate)
    for name in ("localhost", "127.0.0.1", "::1", "receiver.example.com"):
        assert "TLSv1.3" == handshake(server, client, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client, "elsewhere.example.com")
    assert ssl.TLSVersion.TLSv1_2 == server.minimum_version


def test_it_is_what_it_should_be(tmp_path: Path) -> None:
    """P-256, at most 825 days, no authority, and files for us alone."""
    certificate, key = self_signed(tmp_path / "state", "127.0.0.1", now=NOW)
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    public_key = found.public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    assert "secp256r1" == public_key.curve.name
    assert timedelta(days=825) == LIFETIME == found.not_valid_after_utc - found.not_valid_before_utc
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert 0o600 == stat.S_IMODE(key.stat().st_mode) == stat.S_IMODE(certificate.stat().st_mode)
    assert 0o700 == stat.S_IMODE(key.parent.stat().st_mode)


def test_it_is_made_once(tmp_path: Path) -> None:
    """The next start finds it, also a year later."""
    certificate, key = self_signed(tmp_path, "127.0.0.1", now=NOW)
    before = certificate.read_bytes(), key.read_bytes()
    self_signed(tmp_path, "localhost", now=NOW + timedelta(days=365))
    assert before == (certificate.read_bytes(), key.read_bytes())


@pytest.mark.parametrize(
    ("host", "later"),
    [
        ("192.0.2.1", timedelta(0)),
        ("127.0.0.1", LIFETIME - RENEWED_BEFORE),
        ("127.0.0.1", timedelta(days=-1)),
    ],
)
def test_it_is_renewed(tmp_path: Path, host: str, later: timedelta) -> None:
    """Another host, an end within 30 days, or a clock set back: a new one is made."""
    certificate, _ = self_signed(tmp_path, "127.0.0.1", now=NOW)
    before = certificate.read_bytes()
    self_signed(tmp_path, host, now=NOW + later)
    assert before != certificate.read_bytes()


def test_a_damaged_pair_is_made_anew(tmp_path: Path) -> None:
    """A missing, broken, linked or foreign half of the pair is replaced."""
    certificate, key = self_signed(tmp_path, "127.0.0.1")
    other, other_key = self_signed(tmp_path / "other", "127.0.0.1")
    (tmp_path / "link").symlink_to(other_key)
    for spoil in (
        key.unlink,
        lambda: certificate.write_text("no certificate"),
        lambda: key.write_bytes(other_key.read_bytes()),
        lambda: (tmp_path / "link").rename(key),
        lambda: certificate.write_bytes(issued(tmp_path)[0].read_bytes()),
    ):
        spoil()
        ssl_context(*self_signed(tmp_path, "127.0.0.1"))
        assert not key.is_symlink()
    ssl_context(other, other_key)


def test_a_certificate_without_names_is_replaced(tmp_path: Path) -> None:
    """A certificate that names no host at all cannot serve."""
    certificate, key = self_signed(tmp_path, "127.0.0.1")
    private_key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(
        x509.Name([]), x509.Name([]), private_key.public_key(), x509.random_serial_number()
    )
    bare = builder.not_valid_before(NOW).not_valid_after(NOW + LIFETIME)
    pem = serialization.Encoding.PEM
    certificate.write_bytes(bare.sign(private_key, hashes.SHA256()).public_bytes(pem))
    self_signed(tmp_path, "127.0.0.1")
    ssl_context(certificate, key)


def test_a_host_that_is_no_name(tmp_path: Path) -> None:
    """A host that no certificate can name is a setting to correct."""
    with pytest.raises(ConfigurationError, match="'bücher' is no host name"):
        self_signed(tmp_path, "bücher")


def test_unusable_pairs_are_refused(tmp_path: Path) -> None:
    """Missing, mismatched, empty, broken and readable-by-others: one line each."""
    certificate, key = issued(tmp_path)
    other_key = issued(tmp_path, "example.com")[1]
    missing = tmp_path / "missing.pem"
    assert f"cannot read {missing}: No such file or directory" == refusal(missing, key)
    assert f"cannot read {missing}: No such file or directory" == refusal(certificate, missing)
    assert f"cannot read {tmp_path}: Is a directory" == refusal(tmp_path, key)
    assert f"{other_key} is not the key of {certificate}" == refusal(certificate, other_key)
    both = "must be a certificate and its key, both PEM"
    broken = tmp_path / "broken.pem"
    broken.write_text("")
    assert f"{broken} is empty" == refusal(broken, key)
    broken.write_text("no certificate")
    assert f"{broken} and {key} {both}" == refusal(broken, key)
    broken.chmod(0o600)
    assert f"{certificate} and {broken} {both}" == refusal(certificate, broken)
    key.chmod(0o640)
    assert f"others can read {key}: chmod 600 {key}" == refusal(certificate, key)


def test_an_encrypted_key_is_refused_without_asking(tmp_path: Path) -> None:
    """No password is asked for: a receiver starts unattended."""
    certificate, key = issued(tmp_path)
    private_key = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"a password"),
        )
    )
    assert "both PEM" in refusal(certificate, key)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("kinds", list(itertools.product(trustme.KeyType, repeat=2)), ids=str)
def test_a_context_is_given_a_new_pair(
    tmp_path: Path, kinds: tuple[trustme.KeyType, trustme.KeyType], version: ssl.TLSVersion
) -> None:
    """Whatever the kinds of their keys, the new one serves; a bad pair leaves the old in place."""
    client = ssl.create_default_context()
    client.maximum_version = version
    AUTHORITY.configure_trust(client)
    certificate, key = issued(tmp_path, kind=kinds[0])
    new_certificate, new_key = issued(tmp_path, "new.example.com", kind=kinds[1])
    context = ssl_context(certificate, key)
    with pytest.raises(ConfigurationError):
        reload(context, new_certificate, key)
    assert handshake(context, client, "localhost")
    reload(context, new_certificate, new_key)
    assert handshake(context, client, "new.example.com")
    reload(context, certificate, key)
    assert handshake(context, client, "localhost")


def test_clients_that_send_no_name_get_the_new_pair(tmp_path: Path) -> None:
    """A client that connects to an address sends no name."""
    context = ssl_context(*issued(tmp_path))
    client = ssl.create_default_context()
    client.check_hostname = False
    authority = trustme.CA()
    authority.configure_trust(client)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(context, client, None)
    reload(context, *issued(tmp_path, authority=authority, kind=trustme.KeyType.RSA))
    assert handshake(context, client, None)


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
def test_a_private_key_of_another_user_is_refused(tmp_path: Path) -> None:
    """As any other secret is: its owner can read it."""
    certificate, key = issued(tmp_path)
    os.chown(key, 54_321, -1)
    with pytest.raises(ConfigurationError, match=f"^{key} belongs to another user"):
        ssl_context(certificate, key)


@pytest.fixture
def authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """The one authority that this system has; its certificates are issued by one below it."""
    AUTHORITY.cert_pem.write_to_path(tmp_path / "authorities.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authorities.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    return AUTHORITY.create_child_ca()


@pytest.mark.parametrize("kind", trustme.KeyType)
def test_a_certificate_without_its_intermediate_is_distrusted(
    tmp_path: Path, authorities: trustme.CA, kind: trustme.KeyType
) -> None:
    """Clients know only the root; the file has to bring what lies between."""
    certificate, key = issued(tmp_path, authority=authorities, kind=kind)
    assert "fullchain.pem" in distrust(certificate, key)
    authorities.cert_pem.write_to_path(certificate, append=True)
    assert "" == distrust(certificate, key)


def test_a_certificate_of_nobody_known_is_distrusted(
    tmp_path: Path, authorities: trustme.CA
) -> None:
    """A self-signed one, and one of an authority whose root it brings along."""
    assert authorities
    assert "self" in distrust(*self_signed(tmp_path / "state", "127.0.0.1"))
    stranger = trustme.CA()
    certificate, key = issued(tmp_path, authority=stranger)
    stranger.cert_pem.write_to_path(certificate, append=True)
    assert "self" in distrust(certificate, key)


def test_without_authorities_only_a_missing_intermediate_is_said(
    tmp_path: Path, authorities: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system without any, as small containers are, would distrust every certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    certificate, key = issued(tmp_path, authority=authorities)
    assert "fullchain.pem" in distrust(certificate, key)
    authorities.cert_pem.write_to_path(certificate, append=True)
    assert "" == distrust(certificate, key)
    assert "" == distrust(*self_signed(tmp_path / "state", "127.0.0.1"))
