"""The whole circle: starter -> REST API -> wss with bearer -> receiver -> WAV files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import soundfile
import trustme

from receiver.media import EndReason
from tests.bounds import at_most
from tests.end_to_end.receiver_process import ReceiverProcess, running_receiver
from tests.end_to_end.sender import CALL_SID
from tests.receiver.helpers.g711 import MULAW

DEMO = Path(__file__).parents[2] / "starter" / "simulator" / "demo"
WAIT_SECONDS = at_most(60)
KEY = "k" * 43


@dataclass
class Provider:
    """A stand-in for the provider's REST API, and how to reach it."""

    environment: dict[str, str]
    receiver: ReceiverProcess

    def starter(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one `starter` command against the stand-in."""
        return subprocess.run(
            [sys.executable, "-m", "starter", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )


@pytest.fixture
def authority(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Return an authority's certificate, and a server's certificate and key."""
    made = trustme.CA()
    issued = made.issue_cert("localhost", "127.0.0.1")
    paths = (tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem")
    made.cert_pem.write_to_path(paths[0])
    issued.cert_chain_pems[0].write_to_path(paths[1])
    issued.private_key_pem.write_to_path(paths[2])
    paths[2].chmod(0o600)
    return paths


@pytest.fixture
def provider(tmp_path: Path, authority: tuple[Path, Path, Path]) -> Iterator[Provider]:
    """A receiver behind TLS, and a stand-in provider that plays the demo call at high speed."""
    ca, cert, key = authority
    stream_key = tmp_path / "stream-key"
    stream_key.write_text(KEY + "\n")
    stream_key.chmod(0o600)
    environment = {
        **os.environ,
        "SIGNALWIRE_PROJECT_ID": "b08dacad-1111-4222-8333-444455556666",
        "SIGNALWIRE_API_TOKEN": "an-api-token-for-tests",
    }
    options = ("--tls", str(cert), str(key), "--stream-key-file", str(stream_key))
    command = ["simulate", "--provider-port", "0", "--demo", "--speed", "20"]
    with (
        running_receiver(tmp_path, *options) as receiver,
        subprocess.Popen(
            [sys.executable, "-m", "starter", *command, "--ca-file", str(ca)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as standin,
    ):
        assert standin.stdout is not None
        address = standin.stdout.readline().strip().removeprefix("listening http://")
        yield Provider({**environment, "SIGNALWIRE_SPACE": address}, receiver)
        standin.send_signal(signal.SIGINT)
        standin.wait(WAIT_SECONDS)


def decoded(file: Path) -> list[int]:
    """Return the samples of a mu-law WAV file by the reference table."""
    with soundfile.SoundFile(file) as wav:
        assert "ULAW" == wav.subtype
        codes = file.read_bytes()[-wav.frames :]
    return [MULAW[code] for code in codes]


def test_a_started_stream_is_recorded_sample_for_sample(provider: Provider) -> None:
    """What the provider plays is what the files hold, with the parameters of the request."""
    receiver = provider.receiver
    started = provider.starter(
        *("start", CALL_SID, "--url", receiver.url, "--name", "first", "--json"),
        *("--bearer-token-file", str(receiver.token_file)),
        *("--param", "agent=Jäne", "--param", "case=47=11"),
    )
    assert (0, "") == (started.returncode, started.stderr)
    handle = json.loads(started.stdout)
    folder, document = receiver.published()
    assert (handle["sid"], CALL_SID) == (document.stream_sid, document.call_sid)
    assert {"agent": "Jäne", "case": "47=11"} == document.parameters
    assert (EndReason.STOP, True) == (document.end_reason, document.complete)
    for track in ("inbound", "outbound"):
        samples, _ = soundfile.read(folder / f"{track}.wav", dtype="int16")
        assert decoded(DEMO / f"{track}.wav") == samples.tolist()


def test_a_stream_is_stopped_by_its_name(provider: Provider) -> None:
    """Stopping ends the recording early, as the provider's own stop."""
    receiver = provider.receiver
    bearer = ("--bearer-token-file", str(receiver.token_file))
    started = provider.starter("start", CALL_SID, "--url", receiver.url, "--name", "mine", *bearer)
    assert 0 == started.returncode
    receiver.wait_for("stream_started")
    stopped = provider.starter("stop", CALL_SID, "mine")
    assert (0, "") == (stopped.returncode, stopped.stderr)
    assert receiver.published()[1].end_reason is EndReason.STOP


def test_a_signed_token_opens_one_stream_of_its_call(tmp_path: Path, provider: Provider) -> None:
    """Minted by the starter, checked by the receiver, good once."""
    receiver = provider.receiver
    key = ("--stream-key-file", str(tmp_path / "stream-key"))
    started = provider.starter("start", CALL_SID, "--url", receiver.url, *key)
    assert 0 == started.returncode
    assert CALL_SID == receiver.published()[1].call_sid


def test_a_wrong_api_token_is_refused(provider: Provider) -> None:
    """One clear line and the exit code for refused."""
    provider.environment["SIGNALWIRE_API_TOKEN"] = "some-other-token"
    bearer = ("--bearer-token-file", str(provider.receiver.token_file))
    refused = provider.starter("start", CALL_SID, "--url", provider.receiver.url, *bearer)
    assert 4 == refused.returncode
    assert 1 == len(refused.stderr.splitlines())
    assert "some-other-token" not in refused.stderr + refused.stdout
