"""`starter start`, `stop` and `token`, without a provider."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest

from starter.commands import show_handle
from starter.models import StreamHandle
from tests.starter.conftest import API_TOKEN, CALL_SID, PROJECT_ID, Ran

URL = "wss://rec.example.com/audio"
TOKEN = "bearer-token-of-the-tests"
KEY = b"k" * 32
ADDRESS = f"https://example.signalwire.com/api/laml/2010-04-01/Accounts/{PROJECT_ID}"

Starter = Callable[..., Ran]
SecretFile = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("account")


def test_a_dry_run_shows_the_request(starter: Starter, secret_file: SecretFile) -> None:
    """Address and form are there, the secrets are not, and nothing is sent."""
    ran = starter(
        *("start", CALL_SID, "--url", URL, "--name", "mine", "--track", "inbound_track"),
        *("--param", "FirstName=Jané", "--param", "x=a=b", "--dry-run"),
        *("--bearer-token-file", secret_file(TOKEN), "--status-callback", "https://h.example/e"),
    )

    assert [
        f"POST {ADDRESS}/Calls/{CALL_SID}/Streams",
        "Authorization: Basic ***",
        f"Url={URL}",
        "Track=inbound_track",
        "Name=mine",
        "StatusCallback=https://h.example/e",
        "StatusCallbackMethod=POST",
        "AuthorizationBearerToken=***",
        "Parameter1.Name=FirstName",
        "Parameter1.Value=Jané",
        "Parameter2.Name=x",
        "Parameter2.Value=a=b",
    ] == ran.out.splitlines()
    assert 0 == ran.exit_code


def test_a_dry_run_in_json(starter: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Conference settings, and the token from the environment, masked."""
    monkeypatch.setenv("TAPREEL_TOKENS", TOKEN)
    monkeypatch.delenv("SIGNALWIRE_API_TOKEN")
    ran = starter(
        *("start", CALL_SID, "--url", URL, "--conference", "--codec", "L16@24000h"),
        *("--no-real-time", "--dry-run", "--json"),
    )
    request = json.loads(ran.out)

    assert f"{ADDRESS}/Conferences/{CALL_SID}/Streams" == request["url"]
    assert ("L16@24000h", "false", "***") == (
        request["form"]["StreamCodec"],
        request["form"]["StreamRealTime"],
        request["form"]["AuthorizationBearerToken"],
    )
    assert request["form"]["Name"].startswith("tapreel-")


