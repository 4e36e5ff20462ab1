"""Appends that share a commit: each has its own outcome, and no caller waits without end, whatever fails."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.concurrency import ThreadGroupCommit, run
from eventfold.concurrency.calls import Call
from eventfold.concurrency.waiting import CHECK_AGAIN_S
from eventfold.core.envelope import NewEvent, Receipt, new_id
from eventfold.engines.memory import MemoryEngine
from eventfold.errors import StoreFull
from eventfold.log.append import submit
from eventfold.ports.messages import AppendRequest, Outcome
from eventfold.testing import Faulty
from eventfold.testing.conformance.follow import soon
from eventfold.testing.faults import Gate
from tests.concurrency.crowd import together
from tests.concurrency.events import Taken, Written, seat


def request(name: str = "x") -> AppendRequest:
    """Return a request with one small event."""
    return AppendRequest((NewEvent(new_id(), name, 1, b"{}", ()),))


def queue_of(store: ef.Store) -> Sequence[Any]:
    """Return the appends that wait in a store, including the one that is being committed."""
    combiner: ThreadGroupCommit = store._log.appender  # type: ignore[attr-defined]
    return combiner._waiting


def behind(store: ef.Store, faults: Faulty, calls: Sequence[Any], planned: Any = None) -> list[Any]:
    """Hold one commit until all calls wait behind it, plan their faults, release it. Returns the calls' outcomes."""
    gate: Gate = faults.hold()
    first = threading.Thread(target=store.append, args=(Written("first", 0),), daemon=True)
    first.start()
    assert gate.arrived()
    results: list[Any] = []
    gathering = threading.Thread(target=lambda: results.extend(together(calls)), daemon=True)
    gathering.start()
    assert soon(lambda: len(queue_of(store)) >= len(calls))  # the held one has led at once, without a place
    if planned is not None:
        planned()
    gate.open()
    gathering.join(60)
    first.join(60)
    assert not gathering.is_alive()
    assert not first.is_alive()
    return results


def test_a_caller_that_waits_for_a_leader_does_not_spin() -> None:
    """The first in the queue checks again when it is woken, or after a moment, and does not spin."""
    combiner = ThreadGroupCommit(MemoryEngine())
    leading, ended, looks = threading.Event(), threading.Event(), 0
    mutex = combiner._leading

    class Counting:
        def attempt(self, *arguments: Any) -> bool:
            nonlocal looks
            looks += 1
            return mutex.attempt(*arguments)

    def lead() -> None:
        leading.set()
        ended.wait(60)

    leader = threading.Thread(target=mutex.attempt, args=(lead,), daemon=True)
    leader.start()
    assert leading.wait(60)
    combiner._leading = Counting()  # type: ignore[assignment]
    results: list[Any] = []
    waiting = threading.Thread(target=lambda: results.append(run(submit(combiner, request()))), daemon=True)
    waiting.start()
    assert soon(lambda: looks > 0)
    time.sleep(10 * CHECK_AGAIN_S)
    assert looks <= 20
    ended.set()
    waiting.join(60)
    leader.join(60)
    assert [type(each) for each in results] == [Receipt]


def test_appends_that_arrive_during_a_commit_are_committed_together() -> None:
    """Appends that arrive during a commit share the next one."""
    faults = Faulty(MemoryEngine())
    store = ef.Store(faults)
    behind(store, faults, [lambda n=n: store.append(Written(f"t-{n}", 0)) for n in range(20)])
    assert store.head() == 21
    assert len(faults.commits) <= 4
    assert max(faults.commits) >= 15


def test_a_lone_caller_commits_alone() -> None:
    """Without other callers every append is a commit of its own, in the caller's thread."""
    faults = Faulty(MemoryEngine())
    store = ef.Store(faults)
    for n in range(3):
        store.append(Written("w", n))
    assert faults.commits == [1, 1, 1]


