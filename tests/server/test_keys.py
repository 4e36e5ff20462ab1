"""API keys: their text, what is stored of them, and who may create, rotate and revoke them."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import eventfold as ef
from eventfold.cli.key import parse_end
from eventfold.errors import InvalidInput
from eventfold.server import application
from eventfold.server.access import keyring as keyring_module
from eventfold.server.access.errors import KeyNotFound
from eventfold.server.access.key_facts import ApiKey, Grant
from eventfold.server.access.key_text import KEY_LENGTH, new_key, parse_key
from eventfold.server.access.keyring import CACHE_S, Keyring
from eventfold.server.consumers import routes as consumers
from eventfold.server.consumers.routes import RECEIVE_S
from eventfold.server.scopes import Scope
from eventfold.server.settings import LiveSettings
from tests.cli.commands import run
from tests.server.keys import ALL, bearer, issue, with_keys

SECRET = bytes(range(32))
READ = Grant(scopes=(Scope.READ,))


def test_the_text_of_a_key_is_recognised_and_an_error_in_it_is_noticed() -> None:
    """It has a fixed beginning and length; every change of one character is found by the checksum."""
    key = new_key()
    assert len(key.text) == KEY_LENGTH == 61
    assert key.text.startswith("efk_" + key.id)
    assert parse_key(key.text) == key
    assert key.text not in repr(key)
    for index in range(len("efk_"), KEY_LENGTH):
        other = "A" if key.text[index] != "A" else "B"
        assert parse_key(key.text[:index] + other + key.text[index + 1 :]) is None
    for wrong in ("", "efk_", key.text + "A", key.text[:-1], key.text.upper(), key.text.replace("efk", "ghp")):
        assert parse_key(wrong) is None
    assert new_key().digest(SECRET) != key.digest(SECRET) != key.digest(SECRET[::-1])


@pytest.mark.asyncio
async def test_a_key_is_recognised_until_it_is_revoked() -> None:
    """By its whole text only; what it grants comes with it."""
    keyring = Keyring(ef.AsyncStore("memory:"), SECRET)
    await keyring.open()
    issued = await keyring.create("teller", Grant(scopes=(Scope.READ,), tags=("tenant:acme",)), actor="operator")
    caller = await keyring.recognise(issued.key)
    assert caller is not None
    assert (caller.name, caller.identity, caller.tags) == ("teller", f"key:{issued.id}", ("tenant:acme",))
    assert await keyring.recognise(new_key(issued.id).text) is None
    assert await keyring.recognise(new_key().text) is None
    assert await keyring.recognise("efk_") is None
    await keyring.revoke(issued.id, actor="operator")
    await keyring.revoke(issued.id, actor="operator")
    assert await keyring.recognise(issued.key) is None
    with pytest.raises(InvalidInput):
        await keyring.rotate(issued.id, actor="operator")
    with pytest.raises(KeyNotFound):
        await keyring.revoke("AAAAAAAA", actor="operator")
    await keyring.close()


@pytest.mark.asyncio
async def test_a_key_that_is_revoked_while_it_is_looked_up_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log was read before the revocation, and its answer came afterwards."""
    store = ef.AsyncStore("memory:")
    keyring = Keyring(store, SECRET)
    await keyring.open()
    issued = await keyring.create("teller", READ, actor="operator")
    read, was_read, goes_on = store.state, asyncio.Event(), asyncio.Event()

    async def slow(question: ApiKey) -> ApiKey:
        found = await read(question)
        was_read.set()
        await goes_on.wait()
        return found

    monkeypatch.setattr(store, "state", slow)
    asked = asyncio.create_task(keyring.recognise(issued.key))
    await was_read.wait()
    await keyring.revoke(issued.id, actor="operator")
    goes_on.set()
    assert await asked is None
    assert await keyring.recognise(issued.key) is None
    assert keyring.recall(issued.key) is None
    await keyring.close()


