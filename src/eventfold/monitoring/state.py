"""The state of a store as figures: read in bulk at a scrape, so that the cost does not grow with the traffic.

Knows: what an operator's commands show of a log, its read models, processes and verifications. Does not know: metrics'
kinds and texts, HTTP, how long a caller waits.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, NamedTuple

from eventfold.alerts.facts import OpenEpisodes
from eventfold.concurrency import run
from eventfold.core.envelope import StoredEvent
from eventfold.core.json_values import decode
from eventfold.core.query import Query
from eventfold.errors import EventfoldError
from eventfold.log.lookups import tag_names_of
from eventfold.log.read import load
from eventfold.monitoring.labels import LabelValues, shown
from eventfold.ports.messages import Head, Span
from eventfold.processes.effects import Effect
from eventfold.processes.retries import first_parked_by_key
from eventfold.processes.timers import TimerQueue
from eventfold.projections.admin import ProjectionAdmin
from eventfold.projections.backed_up import last_backup_at
from eventfold.projections.statuses import Observed
from eventfold.projections.verified import LOG, TYPE, Verified

MAX_NAMES = 2_000  # read models, processes and followers with series of their own
FACTS_S = 60.0  # how long what the engine says of itself is kept: to count it may take long
PAGE = 1_000
PROCESS_TAG = "$process:"
FOLLOWING = ("follower", "consumer")


class Sample(NamedTuple):
    """One value of a metric of the table: its name without the prefix, its labels without that of the store."""

    metric: str
    labels: tuple[str, ...]
    value: float


class StateReader:
    """Reads the state of one store. Not for several threads at a time. Raises what the store raises."""

    def __init__(self, admin: ProjectionAdmin) -> None:
        self._admin, self._log = admin, admin.log
        self._epoch = self._log.engine.epoch
        self._facts: dict[str, Any] = {}
        self._facts_at = -FACTS_S
        self._forget()

    def _forget(self) -> None:
        self._timers: dict[str, TimerQueue] = {}
        self._verified: dict[str, tuple[float, bool]] = {}
        self._verified_to: int | None = None  # the position up to which verifications were read
        self._names: set[str] = set()  # that are shown
        self._alerts = LabelValues()

    def read(self) -> list[Sample]:
        """Return all samples of the state now."""
        if self._log.engine.epoch != self._epoch:  # what was read may not be in the log any more
            self._epoch = self._log.engine.epoch
            self._forget()
        head = run(self._log.engine.head())
        observed = self._admin.observe()
        timers = self._timers_now()
        self._choose_names(observed, timers)
        return [
            *self._of_log(head),
            *self._of_projections(observed),
            *self._of_processes(observed, timers),
            *self._of_proofs(head, observed),
            *self._of_alerts(),
        ]

    # The log

    def _of_log(self, head: Head) -> Iterator[Sample]:
        facts = self._engine_facts()
        yield Sample("head_position", (), head.position)
        if head.position:
            yield Sample("head_timestamp_seconds", (), head.time / 1e6)
        yield Sample("epoch", (), self._log.engine.epoch)
        path = facts.get("path")
        sizes = {
            name.removesuffix("bytes").rstrip("_") or "data": v for name, v in facts.items() if name.endswith("bytes")
        }
        if isinstance(path, str) and os.path.exists(path):
            sizes = {"data": os.path.getsize(path), "wal": _size(f"{path}-wal")}
            if hasattr(os, "statvfs"):
                disk = os.statvfs(os.path.dirname(os.path.abspath(path)))
                yield Sample("disk_free_bytes", (), disk.f_bavail * disk.f_frsize)
        for part, size in sizes.items():
            if isinstance(size, int):
                yield Sample("store_bytes", (part,), size)
        durability = facts.get("durability", "full" if self._log.engine.capabilities.durable else "none")
        yield Sample("build_info", (version("eventfold"), self._log.engine.name, str(durability)), 1)

    def _engine_facts(self) -> dict[str, Any]:
        if time.monotonic() - self._facts_at >= FACTS_S:
            self._facts, self._facts_at = run(self._log.engine.stats()), time.monotonic()
        return self._facts

    # Read models

    def _of_projections(self, observed: list[Observed]) -> Iterator[Sample]:
        now: float | None = None
        for each in observed:
            status, name = each.status, each.status.name
            if not self._is_shown(name):
                continue
            if status.kind in FOLLOWING:
                yield Sample("follower_lag_events", (name,), status.behind)
                continue
            yield Sample("projection_state", (name, status.state), 1)
            if status.state == "away":  # its database is unreachable: no other figure is known
                continue
            yield Sample("projection_position", (name,), status.position)
            yield Sample("projection_lag_events", (name,), status.behind)
            yield Sample("projection_lag_seconds", (name,), status.seconds)
            yield Sample("projection_rate", (name,), status.rate)
            yield Sample("projection_parked", (name,), status.parked)
            yield Sample("projection_skipped", (name,), status.skipped)
            yield Sample("projection_beat_timestamp_seconds", (name,), max(e.beat for e in each.checkpoints) / 1e6)
            if status.slowest:
                yield Sample("projection_handler_seconds", (name, status.slowest), status.micros / 1e6)
            yield Sample("projection_generation", (name, "live"), status.generation)
            if status.building is not None:
                yield Sample("projection_generation", (name, "building"), status.building)
            oldest = 0.0
            if status.parked:
                now = time.time() if now is None else now
                first = self._event_at(min(e.position for e in each.entries if e.state != "skipped"))
                oldest = 0.0 if first is None else max(0.0, now - first.time / 1e6)
            yield Sample("projection_oldest_parked_seconds", (name,), oldest)

    def _choose_names(self, observed: list[Observed], timers: dict[str, TimerQueue]) -> None:
        """Choose the names that are shown: those that were while they exist, and read models before followers."""
        present = {each.status.name: each.status.kind in FOLLOWING for each in observed}
        present |= dict.fromkeys(timers.keys() - present.keys(), False)
        following = {name for name in self._names if present.get(name, False)}
        self._names = {name for name in self._names if not present.get(name, True)}
        for names in ((name for name, follows in present.items() if not follows), following, present):
            for name in names:
                if len(self._names) < MAX_NAMES and shown(name) == name:
                    self._names.add(name)

    def _is_shown(self, name: str) -> bool:
        return name in self._names

    def _event_at(self, position: int) -> StoredEvent | None:
        page = run(self._log.engine.read(Query(), Span(after=position - 1, until=position)))
        return page.events[0] if page.events else None

    # Processes

    def _timers_now(self) -> dict[str, TimerQueue]:
        names = [tag.removeprefix(PROCESS_TAG) for tag in run(tag_names_of(self._log, PROCESS_TAG, MAX_NAMES, ""))]
        for name in names:
            if name not in self._timers:
                self._timers[name] = TimerQueue(name, self._log)
            run(self._timers[name].catch_up())
        return self._timers

    def _of_processes(self, observed: list[Observed], timers: dict[str, TimerQueue]) -> Iterator[Sample]:
        now = time.time_ns() // 1000
        reacting = {each.status.name: each for each in observed if each.status.kind == "effects"}
        codes = {each.name: each.code for each in self._admin.list()} if reacting else {}
        for name in sorted(reacting.keys() | timers.keys()):
            if not self._is_shown(name):
                continue
            if (queue := timers.get(name)) is not None:
                overdue = [each.fact.due for each in queue.waiting if each.fact.due < now]
                yield Sample("process_timers", (name,), len(queue))
                yield Sample("process_timers_overdue", (name,), len(overdue))
                yield Sample("process_timer_delay_seconds", (name,), (now - min(overdue)) / 1e6 if overdue else 0.0)
            found = reacting.get(name)
            if found is None:
                continue
            if queue is None and not _is_process(codes.get(name, "")):
                yield Sample("effects_undelivered", (name,), found.status.behind + found.status.parked)
            else:
                stopped = any(each.stopped for each in found.checkpoints)
                yield Sample("process_stuck", (name,), len(first_parked_by_key(found.entries)) + stopped)

    # Verifications

    def _of_proofs(self, head: Head, observed: list[Observed]) -> Iterator[Sample]:
        if (backed_up := last_backup_at(self._log, head.position)) is not None:
            yield Sample("backup_timestamp_seconds", (), backed_up / 1e6)
        self._read_verifications(head.position)
        names = {each.status.name for each in observed}
        if any(what != LOG and self._subject(what) not in names for what in self._verified):
            names |= {each.name for each in self._admin.list()}
        for what, (at, is_ok) in self._verified.items():
            if what != LOG and self._subject(what) not in names:
                continue  # the read model was removed: it will not be verified again
            yield Sample("verify_timestamp_seconds", (what,), at)
            yield Sample("verify_ok", (what,), is_ok)

    @staticmethod
    def _subject(what: str) -> str:
        return what.partition(":")[2]

    def _read_verifications(self, head: int) -> None:
        """Read those since the last time; the first time the last 1,000, the newest first."""
        query, engine = Query.of(types=[TYPE]), self._log.engine
        if self._verified_to is None:
            page = run(engine.read(query, Span(until=head, backwards=True, limit=PAGE)))
            for stored in reversed(page.events):
                self._note(stored)
            self._verified_to = head
        while self._verified_to < head:
            page = run(engine.read(query, Span(after=self._verified_to, until=head, limit=PAGE)))
            for stored in page.events:
                self._note(stored)
            self._verified_to = page.scanned
            if not page.more:
                break

    def _note(self, stored: StoredEvent) -> None:
        try:
            found = decode(stored.data, Verified)
        except (EventfoldError, ValueError):  # of a later release
            return
        what = LOG if found.kind == "log" else f"{found.kind}:{found.subject}"
        if what in self._verified or len(self._verified) < 2 * MAX_NAMES:
            self._verified[what] = (stored.time / 1e6, found.proved)

    # Alerts on events

    def _of_alerts(self) -> Iterator[Sample]:
        now = time.time_ns() // 1000
        episodes, _ = run(load(self._log, OpenEpisodes("")))
        counts: Counter[tuple[str, ...]] = Counter()
        for each in episodes.open.values():
            counts[self._alerts.of(each.alert), each.severity, episodes.state_of(each, now)] += 1
        for labels, count in counts.items():
            yield Sample("alerts", labels, count)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def _is_process(code: str) -> bool:
    """Whether the code at MODULE:NAME is a process, as far as this process has it: an effect or unknown code is not."""
    module, _, name = code.partition(":")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is not None and not isinstance(found, Effect)
