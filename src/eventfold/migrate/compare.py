"""Comparing rows with events: every row and every column at one watermark.

The rows of one snapshot of the source are read first, so that it is open only that long. Then everything that this
snapshot sees has to be captured: by the capture that runs, or else here. Then the log is read, without the changes that
the snapshot does not see. Both sides are kept as JSON, by the key of the row: equal bytes are equal rows; others are
compared column by column, each by the equality of its type.
Knows: the order of steps. Does not know: SQL of a database, how a result is shown, how often it is repeated.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from eventfold.errors import CaptureStopped, InvalidInput, MigrationError, ValueNotExact
from eventfold.migrate.comparison import (
    ColumnDifference,
    Comparison,
    Difference,
    DifferenceKind,
    GivenBy,
    TableComparison,
)
from eventfold.migrate.connection import Connection
from eventfold.migrate.events import Row, TableEvents
from eventfold.migrate.load import Pace, Progress
from eventfold.migrate.mapping import key_text
from eventfold.migrate.plan import Plan
from eventfold.migrate.progress import Compared, Ledger, Migration
from eventfold.migrate.row_log import AMENDED, CHANGED, DECIDED, OPENED, REMOVED, RowLog, Watermark, merged
from eventfold.migrate.sources.changes import Snapshot
from eventfold.migrate.sources.source import Recorder
from eventfold.migrate.spool import PARTITIONS, Record, Spool
from eventfold.migrate.table_codec import select_of

PAGE_ROWS = 2_000
SHOWN = 20  # differences of each kind and table
PATIENCE_S = 300.0  # until everything that a snapshot sees is captured
PAUSE_S = 0.1
ATTEMPTS = 3  # if tables are read again meanwhile
READABLE, UNREADABLE = range(2)
_encode = msgspec.json.Encoder(decimal_format="string").encode
_decode = msgspec.json.decode


class _Seen(NamedTuple):
    """What was asked within the snapshot."""

    snapshot: Snapshot | None
    point: str
    reverse: int | None


class Comparer:
    """Compares the rows of some tables with their events. `source`: where rows are read.

    `recorder`: None if no changes are recorded: then no client may write. `catch_up`: captures what waits, or waits a
    little if another process captures. `reverse`: returns, within the snapshot, up to which position the reverse
    projection has written; None before a cutover.
    """

    def __init__(
        self,
        ledger: Ledger,
        plan: Plan,
        source: Connection,
        recorder: Recorder | None,
        catch_up: Callable[[], None],
        *,
        labels: Collection[str] = (),
        reverse: Callable[[Connection], int | None] = lambda _connection: None,
        patience: float = PATIENCE_S,
        max_rate: float | None = None,
        progress: Callable[[Progress], None] = lambda _progress: None,
        folder: Path | None = None,
        shown: int = SHOWN,
    ) -> None:
        unknown = [each for each in labels if each not in plan.tables]
        if unknown:
            raise InvalidInput(f"{unknown[0]} is no table of this migration.", "Name tables of migration.toml.")
        self._ledger, self._plan, self._source, self._recorder = ledger, plan, source, recorder
        self._catch_up, self._reverse, self._patience = catch_up, reverse, patience
        self._labels = [each for each in plan.tables if not labels or each in labels]
        self._rate, self._progress, self._folder, self._shown = max_rate, progress, folder, shown

    def compare(self) -> Comparison:
        """Compare once, and record the result.

        Raises CaptureStopped if an alarm is not settled or a definition was changed, MigrationError if what the
        snapshot sees was not captured in time, InvalidInput if a table is not loaded, SourceUnavailable.
        """
        began = time.monotonic()
        for _ in range(ATTEMPTS):
            found = self._attempt(began)
            if found is not None:
                self._record(found)
                return found
        raise MigrationError(
            "Tables were read again while they were compared, several times.",
            "Wait for eventfold migrate load to end.",
            source=self._source.address,
        )

    def _attempt(self, began: float) -> Comparison | None:
        """Compare once; None if tables were read again meanwhile, so that the rows are of an earlier state."""
        before = self._ledger.read()
        refuse_unready(before, self._plan, self._labels)
        with Spool(self._folder) as rows, Spool(self._folder) as events:
            findings = _Findings(self._plan, self._labels, self._shown)
            seen = self._read_rows(rows, findings)
            self._wait(seen)
            after = self._ledger.read()
            watermark = Watermark(
                self._ledger.store.head(),
                seen.snapshot,
                after.generation,
                max(after.snapshots, default=0),
                seen.reverse,
            )
            if before.snapshots.keys() != after.snapshots.keys() or before.generation != after.generation:
                return None
            log = RowLog(self._ledger.store, self._plan, self._labels)
            events.extend(log.read(watermark))
            if log.newest_run > watermark.run:
                return None
            for number in range(PARTITIONS):
                _compare_part(rows, events, number, findings)
                self._tell("comparing", number + 1, PARTITIONS)
        differences = tuple(_explained(each, log, self._plan, watermark) for each in findings.shown)
        return Comparison(
            findings.tables,
            differences,
            watermark.position,
            str(seen.snapshot or ""),
            round(time.monotonic() - began, 3),
            tuple(_left_out(self._plan, self._labels)),
        )

    def _read_rows(self, rows: Spool, findings: _Findings) -> _Seen:
        """Read every row of one snapshot, as JSON."""
        source, recorder = self._source, self._recorder
        pace, total = Pace(self._rate), sum(self._plan.tables[each].rows or 0 for each in self._labels)
        done = 0
        source.begin(snapshot=True)
        try:
            snapshot = None if recorder is None else recorder.snapshot(source)
            point = "" if recorder is None else recorder.point(source)
            seen = _Seen(snapshot, point, self._reverse(source))
            for label in self._labels:
                events = self._plan.events[label]
                counted = findings.tables[label]
                for page in source.pages(select_of(events.codec), size=PAGE_ROWS):
                    rows.extend(_records(events, page, findings))
                    counted.rows += len(page)
                    done += len(page)
                    pace.add(len(page))
                    self._tell("reading", done, max(total, done))
        finally:
            source.rollback()
        return seen

    def _wait(self, seen: _Seen) -> None:
        """Wait until all that the snapshot sees is captured."""
        if self._recorder is None or seen.snapshot is None:
            return
        ends = time.monotonic() + self._patience
        while self._recorder.waits(seen.snapshot, seen.point):
            if time.monotonic() > ends:
                raise MigrationError(
                    f"Not everything that the source shows was captured within {self._patience:g} s.",
                    "See eventfold migrate status: the capture is behind, or waits for a transaction that is open.",
                    source=self._source.address,
                )
            self._tell("waiting", 0, 0)
            refuse_alarms(self._ledger.read())
            self._catch_up()
            if self._recorder.waits(seen.snapshot, seen.point):
                time.sleep(PAUSE_S)

    def _record(self, found: Comparison) -> None:
        whole = len(self._labels) == len(self._plan.tables)
        self._ledger.add(
            Compared(
                self._ledger.name,
                found.equal,
                found.rows,
                found.differing,
                found.verdict[:2_000],
                found.position,
                found.point,
                () if whole else tuple(self._labels),
            )
        )

    def _tell(self, step: str, rows: int, total: int) -> None:
        self._progress(Progress(step, rows, total, 0.0, None))


# What is refused


def refuse_unready(migration: Migration, plan: Plan, labels: Sequence[str]) -> None:
    """Raise InvalidInput if a table is not loaded, CaptureStopped for an alarm or a changed definition."""
    refuse_alarms(migration)
    missing = [each for each in labels if migration.capture is not None and each not in migration.floors]
    if missing or migration.is_loading or migration.loaded is None:
        raise InvalidInput(
            f"{missing[0] if missing else 'A table'} is not loaded completely, so there is nothing to compare.",
            "Run eventfold migrate load first.",
        )
    known = migration.capture.definitions if migration.capture is not None else {}
    now = plan.definitions()
    for label in labels:
        if label in known and known[label] != now[label]:
            raise CaptureStopped(
                f"The definition of {label} was changed from\n{known[label]}\nto\n{now[label]}\n",
                f"Run `eventfold migrate inspect` again, then `eventfold migrate load --reread {label}`.",
                kind="definition",
                table=label,
                key="",
            )


def refuse_alarms(migration: Migration) -> None:
    """Raise CaptureStopped for an alarm that is not settled: what differs may be what was missed, or more."""
    if migration.alarms:
        alarm = migration.alarms[0]
        raise CaptureStopped(
            f"The capture was stopped: {alarm.what}.",
            f"When you know why, run `eventfold migrate load --reread {alarm.table or 'TABLES'}`.",
            kind=alarm.kind,
            table=alarm.table,
            key=alarm.key,
        )


# One partition


class _Found(NamedTuple):
    """A row that is not equal, before its events are looked up."""

    label: str
    key: str
    kind: DifferenceKind
    columns: tuple[tuple[str, Any, Any], ...] = ()
    reason: str = ""


class _Findings:
    """What differs: counts of all, the first of each kind and table."""

    def __init__(self, plan: Plan, labels: Sequence[str], shown: int) -> None:
        self.plan, self._most = plan, shown
        self.tables = {each: TableComparison() for each in labels}
        self.labels = sorted(labels, key=len, reverse=True)
        self._found: dict[tuple[str, DifferenceKind], list[_Found]] = {}

    @property
    def shown(self) -> Iterator[_Found]:
        """The first ones, in the order of tables."""
        return (
            each for label in self.tables for (its, _), some in self._found.items() if its == label for each in some
        )

    def split(self, source: str) -> tuple[str, str]:
        """Return the table and the key of a row's name."""
        label = next(each for each in self.labels if source.startswith(f"{each}/"))
        return label, source[len(label) + 1 :]

    def add(self, found: _Found) -> None:
        """Count a row that is not equal."""
        table = self.tables[found.label]
        table.counts[found.kind] = table.counts.get(found.kind, 0) + 1
        for name, _, _ in found.columns:
            table.columns[name] = table.columns.get(name, 0) + 1
        some = self._found.setdefault((found.label, found.kind), [])
        if len(some) < self._most:
            some.append(found)