def looks_of(store: ef.Store) -> list[float]:
    """Return a list to which every pause of a caller that waits for others is added, 0 for one that leads instead."""
    combiner: ThreadGroupCommit = store._log.appender  # type: ignore[attr-defined]
    pauses: list[float] = []
    pause_of = combiner._pause_of

    def counting(ticket: Any) -> float:
        pauses.append(pause_of(ticket))
        return pauses[-1]

    combiner._pause_of = counting  # type: ignore[method-assign]
    return pauses


def test_callers_that_come_back_are_committed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that append again and again end up in one group: nearly every commit has an append of each."""
    monkeypatch.setattr("eventfold.concurrency.group_commit.GATHER_S", 0.25)
    faults = Faulty(MemoryEngine(), blocks=True).delay(0.002, times=320)
    store = ef.Store(faults)
    together([lambda n=n: [store.append(Written(f"t-{n}", i)) for i in range(40)] for n in range(8)])
    assert store.head() == 320
    assert faults.commits.count(8) >= 30


def test_callers_that_do_not_come_back_are_waited_for_once() -> None:
    """A caller waits a moment for those of the last commit; if none comes back, it commits and does not wait again."""
    faults = Faulty(MemoryEngine(), blocks=True)
    store = ef.Store(faults)
    pauses = looks_of(store)
    behind(store, faults, [lambda n=n: store.append(Written(f"t-{n}", 0)) for n in range(6)])
    for number in range(10):
        store.append(Written("alone", number))
    assert store.head() == 17
    assert pauses.count(0.0) <= 2
    assert faults.commits[-9:] == [1] * 9


def test_an_engine_that_does_not_block_is_not_waited_for() -> None:
    """A commit in memory costs less than waiting for others, so no caller waits for them."""
    faults = Faulty(MemoryEngine())
    store = ef.Store(faults)
    pauses = looks_of(store)
    behind(store, faults, [lambda n=n: store.append(Written(f"t-{n}", 0)) for n in range(6)])
    assert store.head() == 7
    assert pauses == []


def test_a_first_caller_that_was_ended_keeps_no_one_waiting() -> None:
    """If an exception ended the caller that was to look again for others, the next one does after a moment."""
    combiner = ThreadGroupCommit(MemoryEngine(), gathers=True)
    combiner.enqueue(request(), Call())  # a call that was never begun counts as ended
    combiner._expected = 3
    results = together([lambda: run(submit(combiner, request()))])
    assert [type(each) for each in results] == [Receipt]


def test_each_of_a_shared_commit_has_its_own_outcome() -> None:
    """Of rivals in one commit one wins, the others get the conflict, and unrelated appends are written."""
    faults = Faulty(MemoryEngine())
    store = ef.Store(faults)
    rivals = [lambda n=n: store.append(Taken(1, f"t-{n}"), unless=seat(1)) for n in range(6)]
    results = behind(store, faults, [*rivals, *[lambda n=n: store.append(Written(f"t-{n}", 0)) for n in range(6)]])
    assert sum(isinstance(result, Receipt) for result in results[:6]) == 1
    assert sum(isinstance(result, ef.AppendConflict) for result in results[:6]) == 5
    assert all(isinstance(result, Receipt) for result in results[6:])


def test_more_appends_than_fit_into_one_commit_are_all_served() -> None:
    """Hundreds of waiting threads are served by several commits; none is left waiting."""
    faults = Faulty(MemoryEngine())
    store = ef.Store(faults)
    import eventfold.concurrency.group_commit as threads

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "MAX_BATCH_REQUESTS", 4)
        results = behind(store, faults, [lambda n=n: store.append(Written(f"t-{n}", 0)) for n in range(30)])
    assert all(isinstance(result, Receipt) for result in results)
    assert max(faults.commits) <= 4
    assert sum(faults.commits) == 31


@pytest.mark.parametrize(
    "error",
    [StoreFull("Full.", "Free some space."), ZeroDivisionError("a bug"), MemoryError()],
    ids=lambda error: type(error).__name__,
)
def test_an_engine_that_raises_leaves_no_one_waiting(error: Exception) -> None:
    """Whatever a commit raises reaches every caller in it; later appends succeed."""
    faults = Faulty(MemoryEngine())
    store = ef.Store(faults)
    calls = [lambda n=n: store.append(Written(f"t-{n}", 0)) for n in range(8)]
    results = behind(store, faults, calls, lambda: faults.fail_before(error, times=8))
    failed = [result for result in results if not isinstance(result, Receipt)]
    assert failed
    assert {type(each) for each in failed} == {type(error)}
    faults.clear()
    assert isinstance(store.append(Written("after", 0)), Receipt)


def test_errors_of_a_shared_commit_are_each_callers_own() -> None:
    """Each caller of a failed commit gets an error object of its own, so that none sees another's traceback."""
    faults = Faulty(MemoryEngine())
    store = ef.Store(faults)
    calls = [lambda n=n: store.append(Written(f"t-{n}", 0)) for n in range(6)]
    results = behind(store, faults, calls, lambda: faults.fail_before(StoreFull("Full.", "Free some space."), times=6))
    errors = [result for result in results if isinstance(result, StoreFull)]
    assert len({id(error) for error in errors}) == len(errors) == 6


