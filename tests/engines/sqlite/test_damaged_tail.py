"""A damaged event that is not in the index yet: only what may depend on it is refused, and what is refused names it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import eventfold as ef
from eventfold.concurrency.run import run
from eventfold.core.query import ConditionClause, Query
from eventfold.engines.sqlite import SqliteEngine
from eventfold.engines.sqlite.idle_merge import IdleStep
from eventfold.errors import AppendConflict, CorruptEvent
from eventfold.ports.messages import Span
from tests.cli.commands import run as eventfold
from tests.engines.sqlite.noted import assert_whole, engine_of, foreign, merge, noted, raw, request, written
from tests.engines.sqlite.test_flips import unguarded

DAMAGED = 40
SAME, OTHER = Query.of(tags="who:w-4"), Query.of(tags="who:w-2")  # events 5, 12, 19, 26, 33, [40], 47 …; 3, 10, 17, …


@pytest.fixture(params=["tags", "type", "text", "row"])
def damaged(request: pytest.FixtureRequest, path: str) -> Iterator[SqliteEngine]:
    """A store of 60 events in the tail, whose 40th is damaged, opened beside the process that wrote it."""
    damage = {
        "tags": f"UPDATE event SET tags = 'who:w-9' WHERE position = {DAMAGED}",
        "type": f"UPDATE event SET type = 77 WHERE position = {DAMAGED}",
        "text": f"UPDATE event SET tags = CAST(X'ff61' AS TEXT) WHERE position = {DAMAGED}",
        "row": f"DELETE FROM event WHERE position = {DAMAGED}",
    }
    with ef.Store(path) as store:
        for n in range(60):
            store.append(noted(n))
        unguarded(path, damage[request.param])
        engine = SqliteEngine(path, merge_events=8)
        run(engine.open())
        yield engine
        run(engine.close())


def positions(engine: SqliteEngine, query: Query, **span: Any) -> list[int]:
    """The positions that a read returns."""
    return [each.position for each in run(engine.read(query, Span(**span))).events]


def refused(work: Callable[[], object]) -> None:
    """Assert that it is refused, and names the event, unless SQLite's driver could not decode a text of the page."""
    with pytest.raises(CorruptEvent) as caught:
        work()
    assert caught.value.fields["position"] == DAMAGED or "UTF-8" in caught.value.what


def test_reads_before_and_after_it_succeed(damaged: SqliteEngine) -> None:
    """And those whose range includes it are refused, whatever they ask for: it may have had any tag."""
    either = Query.any_of([*SAME.items, *OTHER.items])
    for query, first in ((SAME, 5), (OTHER, 3), (Query.of(tags="who:none"), 61), (either, 3)):
        refused(lambda query=query: positions(damaged, query))
        refused(lambda query=query: positions(damaged, query, backwards=True))
        refused(lambda query=query: run(damaged.count(query)))
        whole = list(range(first, 61, 7)) if len(query.items) == 1 else sorted([*range(5, 61, 7), *range(3, 61, 7)])
        assert positions(damaged, query, until=DAMAGED - 1) == [p for p in whole if p < DAMAGED]
        assert positions(damaged, query, after=DAMAGED) == [p for p in whole if p > DAMAGED]
        assert run(damaged.count(query, 0, DAMAGED - 1)) == len([p for p in whole if p < DAMAGED])
        assert run(damaged.count(query, DAMAGED)) == len([p for p in whole if p > DAMAGED])


def test_a_page_that_ends_before_it_succeeds(damaged: SqliteEngine) -> None:
    """A reader gets all events before it, then the error, and may go on after it."""
    assert positions(damaged, SAME, limit=4) == [5, 12, 19, 26]
    assert positions(damaged, SAME, limit=1, backwards=True) == [54]
    refused(lambda: positions(damaged, SAME, after=33))


def test_reads_by_type_are_refused_as_well(damaged: SqliteEngine) -> None:
    """Its type is as uncertain as its tags."""
    (kind,) = {each.type for each in run(damaged.read(Query(), Span(until=3))).events}
    refused(lambda: positions(damaged, Query.of(types=kind)))
    assert len(positions(damaged, Query.of(types=kind), after=DAMAGED)) == 20
    refused(lambda: run(damaged.types()))
    refused(lambda: run(damaged.tags()))
    assert run(damaged.stats())["events"] == 60
    assert "40" in run(damaged.stats())["merge_error"] or "UTF-8" in run(damaged.stats())["merge_error"]


def test_a_condition_fails_only_if_it_may_depend_on_it(damaged: SqliteEngine) -> None:
    """A known conflict is a conflict; a range after it does not depend on it."""

    def append(query: Query, after: int) -> Any:
        (outcome,) = run(damaged.append_many([request(raw(0, "x:1"), unless=[ConditionClause(query, after)])]))
        return outcome

    assert isinstance(append(SAME, 0), AppendConflict)
    assert isinstance(append(Query.of(tags="who:none"), 0), CorruptEvent)
    assert written(append(Query.of(tags="who:none"), DAMAGED)).first > 60
    assert written(run(damaged.append_many([request(raw(0, "x:2"))]))[0]).first > 60
    assert positions(damaged, Query.of(tags="x:2"), after=DAMAGED)


