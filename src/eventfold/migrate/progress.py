"""The progress of a migration: its steps as facts in the target store, and where it is, folded from them.

    $migration-planned            which source and tables, and the moment at which the migration began
    $migration-capture-installed  changes are recorded in the source from now on: how, and the tables' definitions
    $migration-load-started       a run of the initial load began, with its snapshot of the source
    $migration-load-advanced      how far it is
    $migration-load-done          every row of that snapshot has its events
    $migration-captured           changes became events, up to a point of the source
    $migration-alarm              something was missed, or cannot go on; `$migration-settled` ends alarms of some tables
    $migration-compared           rows and events were compared
    $migration-blocked            writers are blocked from here on, `$migration-unblocked` lifts the block
    $migration-refused            a blocked writer was refused: what, who, from where
    $migration-cut-over           tables are written by events from now on, `$migration-rolled-back` goes back
    $migration-capture-removed    what was installed in the source is removed

Each has the tag `$migration:NAME`. A command that was killed reads them and goes on.
Knows: the facts, how they fold. Does not know: sources, who writes the facts.
"""

from __future__ import annotations

import time
from typing import Any, Literal, TypeVar

from eventfold.core.event import Event, Recorded, declaration_of
from eventfold.core.query import Item, Query
from eventfold.core.state import State
from eventfold.errors import InvalidInput
from eventfold.store import Store

F = TypeVar("F", bound=Event)
Way = Literal["triggers", "decoding"]
AlarmKind = Literal["missed", "definition", "keys", "truncated", "unreadable", "slot", "bypassed"]
MAX_SHOWN = 2_000  # characters of a sentence of a fact
KEPT_ALARMS = 20


class MigrationPlanned(Event, type="$migration-planned"):
    """A migration began. `source`: its address without secrets. `began`: µs since 1970 UTC, for ids without moments.

    `key_check`: a hash by which another key of hidden columns is noticed; empty if none was given.
    """

    name: str
    source: str
    dialect: str
    tables: tuple[str, ...]
    began: int
    key_check: str = ""


class CaptureInstalled(Event, type="$migration-capture-installed"):
    """Changes of these tables are recorded in the source.

    `definitions`: each table's definition, as text, at that moment. `undo`: what must be set back when it is removed,
    by table. `floor`: from which point of the source changes are recorded.
    """

    name: str
    way: Way
    definitions: dict[str, str]
    undo: dict[str, str] = {}
    floor: str = ""


class LoadStarted(Event, type="$migration-load-started"):
    """A run of the load began. `snapshot`: what it sees of the recorded changes; see Snapshot. `rows`: about how many.

    `tables`: empty means all. `because`: of a load that reads tables again: why.
    """

    name: str
    run: int
    snapshot: str
    rows: int
    tables: tuple[str, ...] = ()
    because: str = ""


class LoadAdvanced(Event, type="$migration-load-advanced"):
    """How many rows have their events, in this run; `seconds` since it began."""

    name: str
    run: int
    rows: int
    events: int
    seconds: float


class LoadDone(Event, type="$migration-load-done"):
    """A run of the load is complete. `found`: rows whose events were there. `rows`: rows of the snapshot, by table."""

    name: str
    run: int
    rows: dict[str, int]
    events: int
    found: int
    seconds: float


class Captured(Event, type="$migration-captured"):
    """Changes became events. Numbers since the last such fact. `at`: when the last change was made, µs since 1970 UTC.

    `waiting`: how many changes were recorded and not yet read; `retained`: bytes that the source keeps for us.
    """

    name: str
    point: str
    transactions: int
    changes: int
    events: int
    at: int | None = None
    waiting: int = 0
    retained: int = 0


class AlarmRaised(Event, type="$migration-alarm"):
    """Capture stopped. `kind`: "missed" (a before-image is not what was folded), "definition" (DDL), "keys", …"""

    name: str
    kind: AlarmKind
    table: str
    what: str
    key: str = ""


class AlarmsSettled(Event, type="$migration-settled"):
    """The alarms of these tables are settled: their rows were read again, `because` says why that is right."""

    name: str
    tables: tuple[str, ...]
    because: str


