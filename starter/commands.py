"""The commands `start` and `stop`, which call the provider, and `token`."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import click

from starter.config import Credentials, Settings, load_settings
from starter.errors import StarterError, one_line
from starter.models import (
    MASK,
    CallbackMethod,
    Codec,
    StreamHandle,
    StreamRequest,
    Target,
    Track,
    masked,
    member,
)
from starter.options import FILE, choice, pairs, with_options
from starter.tokens import DEFAULT_TTL_SECONDS

if TYPE_CHECKING:
    from starter.client import StreamClient

_Request = Callable[["StreamClient"], Awaitable[StreamHandle]]

_config = click.option("--config", type=FILE, help="TOML file with a [starter] table.")
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_conference = click.option(
    "--conference", is_flag=True, help="The sid is a conference's, not a call's."
)
_BEARER = (
    click.option("--bearer-token-file", type=FILE, help="File with the receiver's token."),
    click.option("--stream-key-file", type=FILE, help="Key to sign a token for this call with."),
)
_EXPECT = (
    click.option(
        "--expect-url", metavar="URL", help="Console that is told which stream is to come."
    ),
    click.option("--expect-token-file", type=FILE, help="File of a token of the console's API."),
    click.option("--expect-ca-file", type=FILE, help="Certificate of the console to trust."),
    click.option(
        "--expect-database-url",
        metavar="URL",
        help="The catalogue's database, to be told instead of a console.",
    ),
)
_STREAM = (
    click.option("--url", metavar="WSS_URL", help="Address to which the provider sends the audio."),
    choice("--track", kind=Track, help="Directions to stream.  [default: both_tracks]"),
    click.option("--name", help="Name of the stream.  [default: a new unique one]"),
    click.option(
        "--param",
        multiple=True,
        callback=pairs,
        metavar="K=V",
        help="Custom parameter; repeatable.",
    ),
    click.option(
        "--status-callback",
        metavar="URL",
        help="URL to which the provider reports the stream's events.",
    ),
    choice("--status-callback-method", kind=CallbackMethod, help="[default: POST]"),
    choice("--codec", kind=Codec, help="Codec, for conferences only."),
    click.option(
        "--real-time/--no-real-time", default=None, help="Live sending, for conferences only."
    ),
)


_EXPECT_NAMES = ("expect_url", "expect_token_file", "expect_ca_file", "expect_database_url")


@dataclass(frozen=True, slots=True, kw_only=True)
class _StreamOptions:
    """The options of `start` about the stream, before other settings are merged in."""

    url: str | None
    track: Track | None
    name: str | None
    param: dict[str, str]
    status_callback: str | None = field(repr=False)  # may hold a password
    status_callback_method: CallbackMethod | None
    codec: Codec | None
    real_time: bool | None
    bearer_token_file: str | None
    stream_key_file: str | None


@click.command()
@click.argument("sid", metavar="CALL_SID")
@with_options(*_STREAM, *_BEARER, *_EXPECT, _conference, _config)
@click.option("--dry-run", is_flag=True, help="Print the request instead of sending it.")
@_json
def start(
    sid: str, *, conference: bool, config: str | None, dry_run: bool, as_json: bool, **options: Any
) -> None:
    """Start a stream on the live call CALL_SID.

    Credentials come from SIGNALWIRE_PROJECT_ID, SIGNALWIRE_API_TOKEN and SIGNALWIRE_SPACE.
    """
    settings = load_settings(config, os.environ)
    target = _target(conference)
    target.check_sid(sid)
    expect = {name: options.pop(name) for name in _EXPECT_NAMES}
    request = _request(settings, _StreamOptions(**options), sid)
    form = request.form(target)
    credentials = settings.credentials(token_needed=not dry_run)
    if dry_run:
        _show_request(credentials.streams_url(target, sid), masked(form), as_json=as_json)
        return
    handle = _announced(settings, expect, credentials, target, sid, request)
    show_handle(handle, as_json=as_json)
    if not as_json:
        option = " --conference" if conference else ""
        click.echo(one_line(f"stop it with: starter stop {sid} {handle.sid}{option}"), err=True)


@click.command()
@click.argument("sid", metavar="CALL_SID")
@click.argument("stream", metavar="STREAM_SID_OR_NAME")
@with_options(_conference, _config, _json)
def stop(sid: str, stream: str, *, conference: bool, config: str | None, as_json: bool) -> None:
    """Stop a stream of the call CALL_SID, by its sid or its name."""
    target = _target(conference)
    target.check_sid(sid)
    credentials = load_settings(config, os.environ).credentials()
    show_handle(_send(credentials, _stop_on(target, sid, stream)), as_json=as_json)


@click.command()
@click.argument("sid", metavar="CALL_SID")
@click.option("--stream-key-file", type=FILE, help="File with the signing key.")
@click.option(
    "--ttl",
    type=click.IntRange(1),
    default=DEFAULT_TTL_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="Seconds until the token expires.",
)
@_conference
@_config
def token(
    sid: str, *, stream_key_file: str | None, ttl: int, conference: bool, config: str | None
) -> None:
    """Print a signed token with which the receiver accepts one stream of the call CALL_SID."""
    _target(conference).check_sid(sid)
    key = load_settings(config, os.environ).stream_key(stream_key_file)
    click.echo(replace(key, ttl_seconds=ttl).token_for(sid))


def _target(conference: bool) -> Target:
    return Target.CONFERENCE if conference else Target.CALL


def _request(settings: Settings, options: _StreamOptions, sid: str) -> StreamRequest:
    """The named stream to request, completed by the settings.

    Raises InvalidRequestError before any secret is read, ConfigError.
    """
    from starter.client import named

    url = settings.text("url", options.url)
    if url is None:
        raise click.UsageError("no --url: give the address to send the audio to")
    track = settings.text("track", options.track) or Track.BOTH
    method = settings.text("status_callback_method", options.status_callback_method)
    request = StreamRequest(
        url=url,
        name=options.name,
        track=member(Track, track, "the track"),
        parameters=options.param,
        status_callback=settings.text("status_callback", options.status_callback),
        status_callback_method=member(
            CallbackMethod, method or CallbackMethod.POST, "the callback method"
        ),
        codec=options.codec,
        real_time=options.real_time,
    )
    bearer = settings.bearer(token_file=options.bearer_token_file, key_file=options.stream_key_file)
    token = bearer.token_for(sid) if bearer else None
    return named(replace(request, bearer_token=token))


def _start_on(target: Target, sid: str, request: StreamRequest) -> _Request:
    if target is Target.CONFERENCE:
        return lambda client: client.start_conference(sid, request)
    return lambda client: client.start(sid, request)


def _announced(
    settings: Settings,
    expect: Mapping[str, str | None],
    credentials: Credentials,
    target: Target,
    sid: str,
    request: StreamRequest,
) -> StreamHandle:
    """Start a stream, and write before and after it what is expected, if that is asked for."""
    from starter.expectations import Announcement, store_of

    given = [settings.text(name, expect[name]) for name in _EXPECT_NAMES]
    announcement = Announcement(store_of(*given))
    announcement.ask(sid, request)
    try:
        handle = _send(credentials, _start_on(target, sid, request))
    except StarterError as error:
        announcement.failed(error)
        raise
    announcement.answered(handle)
    return handle


def _stop_on(target: Target, sid: str, stream: str) -> _Request:
    if target is Target.CONFERENCE:
        return lambda client: client.stop_conference(sid, stream)
    return lambda client: client.stop(sid, stream)


def _send(credentials: Credentials, send: _Request) -> StreamHandle:
    import asyncio

    from starter.client import StreamClient

    async def run() -> StreamHandle:
        async with StreamClient(credentials) as client:
            return await send(client)

    return asyncio.run(run())


def _show_request(url: str, form: list[tuple[str, str]], *, as_json: bool) -> None:
    if as_json:
        request = {"method": "POST", "url": url, "form": dict(form)}
        click.echo(json.dumps(request))
        return
    click.echo(f"POST {url}\nAuthorization: Basic {MASK}")
    for name, value in form:
        click.echo(f"{name}={value}")


def show_handle(handle: StreamHandle, *, as_json: bool) -> None:
    """Print a stream as the provider describes it, in which any character may be."""
    if as_json:
        fields = asdict(handle)
        updated = handle.date_updated
        fields["date_updated"] = None if updated is None else updated.isoformat()
        click.echo(json.dumps(fields).replace("\x7f", "\\u007f"))  # part of it is a peer's text
        return
    name = "" if handle.name is None else f", name {handle.name}"
    click.echo(one_line(f"stream {handle.sid}: {handle.status or 'status unknown'}{name}"))
