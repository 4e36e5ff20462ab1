"""The group "monitoring": what counting costs an append, and how long /metrics takes beside other work.

Knows: stores that are measured and not, a server. Does not know: which metrics there are.

The cost of counting is measured in CPU time of the process: the time of an append is mostly that of the disk.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import eventfold as ef
from benchmarks import http_clients as clients
from benchmarks.measure import Figure, Sample, interleave, percentile
from benchmarks.server import Served
from benchmarks.stage import Stage
from benchmarks.subject import Eventfold
from eventfold import monitoring

GROUP = "monitoring"
SCRAPE_MS, MANY_MS, MODELS = 50.0, 300.0, 1_000
PAUSE_S = 1.05  # between two scrapes: the state is kept for a second, so it is read for each of them
APPENDS, SCRAPES = 300, 30


class Weighed(ef.Event, type="benchmark-weighed"):
    """An event to append."""

    scale: ef.Tag
    grams: int


class Scale(ef.State):
    """What a decision is made over."""

    scale: ef.Tag
    weighed: int = 0

    def evolve(self, event: Weighed) -> None:
        """Count one."""
        self.weighed += 1


def weigh(scale: Scale) -> Weighed:
    """Decide."""
    return Weighed(scale.scale, scale.weighed)


def run(stage: Stage, announce: Callable[[str], None]) -> Iterator[Figure]:
    """Yield the figures of this group."""
    announce("what counting costs")
    yield from _costs(stage)
    with ExitStack() as opened:
        announce("/metrics under 128 appenders")
        yield _beside_appenders(stage, opened)
    with ExitStack() as opened:
        announce(f"/metrics with {MODELS:,} read models")
        yield _with_many_models(stage, opened)


def _costs(stage: Stage) -> Iterator[Figure]:
    count = 20 if stage.settings.quick else APPENDS
    with ef.Store(str(stage.folder / "plain.db")) as plain, ef.Store(str(stage.folder / "measured.db")) as other:
        measured = monitoring.measured(other)
        for name, call in (("an append of one event", _append), ("a decision over a warm state", _decide)):
            cells = {
                "measured": _cpu(call, measured, count),
                "not measured": _cpu(call, plain, count),
            }
            found = interleave(cells, 2 * stage.settings.rounds)
            others: dict[str, Sample | str] = {"not measured": found["not measured"]}
            yield Figure(GROUP, f"CPU of {name}, measured", "µs", found["measured"], others, better="lower")


def _append(store: ef.Store) -> None:
    store.append(Weighed("s", 1))


def _decide(store: ef.Store) -> None:
    store.decide(weigh, Scale("s"))


def _cpu(call: Callable[[ef.Store], None], store: ef.Store, count: int) -> Callable[[], float]:
    """Return a turn: the µs of CPU time of a call, over `count` of them."""

    def turn() -> float:
        began = time.process_time()
        for _ in range(count):
            call(store)
        return (time.process_time() - began) * 1e6 / count

    return turn


def _scrape(stage: Stage, served: Served, opened: ExitStack) -> tuple[list[float], int, list[float]]:
    """Scrape again and again. Returns the ms of each, the bytes of the last answer, and the ms of health checks."""
    count = 4 if stage.settings.quick else SCRAPES
    scraper = clients.start(clients.scraper, served.url, PAUSE_S)
    opened.callback(clients.end, scraper)
    scraper[0].send(count)
    waits, size, health = scraper[0].answer()
    return waits[2:], size, health[2:]  # the first ones import modules, and no scrape is expected before the third


def _beside_appenders(stage: Stage, opened: ExitStack) -> Figure:
    served = Served(str(stage.copy(Eventfold) / "eventfold.db"))
    opened.callback(served.close)
    seconds = (4 if stage.settings.quick else SCRAPES) * PAUSE_S
    appenders = clients.start(clients.appender, served.url, stage.settings.stored, 128, False)
    opened.callback(clients.end, appenders)
    for child in appenders:
        child.send(seconds)
    waits, size, health = _scrape(stage, served, opened)
    rate = sum(child.answer()[0] for child in appenders)
    figure = _at_p99("/metrics under 128 appenders", waits, SCRAPE_MS)
    figure.details |= {"bytes": size, "appends a second": rate}
    figure.others["/healthz, which reads nothing"] = Sample((percentile(health, 0.99),))
    return figure


def _with_many_models(stage: Stage, opened: ExitStack) -> Figure:
    count = 20 if stage.settings.quick else MODELS
    memory = Path("/dev/shm")  # where a thousand models are made in seconds
    folder = tempfile.mkdtemp(prefix="eventfold-bench-", dir=memory if memory.is_dir() else None)
    opened.callback(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "models.db"
    with warnings.catch_warnings(), ef.Store(str(path)) as store:
        store.append(*(Weighed(f"s-{number}", number) for number in range(100)))
        for number in range(count):
            store.project(_model(number))
        store.append(Weighed("s", 1))  # every one of them is behind
    served = Served(str(path))
    opened.callback(served.close)
    waits, size, _ = _scrape(stage, served, opened)
    figure = _at_p99(f"/metrics with {count:,} read models", waits, MANY_MS)
    figure.key = "/metrics with many read models"
    figure.details["bytes"] = size
    return figure


def _model(number: int) -> type[ef.Projection]:
    class Weights(ef.Projection, name=f"weights_{number}"):
        scale: str
        grams: int = 0

        def evolve(self, event: Weighed) -> None:
            self.grams += event.grams

    return Weights


def _at_p99(name: str, waits: list[float], bound: float) -> Figure:
    at = percentile(waits, 0.99)
    figure = Figure(GROUP, name, "ms at p99", Sample((at,)), better="lower")
    figure.details = {"p50": percentile(waits, 0.5), "scrapes": len(waits)}
    return figure.aim(f"< {bound:g} ms", at < bound)
