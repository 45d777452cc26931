"""One provider stream feeds consumers that were written for providers, unmodified."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import trustme

from tests.end_to_end import sender
from tests.end_to_end.media_server import Consumer, rest_of
from tests.end_to_end.receiver_process import (
    TOKEN,
    WAIT_SECONDS,
    ReceiverProcess,
    running_receiver,
)
from tests.end_to_end.taps import (
    TAP_TOKEN,
    secret_file,
    stopping_receiver,
    tapped_receiver,
    wait_for_sockets,
)
from tests.receiver.helpers.g711 import MULAW

CONSUMERS = Path(__file__).parent / "consumers"
CONSUMER_PYTHON = Path(sys.prefix).parent / ".venv-consumers" / "bin" / "python"
CODES = {"inbound": b"\x10" * 160, "outbound": b"\x90" * 160}
LONG_QUEUE = ("--tap-queue-seconds", "60")


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture
def consumer() -> Iterator[Consumer]:
    """Run a consumer."""
    running = Consumer()
    running.start()
    yield running
    running.stop()


def call_of(seconds: float) -> Iterator[str]:
    """Yield the media of both tracks."""
    for number in range(1, int(seconds * 50) + 1):
        for track, codes in CODES.items():
            yield sender.media(track, number, codes, sequence=2 * number)


def play(receiver: ReceiverProcess, **parameters: str) -> None:
    """Place a whole call of two seconds."""
    with sender.dial(receiver.url) as call:
        sender.send_call(call, [sender.connected(), sender.start(parameters), *call_of(2)])
        call.send(json.dumps({"event": "dtmf", "dtmf": {"digit": "5", "duration": 100}}))
        call.send(sender.stop())


def test_a_consumer_receives_what_the_provider_sends(tmp_path: Path, consumer: Consumer) -> None:
    """connected, start, media of both tracks, keys and stop, with a token of its own."""
    token = secret_file(tmp_path / "forward", "a-token-for-consumers")
    options = ("--forward", consumer.url, "--forward-token-file", str(token), *LONG_QUEUE)
    with stopping_receiver(tmp_path, *options) as receiver:
        play(receiver, FirstName="Jane")
        messages = rest_of(consumer.call())
    assert ["Bearer a-token-for-consumers"] == consumer.tokens
    sent = [sender.connected(), sender.start({"FirstName": "Jane"}), *call_of(2)]
    assert [json.loads(message) for message in sent] == messages[:-2]
    assert ["dtmf", "stop"] == [message["event"] for message in messages[-2:]]


def test_a_new_token_for_consumers_is_read_on_sighup(tmp_path: Path, consumer: Consumer) -> None:
    """A bad one leaves the old in force, and holds back none of the other secrets."""
    token = secret_file(tmp_path / "forward", "a-token-for-consumers")
    options = ("--forward", consumer.url, "--forward-token-file", str(token), *LONG_QUEUE)
    with stopping_receiver(tmp_path, *options) as receiver:
        for content, outcome in (("bad", "reload_failed"), ("another-for-consumers", "reloaded")):
            token.write_text(content)
            receiver.process.send_signal(signal.SIGHUP)
            while "forward token" != receiver.wait_for(outcome)["part"]:
                pass  # the other parts come first
            play(receiver)
            rest_of(consumer.call())
    assert ["Bearer a-token-for-consumers", "Bearer another-for-consumers"] == consumer.tokens


def test_a_burst_is_forwarded_whole(tmp_path: Path, consumer: Consumer) -> None:
    """What the network held back is longer than a queue, and comes at once with the end."""
    with stopping_receiver(tmp_path, "--forward", consumer.url) as receiver:
        with sender.dial(receiver.url) as call:
            sender.send_call(call, [sender.connected(), sender.start()])
            messages = consumer.call()
            sender.send_at_once(call, call_of(6))
            call.send(sender.stop())
        shapes = [message["event"] for message in rest_of(messages)]
    assert ["connected", "start", *["media"] * 600, "stop"] == shapes


def test_filters_choose_streams(tmp_path: Path, consumer: Consumer) -> None:
    """Each consumer gets the streams with the parameters that it names."""
    options = ("--forward", f"{consumer.url}#param.Queue=sales", *LONG_QUEUE)
    with stopping_receiver(tmp_path, *options) as receiver:
        for name in ("support", "sales"):
            play(receiver, Queue=name)
        messages = rest_of(consumer.call())
    assert {"Queue": "sales"} == messages[1]["start"]["customParameters"]
    assert consumer.calls.empty()


def test_a_consumer_of_one_track_gets_a_call_of_one_track(tmp_path: Path) -> None:
    """As a receiver of its own records it: complete, without a sign of the other party."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with stopping_receiver(second) as backup:
        token = ("--forward-token-file", str(second / "tokens"))
        url = f"{backup.url}#track=outbound&param.Case=7"
        with stopping_receiver(first, "--forward", url, *token, *LONG_QUEUE) as receiver:
            play(receiver, Case="8")
            play(receiver, Case="7")
            for _ in range(2):
                kept, _ = receiver.published()
            copied, document = backup.published()
    assert document.complete
    assert ({"Case": "7"}, ["outbound"]) == (
        document.parameters,
        [track.track.value for track in document.tracks],
    )
    original, copy = (soundfile.read(f / "outbound.wav", dtype="int16")[0] for f in (kept, copied))
    assert original.tolist() == copy.tolist()


