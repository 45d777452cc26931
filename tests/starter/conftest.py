"""What the starter's tests share: a receiver double, TLS, WAV files, and the command line."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import trustme

from starter import cli
from tests.starter.receivers import ReceiverDouble

PROJECT_ID = "b08dacad-0000-4000-8000-000000000001"
API_TOKEN = "PT-api-token-of-the-tests"
CALL_SID = "76ac3c36-0000-4000-8000-000000000002"

_OWN_VARIABLES = ("SIGNALWIRE_", "TAPREEL_")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine reaches a test."""
    for name in list(os.environ):
        if name.startswith(_OWN_VARIABLES):
            monkeypatch.delenv(name)


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider's credentials in the environment; the space leads nowhere."""
    monkeypatch.setenv("SIGNALWIRE_PROJECT_ID", PROJECT_ID)
    monkeypatch.setenv("SIGNALWIRE_API_TOKEN", API_TOKEN)
    monkeypatch.setenv("SIGNALWIRE_SPACE", "example")


@pytest.fixture
def receiver() -> Iterator[ReceiverDouble]:
    """A receiver on plain ws."""
    with ReceiverDouble() as double:
        yield double


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """A certificate authority of the tests' own."""
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    """The authority's certificate as a file."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture
def secure_receiver(authority: trustme.CA) -> Iterator[ReceiverDouble]:
    """A receiver on wss, with a certificate of the tests' authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with ReceiverDouble(context) as double:
        yield double


@pytest.fixture
def write_wav(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tone as a WAV file of the given seconds, rate, subtype and channels."""

    def write(
        name: str = "tone.wav",
        *,
        seconds: float = 0.5,
        rate: int = 8000,
        subtype: str = "PCM_16",
        channels: int = 1,
    ) -> Path:
        path = tmp_path / name
        times = np.arange(round(seconds * rate)) / rate
        tone = np.round(12000 * np.sin(2 * np.pi * 440 * times)).astype(np.int16)
        soundfile.write(path, np.column_stack([tone] * channels), rate, subtype=subtype)
        return path

    return write


@dataclass(frozen=True)
class Ran:
    """How a command ended and what it wrote."""

    exit_code: int
    out: str
    err: str


@pytest.fixture
def starter(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs one command in this process, the way the entry point does."""

    def run(*arguments: object) -> Ran:
        exit_code = cli.run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(exit_code, captured.out, captured.err)

    return run


@pytest.fixture
def secret_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file that only its owner can read."""

    def write(content: str | bytes, name: str = "secret", *, mode: int = 0o600) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return path

    return write


@pytest.fixture
def unused_port() -> Callable[[], int]:
    """A port of 127.0.0.1 without a listener."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port

    return find
