"""Cutover: the writers of some tables are blocked, what they did is captured and compared, and the events lead.

    capture what waits · block writers · capture the rest · compare · install the reverse projection · cut over

Each step is a fact, and may be repeated: a command that was killed is run again. If something differs, or fails, the
block is lifted, and the old application writes on as before. A table is cut over with its parts.
Knows: the order of steps. Does not know: SQL, how rows are compared, who decides afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from eventfold.errors import InvalidInput, MigrationError
from eventfold.migrate.comparison import Comparison
from eventfold.migrate.moved import MovedTables
from eventfold.migrate.progress import (
    AlarmsSettled,
    CutOver,
    LoadDone,
    LoadStarted,
    Migration,
    WritersBlocked,
    WritersUnblocked,
)
from eventfold.migrate.reverse_rows import obstacles
from eventfold.migrate.session import Session
from eventfold.migrate.sources.source import Recorder

Tell = Callable[[str], None]


class Switched(msgspec.Struct, frozen=True):
    """What a cutover or a rollback did. `blocked_s`: how long no side could write; `position`: of the store."""

    tables: tuple[str, ...]
    rows: int
    position: int
    blocked_s: float
    refused: int = 0


def check_cutover(session: Session, labels: Sequence[str]) -> None:
    """Raise what would stop a cutover of these tables, without changing anything.

    Raises InvalidInput if a step is missing or rows could not be written back, SourceUnavailable for missing rights.
    """
    with session.recorder() as recorder, session.moved(labels, recorder) as moved:
        _refuse_early(session, labels, moved)


def _refuse_early(session: Session, labels: Sequence[str], moved: MovedTables) -> None:
    state = session.state()
    if state.capture is None or state.loaded is None or state.is_loading:
        raise InvalidInput(
            "A cutover needs every table loaded and its changes captured.",
            "Run eventfold migrate capture --install, load, and capture first.",
        )
    if found := obstacles(session.plan.only(labels)):
        raise InvalidInput(
            f"New rows could not be written back: {'; '.join(found[:10])}.",
            "Keep the column, or give it a default in the source.",
            obstacles=found,
        )
    moved.block.refuse([session.plan.tables[each] for each in labels])


def cut_over(session: Session, labels: Sequence[str], tell: Tell = lambda _text: None) -> Switched:
    """Cut tables over, or go on where a cutover was killed. `labels`: with their parts, in the order of loading.

    Raises MigrationError if rows and events differ, after the block was lifted; CaptureStopped, SourceUnavailable.
    """
    state = session.state()
    again = [each for each in labels if each in state.moved]
    if again and len(again) < len(labels):
        raise InvalidInput(
            f"{again[0]} is cut over already.",
            f"Name the others: {', '.join(each for each in labels if each not in again)}.",
        )
    with session.recorder() as recorder, session.moved([*state.moved, *labels], recorder) as moved:
        _refuse_early(session, labels, moved)
        if again:
            return _confirm(session, labels, moved, recorder)
        tell("capturing what waits")
        capture_waiting(session)
        tell("blocking writers")
        session.ledger.add(WritersBlocked(session.name, tuple(labels)))
        began = time.monotonic()
        try:
            moved.block.install([session.plan.tables[each] for each in labels])
            tell("comparing")
            found = _compare_equal(session, recorder, labels, "they are not cut over, and their block is lifted")
            tell("switching")
            position = session.store.head()
            moved.projection.install(position)
        except BaseException:
            _lift(session, labels, moved)
            raise
        session.ledger.add(CutOver(session.name, tuple(labels), position))
        return Switched(tuple(labels), found.rows, position, round(time.monotonic() - began, 3))


def _confirm(session: Session, labels: Sequence[str], moved: MovedTables, recorder: Recorder) -> Switched:
    """Block and compare tables again that are cut over: a writer passed the block, and its rows were corrected."""
    state, began = session.state(), time.monotonic()
    alarms = [each for each in state.alarms if each.table in labels]
    moved.block.install([session.plan.tables[each] for each in labels])
    moved.catch_up()
    if alarms:
        session.ledger.add(AlarmsSettled(session.name, tuple(labels), "the tables are compared again"))
    try:
        found = _compare_equal(session, recorder, labels, "what a writer past the block wrote is not in the events")
    except MigrationError:
        for each in alarms:
            session.ledger.add(each)
        raise
    return Switched(tuple(labels), found.rows, session.store.head(), round(time.monotonic() - began, 3))


def _compare_equal(session: Session, recorder: Recorder, labels: Sequence[str], otherwise: str) -> Comparison:
    """Compare tables, and record that what the source shows is known. Raises MigrationError if they differ."""
    session.source.begin(snapshot=True)
    try:
        snapshot = str(recorder.snapshot(session.source))
    finally:
        session.source.rollback()
    confirmed = [each for each in labels if each in session.state().moved]
    found = session.compare(labels, catch_up=lambda: capture_waiting(session, confirmed))
    if not found.equal:
        raise MigrationError(
            f"Rows and events are not equal: {found.verdict}; {otherwise}.",
            "See the differences with eventfold migrate compare. Rows are taken into the events by `eventfold migrate "
            "load --reread TABLE --because REASON`, those of tables that are cut over by `eventfold migrate rollback "
            "--because REASON`.",
            source=session.source.address,
        )
    note_known(session, labels, snapshot, found, "every row was compared for the cutover")
    return found


def note_known(session: Session, labels: Sequence[str], snapshot: str, found: Comparison, because: str) -> None:
    """Record that the events have all that a snapshot shows of these tables, as after reading them again.

    So recorded changes that it shows are left out, also those whose acknowledgement was lost.
    """
    run = 1 + max(session.state().snapshots, default=0)
    counts = {label: found.tables[label].rows for label in labels}
    session.ledger.add(LoadStarted(session.name, run, snapshot, found.rows, tuple(labels), because))
    session.ledger.add(LoadDone(session.name, run, counts, 0, found.rows, 0.0))


def capture_waiting(session: Session, passed_over: Sequence[str] = ()) -> None:
    """Capture what waits in the source; of some tables, whose rows are compared, nothing."""
    with session.capture(passed_over) as capture:
        capture.drain()


def _lift(session: Session, labels: Sequence[str], moved: MovedTables) -> None:
    moved.block.remove([session.plan.tables[each] for each in labels])
    session.ledger.add(WritersUnblocked(session.name, tuple(labels)))


def labels_of(session: Session, only: Sequence[str], chosen: Callable[[Migration], Sequence[str]]) -> list[str]:
    """Return the tables that are named, with their parts, or those that `chosen` gives. Raises InvalidInput."""
    if only:
        return session.plan.with_parts(only)
    wanted = set(chosen(session.state()))
    return [each for each in session.plan.tables if each in wanted]
