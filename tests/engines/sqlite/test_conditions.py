"""Conditions that start far back: judged before the lock is taken, and again for what was appended in between."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

import eventfold as ef
from eventfold.concurrency.run import run
from eventfold.core.query import ConditionClause, Query
from eventfold.engines.sqlite import SqliteEngine, pool, writer
from eventfold.engines.sqlite.file import File
from eventfold.errors import AppendConflict
from eventfold.ports.messages import Span
from tests.engines.sqlite.noted import engine_of, merge, noted, opened, raw, request, written
from tests.engines.sqlite.other import ROOT

LONG = Query.of(types=["Rare", "Rarer"], tags="often")


@pytest.fixture
def engine(path: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteEngine]:
    """A store of three hundred events, whose writer treats a condition over a hundred positions as an old one."""
    monkeypatch.setattr(writer, "OLD_CONDITION_POSITIONS", 100)
    made = SqliteEngine(path)
    run(made.open())
    run(made.append_many([request(raw(n, "often")) for n in range(300)] + [request(raw(0, "often", type="Rare"))]))
    assert made._writer is not None
    merge(made)
    yield made
    run(made.close())


OCCURRENCES = "SELECT p.tag, p.last, p.type, p.positions, p.crc"  # of a tag in the index


def traced(engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that receives the writer's statements, and "LOCK" whenever it takes the lock."""
    seen: list[str] = []
    engine._file.pool.pause()
    engine._file.pool.resume()
    connect, acquire = File._connect, engine._file.lock.acquire

    def connect_and_trace(self: File, more_flags: int = 0) -> object:
        connection = connect(self, more_flags)
        connection.set_exec_trace(lambda _cursor, sql, _bindings: seen.append(sql.split(" FROM")[0].strip()) or True)
        return connection

    monkeypatch.setattr(File, "_connect", connect_and_trace)
    monkeypatch.setattr(engine._file.lock, "acquire", lambda *args: seen.append("LOCK") or acquire(*args))
    return seen


