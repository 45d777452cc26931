"""The simulated REST API: answers requests, starts and stops streams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime

from starter.models import StreamRequest, Target
from starter.simulator.calls import Result
from starter.simulator.live_stream import LiveStream, SimulatedCalls
from starter.simulator.provider_rules import (
    Account,
    Address,
    HttpReply,
    HttpRequest,
    Refusal,
    check_caller,
    check_stop,
    invalid,
    read_address,
    read_form,
    read_stream_request,
)


class Provider:
    """One account and its streams. Used on the event loop only.

    Every well-formed call sid is live, unless the options name the one that is. A stream
    ends when its audio does or when it is stopped; `on_end` gets what was sent, or why it failed.
    """

    def __init__(
        self, account: Account, calls: SimulatedCalls, *, on_end: Callable[[Result], None]
    ) -> None:
        self._account = account
        self._calls = calls
        self._on_end = on_end
        self._streams: list[LiveStream] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def answer(self, request: HttpRequest) -> HttpReply:
        """Answer one request of the REST API; streams go on in the background."""
        try:
            check_caller(request, self._account)
            address = read_address(request, self._account)
            self._check_live(address)
            form = read_form(request, address.target)
            if address.stream is None:
                return self._start(address, read_stream_request(form, address.target))
            check_stop(form, address.target)
            return self._stop(address, address.stream)
        except Refusal as refusal:
            return refusal.reply()

    async def close(self) -> None:
        """Stop all streams and wait for their ends; may be called again."""
        for stream in self._streams:
            stream.stop()
        await asyncio.gather(*self._tasks)

    def _check_live(self, address: Address) -> None:
        live = self._calls.options.call_sid
        if live and address.target is Target.CALL and address.sid != live:
            raise Refusal(404, 20404, "No such call")

    def _start(self, address: Address, order: StreamRequest) -> HttpReply:
        siblings = [one for one in self._streams_of(address) if one.live]
        if order.name and any(one.is_named(order.name) for one in siblings):
            raise invalid(address.target, "Duplicated stream name")
        # which call sid a conference's stream carries is not documented: here the conference's
        identity = replace(
            self._calls.options.identity(),
            account_sid=self._account.project_id,
            call_sid=address.sid,
        )
        stream = LiveStream(order, identity, address.target, self._calls)
        self._streams.append(stream)
        task = asyncio.get_running_loop().create_task(self._run(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return HttpReply(200, describe(stream))

    def _stop(self, address: Address, sid_or_name: str) -> HttpReply:
        # as the `uri` of our answers ends, but a name may end so, too
        for given in (sid_or_name, sid_or_name.removesuffix(".json")):
            # the latest first: a name may be used again once its stream has ended
            for stream in reversed(self._streams_of(address)):
                if stream.is_named(given):
                    stream.stop()
                    return HttpReply(200, describe(stream) | {"status": "stopped"})
        raise Refusal(404, 20404, "No such stream")

    def _streams_of(self, address: Address) -> list[LiveStream]:
        return [
            stream
            for stream in self._streams
            if (stream.target, stream.identity.call_sid) == (address.target, address.sid)
        ]

    async def _run(self, stream: LiveStream) -> None:
        self._on_end(await stream.run())


def describe(stream: LiveStream) -> dict[str, str | None]:
    """A stream as the REST API answers it."""
    target, identity = stream.target, stream.identity
    sid, owner_sid, account_sid = identity.stream_sid, identity.call_sid, identity.account_sid
    call = target is Target.CALL
    path = f"/api/laml/2010-04-01/Accounts/{account_sid}/{target}/{owner_sid}/Streams/{sid}.json"
    return {
        "sid": sid,
        "account_sid": account_sid,
        "call_sid" if call else "conference_sid": owner_sid,
        # by the description a call's stream always has a name, a conference's may have none
        "name": stream.order.name or (sid if call else None),
        "status": stream.status,
        "date_updated": format_datetime(datetime.now(UTC)),
        "uri": path,
    }
