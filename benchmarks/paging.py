"""The group "paging": pages of a read model of a million rows, the first and the last one, rows by key, making a query.

Knows: a read model of balances, the sizes. Does not know: how a target finds rows. Rows are written directly into the
table of the read model: what is measured is reading.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from decimal import Decimal

import eventfold as ef
from benchmarks.cluster import Cluster
from benchmarks.measure import Figure, Missing, Sample
from benchmarks.stage import Stage
from eventfold.ports.target import PartitionKey
from eventfold.projections.definition import projection_definition

GROUP = "paging"
ROWS, QUICK_ROWS = 1_000_000, 20_000
BATCH = 10_000  # rows in one transaction while the table is filled
PAGE = 50  # rows of a page
MOST_MS, MOST_US = 5.0, 20.0  # the bounds of a page, and of making a query
CALLS = 40  # in one turn


class Credited(ef.Event, type="bench-credited"):
    """An event that is not appended here."""

    account: str


class Account(ef.Projection, name="bench_account", indexes=["-total", ("owner", "-total")]):
    """A row of the table."""

    account: str
    owner: str = ""
    total: Decimal = Decimal(0)

    def evolve(self, event: Credited) -> None:
        """Do nothing."""


def run(stage: Stage, announce: Callable[[str], None]) -> Iterator[Figure]:
    """Yield the figures, of SQLite and, where there is a server, of PostgreSQL."""
    count, rounds = QUICK_ROWS if stage.settings.quick else ROWS, stage.settings.rounds
    announce(f"{count:,} rows on SQLite")
    with closing(ef.Store(str(stage.folder / "paging.db"))) as store:
        yield from _of_target(store, "SQLite", count, rounds)
        yield _made(store, rounds)
    try:
        cluster = Cluster()
    except Missing as reason:
        announce(f"left out: {reason}")
        return
    announce(f"{count:,} rows on PostgreSQL")
    with ExitStack() as opened:
        opened.callback(cluster.close)
        store = ef.Store(cluster.url, schema=cluster.schema())
        opened.callback(store.close)
        yield from _of_target(store, "PostgreSQL", count, rounds)


def _of_target(store: ef.Store, name: str, count: int, rounds: int) -> Iterator[Figure]:
    _fill(store, count)
    top, last = store.rows(Account, order="-total", limit=PAGE), _last_cursor(store)
    cases: dict[str, Callable[[], object]] = {
        "first page": lambda: store.rows(Account, order="-total", limit=PAGE),
        "second page": lambda: store.rows(Account, order="-total", limit=PAGE, after=top.next),
        "last page": lambda: store.rows(Account, order="-total", limit=PAGE, after=last),
        "rows by key": lambda: store.rows(Account, account="a0000077"),
    }
    for case, call in cases.items():
        figure = Figure(GROUP, f"{name}: {case} of {count:,} rows", "ms", _timed(call, rounds, 1e3), better="lower")
        figure.key = f"{name} {case}"
        yield figure.aim(f"< {MOST_MS:g} ms", figure.ours.median < MOST_MS)


def _last_cursor(store: ef.Store) -> str | None:
    """Return the cursor before the last page. Cursors do not depend on the size of pages, so large ones lead there."""
    cursor: str | None = None
    for size in (5_000, PAGE):
        while (following := store.rows(Account, order="-total", limit=size, after=cursor).next) is not None:
            cursor = following
    return cursor


def _made(store: ef.Store, rounds: int) -> Figure:
    def make() -> object:
        return store.select(Account, ef.col(Account.total) > Decimal(5), owner="o3", order="-total")

    figure = Figure(GROUP, "making and checking a query", "µs", _timed(make, rounds, 1e6), better="lower")
    return figure.aim(f"< {MOST_US:g} µs", figure.ours.median < MOST_US)


def _fill(store: ef.Store, count: int) -> None:
    store.project(Account)
    codec = projection_definition(Account).rows
    assert codec is not None
    table, pick = codec.of_generation(1), random.Random(1)
    target = store.projections.target(Account)
    for first in range(0, count, BATCH):
        rows = [
            (f"a{n:07d}", f"o{n % 10}", Decimal(pick.randrange(100_000)) / 100) for n in range(first, first + BATCH)
        ]
        with target.transaction(PartitionKey("bench_account", 1)) as tx:
            tx.upsert(table, rows)


def _timed(call: Callable[[], object], rounds: int, scale: float) -> Sample:
    """Return the median time of a call in each turn, after one turn that is discarded."""
    turns: list[float] = []
    for _ in range(rounds + 1):
        times: list[float] = []
        for _ in range(CALLS):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        turns.append(statistics.median(times) * scale)
    return Sample(tuple(turns[1:]))
