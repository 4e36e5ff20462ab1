"""The recorder of one store in one process: what happened since it was made, as counters and histograms of the table.

Knows: outcomes of appends, pages, what each metric counts. Does not know: where it is called from, how it is written.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence

from eventfold.core.envelope import Receipt
from eventfold.errors import AppendConflict, AppendUnconfirmed, EventfoldError, StoreUnavailable
from eventfold.monitoring.instruments import Counter, Histogram, Key
from eventfold.monitoring.labels import LabelValues
from eventfold.monitoring.table import BY_NAME
from eventfold.ports.messages import AppendRequest, Outcome

TraceId = Callable[[], str | None]
TRACE_ID = re.compile(r"[0-9a-f]{32}")
log = logging.getLogger("eventfold.monitoring")


def _outcome_of(outcome: Outcome | BaseException) -> str:
    if isinstance(outcome, Receipt):
        return "repeated" if outcome.repeated else "written"
    if isinstance(outcome, AppendConflict):
        return "conflict"
    if isinstance(outcome, AppendUnconfirmed):
        return "unconfirmed"
    return "failed" if isinstance(outcome, StoreUnavailable) or not isinstance(outcome, EventfoldError) else "refused"


class Recorder:
    """What one process did with one store. `store`: the value of that label. Safe under threads.

    `trace_id` returns the id of the current trace, in 32 hex digits, if there is one: it is kept with durations. What
    it raises is logged once, and anything else that it returns is left out: to count an append does not fail it.
    """

    def __init__(self, store: str, trace_id: TraceId | None = None) -> None:
        self.store = store
        self._trace_id, self._has_failed = trace_id, False
        recorded = [each for each in BY_NAME.values() if each.source == "recorded"]
        self.counters: dict[str, Counter] = {
            each.name: Counter(each.known) for each in recorded if each.kind != "histogram"
        }
        self.histograms: dict[str, Histogram] = {
            each.name: Histogram(each.buckets) for each in recorded if each.kind == "histogram"
        }
        self._appends, self._events = self.counters["appends_total"], self.counters["events_appended_total"]
        self._append_s = self.histograms["append_duration_seconds"]
        self._commit_requests = self.histograms["commit_requests"]
        self._commit_s = self.histograms["commit_duration_seconds"]
        self._read_events, self._read_s = self.counters["read_events_total"], self.histograms["read_duration_seconds"]
        self._cache = self.counters["state_cache_total"]
        self._types, self._decisions, self._effects = LabelValues(), LabelValues(), LabelValues()

    @property
    def series(self) -> int:
        """How many series it has, each bucket of a histogram counted."""
        histograms = self.histograms.values()
        return sum(len(each) for each in self.counters.values()) + sum(len(each) for each in histograms)

    def _trace(self) -> str | None:
        if self._trace_id is None:
            return None
        try:
            found = self._trace_id()
        except Exception as error:  # noqa: BLE001 (of the user's function)
            if not self._has_failed:
                self._has_failed = True
                log.warning("The function trace_id of a measured store failed, and measuring goes on: %r", error)
            return None
        return found if isinstance(found, str) and TRACE_ID.fullmatch(found) else None

    # Writing

    def appended(self, seconds: float) -> None:
        """An append has its outcome, `seconds` after it was queued."""
        self._append_s.observe(seconds, (), self._trace())

    def committed(self, requests: Sequence[AppendRequest], outcomes: Sequence[Outcome], seconds: float) -> None:
        """A commit has an outcome for each of its requests."""
        if (
            len(requests) == 1
            and isinstance(receipt := outcomes[0], Receipt)
            and len(events := requests[0].events) == 1
        ):
            self._appends.add(("repeated",) if receipt.repeated else ("written",))
            if not receipt.repeated:
                self._events.add((self._types.of(events[0].type),))
        else:
            self._count(requests, outcomes)
        self._commit_requests.observe(len(requests))
        self._commit_s.observe(seconds)

    def _count(self, requests: Sequence[AppendRequest], outcomes: Sequence[Outcome]) -> None:
        results: dict[Key, float] = {}
        types: dict[str, int] = {}
        written = 0
        for request, outcome in zip(requests, outcomes, strict=False):
            if isinstance(outcome, Receipt) and not outcome.repeated:
                written += 1
                for event in request.events:
                    types[event.type] = types.get(event.type, 0) + 1
            else:
                result = (_outcome_of(outcome),)
                results[result] = results.get(result, 0) + 1
        if written:
            results[("written",)] = written
        self._appends.add_all(results)
        shown: dict[Key, float] = {}
        for type, count in types.items():
            key = (self._types.of(type),)
            shown[key] = shown.get(key, 0) + count
        self._events.add_all(shown)

    def not_committed(self, requests: int, error: Exception) -> None:
        """A commit raised an error, so that all its requests have this outcome."""
        self._appends.add((_outcome_of(error),), requests)

    def decided(self, decision: str, attempts: int, seconds: float) -> None:
        """A decision has ended, successfully or not."""
        key = (self._decisions.of(decision),)
        self.histograms["decide_attempts"].observe(attempts, key)
        self.histograms["decide_duration_seconds"].observe(seconds, key, self._trace())

    def locked(self, seconds: float) -> None:
        """A caller got a lock, or gave up, after waiting for `seconds`."""
        self.histograms["lock_wait_seconds"].observe(seconds)

    # Reading

    def read(self, kind: Key, events: int, seconds: float) -> None:
        """A page of `events` was read."""
        self._read_events.add(kind, events)
        self._read_s.observe(seconds, kind)

    def cached(self, result: Key) -> None:
        """A state was looked up in the cache."""
        self._cache.add(result)

    def followed(self, change: int) -> None:
        """A follower was opened (1) or closed (-1)."""
        self.counters["followers"].add((), change)

    # Effects

    def called(self, effect: str, outcome: str) -> None:
        """An effect was called."""
        self.counters["effect_attempts_total"].add((self._effects.of(effect), outcome))
