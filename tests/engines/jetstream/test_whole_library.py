"""What is built on the port works on a cluster: read models, followers, processes, the server, commands, copies."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.errors import NotSupported
from tests.cli.commands import run as command
from tests.engines.jetstream.conftest import Open
from tests.processes import shop
from tests.support.servers.command import served
from tests.support.servers.nats import shared
from tests.support.stores import remove_stream

LIMIT_S = 30.0


class Deposited(ef.Event, type="cluster-deposited"):
    """Money came in."""

    account: ef.Tag
    amount: int


class Account(ef.State):
    """The balance of an account."""

    account: ef.Tag
    balance: int = 0

    def evolve(self, event: Deposited) -> None:
        self.balance += event.amount


class Balance(ef.Projection, name="cluster_balance"):
    """A row for each account."""

    account: str
    balance: int = 0

    def evolve(self, event: Deposited) -> None:
        self.balance += event.amount


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    ends = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < ends, "the condition did not come true"
        time.sleep(0.01)


def test_a_store_without_a_target_refuses_read_models_and_names_the_remedy(store: ef.Store) -> None:
    """A cluster has no place for rows: `target=…` names a database."""
    for refused in (
        lambda: store.project(Balance),
        lambda: next(iter(store.follow(name="f"))),
        lambda: store.run_until_idle(shop.Payment),
    ):
        with pytest.raises(NotSupported, match="target="):
            refused()


def test_read_models_are_kept_in_a_database_of_their_own(opening: Open, tmp_path: Path) -> None:
    """They are folded by one process, read by another, and catch up after both were closed."""
    target = f"sqlite:{tmp_path / 'rows.db'}"
    one, other = opening(target=target), opening(target=target)
    with one.run(Balance):
        for amount in (5, 7):
            other.append(Deposited("a-1", amount))
        other.wait(Balance)
        assert other.rows(Balance) == [Balance("a-1", 12)]
    one.append(Deposited("a-1", 1))
    other.project(Balance)
    assert one.rows(Balance) == [Balance("a-1", 13)]
    assert [each.proved for each in one.projections.verify(Balance)] == [True]
    assert one.projections.verify_log().proved


def test_a_named_follower_goes_on_in_another_process(opening: Open, tmp_path: Path) -> None:
    """It is woken by commits of a process on another host, with another index."""
    target = f"sqlite:{tmp_path / 'progress.db'}"
    one, other = opening(target=target), opening(target=target)
    found: list[int] = []

    def follow() -> None:
        with one.follow(name="all") as follower:
            for each in follower:
                found.append(each.position)
                if each.position == 3:
                    follower.acknowledge()
                    return

    thread = threading.Thread(target=follow)
    thread.start()
    for amount in (1, 2, 3):
        other.append(Deposited("a-1", amount))
    thread.join(LIMIT_S)
    assert found == [1, 2, 3]
    other.append(Deposited("a-1", 4))
    with other.follow(name="all") as follower:
        assert next(iter(follower)).position == 4


def test_processes_and_effects_run_on_a_cluster(opening: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process decides, waits for a timer and reminds; an effect sends the mail."""
    monkeypatch.setenv("SHOP_MAILS", str(tmp_path / "mails"))
    store = opening(target=f"sqlite:{tmp_path / 'rows.db'}")
    with store.run(shop.Payment, shop.mail):
        store.append(shop.OrderPlaced("o-1"), shop.OrderPlaced("o-2"), shop.Paid("o-2"))
        until(lambda: (tmp_path / "mails").exists())
    assert [line.split()[1] for line in (tmp_path / "mails").read_text().splitlines()] == ["o-1"]
    assert store.state(shop.Stock("bolt")).times == 2


def test_an_async_store_shares_its_connection_with_its_read_models(url: str, tmp_path: Path) -> None:
    """Decisions in tasks, read models in threads, one loop of the engine; and nothing is left afterwards."""
    before = set(threading.enumerate())

    async def work() -> None:
        options = {"index": str(tmp_path / "i.db"), "target": f"sqlite:{tmp_path / 'rows.db'}"}
        async with ef.AsyncStore(url, **options) as store:

            def deposit(account: Account) -> Deposited:
                return Deposited(account.account, account.balance + 1)

            await asyncio.gather(*[store.decide(deposit, Account(f"a-{i % 5}")) for i in range(20)])
            await store.project(Balance)
            assert (await store.state(Account("a-1"))).balance == 15
            assert Balance("a-1", 15) in await store.rows(Balance)
            names = [each.name for each in threading.enumerate() if each not in before]
            assert names.count("eventfold-nats") == 1
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(work())
    until(lambda: set(threading.enumerate()) <= before)


