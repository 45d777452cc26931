"""Checks of settings that depend on each other: what `receiver serve` must not start with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from receiver.config import is_loopback
from receiver.config.settings import Config, check_serving
from receiver.errors import ConfigurationError


def refusal(**settings: Any) -> str:
    """Return why a receiver does not start with `settings`, or an empty text."""
    try:
        check_serving(Config(**settings))
    except ConfigurationError as error:
        return str(error)
    return ""


def test_one_kind_of_tls_must_be_chosen() -> None:
    """None and two are refused; each alone is enough."""
    assert refusal(tokens="t").endswith("none of them is set")
    assert refusal(tokens="t", no_tls=True, self_signed=True).endswith(
        "more than one of them is set"
    )
    assert "" == refusal(tokens="t", tls=(Path("c"), Path("k")), host="0.0.0.0")  # noqa: S104  refused or not
    assert "" == refusal(tokens="t", self_signed=True, host="0.0.0.0")  # noqa: S104  is the question
    assert "" == refusal(tokens="t", no_tls=True)


def test_plain_sockets_stay_on_this_machine() -> None:
    """Without TLS a public address needs a proxy in front."""
    assert "--behind-proxy" in refusal(tokens="t", no_tls=True, host="192.0.2.1")
    assert "" == refusal(tokens="t", no_tls=True, host="192.0.2.1", behind_proxy=True)


def test_a_credential_is_needed() -> None:
    """A token, a key, a file of either, or the demo is needed."""
    assert refusal(no_tls=True).startswith("no token is configured")
    for credential in ("tokens", "stream_key", "token_file", "stream_key_file", "demo"):
        assert "" == refusal(no_tls=True, **{credential: Path("x")})


def test_every_worker_needs_a_place_for_a_stream() -> None:
    """A worker with no place would only refuse calls."""
    settings = {"tokens": "t", "no_tls": True, "workers": 4}
    problem = (
        "--max-streams 3 is less than one for each of 4 workers: give 4 or more, or fewer workers"
    )
    assert problem == refusal(max_streams=3, **settings)
    assert "" == refusal(max_streams=4, **settings)


def test_every_worker_needs_a_port_for_its_metrics() -> None:
    """The last of them must be a port, too; 0 stands for free ones."""
    settings = {"tokens": "t", "no_tls": True, "workers": 3}
    problem = (
        "--metrics-port 65534 has too few ports above it for 3 workers: give 65533 or a lower one"
    )
    assert problem == refusal(metrics_port=65_534, **settings)
    for port in (None, 0, 65_533):
        assert "" == refusal(metrics_port=port, **settings)


@pytest.mark.parametrize(
    ("expected", "host"),
    [
        (True, "127.0.0.1"),
        (True, "127.9.9.9"),
        (True, "::1"),
        (True, "LocalHost"),
        (False, "0.0.0.0"),  # noqa: S104  a host to check, not to listen on
        (False, "::"),
        (False, "192.0.2.1"),
        (False, "receiver.example.com"),
        (False, "localhost.example.com"),
    ],
)
def test_loopback_addresses(expected: bool, host: str) -> None:
    """Only addresses of this machine count as loopback."""
    assert expected is is_loopback(host)