def _records(events: TableEvents, page: Sequence[Sequence[Any]], findings: _Findings) -> Iterator[Record]:
    """Yield the rows of a page as JSON, by their names."""
    read, key, prefix = events.codec.read, events.key, f"{events.label}/"
    for values in page:
        try:
            row = read(values)
        except ValueNotExact as error:
            yield from _unreadable(events, values, error, findings)
        else:
            yield prefix + key(row), READABLE, _encode(row)


def _unreadable(
    events: TableEvents, values: Sequence[Any], error: ValueNotExact, findings: _Findings
) -> Iterator[Record]:
    codec = events.codec
    try:
        parts = [codec.read_value(name, values[codec.columns.index(name)]) for name in events.mapping.key]
    except ValueNotExact:
        findings.add(_Found(events.label, str(error.fields.get("key", "")), "unreadable", reason=error.what))
    else:
        yield f"{events.label}/{key_text(parts)}", UNREADABLE, error.what.encode()


def _compare_part(rows: Spool, events: Spool, number: int, findings: _Findings) -> None:
    ours: dict[str, bytes] = {}
    decided: set[str] = set()
    for source, what, data in events.part(number):
        if what in (OPENED, DECIDED):
            ours[source] = data
            if what == DECIDED or decided:
                (decided.add if what == DECIDED else decided.discard)(source)
        elif what in (CHANGED, AMENDED):
            ours[source] = merged(ours.get(source), data)
            if what == AMENDED:
                decided.add(source)
        elif what == REMOVED:
            ours.pop(source, None)
    records = list(rows.part(number))
    unmatched: list[str] = []
    for source, what, data in records:
        mine = ours.pop(source, None)
        if mine == data and what == READABLE:
            continue
        if mine is None:
            unmatched.append(source)
        elif (found := _difference(findings, source, what, mine, data, source in decided)) is not None:
            findings.add(found)
    times = Counter(source for source, _, _ in records) if unmatched else Counter[str]()
    for source in unmatched:
        findings.add(_Found(*findings.split(source), "doubled" if times[source] > 1 else "missing"))
    for source in ours:
        findings.add(_Found(*findings.split(source), "extra"))


