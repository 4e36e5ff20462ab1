"""A migration as a command uses it: the store's ledger, the plan, a connection to the source, and its recorder.

Knows: how these are made from an address and a mapping. Does not know: commands, their parameters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from eventfold.core.query import Cursor, Item, Query
from eventfold.errors import InvalidInput, StoreBusy
from eventfold.migrate.capture import Capture
from eventfold.migrate.compare import PATIENCE_S, SHOWN, Comparer
from eventfold.migrate.comparison import Comparison
from eventfold.migrate.connection import Connection, opened, shown
from eventfold.migrate.load import Loaded, Loader, Progress
from eventfold.migrate.mapping import Mapping
from eventfold.migrate.moved import MovedTables
from eventfold.migrate.plan import Plan, plan_of
from eventfold.migrate.progress import (
    TYPES,
    CaptureInstalled,
    CaptureRemoved,
    Ledger,
    Migration,
    Way,
    migration_tag,
)
from eventfold.migrate.reflection import Schema, Table, reflect
from eventfold.migrate.reverse import TABLE as REVERSE_TABLE
from eventfold.migrate.sources.changes import Snapshot
from eventfold.migrate.sources.source import Recorder
from eventfold.migrate.table_codec import Hide
from eventfold.store import Store

NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
DEFAULT_NAME = "migration"
KEY_CHECK = "eventfold: the key of hidden columns"  # the domain of a value that is hidden to know the key again
NOTHING_RECORDED = Snapshot(0, 0)
OWN_TABLE = re.compile(r"eventfold_([a-z0-9_]+([_.]change|_read|_writer|_refused)|reverse)")  # made in a source


class Session:
    """One migration, opened. `address`: of the source, whose writers are recorded; `replica`: where rows are read."""

    def __init__(
        self,
        store: Store,
        mapping: Mapping,
        address: str,
        source: Connection,
        *,
        name: str = DEFAULT_NAME,
        hide: Hide | None = None,
        replica: Connection | None = None,
    ) -> None:
        if not NAME.fullmatch(name):
            raise InvalidInput(
                f"{name!r} cannot be the name of a migration.", "Use a-z, 0-9 and _, at most 31 characters."
            )
        self.store, self.name, self._address, self.source = store, name, address, source
        self._replica = replica
        self.ledger = Ledger(store, name)
        check = "" if hide is None else hide(KEY_CHECK, "")
        planned = self.ledger.begin(shown(address), mapping.dialect, tuple(mapping.migrated), check).planned
        assert planned is not None
        self.plan: Plan = plan_of(mapping, application_schema(source), name, planned.began, hide)

    @contextmanager
    def alone(self) -> Generator[None]:
        """Refuse another command of this migration meanwhile. Raises StoreBusy, which names its process."""
        with self.store.lock(Query((Item(TYPES, (migration_tag(self.name),)),)), timeout=1.0):
            yield

    def state(self) -> Migration:
        """Return where the migration is."""
        return self.ledger.read()

    @contextmanager
    def recorder(self, way: Way | None = None) -> Generator[Recorder]:
        """Open the recorder: that which is installed, else of the way that is named, else the source's default."""
        installed = self.state().capture
        if installed is not None:
            way = installed.way
        found = recorder_of(self._address, self.plan.schema.dialect, self.name, list(self.plan.tables.values()), way)
        try:
            yield found
        finally:
            found.close()

    def install(self, way: Way | None = None) -> CaptureInstalled:
        """Begin to record changes in the source; what is missing is added to what is there."""
        with self.recorder(way) as recorder:
            recorder.refuse()
            known = self.state().capture
            undo = recorder.install() | (known.undo if known is not None and recorder.way == "decoding" else {})
            fact = CaptureInstalled(self.name, recorder.way, self.plan.definitions(), undo)
            if known is None or msgspec.to_builtins(known) != msgspec.to_builtins(fact):
                self.ledger.add(fact)
            return fact

    def remove(self) -> None:
        """Remove everything from the source that `install` made, also after an install that was interrupted."""
        state = self.state()
        if state.blocked or state.moved:
            raise InvalidInput(
                f"{(state.moved or state.blocked)[0]} is cut over, or its writers are blocked.",
                "Run eventfold migrate rollback first.",
            )
        installed = state.capture
        with self.recorder() as recorder:
            recorder.remove(installed.undo if installed is not None else {})
        if installed is not None:
            self.ledger.add(CaptureRemoved(self.name))

    def load(
        self,
        *,
        recorded: bool = True,
        max_rate: float | None = None,
        progress: Callable[[Progress], None] = lambda _progress: None,
        folder: Path | None = None,
    ) -> Loaded:
        """Load everything, or go on. `recorded`: whether changes have to be recorded; without, no client may write."""
        state = self.state()
        if recorded and state.capture is None:
            raise InvalidInput(
                "Changes of the source are not recorded, so those made during the load would be missed.",
                "Run eventfold migrate capture --install first; or add --no-capture if no client writes to the source.",
            )
        if state.loaded is not None and not state.is_loading and (state.floors or state.capture is None):
            raise InvalidInput(
                "Everything is loaded.", "To read tables again, name them: --reread TABLE --because REASON."
            )
        if state.loaded is not None and not state.is_loading:
            raise InvalidInput(
                "Recording was begun again after the load, so changes in between are not known.",
                "Read all tables again: --reread with each table, --because REASON.",
            )
        with self._loader(max_rate, progress, folder) as loader:
            return loader.load(state)

    def dry_run(
        self, max_rate: float | None = None, progress: Callable[[Progress], None] = lambda _progress: None
    ) -> Loaded:
        """Read every row and make its events, without appending them."""
        connection = self._replica or self.source
        loader = Loader(
            self.ledger, self.plan, connection, lambda _: NOTHING_RECORDED, max_rate=max_rate, progress=progress
        )
        return loader.dry_run()

    def reread(
        self,
        labels: Sequence[str],
        because: str,
        *,
        max_rate: float | None = None,
        progress: Callable[[Progress], None] = lambda _progress: None,
    ) -> Loaded:
        """Read tables again, after changes were missed or a definition was changed. Settles their alarms."""
        if not because.strip():
            raise InvalidInput("No reason was given.", "Add --because REASON: it is kept beside the events.")
        if moved := [each for each in labels or self.plan.tables if each in self.state().moved]:
            raise InvalidInput(
                f"{moved[0]} is cut over: its rows follow the events, and may be behind them.",
                f"To take its rows into the events, run eventfold migrate rollback --only {moved[0]} --because REASON.",
            )
        return self.take_rows(labels, because, max_rate=max_rate, progress=progress)

    def take_rows(
        self,
        labels: Sequence[str],
        because: str,
        *,
        max_rate: float | None = None,
        progress: Callable[[Progress], None] = lambda _progress: None,
    ) -> Loaded:
        """Read tables again, also those that are cut over, whose rows must not be behind the events then."""
        if self.state().capture is not None:
            self.install()
        with self._loader(max_rate, progress, None) as loader:
            return loader.reread(self.state(), labels or list(self.plan.tables), because)

    @contextmanager
    def moved(self, labels: Sequence[str], recorder: Recorder) -> Generator[MovedTables]:
        """Open tables that are cut over, or about to be, for writing."""
        with opened(self._address, readonly=False) as connection:
            yield MovedTables(self.ledger, self.plan, labels, connection, recorder)

    @contextmanager
    def capture(self, passed_over: Sequence[str] = ()) -> Generator[Capture]:
        """Open the capture of recorded changes. Raises CaptureStopped if an alarm is not settled."""
        with self.recorder() as recorder:
            capture = Capture(self.ledger, self.plan, self.source, recorder, passed_over)
            try:
                yield capture
            finally:
                capture.close()

    def compare(
        self,
        labels: Collection[str] = (),
        *,
        catch_up: Callable[[], None] | None = None,
        patience: float = PATIENCE_S,
        max_rate: float | None = None,
        progress: Callable[[Progress], None] = lambda _progress: None,
        folder: Path | None = None,
        shown: int = SHOWN,
    ) -> Comparison:
        """Compare every row and column of some tables, by default of all, with their events, and record the result.

        `catch_up` captures what waits in the source; by default it is captured here, unless another process captures.
        """
        reading = self._replica or self.source

        def compared(recorder: Recorder | None) -> Comparison:
            return Comparer(
                self.ledger,
                self.plan,
                reading,
                recorder,
                catch_up or self._capture_waiting,
                labels=labels,
                reverse=self._reverse_position,
                patience=patience,
                max_rate=max_rate,
                progress=progress,
                folder=folder,
                shown=shown,
            ).compare()

        if self.state().capture is None:
            return compared(None)
        with self.recorder() as recorder:
            return compared(recorder)

    def _capture_waiting(self) -> None:
        """Capture what waits; another process that captures does so itself."""
        try:
            with self.alone(), self.capture() as capture:
                capture.drain()
        except StoreBusy:
            return

    def _reverse_position(self, reading: Connection) -> int | None:
        """Return up to where the tables follow the log, as a snapshot of the source shows it."""
        if not self.state().moved:
            return None
        found = reading.rows(
            f"SELECT progress FROM {REVERSE_TABLE} WHERE name = {reading.mark}",  # noqa: S608 - constants
            [self.name],
        )
        return self.store.verify(Cursor.parse(str(found[0][0]))) if found else None

    @contextmanager
    def _loader(
        self, max_rate: float | None, progress: Callable[[Progress], None], folder: Path | None
    ) -> Generator[Loader]:
        connection = self._replica or self.source
        if self.state().capture is None:
            yield Loader(
                self.ledger,
                self.plan,
                connection,
                lambda _: NOTHING_RECORDED,
                max_rate=max_rate,
                progress=progress,
                folder=folder,
            )
            return
        with self.recorder() as recorder:
            yield Loader(
                self.ledger,
                self.plan,
                connection,
                recorder.snapshot,
                max_rate=max_rate,
                progress=progress,
                folder=folder,
            )


