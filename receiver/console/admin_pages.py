"""The pages about the installation: users, deliveries, health."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from receiver.auth import tls
from receiver.catalogue.query import Query, parse
from receiver.console import views
from receiver.console.accounts import SHORTEST_PASSWORD, ApiToken, User
from receiver.console.changes import said_of
from receiver.console.context import Console, console_of, who_asks
from receiver.console.problems import Problem
from receiver.console.routes import Endpoint, number_in, page
from receiver.console.sign_in import form_of
from receiver.console.who import Role, Who
from receiver.errors import ConfigurationError
from receiver.lifecycle.ledger import Act
from receiver.media import timestamp, visible
from receiver.notifications import outbox
from receiver.notifications.outbox import Delivery, DeliveryReport, Totals
from receiver.recording import store
from receiver.recording.verdict import duration

DAYS: Final = 14
"""Shown on the page of health."""
_BAR: Final = 100
_FREE_SHARE: Final = 0.05
_EXPIRES_SOON_DAYS: Final = 14
_UNSYNCED_SECONDS: Final = 5
_DAY_MS: Final = 86_400_000
_LONGEST_NUMBER: Final = 16


# Users.


async def _users(request: Request) -> dict[str, Any]:
    console, who = console_of(request), _unlimited(request)

    def read() -> dict[str, Any]:
        return {
            "users": [_user_view(console, who, user) for user in console.accounts.all()],
            "tokens": [_token_view(token) for token in console.tokens.all()],
        }

    return {
        **await console.threads.run(read),
        "roles": [role.value for role in Role],
        "shortest_password": SHORTEST_PASSWORD,
        "json_url": "/users.json",
        "said": said_of(request),
    }


def _user_view(console: Console, who: Who, user: User) -> dict[str, Any]:
    sessions = console.sessions.of(user.name)
    return {
        "name": user.name,
        "role": user.role.value,
        "scope": dict(user.scope),
        "has_password": user.has_password,
        "seen_at": timestamp(sessions[0].seen_ms) if sessions else None,
        "is_self": user.name == who.name,
    }


def _token_view(token: ApiToken) -> dict[str, Any]:
    return {
        "id": token.id,
        "user": token.user,
        "role": token.role.value,
        "scope": dict(token.scope),
        "label": token.label,
        "used_at": None if token.used_ms is None else timestamp(token.used_ms),
        "expires_at": None if token.expires_ms is None else timestamp(token.expires_ms),
    }


_USER_COLUMNS: Final = ("name", "role", "scope", "has_password", "seen_at")


def _user_lines(shown: Mapping[str, Any]) -> Iterator[Sequence[object]]:
    """Yield the accounts as lines of a table, below the names of its columns."""
    yield _USER_COLUMNS
    for user in shown["users"]:
        scope = ", ".join(f"{name}={value}" for name, value in user["scope"].items())
        has_password = "yes" if user["has_password"] else "no"
        yield user["name"], user["role"], scope, has_password, user["seen_at"] or ""


async def _add_user(request: Request) -> Response:
    form, console = await form_of(request), console_of(request)
    name, role = form.get("name", ""), _role(form)
    scope = _scope(form.get("param", ""))
    await _recorded(request, "user_added", user=name, role=role.value, scope=scope)
    password = form.get("password") or None
    return await _done(
        request, "user_added", console.accounts.add, name, role, scope, password=password
    )


async def _change_role(request: Request) -> Response:
    form, console = await form_of(request), console_of(request)
    name, role = _other(request, form), _role(form)
    await _recorded(request, "user_changed", user=name, role=role.value)
    return await _done(request, "user_changed", console.accounts.change, name, role=role)


async def _remove_user(request: Request) -> Response:
    form, console = await form_of(request), console_of(request)
    name = _other(request, form)
    await _recorded(request, "user_removed", user=name)
    return await _done(request, "user_removed", console.accounts.remove, name)


async def _revoke_token(request: Request) -> Response:
    form, console = await form_of(request), console_of(request)
    token_id = form.get("id", "")
    await _recorded(request, "token_revoked", token=token_id)
    return await _done(request, "token_revoked", console.tokens.revoke, token_id)


def _unlimited(request: Request) -> Who:
    """Return who asks; whoever is limited could make an account that is not.

    Raises:
        Problem: 403, he is limited.
    """
    who = who_asks(request)
    if who.scope:
        raise Problem(403, "You see some recordings only, so you cannot manage accounts.")
    return who


def _role(form: Mapping[str, str]) -> Role:
    try:
        return Role(form.get("role", ""))
    except ValueError:
        raise Problem(400, f"The role must be one of {', '.join(Role)}.") from None


def _scope(text: str) -> dict[str, str]:
    """Return the limits that `queue=sales, site=2` names."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if not all(name.strip() and equals for name, equals, _ in pairs):
        raise Problem(400, "A limit must be like queue=sales; several are parted by commas.")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _other(request: Request, form: Mapping[str, str]) -> str:
    """Return the account that is to be changed, which is not one's own.

    Whoever took away his own role by a slip could not give it back.
    """
    name = form.get("name", "")
    if name.strip().casefold() == who_asks(request).name:
        raise Problem(400, "Another admin must do this: nobody changes his own account here.")
    return name


