"""Copying: imported events are identical to those of the source log."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from eventfold.concurrency import run
from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Query
from eventfold.errors import AppendConflict
from eventfold.ports.messages import Span
from eventfold.ports.services import require
from eventfold.store import Store
from eventfold.testing.conformance.events import about, deposit, deposits, draft, positions


def original() -> tuple[Store, list[StoredEvent]]:
    """A log to be copied, with boundaries, keys, metadata and times of its own; and its events."""
    source = Store("memory:")
    source.using(actor="teller-7").append(draft(deposit(), 1), key="first")
    source.append(*deposits(4))
    source.append(deposit("a-2"), key="second")
    return source, list(run(source.engine.read(Query(), Span())).events)


def test_imported_events_are_unchanged(store: Store, port: Any, replication: Any) -> None:
    """Ids, positions, times, occurred, tags, metadata, payloads and append boundaries are preserved."""
    _, events = original()
    replication.import_events(events)
    assert port.read(Query(), Span()).events == events
    assert positions(store.read(about("a-2"))) == [e.position for e in events if "account:a-2" in e.tag_set]


def test_events_can_be_imported_in_pieces(store: Store, replication: Any) -> None:
    """Whole appends are imported in order, directly after the head; then the log accepts new appends."""
    _, events = original()
    replication.import_events(events[:1])
    replication.import_events(events[1:5])
    replication.import_events(events[5:])
    assert store.append(deposit()).first == 7


def test_a_gap_or_an_overlap_is_refused(store: Store, replication: Any) -> None:
    """Events that do not begin directly after the head are refused, and nothing is written."""
    _, events = original()
    replication.import_events(events[:1])
    for wrong in (events[:1], events[5:]):
        with pytest.raises(AppendConflict):
            replication.import_events(wrong)
    assert store.head() == 1


def test_time_continues_after_imported_events(store: Store, replication: Any) -> None:
    """Recorded time never decreases, even after imported events that are ahead of this machine's clock."""
    _, events = original()
    future = events[0].time + 3_600_000_000
    replication.import_events([msgspec.structs.replace(each, time=future) for each in events])
    assert store.append(deposit()).time >= future


def test_request_keys_are_listed_and_imported(store: Store, replication: Any) -> None:
    """A request key of the source is known in the copy: the append is a repeat there."""
    source, events = original()
    keys = run(require(source.engine, "replication").keys())
    assert keys == [("first", 1), ("second", 6)]
    assert run(require(source.engine, "replication").keys("first")) == [("second", 6)]
    replication.import_events(events)
    replication.import_events((), keys)
    assert replication.keys() == keys
    repeated = store.append(deposit(), key="first")
    assert repeated.repeated
    assert repeated.positions == range(1, 2)


def test_a_repeated_append_is_recognised_among_imported_events(store: Store, replication: Any) -> None:
    """Event ids are known in the copy as well."""
    again = draft(deposit(), 2)
    source = Store("memory:")
    source.append(again)
    replication.import_events(run(source.engine.read(Query(), Span())).events)
    assert store.append(again).repeated


def test_an_empty_store_can_take_the_identity_of_another(store: Store, replication: Any) -> None:
    """Cursors and receipts of the source are valid in the store that replaces it; a store with events refuses."""
    source, events = original()
    replication.take_identity(source.engine.store_id, source.engine.epoch + 1)
    replication.import_events(events)
    assert store.verify(source.cursor()) == 6
    assert store.append(deposit()).epoch == source.engine.epoch + 1
    with pytest.raises(AppendConflict):
        replication.take_identity("0" * 32, 1)
