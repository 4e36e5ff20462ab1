"""Several writers: appends are forwarded to the holder of a lease, which may die, stall or be cut off at any moment."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

import eventfold as ef
from eventfold.concurrency import run
from eventfold.core.envelope import NewEvent
from eventfold.core.query import ConditionClause
from eventfold.engines.jetstream import forwarding as module
from eventfold.engines.jetstream.accepting import Acceptor, Forwarded
from eventfold.errors import AppendConflict, AppendUnconfirmed
from eventfold.ports.messages import AppendRequest
from tests.engines.jetstream.writers import (
    Booked,
    forwarding_of,
    ids_in,
    in_threads,
    let_forward,
    let_hold,
    on_loop,
    opened,
    pretend_to_hold,
    session_of,
    wait_for,
)
from tests.support.servers.cutting_proxy import CuttingProxy
from tests.support.servers.nats import shared
from tests.support.stores import new_stream, remove_stream

SEATS = 12


class Course(ef.State):
    """How many seats of a course are booked."""

    course: ef.Tag
    booked: int = 0

    def evolve(self, event: Booked) -> None:
        """Count one."""
        self.booked += 1


def book(course: Course, by: str) -> list[ef.Event]:
    """Book a seat, if one is free."""
    return [Booked(course.course, by)] if course.booked < SEATS else []


@pytest.fixture
def url() -> Iterator[str]:
    """A new store of the shared cluster."""
    made = new_stream(shared())
    yield made
    remove_stream(made)


@pytest.fixture
def stores(url: str, tmp_path: Path) -> Iterator[list[ef.Store]]:
    """Three stores of it, as on three hosts."""
    made = [opened(url, tmp_path, f"host{number}") for number in range(3)]
    yield made
    for each in made:
        each.close()


def be_silent(acceptor: Acceptor, taken: list[Forwarded]) -> None:
    """Let a holder keep what it is sent, and answer nothing."""

    async def take(message: Forwarded) -> None:
        if message.requests:
            taken.append(message)

    acceptor._take = take  # type: ignore[method-assign]


def test_writers_that_refuse_each_other_agree_on_one_of_them(stores: list[ef.Store]) -> None:
    """After some refusals one writes for all, every append is written once, and all of them go on."""
    acknowledged: list[UUID] = []
    is_agreed = threading.Event()

    def work(store: ef.Store) -> None:
        while not is_agreed.is_set():
            acknowledged.extend(store.append(Booked("all", "anyone")).event_ids)

    def watch() -> None:
        parts = [forwarding_of(each) for each in stores]
        wait_for(
            lambda: sum(each.is_holder() for each in parts) == 1 and sum(each.forwarded > 9 for each in parts) == 2
        )
        is_agreed.set()

    in_threads(watch, *(lambda each=each: work(each) for each in stores for _ in range(3)))
    assert Counter(ids_in(stores[0])) == Counter(acknowledged)
    assert len(set(acknowledged)) == len(acknowledged)


def test_decisions_are_exact_when_appends_are_forwarded(stores: list[ef.Store]) -> None:
    """Callers of three hosts book exactly as many seats as there are, and each host reads what it has written."""
    let_hold(*stores)
    done: list[str] = []

    def work(store: ef.Store, name: str) -> None:
        for number in range(5):
            result = store.using(attempts=200).decide(book, Course("c-1"), by=f"{name} {number}")
            if result.events:
                done.append(f"{name} {number}")
                assert store.state(Course("c-1")).booked > 0

    in_threads(*(lambda n=n, each=each: work(each, f"{n}") for n, each in enumerate([*stores, *stores])))
    events = list(stores[1].read())
    assert len(events) == SEATS
    assert sorted(event.event.by for event in events) == sorted(done)
    assert forwarding_of(stores[1]).forwarded > 0


def test_two_holders_at_once_are_two_writers(stores: list[ef.Store]) -> None:
    """Each writes for another process, and a third competes with both: every condition holds."""
    first, second, third = stores
    let_hold(first)
    name = pretend_to_hold(second)
    let_forward(third)
    done: list[int] = []

    def work(store: ef.Store) -> None:
        for _ in range(8):
            if store is third:
                forwarding_of(third)._holder = (name, forwarding_of(first).acceptor.holder)[len(done) % 2]
            if store.using(attempts=500).decide(book, Course("c-1"), by="x").events:
                done.append(1)

    in_threads(*(lambda each=each: work(each) for each in stores for _ in range(2)))
    assert (len(done), first.head()) == (SEATS, SEATS)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_holder_that_is_gone_costs_one_timeout_and_nothing_else(
    url: str, tmp_path: Path, number: signal.Signals
) -> None:
    """Its callers' acknowledged events and those of others are in the log once; a stopped one goes on afterwards."""
    command = [sys.executable, "-m", "tests.engines.jetstream.holding", url, str(tmp_path / "holder.db")]
    acknowledged: list[UUID] = []
    with (
        opened(url, tmp_path, "other") as store,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "holding\n"
            let_forward(store)
            part = forwarding_of(store)
            is_over = threading.Event()

            def append() -> None:
                while not is_over.is_set():
                    acknowledged.extend(store.append(Booked("all", "other")).event_ids)

            def disturb() -> None:
                wait_for(lambda: part.forwarded > 20)
                os.kill(process.pid, number)
                wait_for(part.is_holder)
                at = len(acknowledged)
                wait_for(lambda: len(acknowledged) > at + 20)
                is_over.set()

            in_threads(disturb, append, append, append)
            if number == signal.SIGSTOP:
                os.kill(process.pid, signal.SIGCONT)
                theirs = [UUID(process.stdout.readline().strip()) for _ in range(40)]
                process.kill()
            else:
                theirs = []
            theirs += [UUID(line) for line in process.stdout.read().splitlines() if len(line) == 36]
        finally:
            process.kill()
        counted = Counter(ids_in(store))
    assert set(counted.values()) == {1}
    assert len(theirs) > 5
    assert counted.keys() >= {*acknowledged, *theirs}
    # What was not acknowledged: the last append of the process that was killed.
    assert len(counted) - len(acknowledged) - len(theirs) <= 1


def test_a_holder_that_is_cut_off_is_replaced_and_comes_back(url: str, tmp_path: Path) -> None:
    """Others take its lease. When it is connected again, its own append is written, and it forwards or competes."""
    node = shared().nodes[0]
    proxy = CuttingProxy(node.ports.clients)
    behind = url.replace(url.partition("@")[2].partition("/")[0], f"127.0.0.1:{proxy.port}")
    with opened(behind, tmp_path, "holder") as holder, opened(url, tmp_path, "other") as other:
        let_hold(holder, other)
        ids = [*other.append(Booked("all", "other")).event_ids, *holder.append(Booked("all", "holder")).event_ids]
        proxy.silence()
        ids += other.append(Booked("all", "other")).event_ids
        assert forwarding_of(other).taken_over == 1
        ids += other.append(Booked("all", "other")).event_ids
        proxy.leave()  # its connection is closed; the driver knows the other nodes
        ids += holder.append(Booked("all", "holder")).event_ids
        assert ids_in(other) == ids
        wait_for(lambda: not forwarding_of(holder).is_holder() or not forwarding_of(other).is_holder())
    proxy.close()


def test_an_append_whose_answer_was_lost_is_written_once(stores: list[ef.Store]) -> None:
    """The holder has written it, and its answer did not come: the sender finds the first outcome, not a repetition."""
    holder, other, _ = stores
    let_hold(holder, other)
    acceptor = forwarding_of(holder).acceptor
    answer = acceptor._answer

    async def take(message: Forwarded) -> None:
        if message.requests:
            await answer(message)

    acceptor._take = take  # type: ignore[method-assign]
    receipt = other.append(Booked("all", "other"), key="k")
    assert (receipt.first, receipt.repeated) == (1, False)
    assert forwarding_of(other).taken_over >= 1
    assert forwarding_of(other).is_holder()
    assert other.append(Booked("all", "again"), key="k").repeated
    assert holder.head() == 1


def test_a_holder_that_has_written_and_is_gone_is_not_taken_for_one_that_heard_nothing(stores: list[ef.Store]) -> None:
    """It listens no more when it is asked whether it is there, which does not mean that it never got the request."""
    holder, other, _ = stores
    let_hold(holder, other)
    acceptor = forwarding_of(holder).acceptor
    answer, client = acceptor._answer, session_of(holder).connection.client
    subject = acceptor.subject(acceptor.holder).decode()

    async def take(message: Forwarded) -> None:
        for each in [found for found in client._subs.values() if found.subject == subject]:
            await each.unsubscribe()
        await answer(message)

    acceptor._take = take  # type: ignore[method-assign]
    receipt = other.append(Booked("all", "other"))
    assert (receipt.first, receipt.repeated) == (1, False)
    assert holder.head() == 1


def test_an_append_that_has_the_key_meanwhile_is_reported_as_one_that_was_repeated(stores: list[ef.Store]) -> None:
    """The holder has not written the request, and another process has appended with its key: the receipt says so."""
    holder, other, third = stores
    let_hold(holder, other)
    written: list[ef.Receipt] = []

    async def take(message: Forwarded) -> None:
        if message.requests:
            written.append(await asyncio.to_thread(third.append, Booked("all", "third"), key="k"))

    forwarding_of(holder).acceptor._take = take  # type: ignore[method-assign]
    receipt = other.append(Booked("all", "other"), key="k")
    assert (receipt.ids, receipt.repeated) == (written[0].ids, True)
    assert holder.head() == 1


def test_a_holder_that_writes_late_writes_nothing_again(stores: list[ef.Store]) -> None:
    """It wakes up after the sender has written the request itself: both get one receipt, and it is written once."""
    holder, other, _ = stores
    let_hold(holder, other)
    taken: list[Forwarded] = []
    be_silent(forwarding_of(holder).acceptor, taken)
    receipt = other.append(Booked("all", "other"))
    late = on_loop(holder, lambda: session_of(holder).appends.write_for_others(taken[0].requests, 1e9))
    assert (late[0].first, late[0].ids, late[0].repeated) == (receipt.first, receipt.ids, True)
    assert other.head() == 1


def test_an_outcome_that_the_holder_may_still_change_is_not_reported(stores: list[ef.Store]) -> None:
    """A conflict stays one forever. "Beyond the head" does not: the holder may write it when it gets there."""
    holder, other, _ = stores
    let_hold(holder, other)
    holder.append(Booked("c-1", "x"))
    taken: list[Forwarded] = []
    be_silent(forwarding_of(holder).acceptor, taken)
    event = NewEvent.of("forwarding.booked", b"{}", tags=["course:c-1"])
    query = Course("c-1").query()
    requests = [
        AppendRequest((event,), (ConditionClause(query, 0),)),
        AppendRequest((NewEvent.of("forwarding.booked", b"{}"),), (ConditionClause(query, 1_000),)),
    ]
    outcomes = run(other.engine.append_many(requests))
    assert [type(each) for each in outcomes] == [AppendConflict, AppendUnconfirmed]
    assert len(taken) == 1


def test_a_failure_after_forwarding_is_unconfirmed(stores: list[ef.Store], monkeypatch: pytest.MonkeyPatch) -> None:
    """If the sender cannot write the request either, it does not say that nothing was written."""
    holder, other, _ = stores
    let_hold(holder, other)
    be_silent(forwarding_of(holder).acceptor, [])

    async def fail(*_: Any) -> Any:
        raise ef.errors.StoreBusy("Others were faster.", "Nothing was written: try again.")

    monkeypatch.setattr(session_of(other).writer, "write", fail)
    with pytest.raises(AppendUnconfirmed, match="faster"):
        other.append(Booked("all", "other"))


def test_a_cancelled_caller_learns_the_outcome_by_repeating(url: str, tmp_path: Path) -> None:
    """Its append is written once or not at all; the repetition with the same ids is written once."""

    async def scenario() -> None:
        with opened(url, tmp_path, "holder") as holder:
            async with ef.AsyncStore(url, index=str(tmp_path / "other.db")) as other:
                await asyncio.to_thread(let_hold, holder, other)
                drafts = [ef.Draft(Booked("all", f"{number}"), id=uuid4()) for number in range(8)]
                for number, each in enumerate(drafts):
                    task = asyncio.create_task(other.append(each))
                    await asyncio.sleep(number / 1_000)
                    task.cancel()
                    await asyncio.wait([task])
                    assert task.cancelled() or task.result().first
                await asyncio.gather(*(other.append(each) for each in drafts))
                assert Counter([event.id async for event in other.read()]) == Counter([each.id for each in drafts])

    asyncio.run(scenario())


def test_the_others_go_on_when_the_holder_is_closed(stores: list[ef.Store]) -> None:
    """It answers what it has accepted, releases the lease, and the others go on."""
    holder, other, third = stores
    let_hold(holder, other, third)
    ids: list[UUID] = []

    def append(store: ef.Store) -> None:
        for _ in range(40):
            ids.extend(store.append(Booked("all", "x")).event_ids)

    in_threads(lambda: append(other), lambda: append(third), lambda: (wait_for(lambda: len(ids) > 20), holder.close()))
    assert Counter(ids_in(other)) == Counter(ids)
    assert not forwarding_of(holder).is_holder()


def test_closing_a_store_ends_its_forwarded_appends(stores: list[ef.Store]) -> None:
    """Callers whose append is on its way to a silent holder get an error: unknown outcome, or closed."""
    holder, other, _ = stores
    let_hold(holder, other)
    taken: list[Forwarded] = []
    be_silent(forwarding_of(holder).acceptor, taken)

    def append() -> None:
        with pytest.raises((AppendUnconfirmed, ef.errors.StoreClosed)):
            other.append(Booked("all", "x"))

    in_threads(append, lambda: (wait_for(lambda: bool(taken)), other.close()))


def test_the_lease_is_released_when_fewer_than_two_processes_write(
    stores: list[ef.Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nothing is forwarded any more, and the next append is written by its own process."""
    monkeypatch.setattr(module, "IDLE_S", 0.3)
    holder, other, _ = stores
    let_hold(holder, other)
    other.append(Booked("all", "x"))
    assert forwarding_of(other).forwarded == 1
    wait_for(lambda: not forwarding_of(holder).is_holder())
    other.append(Booked("all", "x"))
    assert forwarding_of(other).forwarded == 1
    assert on_loop(other, lambda: forwarding_of(other)._leases.holder(module.KEY)) is None


def test_writers_without_the_bucket_compete(stores: list[ef.Store]) -> None:
    """If the lease cannot be used, writers refuse each other as before, and every append is written."""
    bucket = session_of(stores[0]).address.names.bucket("locks")
    connection = session_of(stores[0]).connection
    on_loop(stores[0], lambda: connection.ask(f"STREAM.DELETE.KV_{bucket}", None, dict[str, Any]))
    ids: list[UUID] = []

    def append(store: ef.Store) -> None:
        for _ in range(15):
            ids.extend(store.append(Booked("all", "x")).event_ids)

    in_threads(*(lambda each=each: append(each) for each in stores))
    assert Counter(ids_in(stores[0])) == Counter(ids)
    assert not any(forwarding_of(each).is_holder() for each in stores)


def test_an_append_that_a_holder_wrote_before_it_was_closed_is_no_repetition(stores: list[ef.Store]) -> None:
    """The holder writes it and is gone before it answers: the sender learns that it is gone, and finds the receipt."""
    holder, other, _ = stores
    let_hold(holder, other)
    acceptor = forwarding_of(holder).acceptor
    answer = acceptor._answer

    async def take(message: Forwarded) -> None:
        await answer(message)
        await session_of(holder).connection.client.close()  # no process takes messages on its subject any more

    acceptor._take = take  # type: ignore[method-assign]
    receipt = other.append(Booked("all", "other"))
    assert (receipt.first, receipt.repeated) == (1, False)
    assert (other.head(), forwarding_of(other).taken_over) == (1, 1)