@pytest.mark.asyncio
async def test_no_byte_of_a_secret_is_stored() -> None:
    """The log of keys has keyed hashes only, and each change with its actor."""
    store = ef.AsyncStore("memory:")
    keyring = Keyring(store, SECRET)
    await keyring.open()
    issued = await keyring.create("teller", READ, actor="ann")
    rotated = await keyring.rotate(issued.id, actor="ben")
    await keyring.revoke(issued.id, actor="cid")
    found = [recorded async for recorded in store.read(raw=True)]
    assert [each.stored.type for each in found] == ["$keyring-started", "$key-created", "$key-rotated", "$key-revoked"]
    assert [each.metadata["actor"] for each in found] == ["ann", "ann", "ben", "cid"]
    for key in (issued.key, rotated.key):
        assert all(key[12:55].encode() not in each.stored.data for each in found)
    await keyring.close()


@pytest.mark.asyncio
async def test_a_rotated_key_keeps_its_id_and_the_old_secret_ends() -> None:
    """At once without a grace; with one, both secrets are valid until it ends."""
    keyring = Keyring(ef.AsyncStore("memory:"), SECRET)
    await keyring.open()
    first = await keyring.create("teller", READ, actor="operator")
    second = await keyring.rotate(first.id, actor="operator", grace_s=3_600)
    assert second.id == first.id
    assert await keyring.recognise(first.key) == await keyring.recognise(second.key) is not None
    third = await keyring.rotate(first.id, actor="operator")
    assert await keyring.recognise(first.key) is None
    assert await keyring.recognise(second.key) is None
    assert await keyring.recognise(third.key) is not None
    key = await keyring.get(first.id)
    assert not key.accepts(parse_key(first.key).digest(SECRET), datetime.now(UTC) + timedelta(hours=2))  # type: ignore[union-attr]
    await keyring.close()


@pytest.mark.asyncio
async def test_an_expired_key_is_not_valid() -> None:
    """From the moment on that it names."""
    keyring = Keyring(ef.AsyncStore("memory:"), SECRET)
    await keyring.open()
    ends = datetime.now(UTC) + timedelta(hours=1)
    issued = await keyring.create("teller", READ, actor="operator", expires=ends)
    key, digest = await keyring.get(issued.id), parse_key(issued.key)
    assert digest is not None
    assert key.accepts(digest.digest(SECRET), ends - timedelta(microseconds=1))
    assert not key.accepts(digest.digest(SECRET), ends)
    assert key.state(ends) == "expired"
    with pytest.raises(InvalidInput, match="would have ended already"):
        await keyring.create("late", READ, actor="operator", expires=datetime.now(UTC))
    assert [each.name for each in await keyring.list()] == ["teller"]
    await keyring.close()


