"""The head of the ledger, signed, so that somebody outside can keep it: a C2SP checkpoint.

    tapreel/calls.example.com
    1204
    X3C/GNCKCGAHYW6UiwSu07gRA6Nr6kF1W2zPqvEKzlA=

    — tapreel/calls.example.com x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZ…

The text is that of C2SP's tlog-checkpoint: an origin, how many entries, a hash in base64. The
ledger is a chain, so the hash is the SHA-256 of its last line, and not the root of a tree. The
signature is that of C2SP's signed-note (https://c2sp.org/signed-note): Ed25519, by a key that has
a name and four bytes of a hash. Pure, but for reading keys.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from receiver.errors import ConfigurationError, UnreadableError
from receiver.lifecycle.ledger import Head

LONGEST: Final = 2**16
"""Bytes of a checkpoint; ours have some hundred."""
_ED25519: Final = b"\x01"
_KEY_ID_BYTES: Final = 4
_SHA256_BYTES: Final = 32
_NAME: Final = re.compile(r"[^\s+]{1,200}")
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """The public half of a key, and its name; as text it is a `vkey` of signed-note."""

    name: str
    public: bytes

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Return what `str` has made a text of.

        Raises:
            ValueError: it has not.
        """
        name, _, rest = text.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        material = _base64(encoded)
        if material[:1] != _ED25519 or len(material) != 1 + _SHA256_BYTES:
            raise ValueError("not an Ed25519 key such as NAME+c74f20a3+ARpc2QcUPDhM…")
        found = cls(_checked(name), material[1:])
        if found.key_id.hex() != key_id:
            raise ValueError("the key is damaged: its id is not that of its name and bytes")
        return found

    @property
    def key_id(self) -> bytes:
        """Return the four bytes that stand before a signature of it."""
        whole = self.name.encode() + b"\n" + _ED25519 + self.public
        return hashlib.sha256(whole).digest()[:_KEY_ID_BYTES]

    def __str__(self) -> str:
        encoded = base64.b64encode(_ED25519 + self.public).decode()
        return f"{self.name}+{self.key_id.hex()}+{encoded}"


@dataclass(frozen=True, slots=True)
class Signer:
    """A key, and the name under which it signs: the origin of what it signs."""

    name: str
    private: Ed25519PrivateKey

    @property
    def verifier(self) -> VerifierKey:
        """Return its public half."""
        return VerifierKey(self.name, self.private.public_key().public_bytes_raw())

    def sign(self, text: str) -> str:
        """Return a signed note of a text, which ends with a newline."""
        signature = self.verifier.key_id + self.private.sign(text.encode())
        return f"{text}\n\N{EM DASH} {self.name} {base64.b64encode(signature).decode()}\n"


def signer_of(file: Path, content: bytes, name: str) -> Signer:
    """Return the signer of a private key, as `openssl genpkey -algorithm ed25519` makes one.

    Args:
        file: Where it is, for errors.
        content: What is in it.
        name: The name under which it signs: no spaces, no plus.

    Raises:
        ConfigurationError: it is no such key, or no such name.
    """
    try:
        key = load_pem_private_key(content, None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(
            f"{file} is no Ed25519 key without a password: "
            "'openssl genpkey -algorithm ed25519' makes one"
        ) from None
    try:
        return Signer(_checked(name), key)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def checkpoint(head: Head, signer: Signer) -> str:
    """Return the signed checkpoint of a head; the signer's name is its origin."""
    digest = base64.b64encode(bytes.fromhex(head.sha256)).decode()
    return signer.sign(f"{signer.name}\n{head.n}\n{digest}\n")


def opened(note: str, key: VerifierKey) -> str:
    """Return the text of a note that this key has signed, whoever else has.

    Raises:
        UnreadableError: it has not, or that is no signed note.
    """
    text, blank, signatures = note.rpartition("\n\n")
    if not blank or not signatures.endswith("\n"):
        raise UnreadableError("it is no signed note")
    text += "\n"
    for signature in _signatures_of(signatures, key):
        try:
            Ed25519PublicKey.from_public_bytes(key.public).verify(signature, text.encode())
        except InvalidSignature:
            raise UnreadableError("its signature is wrong: it was changed") from None
        return text
    raise UnreadableError(f"it has no signature of the key {key.name}+{key.key_id.hex()}")


def _signatures_of(lines: str, key: VerifierKey) -> Iterator[bytes]:
    for line in lines.splitlines():
        dash, name, encoded = (*line.split(" "), "", "")[:3]
        if dash == "\N{EM DASH}" and name == key.name:
            found = _base64(encoded)
            if found[:_KEY_ID_BYTES] == key.key_id:
                yield found[_KEY_ID_BYTES:]


def head_of(note: str, key: VerifierKey) -> Head:
    """Return the head that a checkpoint is of.

    Raises:
        UnreadableError: this key has not signed it, or it is no checkpoint.
    """
    origin, size, digest = (*opened(note, key).split("\n"), "", "")[:3]
    sha256 = _base64(digest)
    if not origin or not _SIZE.fullmatch(size) or len(sha256) != _SHA256_BYTES:
        raise UnreadableError("it is no checkpoint: it needs an origin, a number and a hash")
    if origin != key.name:
        raise UnreadableError(f"it is a checkpoint of another ledger, {origin[:100]!r}")
    return Head(int(size), sha256.hex())


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("the name of a key has no spaces and no plus, as in calls.example.com")
    return name


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
