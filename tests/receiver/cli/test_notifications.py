"""`receiver webhook list`, `resend`, `test`."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from receiver.catalogue.database import open_database
from receiver.cli import main
from receiver.notifications import events, outbox
from receiver.notifications.events import OutboxEvent
from receiver.notifications.expectations import MISSING, Expectations
from receiver.notifications.http_client import PostAnswer
from receiver.notifications.outbox import Outbox
from receiver.notifications.webhooks import WebhookEndpoint
from tests.bounds import at_most
from tests.receiver.helpers import hooks
from tests.receiver.helpers.hooks import SECRET, Hook, hook
from tests.receiver.helpers.secret_files import secret

pytestmark = pytest.mark.integration
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return what runs `receiver webhook`, and returns exit code, stdout and stderr."""
    (tmp_path / "recordings").mkdir()
    monkeypatch.setenv("TAPREEL_CONFIG", str(tmp_path / "tapreel.toml"))
    configure(tmp_path, "https://crm.example.com/very-secret")

    def command(*arguments: str) -> tuple[int, str, str]:
        code = main.main(("webhook", *arguments))
        return (code, *capsys.readouterr())

    return command


def configure(folder: Path, url: str) -> None:
    """Write settings with one webhook."""
    path = secret(folder / "secret", SECRET)
    text = f'recordings = "{folder}/recordings"\n[[webhook]]\nurl = "{url}"\n'
    text += f'secret_file = "{path}"\nname = "crm"\nallow_private = true\n'
    (folder / "tapreel.toml").write_text(text)


@pytest.fixture
def numbers(tmp_path: Path) -> list[int]:
    """Put three deliveries into the outbox: one delivered, one dead, one waiting."""
    database = open_database(None, tmp_path / "recordings")
    made = Outbox(database)
    found = [
        OutboxEvent(f"evt_{n}", events.PUBLISHED, "now", {"recording_id": f"{n:016x}"})
        for n in range(3)
    ]
    with database.writing() as connection:
        outbox.add(connection, found, [WebhookEndpoint("crm", events.TYPES)])
    for answer in (PostAnswer(200), PostAnswer(410, "it answered 410")):
        made.settle(made.claim("crm", 1)[0], answer)
    numbers = [delivery.n for delivery in reversed(made.page())]
    database.close()
    return numbers


def test_the_list_shows_webhooks_and_what_came_of_each(run: Run, numbers: list[int]) -> None:
    """And nothing of a URL that may be secret."""
    code, out, err = run("list")
    assert (0, "") == (code, err)
    lines = out.splitlines()
    assert "crm" in lines[0]
    assert "https://crm.example.com/… " in lines[0]
    assert lines[0].endswith(" 1 waiting, 1 delivered, 1 dead")
    assert 4 == len(lines)
    assert "it answered 410" in out
    assert "secret" not in out
    assert 2 == len(run("list", "--state", "dead")[1].splitlines())
    document = json.loads(run("list", "--json", "--limit", "1")[1])
    assert ["waiting"] == [each["state"] for each in document["deliveries"]]
    assert 1 == document["webhooks"][0]["dead"]


def test_deliveries_are_made_again(run: Run, numbers: list[int]) -> None:
    """By their numbers, or all that are dead."""
    code, out, _ = run("resend", str(numbers[0]))
    assert (0, "recording.published of evt_0 will be sent to crm again\n") == (code, out)
    assert (0, "0 deliveries will be made again\n", "") == run(
        "resend", "--dead", "--endpoint", "other"
    )
    assert (0, "1 deliveries will be made again\n", "") == run("resend", "--dead")
    assert (5, "", "receiver: there is no delivery 999\n") == run("resend", "999")
    for arguments in ((), ("--dead", "1")):
        assert 2 == run("resend", *arguments)[0]


@pytest.fixture
def served() -> Iterator[Hook]:
    """Yield a server in a thread of its own, because the command has this one."""
    made: list[Hook] = []
    started, stopping = threading.Event(), threading.Event()

    async def serve() -> None:
        async with hook() as each:
            made.append(each)
            started.set()
            await asyncio.to_thread(stopping.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(at_most(20))
    yield made[0]
    stopping.set()
    thread.join()


def test_a_webhook_is_tried_out(run: Run, tmp_path: Path, served: Hook) -> None:
    """Now and once; what came of it is said."""
    configure(tmp_path, served.url)
    code, out, _ = run("test", "crm")
    assert 0 == code
    assert f"{served.url} answered 204 in " in out
    assert ["webhook.test"] == [event["type"] for event in served.verified()]
    served.answer = hooks.status(500)
    code, _, err = run("test", "crm")
    assert (7, f"receiver: {served.url} did not accept it: it answered 500\n") == (code, err)
    code, _, err = run("test", "other")
    assert (5, "receiver: there is no webhook 'other'; there are: crm\n") == (code, err)


def test_streams_that_did_not_come_are_listed(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By `receiver list --state missing`, of one call or one parameter."""
    database = open_database(None, tmp_path / "recordings")
    kept = Expectations(database, 0.0)
    for number in (1, 2):
        kept.add(f"c{number}", name="n", parameters={"queue": f"q{number}"})
    while len(kept.page([MISSING])) < 2:
        kept.sweep([])
    kept.add("c3")
    database.close()

    def listed(*arguments: str) -> str:
        assert 0 == main.main(("list", *arguments))
        return capsys.readouterr().out

    assert 2 == len(listed("--state", "missing").splitlines())
    assert "nobody said what the provider answered" in listed("state=missing", "call=c1")
    (found,) = json.loads(listed("--state", "missing", "--param", "queue=q2", "--json"))
    assert "c2" == found["call_sid"]
    assert 2 == main.main(("list", "--state", "missing", "label=x"))
    assert "only call and param.NAME" in capsys.readouterr().err


def test_settings_without_webhooks(run: Run, tmp_path: Path) -> None:
    """It says what to write where; and where there is no folder, too."""
    (tmp_path / "tapreel.toml").write_text(f'recordings = "{tmp_path}/recordings"\n')
    code, out, err = run("list")
    assert (0, "") == (code, out)
    assert "[[webhook]]" in err
    (tmp_path / "tapreel.toml").write_text(f'recordings = "{tmp_path}/nowhere"\n')
    assert 3 == run("list")[0]
