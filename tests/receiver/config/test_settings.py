"""The list of settings: every one is complete, and secrets stay secret."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from receiver.config import PATH, SECRET
from receiver.config.settings import (
    ALTERNATIVES,
    SETTINGS,
    Config,
    as_plain,
    from_plain,
    load,
)
from receiver.console import check_console
from receiver.errors import ConfigurationError
from receiver.media import ByteOrder


def test_secrets_are_not_in_the_text() -> None:
    """Neither tokens nor keys are in the text of a Config."""
    environ = {"TAPREEL_TOKENS": "hush-hush-hush-1", "TAPREEL_STREAM_KEY": "hush" * 8}
    config = load({}, environ=environ)
    assert "hush" not in repr(config)
    secrets = {"tokens", "stream_key", "tap_tokens", "tap_key", "forward_token"}
    secrets |= {"control_key"}
    assert secrets == {n for n, s in SETTINGS.items() if s.value_type is SECRET}


def test_settings_by_name_are_the_same_settings() -> None:
    """Secrets and what a console is given among them; no class of ours is needed to read them."""
    config = Config(
        recordings=Path("/srv/calls"),
        tls=(Path("a.pem"), Path("b.pem")),
        byte_order=ByteOrder.BIG,
        trusted_proxy=("10.0.0.0/8",),
        tokens="hush",
        console_token="quiet",
        console_taps=("wss://127.0.0.1:1", "wss://127.0.0.1:2"),
    )
    handed_over = pickle.dumps(as_plain(config))
    assert b"receiver" not in handed_over
    assert config == from_plain(pickle.loads(handed_over))  # noqa: S301  our own


def test_settings_of_another_version_are_read_as_far_as_they_are_known() -> None:
    """What is unknown is left out, and what is missing has its default."""
    config = from_plain({"colour": "green", "console_port": 9000})
    assert Config(console_port=9000) == config


def test_a_setting_of_another_version_that_is_no_good_is_named() -> None:
    """It is not used as it is."""
    with pytest.raises(ConfigurationError, match="console_port must be a whole number"):
        from_plain({"console_port": "ssh"})


def test_every_setting_has_a_line_of_help_and_a_field() -> None:
    """Flags, variables and TOML keys are derived from them."""
    others = {"sources", "console_token", "console_taps"}  # which nobody sets
    fields = {name for name in Config.__dataclass_fields__ if name not in others}
    assert fields == SETTINGS.keys()
    for name, setting in SETTINGS.items():
        assert name == setting.name
        assert setting.meaning
        assert "\n" not in setting.meaning


def test_every_secret_can_be_in_a_file_instead() -> None:
    """A file or a variable, and the higher source decides between the two."""
    secrets = {name for name, setting in SETTINGS.items() if setting.value_type is SECRET}
    pairs = {names[-1]: names[0] for names in ALTERNATIVES if names[-1] in secrets}
    assert secrets == pairs.keys()
    assert all(SETTINGS[file].value_type is PATH for file in pairs.values())


@pytest.mark.integration
def test_settings_are_cheap_to_import() -> None:
    """Every command and every worker loads them first: no sockets, TLS, logs or arrays."""
    code = (
        "import sys, receiver.config.settings;"
        "print(*{'asyncio', 'numpy', 'socket', 'soundfile', 'ssl', 'structlog'} & {*sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "" == found.stdout.strip()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://b", "must be like wss://"),
        ("wss://", "must be like wss://"),
        ("wss://b/tap", "must be like wss://"),
        ("wss://b:x", "must be like wss://"),
        ("ws://b:8443", "needs wss"),
        ("wss://b", "needs --tap-token-file"),
    ],
)
def test_the_console_is_told_of_receivers_that_it_can_ask(url: str, reason: str) -> None:
    """By TLS where they are elsewhere, and with a token."""
    with pytest.raises(ConfigurationError, match=reason):
        check_console(Config(no_tls=True, tap_url=(url,)))
    check_console(Config(no_tls=True, tap_url=("ws://[::1]:8443",), tap_tokens="x" * 16))


def test_what_a_receiver_gives_to_its_console_is_not_printed() -> None:
    """It is a secret like others."""
    assert "hush" not in repr(Config(console_token="hush" * 8))
