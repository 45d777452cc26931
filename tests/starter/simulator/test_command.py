"""`starter simulate` as a command, in this process and in processes of its own."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jwt
import pytest
import soundfile

from starter.simulator.options import DEMO
from tests.bounds import at_most
from tests.starter.conftest import CALL_SID, Ran
from tests.starter.receivers import ReceiverDouble

pytestmark = pytest.mark.integration

TOKEN = "bearer-token-of-the-tests"
KEY = b"k" * 32
WAVS = Path(__file__).parents[2] / "cases" / "wav"

Starter = Callable[..., Ran]
SecretFile = Callable[..., Path]
WriteWav = Callable[..., Path]


def test_a_call_is_played_and_reported(
    starter: Starter, receiver: ReceiverDouble, write_wav: WriteWav, secret_file: SecretFile
) -> None:
    """Token, parameters and audio arrive, and a line reports what was sent."""
    ran = starter(
        *("simulate", f"{receiver.url}/audio", "--speed", 0, "--call-sid", "my-call"),
        *("--inbound", write_wav("in.wav", seconds=0.1), "--param", "größe=1=2"),
        *("--outbound", write_wav("out.wav", seconds=0.2), "--dtmf", "40:#", "--dtmf", "20:a"),
        *("--bearer-token-file", secret_file(TOKEN)),
    )
    received = receiver.next_stream()

    assert (
        "call my-call: inbound 5 sent, 0 lost, 0 duplicated, 0 reordered;"
        " outbound 10 sent, 0 lost, 0 duplicated, 0 reordered\n"
    ) == ran.out
    assert (0, "") == (ran.exit_code, ran.err)
    assert f"Bearer {TOKEN}" == received.authorization
    assert {"größe": "1=2"} == received.messages[1]["start"]["customParameters"]
    assert ["A", "#"] == [m["dtmf"]["digit"] for m in received.messages if "dtmf" in m]


def test_a_wav_file_from_a_pipe_is_played_whole(starter: Starter, receiver: ReceiverDouble) -> None:
    """Its writer left the sizes at 0; half a second of samples is there."""
    ran = starter("simulate", receiver.url, "--speed", 0, "--inbound", WAVS / "zero-sizes.wav")
    assert 0 == ran.exit_code
    assert 25 == len(receiver.next_stream().media("inbound"))


def test_a_wav_file_without_samples_is_one_clear_line(
    starter: Starter, receiver: ReceiverDouble
) -> None:
    """Nothing is sent."""
    ran = starter("simulate", receiver.url, "--inbound", WAVS / "no-data.wav")
    assert (6, "") == (ran.exit_code, ran.out)
    assert ran.err.endswith("no-data.wav has no samples: there is nothing to play\n")
    assert 1 == ran.err.count("\n")


def test_another_rate_is_played_on_request(
    starter: Starter, receiver: ReceiverDouble, write_wav: WriteWav
) -> None:
    """Without the option, the error names it."""
    command = ("simulate", receiver.url, "--speed", 0, "--inbound", write_wav(rate=44100))
    refused = starter(*command)
    assert 6 == refused.exit_code
    assert "--resample" in refused.err
    assert 0 == starter(*command, "--resample").exit_code
    assert 25 == len(receiver.next_stream().media("inbound"))


def test_many_calls_are_played_at_once(
    starter: Starter, receiver: ReceiverDouble, write_wav: WriteWav
) -> None:
    """Each with ids and chances of its own, the report in JSON."""
    ran = starter(
        *("simulate", receiver.url, "--speed", 0, "--inbound", write_wav(seconds=2)),
        *("--calls", 5, "--loss", 0.3, "--json", "--provider-shape", "twilio"),
    )
    calls = json.loads(ran.out)["calls"]
    received = [receiver.next_stream() for _ in calls]

    assert {call["call_sid"] for call in calls} == {
        one.messages[1]["start"]["callSid"] for one in received
    }
    assert 5 == len({call["stream_sid"] for call in calls})
    assert all(re.fullmatch("CA[0-9a-f]{32}", call["call_sid"]) for call in calls)
    assert {call["tracks"]["inbound"]["sent"] for call in calls} == {
        len(one.media("inbound")) for one in received
    }
    assert 1 < len({call["tracks"]["inbound"]["lost"] for call in calls})


def test_the_demo_is_a_conversation(starter: Starter, receiver: ReceiverDouble) -> None:
    """Both tracks of the packaged call are played in full."""
    ran = starter("simulate", receiver.url, "--demo", "--speed", 0)
    received = receiver.next_stream()

    assert 0 == ran.exit_code
    assert (1000, 1000) == (len(received.media("inbound")), len(received.media("outbound")))


@pytest.mark.parametrize("track", ["inbound", "outbound"])
def test_the_demo_files_are_small_mulaw(track: str) -> None:
    """About 20 s of 8 kHz mu-law, at most 200 kB, with speech and with pauses."""
    path = DEMO / f"{track}.wav"
    sound = soundfile.info(path)
    samples, _ = soundfile.read(path, dtype="int16")

    assert ("ULAW", 8000, 1) == (sound.subtype, sound.samplerate, sound.channels)
    assert 15 <= sound.duration <= 25
    assert path.stat().st_size <= 200_000
    assert abs(samples).max() > 8000
    assert 0.2 < (abs(samples) < 50).mean() < 0.95


def test_a_key_signs_one_token_per_call(
    starter: Starter, receiver: ReceiverDouble, write_wav: WriteWav, secret_file: SecretFile
) -> None:
    """Each token is for the call that it comes with."""
    starter(
        *("simulate", receiver.url, "--speed", 0, "--inbound", write_wav(), "--calls", 2),
        *("--stream-key-file", secret_file(KEY)),
    )
    for received in (receiver.next_stream(), receiver.next_stream()):
        token = (received.authorization or "").removeprefix("Bearer ")
        claims = jwt.decode(token, KEY, algorithms=["HS256"], audience="receiver")
        assert received.messages[1]["start"]["callSid"] == claims["sub"]


def test_a_receiver_that_talks_back_is_reported(
    starter: Starter,
    receiver: ReceiverDouble,
    write_wav: WriteWav,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A warning, because providers end such streams."""
    starter("simulate", f"{receiver.url}/talk", "--inbound", write_wav(seconds=0.2))

    assert "the receiver sent 1 messages back (31924)" in caplog.text


