"""The initial load: the events of every row of one snapshot of the source, in the order of business time.

Rows are read once, in the order of their keys, within one snapshot. Their events are sorted by moment, then by the
order of tables (those that are referred to come first), then by key, and appended 1,000 at a time. A load that was
killed is begun again with a new snapshot, and leaves out rows that have their events: what changed in them since is
left to capture, which knows which snapshot each row was read in. A load that reads tables again, after changes were
missed, makes the folded rows equal to the source, with events that say so.
Knows: the order of steps. Does not know: SQL of a database, how progress is shown.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import msgspec

from eventfold.concurrency import run as run_now
from eventfold.core.envelope import MAX_EVENTS_PER_APPEND, NewEvent
from eventfold.errors import InvalidInput
from eventfold.log.append import write
from eventfold.log.context import Options
from eventfold.migrate.connection import Connection
from eventfold.migrate.events import Circumstances, Row, TableEvents
from eventfold.migrate.plan import Plan
from eventfold.migrate.progress import AlarmsSettled, Ledger, LoadAdvanced, LoadDone, LoadStarted, Migration
from eventfold.migrate.proved import ProvedFacts
from eventfold.migrate.rows import FoldedRows, live_keys, origin_of
from eventfold.migrate.sorting import Sorter
from eventfold.migrate.sources.changes import Snapshot
from eventfold.ports.messages import PAGE_BYTES, AppendRequest
from eventfold.ports.services import require

PAGE_ROWS = 2_000
NOTED_S = 10.0  # between two facts about how far a load is
EARLY, LATE = -(2**62), 2**62  # the places of rows without a moment
EXAMPLES = 3  # events of a type that a dry run shows


class Progress(msgspec.Struct, frozen=True):
    """How far a load is. `step`: "reading" or "writing"; `remaining`: seconds, None while that is not known."""

    step: str
    rows: int
    total: int
    per_second: float
    remaining: float | None


class Loaded(msgspec.Struct, frozen=True):
    """What a load did. `rows`: by table; `events`: appended; `found`: rows whose events were there.

    `types`: numbers of events by type, and `examples`, of a dry run.
    """

    rows: dict[str, int]
    events: int
    found: int
    seconds: float
    types: dict[str, int] = {}
    examples: tuple[NewEvent, ...] = ()


class Pace:
    """Keeps work at or below a number of rows a second. None: no limit."""

    def __init__(self, rate: float | None) -> None:
        self._rate, self._began, self._rows = rate, time.monotonic(), 0

    def add(self, rows: int) -> None:
        """Count rows, and wait if that was too fast."""
        self._rows += rows
        if self._rate is not None:
            ahead = self._rows / self._rate - (time.monotonic() - self._began)
            if ahead > 0:
                time.sleep(ahead)

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return max(time.monotonic() - self._began, 1e-6)

    @property
    def per_second(self) -> float:
        """Rows a second."""
        return self._rows / self.seconds


class Loader:
    """Loads the tables of a plan. `source`: a connection for reading; `snapshot_of` is asked within its snapshot."""

    def __init__(
        self,
        ledger: Ledger,
        plan: Plan,
        source: Connection,
        snapshot_of: Callable[[Connection], Snapshot],
        *,
        max_rate: float | None = None,
        progress: Callable[[Progress], None] = lambda _progress: None,
        folder: Path | None = None,
    ) -> None:
        self._ledger, self._plan, self._source, self._snapshot_of = ledger, plan, source, snapshot_of
        self._rate, self._progress, self._folder = max_rate, progress, folder
        self._log = ledger.store.projections.log
        self._folded = FoldedRows(ledger.store, plan.events)

    def dry_run(self) -> Loaded:
        """Read and convert every row, and append nothing."""
        pace = Pace(self._rate)
        rows: Counter[str] = Counter()
        types: Counter[str] = Counter()
        examples: list[NewEvent] = []
        self._source.begin(snapshot=True)
        try:
            for _, _, event in ProvedFacts(self._plan, self._source).events(1):
                types[event.type] += 1
                if types[event.type] <= EXAMPLES:
                    examples.append(event)
            for label, read in self._pages(pace):
                rows[label] += len(read)
                for row in read:
                    for _, event in self._plan.events[label].loaded(row, 1):
                        types[event.type] += 1
                        if types[event.type] <= EXAMPLES:
                            examples.append(event)
        finally:
            self._source.rollback()
        return Loaded(dict(rows), 0, 0, pace.seconds, dict(types), tuple(examples))

    def load(self, migration: Migration) -> Loaded:
        """Load all tables, or go on with a load that was ended. Raises ValueNotExact, SourceUnavailable, …"""
        resumed = migration.is_loading
        run = 1 + max(migration.snapshots, default=0)
        rows: Counter[str] = Counter()
        with Sorter(self._folder) as sorter:
            pace = Pace(self._rate)
            started = self._begin(run, (), "")
            try:
                facts = ProvedFacts(self._plan, self._source)
                for number, (label, moment, event) in enumerate(facts.events(run)):
                    sorter.add((EARLY if moment is None else moment, self._rank(label), -1, number), event)
                for label, read in self._pages(pace):
                    self._sort(sorter, label, read, rows[label], run, facts.latest)
                    rows[label] += len(read)
            finally:
                self._source.rollback()
            events, found = self._append(sorter, run, sum(rows.values()), resumed)
        seconds = time.monotonic() - started
        counts = {label: rows[label] for label in self._plan.tables}
        self._ledger.add(LoadDone(self._ledger.name, run, counts, events, found, round(seconds, 3)))
        return Loaded(counts, events, found, seconds)

    def reread(self, migration: Migration, labels: Sequence[str], because: str) -> Loaded:
        """Make the folded rows of some tables equal to the source, by events that say why. Settles their alarms."""
        unknown = [each for each in labels if each not in self._plan.tables]
        if unknown or migration.loaded is None:
            raise InvalidInput(
                f"{unknown[0]} is no table of this migration." if unknown else "Nothing has been loaded yet.",
                "Name tables of migration.toml." if unknown else "Run eventfold migrate load first.",
            )
        run = 1 + max(migration.snapshots, default=0)
        started = self._begin(run, tuple(labels), because)
        pace, rows, events = Pace(self._rate), Counter[str](), 0
        seen: dict[str, set[str]] = {label: set() for label in labels}
        about = Circumstances("reread", run=run)
        try:
            for label, read in self._pages(pace, labels):
                rows[label] += len(read)
                events += self._write(self._corrections(self._plan.events[label], read, seen[label], about))
        finally:
            self._source.rollback()
        for label in labels:
            events += self._write(self._removals(self._plan.events[label], seen[label], about))
        seconds = time.monotonic() - started
        counts = {label: rows[label] for label in labels}
        found = sum(rows.values()) - events
        self._ledger.add(LoadDone(self._ledger.name, run, counts, events, max(found, 0), round(seconds, 3)))
        whole = set(labels) == set(self._plan.tables)
        self._ledger.add(AlarmsSettled(self._ledger.name, (*labels, *([""] if whole else [])), because))
        return Loaded(counts, events, max(found, 0), seconds)

    def _begin(self, run: int, labels: tuple[str, ...], because: str) -> float:
        self._source.begin(snapshot=True)
        snapshot = self._snapshot_of(self._source)
        total = sum(self._plan.tables[each].rows or 0 for each in labels or self._plan.tables)
        self._ledger.add(LoadStarted(self._ledger.name, run, str(snapshot), total, labels, because))
        return time.monotonic()

    def _pages(self, pace: Pace, labels: Iterable[str] | None = None) -> Iterator[tuple[str, list[Row]]]:
        """Yield the rows of the tables as JSON, page by page."""
        chosen = list(labels or self._plan.tables)
        total, done = sum(self._plan.tables[each].rows or 0 for each in chosen), 0
        for label in chosen:
            events = self._plan.events[label]
            codec, read = events.codec, events.codec.read
            keys = ", ".join(quoted_column(each) for each in events.mapping.key)
            statement = f"SELECT {codec.select_list()} FROM {codec.table.sql} ORDER BY {keys}"  # noqa: S608
            for page in self._source.pages(statement, size=PAGE_ROWS):
                yield label, [read(row) for row in page]
                pace.add(len(page))
                done += len(page)
                self._tell("reading", done, max(total, done), pace)

    def _sort(
        self,
        sorter: Sorter,
        label: str,
        rows: Sequence[Row],
        number: int,
        run: int,
        proved: Mapping[tuple[str, str], int],
    ) -> None:
        events = self._plan.events[label]
        rank, undated = self._rank(label), LATE if label in self._plan.late else EARLY
        for row in rows:
            last = proved.get((label, events.key(row))) if proved else None
            for index, (moment, event) in enumerate(events.loaded(row, run, last)):
                sorter.add((undated if moment is None else moment, rank, number, index), event)
            number += 1

    def _rank(self, label: str) -> int:
        return list(self._plan.tables).index(label)

    def _append(self, sorter: Sorter, run: int, rows: int, resumed: bool) -> tuple[int, int]:
        """Append the sorted events. Returns how many were new, and how many rows were found with their events."""
        pace, began, noted = Pace(self._rate), time.monotonic(), time.monotonic()
        events = seen = found = appended_rows = 0
        ordered = iter(sorter)
        while batch := _next_batch(ordered):
            seen += len(batch)
            if resumed:
                new = self._unknown(batch)
                found += sum(origin_of(each).op == "open" for each in batch) - sum(
                    origin_of(each).op == "open" for each in new
                )
                batch = new
            if batch:
                self._append_one(batch)
                events += len(batch)
            appended_rows = round(rows * seen / max(sorter.count, 1))
            pace.add(len(batch) * rows // max(sorter.count, 1))
            self._tell("writing", appended_rows, rows, pace)
            if time.monotonic() - noted > NOTED_S:
                noted = time.monotonic()
                seconds = round(noted - began, 3)
                self._ledger.add(LoadAdvanced(self._ledger.name, run, appended_rows, events, seconds))
        return events, found

    def _unknown(self, batch: Sequence[NewEvent]) -> list[NewEvent]:
        """Return the events of rows that have no opening yet, and that are not in the log themselves."""
        origins = [origin_of(each) for each in batch]
        names = [self._name(each.source) for each in origins]
        self._folded.fetch(names)
        lookups = require(self._log.engine, "lookups")
        kept = [
            event
            for event, name in zip(batch, names, strict=True)
            if self._folded.get(*name).values is None and run_now(lookups.position_of(event.id)) is None
        ]
        self._folded.forget()
        return kept

    def _name(self, source: str) -> tuple[str, str]:
        """Return the label and the key that the metadata of an event name."""
        label = next(each for each in self._plan.tables if source.startswith(f"{each}/"))
        for each in self._plan.tables:
            if len(each) > len(label) and source.startswith(f"{each}/"):
                label = each
        return label, source[len(label) + 1 :]

    def _corrections(
        self, events: TableEvents, rows: Sequence[Row], seen: set[str], about: Circumstances
    ) -> Iterator[NewEvent]:
        keyed = [(events.key(row), row) for row in rows]
        self._folded.fetch((events.label, key) for key, _ in keyed)
        for key, row in keyed:
            seen.add(key)
            known = self._folded.get(events.label, key).values
            event = events.opened(row, about) if known is None else events.changed(known, row, about)
            if event is not None:
                yield event
        self._folded.forget()

    def _removals(self, events: TableEvents, seen: set[str], about: Circumstances) -> Iterator[NewEvent]:
        rows = self._folded.table(events.label)
        for key in sorted(live_keys(rows) - seen):
            values = rows[key].values
            if values is not None:
                yield events.removed(values, about)

    def _write(self, events: Iterator[NewEvent]) -> int:
        count = 0
        while batch := _next_batch(events):
            self._append_one(batch)
            count += len(batch)
        return count

    def _append_one(self, batch: Sequence[NewEvent]) -> None:
        run_now(write(self._log, Options(), AppendRequest(tuple(batch))))

    def _tell(self, step: str, rows: int, total: int, pace: Pace) -> None:
        rate = pace.per_second
        self._progress(Progress(step, rows, total, rate, (total - rows) / rate if rate and total else None))


def quoted_column(name: str) -> str:
    """Return the name of a column as SQL."""
    return '"' + name.replace('"', '""') + '"'


def _next_batch(events: Iterator[NewEvent]) -> list[NewEvent]:
    """Return the next events for one append: at most 1,000, and fewer once they are large together."""
    batch: list[NewEvent] = []
    size = 0
    for event in islice(events, MAX_EVENTS_PER_APPEND):
        batch.append(event)
        size += len(event.data)
        if size >= PAGE_BYTES:
            break
    return batch