def test_a_server_in_front_of_a_cluster_serves_the_remote_engine(url: str, tmp_path: Path) -> None:
    """`eventfold serve nats://…`: clients append, decide, follow and copy by HTTP; its metrics name the head."""
    address = f"{url}&index={tmp_path / 'i.db'}"
    with served(tmp_path, address, "--accept-unknown") as at, ef.Store(f"{at}/") as client:
        client.append(Deposited("a-1", 5))
        assert client.state(Account("a-1")).balance == 5
        follower = iter(client.follow())
        with ef.Store(url, index=str(tmp_path / "other.db")) as beside:
            assert next(follower).position == 1
            beside.append(Deposited("a-1", 6))
        assert next(follower).event == Deposited("a-1", 6)
        assert client.stats()["behind"] == "jetstream"
        metrics = urllib.request.urlopen(f"{at}/metrics", timeout=10).read().decode()
        assert "eventfold_head" in metrics or 'position="head"' in metrics, metrics[:2_000]


def test_the_commands_work_on_a_cluster(url: str, tmp_path: Path) -> None:
    """init, append, read, tail, types, tags, stats, verify, and a copy to a file and back into another stream."""
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    other = shared().url(f"{url.partition('?')[0].rpartition('/')[2]}-copy")
    assert json.loads(command("init", url, **cache).out)["created"] is False
    wrong = command("read", other, **cache)
    assert (wrong.code != 0, "eventfold init" in wrong.err) == (True, True)
    line = json.dumps({"type": "cluster-deposited", "data": {"account": "a-1", "amount": 5}, "tags": ["account:a-1"]})
    appended = command("append", url, input=f"{line}\n{line}\n", **cache)
    assert appended.code == 0, appended.err
    assert [each["position"] for each in command("read", url, **cache).lines] == [1, 2]
    assert [each["position"] for each in command("tail", url, "--limit", "1", **cache).lines] == [1]
    assert command("types", url, **cache).lines[0]["count"] == 2
    assert command("tags", url, **cache).lines[0]["tag"] == "account:a-1"
    stats = json.loads(command("stats", url, **cache).out)
    assert (stats["engine"], stats["events"], stats["replicas"], stats["durability"]) == ("jetstream", 2, 3, "checked")
    assert json.loads(command("verify", url, **cache).out)["proved"]
    try:
        assert command("copy", url, str(tmp_path / "copy.db"), **cache).code == 0
        assert json.loads(command("init", other, **cache).out)["created"]
        back = command("copy", str(tmp_path / "copy.db"), other, **cache)
        assert (back.code, json.loads(back.out)["verified"]) == (0, True), back.err
        with ef.Store(url, index=str(tmp_path / "1.db")) as a, ef.Store(other, index=str(tmp_path / "2.db")) as b:
            assert [each.id for each in a.read(raw=True)] == [each.id for each in b.read(raw=True)]
    finally:
        remove_stream(other, shared())


def test_a_copy_that_succeeds_the_original_has_its_identity(url: str, tmp_path: Path) -> None:
    """`copy --keep-identity` gives the stream the id and epoch of the store that it replaces: cursors stay valid."""
    original = ef.Store(str(tmp_path / "log.db"))
    original.append(Deposited("a-1", 5), key="k")
    original.append(Deposited("a-1", 6))
    cursor = original.cursor(1)
    ran = command("copy", str(tmp_path / "log.db"), url, "--keep-identity", XDG_CACHE_HOME=str(tmp_path))
    assert ran.code == 0, ran.err
    with ef.Store(url, index=str(tmp_path / "i.db")) as copied:
        assert copied.engine.store_id == original.engine.store_id
        assert [each.position for each in copied.read(after=cursor)] == [2]
    original.close()


def test_values_survive_the_way_through_headers(store: ef.Store, opening: Open) -> None:
    """Tags and metadata with line breaks, quotes and every kind of character; data that is not JSON."""
    from eventfold.core.envelope import NewEvent

    text = 'ü é 🚀 " \\ :'
    given = [
        NewEvent.of("Typ ü.*>", b'{"a": 1}', tags=[f"t:{text}"], metadata={text: [text, "\n\r\x00\u2028"]}),
        NewEvent.of("Raw", bytes(range(256)), codec="bytes", key="key ü", tags=[]),
        NewEvent.of("Large", b"1", metadata={"note": "ü" * 40_000}),
    ]
    store.append_encoded(*given)
    for each in (store, opening()):
        found = [record.stored for record in each.read(raw=True)]
        assert [old.is_same_as(new) for old, new in zip(found, given, strict=True)] == [True, True, True]