def test_another_receiver_records_the_same(tmp_path: Path) -> None:
    """Forwarded to a second receiver, every sample and parameter arrives."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with stopping_receiver(second) as backup:
        token = ("--forward-token-file", str(second / "tokens"))
        with stopping_receiver(first, "--forward", backup.url, *token, *LONG_QUEUE) as receiver:
            play(receiver, Case="7")
            kept, _ = receiver.published()
            copied, document = backup.published()
    assert document.complete
    assert {"Case": "7"} == document.parameters
    for track in CODES:
        original, copy = (
            soundfile.read(f / f"{track}.wav", dtype="int16")[0] for f in (kept, copied)
        )
        assert original.tolist() == copy.tolist()


def test_a_consumer_that_was_down_joins_in_mid_call(tmp_path: Path) -> None:
    """It is tried again; then it gets connected and start, and the call from there on."""
    consumer = Consumer()
    with (
        stopping_receiver(tmp_path, "--forward", consumer.url, *LONG_QUEUE) as receiver,
        sender.dial(receiver.url) as call,
    ):
        sender.send_call(call, [sender.connected(), sender.start({"A": "b"}), *call_of(1)])
        receiver.wait_for("consumer_unreachable")
        consumer.start()
        messages = consumer.call()
        assert ["connected", "start"] == [
            (messages.get(timeout=WAIT_SECONDS) or {})["event"] for _ in range(2)
        ]
        call.send(sender.media("inbound", 51, CODES["inbound"]))
        call.send(sender.stop())
        last = rest_of(messages)
    assert ("51", "stop") == (last[0]["media"]["chunk"], last[-1]["event"])
    consumer.stop()


def test_a_consumer_that_fails_is_called_again(tmp_path: Path, consumer: Consumer) -> None:
    """Closing with an error is a failure; closing with 1000 means it has had enough."""
    with stopping_receiver(tmp_path, "--forward", consumer.url) as receiver:
        with sender.dial(receiver.url) as call:
            sender.send_call(call, [sender.connected(), sender.start()])
            consumer.call()
            consumer.sockets[0].close(1011, "a mistake")
            consumer.call()
            consumer.sockets[1].close(1000, "thank you")
            assert "1011 a mistake" == receiver.wait_for("consumer_closed")["reason"]
            assert "1000 thank you" == receiver.wait_for("consumer_closed")["reason"]
            call.send(sender.stop())
        assert receiver.published()[1].complete
    assert consumer.calls.empty()


def test_a_consumer_that_keeps_failing_is_called_less_often(
    tmp_path: Path, consumer: Consumer
) -> None:
    """It answers and breaks off at once: that is no success."""
    with (
        stopping_receiver(tmp_path, "--forward", consumer.url) as receiver,
        sender.dial(receiver.url) as call,
    ):
        sender.send_call(call, [sender.connected(), sender.start()])
        began = time.monotonic()
        for number in range(4):
            consumer.call()
            consumer.sockets[number].close(1011)
        assert 0.125 + 0.25 + 0.5 <= time.monotonic() - began


def test_a_consumer_that_does_not_read_harms_no_other(tmp_path: Path) -> None:
    """What it misses is dropped, and no message is added that the provider would not send."""
    raw = socket.create_server(("127.0.0.1", 0))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    url = f"ws://127.0.0.1:{raw.getsockname()[1]}/stuck"
    with raw, stopping_receiver(tmp_path, "--forward", url) as receiver:
        with sender.dial(receiver.url) as call:
            sender.send_call(call, [sender.connected(), sender.start()])
            sender.send_call(call, call_of(60))
            call.send(sender.stop())
        assert receiver.published()[1].complete


def test_bad_consumers_are_refused_at_the_start(tmp_path: Path) -> None:
    """Configuration errors: exit code 3 and one line."""
    for url in (
        "https://x/y",
        "ws://192.0.2.1/y",
        "wss://x/y#Queue=sales",
        "wss://x:y/",
        "wss://x#track=both",
    ):
        with stopping_receiver(tmp_path, "--forward", url) as receiver:
            assert 3 == receiver.ended()
            assert "Traceback" not in receiver.raw_log
            assert "consumer" in receiver.raw_log or "filter" in receiver.raw_log


def test_tls_all_the_way(tmp_path: Path) -> None:
    """A consumer behind wss, and `receiver listen` on that one's tap, with a real certificate."""
    authority = trustme.CA()
    ca, cert, key = (tmp_path / f"{name}.pem" for name in ("ca", "cert", "key"))
    authority.cert_pem.write_to_path(ca)
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    key.chmod(0o600)
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with tapped_receiver(second, "--tls", str(cert), str(key), *LONG_QUEUE) as backup:
        listen = [sys.executable, "-m", "receiver", "listen", sender.CALL_SID, "--wait", "20"]
        listen += ["--receiver", f"wss://127.0.0.1:{backup.port}", "--ca-file", str(ca)]
        listen += ["--token-file", str(second / "tap-tokens"), "--format", "pcm16"]
        listening = subprocess.Popen(listen, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for_sockets(backup, 1)
        options = ("--forward", backup.url, "--forward-token-file", str(second / "tokens"))
        trust = {"SSL_CERT_FILE": str(ca)}
        with running_receiver(first, *options, *LONG_QUEUE, environment=trust) as receiver:
            with sender.dial(receiver.url) as call:
                sender.send_call(call, [sender.connected(), sender.start()])
                backup.wait_for("stream_started")
                sender.send_call(call, call_of(2))
                call.send(sender.stop())
            assert backup.published()[1].complete
        received, complaint = listening.communicate(timeout=WAIT_SECONDS)
    assert (0, b"") == (listening.returncode, complaint)
    assert {MULAW[CODES["inbound"][0]]} == {*np.frombuffer(received, "<i2").tolist()}


def forward_command(receiver: ReceiverProcess, call: str, url: str, *options: str) -> list[str]:
    """Return `receiver forward` for a call of a tapped receiver."""
    command = [sys.executable, "-m", "receiver", "forward", call, url, *options]
    command += ["--receiver", f"ws://127.0.0.1:{receiver.port}"]
    return [*command, "--token-file", str(secret_file(receiver.folder / "token", TAP_TOKEN))]


def test_one_track_is_forwarded_by_command(tmp_path: Path, consumer: Consumer) -> None:
    """`receiver forward CALL_SID URL#track=outbound`."""
    with tapped_receiver(tmp_path, *LONG_QUEUE) as receiver:
        url = f"{consumer.url}#track=outbound"
        command = forward_command(receiver, sender.CALL_SID, url, "--wait", "20")
        with sender.dial(receiver.url) as call:
            sender.send_call(call, [sender.connected(), sender.start()])
            receiver.wait_for("stream_started")
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            messages = consumer.call()
            first = [messages.get(timeout=WAIT_SECONDS) or {} for _ in range(2)]
            sender.send_call(call, call_of(1))
            call.send(sender.stop())
        _, log = process.communicate(timeout=WAIT_SECONDS)
        *media, stop = rest_of(messages)
    assert 0 == process.returncode, log
    assert (["outbound"], "stop") == (first[1]["start"]["tracks"], stop["event"])
    sent = [json.loads(message)["media"] for message in call_of(1)]
    assert [one for one in sent if one["track"] == "outbound"] == [m["media"] for m in media]


def test_one_call_is_forwarded_by_command(tmp_path: Path, consumer: Consumer) -> None:
    """`receiver forward CALL_SID URL`, as if the consumer had been named before."""
    token = secret_file(tmp_path / "forward", TOKEN)
    with tapped_receiver(tmp_path, *LONG_QUEUE) as receiver:
        command = forward_command(
            receiver,
            sender.CALL_SID,
            consumer.url,
            *("--wait", "20", "--forward-token-file", str(token)),
        )
        with sender.dial(receiver.url) as call:
            sender.send_call(call, [sender.connected(), sender.start({"A": "b"})])
            receiver.wait_for("stream_started")
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            messages = consumer.call()
            assert ["connected", "start"] == [
                (messages.get(timeout=WAIT_SECONDS) or {})["event"] for _ in range(2)
            ]
            sender.send_call(call, call_of(1))
            call.send(sender.stop())
        _, log = process.communicate(timeout=WAIT_SECONDS)
        rest = rest_of(messages)
    assert 0 == process.returncode, log
    assert [*map(json.loads, call_of(1)), json.loads(sender.stop())] == rest
    assert [f"Bearer {TOKEN}"] == consumer.tokens


def test_an_unknown_call_is_not_forwarded(tmp_path: Path) -> None:
    """Exit code 5, one line."""
    with tapped_receiver(tmp_path) as receiver:
        for options in ((), ("--wait", "0.2")):
            command = forward_command(receiver, "nobody", "ws://127.0.0.1:9/x", *options)
            ended = subprocess.run(command, capture_output=True, text=True)
            assert (5, 1) == (ended.returncode, ended.stderr.count("\n")), ended.stderr


def test_a_consumer_that_was_never_there_is_an_error(tmp_path: Path) -> None:
    """Exit code 7 when the call has ended."""
    with tapped_receiver(tmp_path) as receiver:
        with sender.dial(receiver.url) as call:
            sender.send_call(call, [sender.connected(), sender.start()])
            receiver.wait_for("stream_started")
            command = forward_command(receiver, sender.CALL_SID, f"ws://127.0.0.1:{free_port()}/x")
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            assert process.stderr is not None
            assert "consumer_unreachable" in process.stderr.readline()
            call.send(sender.stop())
        _, log = process.communicate(timeout=WAIT_SECONDS)
    assert 7 == process.returncode
    assert "the consumer was not there at the end" in log


@contextlib.contextmanager
def killing(process: subprocess.Popen[str]) -> Iterator[None]:
    """End a process in any case."""
    try:
        yield
    finally:
        process.kill()


@pytest.mark.skipif(not CONSUMER_PYTHON.exists(), reason="no .venv-consumers: see .ci/run")
def test_pipecat_takes_a_forwarded_stream(tmp_path: Path) -> None:
    """Its server and its serializer, as they come from the registry, get both tracks."""
    port = free_port()
    server = subprocess.Popen(
        [CONSUMER_PYTHON, str(CONSUMERS / "pipecat_server.py"), str(port), "64000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    with server, killing(server):
        assert server.stdout is not None
        lines = iter(server.stdout)
        assert "ready" in next(line.strip() for line in lines if "ready" in line)
        with stopping_receiver(
            tmp_path, "--forward", f"ws://127.0.0.1:{port}/", *LONG_QUEUE
        ) as process:
            play(process)
            taken = next(json.loads(line) for line in lines if line.startswith("{"))
    audio = bytes.fromhex(taken["audio"])
    samples = [
        int.from_bytes(audio[n : n + 2], "little", signed=True) for n in range(0, len(audio), 2)
    ]
    expected = [MULAW[codes[0]] for codes in CODES.values() for _ in range(160)] * 100
    assert expected == samples
