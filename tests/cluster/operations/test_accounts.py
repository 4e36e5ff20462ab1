"""Accounts on a real cluster: an application can do all that it needs, and nothing that changes or loses events."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any
from uuid import uuid4

import nats.errors
import pytest

from eventfold.cluster.accounts import Accounts
from eventfold.errors import InvalidInput
from tests.cluster.operations.clients import Load, api, connected, create_stream, lost, read_all, state
from tests.cluster.operations.deployed import Deployed
from tests.support.servers.nats import needed

pytestmark = needed

CONFIG: dict[str, Any] = {
    "name": "EF_bank", "subjects": ["ef.bank.>"], "num_replicas": 3, "storage": "file",
    "allow_direct": True, "allow_atomic": True, "deny_delete": True, "deny_purge": True,
    "discard": "old", "max_msgs": 1,
}  # fmt: skip
HARMFUL: list[tuple[str, Any]] = [
    ("STREAM.UPDATE.EF_bank", CONFIG),
    ("STREAM.DELETE.EF_bank", None),
    ("STREAM.PURGE.EF_bank", {}),
    ("STREAM.MSG.DELETE.EF_bank", {"seq": 1}),
    ("STREAM.SNAPSHOT.EF_bank", {"deliver_subject": "taken"}),
    ("STREAM.RESTORE.EF_bank", {"config": CONFIG, "state": {}}),
    ("STREAM.CREATE.EF_other", CONFIG | {"name": "EF_other", "subjects": ["ef.other.>"]}),
    ("STREAM.LEADER.STEPDOWN.EF_bank", None),
    ("STREAM.PEER.REMOVE.EF_bank", {"peer": "n1"}),
    ("META.LEADER.STEPDOWN", None),
    ("SERVER.REMOVE", {"peer": "n1"}),
    ("STREAM.DELETE.KV_EF_bank_locks", None),
    ("STREAM.PURGE.KV_EF_bank_locks", None),
    (
        "CONSUMER.CREATE.EF_bank",
        {"stream_name": "EF_bank", "config": {"deliver_subject": "there", "ack_policy": "none"}},
    ),
]


async def _append(client: Any, data: bytes = b"{}", **headers: str) -> dict[str, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return json.loads((await client.request("ef.bank.Deposited", data, headers=named or None, timeout=5)).data)


def test_an_application_appends_reads_and_keeps_locks(deployed: Deployed) -> None:
    """Single events, conditions, atomic batches, pages, the leader's reads, keys and values, the state of nodes."""

    async def use() -> None:
        async with connected(deployed, "application") as client:
            first = await _append(client, b"1")
            assert (await _append(client, b"2", Nats_Expected_Last_Sequence=str(first["seq"])))["seq"] == first[
                "seq"
            ] + 1
            refused = await _append(client, b"3", Nats_Expected_Last_Sequence=str(first["seq"]))
            assert refused["error"]["err_code"] == 10071
            batch = uuid4().hex
            for number in range(1, 100):
                headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
                await client.publish("ef.bank.Deposited", b"b", headers=headers)
            done = await _append(client, b"b", Nats_Batch_Id=batch, Nats_Batch_Sequence="100", Nats_Batch_Commit="1")
            assert done["count"] == 100, done
            log = await read_all(client, "EF_bank", "ef.bank.>")
            assert [sequence for sequence, _ in log] == list(range(1, done["seq"] + 1))
            read = await api(client, "STREAM.MSG.GET.EF_bank", {"seq": first["seq"]})
            assert read.get("message", {}).get("subject") == "ef.bank.Deposited", read
            assert (await api(client, "STREAM.INFO.EF_bank"))["config"]["name"] == "EF_bank"
            key = "$KV.EF_bank_locks.a"
            made = json.loads(
                (await client.request(key, b"me", headers={"Nats-Expected-Last-Subject-Sequence": "0"})).data
            )
            assert "seq" in made, made
            again = await client.request(key, b"other", headers={"Nats-Expected-Last-Subject-Sequence": "0"})
            assert json.loads(again.data)["error"]["err_code"] == 10071
            assert (await client.request(f"$JS.API.DIRECT.GET.KV_EF_bank_locks.{key}", b"")).data == b"me"

    asyncio.run(use())


@pytest.mark.parametrize("way", ["asked", "by a reply subject"])
def test_an_application_can_change_or_lose_nothing(deployed: Deployed, way: str) -> None:
    """Neither by a request, nor by letting the server send an event as a request: each leaves the stream as it was."""

    refused: list[str] = []

    async def note(error: Exception) -> None:
        refused.append(str(error))

    async def attack() -> None:
        async with (
            connected(deployed, "operator") as operator,
            connected(deployed, "application", error_cb=note) as client,
        ):
            for subject, body in HARMFUL:
                payload = b"" if body is None else json.dumps(body).encode()
                if way == "asked":
                    await client.publish(f"$JS.API.{subject}", payload, reply=client.new_inbox())
                else:
                    at = (await _append(client, payload or b" "))["seq"]
                    for read in ("DIRECT.GET", "STREAM.MSG.GET"):
                        request = json.dumps({"seq": at}).encode()
                        await client.publish(f"$JS.API.{read}.EF_bank", request, reply=f"$JS.API.{subject}")
            await client.flush()
            await _append(client)  # after everything that was sent before it
            await asyncio.sleep(0.5)  # what a server sends itself may come later; the next test shows that it comes
            before = await state(operator, "EF_bank")
            log = await read_all(operator, "EF_bank", "ef.bank.>")
            assert before["first"] == 1 and before["limit"] == -1
            assert len(log) == before["messages"]
            names = (await api(operator, "STREAM.NAMES"))["streams"]
            assert set(names) >= {"EF_bank", "KV_EF_bank_locks"}
            assert "EF_other" not in names

    asyncio.run(attack())
    if way == "asked":
        for subject, _ in HARMFUL:
            assert [text for text in refused if f"$js.api.{subject}".lower() in text.lower()], (subject, refused)


