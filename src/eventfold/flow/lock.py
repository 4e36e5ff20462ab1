"""Room: locking a question: for decisions that would lose every race, or are too dear to be made twice.

A lock keeps others out who ask for it too; it is a courtesy. The append condition stays the safety: whoever
decides without the lock is refused, or refuses us, as ever. Knows: the port's `try_lock`. Does not know: clocks;
it counts its own pauses.
"""

from __future__ import annotations

from collections.abc import Sequence

from eventfold.errors import InvalidInput, StoreBusy
from eventfold.flow.append import Asked, query_of
from eventfold.flow.log import Log

PAUSES = (0.001, 0.002, 0.005, 0.01)  # seconds; then the last one again and again


def names_of(asked: Sequence[Asked]) -> list[str]:
    """One name for each question, in one order for everybody, so that nobody waits in a circle."""
    if not asked:
        raise InvalidInput("A lock was asked for on nothing.", 'Say what it is about: store.lock(Account("a-1")).')
    return sorted({repr(query_of(each)) for each in asked})


async def acquire(log: Log, names: Sequence[str], owner: str, timeout: float) -> None:
    """Take all of these locks within `timeout` seconds. Raises StoreBusy, naming the holder; then none is held."""
    taken: list[str] = []
    try:
        for name in names:
            await _take(log, name, owner, timeout)
            taken.append(name)
    except BaseException:
        await release(log, taken)
        raise


async def _take(log: Log, name: str, owner: str, timeout: float) -> None:
    waited, attempt = 0.0, 0
    while (holder := await log.engine.try_lock(name, owner)) is not None:
        if waited >= timeout:
            raise StoreBusy(
                f"{name} has been locked by {holder or 'someone'} for longer than {timeout:g} s.",
                "Nothing was written: try again later, allow more time, or decide without the lock.",
                name=name,
                owner=holder,
                timeout=timeout,
            )
        pause = min(PAUSES[min(attempt, len(PAUSES) - 1)], timeout - waited)
        await log.pause(-pause)  # spread by chance, so that those who wait do not wake together
        waited, attempt = waited + pause, attempt + 1


async def release(log: Log, names: Sequence[str]) -> None:
    """Give locks back, the last taken first."""
    for name in reversed(names):
        await log.engine.unlock(name)
