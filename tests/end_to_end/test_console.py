"""The console as processes: by itself, and beside a receiver that keeps it alive."""

from __future__ import annotations

import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Final

import httpx
import pytest

import receiver as package
from receiver.catalogue.database import open_database
from receiver.console.accounts import Accounts, ApiTokens
from receiver.console.who import Role
from tests.bounds import at_most
from tests.end_to_end.console_process import children_of, console_line, is_healthy
from tests.end_to_end.receiver_process import ReceiverProcess

WAIT_SECONDS: Final = at_most(60)


def test_a_console_by_itself_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    """It prints where, and has a certificate of its own."""
    command = (sys.executable, "-m", "receiver", "console", "--self-signed", "--console-port", "0")
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert re.fullmatch(r"console https://127\.0\.0\.1:\d+/\n", line)
        trust = ssl.create_default_context(cafile=tmp_path / ".tapreel" / "certificate.pem")
        url = line.split()[1]
        assert 200 == httpx.get(f"{url}login", verify=trust, timeout=WAIT_SECONDS).status_code
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=WAIT_SECONDS)
        assert 0 == process.returncode
        assert "Traceback" not in errors


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_receiver_keeps_its_console_alive(tmp_path: Path, workers: str) -> None:
    """Killed, it is there again, where people look for it; it ends with the receiver."""
    options = ("--console", "--console-port", "0", "--workers", workers)
    receiver = ReceiverProcess(tmp_path, *options)
    try:
        assert receiver.listening.startswith("listening ws://")
        url = console_line(receiver)
        assert is_healthy(url)
        (console,) = children_of(receiver.process.pid)
        os.kill(console, signal.SIGKILL)
        assert "console" == receiver.wait_for("child_died")["child"]
        assert url == console_line(receiver)
        assert is_healthy(url)
        assert 0 == receiver.stop(signal.SIGINT)
        assert not is_healthy(url)
        assert "Traceback" not in receiver.raw_log
    finally:
        receiver.release()


def test_a_console_comes_back_after_an_upgrade_under_a_running_receiver(tmp_path: Path) -> None:
    """It runs the code on disk, whose settings are others in another order than the receiver's."""
    code = tmp_path / "receiver"
    shutil.copytree(Path(package.__file__).parent, code)
    receiver = ReceiverProcess(tmp_path, "--console", "--console-port", "0")
    try:
        assert is_healthy(console_line(receiver))
        settings = code / "config" / "settings.py"
        first = '    host: Annotated[str, TEXT, "address to listen on"] = "127.0.0.1"\n'
        gone = '    demo: Annotated[bool, SWITCH, "generate a token and place one demo call"] ='
        text = settings.read_text()
        assert first in text
        assert gone in text
        text = text.replace(first, f'    colour: Annotated[str, TEXT, "new"] = "green"\n{first}')
        settings.write_text(text.replace(gone, "    demo ="))
        (console,) = children_of(receiver.process.pid)
        os.kill(console, signal.SIGKILL)
        assert ["demo"] == receiver.wait_for("settings_ignored")["names"]
        assert is_healthy(console_line(receiver))
        assert 0 == receiver.stop(signal.SIGINT)
        assert "Traceback" not in receiver.raw_log
    finally:
        receiver.release()


def test_a_console_ends_when_its_receiver_is_killed(tmp_path: Path) -> None:
    """Nobody is left who would hold the port at the next start."""
    receiver = ReceiverProcess(tmp_path, "--console", "--console-port", "0")
    try:
        url = console_line(receiver)
        assert is_healthy(url)
        receiver.process.kill()
        deadline = time.monotonic() + WAIT_SECONDS
        while is_healthy(url):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        receiver.release()


def test_a_console_that_cannot_start_costs_no_receiver_its_start(tmp_path: Path) -> None:
    """A taken port is logged, and tried again."""
    receiver = ReceiverProcess(tmp_path, "--console", "--console-port", "0")
    try:
        port = console_line(receiver).rsplit(":", 1)[1].strip("/")
        (tmp_path / "other").mkdir()
        other = ReceiverProcess(tmp_path / "other", "--console", "--console-port", port)
        try:
            assert "already in use" in other.wait_for("child_refused")["problem"]
            assert other.process.poll() is None
            assert 0 == other.stop(signal.SIGINT)
        finally:
            other.release()
    finally:
        receiver.release()


def test_the_demo_prints_a_link_that_signs_in(tmp_path: Path) -> None:
    """Once: its code is behind "#", and the page sends it."""
    options = ("--self-signed", "--demo", "--console", "--console-port", "0")
    receiver = ReceiverProcess(tmp_path, *options, token_file=False)
    try:
        url, link = console_line(receiver), console_line(receiver)
        assert link.startswith(f"{url}login#")
        trust = ssl.create_default_context(cafile=tmp_path / ".tapreel" / "certificate.pem")
        with httpx.Client(base_url=url, verify=trust, timeout=WAIT_SECONDS) as browser:
            code = {"code": link.partition("#")[2]}
            answer = browser.post("/login/code", data=code)
            assert 303 == answer.status_code
            assert {"Secure", "HttpOnly"} <= set(answer.headers["set-cookie"].split("; "))
            assert browser.get("/.json").json()["may"]["hear"]
            assert 200 == browser.get("/users.json").status_code
            assert 401 == browser.post("/login/code", data=code).status_code
        assert 0 == receiver.stop(signal.SIGINT)
        assert "Traceback" not in receiver.raw_log
    finally:
        receiver.release()


@pytest.mark.parametrize("options", [("--workers", "3"), ("--self-signed",)])
def test_a_console_shows_the_calls_of_every_worker(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Behind whatever certificate; and a token of the receiver's making opens no stream."""
    receiver = ReceiverProcess(tmp_path, "--console", "--console-port", "0", *options)
    try:
        url = console_line(receiver)
        receiver.recordings.mkdir(exist_ok=True)
        with closing(open_database(None, receiver.recordings)) as database:
            accounts = Accounts(database)
            accounts.add("ada", Role.ADMIN, {})
            token, _ = ApiTokens(database).make("ada")
        headers = {"Authorization": f"Bearer {token}"}
        trust: ssl.SSLContext | bool = True
        more: tuple[str, ...] = ()
        if "--self-signed" in options:
            certificate = tmp_path / ".tapreel" / "certificate.pem"
            trust = ssl.create_default_context(cafile=certificate)
            more = ("--ca-file", str(certificate))
        command = (
            *(sys.executable, "-m", "starter", "simulate", receiver.url, "--calls", "6"),
            *("--demo", "--bearer-token-file", str(receiver.token_file), *more),
        )
        with (
            httpx.Client(base_url=url, headers=headers, timeout=WAIT_SECONDS, verify=trust) as ada,
            subprocess.Popen(command, stdout=subprocess.DEVNULL) as calls,
        ):
            until = time.monotonic() + WAIT_SECONDS
            while len(found := ada.get("/.json").json()["calls"]) < 6:
                assert time.monotonic() < until, found
            assert 6 == len({call["id"] for call in found})
            assert [] == ada.get("/.json").json()["problems"]
            calls.terminate()
        assert receiver.stop(signal.SIGINT) == 0
    finally:
        receiver.release()
