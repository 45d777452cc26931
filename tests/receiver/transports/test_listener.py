"""A certificate that is read again is served to new connections, on both event loops."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path

import pytest
import trustme

from receiver.auth import tls
from receiver.transports.interface import Limits
from receiver.transports.listener import SocketListener, listen
from tests.receiver.helpers.wire import KeepingPolicy, call

pytestmark = pytest.mark.integration


def issued(folder: Path, authority: trustme.CA, kind: trustme.KeyType) -> tuple[Path, Path]:
    """Write a certificate and its key over those that are there."""
    pair, certificate, key = (
        authority.issue_cert("localhost", key_type=kind),
        folder / "certificate.pem",
        folder / "key.pem",
    )
    pair.cert_chain_pems[0].write_to_path(certificate)
    pair.private_key_pem.write_to_path(key)
    key.chmod(0o600)
    return certificate, key


async def is_trusted(listener: SocketListener, authority: trustme.CA) -> bool:
    """Open a stream; return whether the certificate is one of this authority's."""
    client = ssl.create_default_context()
    authority.configure_trust(client)
    try:
        caller = await call(listener.port, client)
    except ssl.SSLCertVerificationError:
        return False
    assert (await caller.upgrade()).startswith(b"HTTP/1.1 101 ")
    await caller.leave()
    return True


async def test_new_connections_get_the_new_certificate(tmp_path: Path) -> None:
    """Also where its key is of another kind; the old one is served no more."""
    old, new = trustme.CA(), trustme.CA()
    context = tls.ssl_context(*issued(tmp_path, old, trustme.KeyType.ECDSA))
    listener = await listen(
        KeepingPolicy(), host="127.0.0.1", port=0, ssl_context=context, limits=Limits()
    )
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(listener.close)
        assert [True, False] == [await is_trusted(listener, one) for one in (old, new)]
        tls.reload(context, *issued(tmp_path, new, trustme.KeyType.RSA))
        assert [False, True] == [await is_trusted(listener, one) for one in (old, new)]