@contextmanager
def open_session(
    store: Store,
    mapping: Mapping,
    address: str,
    *,
    name: str = DEFAULT_NAME,
    hide: Hide | None = None,
    replica: str | None = None,
) -> Generator[Session]:
    """Open a migration for the block. Raises InvalidInput, MappingIncomplete, SourceUnavailable, MissingExtra."""
    with opened(address) as source:
        if source.dialect != mapping.dialect and {source.dialect, mapping.dialect} != {"mysql", "mariadb"}:
            raise InvalidInput(
                f"{source.address} is {source.dialect}, and the mapping is of {mapping.dialect}.",
                "Give the source that was inspected.",
            )
        if replica is None:
            yield Session(store, mapping, address, source, name=name, hide=hide)
            return
        with opened(replica) as reader:
            yield Session(store, mapping, address, source, name=name, hide=hide, replica=reader)


def application_schema(source: Connection) -> Schema:
    """Return the schema of a source without the tables in which changes are recorded."""
    found = reflect(source)
    return msgspec.structs.replace(
        found, tables=tuple(each for each in found.tables if not OWN_TABLE.fullmatch(each.label))
    )


def recorder_of(address: str, dialect: str, name: str, tables: Sequence[Table], way: Way | None) -> Recorder:
    """Return the recorder of a source. Raises InvalidInput for a way that its database has not."""
    if way == "decoding" and dialect != "postgresql":
        raise InvalidInput(f"Decoding is not there on {dialect}.", "Capture by triggers.")
    if dialect == "sqlite":
        from eventfold.migrate.sources.sqlite_triggers import SqliteTriggers

        return SqliteTriggers(address, name, tables)
    if dialect == "postgresql" and way == "decoding":
        from eventfold.migrate.sources.postgres_decoding import PostgresDecoding

        return PostgresDecoding(address, name, tables)
    if dialect == "postgresql":
        from eventfold.migrate.sources.postgres_triggers import PostgresTriggers

        return PostgresTriggers(address, name, tables)
    from eventfold.migrate.sources.mariadb_triggers import MariadbTriggers

    return MariadbTriggers(address, name, tables)
