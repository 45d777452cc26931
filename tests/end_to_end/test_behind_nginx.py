"""The receiver behind a real nginx: with the site in `deploy/`, and with one that is wrong."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.bounds import at_most
from tests.end_to_end import sender, taps
from tests.end_to_end.receiver_process import TOKEN, WAIT_SECONDS, ReceiverProcess

pytestmark = [pytest.mark.integration, pytest.mark.needs("nginx")]

SITE = Path(__file__).parent.parent.parent / "deploy/nginx.conf"
BEHIND = ("--behind-proxy", "--trusted-proxy", "127.0.0.1")
CALLER = "127.0.0.2"
"""Linux answers to all of 127.0.0.0/8, so a caller here can have another address than nginx."""
AUDIO = b"\x10" * 160
MAIN = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 64; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {site}
}}
"""


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextlib.contextmanager
def nginx(folder: Path, receiver: ReceiverProcess, *, without: str = "") -> Iterator[str]:
    """Run nginx with our site, and yield HOST:PORT; lines that match `without` are left out."""
    pair, port = AUTHORITY.issue_cert("localhost"), free_port()
    pair.private_key_and_cert_chain_pem.write_to_path(folder / "pair.pem")
    site = re.sub(
        r"ssl_certificate(_key)? .*;", rf"ssl_certificate\1 {folder}/pair.pem;", SITE.read_text()
    )
    site = site.replace("listen 443", f"listen 127.0.0.1:{port}").replace(
        "8443", str(receiver.port)
    )
    if without:
        site = "".join(line for line in site.splitlines(True) if not re.search(without, line))
    settings = folder / "nginx.conf"
    settings.write_text(MAIN.format(folder=folder, site=site))
    command = ("nginx", "-p", str(folder), "-c", str(settings), "-e", "stderr")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until_listening(port, process)
            yield f"localhost:{port}"
        finally:
            process.terminate()
            process.communicate(timeout=WAIT_SECONDS)


def wait_until_listening(port: int, process: subprocess.Popen[str]) -> None:
    """Return when a port can be connected to; nginx does not say when."""
    deadline = time.monotonic() + at_most(20)
    while time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    raise AssertionError("nginx does not listen")


AUTHORITY = trustme.CA()


def trusting() -> ssl.SSLContext:
    """Return what a client trusts."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def dial(url: str, *, token: str = TOKEN, address: str = CALLER) -> ClientConnection:
    """Connect from an address, and claim another one."""
    headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": "192.0.2.1"}
    return connect(
        url,
        additional_headers=headers,
        compression=None,
        ssl=trusting() if url.startswith("wss") else None,
        proxy=None,
        source_address=(address, 0),
        legacy=True,  # no `with` yet
    )


def get(url: str) -> tuple[int, str]:
    """Return status and body."""
    request = urllib.request.Request(url, headers=taps.BEARER)  # noqa: S310  https
    with urllib.request.urlopen(request, context=trusting()) as answer:  # noqa: S310  https
        return answer.status, answer.read().decode()


def test_streams_and_taps_go_through_the_site(tmp_path: Path) -> None:
    """With the caller's own address, whatever it claims to be."""
    with (
        taps.tapped_receiver(tmp_path, *BEHIND) as receiver,
        nginx(tmp_path, receiver) as place,
    ):
        assert (200, "ready\n") == get(f"https://{place}/readyz")
        assert (200, "[]\n") == get(f"https://{place}/tap")
        with dial(f"wss://{place}/audio") as call:
            call.send(sender.start())
            assert CALLER == receiver.wait_for("stream_started")["remote_address"]
            url = f"wss://{place}/tap/{sender.CALL_SID}?format=messages"
            with dial(url, token=taps.TAP_TOKEN) as listener:
                assert "connected" == taps.read_event(listener)["event"]
                sender.send_call(call, [sender.media("inbound", 1, AUDIO), sender.stop()])
                events = [taps.read_event(listener)["event"] for _ in range(3)]
        assert ["start", "media", "stop"] == events
        assert receiver.published()[1].complete


def test_nobody_else_can_name_the_caller(tmp_path: Path) -> None:
    """A caller that reaches the receiver itself has the address that it has."""
    with taps.tapped_receiver(tmp_path, *BEHIND) as receiver:
        with dial(receiver.url) as call:
            call.send(sender.start())
            assert CALLER == receiver.wait_for("stream_started")["remote_address"]
            call.send(sender.stop())
        receiver.published()


@pytest.mark.parametrize(
    ("without", "status", "detail"),
    [
        ("Upgrade|Connection", 426, "the upgrade headers are missing: is a proxy in front"),
        ("Upgrade|Connection|http_version", 505, "HTTP/1.0 opens no WebSocket: is a proxy in fr"),
    ],
)
def test_a_site_that_passes_no_upgrade_on_is_named(
    tmp_path: Path, without: str, status: int, detail: str
) -> None:
    """To the caller, and in the log with the caller's address."""
    without = rf"proxy_(set_header )?({without})"
    with (
        taps.tapped_receiver(tmp_path, *BEHIND) as receiver,
        nginx(tmp_path, receiver, without=without) as place,
    ):
        with pytest.raises(InvalidStatus) as refused, dial(f"wss://{place}/audio"):
            pass
        line = receiver.wait_for("handshake_refused")
    assert status == refused.value.response.status_code
    assert (CALLER, "bad_request") == (line["remote_address"], line["reason"])
    assert detail in line["detail"]
