"""`eventfold demo cluster`: a node is killed while flights are loaded, and the comparison notices whatever is lost."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

import eventfold as ef
from eventfold.concurrency.run import run as run_coroutine
from eventfold.core.envelope import NewEvent
from eventfold.core.query import Query
from eventfold.demo.cluster import Survived
from eventfold.demo.cluster.proof import Proof, compare
from eventfold.demo.cluster.writing import Written
from eventfold.ports.messages import Span
from eventfold.ports.services import require
from tests.cli.commands import run
from tests.support.servers import nats


@nats.needed
def test_a_node_is_killed_and_nothing_is_lost() -> None:
    """The leader is killed after half of the events; the others elect another one, and everything is there once."""
    ran = run("demo", "cluster", "--limit", "1500", "--json")
    found = json.loads(ran.out)
    events = sum(receipt["last"] - receipt["first"] + 1 for receipt in found["written"]["receipts"])
    assert found["proof"] == {"events": events, "missing": 0, "changed": 0, "unknown": 0}
    assert 4_000 < events < 4_500
    assert set(found["copies"].values()) == {events}
    assert found["killed_at"] == 3_000
    assert found["led_by"] not in ("", found["killed"])
    assert found["written"]["pause"] > 0
    assert found["holds"]
    assert ran.code == 0


def logged() -> tuple[ef.Store, list[ef.Receipt]]:
    """A log of three appends, and their receipts."""
    store = ef.Store("memory:")
    receipts = [store.append_encoded(*[NewEvent.of("A", b"%d" % n) for n in range(count)]) for count in (3, 1, 2)]
    return store, receipts


def changed(store: ef.Store, change: Any) -> ef.Store:
    """A store whose log is that of another one, changed."""
    events = list(run_coroutine(store.engine.read(Query(), Span())).events)
    other = ef.Store("memory:")
    run_coroutine(require(other.engine, "replication").import_events(change(events)))
    return other


def replaced(events: list[Any], index: int, **fields: Any) -> list[Any]:
    """The events, one of them changed."""
    return [*events[:index], msgspec.structs.replace(events[index], **fields), *events[index + 1 :]]


def test_the_comparison_finds_what_is_lost_changed_and_invented() -> None:
    """Each fault, planted, is counted; an unchanged log is not."""
    store, receipts = logged()
    assert compare(store, receipts) == Proof(events=6)
    assert compare(changed(store, lambda events: events[:4]), receipts) == Proof(events=4, missing=1)
    assert compare(changed(store, lambda events: replaced(events, 1, data=b"9")), receipts).changed == 1
    assert compare(changed(store, lambda events: replaced(events, 3, id=bytes(16))), receipts).changed == 1
    assert compare(store, receipts[:2]) == Proof(events=6, unknown=2)
    assert compare(store, [*receipts, msgspec.structs.replace(receipts[0], first=7, last=9)]).missing == 1
    cut = compare(changed(store, lambda events: events[:2]), receipts)
    assert not cut.holds
    assert cut.missing == 3


@pytest.mark.parametrize(
    "change",
    [
        {"proof": Proof(events=6, missing=1)},
        {"proof": Proof(events=5)},
        {"killed": ""},
        {"copies": {"n1": 6, "n2": 6, "n3": 5}},
        {"copies": {"n1": 6, "n2": 6}},
    ],
)
def test_the_result_holds_only_if_everything_is_on_every_node(change: dict[str, Any]) -> None:
    """Anything missing anywhere makes the demonstration fail."""
    _, receipts = logged()
    held = Survived(
        flights=2, killed="n1", killed_at=3, led_by="n2", written=Written(receipts=receipts), proof=Proof(events=6),
        copies={"n1": 6, "n2": 6, "n3": 6}, seconds={},
    )  # fmt: skip
    assert held.holds
    assert not msgspec.structs.replace(held, **change).holds


def test_a_folder_with_files_is_not_used(tmp_path: Any) -> None:
    """What is in it would be mixed with the servers' files."""
    (tmp_path / "file").write_text("mine")
    ran = run("demo", "cluster", "--folder", str(tmp_path))
    assert ran.code == 2
    assert "has files" in ran.err
