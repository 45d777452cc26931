"""Whom events are sent to: the `[[webhook]]` tables of the settings, checked, with their secrets.

Beside them is the command of `--on-published`, which is told of each recording that is published,
and what providers must know whose callbacks are believed.
"""

from __future__ import annotations

import hmac
import shlex
import shutil
import ssl
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from receiver.auth import credentials
from receiver.catalogue.tokens import Clause
from receiver.config.settings import Config, Webhook
from receiver.errors import BadWord, ConfigurationError
from receiver.notifications import events, signing
from receiver.notifications.events import OutboxEvent

ON_PUBLISHED: Final = "on-published"
"""What the command of `--on-published` is called among webhooks."""
LONGEST_NAME: Final = 100
SHORTEST_PATH: Final = 16


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """Somebody who is told of events: a URL, or a command of this machine.

    `secrets` sign what is sent to the URL, each of them.
    """

    name: str
    types: Collection[str]
    clauses: tuple[Clause, ...] = ()
    url: str = field(default="", repr=False)  # may hold a secret
    secrets: tuple[bytes, ...] = field(default=(), repr=False)
    allow_private: bool = False
    trust: ssl.SSLContext | None = field(default=None, repr=False)
    command: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """Return where it is, without what may be secret: the rest of the URL."""
        if self.command:
            return self.command[0]
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}/" + ("…" if parts.path.strip("/") else "")

    def wants(self, event: OutboxEvent) -> bool:
        """Whether it is to be told of an event."""
        return event.type in self.types and events.agrees(event, self.clauses)


def endpoints_of(config: Config) -> tuple[WebhookEndpoint, ...]:
    """Return all who are told of events, as the settings and the secret files say now.

    Raises:
        ConfigurationError: one of them cannot be used; the text names it, and no secret.
    """
    found: dict[str, WebhookEndpoint] = {}
    for number, webhook in enumerate(config.webhook, 1):
        endpoint = _endpoint(webhook, number)
        if endpoint.name in found or endpoint.name == ON_PUBLISHED:
            raise ConfigurationError(
                f"two webhooks are called {endpoint.name!r}: give each a name of its own"
            )
        found[endpoint.name] = endpoint
    if config.on_published is not None:
        found[ON_PUBLISHED] = _command(config.on_published)
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class CallbackSecrets:
    """What providers must know: a key to sign with, or the last part of the path."""

    keys: tuple[bytes, ...] = field(default=(), repr=False)
    paths: tuple[bytes, ...] = field(default=(), repr=False)

    def has_path(self, given: str) -> bool:
        """Whether this is a last part that only a provider knows."""
        return any([hmac.compare_digest(given.encode(), each) for each in self.paths])  # noqa: C419


def callback_secrets(config: Config) -> CallbackSecrets:
    """Return what providers must know, as the files say now; without a file, nothing helps.

    Raises:
        ConfigurationError: a file cannot be used, or a path could be guessed.
    """
    keys, paths = (
        _lines(credentials.read_secret(file)) if file else ()
        for file in (config.callback_key_file, config.callback_secret_file)
    )
    if any(len(each) < SHORTEST_PATH for each in paths):
        raise ConfigurationError(
            f"{config.callback_secret_file}: the last part of a path needs at least"
            f" {SHORTEST_PATH} characters, such as of openssl rand -hex 16"
        )
    return CallbackSecrets(keys, paths)


def _lines(content: bytes) -> tuple[bytes, ...]:
    lines = (line.strip() for line in content.splitlines())
    return tuple(line for line in lines if line and not line.startswith(b"#"))


def _endpoint(webhook: Webhook, number: int) -> WebhookEndpoint:
    parts = urlsplit(webhook.url)
    name = webhook.name or parts.hostname or ""
    called = f"webhook {number} ({name})"
    if len(name) > LONGEST_NAME:
        raise ConfigurationError(f"webhook {number}: its name is too long")
    if parts.scheme != "https" and not webhook.allow_private:
        raise ConfigurationError(
            f"{called}: url must be https; http is for a network of your own, with"
            " allow_private = true"
        )
    if unknown := [each for each in webhook.events if each not in events.TYPES]:
        known = ", ".join(events.TYPES)
        raise ConfigurationError(f"{called}: there is no event {unknown[0]!r}; there are {known}")
    try:
        clauses = events.clauses_of(webhook.match)
    except BadWord as error:
        raise ConfigurationError(f"{called}: match: {error}") from None
    try:
        text = credentials.read_secret(webhook.secret_file).decode("utf-8", "replace")
        secrets = signing.parse_secrets(text)
    except ValueError as error:
        raise ConfigurationError(f"{called}: {webhook.secret_file}: {error}") from None
    return WebhookEndpoint(
        name=name,
        types=frozenset(webhook.events or events.TYPES),
        clauses=clauses,
        url=webhook.url,
        secrets=secrets,
        allow_private=webhook.allow_private,
        trust=_trust(webhook, called) if parts.scheme == "https" else None,
    )


def _trust(webhook: Webhook, called: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=webhook.ca_file)
    except (OSError, ValueError):
        raise ConfigurationError(
            f"{called}: {webhook.ca_file} holds no usable certificate"
        ) from None


def _command(text: str) -> WebhookEndpoint:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigurationError(f"--on-published is no command: {error}") from None
    if not words or shutil.which(words[0]) is None:
        raise ConfigurationError(
            f"--on-published: there is no program {(words or [''])[0]!r}: give its path"
        )
    return WebhookEndpoint(ON_PUBLISHED, (events.PUBLISHED,), command=tuple(words))