def test_a_long_condition_is_judged_before_the_lock_is_taken(
    engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other processes can write meanwhile; under the lock nothing of the condition is queried again."""
    seen = traced(engine, monkeypatch)
    holds = request(raw(1), unless=[ConditionClause(Query.of(types="Rarer", tags="often"), 0)])
    run(engine.append_many([request(raw(1, type="Rarer"))]))
    merge(engine)
    seen.clear()
    assert written(run(engine.append_many([holds]))[0]).first == 303
    lock = seen.index("LOCK")
    assert OCCURRENCES in seen[:lock]
    assert OCCURRENCES not in seen[lock:]


def test_a_short_condition_waits_for_the_lock(engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Judging it before the lock as well would query it twice."""
    seen = traced(engine, monkeypatch)
    run(engine.append_many([request(raw(1), unless=[ConditionClause(LONG, 301)])]))
    assert OCCURRENCES not in seen[: seen.index("LOCK")]


@pytest.mark.parametrize("type", ["Rare", "Other"])
def test_an_event_written_while_a_long_condition_is_judged_still_counts(
    engine: SqliteEngine, path: str, monkeypatch: pytest.MonkeyPatch, type: str
) -> None:
    """Another process writes between the judgement and the lock: a matching event conflicts, another one does not."""
    other = SqliteEngine(path)
    run(other.open())
    acquire = engine._file.lock.acquire

    def slow(*args: float) -> None:
        run(other.append_many([request(raw(1, "often", type=type))]))
        acquire(*args)

    monkeypatch.setattr(engine._file.lock, "acquire", slow)
    outcome = run(engine.append_many([request(raw(2), unless=[ConditionClause(LONG, 301)])]))[0]
    if type == "Rare":
        assert isinstance(outcome, AppendConflict) and outcome.fields["found"] == 302
    else:
        assert written(outcome).first == 303
    merge(engine)
    none = Query.of(types=["Rarer", "Rarest"], tags="often") | Query.of(types=type, tags="often")
    outcome = run(engine.append_many([request(raw(2), unless=[ConditionClause(none, 303), ConditionClause(none, 0)])]))[
        0
    ]
    assert isinstance(outcome, AppendConflict)
    run(other.close())


def test_a_long_condition_that_does_not_hold_is_refused_with_its_first_event(engine: SqliteEngine) -> None:
    """The match is found before the lock, and found again under it."""
    outcome = run(engine.append_many([request(raw(2), unless=[ConditionClause(LONG, 0)])]))[0]
    assert isinstance(outcome, AppendConflict) and outcome.fields["found"] == 301


def test_a_long_condition_does_not_keep_other_tasks_from_the_log(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty tasks with conditions over the whole log, and forty without, all get their outcome."""
    monkeypatch.setattr(writer, "OLD_CONDITION_POSITIONS", 50)

    async def main() -> list[int]:
        async with ef.AsyncStore(path) as store:
            await store.extend(noted(n) for n in range(400))
            mine = [ef.Query.of(types="Noted", tags=[f"who:t{n}"]) for n in range(40)]
            conditional = [store.append(noted(n, f"t{n}"), unless=query, after=0) for n, query in enumerate(mine)]
            plain = [store.append(noted(n, "no-task")) for n in range(40)]
            done = await asyncio.gather(*conditional, *plain)
            refused = [store.append(noted(n, f"t{n}"), unless=query, after=0) for n, query in enumerate(mine)]
            outcomes = await asyncio.gather(*refused, return_exceptions=True)
            assert {type(each) for each in outcomes} == {AppendConflict}
            return sorted(receipt.first for receipt in done)

    assert asyncio.run(main()) == list(range(401, 481))


# ------------------------------------------------------------------------------------------ memory


def test_many_readers_at_once_leave_few_connections(store: ef.Store) -> None:
    """Each reader opens a connection of its own, and only a few are kept for later readers."""
    store.extend(noted(n) for n in range(300))
    barrier = threading.Barrier(40)

    def read() -> None:
        barrier.wait(30)
        for _ in range(5):
            assert store.count(ef.Query.of(tags="who:w-1")) == 43

    threads = [threading.Thread(target=read) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store_pool = engine_of(store)._file.pool
    assert not store_pool.is_in_use and len(store_pool._readers) <= pool.MAX_IDLE_READERS


def test_stores_that_are_never_closed_leave_no_descriptors(path: str) -> None:
    """A store that is dropped without being closed closes its files."""
    if not os.path.isdir("/proc/self/fd"):
        return
    ef.Store(path).append(noted(0))
    gc.collect()
    before = len(opened(os.path.dirname(path)))
    for n in range(5):
        ef.Store(path).append(noted(n))
    gc.collect()
    assert len(opened(os.path.dirname(path))) <= before + 2


MEMORY = """
import resource, sys
import eventfold as ef
from eventfold.concurrency.run import run
from eventfold.ports.messages import Span
from eventfold.core.query import Query
from tests.engines.sqlite.noted import *
store = ef.Store(sys.argv[1])
store.extend(Noted(f"w-{n}", f"p-{n % 9}", n, "x" * 150) for n in range(4_000))
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024)
for _ in store.read():
    pass
before = peak()
store.extend(Noted(f"w-{n}", f"p-{n % 9}", n, "x" * 150) for n in range(30_000))
for _ in store.read():
    pass
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_log(path: str) -> None:
    """Pages are not kept after they were returned; what stays is the page cache and the tail, both bounded."""
    ran = subprocess.run(
        [sys.executable, "-c", MEMORY, path], cwd=ROOT, capture_output=True, text=True, timeout=100, check=True
    )
    assert float(ran.stdout) < 60, f"{ran.stdout} MiB for 30,000 events"


def test_pages_follow_each_other_without_gap_or_repeat(store: ef.Store) -> None:
    """This holds for any limit, in both directions, with appends that are larger than a page."""
    engine = engine_of(store)
    sizes = [1, 7, 1, 30, 2, 1, 1, 12]
    for size in sizes:
        run(engine.append_many([request(*[raw(n, f"t:{n % 2}") for n in range(size)])]))
    for query in (Query(), Query.of(tags="t:1"), Query.of(types="Noted"), Query.of(tags="t:0") | Query.of(tags="t:1")):
        whole = [event.position for event in run(engine.read(query, Span())).events]
        for limit in (1, 2, 5, 13):
            found, after = [], 0
            while True:
                page = run(engine.read(query, Span(after=after, limit=limit)))
                found += [event.position for event in page.events]
                after = page.scanned
                if not page.more:
                    break
            assert found == whole
            found, until = [], None
            while True:
                page = run(engine.read(query, Span(until=until, limit=limit, backwards=True)))
                found += [event.position for event in page.events]
                until = page.scanned - 1
                if not page.more:
                    break
            assert found == whole[::-1]
