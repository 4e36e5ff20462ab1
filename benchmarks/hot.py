"""The group "hot": many callers that decide over the same state at the same time.

Three ways, on one file: every caller tries (with a store each, as 32 processes would), every caller waits for a lock,
and what the library does for the callers of one store: decisions built on each other. Knows: which callers decide over
which state. Does not know: how decisions are combined.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import eventfold as ef
from benchmarks.measure import Cell, Figure, Sample, interleave, rate_of_tasks, rate_of_threads
from benchmarks.stage import Stage
from benchmarks.subject import Eventfold, EventfoldTasks

ONE = "one counter, 32 who decide"
TEN = "ten accounts, transfers between two"
OPTIMISTIC, LOCKED, PLAIN = "every caller tries", "under a lock", "bare appends of as many events"
WRITERS = 32
PATIENT = 100_000  # attempts: no caller gives up during a measurement
STOCK = 1_000_000_000


class Counted(ef.Event):
    counter: ef.Tag
    by: int


class Counter(ef.State):
    counter: ef.Tag
    value: int = 0

    def evolve(self, event: Counted) -> None:
        self.value += event.by


def count(counter: Counter) -> Counted:
    """Count up by one."""
    return Counted(counter.counter, 1)


def move(source: Counter, target: Counter) -> list[Counted]:
    """Move 1 between two counters; the rule is checked, but always holds here."""
    if source.value < 1:
        raise ValueError(source.counter)
    return [Counted(source.counter, -1), Counted(target.counter, 1)]


def run(stage: Stage, announce: Callable[[str], None]) -> Iterator[Figure]:
    """Yield the figures of this group."""
    ours, tasks = stage.open(Eventfold), stage.open(EventfoldTasks)
    announce("one counter")
    with ExitStack() as handles:
        yield from _one(stage, ours, tasks, handles)
    announce("ten accounts")
    yield _ten(stage, tasks)


def _one(stage: Stage, ours: Eventfold, tasks: EventfoldTasks, handles: ExitStack) -> list[Figure]:
    seconds, store = stage.settings.seconds, ours.store
    apart = [handles.enter_context(ef.Store(ours.path)).using(attempts=PATIENT) for _ in range(WRITERS)]
    hot, locked = Counter("hot"), Counter("locked")

    def queue(handle: ef.Store) -> Any:
        with handle.lock(locked, timeout=60):
            return handle.decide(count, locked)

    own = [lambda name=f"own-{n}": store.append(Counted(name, 1)) for n in range(WRITERS)]
    cells: dict[str, Cell] = {
        "threads": lambda: rate_of_threads([lambda: store.decide(count, hot)] * WRITERS, seconds),
        "tasks": lambda: tasks.loop.run(rate_of_tasks([lambda: tasks.store.decide(count, hot)] * WRITERS, seconds)),
        OPTIMISTIC: lambda: rate_of_threads([lambda h=h: h.decide(count, Counter("tried")) for h in apart], seconds),
        LOCKED: lambda: rate_of_threads([lambda h=h: queue(h) for h in apart], seconds),
        PLAIN: lambda: rate_of_threads(own, seconds),
    }
    found = interleave(cells, max(3, stage.settings.rounds - 2))
    others: dict[str, Sample | str] = {name: found[name] for name in (OPTIMISTIC, LOCKED, PLAIN)}
    figures = [
        Figure(ONE, f"{WRITERS} {kind} of one store", "decisions/s", found[kind], others, key=f"one counter, {kind}")
        for kind in ("threads", "tasks")
    ]
    return [f.aim("the fastest of the three", f.against(OPTIMISTIC) > 1 and f.against(LOCKED) > 1) for f in figures]


def _ten(stage: Stage, tasks: EventfoldTasks) -> Figure:
    store, chance, names = tasks.store, random.Random(10), [f"account-{n}" for n in range(10)]  # noqa: S311
    tasks.loop.run(store.append(*[Counted(name, STOCK) for name in names]))
    fresh = itertools.count()

    def transfer() -> Awaitable[Any]:
        source, target = chance.sample(names, 2)
        return store.decide(move, Counter(source), Counter(target))

    def plain() -> Awaitable[Any]:
        name = f"plain-{next(fresh)}"
        return store.append(Counted(name, -1), Counted(name, 1))

    cells: dict[str, Cell] = {
        "transfers": lambda: tasks.loop.run(rate_of_tasks([transfer] * 1_000, stage.settings.seconds)),
        PLAIN: lambda: tasks.loop.run(rate_of_tasks([plain] * 1_000, stage.settings.seconds)),
    }
    found = interleave(cells, max(3, stage.settings.rounds - 2))
    total = tasks.loop.run(_total(store, names))
    figure = Figure(TEN, "1,000 tasks", "transfers/s", found["transfers"], {PLAIN: found[PLAIN]}, key="ten accounts")
    figure.note = f"the total is {'what it was' if total == len(names) * STOCK else 'WRONG'}"
    return figure


async def _total(store: ef.AsyncStore, names: list[str]) -> int:
    return sum([(await store.state(Counter(name))).value for name in names])
