"""Who may stream: signed tokens that open one call once, and secrets that appear nowhere."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from receiver.auth import credentials
from receiver.config.settings import Config
from receiver.errors import ConfigurationError
from starter.errors import ConfigError
from starter.tokens import key_from_file
from tests.bounds import at_most
from tests.end_to_end import sender
from tests.end_to_end.receiver_process import TOKEN, ReceiverProcess, running_receiver

KEY = "canary-key-" + "k" * 40
KEY_ID = hashlib.sha256(KEY.encode()).hexdigest()[:8]


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A file that holds the key that signs stream tokens."""
    file = tmp_path / "stream-key"
    file.write_text(KEY + "\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def receiver(tmp_path: Path, key_file: Path) -> Iterator[ReceiverProcess]:
    """Run a receiver that accepts signed tokens."""
    with running_receiver(tmp_path, "--stream-key-file", str(key_file)) as process:
        yield process


@pytest.mark.parametrize(
    "content",
    [
        *(b"k" * 31, b"# none\n", bytes(range(40)), b"k" * 40 + b"\x80", "ü".encode() * 32),
        *(b"k" * 32 + between + b"k" * 32 for between in (b" ", b"\t", b"\v", b"\x0c", b"\x1c")),
    ],
)
def test_both_sides_refuse_the_same_key_files(key_file: Path, content: bytes) -> None:
    """No token is minted that the receiver would never accept."""
    key_file.write_bytes(content)
    with pytest.raises(ConfigurationError):
        credentials.stream_tokens(Config(stream_key_file=key_file))
    with pytest.raises(ConfigError):
        key_from_file(key_file)


def minted(*, key: str = KEY, algorithm: str = "HS256", kid: str = KEY_ID, **claims: Any) -> str:
    """Return a token for the sender's call, good for a minute, with these fields replaced."""
    usual = {
        "sub": sender.CALL_SID,
        "aud": "receiver",
        "exp": time.time() + 60,
        "jti": str(time.perf_counter_ns()),
    }
    wanted = {name: value for name, value in (usual | claims).items() if value is not None}
    return jwt.encode(wanted, key if algorithm != "none" else "", algorithm, headers={"kid": kid})


def status(receiver: ReceiverProcess, token: str) -> int:
    """Return the status with which an upgrade is answered."""
    try:
        with sender.dial(receiver.url, token=token):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def test_a_signed_token_opens_its_call_once(receiver: ReceiverProcess) -> None:
    """The same token again is refused."""
    token = minted()
    with sender.dial(receiver.url, token=token) as stream:
        sender.send_call(stream, [sender.start(), sender.media("inbound", 1, bytes(160))])
        stream.send(sender.stop())
        assert sender.CALL_SID == receiver.published()[1].call_sid
    assert 401 == status(receiver, token)


def test_only_an_upgrade_uses_a_token_up(tmp_path: Path, key_file: Path) -> None:
    """Somebody who tries the address with curl does not spoil the call."""
    token = minted()
    options = ("--stream-key-file", str(key_file))
    with running_receiver(tmp_path, *options) as receiver:
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
        for wrong, answer in (({}, 426), (upgrade, 400)):
            assert answer == plain_get(receiver, {"Authorization": f"Bearer {token}", **wrong})
        assert [101, 401] == [status(receiver, token) for _ in range(2)]
        assert 401 == plain_get(receiver, {"Authorization": "Bearer wrong"})


def plain_get(receiver: ReceiverProcess, headers: dict[str, str]) -> int:
    """Return the status of a request that is no proper WebSocket handshake."""
    connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=at_most(10))
    with contextlib.closing(connection):
        connection.request("GET", "/audio", headers=headers)
        return connection.getresponse().status


NOT_QUITE: list[dict[str, Any]] = [
    {"exp": 1_000_000_000},
    {"exp": None},
    {"jti": None},
    {"sub": None},
    {"aud": "tap"},
    {"aud": None},
    {"kid": "00000000"},
    {"key": "another-key-" + "x" * 40},
    {"algorithm": "none"},
    {"algorithm": "HS384"},
    {"exp": "soon"},
]


def test_what_is_not_quite_a_token_is_refused(receiver: ReceiverProcess) -> None:
    """Expired, for another audience, by another key or algorithm, or without a claim: 401."""

    def answer(wrong: dict[str, Any]) -> int:
        try:
            token = minted(**wrong)
        except TypeError:  # PyJWT does not even mint an expiry that is no number
            token = ".".join(("e30", "e30", "e30"))
        return status(receiver, token)

    assert [(wrong, 401) for wrong in NOT_QUITE] == [(wrong, answer(wrong)) for wrong in NOT_QUITE]
    assert 101 == status(receiver, minted())


def test_clocks_may_be_a_minute_apart(receiver: ReceiverProcess) -> None:
    """A token that expired half a minute ago by our clock is still good."""
    assert 101 == status(receiver, minted(exp=time.time() - 30))


def test_of_twenty_at_once_one_gets_in(receiver: ReceiverProcess) -> None:
    """A replay in the same millisecond is a replay."""
    token = minted()
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: status(receiver, token), range(20)))
    assert (1, 19) == (answers.count(101), answers.count(401))


