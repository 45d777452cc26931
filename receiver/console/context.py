"""What every handler of the console works with, and how it answers: pages, JSON, text."""

from __future__ import annotations

import asyncio
import functools
import gzip
import hashlib
import importlib.resources
import ipaddress
import mimetypes
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final, ParamSpec, TypeVar

import jinja2
import msgspec
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from receiver import __version__
from receiver.catalogue.catalogue import Catalogue
from receiver.config.settings import Config
from receiver.console import views
from receiver.console.accounts import Accounts, ApiTokens, Sessions
from receiver.console.audio import EncodedFiles, LoadedMinutes
from receiver.console.live import LiveCalls
from receiver.console.oidc import Provider
from receiver.console.problems import Problem
from receiver.console.who import SignInThrottle, Who
from receiver.errors import LedgerError, UnsafeFolderError
from receiver.lifecycle.ledger import Act, Ledger
from receiver.notifications.notifier import Notifier

P = ParamSpec("P")
T = TypeVar("T")

THREADS: Final = 8
MOST_WAITING: Final = 128
"""Calls that wait or run; at 1 ms each the last of them waits for 16 ms."""
LONGEST_SECONDS: Final = 10.0
_PACKAGE: Final = "receiver.console"
_SMALLEST_COMPRESSED: Final = 1024
_TEXT_TYPES: Final = ("text/", "application/json", "image/svg", "application/manifest")