def test_merges_end_before_it(damaged: SqliteEngine) -> None:
    """A process that has not seen its tags merges what is before; nothing is repeated without end."""
    for n in range(60):
        written(run(damaged.append_many([request(raw(n, f"x:{n % 3}"))]))[0])
    assert run(damaged.stats())["indexed_through"] == DAMAGED - 1
    assert len(positions(damaged, Query.of(tags="x:1"), after=DAMAGED)) == 20
    assert positions(damaged, SAME, until=DAMAGED - 1) == [5, 12, 19, 26, 33]


def test_an_idle_process_divides_the_events_after_it_once_at_most(path: str) -> None:
    """They cannot be merged, so a segment for each pause between two appends would only make reads slower."""
    with ef.Store(path) as store:
        store.extend(noted(n) for n in range(300))
        unguarded(path, "UPDATE event SET tags = 'who:w-9' WHERE position = 20")
        engine = engine_of(store)
        engine._names.tail.forget()
        writer = engine._writer
        assert writer is not None
        for n in range(5):
            store.append(noted(n))
            while writer.merge_idle() in (IdleStep.MERGED, IdleStep.WAITS):
                pass
        assert run(engine.stats())["indexed_through"] == 19
        assert len(engine._names.tail.segments) <= 3


def test_verify_names_it_and_a_reindex_refuses(path: str) -> None:
    """The index cannot be rebuilt without its tags; nothing is changed."""
    with ef.Store(path) as store:
        for n in range(60):
            store.append(noted(n))
        engine = engine_of(store)
        unguarded(path, f"UPDATE event SET tags = 'who:w-9' WHERE position = {DAMAGED}")
        assert [problem.position for problem in engine.check()] == [DAMAGED]
    with pytest.raises(CorruptEvent):
        run(SqliteEngine(path).reindex())
    shown = eventfold("verify", path)
    assert shown.code == 1 and str(DAMAGED) in shown.out
    assert foreign(path, "SELECT count(*), max(position) FROM event") == [(60, 60)]


def test_a_damaged_event_that_its_writer_has_merged_is_in_the_index(path: str) -> None:
    """The writer knows its tags. Then only what leads to it is refused, also in a process that has seen the damage."""
    with ef.Store(path) as store:
        for n in range(60):
            store.append(noted(n))
        unguarded(path, f"UPDATE event SET tags = 'who:w-9' WHERE position = {DAMAGED}")
        engine = SqliteEngine(path, merge_events=8)
        run(engine.open())
        refused(lambda: positions(engine, OTHER))
        merge(engine_of(store))
        assert positions(engine, OTHER) == list(range(3, 61, 7))
        refused(lambda: positions(engine, SAME))
        run(engine.close())


def test_a_row_that_is_readable_again_is_read_again(path: str) -> None:
    """For example after a checkpoint that disturbed the read."""
    with ef.Store(path) as store:
        for n in range(60):
            store.append(noted(n))
        engine = SqliteEngine(path, merge_events=8)
        run(engine.open())
        read = engine._names.tail._read
        left = 2

        def disturbed(connection: Any, after: int, until: int) -> Any:
            nonlocal left
            if after < DAMAGED <= until and left:
                left -= 1
                raise CorruptEvent("Planted.", "Nothing.", position=DAMAGED)
            return read(connection, after, until)

        engine._names.tail._read = disturbed
        assert engine._run_read(lambda connection: engine._names.tail.covering(connection, 60))
        assert engine._names.tail.damage is not None
        assert positions(engine, SAME) == list(range(5, 61, 7))
        assert engine._names.tail.damage is None
        run(engine.close())
    assert assert_whole(path) == 60


def test_two_damaged_events_beside_each_other(path: str) -> None:
    """Each is refused for itself."""
    with ef.Store(path) as store:
        for n in range(60):
            store.append(noted(n))
        unguarded(path, "UPDATE event SET tags = 'who:w-9' WHERE position IN (1, 40, 41, 60)")
        engine = SqliteEngine(path, merge_events=8)
        run(engine.open())
        for after, until, position in ((0, 60, 1), (1, 60, 40), (40, 60, 41), (41, 60, 60)):
            with pytest.raises(CorruptEvent) as caught:
                run(engine.count(OTHER, after, until))
            assert caught.value.fields["position"] == position
        assert run(engine.count(OTHER, 41, 59)) == 3
        assert run(engine.count(OTHER, 1, 39)) == 6
        run(engine.close())


def test_the_last_event_seen_may_be_damaged_later(path: str) -> None:
    """An engine whose last event is damaged after it saw it appends, and reads what other processes appended."""
    with ef.Store(path) as store, ef.Store(path) as other:
        for n in range(3):
            store.append(noted(n))
        assert other.head() == 3
        store.append(noted(3))
        unguarded(path, "UPDATE event SET tags = 'who:w-9' WHERE position = 3")
        assert other.head() == 4
        assert other.append(noted(4)).first == 5
        assert [each.position for each in other.read(after=3)] == [4, 5]
        with pytest.raises(CorruptEvent):
            list(other.read())
