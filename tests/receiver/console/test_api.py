"""The API over a real socket: its operations, its description, what limited callers get."""

from __future__ import annotations

import asyncio
import base64
import functools
import hmac
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver.config.settings import Webhook
from receiver.console.who import Role
from receiver.lifecycle.ledger import EntryFilter, Ledger
from receiver.notifications.events import OutboxEvent
from receiver.notifications.outbox import add
from receiver.recording.document import PreviousRecording, has_hash, is_intact
from tests.bounds import at_most
from tests.receiver.helpers import hooks
from tests.receiver.helpers import recordings_builder as builder
from tests.receiver.helpers.consoles import Served, serving
from tests.receiver.helpers.secret_files import secret

pytestmark = pytest.mark.integration
SALES, SUPPORT = "0000000000000001", "0000000000000002"
AT = "/api/v1/recordings"


def publish(folder: Path) -> None:
    """Put two recordings of different queues into the folder of a console."""
    for number, (recording_id, queue) in enumerate(((SALES, "sales"), (SUPPORT, "support"))):
        builder.build(
            folder / "recordings",
            recording_id=recording_id,
            started_at_ms=builder.STARTED_AT_MS + number,
            parameters={"queue": queue},
            call_sid=f"call-of-{queue}",
        )


def entered(served: Served, *what: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Return what is in the ledger of these words, the oldest first."""
    ledger = Ledger(served.console.config.recordings)
    found = [
        (e.who, e.recording, e.details) for e in ledger.read(EntryFilter(what=frozenset(what)))
    ]
    return found[::-1]


async def test_recordings_are_found_page_by_page(tmp_path: Path) -> None:
    """`next` leads on; a word that is none is named."""
    publish(tmp_path)
    async with serving(tmp_path) as served, served.browser() as program:
        await served.settled()
        program.headers.update(served.token("program", Role.VIEWER))
        page = (await program.get(AT, params={"limit": "1", "param.queue": "s*"})).json()
        assert (SUPPORT, 2) == (page["recordings"][0]["id"], page["total"])
        rest = (await program.get(page["next"])).json()
        assert (SALES, None) == (rest["recordings"][0]["id"], rest["next"])
        wrong = await program.get(AT, params={"quue": "sales"})
        assert (400, "quue") == (wrong.status_code, wrong.json()["word"])
        facets = (await program.get("/api/v1/facets", params={"from": "2026-01-01"})).json()
        assert 2 == facets["counted"]
        call = (await program.get("/api/v1/calls/call-of-sales")).json()
        assert [SALES] == [row["id"] for row in call]
        assert 404 == (await program.get("/api/v1/calls/nobody")).status_code
        me = (await program.get("/api/v1/me")).json()
        assert {"name": "program", "role": "viewer", "parameters": {}} == me


async def test_a_track_is_fetched_whole_and_in_parts(tmp_path: Path) -> None:
    """What goes out is in the ledger first, each time."""
    publish(tmp_path)
    async with serving(tmp_path) as served, served.browser() as program:
        await served.settled()
        program.headers.update(served.token("program", Role.LISTENER))
        path = f"{AT}/{SALES}/inbound.wav"
        (file,) = (tmp_path / "recordings").rglob(f"*-{SALES}/inbound.wav")
        content, size = file.read_bytes(), file.stat().st_size
        whole = await program.get(path)
        assert (200, "audio/wav", content) == (
            *(whole.status_code, whole.headers["content-type"]),
            whole.content,
        )
        etag = whole.headers["etag"]
        for text, start, stop in (
            ("bytes=0-99", 0, 100),
            ("bytes=100-", 100, size),
            ("bytes=-7", size - 7, size),
            (f"bytes=0-{10 * size}", 0, size),
        ):
            part = await program.get(path, headers={"Range": text, "If-Range": etag})
            assert (206, f"bytes {start}-{stop - 1}/{size}", content[start:stop]) == (
                *(part.status_code, part.headers["content-range"]),
                part.content,
            )
        beyond = await program.get(path, headers={"Range": f"bytes={size}-"})
        assert (416, f"bytes */{size}") == (beyond.status_code, beyond.headers["content-range"])
        for text in ("bytes=5-1", "bytes=0-1,5-9", "lines=1-2", "bytes=a-b", "bytes=-"):
            assert 200 == (await program.get(path, headers={"Range": text})).status_code
        stale = await program.get(path, headers={"Range": "bytes=0-1", "If-Range": '"old"'})
        assert 200 == stale.status_code
        same = await program.get(path, headers={"If-None-Match": etag})
        assert (304, b"") == (same.status_code, same.content)
        head = await program.head(path)
        assert (str(size), "bytes") == (
            head.headers["content-length"],
            head.headers["accept-ranges"],
        )
        heard = entered(served, "heard")
        assert {("program", SALES)} == {(who, recording) for who, recording, _ in heard}
        assert [0.0, pytest.approx(100 / size, abs=0.001)] == [
            heard[0][2]["from_s"],
            heard[0][2]["to_s"],
        ]
        assert 1.0 == heard[1][2]["to_s"]
        assert 3 == len(heard)
        assert 206 == (await program.get(path, headers={"Range": "bytes=0-99"})).status_code
        again = entered(served, "heard")
        assert (4, heard[0]) == (len(again), again[3])
        assert 8 == len(entered(served, "downloaded"))


async def test_a_page_that_plays_is_entered_by_the_minute(tmp_path: Path) -> None:
    """What it played it reports; a session needs the token of a form for that."""
    publish(tmp_path)
    async with serving(tmp_path) as served:
        await served.settled()
        served.add("jane", Role.LISTENER)
        async with await served.signed_in("jane") as browser:
            path = f"{AT}/{SALES}/stereo.wav"
            for start in (0, 1000, 2000):
                part = await browser.get(path, headers={"Range": f"bytes={start}-{start + 999}"})
                assert 206 == part.status_code
            span = {"file": "stereo.wav", "from_s": 0.0, "to_s": 1.0}
            assert [("jane", SALES, span)] == entered(served, "fetched")
            report = {"from_s": 0.25, "to_s": 7.5}
            assert 403 == (await browser.post(f"{AT}/{SALES}/heard", json=report)).status_code
            page = (await browser.get("/")).text
            csrf = page.partition('name="csrf" value="')[2].partition('"')[0]
            browser.headers["X-CSRF-Token"] = csrf
            assert 204 == (await browser.post(f"{AT}/{SALES}/heard", json=report)).status_code
            heard = [("jane", SALES, {"from_s": 0.25, "to_s": 1.0})]
            assert heard == entered(served, "heard")
            for bad in ({"from_s": 2, "to_s": 3}, {"from_s": 0.5, "to_s": 0.5}):
                assert 422 == (await browser.post(f"{AT}/{SALES}/heard", json=bad)).status_code


async def test_other_files_and_formats(tmp_path: Path) -> None:
    """The document as it is, FLAC, Opus, and all as an archive."""
    publish(tmp_path)
    async with serving(tmp_path) as served, served.browser() as program:
        await served.settled()
        program.headers.update(served.token("program", Role.LISTENER))
        (document,) = (tmp_path / "recordings").rglob(f"*-{SALES}/recording.json")
        answer = await program.get(f"{AT}/{SALES}/recording.json")
        assert document.read_bytes() == answer.content
        assert 404 == (await program.get(f"{AT}/{SALES}/peaks.dat")).status_code
        for name, start in (
            ("inbound.flac", b"fLaC"),
            ("stereo.opus", b"OggS"),
            ("all.zip", b"PK"),
        ):
            answer = await program.get(f"{AT}/{SALES}/{name}")
            assert (200, start) == (answer.status_code, answer.content[: len(start)])
        details = (await program.get(f"{AT}/{SALES}")).json()
        for path in details["files"]:
            assert (await program.get(path)).status_code in (200, 404), path
        assert f"{AT}/{SALES}/stereo.flac" in details["files"]


async def test_several_are_fetched_as_one_archive(tmp_path: Path) -> None:
    """Each is in the ledger; one that cannot be read is told of, and costs the others nothing."""
    publish(tmp_path)
    async with serving(tmp_path) as served, served.browser() as program:
        await served.settled()
        program.headers.update(served.token("program", Role.LISTENER))
        path = f"{AT}/recordings.zip"
        answer = await program.post(path, json={"ids": [SALES, SUPPORT, SALES]})
        assert (200, "application/zip") == (answer.status_code, answer.headers["content-type"])
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert archive.testzip() is None
            folders = [Path(name).parent.name[-16:] for name in archive.namelist()]
        assert {SALES, SUPPORT} == set(folders)
        assert [SALES, SUPPORT] == [each[1] for each in entered(served, "downloaded")]
        (document,) = (tmp_path / "recordings").rglob(f"*-{SALES}/recording.json")
        document.write_text("{")
        answer = await program.post(path, json={"ids": [SALES, SUPPORT]})
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            (told,) = (name for name in archive.namelist() if name.endswith("unreadable.txt"))
            assert SALES in told
            assert b"cannot be read" in archive.read(told)
        assert [SALES, SUPPORT, SUPPORT] == [each[1] for each in entered(served, "downloaded")]
        assert 503 == (await program.post(path, json={"ids": [SALES]})).status_code
        assert 404 == (await program.post(path, json={"ids": [SUPPORT, "0" * 16]})).status_code
        for bad in ([], ["x"], ["0" * 16] * 501):
            assert 400 == (await program.post(path, json={"ids": bad})).status_code


async def test_a_part_before_that_is_hidden_is_in_no_file(tmp_path: Path) -> None:
    """The document that is sent names it not, and is whole nevertheless."""
    recordings, before = tmp_path / "recordings", PreviousRecording(SUPPORT, "hidden-sid", 7)
    builder.build(recordings, recording_id=SUPPORT, parameters={"queue": "support"})
    builder.build(recordings, recording_id=SALES, parameters={"queue": "sales"}, previous=before)
    async with serving(tmp_path) as served, served.browser() as program:
        await served.settled()
        everything = served.token("all", Role.LISTENER)
        limited = served.token("limited", Role.LISTENER, {"queue": "sales"})
        for name in ("recording.json", "all.zip"):
            path = f"{AT}/{SALES}/{name}"
            seen = (await program.get(path, headers=limited)).content
            known = (await program.get(path, headers=everything)).content
            assert (False, True) == (b"hidden-sid" in seen, b"hidden-sid" in known)
        answer = await program.get(f"{AT}/{SALES}/recording.json", headers=limited)
        assert is_intact(answer.content)
        assert has_hash(answer.content)
        headers = everything | {"If-None-Match": answer.headers["etag"]}
        again = await program.get(f"{AT}/{SALES}/recording.json", headers=headers)
        assert 200 == again.status_code  # what another one has kept is not the same


async def test_nothing_goes_out_that_the_ledger_does_not_take(tmp_path: Path) -> None:
    """A folder that cannot be written is like a full disk."""
    publish(tmp_path)
    async with serving(tmp_path) as served, served.browser() as program:
        await served.settled()
        headers = served.token("program", Role.MANAGER)
        (tmp_path / "recordings" / ".ledger").write_text("in the way")
        for name in ("inbound.wav", "stereo.opus", "all.zip"):
            answer = await program.get(f"{AT}/{SALES}/{name}", headers=headers)
            assert 503 == answer.status_code, name
            assert "Nothing was done" in answer.json()["detail"]
        noted = await program.post(f"{AT}/{SALES}/notes", json={"text": "x"}, headers=headers)
        assert 503 == noted.status_code


async def test_labels_notes_and_holds_come_and_go(tmp_path: Path) -> None:
    """They are found at once, and in the ledger with who did it."""
    publish(tmp_path)
    async with serving(tmp_path) as served, served.browser() as program:
        await served.settled()
        program.headers.update(served.token("program", Role.MANAGER))
        at = f"{AT}/{SALES}"
        assert 201 == (await program.post(f"{at}/labels", json={"name": "a/b ü"})).status_code
        note = (await program.post(f"{at}/notes", json={"text": "hm", "t_ms": 500})).json()
        assert (500, "program") == (note["t_ms"], note["by"])
        assert 201 == (await program.post(f"{at}/hold", json={"reason": "case 1"})).status_code
        found = (await program.get(AT, params={"label": "a/b ü", "held": "yes"})).json()
        assert [SALES] == [row["id"] for row in found["recordings"]]
        first = await program.get(at)
        etag = first.headers["etag"]
        assert 304 == (await program.get(at, headers={"If-None-Match": etag})).status_code
        taken = await program.post(f"{at}/hold", json={"reason": "another"})
        assert 422 == taken.status_code
        for path in ("labels/a%2Fb%20%C3%BC", f"notes/{note['id']}", "hold"):
            assert 204 == (await program.delete(f"{at}/{path}")).status_code, path
            assert 404 == (await program.delete(f"{at}/{path}")).status_code, path
        assert 200 == (await program.get(at, headers={"If-None-Match": etag})).status_code
        words = ("labelled", "noted", "held", "unlabelled", "note_removed", "released")
        assert len(words) == len(entered(served, *words))
        history = (await program.get(f"{at}/ledger", params={"limit": "2"})).json()
        assert ["released", "note_removed"] == [entry["what"] for entry in history["entries"]]
        rest = (await program.get(history["next"])).json()
        assert "unlabelled" == rest["entries"][0]["what"]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{}", "application/json", 400),
        (b"[", "application/json", 400),
        (b'{"name": 5}', "application/json", 400),
        (b'{"name": "x", "more": 1}', "application/json", 400),
        (b'{"name": ""}', "application/json", 400),
        (b'{"name": "a\\u0000b"}', "application/json", 422),
        (b'{"name": "\xff"}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"name=x", "application/x-www-form-urlencoded", 415),
        (b'{"name": "x"}', "text/plain", 415),
    ],
)
async def test_a_body_that_cannot_be_used_is_refused(
    served: Served, tmp_path: Path, content: bytes, kind: str, status: int
) -> None:
    """With a problem document."""
    builder.build(tmp_path / "recordings", recording_id=SALES)
    served.console.catalogue.reconcile()
    headers = served.token("program", Role.MANAGER) | {"Content-Type": kind}
    async with served.browser() as program:
        answer = await program.post(f"{AT}/{SALES}/labels", content=content, headers=headers)
        assert (status, status) == (answer.status_code, answer.json()["status"])


async def test_what_is_out_of_scope_does_not_exist(tmp_path: Path) -> None:
    """Every path answers as for a recording that never was."""
    publish(tmp_path)
    async with serving(tmp_path) as served, served.browser() as program:
        await served.settled()
        program.headers.update(served.token("program", Role.MANAGER, {"queue": "sales"}))
        assert 200 == (await program.get(f"{AT}/{SALES}/inbound.wav")).status_code
        for path in ("", "/inbound.wav", "/stereo.opus", "/all.zip", "/recording.json", "/ledger"):
            answers = [await program.get(f"{AT}/{i}{path}") for i in (SUPPORT, "0" * 16)]
            assert [404, 404] == [answer.status_code for answer in answers], path
            details = [{**answer.json(), "request_id": ""} for answer in answers]
            assert details[0] == details[1]
        for path, body in (("labels", {"name": "x"}), ("hold", {"reason": "x"})):
            answer = await program.post(f"{AT}/{SUPPORT}/{path}", json=body)
            assert 404 == answer.status_code
        found = (await program.get(AT)).json()
        assert ([SALES], 1) == ([row["id"] for row in found["recordings"]], found["total"])
        asked = (await program.get(AT, params={"param.queue": "support"})).json()
        assert 0 == asked["total"]
        facets = await program.get("/api/v1/facets", params={"from": "2026-01-01"})
        assert "support" not in facets.text
        assert 404 == (await program.get("/api/v1/calls/call-of-support")).status_code


async def test_a_limited_admin_manages_no_accounts(served: Served) -> None:
    """Who could make an account without limits would have none."""
    headers = served.token("boss", Role.ADMIN, {"queue": "sales"})
    async with served.browser() as program:
        for path in ("users", "ledger"):
            answer = await program.get(f"/api/v1/{path}", headers=headers)
            assert 403 == answer.status_code
        body = {"name": "free", "role": "admin"}
        made = await program.post("/api/v1/users", json=body, headers=headers)
        assert 403 == made.status_code


async def test_accounts_are_managed_by_programs_too(served: Served) -> None:
    """As by `receiver user`."""
    async with served.browser() as program:
        program.headers.update(served.token("boss", Role.ADMIN))
        body = {"name": "Jane", "role": "listener", "parameters": {"queue": "sales"}}
        made = await program.post("/api/v1/users", json=body)
        assert (201, "jane") == (made.status_code, made.json()["name"])
        assert 409 == (await program.post("/api/v1/users", json=body)).status_code
        token = (await program.post("/api/v1/users/jane/tokens", json={"days": 1})).json()
        headers = {"Authorization": f"Bearer {token['token']}"}
        assert "jane" == (await program.get("/api/v1/me", headers=headers)).json()["name"]
        change = {"role": "viewer", "parameters": {}}
        changed = await program.patch("/api/v1/users/jane", json=change)
        assert ("viewer", {}) == (changed.json()["role"], changed.json()["parameters"])
        too_much = await program.post("/api/v1/users/jane/tokens", json={"role": "admin"})
        assert 409 == too_much.status_code
        assert 204 == (await program.post("/api/v1/users/jane/sign_out")).status_code
        listed = (await program.get("/api/v1/users")).json()
        assert ["boss", "jane"] == [account["name"] for account in listed]
        assert token["token"] not in json.dumps(listed)
        assert 204 == (await program.delete(f"/api/v1/tokens/{token['id']}")).status_code
        assert 401 == (await program.get("/api/v1/me", headers=headers)).status_code
        assert 204 == (await program.delete("/api/v1/users/jane")).status_code
        assert 404 == (await program.delete("/api/v1/users/jane")).status_code
        words = {entry["what"] for entry in (await program.get("/api/v1/ledger")).json()["entries"]}
        assert {"user_added", "user_changed", "token_made", "token_revoked"} <= words


async def test_streams_are_expected_by_programs(tmp_path: Path) -> None:
    """Within the limits of who asks."""
    async with serving(tmp_path) as served:
        limited = served.token("sam", Role.MANAGER, {"queue": "sales"})
        async with served.browser(headers=limited) as program:
            at = "/api/v1/expectations"
            body = {"call_sid": "c1", "parameters": {"queue": "support"}}
            assert 403 == (await program.post(at, json=body)).status_code
            body = {"call_sid": "c1", "name": "n1", "parameters": {"queue": "sales"}}
            made = await program.post(at, json=body)
            assert (201, "asked") == (made.status_code, made.json()["state"])
            mine = made.json()["id"]
            accepted = {"state": "accepted", "stream_sid": "s1"}
            answer = await program.patch(f"{at}/{mine}", json=accepted)
            assert ("accepted", "s1") == (answer.json()["state"], answer.json()["stream_sid"])
            for path, sent, code in (
                (f"{at}/exp_x", accepted, 404),
                (f"{at}/{mine}", {"state": "recorded"}, 400),
            ):
                assert code == (await program.patch(path, json=sent)).status_code
        async with served.browser(headers=served.token("bot", Role.MANAGER)) as program:
            other = (await program.post(at, json={"call_sid": "c2"})).json()["id"]
            assert [other, mine] == [each["id"] for each in (await program.get(at)).json()]
        async with served.browser(headers=limited) as program:
            assert 404 == (await program.patch(f"{at}/{other}", json=accepted)).status_code
            assert [mine] == [each["id"] for each in (await program.get(at)).json()]
            assert [] == (await program.get(f"{at}?state=missing")).json()
            assert 400 == (await program.get(f"{at}?state=lost")).status_code
        async with served.browser(headers=served.token("leo", Role.LISTENER)) as program:
            assert 403 == (await program.post(at, json={"call_sid": "c1"})).status_code


async def test_providers_report_streams(tmp_path: Path) -> None:
    """Signed, or to a path that only they know; anything else is refused."""
    key, path = secret(tmp_path / "key", "signing-key\n"), "0123456789abcdef-path"
    options: dict[str, Any] = {
        "public_url": "https://calls.example.com",
        "callback_key_file": key,
        "callback_secret_file": secret(tmp_path / "path", path),
    }
    async with serving(tmp_path, **options) as served:
        kept = served.console.notifier.expectations
        one = await asyncio.to_thread(functools.partial(kept.add, "c1", name="n1"))
        body = "StreamEvent=stream-error&CallSid=c1&StreamName=n1&StreamError=codec_error"
        content = "https://calls.example.com/callbacks/signalwire?a=b" + "".join(
            sorted(body.replace("=", "").split("&"))
        )
        right = base64.b64encode(hmac.new(b"signing-key", content.encode(), "sha1").digest())
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        here = f"http://127.0.0.1:{served.runner.port}/"
        async with httpx.AsyncClient(base_url=here, timeout=at_most(20)) as provider:

            async def sent(target: str, body: str = body, signature: str = "") -> int:
                headers = {**form, "X-SignalWire-Signature": signature}
                answer = await provider.post(f"/callbacks/{target}", content=body, headers=headers)
                return answer.status_code

            signed = {"signature": right.decode()}
            assert 403 == await sent("signalwire?a=b")
            assert 403 == await sent("signalwire?a=c", **signed)
            assert 403 == await sent("signalwire?a=b", f"{body}x", **signed)
            assert 403 == await sent("signalwire/wrong-path-0123456", **signed)
            assert 404 == await sent("other?a=b", **signed)
            assert "asked" == (await asyncio.to_thread(kept.get, one.id, {})).state
            assert 204 == await sent("signalwire?a=b", **signed)
            assert 204 == await sent("signalwire?a=b", **signed)
            found = await asyncio.to_thread(kept.get, one.id, {})
            assert ("failed", "codec_error") == (found.state, found.reason)
            assert 204 == await sent(f"twilio/{path}", "StreamEvent=stream-started&CallSid=c2")
            assert 400 == await sent(f"twilio/{path}", "StreamEvent=stream-started")
            assert 405 == (await provider.get("/callbacks/twilio")).status_code
    async with serving(tmp_path / "other") as served, served.browser() as provider:
        answer = await provider.post("/callbacks/signalwire", content=body, headers=form)
        assert 403 == answer.status_code


async def test_deliveries_are_listed_and_sent_again(tmp_path: Path) -> None:
    """Page by page."""
    table = {**hooks.table("http://127.0.0.1:1/", tmp_path), "name": "crm"}
    async with serving(tmp_path, webhook=(Webhook(**table),)) as served:
        found = [OutboxEvent(f"evt_{n}", "hold.changed", "now", {}) for n in range(3)]
        with served.console.catalogue.database.writing() as connection:
            add(connection, found, served.console.notifier.endpoints)
        async with served.browser(headers=served.token("max", Role.MANAGER)) as program:
            first = (await program.get("/api/v1/deliveries?limit=2&webhook=crm")).json()
            second = (await program.get(first["next"])).json()
            events = [each["event"] for each in (*first["deliveries"], *second["deliveries"])]
            assert ["evt_2", "evt_1", "evt_0"] == events
            assert second["next"] is None
            number = first["deliveries"][0]["number"]
            again = await program.post(f"/api/v1/deliveries/{number}/resend")
            assert (202, "waiting") == (again.status_code, again.json()["state"])
            statuses = [
                (await program.post(f"/api/v1/deliveries/{each}/resend")).status_code
                for each in ("999", "x")
            ]
            assert [404, 404] == statuses
            for words in ("state=lost", "limit=0", "before=x"):
                assert 400 == (await program.get(f"/api/v1/deliveries?{words}")).status_code
        async with served.browser(headers=served.token("leo", Role.LISTENER)) as program:
            assert 403 == (await program.get("/api/v1/deliveries")).status_code


async def test_many_may_ask_at_once(tmp_path: Path) -> None:
    """Each gets the whole of it."""
    publish(tmp_path)
    async with serving(tmp_path) as served, served.browser() as program:
        await served.settled()
        program.headers.update(served.token("program", Role.LISTENER))
        asked = [program.get(f"{AT}/{SALES}/{n}.wav") for n in ("inbound", "stereo") * 10]
        answers = await asyncio.gather(*asked)
        assert {200} == {answer.status_code for answer in answers}
        assert 2 == len({answer.content for answer in answers})
