"""Locking a question: for decisions that would lose every race, or are too dear to be made twice.

A lock keeps others out who ask for it too; it is a courtesy. The append condition stays the safety: whoever
decides without the lock is refused, or refuses us, as ever. Knows: the service `locks`. Does not know: clocks;
it counts its own pauses.
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

PAUSES = (0.001, 0.002, 0.005, 0.01)  # seconds; then the last one again and again


def names_of(asked: Sequence[Asked]) -> list[str]:
    """One name for each question, in one order for everybody, so that nobody waits in a circle."""
    if not asked:
        raise InvalidInput("A lock was asked for on nothing.", 'Say what it is about: store.lock(Account("a-1")).')
    return sorted({repr(_in_utc(query_of(each))) for each in asked})


def _in_utc(query: Query) -> Query:
    """The query under which every process locks, however it spells moments."""
    if not query.names_moments():
        return query
    return Query(tuple(Item(item.types, tuple(map(in_utc, item.tags))) for item in query.items))


def acquire(log: Log, hold: LockSet, timeout: float) -> CoroutineType[Any, Any, None]:
    """Take all of its locks within `timeout` seconds, to be awaited. Raises StoreBusy, naming the holder; then none
    is held.
    """
    hold.call = Call()
    return hold.call.bind(_acquire(log, hold, timeout))


async def _acquire(log: Log, hold: LockSet, timeout: float) -> None:
    try:
        for name in hold.names:
            await _take(log, name, hold, timeout)
        hold.held = True
    except BaseException:
        await _release(log, hold)
        raise


async def _take(log: Log, name: str, hold: LockSet, timeout: float) -> None:
    waited, attempt = 0.0, 0
    while (holder := await _try(log, name, hold)) is not None:
        if waited >= timeout:
            raise StoreBusy(
                f"{name} has been locked by {holder or 'someone'} for longer than {timeout:g} s.",
                "Nothing was written: try again later, allow more time, or decide without the lock.",
                name=name,
                owner=holder,
                timeout=timeout,
            )
        pause = min(PAUSES[min(attempt, len(PAUSES) - 1)], timeout - waited)
        await log.runtime.sleep(pause, jitter=True)
        waited, attempt = waited + pause, attempt + 1


async def _try(log: Log, name: str, hold: LockSet) -> str | None:
    holder, left = log.holds.claim(name, hold)
    if holder is not None:
        return holder
    locks = require(log.engine, "locks")
    if left:
        await locks.release(name)
    holder = await locks.try_acquire(name, hold.owner)
    if holder is not None:
        log.holds.drop(name, hold)
    return holder


def release(log: Log, hold: LockSet) -> CoroutineType[Any, Any, None]:
    """Give its locks back, the last taken first. To be awaited."""
    hold.call = Call()
    return hold.call.bind(_release(log, hold))


async def _release(log: Log, hold: LockSet) -> None:
    hold.held = False
    for name in reversed(hold.names):
        if log.holds.has(name, hold):
            await require(log.engine, "locks").release(name)
            log.holds.drop(name, hold)