def _difference(
    findings: _Findings, source: str, what: int, mine: bytes, data: bytes, is_decided: bool
) -> _Found | None:
    """Return how a row differs from its events; None if each column is equal by the equality of its type.

    Of a row that a decision wrote only those columns are compared that its events say something of, and none that the
    database generates.
    """
    label, key = findings.split(source)
    if what == UNREADABLE:
        return _Found(label, key, "unreadable", reason=data.decode())
    events = findings.plan.events[label]
    ours: Row = _decode(mine)
    theirs: Row = _decode(data)
    names = events.codec.differing(ours, theirs)
    fields = [(name, events.mapping.field(name)) for name in names]
    columns = tuple(
        (name, ours.get(field), theirs.get(field))
        for name, field in fields
        if not is_decided or (field in ours and not events.codec.table.column(name).is_generated)
    )
    return _Found(label, key, "different", columns) if columns else None


def _explained(found: _Found, log: RowLog, plan: Plan, watermark: Watermark) -> Difference:
    """Return a difference with the events that gave our values."""
    given: dict[str | None, GivenBy] = log.given(found.label, found.key, watermark)
    field = plan.mapping.tables[found.label].field
    columns = tuple(
        ColumnDifference(name, ours, theirs, given.get(field(name))) for name, ours, theirs in found.columns
    )
    return Difference(found.label, found.key, found.kind, columns, given.get(None), found.reason)


def _left_out(plan: Plan, labels: Sequence[str]) -> Iterator[str]:
    for label in labels:
        own, table = plan.mapping.tables[label], plan.tables[label]
        carried = set(own.carried)
        for each in table.columns:
            if each.name not in carried:
                why = "generated" if each.is_generated and each.name not in own.drop else "dropped"
                yield f"{label}.{each.name} ({why})"