def test_of_many_tokens_at_once_no_more_get_in_than_there_are_places(
    tmp_path: Path, key_file: Path
) -> None:
    """Each has its place, or none, before the disk is asked about its token."""
    limits = ("--max-streams", "3", "--max-waiting-per-address", "100")
    options = ("--stream-key-file", str(key_file), *limits)
    with running_receiver(tmp_path, *options) as receiver, contextlib.ExitStack() as stack:
        address = ("127.0.0.1", receiver.port)
        callers = [stack.enter_context(socket.create_connection(address, 10)) for _ in range(20)]
        for caller in callers:
            caller.sendall(upgrade(b"Authorization: Bearer " + minted().encode() + b"\r\n"))
        answers = [caller.recv(65_536)[9:12] for caller in callers]
        assert (3, 17) == (answers.count(b"101"), answers.count(b"503"))


def test_single_use_holds_across_restarts(tmp_path: Path, key_file: Path) -> None:
    """Also after a kill."""
    token = minted()
    options = ("--stream-key-file", str(key_file))
    with running_receiver(tmp_path, *options) as first:
        assert 101 == status(first, token)
        first.process.kill()
        first.ended()
    with running_receiver(tmp_path, *options) as second:
        assert 401 == status(second, token)


def test_a_token_for_another_call_keeps_nothing(receiver: ReceiverProcess) -> None:
    """Only `start` shows it: the socket closes with 1008 and no recording is made."""
    token = minted(sub="11111111-2222-4333-8444-555555555555")
    with sender.dial(receiver.url, token=token) as stream:
        sender.send_call(stream, [sender.media("inbound", 1, bytes(160)), sender.start()])
        with pytest.raises(ConnectionClosed) as closed:
            stream.recv(timeout=at_most(10))
    assert closed.value.rcvd is not None
    assert 1008 == closed.value.rcvd.code
    assert 0 == receiver.stop()
    assert [] == list(receiver.recordings.rglob("recording.json"))
    assert [] == list(receiver.spool.glob("*.journal"))


def test_a_kill_does_not_make_public_what_a_token_is_not_for(
    tmp_path: Path, key_file: Path
) -> None:
    """Audio that no start message has claimed goes at the next start, too."""
    options = ("--stream-key-file", str(key_file))
    with running_receiver(tmp_path, *options) as first:
        with sender.dial(first.url, token=minted()) as stream:
            sender.send_call(stream, [sender.media("inbound", 1, bytes(160))])
            while not any(path.stat().st_size > 200 for path in first.spool.glob("*.journal")):
                stream.ping().wait(0.05)
            first.process.kill()
        first.ended()
    with running_receiver(tmp_path, *options) as second:
        assert "no start message" in second.wait_for("journal_discarded")["reason"]
        assert [] == list(second.recordings.rglob("recording.json"))
        assert [] == list(second.spool.rglob("*.journal"))


def upgrade(authorization: bytes) -> bytes:
    """Return an upgrade request with these header lines."""
    return (
        b"GET /audio HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        + authorization
        + b"\r\n"
    )


def raw_exchange(receiver: ReceiverProcess, authorization: bytes) -> bytes:
    """Send an upgrade request as it stands and return the answer."""
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=at_most(10)) as tcp:
        tcp.sendall(upgrade(authorization))
        return tcp.recv(65_536)


def test_no_secret_appears_anywhere(tmp_path: Path, key_file: Path) -> None:
    """Not in any log, at the level debug, nor in an answer or a file, used or refused."""
    canary = "canary-wrong-token-1234567890"
    options = ("--stream-key-file", str(key_file))
    with running_receiver(tmp_path, *options, "--log-level", "debug") as receiver:
        signed = minted()
        answers = [
            raw_exchange(receiver, b"Authorization: Bearer " + canary.encode() + b"\r\n"),
            raw_exchange(receiver, b"authorization:   bEaReR " + canary.encode() + b"\r\n"),
            raw_exchange(receiver, b"Authorization: " + canary.encode() + b"\r\n"),
            raw_exchange(receiver, (b"Authorization: Bearer " + canary.encode() + b"\r\n") * 2),
            raw_exchange(receiver, b"Authorization: Basic " + canary.encode() * 600 + b"\r\n"),
            raw_exchange(receiver, b"Authorization: Bearer " + signed.encode()[:-2] + b"\r\n"),
        ]
        for token in (TOKEN, signed):
            with sender.dial(receiver.url, token=token) as stream:
                sender.send_call(stream, [sender.start(), sender.stop()])
                receiver.published()
        receiver.process.send_signal(signal.SIGHUP)
        receiver.wait_for("reloaded")
        assert 0 == receiver.stop()
    assert all(answer.startswith(b"HTTP/1.1 401 ") for answer in answers)
    assert all(b"WWW-Authenticate: Bearer" in answer for answer in answers)
    files = b"".join(path.read_bytes() for path in receiver.recordings.rglob("*") if path.is_file())
    outputs = receiver.raw_log.encode() + b"".join(answers) + files
    for secret in (canary, TOKEN, KEY, signed, signed[:-2]):
        assert secret.encode() not in outputs
    assert b"handshake_refused" in outputs