@pytest.mark.parametrize(
    ("path", "exit_code"), [("/refuse/401", 4), ("/refuse/404", 5), ("/refuse/503", 7)]
)
def test_a_refusal_is_one_line_and_an_exit_code(
    starter: Starter,
    receiver: ReceiverDouble,
    caplog: pytest.LogCaptureFixture,
    path: str,
    exit_code: int,
) -> None:
    """One line per failed call, the exit code of the first."""
    ran = starter("simulate", f"{receiver.url}{path}", "--demo", "--calls", 2)

    assert (exit_code, "", 1) == (ran.exit_code, ran.out, ran.err.count("\n"))
    assert 1 == sum(record.name.startswith("starter") for record in caplog.records)
    assert "the receiver refused the stream" in ran.err
    assert "the receiver refused the stream" in caplog.text


def test_nobody_there_ends_with_7(starter: Starter, unused_port: Callable[[], int]) -> None:
    """Unreachable."""
    ran = starter("simulate", f"ws://127.0.0.1:{unused_port()}", "--demo")
    assert (7, 1) == (ran.exit_code, ran.err.count("\n"))


@pytest.mark.parametrize(
    ("exit_code", "arguments", "why"),
    [
        (2, ["--demo"], "give either the receiver's URL or --provider-port"),
        (2, ["ws://x", "--demo", "--provider-port", "0"], "give either"),
        (2, ["http://x", "--demo"], "must be wss://HOST"),
        (2, ["wss://me:hunter22@x/", "--demo"], "must be wss://HOST"),
        (2, ["wss:///x", "--demo"], "must be wss://HOST"),
        (2, ["ws://x"], "or else --demo"),
        (2, ["ws://x", "--demo", "--inbound", __file__], "or else --demo"),
        (2, ["ws://x", "--inbound", "/nonexistent.wav"], "does not exist"),
        (2, ["ws://x", "--demo", "--calls", "2", "--call-sid", "x"], "names one call"),
        (2, ["--provider-port", "0", "--demo", "--calls", "2"], "go with a URL"),
        (2, ["ws://x", "--demo", "--loss", "1.5"], "--loss"),
        (2, ["ws://x", "--demo", "--dtmf", "5"], "expected AT_MS:DIGIT"),
        (2, ["ws://x", "--demo", "--dtmf", "5:x"], "expected AT_MS:DIGIT"),
        (2, ["ws://x", "--demo", "--codec", "OPUS"], "--codec"),
        (3, ["wss://x", "--demo", "--ca-file", __file__], "no usable certificate"),
        (3, ["wss://x", "--demo", "--ca-file", "/nonexistent"], "No such file"),
        (3, ["wss://x", "--demo", "--bearer-token-file", "/nonexistent"], "No such file"),
        (3, ["wss://x", "--demo", "--config", "/nonexistent"], "No such file"),
        (3, ["wss://x", "--demo", "--ca-file", "/"], "Is a directory"),
        (3, ["wss://x", "--demo", "--bearer-token-file", "/"], "Is a directory"),
        (3, ["--provider-port", "0", "--demo"], "SIGNALWIRE_PROJECT_ID"),
        (6, ["ws://x", "--inbound", __file__], "cannot be read as a WAV file"),
        (6, ["ws://x", "--demo", "--codec", "L16@16000h"], "has 8000 samples/s"),
    ],
)
def test_bad_input_gets_one_line_and_its_exit_code(
    starter: Starter, exit_code: int, arguments: list[str], why: str
) -> None:
    """Every mistake is reported before anything is dialled."""
    ran = starter("simulate", *arguments)

    assert (exit_code, "", 1) == (ran.exit_code, ran.out, ran.err.count("\n"))
    assert why in ran.err


@contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """`python -m starter simulate` as a process that is ended with the context."""
    process = subprocess.Popen(
        [sys.executable, "-m", "starter", "simulate", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_call_in_good_order(receiver: ReceiverDouble, number: int) -> None:
    """Stop and close are sent, what was sent is reported, and the exit code is that of Ctrl-C."""
    with started(receiver.url, "--demo") as process:
        assert receiver.media_arrived.wait(at_most(20))
        process.send_signal(number)
        out, err = process.communicate(timeout=at_most(20))
    received = receiver.next_stream()

    assert (130, "") == (process.returncode, err.strip())
    assert (["connected", "start", "media", "stop"], 1000) == (received.events, received.close_code)
    assert f"inbound {len(received.media('inbound'))} sent" in out


@pytest.mark.parametrize("more", [(), ("--conference",)])
@pytest.mark.usefixtures("account")
def test_the_whole_circle(
    starter: Starter,
    secure_receiver: ReceiverDouble,
    ca_file: Path,
    secret_file: SecretFile,
    monkeypatch: pytest.MonkeyPatch,
    *,
    more: tuple[str, ...],
) -> None:
    """`start` calls the simulated provider, which dials the receiver, until `stop` ends it."""
    with started("--provider-port", 0, "--demo", "--ca-file", ca_file) as provider:
        assert provider.stdout is not None
        space = provider.stdout.readline().removeprefix("listening ").strip()
        monkeypatch.setenv("SIGNALWIRE_SPACE", space)
        token = ("--bearer-token-file", secret_file(TOKEN))
        text = starter("start", CALL_SID, "--url", secure_receiver.url, *token, "--json", *more)
        handle = json.loads(text.out)
        assert secure_receiver.media_arrived.wait(at_most(20))
        stopped = starter("stop", CALL_SID, handle["name"], *more)
        line = provider.stdout.readline()
        provider.send_signal(signal.SIGINT)
        out, err = provider.communicate(timeout=at_most(20))
    received = secure_receiver.next_stream()

    assert f"stream {handle['sid']}: stopped, name {handle['name']}\n" == stopped.out
    assert f"Bearer {TOKEN}" == received.authorization
    assert handle["sid"] == received.messages[1]["start"]["streamSid"]
    assert "stop" == received.events[-1]
    assert f"inbound {len(received.media('inbound'))} sent" in line
    assert (0, "", "") == (provider.returncode, out, err)


@pytest.mark.usefixtures("account")
def test_the_simulated_provider_does_not_start_without_its_authorities() -> None:
    """A CA file that is not there is line at once, not when a stream is to be dialled."""
    with started("--provider-port", 0, "--demo", "--ca-file", "/nonexistent") as provider:
        out, err = provider.communicate(timeout=at_most(20))

    assert (3, "") == (provider.returncode, out)
    assert "starter: /nonexistent cannot be read: No such file or directory\n" == err


@pytest.mark.usefixtures("account")
def test_the_simulated_provider_reports_failures_and_goes_on(
    starter: Starter,
    unused_port: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stream that cannot be dialled is a line on stderr; reports can be JSON."""
    with started("--provider-port", 0, "--demo", "--json", "--insecure") as provider:
        assert provider.stdout is not None
        assert provider.stderr is not None
        space = provider.stdout.readline().removeprefix("listening ").strip()
        monkeypatch.setenv("SIGNALWIRE_SPACE", space)
        url = f"wss://127.0.0.1:{unused_port()}/"
        ran = starter("start", CALL_SID, "--url", url, "--name", "lost")
        line = provider.stderr.readline()
        provider.send_signal(signal.SIGTERM)
        provider.communicate(timeout=at_most(20))

    assert ran.out.endswith(": queued, name lost\n")
    assert f"starter stop {CALL_SID} " in ran.err
    assert f"no stream to {url}" in line
    assert 0 == provider.returncode


@pytest.mark.usefixtures("account")
def test_the_simulated_provider_goes_on_when_its_reports_are_not_read(
    starter: Starter,
    secure_receiver: ReceiverDouble,
    ca_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`| head -1` is a fair way to read the address."""
    with started("--provider-port", 0, "--demo", "--json", "--ca-file", ca_file) as provider:
        assert provider.stdout is not None
        space = provider.stdout.readline().removeprefix("listening ").strip()
        monkeypatch.setenv("SIGNALWIRE_SPACE", space)
        provider.stdout.close()
        for name in ("first", "second"):
            starter("start", CALL_SID, "--url", secure_receiver.url, "--name", name)
            starter("stop", CALL_SID, name)
            assert "stop" == secure_receiver.next_stream().events[-1]
        provider.send_signal(signal.SIGINT)
        assert provider.stderr is not None
        err = provider.stderr.read()

    assert (0, "") == (provider.returncode, err)
