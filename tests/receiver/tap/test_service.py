"""What is answered before anybody may listen."""

from __future__ import annotations

from collections.abc import Coroutine

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from receiver.tap import service
from receiver.tap.listener import Listener
from receiver.transports.interface import UpgradeRequest
from tests.receiver.helpers.serving import (
    HEADERS,
    TapServer,
    read_text,
)

pytestmark = pytest.mark.integration


async def test_strangers_get_no_answer_about_bad_queries(server: TapServer) -> None:
    """The token comes first: 401 before any 400."""
    url = f"ws://127.0.0.1:{server.transport.port}/tap/x?" + "&".join(f"a{n}=" for n in range(200))
    for headers, status in ((None, 401), (HEADERS, 400)):
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, additional_headers=headers, proxy=None)
        assert status == refused.value.response.status_code


async def test_without_resampler_there_is_no_other_rate(
    server: TapServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """501 names the extra that is missing; a stream's own rate needs none."""
    monkeypatch.setattr(service, "can_resample", lambda: False)
    call = server.open_stream().live.call_sid
    with pytest.raises(InvalidStatus) as refused:
        await server.connect(f"{call}?rate=16000")
    assert 501 == refused.value.response.status_code
    assert b"tapreel[dsp]" in (refused.value.response.body or b"")
    async with server.connect(f"{call}?rate=8000") as listener:
        assert 8000 == (await read_text(listener))["rate"]


async def test_decoders_are_imported_for_the_first_listener_to_samples(server: TapServer) -> None:
    """In a thread: until then its admission is awaited, and nobody else waits."""
    path, tokens = f"/tap/{server.open_stream().live.call_sid}", tuple(HEADERS.values())

    def admit(query: str) -> object:
        return server.taps.admit(UpgradeRequest("GET", path, query, tokens, "127.0.0.1"))

    assert isinstance(admit("format=messages"), Listener)
    first = admit("")
    assert isinstance(first, Coroutine)
    assert isinstance(await first, Listener)
    assert isinstance(admit(""), Listener)