class Compared(Event, type="$migration-compared"):
    """Rows of the source and folded events were compared at one point. `tables`: empty means all."""

    name: str
    equal: bool
    rows: int
    differing: int
    verdict: str
    position: int = 0
    point: str = ""
    tables: tuple[str, ...] = ()


class WritersBlocked(Event, type="$migration-blocked"):
    """Other writers of these tables are refused: written before the block is made, so that it is never forgotten."""

    name: str
    tables: tuple[str, ...]


class WriterRefused(Event, type="$migration-refused"):
    """A writer was refused, `count` times since the last such fact. `number`: of the last refusal in the source.

    `at`: of the last one, µs since 1970 UTC. Empty texts: the database does not say. Without a table: refusals whose
    origin was not kept.
    """

    name: str
    number: int
    count: int
    at: int = 0
    table: str = ""
    operation: str = ""
    application: str = ""
    user: str = ""
    address: str = ""
    process: str = ""


class WritersUnblocked(Event, type="$migration-unblocked"):
    """The block is lifted."""

    name: str
    tables: tuple[str, ...]


class CutOver(Event, type="$migration-cut-over"):
    """These tables follow the events from now on: decisions write events, a reverse projection writes the rows."""

    name: str
    tables: tuple[str, ...]
    position: int


class RolledBack(Event, type="$migration-rolled-back"):
    """The old application writes these tables again, and capture follows it."""

    name: str
    tables: tuple[str, ...]
    position: int


class CaptureRemoved(Event, type="$migration-capture-removed"):
    """What was installed in the source is removed: triggers, functions, the slot, the publication."""

    name: str


Fact = (
    MigrationPlanned
    | CaptureInstalled
    | LoadStarted
    | LoadAdvanced
    | LoadDone
    | Captured
    | AlarmRaised
    | AlarmsSettled
    | Compared
    | WritersBlocked
    | WriterRefused
    | WritersUnblocked
    | CutOver
    | RolledBack
    | CaptureRemoved
)
FACTS: tuple[type[Event], ...] = (
    MigrationPlanned,
    CaptureInstalled,
    LoadStarted,
    LoadAdvanced,
    LoadDone,
    Captured,
    AlarmRaised,
    AlarmsSettled,
    Compared,
    WritersBlocked,
    WriterRefused,
    WritersUnblocked,
    CutOver,
    RolledBack,
    CaptureRemoved,
)
TYPES = tuple(declaration_of(each).type for each in FACTS)


def migration_tag(name: str) -> str:
    """Return the tag of the facts of a migration."""
    return f"$migration:{name}"


