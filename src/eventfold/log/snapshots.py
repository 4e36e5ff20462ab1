"""Using snapshots: believed only if the fold's code is the same and the log still holds what was folded.

Knows: the port, fingerprints. Does not know: where an engine keeps them. Failing to keep one is no failure.
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
    """The snapshot of a question and its position, if there is one that may be believed and is not too late."""
    snapshots = log.engine.services.snapshots if log.cache.snapshots else None
    key = snapshot_key(question) if snapshots is not None else None
    if snapshots is None or key is None:
        return None
    code = fingerprint(type(question))
    if code.unknown:
        return None
    found = await snapshots.get(key)
    if found is None or found.fingerprint != code.digest:
        return None
    if until is not None and found.position > until:
        return None
    if await log.engine.event_id(found.position) != found.event_id:
        return None
    state = unpack(type(question), found.state)
    return None if state is None else (state, found.position)


def is_snapshot_due(log: Log, key: object, folded: int) -> bool:
    """Whether enough events were folded into a state, these included, since its last snapshot."""
    return log.cache.snapshots > 0 and log.cache.count_folded(key, folded) >= log.cache.snapshots


async def save_snapshot(log: Log, question: State, state: State, position: int, epoch: int) -> bool:
    """Keep a snapshot of a state folded in an epoch; whether one was kept.

    None is kept by an engine without snapshots, in a store that cannot be written to, or in one that has come to
    another epoch: at that position another
    event may stand by now.
    """
    snapshots = log.engine.services.snapshots
    if snapshots is None:
        return False
    code = fingerprint(type(question))
    if code.unknown:
        report_unknown(type(question).__name__, code, "No snapshots of it are kept: it is folded from its events.")
        return False
    key, packed = snapshot_key(question), pack(state)
    event_id = await log.engine.event_id(position)
    if key is None or packed is None or event_id is None or log.engine.epoch != epoch:
        return False
    try:
        await snapshots.put(key, Snapshot(code.digest, position, event_id, packed))
    except StoreUnavailable:  # read-only, full or busy: the state was folded all the same
        return False
    return True
