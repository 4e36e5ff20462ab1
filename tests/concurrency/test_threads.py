"""Threads at once: one winner per contested key, nothing lost, positions in commit order."""

from __future__ import annotations

import threading
from collections import Counter as Tally
from typing import Any

import eventfold as ef
from eventfold.core.envelope import Receipt
from eventfold.testing.conformance.follow import following, soon
from tests.concurrency.conftest import every_engine
from tests.concurrency.crowd import fine, together
from tests.concurrency.events import (
    Counted,
    Counter,
    Seat,
    SeatIsTaken,
    Taken,
    Written,
    contiguous,
    count_up,
    each_once,
    seat,
    take,
)

THREADS = 12


@every_engine
def test_one_thread_wins_each_seat(store: ef.Store) -> None:
    """Of twelve threads that append under the same condition exactly one wins each seat; the others get a conflict."""
    seats = range(15)

    def grab(name: str) -> list[Any]:
        outcomes: list[Any] = []
        for each in seats:
            try:
                outcomes.append(store.append(Taken(each, name), unless=seat(each)))
            except ef.AppendConflict as conflict:
                outcomes.append(conflict)
        return outcomes

    results = fine(together([lambda n=n: grab(f"t-{n}") for n in range(THREADS)]))
    for each in seats:
        won = [outcomes[each] for outcomes in results if isinstance(outcomes[each], Receipt)]
        assert len(won) == 1
        (taken,) = store.read(seat(each))
        assert taken.position == won[0].first
    assert store.head() == len(seats)
    assert contiguous(store.read())


@every_engine
def test_one_decision_wins_each_seat(store: ef.Store) -> None:
    """The same holds for decisions: the winners get a receipt, the others see the seat taken; none is taken twice."""
    seats = range(10)

    def grab(name: str) -> list[int]:
        won: list[int] = []
        for each in seats:
            try:
                store.using(attempts=100).decide(take, Seat(each), name)
                won.append(each)
            except SeatIsTaken:
                continue
        return won

    results = fine(together([lambda n=n: grab(f"t-{n}") for n in range(THREADS)]))
    assert sorted(won for each in results for won in each) == list(seats)
    assert Tally(recorded.event.seat for recorded in store.read()) == dict.fromkeys(seats, 1)


@every_engine
def test_every_number_is_counted_once(store: ef.Store) -> None:
    """Threads that count one counter up by decisions leave 1, 2, 3 … without gap or duplicate, also from caches."""
    each = 8

    def count(name: str) -> list[int]:
        view = store.using(attempts=10_000)
        return [view.decide(count_up, Counter("c"), name).state(Counter("c")).value for _ in range(each)]

    results = fine(together([lambda n=n: count(f"t-{n}") for n in range(6)]))
    assert sorted(value for values in results for value in values) == list(range(1, 6 * each + 1))
    assert all(values == sorted(values) for values in results)
    assert [recorded.event.value for recorded in store.read(ef.Query.of(types=Counted))] == list(range(1, 6 * each + 1))
    assert store.state(Counter("c")).value == 6 * each


@every_engine
def test_a_thousand_small_appends_are_all_there(store: ef.Store) -> None:
    """A thousand appends by 32 threads are all acknowledged and exist once, at the positions of their receipts."""
    each = 32

    def write(name: str) -> list[Receipt]:
        return [store.append(Written(name, number)) for number in range(each)]

    results = fine(together([lambda n=n: write(f"t-{n}") for n in range(32)]))
    events = list(store.read())
    assert len(events) == 32 * each
    assert contiguous(events)
    assert each_once(events, [f"t-{n}" for n in range(32)], each)
    for number, receipts in enumerate(results):
        for n, receipt in enumerate(receipts):
            recorded = events[receipt.first - 1]
            assert (recorded.event, recorded.stored.id) == (Written(f"t-{number}", n), receipt.ids[0])


@every_engine
def test_appends_of_several_events_stay_whole(store: ef.Store) -> None:
    """Appends of one to seven events by many threads are adjacent and whole, as their receipts say."""

    def write(name: str) -> list[Receipt]:
        return [store.append(*[Written(name, n) for n in range(size)]) for size in (1, 7, 3, 2, 5)]

    results = fine(together([lambda n=n: write(f"t-{n}") for n in range(THREADS)]))
    events = list(store.read())
    assert contiguous(events)
    for receipts in results:
        for receipt in receipts:
            written = events[receipt.first - 1 : receipt.last]
            assert [r.stored.id for r in written] == list(receipt.ids)
            assert {(r.first, r.last) for r in written} == {(receipt.first, receipt.last)}


@every_engine
def test_one_key_is_written_once(store: ef.Store) -> None:
    """Of threads that append under one key at once, one writes, and all others get its receipt."""
    results: list[Receipt] = list(
        fine(together([lambda n=n: store.append(Written(f"t-{n}", 0), key="once") for n in range(THREADS)]))
    )
    assert sum(not receipt.repeated for receipt in results) == 1
    assert len({receipt.ids for receipt in results}) == 1
    assert store.head() == 1


@every_engine
def test_one_event_id_is_written_once(store: ef.Store) -> None:
    """Threads append the same event under the same id at once: it is written once, and none of them is refused."""
    from uuid import UUID

    event = ef.Draft(Written("w", 0), id=UUID(int=7))
    results = list(fine(together([lambda: store.append(event, unless=seat(0)) for _ in range(THREADS)])))
    assert sum(not receipt.repeated for receipt in results) == 1
    assert {receipt.first for receipt in results} == {1}
    assert store.head() == 1


@every_engine
def test_a_command_is_decided_once_by_all(store: ef.Store) -> None:
    """Threads decide the same command at once: it is decided once, and all of them get that outcome."""
    results = fine(
        together(
            [lambda n=n: store.using(command_id="c").decide(count_up, Counter("c"), f"t-{n}") for n in range(THREADS)]
        )
    )
    assert sum(not done.repeated for done in results) == 1
    assert len({done.events[0].id for done in results}) == 1
    assert (store.head(), store.state(Counter("c")).value) == (1, 1)


@every_engine
def test_a_follower_sees_commits_in_order(store: ef.Store, address: tuple[str, dict[str, Any]]) -> None:
    """While threads write through two stores, a follower and a reader see 1, 2, 3 … without gaps or changes."""
    url, options = address
    writers, each = 6, 40
    total = writers * each
    found: list[int] = []
    follower = store.follow()
    thread = following(follower, found)
    stop = threading.Event()
    with ef.Store(url, **options) as other:

        def write(number: int) -> None:
            for n in range(each):
                (store if number % 2 else other).append(Written(f"t-{number}", n))

        def reread() -> int:
            turns, earlier_ids = 0, list[bytes]()
            while not stop.is_set():
                ids = [recorded.stored.id for recorded in store.read()]
                assert ids[: len(earlier_ids)] == earlier_ids
                earlier_ids, turns = ids, turns + 1
            return turns

        def write_all() -> None:
            try:
                fine(together([lambda n=n: write(n) for n in range(writers)]))
            finally:
                stop.set()

        turns, _ = fine(together([reread, write_all]))
    assert turns > 0
    assert soon(lambda: len(found) >= total)
    follower.close()
    thread.join(60)
    assert found == list(range(1, total + 1))