class Migration(State):
    """Where a migration is. `blocked`, `moved`: tables whose writers are blocked, and that were cut over.

    `refused`: by origin, the last refusal; `refusals`: how many; `refusals_read`: the number of the last one.

    `snapshots`: by the number of a run, what it saw; `floors`: by table, the last complete run; `rereads`: by table,
    the last complete run that read it again. `generation`: how often recording began; its numbers begin again then.
    """

    name: str
    planned: MigrationPlanned | None = None
    capture: CaptureInstalled | None = None
    load: LoadStarted | None = None
    advanced: LoadAdvanced | None = None
    loaded: LoadDone | None = None
    snapshots: dict[int, str] = {}
    floors: dict[str, int] = {}
    rereads: dict[str, int] = {}
    generation: int = 1
    captured: Captured | None = None
    events_captured: int = 0
    alarms: list[AlarmRaised] = []
    compared: Compared | None = None
    blocked: list[str] = []
    moved: list[str] = []
    cut_over: CutOver | None = None
    rolled_back: RolledBack | None = None
    refused: dict[str, WriterRefused] = {}
    refusals: dict[str, int] = {}
    refusals_read: int = 0

    def query(self) -> Query:
        """Return the query for the facts of this migration."""
        return Query((Item(TYPES, (migration_tag(self.name),)),))

    def evolve(self, event: Fact, recorded: Recorded[Any]) -> None:
        """Apply a fact."""
        match event:
            case MigrationPlanned():
                self.planned = event
            case CaptureInstalled():
                self.capture = event
            case CaptureRemoved():
                self.capture = None
                self.generation += 1
                self.floors, self.rereads = {}, {}
            case LoadStarted() | LoadAdvanced() | LoadDone():
                self._evolve_load(event)
            case Captured():
                self.captured = event
                self.events_captured += event.events
            case AlarmRaised():
                self.alarms = [*self.alarms, event][-KEPT_ALARMS:]
            case AlarmsSettled():
                self.alarms = [each for each in self.alarms if each.table not in event.tables]
            case Compared():
                self.compared = event
            case WritersBlocked():
                self.blocked = sorted({*self.blocked, *event.tables})
            case WriterRefused():
                self._evolve_refused(event)
            case WritersUnblocked():
                self.blocked = sorted({*self.blocked} - {*event.tables})
                if not self.blocked:  # the source counts from the beginning the next time
                    self.refusals_read = 0
            case CutOver():
                self.cut_over = event
                self.moved = sorted({*self.moved, *event.tables})
            case RolledBack():
                self.rolled_back = event
                self.moved = sorted({*self.moved} - {*event.tables})

    def _evolve_load(self, event: LoadStarted | LoadAdvanced | LoadDone) -> None:
        if isinstance(event, LoadStarted):
            self.load, self.advanced = event, None
            self.snapshots[event.run] = event.snapshot
        elif isinstance(event, LoadAdvanced):
            self.advanced = event
        else:
            self.loaded, self.advanced = event, None
            self.floors.update(dict.fromkeys(event.rows, event.run))
            if self.load is not None and self.load.run == event.run and self.load.because:
                self.rereads.update(dict.fromkeys(event.rows, event.run))

    def _evolve_refused(self, event: WriterRefused) -> None:
        self.refusals_read = event.number
        origin = "\x1f".join((event.table, event.operation, event.application, event.user, event.address))
        self.refused[origin] = event
        self.refusals[origin] = self.refusals.get(origin, 0) + event.count

    @property
    def refusals_by_origin(self) -> list[tuple[WriterRefused, int]]:
        """For each origin the last refusal, and how many there were, the most first."""
        return sorted(
            ((last, self.refusals[origin]) for origin, last in self.refused.items()), key=lambda pair: -pair[1]
        )

    @property
    def is_loading(self) -> bool:
        """Whether a run of the load began, and did not end."""
        return self.load is not None and (self.loaded is None or self.loaded.run != self.load.run)

    @property
    def phase(self) -> str:
        """In one word or two what the migration does now."""
        if self.alarms:
            return "stopped"
        if self.moved:
            tables = len(self.planned.tables) if self.planned is not None else 0
            return "cut over" if len(self.moved) >= tables else f"cut over ({len(self.moved)} of {tables} tables)"
        if self.blocked:
            return "blocked"
        if self.is_loading:
            return "loading"
        if self.loaded is not None:
            return "capturing" if self.capture is not None else "loaded"
        return "recording" if self.capture is not None else "planned" if self.planned is not None else "new"


class Ledger:
    """The facts of one migration in a store: reads where it is, and appends what was done."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name

    def read(self) -> Migration:
        """Return where the migration is."""
        return self.store.state(Migration(self.name))

    def add(self, fact: Event) -> None:
        """Append a fact."""
        self.store.projections.append_fact(declaration_of(type(fact)).type, migration_tag(self.name), fact)

    def begin(self, source: str, dialect: str, tables: tuple[str, ...], key_check: str = "") -> Migration:
        """Return where the migration is; a new one is planned first.

        Raises InvalidInput if it has another source, or another key of hidden columns.
        """
        found = self.read()
        if found.planned is None:
            self.add(MigrationPlanned(self.name, source, dialect, tables, time.time_ns() // 1_000, key_check))
            return self.read()
        if found.planned.dialect != dialect:
            raise InvalidInput(
                f"The migration {self.name} in this store is of {found.planned.source} ({found.planned.dialect}).",
                "Name that source, or begin another migration with --name.",
            )
        if key_check and found.planned.key_check not in ("", key_check):
            raise InvalidInput(
                f"The key of hidden columns is not the one with which the migration {self.name} began.",
                "Bring the first key back: with another one every hidden value would seem to have changed.",
            )
        return found