@pytest.mark.asyncio
async def test_a_key_revoked_by_another_process_is_refused_after_the_cache_has_aged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within the age it is accepted without asking the log."""
    one, other = (Keyring(ef.AsyncStore("memory:keys-of-two"), SECRET) for _ in range(2))
    await one.open()
    await other.open()
    issued = await one.create("teller", READ, actor="operator")
    assert await other.recognise(issued.key) is not None
    await one.revoke(issued.id, actor="operator")
    assert await one.recognise(issued.key) is None
    assert await other.recognise(issued.key) is not None
    monkeypatch.setattr(keyring_module.time, "monotonic", lambda: float("1e12"))
    assert await other.recognise(issued.key) is None
    monkeypatch.undo()
    await one.close()
    await other.close()


@pytest.mark.asyncio
async def test_the_use_of_a_key_is_recorded_once_for_many_calls() -> None:
    """One event, not one for each call."""
    store = ef.AsyncStore("memory:")
    keyring = Keyring(store, SECRET)
    await keyring.open()
    issued = await keyring.create("teller", READ, actor="operator")
    assert (await keyring.get(issued.id)).last_used is None
    for _ in range(50):
        assert await keyring.recognise(issued.key) is not None
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        async with store.follow(ef.Query.of("$key-used")) as follower:
            async for _ in follower:
                break
    assert await store.count(ef.Query.of("$key-used")) == 1
    await keyring.close()


@pytest.mark.asyncio
async def test_keys_of_another_secret_are_noticed_at_the_start() -> None:
    """A server with the wrong secret would refuse every caller: it does not start."""
    one = Keyring(ef.AsyncStore("memory:keys-of-a-secret"), SECRET)
    await one.open()
    await one.create("teller", READ, actor="operator")
    with pytest.raises(InvalidInput, match="not the one with which"):
        await Keyring(ef.AsyncStore("memory:keys-of-a-secret"), SECRET[::-1]).open()
    await one.close()


@pytest.mark.parametrize(
    "grant",
    [
        Grant(scopes=()),
        Grant(scopes=(Scope.READ,), stores=()),
        Grant(scopes=(Scope.READ,), tag_prefixes=("",)),
        Grant(scopes=(Scope.READ,), tags=("a\nb",)),
    ],
    ids=str,
)
@pytest.mark.asyncio
async def test_a_grant_of_nothing_is_refused(grant: Grant) -> None:
    """Nor is a tag or a prefix accepted that no event can have, or that every event has."""
    keyring = Keyring(ef.AsyncStore("memory:"), SECRET)
    await keyring.open()
    with pytest.raises(InvalidInput):
        await keyring.create("teller", grant, actor="operator")
    await keyring.close()


def bank(tmp_path: Path) -> str:
    """A store."""
    ef.Store(str(tmp_path / "bank.db")).close()
    return str(tmp_path / "bank.db")


def test_keys_over_http(tmp_path: Path) -> None:
    """Created, listed without their text, rotated and revoked; each step holds at once on this server."""
    admin = bearer(issue(tmp_path, "admin"))
    with TestClient(application(bank(tmp_path), settings=with_keys(tmp_path))) as client:
        made = client.post("/v1/keys", headers=admin, json={"name": "web", "scopes": ["read"], "tags": ["tenant:a"]})
        assert made.status_code == 201
        assert made.headers["Cache-Control"] == "no-store"
        id, own = made.json()["id"], {"Authorization": f"Bearer {made.json()['key']}"}
        assert client.get("/v1/keys", headers=own).status_code == 403
        listed = client.get("/v1/keys", headers=admin)
        assert [key["name"] for key in listed.json()["keys"]] == ["admin", "web"]
        assert made.json()["key"] not in listed.text
        assert listed.json()["keys"][1]["created_by"] == "admin"
        rotated = client.post(f"/v1/keys/{id}/rotate", headers=admin, json={})
        assert rotated.status_code == 200
        assert client.get("/v1/keys", headers=own).status_code == 401
        own = {"Authorization": f"Bearer {rotated.json()['key']}"}
        assert client.get("/v1/keys", headers=own).status_code == 403
        assert client.delete(f"/v1/keys/{id}", headers=admin).json()["state"] == "revoked"
        assert client.get("/v1/keys", headers=own).status_code == 401
        assert client.delete("/v1/keys/AAAAAAAA", headers=admin).status_code == 404
        assert client.post("/v1/keys", headers=admin, json={"name": "x", "scopes": []}).status_code == 422
        ended = {"name": "x", "scopes": ["read"], "expires": "2026-01-01T00:00:00Z"}
        refused = client.post("/v1/keys", headers=admin, json=ended)
        assert (refused.status_code, refused.json()["fields"]["field"]) == (422, "expires")


def test_two_active_keys_have_one_name_only_if_that_is_said(tmp_path: Path) -> None:
    """The remedy names the key and its rotation; a revoked key leaves its name to others."""
    keys = ("--keys", str(tmp_path / "keys.db"))
    words = ("key", "create", "teller", "--scope", "read", "--json", *keys)
    first = run(*words)
    assert first.code == 0, first.err
    id = first.lines[0]["id"]
    again = run(*words)
    assert again.code == 2
    assert f"The active key {id} is named 'teller' already." in again.err
    assert f"eventfold key rotate {id}" in again.err
    assert run(*words, "--duplicate").code == 0
    for each in run("key", "list", "--json", *keys).lines:
        assert run("key", "revoke", each["id"], *keys).code == 0
    assert run(*words).code == 0
    admin = bearer(issue(tmp_path, "admin"))
    with TestClient(application(bank(tmp_path), settings=with_keys(tmp_path))) as client:
        new = {"name": "teller", "scopes": ["read"]}
        refused = client.post("/v1/keys", headers=admin, json=new)
        assert (refused.status_code, refused.json()["fields"]["field"]) == (422, "name")
        assert client.post("/v1/keys", headers=admin, json=new | {"duplicate": True}).status_code == 201


def test_a_server_that_refuses_its_keys_creates_no_store(tmp_path: Path) -> None:
    """They are opened first."""
    ran = run("serve", str(tmp_path / "new.db"), "--create", "--keys", str(tmp_path / "none.db"), "--port", "0")
    assert ran.code == 2
    assert "eventfold key create" in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "narrowing", [{"tags": ("tenant:a",)}, {"types": ("Opened",)}, {"tag_prefixes": ("a:",)}, {"stores": ("default",)}]
)
def test_a_caller_of_a_part_of_the_server_administers_no_keys(tmp_path: Path, narrowing: dict[str, object]) -> None:
    """It could create a key for the whole."""
    part = bearer(issue(tmp_path, "part", **narrowing))
    with TestClient(application(bank(tmp_path), settings=with_keys(tmp_path))) as client:
        assert client.get("/v1/keys", headers=part).status_code == 403
        assert client.post("/v1/keys", headers=part, json={"name": "x", "scopes": ["read"]}).status_code == 403


def test_no_caller_creates_or_rotates_a_key_that_grants_more_than_its_own(tmp_path: Path) -> None:
    """Rotating gives the caller the text of the key, so it counts as creating."""
    strong = issue(tmp_path, "strong", ALL)
    weak = bearer(issue(tmp_path, "weak", (Scope.ADMIN, Scope.READ)))
    with TestClient(application(bank(tmp_path), settings=with_keys(tmp_path))) as client:
        assert client.post("/v1/keys", headers=weak, json={"name": "x", "scopes": ["read"]}).status_code == 201
        refused = client.post("/v1/keys", headers=weak, json={"name": "x", "scopes": ["read", "append"]})
        assert refused.status_code == 403
        assert "append" in refused.json()["title"]
        assert client.post(f"/v1/keys/{strong.id}/rotate", headers=weak, json={}).status_code == 403
        assert client.get("/v1/keys", headers=bearer(strong)).status_code == 200


def test_a_server_without_keys_says_so(tmp_path: Path) -> None:
    """It has no authentication, and no route pretends otherwise."""
    with TestClient(application(bank(tmp_path))) as client:
        assert client.get("/v1/keys").status_code == 501


def test_a_wrong_end_of_a_key_is_refused_with_an_example_in_the_future() -> None:
    """Not by an example of a time that has passed."""
    with pytest.raises(InvalidInput, match=r"'90days' is not a time\. Write a duration from now, such as 90d"):
        parse_end("90days")
    with pytest.raises(InvalidInput, match="has no time zone"):
        parse_end("2099-01-01T10:00")


def test_a_stream_ends_within_the_documented_time_after_its_key_was_revoked_elsewhere() -> None:
    """The key is looked up again after CACHE_S, and the credential of a stream is verified every check_seconds."""
    assert CACHE_S + max(RECEIVE_S, LiveSettings().check_seconds) <= 30


def test_a_call_that_waits_for_events_ends_when_its_key_is_revoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was waiting already receives nothing that is appended later."""
    monkeypatch.setattr(consumers, "RECEIVE_S", 0.05)
    issued = issue(tmp_path)
    worker = issue(tmp_path, "worker", (Scope.FOLLOW,))
    with ef.Store(str(tmp_path / "bank.db")):
        pass
    with TestClient(application(str(tmp_path / "bank.db"), settings=with_keys(tmp_path))) as client:
        made = client.put("/v1/consumers/work", json={}, headers=bearer(issued))
        assert made.status_code == 201, made.text
        with ThreadPoolExecutor(1) as threads:
            asked = {"wait": 30.0}
            waiting = threads.submit(client.post, "/v1/consumers/work/receive", json=asked, headers=bearer(worker))
            time.sleep(0.2)
            assert not waiting.done()
            assert client.delete(f"/v1/keys/{worker.id}", headers=bearer(issued)).status_code == 200
            assert waiting.result(timeout=20).status_code == 401