def test_settings_join_in(
    starter: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no flag sets comes from environment and file."""
    config = tmp_path / "tapreel.toml"
    config.write_text(f'[starter]\nurl = "{URL}"\ntrack = "both_tracks"\n')
    monkeypatch.setenv("TAPREEL_TRACK", "outbound_track")
    ran = starter("start", CALL_SID, "--config", config, "--dry-run", "--json")

    assert (URL, "outbound_track") == (
        json.loads(ran.out)["form"]["Url"],
        json.loads(ran.out)["form"]["Track"],
    )


def test_a_stream_key_signs_a_token_for_the_call(starter: Starter, secret_file: SecretFile) -> None:
    """`start` with a key sends a token, which the dry run masks."""
    ran = starter(
        *("start", CALL_SID, "--url", URL, "--stream-key-file", secret_file(KEY), "--dry-run")
    )
    assert "AuthorizationBearerToken=***" in ran.out


def test_token_prints_a_signed_token(starter: Starter, secret_file: SecretFile) -> None:
    """On stdout is the token alone, valid for the call that was named."""
    ran = starter("token", CALL_SID, "--stream-key-file", secret_file(KEY), "--ttl", "60")
    claims = jwt.decode(ran.out.strip(), KEY, algorithms=["HS256"], audience="receiver")

    assert CALL_SID == claims["sub"]


@pytest.mark.parametrize(
    ("exit_code", "arguments", "why"),
    [
        (2, ["start", CALL_SID], "no --url"),
        (2, ["start"], "Missing argument"),
        (2, ["start", CALL_SID, "--url", URL, "--track", "both"], "Invalid value for '--track'"),
        (2, ["start", CALL_SID, "--url", URL, "--param", "x"], "expected K=V"),
        (2, [], "Missing command"),
        (2, ["begin"], "No such command"),
        (3, ["start", CALL_SID, "--url", URL, "--config", "/nonexistent"], "No such file"),
        (3, ["start", CALL_SID, "--url", URL, "--bearer-token-file", "/nonexistent"], "No such"),
        (3, ["start", CALL_SID, "--url", URL, "--bearer-token-file", "/"], "Is a directory"),
        (3, ["start", CALL_SID, "--url", URL, "--stream-key-file", "/"], "Is a directory"),
        (3, ["stop", CALL_SID, "s-1", "--config", "/"], "Is a directory"),
        (3, ["token", CALL_SID, "--stream-key-file", "/"], "Is a directory"),
        (3, ["token", CALL_SID], "no stream key"),
        (6, ["start", "x", "--url", URL], "the call sid 'x' is no sid"),
        (6, ["start", CALL_SID, "--url", "ws://x.example"], "must be wss"),
        (6, ["start", CALL_SID, "--url", f"{URL}?x=1"], "has a query"),
        (6, ["start", CALL_SID, "--url", URL, "--name", ""], "name is empty"),
        (6, ["start", CALL_SID, "--url", URL, "--param", "=x"], "no name"),
        (6, ["start", CALL_SID, "--url", URL, *["--param", "a=1"] * 2], "given twice"),
        (6, ["start", CALL_SID, "--url", URL, "--codec", "L16"], "conferences only"),
        (6, ["start", CALL_SID, "--url", URL, "--status-callback", "x"], "status callback"),
        (6, ["stop", "x", "s-1"], "the call sid"),
        (6, ["stop", CALL_SID, ".."], "dots only"),
        (6, ["stop", "x", "s-1", "--conference"], "the conference sid"),
        (6, ["token", "x"], "the call sid"),
    ],
)
def test_bad_input_gets_one_line_and_its_exit_code(
    starter: Starter, exit_code: int, arguments: list[str], why: str
) -> None:
    """Every mistake is one line on stderr, and nothing is on stdout."""
    ran = starter(*arguments)

    assert exit_code == ran.exit_code
    assert why in ran.err
    assert ran.err.startswith("starter: ")
    assert 1 == ran.err.count("\n")
    assert not ran.out


def test_missing_credentials_are_named(starter: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 3 and the names of what is to be set."""
    monkeypatch.delenv("SIGNALWIRE_API_TOKEN")
    ran = starter("stop", CALL_SID, "s-1")

    assert (3, "starter: not set: SIGNALWIRE_API_TOKEN\n") == (ran.exit_code, ran.err)


def test_an_open_token_file_is_refused(starter: Starter, secret_file: SecretFile) -> None:
    """Exit code 3 and what to do about it."""
    path = secret_file(TOKEN, mode=0o644)
    ran = starter("start", CALL_SID, "--url", URL, "--bearer-token-file", path, "--dry-run")

    assert 3 == ran.exit_code
    assert f"starter: {path} can be read by others: run chmod 600 {path}\n" == ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["start", CALL_SID, "--url", URL, "--bearer-token-file"],
        ["start", CALL_SID, "--url", URL, "--stream-key-file"],
        ["start", CALL_SID, "--url", URL, "--config"],
        ["stop", CALL_SID, "s-1", "--config"],
        ["token", CALL_SID, "--stream-key-file"],
        ["simulate", "wss://127.0.0.1:9", "--demo", "--bearer-token-file"],
        ["simulate", "wss://127.0.0.1:9", "--demo", "--stream-key-file"],
        ["simulate", "wss://127.0.0.1:9", "--demo", "--ca-file"],
        ["simulate", "wss://127.0.0.1:9", "--demo", "--config"],
    ],
)
def test_a_file_is_judged_by_who_reads_it(
    starter: Starter,
    secret_file: SecretFile,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
) -> None:
    """Its permissions are no matter of usage; as root they are not checked."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    ran = starter(*arguments, secret_file("[junk", mode=0o644))

    assert (3, 1) == (ran.exit_code, ran.err.count("\n"))


def test_a_bad_setting_is_refused_like_a_bad_flag(
    starter: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A track from the environment is checked, too."""
    monkeypatch.setenv("TAPREEL_TRACK", "both")
    ran = starter("start", CALL_SID, "--url", URL, "--dry-run")

    assert 6 == ran.exit_code
    assert "the track must be one of" in ran.err


def test_no_secret_gets_out(
    starter: Starter,
    secret_file: SecretFile,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever is printed or logged for a start, tokens are not in it."""
    caplog.set_level(logging.DEBUG)
    ran = starter(
        *("start", CALL_SID, "--url", URL, "--bearer-token-file", secret_file(TOKEN), "--dry-run")
    )
    shown = ran.out + ran.err + caplog.text

    assert TOKEN not in shown
    assert API_TOKEN not in shown


def test_no_character_of_an_answer_reaches_the_terminal_raw(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Neither as text nor as JSON, which holds the answer all the same."""
    hostile = StreamHandle(sid="a\x7fb\x1b[31m\u202e", name="\u200b", status="\x9b")
    for as_json in (True, False):
        show_handle(hostile, as_json=as_json)
    shown, text = capsys.readouterr().out.splitlines()
    assert shown.isprintable()
    assert text.isprintable()
    assert hostile.sid == json.loads(shown)["sid"]
