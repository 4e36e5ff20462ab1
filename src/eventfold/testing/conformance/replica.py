"""A copy of a log that is elsewhere: appends to that log are judged on it, and what was written there is imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from eventfold.concurrency import run
from eventfold.core.envelope import Receipt, StoredEvent
from eventfold.core.query import ConditionClause, Query
from eventfold.errors import (
    AppendConflict,
    EventIdReused,
    InvalidInput,
    NotSupported,
    PositionBeyondHead,
    ReplicaMismatch,
)
from eventfold.ports.messages import AppendRequest, Span
from eventfold.ports.services import require
from eventfold.store import Store
from eventfold.testing.conformance.events import about, deposit, deposits, draft, positions

BEFORE = 1_700_000_000_000_000  # µs since 1970: the time of the events of the log
NOW = 4_000_000_000_000_000  # µs since 1970: after the time of any event of these tests


def written(store: Store, *events: Any, key: str | None = None, unless: Query | None = None, after: int = 0) -> Any:
    """A request for some events."""
    clauses = () if unless is None else (ConditionClause(unless, after),)
    return AppendRequest(tuple(map(store.registry.encode, events)), clauses, key)


def log_of_five() -> tuple[Store, list[StoredEvent], list[tuple[str, int]]]:
    """A log of an append of one event, one of three and one of one, of which two have keys; its events and keys."""
    log = Store("memory:", clock=lambda: BEFORE)
    log.append(draft(deposit(), 1), key="first")
    log.append(*(draft(each, 2 + n) for n, each in enumerate(deposits(3, start=2))))
    log.append(draft(deposit("a-2"), 5), key="last")
    events = list(run(log.engine.read(Query(), Span())).events)
    return log, events, run(require(log.engine, "replication").keys())


@pytest.fixture
def copied_log(replica: Any) -> Store:
    """The log of five events, of which the store is a copy."""
    log, events, keys = log_of_five()
    replica.import_events(events, keys)
    return log


def kinds(verdicts: Sequence[Any]) -> list[Any]:
    """What each verdict is: None, the class of an error, or the first position of the append that is repeated."""
    return [
        each.first if isinstance(each, Receipt) else each if each is None else type(each)
        for each in verdicts
    ]  # fmt: skip


def test_imported_appends_are_those_of_the_log(store: Store, port: Any, replica: Any) -> None:
    """Events, request keys, append boundaries and the index of the copy are those of the log."""
    _, events, keys = log_of_five()
    replica.import_events(events[:1], keys[:1])
    replica.import_events(events[1:], keys[1:])
    assert port.read(Query(), Span()).events == events
    assert positions(store.read(about("a-2"))) == [5]
    assert port.boundary(2) == 4
    assert [port.receipt_of(key).first for key, _ in keys] == [1, 5]


def test_what_is_there_already_is_skipped(store: Store, replica: Any, open_again: Callable[[], Store]) -> None:
    """Several importers write every append once, wherever each of them begins."""
    _, events, keys = log_of_five()
    replica.import_events(events[:4], keys[:1])
    replica.import_events(events[1:], keys)
    replica.import_events(events, keys)
    replica.import_events([], keys)
    replica.import_events([])
    assert positions(open_again().read()) == [1, 2, 3, 4, 5]


def test_the_events_of_another_log_are_refused(store: Store, port: Any, copied_log: Store, replica: Any) -> None:
    """A different event at a position that is there is an error with the position, and nothing is written."""
    _, events, _ = log_of_five()
    replace: Any = msgspec.structs.replace
    for change in ({"data": b"{}"}, {"time": 1}, {"id": bytes(16)}, {"tags": "x:1"}, {"version": 9}, {"codec": "cbor"}):
        with pytest.raises(ReplicaMismatch) as refused:
            replica.import_events([*events[:4], replace(events[4], **change), replace(events[4], position=6)])
        assert refused.value.fields["position"] == 5
    for key in (("first", 5), ("new", 3), ("new", 6), ("new", 0)):
        with pytest.raises(ReplicaMismatch) as refused:
            replica.import_events([], [key])
        assert refused.value.fields["key"] == key[0]
    assert (store.head(), store.receipt("new")) == (5, None)
    assert port.receipt_of("first").first == 1


def test_parts_of_appends_and_gaps_are_refused(store: Store, replica: Any) -> None:
    """Only whole appends at consecutive positions directly after the head are imported."""
    _, events, _ = log_of_five()
    for wrong in (events[:2], [events[0], *events[2:4]], [*events[:1], *events[4:]], [events[0], events[0]]):
        with pytest.raises(InvalidInput):
            replica.import_events(wrong)
    replica.import_events(events[:1])
    with pytest.raises(AppendConflict):
        replica.import_events(events[4:])
    assert store.head() == 1


def test_a_watcher_is_notified_of_an_import(store: Store, copied_log: Store, replica: Any) -> None:
    """A follower of the copy reads what is imported later."""
    copied_log.append(deposit("a-3"))
    followed = iter(store.follow(after=5))
    replica.import_events(run(copied_log.engine.read(Query(), Span(after=5))).events)
    assert next(followed).position == 6


def test_requests_are_judged_and_not_written(store: Store, copied_log: Store, replica: Any, port: Any) -> None:
    """New events are accepted at the head, at a time that does not decrease; nothing is written."""
    before = port.head()
    found = replica.judge([written(store, deposit("a-9"), unless=about("a-9")), written(store, deposit())], NOW)
    assert (found.head, found.time, kinds(found.verdicts), found.keys) == (before, NOW, [None, None], [])
    assert replica.judge([], 1).time == before.time
    assert (port.head(), store.count(about("a-9"))) == (before, 0)
    assert kinds(replica.judge([written(store, deposit("a-9"), unless=about("a-9"))], NOW).verdicts) == [None]


def test_conditions_are_judged_against_the_log_and_accepted_requests(
    store: Store, copied_log: Store, replica: Any
) -> None:
    """A later request sees the events of earlier accepted ones, not of refused ones."""
    found = replica.judge(
        [
            written(store, deposit("a-2"), deposit("b-1"), unless=about("a-2"), after=4),
            written(store, deposit("b-1"), unless=about("b-1")),
            written(store, deposit("a-2"), unless=about("b-1"), after=5),
            written(store, deposit("a-2"), unless=about("a-2"), after=5),
            written(store, deposit("a-2"), unless=about("a-2"), after=6),
            written(store, deposit("a-2"), unless=about("a-2"), after=8),
        ],
        NOW,
    )
    refused, beyond = AppendConflict, PositionBeyondHead
    assert kinds(found.verdicts) == [refused, None, refused, None, refused, beyond]
    assert [each.fields.get("found") for each in found.verdicts[2:5:2]] == [6, 7]


def test_repeats_are_recognised_by_key_and_by_ids(store: Store, copied_log: Store, replica: Any) -> None:
    """A repeat is recognised however old, before its condition is judged; other content is EventIdReused."""
    three = [draft(each, 2 + n) for n, each in enumerate(deposits(3, start=2))]
    found = replica.judge(
        [
            written(store, deposit("z-1"), key="first", unless=about("a-1")),
            written(store, *three, unless=about("a-1")),
            written(store, *three[:2]),
            written(store, draft(deposit("a-1", 99), 5)),
        ],
        NOW,
    )
    assert kinds(found.verdicts) == [1, 2, EventIdReused, EventIdReused]
    assert all(verdict.repeated for verdict in found.verdicts[:2])
    assert found.verdicts[1].last == 4


def test_repeats_within_one_call(store: Store, copied_log: Store, replica: Any) -> None:
    """A request that repeats an accepted one has its future receipt; its key is to be assigned."""
    new = [draft(deposit("c-1"), 20), draft(deposit("c-1"), 21)]
    old = draft(deposit(), 1)
    found = replica.judge(
        [
            written(store, *new, key="new"),
            written(store, *new, key="other"),
            written(store, deposit("c-1"), key="new"),
            written(store, old, key="again"),
            written(store, deposit("c-1"), key="again"),
            written(store, old, key="again"),
        ],
        NOW,
    )
    assert kinds(found.verdicts) == [None, 6, 6, 1, 1, 1]
    assert (found.verdicts[1].last, found.verdicts[1].time, found.keys) == (7, NOW, [("other", 6), ("again", 1)])
    assert store.receipt("again") is None
    replica.import_events([], [("again", 1)])
    assert kinds(replica.judge([written(store, deposit("c-1"), key="again")], NOW).verdicts) == [1]


def test_the_verdict_is_that_of_an_append(store: Store, copied_log: Store, replica: Any, port: Any) -> None:
    """After the accepted events were written to the log and imported, the same requests are repeats."""
    requests = [written(store, deposit("d-1"), key="k"), written(store, deposit("d-1"), unless=about("d-1"), after=6)]
    found = replica.judge(requests, NOW)
    assert kinds(found.verdicts) == [None, None]
    run(copied_log.engine.append_many(requests))
    replica.import_events(run(copied_log.engine.read(Query(), Span(after=5))).events, [("k", 6)])
    assert kinds(replica.judge(requests, NOW).verdicts) == [6, 7]
    assert port.receipt_of("k").first == 6


def test_a_copy_is_written_to_a_file_or_refused(store: Store, copied_log: Store, replica: Any, tmp_path: Any) -> None:
    """The file is a log with the same identity and events; an engine without files refuses, with a remedy."""
    path = tmp_path / "copy"
    try:
        replica.copy_to(str(path))
    except NotSupported as refused:
        assert len(refused.remedy) > 10
        return
    with Store(f"{store.engine.name}:{path}") as copied:
        assert (copied.engine.store_id, copied.engine.epoch) == (store.engine.store_id, store.engine.epoch)
        assert positions(copied.read()) == [1, 2, 3, 4, 5]