def test_permissions_of_users_alone_would_not_protect_a_stream(deployed: Deployed) -> None:
    """Within the account of streams, a reply subject changes a stream: that is why applications have their own."""

    async def attack() -> None:
        async with connected(deployed, "operator") as client:
            config = await create_stream(client, "fragile")
            evil = json.dumps(config | {"max_msgs": 1, "discard": "old"}).encode()
            for _ in range(3):
                await client.request("ef.fragile.x", evil)
            request = json.dumps({"seq": 1}).encode()
            await client.publish("$JS.API.DIRECT.GET.EF_fragile", request, reply="$JS.API.STREAM.UPDATE.EF_fragile")
            for _ in range(100):
                with suppress(nats.errors.NoRespondersError):  # while the changed stream elects its leader
                    await client.request("ef.fragile.x", b"more")
                if (found := await state(client, "EF_fragile"))["messages"] == 1:
                    break
                await asyncio.sleep(0.05)
            assert found["limit"] == 1 and found["messages"] == 1 and found["first"] > 3

    asyncio.run(attack())


@pytest.mark.parametrize("headers", [{"Nats-Rollup": "all"}, {"Nats-Rollup": "sub"}, {"Nats-TTL": "1s"}], ids=str)
def test_no_header_of_an_application_drops_events(deployed: Deployed, headers: dict[str, str]) -> None:
    """A roll-up and a time to live are refused by the stream."""

    async def attack() -> None:
        async with connected(deployed, "application") as client:
            before = await state(client, "EF_bank")
            answer = json.loads((await client.request("ef.bank.Deposited", b"r", headers=headers)).data)
            assert "error" in answer
            assert await state(client, "EF_bank") == before

    asyncio.run(attack())


def test_an_application_does_not_reach_other_stores_until_it_may(deployed: Deployed) -> None:
    """Neither their events nor their streams; after the accounts are extended and reloaded, both."""

    async def use() -> None:
        async with connected(deployed, "operator") as operator, connected(deployed, "application") as client:
            await create_stream(operator, "shop")
            with pytest.raises(nats.errors.TimeoutError):
                await client.request("ef.shop.Ordered", b"{}", timeout=0.3)
            assert "state" not in await api(client, "STREAM.INFO.EF_shop")
            await asyncio.to_thread(deployed.add_store, "shop")
            assert "seq" in json.loads((await client.request("ef.shop.Ordered", b"{}")).data)
            assert (await api(client, "STREAM.INFO.EF_shop"))["state"]["messages"] == 1

    asyncio.run(use())


def test_a_password_is_replaced_while_events_are_appended(deployed: Deployed) -> None:
    """The old and the new one are valid together; a revoked one is refused, and nothing is lost."""
    with Load(deployed) as load:
        new = deployed.rotate("application")
        load.wait_for(20)
        assert load.user == "application"
        load.user = new
        load.wait_for(20)
        deployed.revoke("application")
        load.wait_for(20)

    async def look() -> None:
        with pytest.raises(nats.errors.Error):
            async with connected(deployed, "application", max_reconnect_attempts=1):
                raise AssertionError("a revoked user was accepted")
        async with connected(deployed, new) as client:
            assert await lost(client, load) == []

    asyncio.run(look())
    assert deployed.rotate(new) == "application"  # its name is free again, and other tests use it


def test_the_file_of_accounts_has_no_password(deployed: Deployed) -> None:
    """It has hashes only, and only its owner may read it."""
    path = deployed.written / "accounts.conf"
    text = path.read_text()
    assert not [password for password in deployed.passwords.values() if password in text]
    assert text.count('"$2b$') == len(Accounts.read(path.read_bytes()).names())
    assert path.stat().st_mode & 0o077 == 0
    assert all((deployed.written / f"n{i}.conf").stat().st_mode & 0o077 == 0 for i in (1, 2, 3))


def test_the_last_user_of_an_account_is_not_revoked() -> None:
    """An operator that has lost every password would need the servers' files."""
    accounts = Accounts()
    accounts.add_store("bank")
    accounts.issue("operator")
    with pytest.raises(InvalidInput, match=r"only operator user\. First: eventfold cluster rotate operator"):
        accounts.revoke("operator")
    with pytest.raises(InvalidInput, match="There is no user 'eve'"):
        accounts.revoke("eve")
    with pytest.raises(InvalidInput, match="is not one that `eventfold cluster accounts` wrote"):
        Accounts.read(b'{"accounts": {}}')