async def _recorded(request: Request, act: Act, **details: Any) -> None:
    await console_of(request).enter(_unlimited(request), act, **details)


async def _done(request: Request, what: str, act: Any, *args: Any, **named: Any) -> Response:
    """Do it, and lead back to the page."""
    try:
        await console_of(request).threads.run(act, *args, **named)
    except ConfigurationError as error:
        raise Problem(400, f"This cannot be done: {error}.") from None
    return RedirectResponse(f"/users?said={what}", 303)


# Deliveries.


async def _deliveries(request: Request) -> dict[str, Any]:
    console, words = console_of(request), request.query_params
    asked = {name: words.get(name, "").strip() for name in ("state", "webhook", "recording")}
    if asked["state"] and asked["state"] not in outbox.STATES:
        raise Problem(400, f"The state must be one of {', '.join(outbox.STATES)}.")
    outbox_of, before = console.notifier.outbox, number_in(request, "before")

    def read() -> tuple[list[Delivery], Mapping[str, Totals]]:
        found = outbox_of.page(
            states=[asked["state"]] if asked["state"] else outbox.STATES,
            endpoint=asked["webhook"],
            recording=asked["recording"],
            before=before,
            limit=outbox.PAGE + 1,
        )
        return found, outbox_of.totals()

    found, totals = await console.threads.run(read)
    given = [(name, value) for name, value in asked.items() if value]
    shown, more = found[: outbox.PAGE], len(found) > outbox.PAGE
    next_words = [*given, ("before", str(shown[-1].n))] if more else []
    return {
        "deliveries": [_delivery_view(delivery) for delivery in shown],
        "webhooks": list(_webhook_views(console, totals)),
        "asked": asked,
        "states": list(outbox.STATES),
        "next_url": f"/deliveries?{urlencode(next_words)}" if next_words else None,
        "csv_url": f"/deliveries.csv?{urlencode(given)}" if given else "/deliveries.csv",
        "json_url": f"/deliveries.json?{urlencode(given)}" if given else "/deliveries.json",
        "said": said_of(request),
    }


def _delivery_view(delivery: Delivery) -> dict[str, Any]:
    tones = {outbox.DELIVERED: "good", outbox.DEAD: "bad"}
    return {
        **msgspec.structs.asdict(DeliveryReport.of(delivery)),
        "problem": visible(delivery.problem),
        "call_sid": visible(delivery.call_sid),
        "tone": tones.get(delivery.state, "neutral"),
    }


def _webhook_views(console: Console, totals: Mapping[str, Totals]) -> Iterator[dict[str, Any]]:
    """Yield those who are told of events, and those who were and have deliveries still."""
    configured = {endpoint.name: endpoint for endpoint in console.notifier.endpoints}
    for name in dict.fromkeys((*configured, *totals)):
        endpoint = configured.get(name)
        yield {
            "name": visible(name),
            "where": visible(endpoint.where) if endpoint else "not configured any more",
            "events": sorted(endpoint.types) if endpoint else [],
            **msgspec.structs.asdict(totals.get(name, Totals())),
        }