@pytest.mark.parametrize("count", [0, 1, 9])
def test_an_engine_that_miscounts_leaves_no_one_waiting(count: int) -> None:
    """An engine that returns too few outcomes, or too many, has a bug: every caller raises RuntimeError."""

    class Miscounting:
        async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
            await_all.wait(60)
            return run(MemoryEngine().append_many(requests))[:1] * count

    await_all = threading.Event()
    combiner = ThreadGroupCommit(Miscounting())
    calls = [lambda: run(submit(combiner, request())) for _ in range(4)]
    threading.Timer(0.2, await_all.set).start()
    results = together(calls)
    failures = [result for result in results if isinstance(result, RuntimeError)]
    assert len(failures) >= 3  # a lone first one may have got the right number


def test_a_slow_engine_is_waited_for() -> None:
    """A slow commit only delays: all appends are acknowledged, in few commits."""
    faults = Faulty(MemoryEngine())
    store = ef.Store(faults)
    faults.delay(0.2, times=50)
    began = time.monotonic()
    results = together([lambda n=n: [store.append(Written(f"t-{n}", i)) for i in range(3)] for n in range(12)])
    assert all(isinstance(result, list) for result in results)
    assert store.head() == 36
    assert len(faults.commits) <= 12
    assert time.monotonic() - began < 40


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupted_leader_serves_the_others_first(when: str) -> None:
    """An interrupt of the committing thread is raised there only: the others' appends are written and acknowledged."""
    faults = Faulty(MemoryEngine())
    store = ef.Store(faults)
    calls = [lambda n=n: store.append(Written(f"t-{n}", 0)) for n in range(8)]
    planned = (
        (lambda: faults.fail_before(KeyboardInterrupt()))
        if when == "before"
        else (lambda: faults.fail_after(KeyboardInterrupt()))
    )
    results = behind(store, faults, calls, planned)
    assert sum(isinstance(result, KeyboardInterrupt) for result in results) == 1
    receipts = [result for result in results if isinstance(result, Receipt)]
    assert len(receipts) == 7
    assert not any(receipt.repeated for receipt in receipts), "each was its caller's first"
    assert sorted(recorded.event.writer for recorded in store.read(after=1)) == [f"t-{n}" for n in range(8)]
    assert isinstance(store.append(Written("after", 0)), Receipt)


def test_a_leader_interrupted_again_and_again_leaves_no_one_waiting() -> None:
    """If serving the others is interrupted as well, they raise AppendUnconfirmed, and may repeat their appends."""
    faults = Faulty(MemoryEngine())
    store = ef.Store(faults).using(attempts=1)
    calls = [lambda n=n: store.append(Written(f"t-{n}", 0)) for n in range(8)]
    results = behind(store, faults, calls, lambda: faults.fail_before(KeyboardInterrupt(), times=2))
    assert sum(isinstance(result, KeyboardInterrupt) for result in results) == 1
    assert all(isinstance(result, (KeyboardInterrupt, ef.AppendUnconfirmed, Receipt)) for result in results)
    assert isinstance(store.append(Written("after", 0)), Receipt)


