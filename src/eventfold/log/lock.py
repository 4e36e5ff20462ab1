"""Advisory locks on queries: for decisions that would often meet conflicts, or are too expensive to be repeated.

A lock excludes only callers that also acquire it. Consistency still comes from the append condition: a decision without
the lock may meet a conflict, or cause one for the lock's holder.
Knows: the service `locks`. Does not know: clocks; it adds up its own pauses.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import CoroutineType
from typing import Any

from eventfold.concurrency.calls import Call
from eventfold.core.query import Item, Query
from eventfold.core.tags import in_utc
from eventfold.errors import InvalidInput, StoreBusy
from eventfold.log.append import Asked, query_of
from eventfold.log.context import Log
from eventfold.log.lock_holders import LockSet
from eventfold.ports.services import require

PAUSES_S = (0.001, 0.002, 0.005, 0.01)  # between attempts, on average; then the last one again


def names_of(queries: Sequence[Asked]) -> list[str]:
    """Return the lock name of each query. All callers acquire them in this order, so that no deadlock is possible."""
    if not queries:
        raise InvalidInput("A lock was requested without a query.", 'Name what to lock: store.lock(Account("a-1")).')
    return sorted({repr(_in_utc(query_of(each))) for each in queries})


def _in_utc(query: Query) -> Query:
    """Return the query with its moments in UTC, so that every process gets the same name for it."""
    if not query.names_moments():
        return query
    return Query(tuple(Item(item.types, tuple(map(in_utc, item.tags))) for item in query.items))


def acquire(log: Log, locks: LockSet, timeout: float) -> CoroutineType[Any, Any, None]:
    """Acquire all locks of a set, each within `timeout` seconds. To be awaited.

    Raises StoreBusy, which names the holder; then none of them is acquired.
    """
    locks.call = Call()
    return locks.call.bind(_acquire(log, locks, timeout))


async def _acquire(log: Log, locks: LockSet, timeout: float) -> None:
    try:
        for name in locks.names:
            await _acquire_one(log, name, locks, timeout)
        locks.is_acquired = True
    except BaseException:
        await _release(log, locks)
        raise


async def _acquire_one(log: Log, name: str, locks: LockSet, timeout: float) -> None:
    waited, attempt = 0.0, 0
    while (holder := await _try_acquire(log, name, locks)) is not None:
        if waited >= timeout:
            raise StoreBusy(
                f"{name} has been locked by {holder or 'another caller'} for longer than {timeout:g} s.",
                "Nothing was written: try again later, allow more time, or decide without the lock.",
                name=name,
                owner=holder,
                timeout=timeout,
            )
        pause = min(PAUSES_S[min(attempt, len(PAUSES_S) - 1)], timeout - waited)
        await log.runtime.sleep(pause, jitter=True)
        waited, attempt = waited + pause, attempt + 1


async def _try_acquire(log: Log, name: str, locks: LockSet) -> str | None:
    holder, is_left_over = log.lock_table.claim(name, locks)
    if holder is not None:
        return holder
    service = require(log.engine, "locks")
    if is_left_over:
        await service.release(name)
    holder = await service.try_acquire(name, locks.owner)
    if holder is not None:
        log.lock_table.drop(name, locks)
    return holder


def release(log: Log, locks: LockSet) -> CoroutineType[Any, Any, None]:
    """Release all locks of a set, in reverse order. To be awaited."""
    locks.call = Call()
    return locks.call.bind(_release(log, locks))


async def _release(log: Log, locks: LockSet) -> None:
    locks.is_acquired = False
    for name in reversed(locks.names):
        if log.lock_table.has(name, locks):
            await require(log.engine, "locks").release(name)
            log.lock_table.drop(name, locks)
