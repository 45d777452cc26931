"""`receiver webhook list`, `resend`, `test`: what other programs are told, and what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from receiver.cli.options import config_of, need_extra
from receiver.config.settings import Config
from receiver.errors import ConfigurationError, DialError, NotFoundError
from receiver.media import timestamp, visible

if TYPE_CHECKING:
    from receiver.notifications.outbox import Delivery, Outbox, Totals
    from receiver.notifications.webhooks import WebhookEndpoint

STATES = ("waiting", "delivered", "dead")
"""Those of `receiver.notifications.outbox`, which is not needed for `--help`."""
_json = click.option("--json", "as_json", is_flag=True, help="print JSON")
_with_settings = config_of("recordings", "database_url", "on_published", "on_published_seconds")


@click.group()
def webhook() -> None:
    """Show what other programs are told, send it again, or try out a webhook.

    The webhooks themselves are `[[webhook]]` tables in the file of --config, or TAPREEL_CONFIG.
    """


@webhook.command("list")
@click.option("--state", type=click.Choice(STATES), help="only deliveries in this state")
@click.option("--endpoint", default="", metavar="NAME", help="only deliveries of this webhook")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@_json
@_with_settings
def list_deliveries(
    config: Config, state: str | None, endpoint: str, limit: int, *, as_json: bool
) -> None:
    """List webhooks and their deliveries, the newest first."""
    endpoints = _endpoints(config)
    from receiver.notifications.outbox import DeliveryReport

    with _outbox(config) as outbox:
        totals = outbox.totals()
        states = STATES if state is None else (state,)
        found = outbox.page(states=states, endpoint=endpoint, limit=limit)
    if as_json:
        webhooks = [_endpoint_document(each, totals) for each in endpoints]
        shown = [DeliveryReport.of(each) for each in found]
        document = {"webhooks": webhooks, "deliveries": shown}
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))
        return
    if not endpoints:
        click.echo("no webhooks: put [[webhook]] tables into the file of --config", err=True)
    for each in endpoints:
        count = totals.get(each.name)
        _print(f"{each.name:<24} {each.where:<40} {_totals_text(count)}")
    for delivery in found:
        _print(_delivery_text(delivery))


@webhook.command()
@click.argument("numbers", nargs=-1, type=click.IntRange(1), metavar="[NUMBER]...")
@click.option("--dead", is_flag=True, help="all that are dead")
@click.option("--endpoint", default="", metavar="NAME", help="with --dead: those of this webhook")
@_with_settings
def resend(config: Config, numbers: Sequence[int], endpoint: str, *, dead: bool) -> None:
    """Make deliveries again, by their numbers in `receiver webhook list`.

    A running console makes them.
    """
    if bool(numbers) == dead:
        raise click.UsageError("give numbers of deliveries, or --dead")
    with _outbox(config) as outbox:
        if dead:
            click.echo(f"{outbox.resend_dead(endpoint)} deliveries will be made again")
            return
        for number in numbers:
            delivery = outbox.resend(number)
            _print(f"{delivery.type} of {delivery.event} will be sent to {delivery.endpoint} again")


@webhook.command()
@click.argument("name")
@_with_settings
def test(config: Config, name: str) -> None:
    """Send an event of the type `webhook.test` to a webhook, now and once; say what came of it.

    NAME is the webhook's name, which is its host unless the settings say otherwise. Ends with
    exit code 7 where it is not accepted.
    """
    need_extra("console")
    from receiver.notifications import events, notifier

    endpoints = {each.name: each for each in _endpoints(config)}
    if name not in endpoints:
        known = ", ".join(endpoints) or "none"
        raise NotFoundError(f"there is no webhook {name!r}; there are: {known}")
    now = timestamp(time.time_ns() // 1_000_000)
    event = events.OutboxEvent(
        events.event_id(events.TEST, secrets.token_hex(8)), events.TEST, now, {"webhook": name}
    )
    send = notifier.send(
        endpoints[name],
        event.id,
        event.body(),
        command_seconds=config.on_published_seconds,
    )
    began = time.monotonic()
    answer = asyncio.run(send)
    seconds = time.monotonic() - began
    if not answer.is_success:
        raise DialError(f"{endpoints[name].where} did not accept it: {answer.problem}")
    _print(f"{endpoints[name].where} answered {answer.status} in {seconds:.2f} s")


def print_missing(
    recordings: Path, url: str | None, pairs: Sequence[tuple[str, str]], *, as_json: bool
) -> None:
    """Print the streams that were asked for and did not come, the newest first.

    Args:
        recordings: The recordings folder.
        url: The database's.
        pairs: Words of `receiver list`; `call` and `param.NAME` are possible.
        as_json: Whether to print a JSON array.
    """
    asked = dict(pairs)
    scope = {k.removeprefix("param."): v for k, v in asked.items() if k.startswith("param.")}
    call_sid = asked.pop("call", "")
    if unusable := [k for k in asked if k != "state" and not k.startswith("param.")]:
        raise click.UsageError(f"{unusable[0]}: of missing streams, only call and param.NAME")
    need_extra("console")
    from receiver.notifications.expectations import (
        MISSING,
        MOST_ROWS,
        ExpectationReport,
        Expectations,
    )

    with _outbox(Config(recordings=recordings, database_url=url)) as outbox:
        kept = Expectations(outbox.database, Config().expect_seconds)
        found = [
            each
            for each in kept.page([MISSING], scope=scope, limit=MOST_ROWS)
            if call_sid in ("", each.call_sid)
        ]
    if as_json:
        reports = [ExpectationReport.of(each) for each in found]
        click.echo(msgspec.json.format(msgspec.json.encode(reports), indent=2))
        return
    for each in found:
        _print(f"{timestamp(each.asked_ms)}  {each.call_sid}  {each.name}  {each.reason}")


def _endpoints(config: Config) -> tuple[WebhookEndpoint, ...]:
    need_extra("console")
    from receiver.notifications.webhooks import endpoints_of

    return endpoints_of(config)


@contextlib.contextmanager
def _outbox(config: Config) -> Iterator[Outbox]:
    need_extra("console")
    from receiver.catalogue.database import open_database
    from receiver.notifications.outbox import Outbox

    if not config.recordings.is_dir():
        raise ConfigurationError(f"there is no folder {config.recordings}: give --recordings")
    database = open_database(config.database_url, config.recordings)
    try:
        yield Outbox(database)
    finally:
        database.close()


def _totals_text(totals: Totals | None) -> str:
    if totals is None:
        return "nothing was sent yet"
    return f"{totals.waiting} waiting, {totals.delivered} delivered, {totals.dead} dead"


def _delivery_text(delivery: Delivery) -> str:
    at = timestamp(delivery.since_ms)
    about = delivery.recording_id or delivery.call_sid
    text = f"{delivery.n:<7} {at}  {delivery.state:<9} {delivery.type:<20} {about:<17}"
    rest = f" {delivery.endpoint}, {delivery.attempts} attempts"
    if delivery.problem:
        rest += f": {delivery.problem}"
    return text + rest


def _endpoint_document(endpoint: WebhookEndpoint, totals: dict[str, Totals]) -> dict[str, Any]:
    count = totals.get(endpoint.name)
    return {
        "name": endpoint.name,
        "where": endpoint.where,
        "events": sorted(endpoint.types),
        "waiting": count.waiting if count else 0,
        "delivered": count.delivered if count else 0,
        "dead": count.dead if count else 0,
    }


def _print(text: str) -> None:
    click.echo(visible(text))
