"""Copying a log into a cluster, out of it, and back: ids, positions, request keys and identity stay the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import eventfold as ef
from eventfold.concurrency.run import run as run_coroutine
from eventfold.core.envelope import NewEvent
from eventfold.engines import open_engine
from tests.cli.commands import run
from tests.support.servers import nats, postgres

pytestmark = nats.needed
Address = Callable[[Path], str]


def in_cluster(folder: Path) -> str:
    """A store in the cluster that does not exist yet, with an index of its own."""
    name = f"copied-{uuid4().hex[:12]}"
    return nats.shared().url(name, index=str(folder / f"{name}.db"))


def in_postgres(_folder: Path) -> str:
    """A store in PostgreSQL that does not exist yet."""
    return postgres.shared().url(schema=f"copied{uuid4().hex[:12]}")


OTHERS: dict[str, Address] = {
    "file": lambda folder: str(folder / f"{uuid4().hex}.db"),
    "postgres": in_postgres,
    "cluster": in_cluster,
}


def create(address: str) -> None:
    """Create a store."""
    creation = open_engine(address, "sync", True, {}).services.creation
    if creation is not None:
        run_coroutine(creation())
    else:
        assert run("init", address).code == 0


def written(address: str) -> tuple[ef.Cursor, ef.Receipt]:
    """Create a store of several appends. Returns a cursor, and the receipt of an append with a key."""
    create(address)
    with ef.Store(address) as store:
        store.append_encoded(NewEvent.of("A", b"1", tags=["t:1"]))
        receipt = store.append_encoded(*[NewEvent.of("B", b"%d" % n, tags=["t:2"]) for n in range(3)], key="order-17")
        cursor = store.cursor()
        store.append_encoded(NewEvent.of("A", b'{"end":1}', metadata={"actor": "me"}))
    return cursor, receipt


def copied(source: str, target: str) -> dict[str, Any]:
    """Copy with the identity, and compare both logs."""
    ran = run("copy", source, target, "--keep-identity", "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_a_log_is_copied_into_the_cluster_and_back(other: Address, tmp_path: Path) -> None:
    """Cursors and receipts of the first store are valid in the copy, and in the copy of the copy."""
    first, second, third = other(tmp_path), in_cluster(tmp_path), other(tmp_path)
    cursor, receipt = written(first)
    for source, target, epoch in ((first, second, 2), (second, third, 3)):
        create(target)
        found = copied(source, target)
        assert (found["events"], found["keys"], found["succeeded"], found["verified"]) == (5, 1, True, True)
        with ef.Store(target) as store:
            assert (store.engine.store_id, store.engine.epoch) == (receipt.store, epoch)
            assert store.verify(cursor) == 4
            assert store.receipt("order-17") is not None
            again = store.append_encoded(NewEvent.of("C", b"0"), key="order-17")
            assert (again.repeated, again.ids, again.first) == (True, receipt.ids, 2)
            assert store.count(ef.Query.of(tags="t:2")) == 3
            assert store.head() == 5


def test_an_interrupted_copy_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """The command is repeated after more events were written; only those are copied."""
    first, second = in_cluster(tmp_path), in_cluster(tmp_path)
    written(first)
    create(second)
    assert copied(first, second)["written"] == 5
    with ef.Store(first) as store:
        store.append_encoded(NewEvent.of("A", b"2"))
    found = copied(first, second)
    assert (found["events"], found["written"], found["verified"]) == (6, 1, True)


def test_a_store_with_events_of_its_own_keeps_its_identity(tmp_path: Path) -> None:
    """Copying the identity into it is refused, and it is not changed."""
    first, second = in_cluster(tmp_path), in_cluster(tmp_path)
    written(first)
    written(second)
    ran = run("copy", first, second, "--keep-identity")
    assert ran.code != 0
    with ef.Store(second) as store:
        assert store.head() == 5
