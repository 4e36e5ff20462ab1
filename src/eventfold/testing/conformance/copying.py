"""Copying: imported events are exactly as in the log they come from."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from eventfold.concurrency import run
from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Query
from eventfold.errors import AppendConflict
from eventfold.ports.messages import Span
from eventfold.store import Store
from eventfold.testing.conformance.events import about, deposit, deposits, draft, positions


def original() -> tuple[Store, list[StoredEvent]]:
    """A log to be copied, with boundaries, keys, metadata and times of its own; and its events."""
    source = Store("memory:")
    source.using(actor="teller-7").append(draft(deposit(), 1), key="first")
    source.append(*deposits(4))
    source.append(deposit("a-2"), key="second")
    return source, run(source.engine.read(Query(), Span())).events


def test_imported_events_are_unchanged(store: Store, port: Any) -> None:
    """Ids, positions, times, occurred, tags, metadata, payloads and append boundaries are kept."""
    _, events = original()
    port.adopt(events)
    assert port.read(Query(), Span()).events == events
    assert positions(store.read(about("a-2"))) == [e.position for e in events if "account:a-2" in e.tag_set]


def test_adopted_events_can_be_taken_over_in_pieces(store: Store, port: Any) -> None:
    """Whole appends are imported in order, directly after the head; then the log accepts appends of its own."""
    _, events = original()
    port.adopt(events[:1])
    port.adopt(events[1:5])
    port.adopt(events[5:])
    assert store.append(deposit()).first == 7


def test_a_gap_or_an_overlap_is_refused(store: Store, port: Any) -> None:
    """Events that do not begin right behind the head are refused, and nothing is written."""
    _, events = original()
    port.adopt(events[:1])
    for wrong in (events[:1], events[5:]):
        with pytest.raises(AppendConflict):
            port.adopt(wrong)
    assert store.head() == 1


def test_time_goes_on_from_what_was_adopted(store: Store, port: Any) -> None:
    """Recorded time never decreases, even behind adopted events that are ahead of this machine's clock."""
    _, events = original()
    future = events[0].time + 3_600_000_000
    port.adopt([msgspec.structs.replace(each, time=future) for each in events])
    assert store.append(deposit()).time >= future


def test_request_keys_are_listed_and_taken_over(store: Store, port: Any) -> None:
    """A command decided in the source is known in the copy, under its key."""
    source, events = original()
    keys = run(source.engine.keys())
    assert keys == [("first", 1), ("second", 6)]
    assert run(source.engine.keys("first")) == [("second", 6)]
    port.adopt(events)
    port.adopt((), keys)
    assert port.keys() == keys
    repeated = store.append(deposit(), key="first")
    assert repeated.repeated
    assert repeated.positions == range(1, 2)


def test_a_repeated_append_is_recognised_among_adopted_events(store: Store, port: Any) -> None:
    """Event ids are known in the copy as well."""
    again = draft(deposit(), 2)
    source = Store("memory:")
    source.append(again)
    port.adopt(run(source.engine.read(Query(), Span())).events)
    assert store.append(again).repeated


def test_an_empty_store_can_succeed_another(store: Store, port: Any) -> None:
    """Cursors and receipts of the source hold in the store that takes its place; one with events refuses."""
    source, events = original()
    port.succeed(source.engine.store_id, source.engine.epoch + 1)
    port.adopt(events)
    assert store.verify(source.cursor()) == 6
    assert store.append(deposit()).epoch == source.engine.epoch + 1
    with pytest.raises(AppendConflict):
        port.succeed("0" * 32, 1)
