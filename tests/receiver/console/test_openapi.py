"""The description of the API, compared with the server that runs."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from hypothesis import HealthCheck, Phase, settings

from receiver.console.api import OPERATIONS, described
from receiver.console.openapi import API
from receiver.console.who import Role
from tests.bounds import at_most, examples
from tests.receiver.helpers import recordings_builder
from tests.receiver.helpers.consoles import serving

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


def test_every_operation_is_described_once() -> None:
    """With its role, its errors and what it gives."""
    found = described()
    assert "3.1.0" == found["openapi"]
    rows = {(o.method.lower(), f"{API}{o.described_path}") for o in OPERATIONS}
    assert len(OPERATIONS) == len(rows)
    methods = {(method, path) for path, at in found["paths"].items() for method in at}
    assert rows == methods
    identities = [o["operationId"] for at in found["paths"].values() for o in at.values()]
    assert len(set(identities)) == len(identities)


class Serving:
    """A console in a thread of its own, with a recording; `url`, and the header of an admin."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started, self._stopping = threading.Event(), threading.Event()
        self.url, self.headers = "", dict[str, str]()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._started.wait(at_most(60))

    async def _serve(self) -> None:
        recordings_builder.build(self._folder / "recordings")
        async with serving(self._folder) as served:
            await served.settled()
            self.url, self.headers = served.url, served.token("boss", Role.ADMIN)
            self._started.set()
            await asyncio.to_thread(self._stopping.wait)

    def close(self) -> None:
        """End it."""
        self._stopping.set()
        self._thread.join()


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Yield a console for all cases."""
    found = Serving(tmp_path_factory.mktemp("console"))
    yield found
    found.close()


@functools.cache
def operations() -> dict[str, Any]:
    """Return the operations by label, as the library has them.

    It is imported, and thinks of its cases, only where they are used: every process that collects
    tests would do so else, also where it runs others.
    """
    import schemathesis

    schema: Any = schemathesis.openapi.from_dict(described())
    return {each.ok().label: each.ok() for each in schema.get_all_operations()}


LABELS: Final = sorted(f"{o.method.upper()} {API}{o.described_path}" for o in OPERATIONS)


@pytest.mark.parametrize("label", LABELS)
def test_the_server_is_as_it_is_described(label: str, console: Serving) -> None:
    """Whatever is sent, good or bad: status, type, body and headers are as described."""
    from schemathesis.generation.hypothesis import builder

    @settings(
        max_examples=examples(4),
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        case.call_and_validate(base_url=console.url, headers=console.headers, timeout=at_most(30))

    operation = operations()[label]
    modes = list(builder.HypothesisTestMode)
    config = builder.HypothesisTestConfig(project=operation.schema.config, modes=modes)
    builder.create_test(operation=operation, test_func=ask, config=config)()


def test_the_description_is_served_to_everybody(console: Serving) -> None:
    """It is no secret."""
    answer = httpx.get(f"{console.url}api/v1/openapi.json", timeout=at_most(20))
    assert described()["paths"].keys() == answer.json()["paths"].keys()
