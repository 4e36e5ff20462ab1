"""The group "alerts": rules over the log, beside plain read models; a fact after its event; asking rows that are due.

Throughput is measured in CPU time of the process, over so many events that reading the code of twenty rules (0.2 s) is
a small part. Each event concerns one rule and one of its ten keys; or one of a thousand, so that nearly every event
writes a row: the least favourable case. Knows: rules and their rows. Does not know: how they are folded.
"""

from __future__ import annotations

import shutil
import statistics
import time
import types
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import eventfold as ef
from benchmarks.measure import Figure, Sample, interleave
from benchmarks.stage import Stage

GROUP = "alerts"
RULES, KEYS, STORED = 20, (10, 1_000), 300_000
GOAL, FACT_MS = 100_000.0, 1_000.0


def run(stage: Stage, announce: Callable[[str], None]) -> Iterator[Figure]:
    """Yield the figures of this group."""
    events = [_event_class(number) for number in range(RULES)]
    for keys in KEYS:
        announce(f"{RULES} rules of {keys:,} keys")
        yield _throughput(stage, events, keys)
    announce("from an event to the fact")
    times = _latencies(stage)
    goal: dict[str, Any] = {"target": f"below {FACT_MS:,.0f}", "met": times.values[-1] < FACT_MS}
    yield Figure(GROUP, "from an append to its $alert-raised", "ms", times, better="lower", **goal)


def _throughput(stage: Stage, events: list[type[Any]], keys: int) -> Figure:
    stored = 2_000 if stage.settings.quick else STORED
    path = stage.folder / f"rules-of-{keys}.db"
    with ef.Store(str(path)) as store:
        store.extend(events[at % RULES](f"k-{at // RULES % keys}", at) for at in range(stored))
    numbers = count()

    def turn(kind: Callable[[type, str], Any]) -> float:
        copy = stage.folder / f"rules-{keys}-{next(numbers)}.db"
        shutil.copy(path, copy)
        with ef.Store(str(copy)) as store:
            made = [kind(event, f"rule{at}") for at, event in enumerate(events)]
            began = time.process_time()
            store.project(*made)
            spent = time.process_time() - began
        for file in stage.folder.glob(f"{copy.name}*"):
            file.unlink()
        return stored / spent

    found = interleave({"rules": lambda: turn(_rule), "read models": lambda: turn(_read_model)}, 2)
    others: dict[str, Sample | str] = {"as many plain read models": found["read models"]}
    ours = found["rules"]
    goal: dict[str, Any] = {"target": f"at least {GOAL:,.0f}", "met": ours.median >= GOAL}
    label = f"events a second of CPU, through {RULES} rules of {keys:,} keys"
    return Figure(GROUP, label, "events/s", ours, others, **goal)


def _latencies(stage: Stage) -> Sample:
    event = _event_class(0)
    rule = _rule(event, "latency", more_than=0)
    found: list[float] = []
    with ef.Store(str(stage.folder / "latency.db")) as store, store.run(rule) as running:
        store.wait(rule)
        with store.follow(ef.Query.of("$alert-raised"), after=store.head()) as follower:
            facts = iter(follower)
            for number in range(5 if stage.settings.quick else 50):
                began = time.perf_counter()
                store.append(event(f"n-{number}", number))
                next(facts)
                found.append((time.perf_counter() - began) * 1e3)
        assert not running.failed
    return Sample((statistics.median(found), max(found)))


def _event_class(number: int) -> type[Any]:
    def body(namespace: dict[str, Any]) -> None:
        namespace |= {"__annotations__": {"key": ef.Tag, "amount": int}, "__module__": __name__}

    return types.new_class(f"BenchmarkHappened{number}", (ef.Event,), {}, body)


def _rule(event: type, name: str, more_than: float = 1e9) -> Any:
    def evolve(self: Any, event: Any) -> None:
        self.count.add()

    return _made(ef.Alert, name, event, evolve, ef.Rate, ef.rate(per=ef.minutes(5), more_than=more_than))


def _read_model(event: type, name: str) -> Any:
    def evolve(self: Any, event: Any) -> None:
        self.count += 1

    return _made(ef.Projection, name, event, evolve, int, 0)


def _made(base: type, name: str, event: type, evolve: Any, kind: Any, start: Any) -> Any:
    evolve.__annotations__ = {"event": event, "return": None}

    def body(namespace: dict[str, Any]) -> None:
        namespace["__annotations__"] = {"key": str, "count": kind}
        namespace |= {"count": start, "evolve": evolve, "__module__": __name__}

    return types.new_class(name.capitalize(), (base,), {}, body)