ROOT = Path(__file__).parents[2]

WAITER = """
import os, signal, threading, time
import eventfold as ef
from eventfold.engines.memory import MemoryEngine
from eventfold.testing import Faulty
from tests.concurrency.events import Written

class Interrupted(BaseException):
    pass

def interrupt(signum, frame):
    raise Interrupted

signal.signal(signal.SIGUSR1, interrupt)
faults = Faulty(MemoryEngine())
store = ef.Store(faults)
gate = faults.hold()
first = threading.Thread(target=store.append, args=(Written("first", 0),), daemon=True)
first.start()
assert gate.arrived()

waiting = store._log.appender._waiting
given_up = threading.Event()

def wait_for(count):
    while len(waiting) < count:
        time.sleep(0.01)

def others():
    wait_for(1)
    behind = [threading.Thread(target=store.append, args=(Written(f"t-{n}", 0),), daemon=True) for n in range(4)]
    for each in behind:
        each.start()
    wait_for(5)
    os.kill(os.getpid(), signal.SIGUSR1)
    given_up.wait()
    gate.open()
    for each in (first, *behind):
        each.join(60)
    print("hung" if any(each.is_alive() for each in (first, *behind)) else "served", flush=True)

helper = threading.Thread(target=others, daemon=True)
helper.start()
try:
    store.append(Written("main", 0))
except Interrupted:
    print("interrupted", flush=True)
    given_up.set()
helper.join(100)
store.append(Written("after", 0))
print(sorted(recorded.event.writer for recorded in store.read()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_an_interrupted_waiter_does_not_block_the_others() -> None:
    """A thread interrupted while it waits has written nothing, and those behind it in the queue are served."""
    ran = subprocess.run([sys.executable, "-c", WAITER], cwd=ROOT, capture_output=True, text=True, timeout=150)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["interrupted", "served", "['after', 'first', 't-0', 't-1', 't-2', 't-3']"]


STORM = """
import random, signal, sys, threading, time
import eventfold as ef
from eventfold.engines.memory import MemoryEngine
from eventfold.testing import Faulty
from tests.concurrency.events import Written

class Slow(Faulty):
    async def append_many(self, requests):
        time.sleep(0.0005)
        return await super().append_many(requests)

class Interrupted(BaseException):
    pass

def interrupt(signum, frame):
    if armed:
        raise Interrupted

armed = False
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.003, 0.0031)
store = ef.Store(Slow(MemoryEngine()))
acknowledged, stop = [], threading.Event()

def write(name):
    n = 0
    while not stop.is_set():
        acknowledged.append(store.append(Written(name, n)).ids[0])
        n += 1

threads = [threading.Thread(target=write, args=(f"t-{n}",), daemon=True) for n in range(4)]
for each in threads:
    each.start()
end, interrupted = time.monotonic() + 3, 0
while time.monotonic() < end or ((interrupted <= 50 or len(acknowledged) <= 500) and time.monotonic() < end + 60):
    try:
        armed = True
        acknowledged.append(store.append(Written("main", 0)).ids[0])
        armed = False
    except Interrupted:
        armed = False
        interrupted += 1
signal.setitimer(signal.ITIMER_REAL, 0)
stop.set()
for each in threads:
    each.join(60)
if any(each.is_alive() for each in threads):
    sys.exit("a thread hangs")
there = {recorded.stored.id for recorded in store.read()}
distinct = set(acknowledged)
print(interrupted > 50, len(distinct) > 500, distinct <= there, len(distinct) == len(acknowledged))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_a_storm_of_interrupts_loses_nothing() -> None:
    """Hundreds of interrupts hit one thread at any instruction: the others go on, and acknowledged events exist."""
    ran = subprocess.run([sys.executable, "-c", STORM], cwd=ROOT, capture_output=True, text=True, timeout=150)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["True"] * 4
