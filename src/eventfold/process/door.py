"""Room: how a user runs processes and effects on a store of either colour: `run` and `settle`.

They work in threads with a log that blocks, as read models do: a reaction is work, and no work for an event loop.
Knows: both stores. Does not know: how anything is done.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import overload

from eventfold.aio import AsyncStore
from eventfold.bridge import in_thread
from eventfold.process.runner import Clock, Running, settled, wall_clock
from eventfold.process.subscribed import Work
from eventfold.running.desk import PATIENCE
from eventfold.store import Store


class Runs:
    """The twin of `Running` for an AsyncStore: `async with run(store, Payment) as running: …`."""

    def __init__(self, store: AsyncStore, work: tuple[Work, ...], clock: Clock) -> None:
        self._store, self._work, self._clock = store, work, clock
        self._running: Running | None = None

    async def start(self) -> Running:
        """Start now; `async with` does it by itself."""
        if self._running is None:
            self._running = await self._store.projections.ask(lambda desk: Running(desk, self._work, self._clock))
        return self._running

    async def stop(self) -> None:
        """See Running.stop."""
        if self._running is not None:
            await in_thread(self._running.stop)

    async def wait(self, timeout: float | None = None) -> bool:
        """See Running.wait."""
        return await in_thread((await self.start()).wait, timeout)

    async def __aenter__(self) -> Running:
        return await self.start()

    async def __aexit__(self, *error: object) -> None:
        await self.stop()


@overload
def run(store: Store, /, *work: Work, clock: Clock = ...) -> Running: ...
@overload
def run(store: AsyncStore, /, *work: Work, clock: Clock = ...) -> Runs: ...
def run(store: Store | AsyncStore, /, *work: Work, clock: Clock = wall_clock) -> Running | Runs:
    """Keep processes and effects going, in threads of this process, until stopped: `with run(store, Payment, mail):`.

    With an AsyncStore: `async with run(store, Payment):`. Several processes may run the same: they share the work by
    leases, and take over from one that was killed. `clock` tells timers the time, in µs since 1970 UTC.

    Raises InvalidProcess, InvalidState, TargetUnavailable, StoreUnavailable errors.
    """
    if isinstance(store, AsyncStore):
        return Runs(store, work, clock)
    return Running(store.projections, work, clock)


@overload
def settle(store: Store, /, *work: Work, clock: Clock = ..., timeout: float = ...) -> None: ...
@overload
def settle(store: AsyncStore, /, *work: Work, clock: Clock = ..., timeout: float = ...) -> Awaitable[None]: ...
def settle(
    store: Store | AsyncStore, /, *work: Work, clock: Clock = wall_clock, timeout: float = PATIENCE
) -> Awaitable[None] | None:
    """Do all there is to do now, timers due by `clock` included, until nothing more comes of it; then return.

    For tests and scripts: nothing is left running. What waits to be tried again is tried once, at once. Raises
    ProcessError where something did not get through, ProjectionBehind if a runner elsewhere holds the work for longer
    than `timeout` seconds, and what `run` raises.
    """
    if isinstance(store, AsyncStore):
        return store.projections.ask(lambda desk: settled(desk, work, clock, timeout))
    settled(store.projections, work, clock, timeout)
    return None
