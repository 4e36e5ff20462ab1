"""Capture: recorded changes of the source become events, each exactly once, or the capture stops and says why.

A change of a row is left out if the snapshot in which the row was loaded sees it, or if a later change of the row is
folded already: so nothing has to be remembered between the append and its acknowledgement in the source. The row as it
was before the change has to be the row as the events say. Where it is not, a change was missed: that is an alarm, which
is recorded, and nothing is written until the table has been read again.
Knows: the order of steps, what is compared. Does not know: SQL of a database, how long it runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from types import CoroutineType
from typing import Any, NoReturn

import msgspec

from eventfold.concurrency import run as run_now
from eventfold.concurrency.calls import Call
from eventfold.core.envelope import MAX_EVENTS_PER_APPEND, NewEvent, Receipt
from eventfold.errors import AppendUnconfirmed, CaptureStopped, InvalidInput, SourceUnavailable, ValueNotExact
from eventfold.log.append import write
from eventfold.log.context import Log, Options
from eventfold.migrate.connection import Connection
from eventfold.migrate.events import Circumstances, Row, TableEvents
from eventfold.migrate.plan import Plan
from eventfold.migrate.progress import AlarmKind, AlarmRaised, Captured, Ledger, Migration
from eventfold.migrate.reflection import definition, reflect
from eventfold.migrate.rows import FoldedRow, FoldedRows, live_keys, origin_of, shown_row
from eventfold.migrate.sources.changes import Change, Image, Snapshot, Transaction
from eventfold.migrate.sources.source import Recorder
from eventfold.migrate.sources.stamps import stamp_of
from eventfold.ports.messages import AppendRequest, Outcome

CHANGES = 5_000  # read at a time, about
APPENDS_TOGETHER = 256
NOTED_S = 10.0  # between two facts about what was captured
CHECKED_S = 5.0  # between two looks at whether everything is installed
SHOWN_ROW = 300  # characters
NAMED_KEYS = 20
BYPASSED = (
    "find the writer: the owner of the table or a superuser, who disabled the triggers or set what lets ours pass. To "
    "take its rows into the events, run `eventfold migrate rollback --only {0} --because REASON`, and cut over again; "
    "if you corrected the rows, run `eventfold migrate cutover --only {0}`, which compares them"
)


class _Read(msgspec.Struct, frozen=True):
    """A change with its rows as JSON."""

    change: Change
    events: TableEvents
    before: Row | None
    after: Row | None


class _Done(msgspec.Struct):
    """What was captured since the last fact about it."""

    point: str = ""
    transactions: int = 0
    changes: int = 0
    events: int = 0
    at: int | None = None


class Capture:
    """Captures the changes of a plan's tables. `source`: a connection that only reads.

    `passed_over`: tables that are cut over, and whose recorded changes are left out, since their rows are compared.
    """

    def __init__(
        self, ledger: Ledger, plan: Plan, source: Connection, recorder: Recorder, passed_over: Sequence[str] = ()
    ) -> None:
        self._passed_over = passed_over
        self._ledger, self._plan, self._source, self._recorder = ledger, plan, source, recorder
        self._log = ledger.store.projections.log
        self._folded = FoldedRows(ledger.store, plan.events)
        self._migration = ledger.read()
        self._snapshots: dict[int, Snapshot] = {}
        self._stamp = ""
        self._checked = self._noted = 0.0
        self._done = _Done()
        self._touched: set[tuple[str, str]] | None = None
        self._refuse_early(self._migration)

    def once(self, limit: int = CHANGES) -> int:
        """Read recorded changes and append their events. Returns how many changes were read; 0: there are none now.

        Raises CaptureStopped, after an alarm was recorded, SourceUnavailable, StoreUnavailable errors.
        """
        try:
            transactions = self._recorder.changes(limit)
        except SourceUnavailable as error:
            if "slot" not in error.fields:
                raise
            self._stop("slot", "", "", error.what.rstrip("."), error.remedy)
        self._check_source()  # after reading: what was recorded before a change of a definition is of the old one
        requests: list[AppendRequest] = []
        complete: list[Transaction] = []
        try:
            for transaction in transactions:
                events = self._events_of(transaction, requests)
                requests += _requests(events)
                complete.append(transaction)
        except CaptureStopped:
            self._write(requests)
            self._recorder.acknowledge(complete)
            self._note(complete)
            self._folded.forget()
            raise
        self._write(requests)
        self._recorder.acknowledge(complete)
        self._folded.trim()
        self._note(complete)
        return sum(len(each.changes) for each in transactions)

    def drain(self, passes: int = 10_000) -> int:
        """Read until there are no changes, at most so many times. Returns how many changes were read."""
        total = 0
        for _ in range(passes):
            count = self.once()
            if not count:
                break
            total += count
        return total

    def compare_keys(self) -> int:
        """Compare the keys of all tables with the folded rows; finds deletes that nothing recorded.

        Keys that change meanwhile are left out. Returns how many were compared; 0 if changes are still open in the
        source. Raises CaptureStopped.
        """
        self._touched = set()
        try:
            there = self._keys()
            self.drain()
            if self._recorder.backlog().waiting:
                return 0
            touched, compared = self._touched, 0
            for label, keys in there.items():
                if label in self._migration.moved:  # the events are ahead of it
                    continue
                ours = live_keys(self._folded.table(label))
                moved = {key for each, key in touched if each == label}
                self._refuse_keys(label, keys - ours - moved, ours - keys - moved)
                compared += len(keys - moved)
            return compared
        finally:
            self._touched = None

    def close(self) -> None:
        """Record what was captured since the last such fact."""
        if self._done.transactions:
            self._add_noted()

    # Events of a transaction

    def _events_of(self, transaction: Transaction, waiting: list[AppendRequest]) -> list[NewEvent]:
        events: list[NewEvent] = []
        read = [each for change in transaction.changes if (each := self._read(change, transaction)) is not None]
        wanted = [
            (each.events.label, each.events.key(row)) for each in read for row in (each.before, each.after) if row
        ]
        self._folded.fetch(wanted)
        if self._touched is not None:
            self._touched.update(wanted)
        for each in read:
            about = Circumstances(
                "change",
                transaction.at,
                (self._migration.generation, *each.change.mark),
                transaction=transaction.id if transaction.is_whole else None,
            )
            if each.change.operation == "truncate":
                self._write(waiting)  # the rows are read from the store
                waiting.clear()
                events += self._truncated(each.events, transaction, about)
                continue
            events += self._events_of_change(each, transaction, about)
        return events

    def _read(self, change: Change, transaction: Transaction) -> _Read | None:
        """Return a change with its rows as JSON; None if a later reading of the whole table saw it."""
        label = change.table
        events = self._plan.events.get(label)
        if events is None:
            return None
        floor = self._migration.rereads.get(label)
        if floor is not None and self._snapshot(floor).sees(transaction.unit):
            return None
        if label in self._passed_over:
            return None
        if label in self._migration.moved:
            self._bypassed(change, transaction)
        if change.problem is not None:
            self._stop("unreadable", label, "", f"{change.problem[0]}", change.problem[1])
        try:
            before, after = _row(events, change.before), _row(events, change.after)
        except KeyError as error:
            self._stop(
                "definition",
                label,
                "",
                f"a change of {label} has no column {error.args[0]}",
                f"run `eventfold migrate inspect` again, then `eventfold migrate load --reread {label}`",
            )
        except ValueNotExact as error:
            if self._is_loaded(events, change, transaction.unit):
                return None  # the row was corrected before it was loaded
            self._stop("unreadable", label, str(error.fields.get("key", "")), error.what.rstrip("."), error.remedy)
        return _Read(change, events, before, after)

    def _events_of_change(self, read: _Read, transaction: Transaction, about: Circumstances) -> Iterator[NewEvent]:
        events, before, after = read.events, read.before, read.after
        if before is not None and after is not None and events.key(before) != events.key(after):
            yield from self._event(events, before, None, transaction, about)  # the key was updated
            yield from self._event(events, None, after, transaction, about)
        else:
            yield from self._event(events, before, after, transaction, about)

    def _event(
        self, events: TableEvents, before: Row | None, after: Row | None, transaction: Transaction, about: Circumstances
    ) -> Iterator[NewEvent]:
        label, key = events.label, events.key(after if after is not None else before or {})
        folded = self._folded.get(label, key)
        if self._is_known(label, folded, transaction.unit, about):
            return
        ours, completed = folded.values, folded.completed(before)
        if _same(events, completed, after):
            return  # what it leads to is what the events say
        if not _same(events, completed, before):
            self._missed(events, key, completed, before)
        event: NewEvent | None
        if after is None:
            event = None if ours is None else events.removed(ours, about)
        elif ours is None:
            event = events.opened(after, about)
        else:
            event = events.changed(ours, after, about)
        if event is not None:
            self._folded.apply(label, key, event)
            yield event

    def _truncated(self, events: TableEvents, transaction: Transaction, about: Circumstances) -> Iterator[NewEvent]:
        label = events.label
        rows = self._folded.table(label) | self._folded.known(label)
        for key in sorted(live_keys(rows)):
            folded = rows[key]
            if folded.values is not None and not self._is_known(label, folded, transaction.unit, about):
                event = events.removed(folded.values, about)
                self._folded.apply(label, key, event)
                if self._touched is not None:
                    self._touched.add((label, key))
                yield event

    def _is_known(self, label: str, folded: FoldedRow, unit: int, about: Circumstances) -> bool:
        """Whether the row has this change already: it was loaded later, or a later change of it is folded."""
        if about.mark is not None and folded.mark and folded.mark >= about.mark:
            return True
        run = max(folded.run or self._migration.floors[label], self._migration.rereads.get(label, 0))
        return self._snapshot(run).sees(unit)

    def _is_loaded(self, events: TableEvents, change: Change, unit: int) -> bool:
        """Whether the snapshots in which the rows of a change were loaded see it, by the keys alone."""
        label, nothing = events.label, Circumstances("change")
        for image in filter(None, (change.before, change.after)):
            values = {
                events.mapping.field(name): events.codec.read_value(name, image[name]) for name in events.mapping.key
            }
            if not self._is_known(label, self._folded.get(label, events.key(values)), unit, nothing):
                return False
        return True

    def _snapshot(self, run: int) -> Snapshot:
        found = self._snapshots.get(run)
        if found is None:
            found = self._snapshots[run] = Snapshot.parse(self._migration.snapshots[run])
        return found

    # Appending

    def _write(self, requests: Sequence[AppendRequest]) -> None:
        try:
            for start in range(0, len(requests), APPENDS_TOGETHER):
                part = requests[start : start + APPENDS_TOGETHER]
                for request, outcome in zip(part, run_now(append_in_order(self._log, part)), strict=True):
                    if isinstance(outcome, AppendUnconfirmed):
                        run_now(write(self._log, Options(), request))  # repeats it until its outcome is known
                    elif not isinstance(outcome, Receipt):
                        raise outcome
        except BaseException:
            self._folded.forget()  # they are ahead of the log
            raise
        self._done.events += sum(len(each.events) for each in requests)

    def _note(self, transactions: Sequence[Transaction]) -> None:
        if not transactions:
            return
        done, last = self._done, transactions[-1]
        done.point, done.at = last.point, last.at
        done.transactions += len(transactions)
        done.changes += sum(len(each.changes) for each in transactions)
        if time.monotonic() - self._noted > NOTED_S:
            self._add_noted()

    def _add_noted(self) -> None:
        done, backlog = self._done, self._recorder.backlog()
        self._ledger.add(
            Captured(
                self._ledger.name,
                done.point,
                done.transactions,
                done.changes,
                done.events,
                done.at,
                backlog.waiting,
                backlog.retained,
            )
        )
        self._done = _Done()
        self._noted = time.monotonic()

    # What stops a capture

    def _refuse_early(self, migration: Migration) -> None:
        if migration.alarms:
            alarm = migration.alarms[0]
            raise CaptureStopped(
                f"The capture was stopped: {alarm.what}.",
                f"When you know why, run `eventfold migrate load --reread {alarm.table or 'TABLES'}`, which goes on "
                "from the rows as they are now.",
                kind=alarm.kind,
                table=alarm.table,
                key=alarm.key,
            )
        if migration.capture is None:
            raise InvalidInput("No changes are recorded yet.", "Run eventfold migrate capture --install first.")
        missing = [each for each in self._plan.tables if each not in migration.floors]
        if missing or migration.is_loading:
            again = "load --reread TABLES" if migration.loaded is not None else "load"
            raise InvalidInput(
                f"{missing[0] if missing else 'A table'} is not loaded completely since recording began.",
                f"Run eventfold migrate {again} first.",
            )

    def _check_source(self) -> None:
        """Compare the definitions, and look from time to time whether everything is installed."""
        stamp = stamp_of(self._source, list(self._plan.tables.values()))
        if stamp != self._stamp:
            self._check_definitions()
            self._stamp = stamp
        if time.monotonic() - self._checked > CHECKED_S:
            self._check_installed()
            self._checked = time.monotonic()

    def _check_definitions(self) -> None:
        capture = self._migration.capture
        known: Mapping[str, str] = capture.definitions if capture is not None else {}
        now = {each.label: definition(each) for each in reflect(self._source, list(self._plan.tables)).tables}
        for label in self._plan.tables:
            if known.get(label) != now.get(label):
                self._stop(
                    "definition",
                    label,
                    "",
                    f"the definition of {label} was changed from\n{known.get(label, 'nothing')}\nto\n"
                    f"{now.get(label, 'nothing: the table is gone')}\n",
                    f"run `eventfold migrate inspect` again, then `eventfold migrate load --reread {label}`",
                )

    def _check_installed(self) -> None:
        recorder = self._recorder
        if not recorder.is_installed():
            self._stop(
                "definition",
                "",
                "",
                "something that records changes was removed or switched off in the source, so changes were missed",
                "find out who did it, run `eventfold migrate capture --install`, then `eventfold migrate load "
                "--reread` with all tables",
            )
        capture = self._migration.capture
        truncated = getattr(recorder, "truncated", None)
        if truncated is not None and capture is not None:
            for label in truncated(capture.undo):
                self._stop(
                    "truncated",
                    label,
                    "",
                    f"{label} was emptied by TRUNCATE or created again, for which no trigger fires",
                    f"run `eventfold migrate load --reread {label}`",
                )

    def _missed(self, events: TableEvents, key: str, ours: Row | None, before: Row | None) -> None:
        differing = events.differing(ours, before) if ours is not None and before is not None else []
        shown = [
            shown_row({each: row[each] for each in differing} if row is not None and differing else row)[:SHOWN_ROW]
            for row in (ours, before)
        ]
        self._stop(
            "missed",
            events.label,
            key,
            f"a change of {events.label}/{key} was missed: before the next one the source had {shown[1]}, and the "
            f"events say {shown[0]}",
            f"find the writer that bypassed the recording, then run `eventfold migrate load --reread {events.label}`",
        )

    def _bypassed(self, change: Change, transaction: Transaction) -> None:
        """Stop: changes by the reverse projection are not recorded, so that another writer made this one."""
        label, image = change.table, change.after or change.before or {}
        key = "/".join(str(image[each]) for each in self._plan.mapping.tables[label].key if each in image)
        what = (
            f"a writer passed the block of {label}: {change.operation.upper()} of {key or 'all rows'} in the "
            f"transaction {transaction.id}, which no event says"
        )
        self._stop("bypassed", label, key, what, BYPASSED.format(label))

    def _refuse_keys(self, label: str, missing: set[str], extra: set[str]) -> None:
        if not missing and not extra:
            return
        parts = [
            f"{len(keys):,} {what}: {', '.join(sorted(keys)[:NAMED_KEYS])}"
            for keys, what in ((extra, "rows were deleted without a trace"), (missing, "rows appeared without a trace"))
            if keys
        ]
        self._stop(
            "keys",
            label,
            next(iter(sorted(extra or missing))),
            f"the keys of {label} are not those of the events; {'; '.join(parts)}",
            "REPLACE, a cascade, or triggers that were off do that; stop it, then run `eventfold migrate load --reread "
            f"{label}`",
        )

    def _stop(self, kind: AlarmKind, label: str, key: str, what: str, remedy: str) -> NoReturn:
        self._ledger.add(AlarmRaised(self._ledger.name, kind, label, what[:2_000], key[:200]))
        raise CaptureStopped(
            f"The capture stopped: {what}.",
            remedy[:1].upper() + remedy[1:].rstrip(".") + ".",
            kind=kind,
            table=label,
            key=key,
        )

    def _keys(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        self._source.begin(snapshot=True)
        try:
            for label, events in self._plan.events.items():
                codec, key = events.codec, events.mapping.key
                names = ", ".join(codec.expression(each) for each in key)
                keys = found[label] = set()
                for page in self._source.pages(f"SELECT {names} FROM {codec.table.sql}"):  # noqa: S608
                    keys.update(
                        events.key(
                            {
                                events.mapping.field(name): codec.read_value(name, value)
                                for name, value in zip(key, row, strict=True)
                            }
                        )
                        for row in page
                    )
        finally:
            self._source.rollback()
        return found


def _row(events: TableEvents, image: Image | None) -> Row | None:
    """Return an image as JSON. Raises KeyError for a column that it has not, ValueNotExact."""
    return None if image is None else events.codec.read([image[each] for each in events.codec.columns])


def _same(events: TableEvents, some: Row | None, other: Row | None) -> bool:
    if some is None or other is None:
        return some is other
    return not events.codec.differing(some, other)


def _requests(events: Sequence[NewEvent]) -> list[AppendRequest]:
    """Return the appends of one transaction: one, or several that say which part of it each is."""
    if len(events) <= MAX_EVENTS_PER_APPEND:
        return [AppendRequest(tuple(events))] if events else []
    parts = [events[at : at + MAX_EVENTS_PER_APPEND] for at in range(0, len(events), MAX_EVENTS_PER_APPEND)]
    return [
        AppendRequest(tuple(_with_part(each, f"{number}/{len(parts)}") for each in part))
        for number, part in enumerate(parts, 1)
    ]


def _with_part(event: NewEvent, part: str) -> NewEvent:
    origin = msgspec.structs.replace(origin_of(event), part=part)
    return msgspec.structs.replace(event, metadata=msgspec.json.encode(origin))


async def _append(log: Log, requests: Sequence[AppendRequest], call: Call) -> list[Outcome]:
    tickets = [log.appender.enqueue(each, call) for each in requests]
    return [await log.appender.outcome(each) for each in tickets]


def append_in_order(log: Log, requests: Sequence[AppendRequest]) -> CoroutineType[Any, Any, list[Outcome]]:
    """Queue appends in their order, so that they share commits, and wait for all. To be awaited."""
    call = Call()
    return call.bind(_append(log, requests, call))
