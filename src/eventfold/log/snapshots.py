"""Loading and saving snapshots of folded states.

A snapshot is used only if the code that folded it is unchanged and the log still has the events that it was folded
from. A snapshot that cannot be saved is not an error.
Knows: the service `snapshots`, fingerprints. Does not know: where an engine stores snapshots.
"""

from __future__ import annotations

from typing import TypeVar

from eventfold.core.fingerprint import fingerprint, report_unknown
from eventfold.core.snapshot import Snapshot, pack, snapshot_key, unpack
from eventfold.core.state import State
from eventfold.errors import StoreUnavailable
from eventfold.log.context import Log

S = TypeVar("S", bound=State)


async def load_snapshot(log: Log, question: S, until: int | None) -> tuple[S, int] | None:
    """Return the snapshot of a question and its position; None if there is no valid one at or before `until`."""
    snapshots = log.engine.services.snapshots if log.cache.snapshots else None
    key = snapshot_key(question) if snapshots is not None else None
    if snapshots is None or key is None:
        return None
    code = fingerprint(type(question))
    if code.unknown:
        return None
    snapshot = await snapshots.get(key)
    if snapshot is None or snapshot.fingerprint != code.digest:
        return None
    if until is not None and snapshot.position > until:
        return None
    if await log.engine.event_id(snapshot.position) != snapshot.event_id:
        return None
    state = unpack(type(question), snapshot.state)
    return None if state is None else (state, snapshot.position)


def is_snapshot_due(log: Log, key: object, folded: int) -> bool:
    """Whether enough events were folded into a state since its last snapshot. `folded`: since the last call."""
    return log.cache.snapshots > 0 and log.cache.count_folded(key, folded) >= log.cache.snapshots


async def save_snapshot(log: Log, question: State, state: State, position: int, epoch: int) -> bool:
    """Save a snapshot of a state that was folded in `epoch`. Returns whether it was saved.

    It is not saved if the engine has no snapshots, if the store cannot be written to, or if the store is in another
    epoch: another event may be at `position` there.
    """
    snapshots = log.engine.services.snapshots
    if snapshots is None:
        return False
    code = fingerprint(type(question))
    if code.unknown:
        report_unknown(type(question).__name__, code, "No snapshots of it are saved: it is folded from its events.")
        return False
    key, packed = snapshot_key(question), pack(state)
    event_id = await log.engine.event_id(position)
    if key is None or packed is None or event_id is None or log.engine.epoch != epoch:
        return False
    try:
        await snapshots.put(key, Snapshot(code.digest, position, event_id, packed))
    except StoreUnavailable:  # read-only, full or busy: the state itself is not affected
        return False
    return True
