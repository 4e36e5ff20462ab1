"""Rollback: the old application writes its tables again, and nothing of what was decided since is lost.

    write what was decided into the rows · compare · roll back · lift the block

The new application must have stopped deciding: an event that it writes meanwhile is found, and the tables are blocked
again. What the old application writes from then on is captured as before the cutover.
Knows: the order of steps. Does not know: SQL, how rows are compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from eventfold.errors import InvalidInput, MigrationError
from eventfold.migrate.cutover import Switched, Tell, capture_waiting
from eventfold.migrate.moved import MovedTables
from eventfold.migrate.progress import AlarmsSettled, CutOver, RolledBack, WritersBlocked, WritersUnblocked
from eventfold.migrate.session import Session


def roll_back(session: Session, labels: Sequence[str], because: str = "", tell: Tell = lambda _text: None) -> Switched:
    """Roll tables back, lift a block, or go on where that was killed.

    `because`: rows that differ from the events are taken into the events, for this reason; without one they stop the
    rollback, and the tables stay cut over. Raises MigrationError, InvalidInput, CaptureStopped, SourceUnavailable.
    """
    state = session.state()
    moved_labels = [each for each in labels if each in state.moved]
    blocked = [each for each in labels if each in state.blocked or each in moved_labels]
    if not blocked:
        raise InvalidInput(
            "None of these tables is blocked or cut over.", "See where the migration is: eventfold migrate status."
        )
    began, rows = time.monotonic(), 0
    with session.recorder() as recorder, session.moved(state.moved or blocked, recorder) as moved:
        if moved_labels:
            tell("writing what was decided into the tables")
            position = moved.catch_up().position
            _refuse_deciding(moved, moved_labels, position, lambda: None)
            rows = _compare(session, moved_labels, because, tell)
            _refuse_deciding(moved, moved_labels, position, lambda: None)
            session.ledger.add(RolledBack(session.name, tuple(moved_labels), position))
        elif state.rolled_back is not None:
            position = state.rolled_back.position
        else:
            position = session.store.head()
        refused = moved.record_refusals()
        tell("lifting the block")
        moved.block.remove([session.plan.tables[each] for each in blocked])
        if moved_labels:
            again = partial(_block_again, session, moved, moved_labels, position)
            _refuse_deciding(moved, moved_labels, position, again)
        session.ledger.add(WritersUnblocked(session.name, tuple(blocked)))
        if not session.state().moved:
            moved.projection.remove()
    return Switched(tuple(blocked), rows, position, round(time.monotonic() - began, 3), refused)


def _compare(session: Session, labels: Sequence[str], because: str, tell: Tell) -> int:
    """Compare the tables, or read them again if a reason is given. Returns how many rows they have."""
    if because:
        tell("reading the tables again")
        done = session.take_rows(labels, because)
        session.ledger.add(AlarmsSettled(session.name, tuple(labels), because))
        return sum(done.rows.values())
    tell("comparing")
    found = session.compare(labels, catch_up=lambda: capture_waiting(session))
    if not found.equal:
        raise MigrationError(
            f"Rows and events are not equal: {found.verdict}; the tables stay cut over.",
            "See the differences with eventfold migrate compare. With --because REASON the rollback takes the rows as "
            "they are into the events.",
            source=session.source.address,
        )
    return found.rows


def _refuse_deciding(moved: MovedTables, labels: Sequence[str], position: int, undo: Callable[[], None]) -> None:
    """Raise MigrationError if decisions wrote events of these tables behind a position, after `undo`."""
    found = moved.decided_after(position, labels)
    if not found:
        return
    undo()
    named = ", ".join(f"{count} {name}" for name, count in found.most_common(5))
    raise MigrationError(
        f"The new application still writes events: {named}; the tables stay cut over.",
        "Stop it, and run eventfold migrate rollback again.",
        source=labels[0],
    )


def _block_again(session: Session, moved: MovedTables, labels: Sequence[str], position: int) -> None:
    session.ledger.add(WritersBlocked(session.name, tuple(labels)))
    session.ledger.add(CutOver(session.name, tuple(labels), position))
    moved.block.install([session.plan.tables[each] for each in labels])
