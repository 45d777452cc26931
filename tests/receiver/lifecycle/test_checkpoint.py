"""Signed heads: a format that others wrote, and what a witness finds with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from receiver.errors import ConfigurationError, UnreadableError
from receiver.lifecycle import checkpoint
from receiver.lifecycle.checkpoint import Signer, VerifierKey
from receiver.lifecycle.ledger import Head, Ledger

KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
NOTE = (
    f"{TEXT}\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqd"
    "ngotpRZb6KE6RyyBwJnAM=\n"
)
"""The example of golang.org/x/mod/sumdb/note, where the format is from."""


@pytest.fixture(scope="module")
def signer() -> Signer:
    """Return a key of the tests."""
    return Signer("calls.example.com/tapreel", Ed25519PrivateKey.generate())


def pem(key: object) -> bytes:
    """Return a private key as a file has it."""
    content: bytes = key.private_bytes(  # type: ignore[attr-defined]
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    return content


def test_a_note_of_others_is_opened() -> None:
    """And a key is written as they write it."""
    key = VerifierKey.parse(KEY)
    assert KEY == str(key)
    assert TEXT == checkpoint.opened(NOTE, key)
    more = NOTE + "— somebody.else AAAAAAAA\n"
    assert TEXT == checkpoint.opened(more, key)


@pytest.mark.parametrize(
    ("note", "problem"),
    [
        (NOTE.replace("answer", "solution"), "its signature is wrong"),
        (NOTE.replace("PeterNeumann", "PeterNewmann"), "no signature of the key"),
        (NOTE.replace("x08g", "x08h"), "no signature of the key"),
        (NOTE.replace("x08g", "!"), "no signature of the key"),
        (NOTE.rstrip("\n"), "no signed note"),
        (TEXT, "no signed note"),
        ("", "no signed note"),
        (NOTE, "no checkpoint"),
    ],
)
def test_what_was_not_signed_is_refused(note: str, problem: str) -> None:
    """Whatever was changed of it."""
    with pytest.raises(UnreadableError, match=problem):
        checkpoint.head_of(note, VerifierKey.parse(KEY))


@pytest.mark.parametrize(
    "text", ["", "a", "a+b+c", KEY.replace("c74f", "c74e"), KEY.replace("+AR", "+AB"), KEY[:-4]]
)
def test_a_key_that_is_none_is_refused(text: str) -> None:
    """Also one of which a character was changed."""
    with pytest.raises(ValueError, match="key"):
        VerifierKey.parse(text)


def test_a_head_comes_back(signer: Signer) -> None:
    """Under the origin that signed it, and no other."""
    head = Head(1204, "ab" * 32)
    note = checkpoint.checkpoint(head, signer)
    assert head == checkpoint.head_of(note, VerifierKey.parse(str(signer.verifier)))
    lines = note.split("\n")
    assert [
        "calls.example.com/tapreel",
        "1204",
        "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=",
    ] == (lines[:3])
    assert "" == lines[3]
    foreign = signer.sign("other\n1204\nq6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=\n")
    with pytest.raises(UnreadableError, match="of another ledger, 'other'"):
        checkpoint.head_of(foreign, signer.verifier)


def test_a_witness_finds_what_the_folder_cannot_show(tmp_path: Path, signer: Signer) -> None:
    """A ledger that was made anew as a whole agrees with itself, and not with an old head."""
    ledger = Ledger(tmp_path / "one")
    for number in range(3):
        ledger.append("heard", who="ann", via="console", number=number)
    note = checkpoint.checkpoint(ledger.head(), signer)
    ledger.append("heard", who="ann", via="console", number=3)
    known = checkpoint.head_of(note, signer.verifier)
    assert [] == ledger.verify(known).problems
    forged = Ledger(tmp_path / "two")
    for number in (0, 1, 7, 3):
        forged.append("heard", who="ann", via="console", number=number)
    assert [] == forged.verify().problems
    assert any("entry 3 is not the one" in text for text in forged.verify(known).problems)
    short = Ledger(tmp_path / "three")
    short.append("heard", who="ann", via="console", number=0)
    assert any("what was behind is missing" in text for text in short.verify(known).problems)


def test_keys_are_those_of_openssl(signer: Signer) -> None:
    """Nothing else signs; one error says how to make one."""
    found = checkpoint.signer_of(Path("key"), pem(signer.private), signer.name)
    assert signer.verifier == found.verifier
    for content in (b"", b"secret", pem(generate_private_key(65537, 2048))):
        with pytest.raises(ConfigurationError, match="openssl genpkey -algorithm ed25519"):
            checkpoint.signer_of(Path("key"), content, "a")
    for name in ("", "a b", "a+b"):
        with pytest.raises(ConfigurationError, match="no spaces and no plus"):
            checkpoint.signer_of(Path("key"), pem(signer.private), name)
