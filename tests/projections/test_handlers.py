"""Handlers in SQL, subscriptions with effects, rows in other databases, both modes, and their status."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import apsw
import pytest

import eventfold as ef
from eventfold.errors import ProjectionBehind, ProjectionStopped, TargetUnavailable, UnknownProjection
from tests.projections.flights import Cancelled, CarrierMonth, Departed, flights, folded, proved, rows


def tally(mark: str) -> type[ef.SqlProjection]:
    """Return a read model in SQL, with the parameter mark of its database."""

    class Tally(ef.SqlProjection, name="tally"):
        tables = {"tally": "kind TEXT PRIMARY KEY, n INTEGER NOT NULL"}

        def departed(self, event: Departed, tx: ef.Transaction) -> None:
            self._count("departed", tx)

        def cancelled(self, recorded: ef.Recorded[Cancelled], tx: ef.Transaction) -> None:
            self._count(f"cancelled-{recorded.event.carrier}", tx)

        def every(self, events: list[Departed | Cancelled], tx: ef.Transaction) -> None:
            sql = f"INSERT INTO {{tally}} AS t VALUES ({mark}, 1) ON CONFLICT (kind) DO UPDATE SET n = t.n + 1"
            tx.executemany(sql, [("every",) for _ in events])

        def _count(self, kind: str, tx: ef.Transaction) -> None:
            sql = f"INSERT INTO {{tally}} AS t VALUES ({mark}, 1) ON CONFLICT (kind) DO UPDATE SET n = t.n + 1"
            tx.execute(sql, (kind,))

    return Tally


def mark_of(url: str) -> str:
    """Return the parameter mark of an engine's database."""
    return "%s" if url.startswith("postgres") else "?"


def test_handlers_take_events_one_by_one_and_in_batches(url: str) -> None:
    """By annotation: an event, a Recorded, a list; rows and checkpoint are exact, and a rebuild gives the same."""
    counted = tally(mark_of(url))
    events = list(flights(330))
    with ef.Store(url) as store:
        store.extend(events, batch=30)
        store.project(counted)
        store.projections.rebuild(counted)
        assert store.projections.compare(counted).equal
        found = dict(store.projections.target(counted).dump("tally", 1))
        assert found["every"] == 330
        assert found["departed"] == sum(isinstance(e, Departed) for e in events)
        assert found["cancelled-c0"] == sum(isinstance(e, Cancelled) and e.carrier == "c0" for e in events)
        assert proved(store)


def test_a_missing_column_is_reported_with_the_databases_message(shared_url: str) -> None:
    """SQL that its own table refuses stops the projection; the error names the handler and the reason."""

    class Wrong(ef.SqlProjection, attempts=1):
        tables = {"wrong": "carrier TEXT NOT NULL"}

        def departed(self, event: Departed, tx: ef.Transaction) -> None:
            tx.execute("INSERT INTO {wrong} (planet) VALUES ('mars')")

    with ef.Store(shared_url) as store:
        store.append(Departed("a", 1, 1))
        with pytest.raises(ProjectionStopped, match=r"in departed.*planet"):
            store.project(Wrong)


def test_effects_begin_where_they_say_and_happen_once_where_nothing_fails(store: ef.Store) -> None:
    """They begin at the end or at the beginning; each has the event's id; a failed one is tried again at its event."""
    now: list[int] = []
    ever: list[int] = []
    broken = [True]

    class FromNow(ef.Subscription, start="now"):
        def tell(self, recorded: ef.Recorded[Departed]) -> None:
            now.append(recorded.position)

    class FromTheBeginning(ef.Subscription, start="beginning", attempts=2):
        def __init__(self, positions: list[int]) -> None:
            self.positions = positions

        def tell(self, recorded: ef.Recorded[Departed]) -> None:
            if recorded.position == 3 and broken.pop():
                broken.append(False)
                raise ConnectionError("the mail server is away")
            self.positions.append(recorded.position)

    ours = FromTheBeginning(ever)  # an instance, with its dependencies
    store.append(Departed("a", 1, 1), Departed("a", 1, 2))
    store.project(FromNow, ours)
    assert now == []
    store.append(Departed("a", 1, 3), Cancelled("a", 1), Departed("a", 1, 4))
    store.project(FromNow, ours)
    assert now == [3, 5]
    assert ever == [1, 2, 3, 5]
    assert all(proof.proved for proof in store.projections.verify(FromNow, ours))


def test_rows_may_live_in_another_file(shared_url: str, tmp_path: Path) -> None:
    """The log may be on any engine; the file is a plain SQLite database, and the store's own has no rows of it."""

    class Elsewhere(CarrierMonth, name="elsewhere", target=f"{tmp_path}/reports.db"):
        pass

    with ef.Store(shared_url) as store:
        store.extend(flights(120))
        store.project(Elsewhere)
        assert rows(store, Elsewhere) == folded(flights(120))
        own = store.projections.target("nothing")  # it has the name only
        noted = own.record("elsewhere")
        assert noted is not None
        assert (noted.kind, noted.tables, own.checkpoints("elsewhere")) == ("elsewhere", (), [])
        assert all(proof.proved for proof in store.projections.verify(Elsewhere))
    with apsw.Connection(f"{tmp_path}/reports.db") as reader:
        assert reader.execute("SELECT count(*) FROM elsewhere").fetchall() == [(len(folded(flights(120))),)]
    reader.close()


