"""Which webhooks are configured, and what is refused of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from receiver.config.settings import Config, as_plain, from_plain, load
from receiver.console import check_console
from receiver.errors import ConfigurationError
from receiver.notifications import events
from receiver.notifications.webhooks import callback_secrets, endpoints_of
from tests.receiver.helpers.hooks import SECRET
from tests.receiver.helpers.secret_files import secret

URL = "https://example.com/hook/very-secret?key=also-secret"


def settings(folder: Path, *tables: dict[str, Any], **more: Any) -> Config:
    """Return settings with these webhooks, as a file has them."""
    path = secret(folder / "webhook-secret", SECRET)
    given = {"secret_file": str(path), "url": URL}
    return from_plain({"webhook": [{**given, **table} for table in tables], **more})


def test_a_webhook_of_a_file(tmp_path: Path) -> None:
    """All of its keys."""
    path = secret(tmp_path / "webhook-secret", SECRET)
    file = tmp_path / "tapreel.toml"
    file.write_text(
        f'[[webhook]]\nurl = "{URL}"\nsecret_file = "{path}"\n'
        'events = ["recording.published", "stream.missing"]\nmatch = "param.queue=sales"\n'
        f'[[webhook]]\nurl = "http://10.0.0.1/"\nsecret_file = "{path}"\nname = "inside"\n'
        'allow_private = true\nmatch = ["complete=no", "label=x"]\n'
    )
    config = load({}, environ={}, file=file)
    one, two = endpoints_of(config)
    assert ("example.com", {"recording.published", "stream.missing"}) == (one.name, one.types)
    assert ("inside", set(events.TYPES), True) == (two.name, set(two.types), two.allow_private)
    assert (1, 2) == (len(one.clauses), len(two.clauses))
    assert one.trust is not None
    assert config.webhook == from_plain(as_plain(config)).webhook


def test_nothing_that_may_be_secret_is_shown(tmp_path: Path) -> None:
    """Of a URL only its host is shown."""
    (one,) = endpoints_of(settings(tmp_path, {}))
    for text in (repr(one), one.where):
        assert "secret" not in text
    assert "https://example.com/…" == one.where


@pytest.mark.parametrize(
    ("tables", "problem"),
    [
        ([{"url": "http://example.com/"}], "url must be https"),
        ([{"events": ["recording.publish"]}], "there is no event 'recording.publish'"),
        ([{"match": "colour=red"}], "match: colour"),
        ([{"match": "complete=maybe"}], "match: complete"),
        ([{"secret_file": "nowhere"}], "cannot read nowhere"),
        ([{"ca_file": "nowhere"}], "nowhere holds no usable certificate"),
        ([{}, {}], "two webhooks are called 'example.com'"),
        ([{"name": "on-published"}], "two webhooks are called"),
        ([{"name": "x" * 101}], "too long"),
    ],
)
def test_what_cannot_be_used_is_refused(
    tmp_path: Path, tables: list[dict[str, Any]], problem: str
) -> None:
    """At the start, in one line that names the webhook."""
    with pytest.raises(ConfigurationError, match=problem):
        endpoints_of(settings(tmp_path, *tables))


def test_a_bad_secret_is_refused_without_being_shown(tmp_path: Path) -> None:
    """As others that can be read are."""
    config = settings(tmp_path, {})
    secret(tmp_path / "webhook-secret", "hush-hush")
    with pytest.raises(ConfigurationError, match="line 1 is no secret") as caught:
        endpoints_of(config)
    assert "hush" not in str(caught.value)
    secret(tmp_path / "webhook-secret", SECRET, 0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        endpoints_of(config)


def test_what_providers_must_know(tmp_path: Path) -> None:
    """One in a line; a path that could be guessed is refused, and so is a key without our URL."""
    config = replace(Config(), callback_key_file=secret(tmp_path / "k", "# x\none\n\ntwo\n"))
    assert (b"one", b"two") == callback_secrets(config).keys
    assert not callback_secrets(Config()).has_path("")
    with pytest.raises(ConfigurationError, match="--public-url"):
        check_console(replace(config, no_tls=True))
    config = replace(Config(), callback_secret_file=secret(tmp_path / "p", "short"))
    with pytest.raises(ConfigurationError, match="at least 16 characters"):
        check_console(replace(config, no_tls=True))


def test_the_command_is_one_of_them(tmp_path: Path) -> None:
    """It gets each recording that is published, and nothing else."""
    (one,) = endpoints_of(settings(tmp_path, on_published="sh -c 'cat > /dev/null'"))
    assert ("on-published", ("sh", "-c", "cat > /dev/null")) == (one.name, one.command)
    assert ("recording.published",) == one.types
    assert "sh" == one.where


@pytest.mark.parametrize(
    ("command", "problem"), [("sh 'x", "no command"), ("no-such-program-x y", "no program")]
)
def test_a_command_that_is_none_is_refused(tmp_path: Path, command: str, problem: str) -> None:
    """At the start, not at the first recording."""
    with pytest.raises(ConfigurationError, match=problem):
        endpoints_of(settings(tmp_path, on_published=command))