class Threads:
    """A bounded pool for what may wait: the database, files, hashes of passwords.

    The event loop waits for none of it. Whatever hangs holds a thread and no more: who waits for
    it is answered when its time is up, and who finds all threads busy is answered at once.

    `busy` is how many calls wait or run.
    """

    def __init__(
        self,
        threads: int = THREADS,
        *,
        most_waiting: int = MOST_WAITING,
        seconds: float = LONGEST_SECONDS,
    ) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="console")
        self._most_waiting = most_waiting
        self._seconds = seconds
        self.busy = 0

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `work` returns, or raise what it raises.

        Raises:
            Problem: 503, all threads are busy, or it took longer than `seconds`; the
                call goes on then, and what it returns is lost.
        """
        if self.busy >= self._most_waiting:
            raise Problem(503, "The console is busy: try again.", headers={"Retry-After": "1"})
        self.busy += 1
        call = functools.partial(work, *args, **kwargs)
        future = asyncio.get_running_loop().run_in_executor(self._pool, call)
        future.add_done_callback(self._done)
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.shield(future)
        except TimeoutError:
            if future.done():  # it was the call's own
                raise
            text = "The database or the disk does not answer: try again later."
            raise Problem(503, text, headers={"Retry-After": "5"}) from None

    def close(self) -> bool:
        """Accept no more work; return whether none is left that somebody would have to wait for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        return not self.busy

    def _done(self, future: asyncio.Future[T]) -> None:
        self.busy -= 1
        if not future.cancelled():
            future.exception()  # seen: whoever waited may be gone


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file of ours that pages load, compressed once where that helps."""

    content: bytes
    compressed: bytes | None
    media_type: str


def static_files() -> dict[str, StaticFile]:
    """Return the files of `static/` by name; `receiver/console/static` has no folders."""
    found = {}
    for file in importlib.resources.files(_PACKAGE).joinpath("static").iterdir():
        if file.is_file() and not file.name.startswith("."):
            content = file.read_bytes()
            media_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            helps = media_type.startswith(_TEXT_TYPES)
            packed = gzip.compress(content, mtime=0) if helps else None
            found[file.name] = StaticFile(content, packed, media_type)
    return found


@dataclass(slots=True)
class Console:
    """The parts of a running console; one for each process."""

    config: Config
    catalogue: Catalogue
    accounts: Accounts
    sessions: Sessions
    tokens: ApiTokens
    ledger: Ledger
    live: LiveCalls
    notifier: Notifier
    provider: Provider | None = None  # of OpenID Connect
    threads: Threads = field(default_factory=Threads)
    encoded: EncodedFiles = field(default_factory=EncodedFiles)
    loaded: LoadedMinutes = field(default_factory=LoadedMinutes)
    encoding: Threads = field(default_factory=lambda: Threads(2, most_waiting=16, seconds=900.0))
    static: Mapping[str, StaticFile] = field(default_factory=static_files)
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    throttle: SignInThrottle = field(default_factory=SignInThrottle)
    proxies: tuple[IPv4Network | IPv6Network, ...] = field(init=False)
    templates: jinja2.Environment = field(init=False)
    static_version: str = field(init=False)

    def __post_init__(self) -> None:
        self.proxies = tuple(map(ipaddress.ip_network, self.config.trusted_proxy))
        digest = hashlib.sha256()
        for name, file in sorted(self.static.items()):
            digest.update(name.encode() + b"\0" + file.content)
        self.static_version = digest.hexdigest()[:12]
        self.templates = jinja2.Environment(
            autoescape=True,
            loader=jinja2.PackageLoader(_PACKAGE),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.filters |= views.FILTERS
        self.templates.globals |= {"static": self.static_url, "version": __version__}

    async def enter(self, who: Who, act: Act, recording: str = "", **details: Any) -> None:
        """Enter into the ledger what somebody is about to do; return when it is on disk.

        Raises:
            LedgerError: it cannot be entered, so it must not be done.
        """
        await self.threads.run(self.enter_now, who, act, recording, **details)

    def enter_now(self, who: Who, act: Act, recording: str = "", **details: Any) -> None:
        """Do what `enter` does, in the thread that calls, which waits for the disk."""
        try:
            self.ledger.append(act, who=who.name, via=who.way, recording=recording, **details)
        except UnsafeFolderError as error:
            raise LedgerError(str(error)) from error

    @property
    def is_secure(self) -> bool:
        """Whether browsers reach the console by https, so that cookies can insist on it."""
        if self.config.public_url is not None:
            return self.config.public_url.startswith("https:")
        return not self.config.no_tls or self.config.behind_proxy

    def static_url(self, name: str) -> str:
        """Return the path of a file of `static/`; it changes with any of them.

        Raises:
            KeyError: there is no such file.
        """
        if name not in self.static:
            raise KeyError(name)
        return f"/static/{self.static_version}/{name}"


def console_of(connection: HTTPConnection) -> Console:
    """Return the console that a request came to."""
    console: Console = connection.app.state.console
    return console


def who_asks(connection: HTTPConnection) -> Who:
    """Return who asks, where the route's role lets nobody else through."""
    who: Who = connection.state.who
    return who


def page_response(
    request: Request, template: str, context: Mapping[str, Any], status: int = 200
) -> Response:
    """Return a page; beside its context a template has `who`, `csrf`, `path` and `static(name)`."""
    console, who = console_of(request), getattr(request.state, "who", None)
    text = console.templates.get_template(template).render(
        context,
        who=who,
        csrf="" if who is None else who.csrf_token(console.secret),
        path=request.url.path,
    )
    return text_response(request, text, "text/html", status)


def json_response(request: Request, content: object, status: int = 200) -> Response:
    """Return anything that msgspec can encode as JSON."""
    return text_response(request, msgspec.json.encode(content), "application/json", status)


def text_response(
    request: Request, content: str | bytes, media_type: str, status: int = 200
) -> Response:
    """Return a text, compressed where the browser takes that and it is worth it."""
    body = content.encode("utf-8", "replace") if isinstance(content, str) else content
    headers = {"Vary": "Accept-Encoding, Cookie"}
    if len(body) >= _SMALLEST_COMPRESSED and takes_gzip(request):
        body = gzip.compress(body, 5, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Response(body, status, headers, media_type)


def takes_gzip(request: Request) -> bool:
    """Return whether whoever asks can read a compressed answer."""
    return "gzip" in request.headers.get("accept-encoding", "")
