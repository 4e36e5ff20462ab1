"""The engine as the user `application` of a cluster that eventfold has configured: all that a store can do, it may."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.cluster.snapshot import publish_snapshot
from eventfold.concurrency.run import run
from eventfold.core.envelope import NewEvent
from eventfold.core.snapshot import Snapshot
from eventfold.engines import create_store, open_engine
from eventfold.errors import AppendConflict, EventfoldError, StoreReadOnly, StoreUnavailable
from eventfold.ports.services import require
from tests.cluster.operations.deployed import Deployed
from tests.support.servers.nats import needed

pytestmark = needed


def note(number: int) -> NewEvent:
    """An encoded event with a tag."""
    return NewEvent.of("Noted", b"%d" % number, tags=[f"note:{number % 3}"])


@pytest.fixture(scope="module")
def store(deployed: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A store that an operator has created, opened by an application with its own index."""
    deployed.add_store("shop")
    run(create_store(open_engine(deployed.url("shop", "operator"), "sync", True, {})))
    index = str(tmp_path_factory.mktemp("index") / "a.db")
    with ef.Store(deployed.url("shop"), index=index) as opened:
        yield opened


def test_it_appends_reads_and_decides_under_conditions(store: ef.Store) -> None:
    """Single events, batches, conditions, request keys, counts and look-ups."""
    first = store.append_encoded(note(1), key="request-1")
    assert store.append_encoded(note(1), key="request-1").first == first.first
    store.append_encoded(*(note(number) for number in range(2, 300)))
    with pytest.raises(AppendConflict):
        store.append_encoded(note(1), unless=ef.Query.of(tags=["note:1"]))
    assert store.head() == 299
    assert len(list(store.read(ef.Query.of(tags=["note:1"]), raw=True))) == 100


def test_it_locks_and_keeps_snapshots_of_states(store: ef.Store, deployed: Deployed, tmp_path: Path) -> None:
    """A lock is refused to another process while it is held; a snapshot that one has stored is found by the other."""
    stock = ef.Query.of(tags=["stock:1"])
    kept = Snapshot("f", 1, b"i" * 16, b"{}")
    with ef.Store(deployed.url("shop"), index=str(tmp_path / "b.db")) as other:
        with store.lock(stock), pytest.raises(EventfoldError, match="lock"), other.lock(stock, timeout=0.2):
            raise AssertionError("two holders")
        with other.lock(stock):
            assert other.head() == store.head()
        run(require(store.engine, "snapshots").put("a", kept))
        assert run(require(other.engine, "snapshots").get("a")) == kept


def test_another_host_reads_what_was_written_at_once(store: ef.Store, deployed: Deployed, tmp_path: Path) -> None:
    """It begins from an index that an application has published, and its reads have every confirmed event."""
    publish_snapshot(deployed.url("shop", "operator"), to=None, keep=1, progress=lambda done, total: None)
    with ef.Store(deployed.url("shop"), index=str(tmp_path / "c.db")) as other:
        receipt = store.append_encoded(note(7))
        assert other.head() == receipt.last
        assert len(list(other.read(raw=True))) == receipt.last


def test_it_creates_no_store_and_opens_no_other(deployed: Deployed, tmp_path: Path) -> None:
    """The error names the account and what would allow it, soon."""
    with pytest.raises(StoreUnavailable, match="eventfold cluster accounts"):
        run(create_store(open_engine(deployed.url("other"), "sync", True, {"index": str(tmp_path / "d.db")})))
    with pytest.raises(StoreReadOnly, match="eventfold cluster accounts"):
        ef.Store(deployed.url("other"), index=str(tmp_path / "e.db"))


def test_its_facts_name_the_leader_and_nodes_that_were_not_verified(store: ef.Store) -> None:
    """For metrics and alerts: `eventfold stats` prints them."""
    facts = run(store.engine.stats())
    assert facts["leader"] in ("n1", "n2", "n3")
    assert (facts["replicas"], facts["replicas_behind"], facts["nodes_unverified"]) == (3, [], [])
    assert facts["durability"] == "checked"