_DELIVERY_COLUMNS: Final = (
    *("number", "event", "type", "recording_id", "call_sid", "webhook", "state", "attempts"),
    *("since", "due", "attempted", "status", "problem"),
)


def _delivery_lines(shown: Mapping[str, Any]) -> Iterator[Sequence[object]]:
    """Yield deliveries as lines of a table, below the names of its columns."""
    yield _DELIVERY_COLUMNS
    for delivery in shown["deliveries"]:
        yield [delivery[name] for name in _DELIVERY_COLUMNS]


async def _resend(request: Request) -> Response:
    form, console = await form_of(request), console_of(request)
    text = form.get("number", "")
    if not (text.isascii() and text.isdigit() and len(text) < _LONGEST_NUMBER):
        raise Problem(400, "Choose a delivery by its number.")
    await console.threads.run(console.notifier.outbox.resend, int(text))
    console.notifier.wake()
    return RedirectResponse("/deliveries?said=resent", 303)


# Metrics.


async def _metrics_text(request: Request) -> Response:
    """Return what Prometheus asks for; the receiver's own metrics are at its `--metrics-port`."""
    console = console_of(request)

    def read() -> str:
        kept = console.notifier.expectations
        lines = [
            "# TYPE tapreel_streams_missing_total counter",
            f"tapreel_streams_missing_total {kept.missing_total()}",
            "# TYPE tapreel_streams_expected gauge",
            f"tapreel_streams_expected {kept.open_count()}",
            "# TYPE tapreel_deliveries gauge",
        ]
        for name, totals in console.notifier.outbox.totals().items():
            label = name.replace("\\", "\\\\").replace('"', '\\"')
            for state, number in msgspec.structs.asdict(totals).items():
                lines.append(f'tapreel_deliveries{{webhook="{label}",state="{state}"}} {number}')
        return "\n".join([*lines, ""])

    text = await console.threads.run(read)
    return Response(text, media_type="text/plain; version=0.0.4")


# Health.


@dataclass(frozen=True, slots=True)
class _Day:
    """How many recordings there are of one day, and how many are not complete."""

    date: str
    count: int
    bad: int


async def _health(request: Request) -> dict[str, Any]:
    console, who = console_of(request), who_asks(request)
    async with console.live.watched():
        return await console.threads.run(_read_health, console, who)


def _read_health(console: Console, who: Who) -> dict[str, Any]:
    days = [_day(console, who, back) for back in reversed(range(DAYS))]
    problems: list[str] = []
    figures = [*_figures(console, who, days, problems)]
    most = max([day.count for day in days] + [1])
    return {
        "summary": "all is well" if not problems else f"{len(problems)} to look at",
        "problems": problems,
        "figures": figures,
        "days": [_day_view(day, most) for day in days],
        "days_text": "; ".join(f"{day.date}: {day.count}, {day.bad} not complete" for day in days),
        "facts": list(_facts(console, problems)),
        "json_url": "/health.json",
    }


def _day(console: Console, who: Who, days_back: int) -> _Day:
    start = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    start -= timedelta(days=days_back)
    since_ms = round(start.timestamp() * 1000)
    whole = Query(since_ms=since_ms, until_ms=since_ms + _DAY_MS, limit=1)
    bad = replace(
        parse([("complete", "no")], start), since_ms=since_ms, until_ms=whole.until_ms, limit=1
    )
    count, not_complete = (console.catalogue.page(q, who.scope).total for q in (whole, bad))
    return _Day(f"{start:%Y-%m-%d}", count, not_complete)


def _day_view(day: _Day, most: int) -> dict[str, Any]:
    words = [("from", day.date), ("to", day.date), ("complete", "no")]
    return {
        "date": day.date,
        "name": f"{int(day.date[-2:])}",
        "count": day.count,
        "bad": day.bad,
        "height": round(day.count / most * _BAR, 1),
        "bad_height": round(day.bad / most * _BAR, 1),
        "text": f"{day.date}: {day.count} recordings, {day.bad} not complete",
        "url": views.search_url(words),
    }


