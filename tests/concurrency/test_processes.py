"""Processes at once on one store: one winner per contested key, nothing lost, followers see commits in order."""

from __future__ import annotations

from typing import Any

import eventfold as ef
from tests.concurrency.conftest import shared_engines
from tests.concurrency.crowd import Worker, processes, start
from tests.concurrency.events import Counted, Written, contiguous, each_once, seat

Address = tuple[str, dict[str, Any]]


@shared_engines
def test_one_process_wins_each_seat(address: Address, store: ef.Store) -> None:
    """Of three processes that append under the same condition exactly one wins each seat."""
    results = processes("take_seats", 3, *address, 40)
    assert sorted(won for each in results for won in each) == list(range(40))
    assert [len(list(store.read(seat(each)))) for each in range(40)] == [1] * 40
    assert contiguous(store.read())


@shared_engines
def test_one_decision_of_one_process_wins_each_seat(address: Address, store: ef.Store) -> None:
    """The same holds for decisions over states that each process caches."""
    results = processes("decide_seats", 3, *address, 25)
    assert sorted(won for each in results for won in each) == list(range(25))
    assert store.head() == 25


@shared_engines
def test_processes_count_every_number_once(address: Address, store: ef.Store) -> None:
    """Three processes that count one counter up leave 1, 2, 3 … without gap or duplicate."""
    results = processes("count", 3, *address, 20)
    assert sorted(value for values in results for value in values) == list(range(1, 61))
    assert [recorded.event.value for recorded in store.read(ef.Query.of(types=Counted))] == list(range(1, 61))


@shared_engines
def test_no_append_of_any_process_is_lost(address: Address, store: ef.Store) -> None:
    """What three processes write at once all exists, each append whole, at the positions of its receipt."""
    results = processes("write", 3, *address, 120)
    events = list(store.read())
    assert len(events) == 360
    assert contiguous(events)
    assert each_once(events, ["p-0", "p-1", "p-2"], 120)
    acknowledged_spans = sorted((first, last) for spans in results for first, last in spans)
    assert acknowledged_spans == sorted({(recorded.first, recorded.last) for recorded in events})


@shared_engines
def test_tasks_of_several_processes_write_one_log(address: Address, store: ef.Store) -> None:
    """Two processes with a hundred tasks each: every append is acknowledged and exists at its position."""
    results = processes("write_in_tasks", 2, *address, 100)
    events = list(store.read())
    assert len(events) == 200
    assert contiguous(events)
    for number, positions in enumerate(results):
        assert [events[position - 1].event for position in positions] == [Written(f"p-{number}", n) for n in range(100)]


@shared_engines
def test_followers_and_readers_in_other_processes_see_commits_in_order(address: Address, store: ef.Store) -> None:
    """While two processes and this one write, a follower and a reader in two others see 1, 2, 3 … unchanging."""
    total = 2 * 90 + 30
    watchers = [Worker("follow", 0, *address, total), Worker("reread", 0, *address, total)]
    writers = [Worker("write", number, *address, 90) for number in range(2)]
    start(*watchers)
    watchers[1].ready()
    start(*writers)
    for number in range(30):
        store.append(Written("here", number))
    for writer in writers:
        writer.result()
    followed, turns = [watcher.result() for watcher in watchers]
    assert followed == list(range(1, total + 1))
    assert turns > 1
    assert contiguous(store.read())
