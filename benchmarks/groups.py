"""The groups of figures: each is a module of this folder with a function `run`, and a line of `GROUPS`.

Knows: names, order, the time that a group takes. Does not know: what a group measures.

`run(stage, announce)` yields a `Figure` (measure.py) as soon as it is measured. `stage.settings` has the sizes;
`stage.wanted(key)` is False for a figure that a resumed run already has, which the group may then leave out;
`announce(text)` prints what is measured next. Stores are opened by `stage.open(kind)` or put under `stage.folder`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import NamedTuple

from benchmarks.measure import Figure
from benchmarks.stage import Stage


class Group(NamedTuple):
    """A group of figures. `seconds`: of a full run, on two quiet cores. `server`: other processes work for it, too."""

    name: str  # the module
    about: str
    seconds: int
    server: bool = False

    def run(self, stage: Stage, announce: Callable[[str], None]) -> Iterator[Figure]:
        """Yield the figures."""
        return import_module(f"benchmarks.{self.name}").run(stage, announce)


# In the order in which they run: a run that has to end early has the most important ones.
GROUPS = (
    Group("append", "one writer, 1 to 1,000 events an append", 200),
    Group("concurrent", "threads, tasks and processes that append one event each, with and without a condition", 80),
    Group("read", "the whole log, entities, decisions on a warm entity", 35),
    Group("decisions", "decisions over two entities, timers, old event classes, a very long entity", 60),
    Group("footprint", "bytes on disk, import, memory", 10),
    Group("projections", "read models on SQLite", 120),
    Group("beside", "one writer beside read models, a rebuild, reports; how far read models are behind", 120, True),
    Group("growth", "appends, reads and conditions while a store grows", 480),
    Group("hot", "many callers that decide over one state", 20),
    Group("follow", "catching up, from an append to its receipt, idle followers", 30),
    Group("alerts", "rules over the log, from an event to its fact", 60),
    Group("postgres", "PostgreSQL", 140, True),
    Group("server", "the server over HTTP: appends, reads, followers", 90, True),
    Group("jetstream", "a cluster of three NATS servers: appends beside raw nats-py, reads, an outage", 240, True),
    Group("hosts", "a new host opens a log of a cluster, by a published copy of the index and without", 300, True),
    Group("monitoring", "what counting costs, and /metrics under load and with many read models", 150, True),
    Group("traces", "appends with traces: off, and collected", 30),
    Group("paging", "pages of a read model of a million rows, on SQLite and PostgreSQL", 240, True),
    Group("migrate", "tables to events: load, compare, and what recording costs the writers of a source", 240, True),
)
BY_NAME = {group.name: group for group in GROUPS}
