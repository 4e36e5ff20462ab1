"""The group "decisions": the cost of decisions, timers, old event classes and a very long entity.

Knows: a small ledger of accounts, a process that only waits, an event class of an earlier version. Does not know: how
states are cached, how timers are found, how an upcaster is found.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import eventfold as ef
from benchmarks.measure import Cell, Figure, Sample, interleave, rate, took
from benchmarks.stage import Stage
from eventfold.processes import after
from eventfold.processes.timers import TimerQueue

GROUP = "decisions"
ACCOUNTS = 100
TIMERS, MILLION = 10_000, 1_000_000
AN_HOUR = 3_600


class Moved(ef.Event, type="bench-moved"):
    """An amount was added to an account, or taken from it."""

    account: ef.Tag
    amount: int


class Account(ef.State):
    """The balance of an account."""

    account: ef.Tag
    balance: int = 0

    def evolve(self, event: Moved) -> None:
        """Add the amount."""
        self.balance += event.amount


def transfer(source: Account, target: Account) -> list[Moved]:
    """Move 1 between two accounts; the balance is checked, but always suffices here."""
    if source.balance < 1:
        raise ValueError(source.account)
    return [Moved(source.account, -1), Moved(target.account, 1)]


class Asked(ef.Event):
    """A request was made."""

    request: ef.Tag


class Overdue(ef.Event):
    """A request was not answered in time."""

    request: ef.Tag


class Answer(ef.Process, name="bench_answer", start="beginning"):
    """Waits an hour for an answer."""

    request: ef.Tag
    late: bool = False

    def evolve(self, event: Asked | Overdue) -> None:
        """Record whether it is late."""
        self.late = isinstance(event, Overdue)

    def react(self, event: Asked) -> Any:
        """Set a timer."""
        return after(Overdue(event.request), hours=1)


class PricedThen(ef.Event, type="bench-priced"):
    """A price, as an earlier version wrote it."""

    item: ef.Tag
    amount: int
    note: str


class Priced(ef.Event, type="bench-priced", version=2):
    """A price in a currency."""

    item: ef.Tag
    amount: int
    note: str
    currency: str


@ef.upcast
def with_currency(old: PricedThen) -> Priced:
    """Add the currency: earlier prices were all in euros."""
    return Priced(old.item, old.amount, old.note, "EUR")


def run(stage: Stage, announce: Callable[[str], None]) -> Iterator[Figure]:
    """Yield the figures of this group."""
    folder = stage.folder / "decisions"
    folder.mkdir(parents=True, exist_ok=True)
    announce("two warm entities")
    yield _warm(stage, str(folder / "accounts.db"))
    announce("timers")
    yield _timers(stage, str(folder / "timers.db"))
    announce("an old event class")
    yield _upcast(stage, str(folder / "prices.db"))
    announce("a very long entity")
    yield from _long(stage, str(folder / "long.db"))


def _warm(stage: Stage, path: str) -> Figure:
    chance, names = random.Random(2), [f"account-{n}" for n in range(ACCOUNTS)]  # noqa: S311
    with ef.Store(path) as store:
        store.append(*[Moved(name, 1_000_000) for name in names])

        def pair() -> list[str]:
            return chance.sample(names, 2)

        def decide() -> None:
            source, target = pair()
            store.decide(transfer, Account(source), Account(target))

        def append() -> None:  # to accounts of its own: after events from elsewhere those decided over were not warm
            source, target = pair()
            store.append(Moved(f"plain-{source}", -1), Moved(f"plain-{target}", 1))

        seconds = stage.settings.seconds
        cells: dict[str, Cell] = {"decide": lambda: rate(decide, seconds), "append": lambda: rate(append, seconds)}
        found = interleave(cells, stage.settings.rounds)
    others: dict[str, Sample | str] = {"bare append": found["append"]}
    figure = Figure(GROUP, "decide over two warm entities, two events", "decisions/s", found["decide"], others)
    figure.key = "over two"
    return figure.aim("≥ 0.75 of an append", figure.against("bare append") >= 0.75)


def _timers(stage: Stage, path: str) -> Figure:
    count = TIMERS if not stage.settings.quick else TIMERS // 10
    with ef.Store(path) as store:
        store.extend(Asked(f"r-{n}") for n in range(count))
        store.run_until_idle(Answer, timeout=600)
        table, later = TimerQueue("bench_answer", store.projections.log), time.time_ns() // 1000 + 2 * AN_HOUR * 10**6
        began, fired = time.perf_counter(), 0
        while now := _driven(table.fire(later)):
            fired += now
        seconds = time.perf_counter() - began
    figure = Figure(GROUP, f"{count:,} timers that are due, fired", "s", Sample((seconds,)), better="lower")
    figure.key = "timers"
    figure.note = f"{fired:,} fired, each as an event of its own in the log, by a worker that has just started"
    return figure.aim(f"< {10 * count / TIMERS:g} s", seconds < 10 * count / TIMERS and fired == count)


def _driven(firing: Any) -> int:
    try:
        firing.send(None)
    except StopIteration as done:
        return int(done.value)
    raise RuntimeError("SQLite's engine does not suspend")


def _upcast(stage: Stage, path: str) -> Figure:
    """Measure reading both versions' events in one log, alike except for the version, in µs an event."""
    count = stage.settings.stored // 2
    with ef.Store(path) as store:
        store.extend(PricedThen(f"old-{n % 100}", n, "x" * 80) for n in range(count))
        middle = store.head()
        store.extend(Priced(f"new-{n % 100}", n, "x" * 80, "EUR") for n in range(count))

        def reading(events: Callable[[], Iterator[Any]]) -> Cell:
            return lambda: took(lambda: sum(1 for _ in events())) * 1000 / count

        cells = {
            "old": reading(lambda: itertools.islice((r.event for r in store.read()), count)),
            "new": reading(lambda: (r.event for r in store.read(after=middle))),
        }
        found = interleave(cells, stage.settings.rounds)
    above = Sample(tuple(old - new for old, new in zip(found["old"].values, found["new"].values, strict=True)))
    others: dict[str, Sample | str] = {"an event of today's": found["new"]}
    figure = Figure(GROUP, "an event read through one upcaster", "µs", found["old"], others, "lower")
    figure.note = f"the upcaster, and the event it makes: {above.median:.2f} µs an event (median of the differences)"
    return figure.aim("< 2 µs above today's", above.median < 2)


def _long(stage: Stage, path: str) -> list[Figure]:
    """Measure an entity that has all events of the log; its snapshot was stored when it was first folded."""
    count = MILLION if not stage.settings.quick else stage.settings.stored
    with ef.Store(path) as store:
        store.extend(Moved("long", 1) for _ in range(count))
        store.decide(transfer, Account("long"), Account("other"))
        warm = [took(lambda: store.decide(transfer, Account("long"), Account("other"))) for _ in range(50)]
    cold: list[float] = []
    for _ in range(stage.settings.repeats):
        with ef.Store(path) as store:
            store.head()  # the file is open; the entity is not cached
            cold.append(took(lambda: store.decide(transfer, Account("long"), Account("other"))))
    made = [
        Figure(GROUP, f"an entity of {count:,} events decides, {name}", "ms", Sample(tuple(taken)), better="lower")
        for name, taken in (("warm", warm), ("cold, with a snapshot", cold))
    ]
    for figure, key, bound in zip(made, ("long, warm", "long, cold"), (5, 20), strict=True):
        figure.key = key
        figure.aim(f"< {bound} ms", figure.ours.median < bound)
    return made