def _figures(
    console: Console,
    who: Who,
    days: list[_Day],
    problems: list[str],
) -> Iterator[dict[str, Any]]:
    space = shutil.disk_usage(console.catalogue.recordings)
    if space.free < _FREE_SHARE * space.total:
        problems.append(f"Only {size_text(space.free)} are free where recordings are kept.")
    used = 1 - space.free / space.total
    yield _figure("Free space", size_text(space.free), f"of {size_text(space.total)}", share=used)
    count, bad = sum(day.count for day in days), sum(day.bad for day in days)
    note = f"not complete of {count:,} in {DAYS} days"
    yield _figure("Something missing", f"{bad:,}", note)
    if not who.scope:
        status = console.catalogue.status()
        if status.recordings and next(store.folders(console.catalogue.recordings), None) is None:
            problems.append(
                f"The folder has no recording, and the catalogue has {status.recordings:,}:"
                " is the disk of recordings mounted?"
            )
        behind = "follows" if not status.unread_bytes else f"{status.unread_bytes:,} bytes behind"
        yield _figure("Catalogue", f"{status.recordings:,}", f"recordings; {behind}")
    yield _unsynced(console, who, problems)


def _unsynced(console: Console, who: Who, problems: list[str]) -> dict[str, Any]:
    """Return how old the oldest audio is that no disk holds, of all receivers that are known."""
    name, live = "Oldest audio not on disk", console.live
    if not live.taps:
        return _figure(name, "not known", "the console knows no receiver: give it --tap-url")
    for url, problem in live.problems.items():
        text = f"The receiver {url} does not answer: {visible(problem)}"
        problems.append("A receiver does not answer: is it running?" if who.scope else text)
    if len(live.unsynced_ms) < len(live.taps):
        return _figure(name, "not known", "a receiver does not answer, or is of an older version")
    held_ms = max(live.unsynced_ms.values())
    if held_ms > _UNSYNCED_SECONDS * 1000:
        problems.append(f"The disk is slow: audio of {duration(held_ms)} waits in memory.")
    # To somebody who sees some of the calls it would give the others away.
    count = len(live.calls)
    shown = "1 stream now" if count == 1 else f"{count} streams now"
    note = "of live calls" if who.scope else shown
    return _figure(name, duration(held_ms), note)


def _figure(name: str, value: str, note: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "value": value, "note": note, **more}


def _facts(console: Console, problems: list[str]) -> Iterator[dict[str, str]]:
    from receiver import __version__

    yield {"name": "Version", "value": f"tapreel {__version__}"}
    yield {"name": "Recordings folder", "value": str(console.catalogue.recordings)}
    yield {"name": "Database", "value": console.catalogue.database.where}
    yield {"name": "Certificate", "value": _certificate(console, problems)}


def _certificate(console: Console, problems: list[str]) -> str:
    if console.config.no_tls:
        return "none: this console speaks plain HTTP, on loopback or behind a proxy"
    expires_at = tls.expires_at(tls.pair(console.config)[0])
    if expires_at is None:
        return "its end cannot be read"
    days = (expires_at - time.time()) / 86_400
    if days < _EXPIRES_SOON_DAYS:
        problems.append(f"The certificate expires in {days:.0f} days.")
    return f"until {views.day_and_time(timestamp(round(expires_at * 1000)), 'day')}"


def size_text(size: float) -> str:
    """Return a number of bytes as people say it."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


ENDPOINTS: Final = (
    *page("/users", "users.html", Role.ADMIN, _users, rows=_user_lines),
    *(
        Endpoint(path=f"/users/{name}", handler=handler, role=Role.ADMIN, methods=("POST",))
        for name, handler in (
            ("add", _add_user),
            ("role", _change_role),
            ("remove", _remove_user),
            ("revoke", _revoke_token),
        )
    ),
    *page(
        "/deliveries",
        "deliveries.html",
        Role.MANAGER,
        _deliveries,
        rows=_delivery_lines,
        is_unlimited=True,
    ),
    Endpoint(
        path="/deliveries/resend",
        handler=_resend,
        role=Role.MANAGER,
        methods=("POST",),
        is_unlimited=True,
    ),
    Endpoint(path="/metrics", handler=_metrics_text, role=Role.VIEWER, is_unlimited=True),
    *page("/health", "health.html", Role.MANAGER, _health),
)
