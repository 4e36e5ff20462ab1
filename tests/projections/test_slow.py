"""Slow handlers, and clocks that jump: a live worker keeps its lease, a dead one loses it."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

import eventfold as ef
from eventfold.ports.target import PartitionKey
from eventfold.projections import ProjectionLike, projection_definition
from eventfold.projections.runner import Runner
from tests.projections.flights import Cancelled, CarrierMonth, Departed, flights, folded, proved, rows
from tests.support.servers.postgres import PostgresServer

LEASE = 1.5  # seconds: long enough to renew a lease on a busy machine
SLOW = 2.5  # seconds: much longer than the lease
taken: Counter[tuple[str, str]] = Counter()


class SlowLanding(ef.Event):
    """A flight came in."""

    flight: ef.Tag
    runway: str


class SlowRows(ef.Projection):
    """Rows with a slow evolve."""

    runway: str
    landings: int = 0

    def evolve(self, event: SlowLanding) -> None:
        """Count one, slowly."""
        taken["rows", event.flight] += 1
        time.sleep(SLOW)
        self.landings += 1


class SlowSql(ef.SqlProjection):
    """A slow handler, in the target's transaction."""

    tables = {"slow_sql": "flight TEXT NOT NULL"}  # noqa: RUF012

    def landed(self, event: SlowLanding, tx: ef.Transaction) -> None:
        """Write one, slowly."""
        taken["sql", event.flight] += 1
        time.sleep(SLOW)
        tx.execute(f"INSERT INTO {{slow_sql}} VALUES ('{event.flight}')")  # noqa: S608


class SlowEffects(ef.Subscription, start="beginning"):
    """A slow effect."""

    def landed(self, event: SlowLanding) -> None:
        """Wait, then record the effect."""
        taken["effects", event.flight] += 1
        time.sleep(SLOW)


@contextmanager
def runners(projection: ProjectionLike, *stores: ef.Store) -> Iterator[list[Runner]]:
    """Start a runner with a short lease in each store."""
    for store in stores:
        store.projections.catalog.register(projection_definition(projection))
    plan = projection_definition(projection)
    running = [Runner(store.projections.log, [(plan, store.projections.target(projection))], LEASE) for store in stores]
    try:
        yield running
    finally:
        for each in running:
            each.stop()


@pytest.mark.parametrize(("kind", "projection"), [("rows", SlowRows), ("sql", SlowSql), ("effects", SlowEffects)])
def test_a_handler_slower_than_its_lease_keeps_it(shared_url: str, kind: str, projection: ProjectionLike) -> None:
    """Two runners compete: every event is passed to a handler once, and both finish."""
    taken.clear()
    names = [f"{kind}{number}" for number in range(2 if kind == "rows" else 1)]
    with ef.Store(shared_url) as store, ef.Store(shared_url) as other:
        receipt = store.append(*[SlowLanding(flight, "22L") for flight in names])
        with runners(projection, store, other):
            store.wait(projection, receipt.last, timeout=120)
        assert taken == Counter({(kind, flight): 1 for flight in names})
        assert proved(store)


def test_a_handler_that_hangs_is_reported_though_its_lease_is_renewed(shared_url: str) -> None:
    """The lease shows that its runner lives; the status still reports that no event is finished."""
    with ef.Store(shared_url) as store:
        hangs = threading.Event()

        class Hanging(ef.Projection):
            runway: str

            def evolve(self, event: SlowLanding) -> None:
                hangs.wait(150)

        with runners(Hanging, store):
            try:
                store.append(SlowLanding("h", "4R"))
                ends = time.monotonic() + 60
                while "a handler has not returned" not in (said := store.projections.status(Hanging)[0].sentence):
                    assert time.monotonic() < ends, said
                    time.sleep(0.1)
                assert store.projections.status(Hanging)[0].holder
            finally:
                hangs.set()