def test_a_target_that_is_away_is_waited_for(file_store: ef.Store, tmp_path: Path) -> None:
    """The first use raises; a runner retries, logs the outage, and catches up when the target is back."""
    away = tmp_path / "away"

    class Away(CarrierMonth, name="away", target=f"{away}/rows.db"):
        pass

    file_store.extend(flights(50))
    with pytest.raises(TargetUnavailable, match=r"cannot be (opened|written to)"):
        file_store.project(Away)
    away.mkdir()
    with file_store.run(Away) as runner:
        file_store.wait(Away, timeout=60)
        assert not runner.failed
    assert rows(file_store, Away) == folded(flights(50))


def test_the_store_file_serves_appends_while_handlers_are_slow(tmp_path: Path) -> None:
    """Slow handlers do not delay appends: their transactions are cut short."""

    class Slow(ef.SqlProjection):
        tables = {"slow": "carrier TEXT NOT NULL"}

        def departed(self, event: Departed, tx: ef.Transaction) -> None:
            time.sleep(0.03)
            tx.execute("INSERT INTO {slow} VALUES (?)", (event.carrier,))

    with ef.Store(f"{tmp_path}/s.db") as store:
        for number in range(150):
            store.append(Departed(f"c{number}", 1, 1), Departed(f"d{number}", 1, 1))
        with store.run(Slow):
            longest = 0.0
            for number in range(20):
                began = time.perf_counter()
                store.append(Departed(f"e{number}", 1, 1))
                longest = max(longest, time.perf_counter() - began)
                time.sleep(0.01)
            assert longest < 4.0  # 300 events at 30 ms would be 9 s in one transaction
            (status,) = store.projections.status(Slow)
            assert status.behind
            assert "takes" in status.sentence
        (status,) = store.projections.status(Slow)
        assert status.state == "idle"
        assert "Not running since" in status.sentence
        with pytest.raises(ProjectionBehind, match="start a runner"):
            store.wait(Slow, timeout=0.05)
        assert proved(store)


def test_a_wait_for_a_position_beyond_the_log_says_where_it_ends(store: ef.Store) -> None:
    """A position of another store is never reached: more time would not help, so the error says what to wait for."""
    store.append(Departed("e", 1, 1))
    store.project(CarrierMonth)
    with pytest.raises(ProjectionBehind, match=r"and not 9 within 0\.02 s\. The log ends at position 1\. ") as behind:
        store.wait(CarrierMonth, 9, timeout=0.02)
    assert "receipt.last" in behind.value.remedy
    assert behind.value.fields == {"projection": "carrier_month", "position": 1, "wanted": 9, "head": 1}
    assert store.wait(CarrierMonth, timeout=0.02) == 1


def test_an_unknown_name_is_refused_with_near_ones(store: ef.Store) -> None:
    """If it is misspelt, the error names the nearest one."""
    store.project(CarrierMonth)
    with pytest.raises(UnknownProjection, match=r"carrier_mont'.*Did you mean carrier_month\?"):
        store.projections.status("carrier_mont")


def test_the_async_store_has_all_of_it(url: str) -> None:
    """Project, run, wait, rows, view, administration: the same calls, awaited; the loop is never blocked."""
    asyncio.run(everything("memory:" if url.startswith("memory") else url))


async def everything(url: str) -> None:
    """Use every call of the async store once."""
    async with ef.AsyncStore(url) as store:
        await store.extend(list(flights(150)))
        await store.project(CarrierMonth)
        ticks = [0]

        async def tick() -> None:
            while True:
                ticks[0] += 1
                await asyncio.sleep(0.001)

        ticking = asyncio.create_task(tick())
        async with await store.run(CarrierMonth) as runner:
            last = (await store.append(*flights(30, 150))).last
            found = await store.rows(CarrierMonth, wait=last)
            assert not runner.failed
        ticking.cancel()
        assert sorted((r.carrier, r.month, r.flights, r.delay, r.cancelled) for r in found) == folded(flights(180))
        assert await store.wait(CarrierMonth, last) >= last
        view = await store.view(CarrierMonth, at=150)
        assert sum(row.flights + row.cancelled for row in view.values()) == 150
        proofs = await store.projections.ask(lambda admin: admin.verify())
        assert [proof.proved for proof in proofs] == [True]
        await store.projections.ask(lambda admin: admin.rebuild(CarrierMonth))
        await store.projections.ask(lambda admin: admin.switch(CarrierMonth))
        assert len(await store.rows(CarrierMonth)) == len(found)
        assert ticks[0] > 1


IDLE = """
import sys, time
import eventfold as ef
from tests.projections.flights import CarrierMonth, flights

def spent():
    began = time.process_time()
    time.sleep(2.0)
    return (time.process_time() - began) / 2.0

with ef.Store(sys.argv[1]) as store:
    store.extend(flights(10))
    store.project(CarrierMonth)
    stop = store.engine.watch(lambda: None)
    watching = spent()
    with store.run(CarrierMonth):
        running = spent()
    stop()
print(running - watching)
"""


def test_an_idle_runner_costs_next_to_nothing(tmp_path: Path) -> None:
    """It uses below 1 % of a core, renewals of its lease included, not counting the watch on the file.

    In a process that does nothing else.
    """
    command = [sys.executable, "-c", IDLE, str(tmp_path / "s.db")]
    ran = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) < 0.01