def test_after_a_clock_set_back_no_runner_waits_for_a_dead_one(
    store: ef.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runner killed before the clock was set back by an hour does not keep its lease for an hour."""
    store.project(CarrierMonth)
    target, place = store.projections.target(CarrierMonth), PartitionKey("carrier_month", 1)
    driver = target._driver  # type: ignore[attr-defined]  # pyright: ignore
    now = type(driver).now
    with monkeypatch.context() as later:
        later.setattr(type(driver), "now", lambda self, connection: now(self, connection) + 3_600_000_000)
        assert target.claim(place, "killed elsewhere", 10) is not None
    alive = target.claim(place, "alive", 10)
    assert alive is not None
    assert target.claim(place, "another", 10) is None
    target.release(alive)


def test_failures_of_a_background_runner_are_logged(store: ef.Store, caplog: pytest.LogCaptureFixture) -> None:
    """A runner logs stops, parks and pauses once each, to the logger "eventfold"; no failure is silent."""

    class Ill(ef.Projection):
        runway: str

        def evolve(self, event: SlowLanding) -> None:
            raise ValueError("ill")

    class IllApart(ef.Projection, on_error="park", attempts=1):
        runway: str

        def evolve(self, event: SlowLanding) -> None:
            if event.runway == "13":
                raise ValueError("apart")

    def logged(text: str) -> bool:
        return sum(text in record.getMessage() for record in caplog.records) == 1

    with caplog.at_level(logging.WARNING, "eventfold"), store.run(Ill, IllApart):
        store.append(SlowLanding("a", "13"), SlowLanding("b", "22"))
        ends = time.monotonic() + 60
        while not (logged("ill stopped at event 1") and logged("ill_apart parked event 1 (SlowLanding) of 13")):
            assert time.monotonic() < ends, caplog.text
            time.sleep(0.02)
        store.projections.pause(IllApart, "night")
        while not logged("ill_apart is paused"):
            assert time.monotonic() < ends, caplog.text
            time.sleep(0.02)
    assert re.search(r"eventfold projections resume \S+ ill\)", caplog.text)


def test_an_append_that_would_wait_for_itself_is_refused_at_once(either: ef.Store) -> None:
    """A handler with an open transaction in the store's own file cannot append to it: an error, no deadlock."""
    store = either

    class SlowNotes(ef.SqlProjection, attempts=1):
        tables = {"slow_notes": "flight TEXT NOT NULL"}  # noqa: RUF012

        def landed(self, event: SlowLanding, tx: ef.Transaction) -> None:
            if event.runway != "noted":
                store.append(SlowLanding(event.flight, "noted"))

    store.append(SlowLanding("a", "13"))
    if store.engine.name == "sqlite":
        with pytest.raises(ef.EventfoldError, match=r"each would wait for the other") as caught:
            store.project(SlowNotes)
        assert caught.value.code == "projection-stopped"
        assert store.count() == 1
    else:  # no lock conflict here: it is a second transaction, which the user is responsible for
        store.project(SlowNotes)
        assert store.count() == 2


def test_a_target_that_becomes_read_only_loses_nothing(tmp_path: Path, server: PostgresServer) -> None:
    """The error says what to do; a runner logs it and retries, and once writing is allowed no event is missing."""
    database = f"ro{uuid4().hex[:8]}"

    class Guarded(CarrierMonth, name="guarded", target=server.url(database=database)):
        def evolve(self, event: Departed | Cancelled) -> None:
            super().evolve(event)

    def set_read_only(way: str) -> None:
        with psycopg.connect(server.url(), autocommit=True) as admin:
            admin.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = {way}".encode())
            admin.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'".encode()
            )

    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {database}".encode())
    with ef.Store(str(tmp_path / "store.db")) as store:
        store.append(*flights(10))
        with store.run(Guarded) as running:
            store.wait(Guarded)
            set_read_only("on")
            store.append(*flights(10, 10))
            ends = time.monotonic() + 60
            while "read-only" not in str(running.trouble.get("guarded")):
                assert time.monotonic() < ends, running.trouble
                time.sleep(0.02)
            assert "Grant the user the right to write there" in str(running.trouble["guarded"])
            set_read_only("off")
            store.wait(Guarded, timeout=60)
        assert rows(store, Guarded) == folded(flights(20))
        assert all(proof.proved for proof in store.projections.verify(Guarded))
