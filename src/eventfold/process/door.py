"""Room: the door of work: how a user keeps read models, processes and effects going, on a store of either colour.

They work in threads with a log that blocks, as all that is run does: a reaction is work, and no work for an event loop.
Knows: both colours' mixins. Does not know: how anything is done.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from eventfold.concurrency import in_thread
from eventfold.running.desk import PATIENCE, Desk
from eventfold.running.facade import AsyncProjecting, Projecting

if TYPE_CHECKING:
    from eventfold.log.context import Log
    from eventfold.process.runner import Clock, Running, Work
    from eventfold.projection.plan import Kept


class Working(Projecting):
    """The part of `Store` that runs things."""

    def run(self, *work: Work, clock: Clock | None = None) -> Running:
        """Keep read models, subscriptions, processes and effects going, in threads of this process, until stopped.

        `with store.run(CarrierMonth, Payment, mail): …`. Several processes may run the same: they share the work by
        leases, and take over from one that was killed. `clock` tells timers the time, in µs since 1970 UTC.

        Raises InvalidProjection, ProjectionChanged, InvalidProcess, InvalidState, TargetUnavailable, StoreUnavailable.
        """
        return _running(self._desk, work, clock)

    def settle(self, *work: Work, clock: Clock | None = None, timeout: float = PATIENCE) -> None:
        """Do all there is to do now, timers due by `clock` included, until nothing more comes of it; then return.

        For tests and scripts: nothing is left running. What waits to be tried again is tried once, at once. Raises
        ProcessError where something did not get through, ProjectionBehind if a runner elsewhere holds the work for
        longer than `timeout` seconds, and what `run` and `project` raise.
        """
        _settle(self._desk, work, clock, timeout)


class AsyncWorking(AsyncProjecting):
    """The part of `AsyncStore` that runs things. See Working."""

    def run(self, *work: Work, clock: Clock | None = None) -> Runs:
        """See Store.run: `async with store.run(Payment): …`."""
        return Runs(self, work, clock)

    async def settle(self, *work: Work, clock: Clock | None = None, timeout: float = PATIENCE) -> None:
        """See Store.settle."""
        await in_thread(_settle, await self._desk(), work, clock, timeout)


class Runs:
    """The twin of `Running`: `async with store.run(Payment) as running: …`, or `running = await store.run(Payment)`."""

    def __init__(self, store: AsyncProjecting, work: tuple[Work, ...], clock: Clock | None) -> None:
        self._store, self._work, self._clock = store, work, clock
        self._running: Running | None = None

    async def start(self) -> Runs:
        """Start now; `async with` and `await` do it by themselves. Raises what Store.run raises."""
        if self._running is None:
            desk = await self._store._desk()  # pyright: ignore[reportPrivateUsage]
            self._running = await in_thread(_running, desk, self._work, self._clock)
        return self

    async def stop(self) -> None:
        """See Running.stop."""
        if self._running is not None:
            await in_thread(self._running.stop)

    async def wait(self, timeout: float | None = None) -> bool:
        """See Running.wait."""
        await self.start()
        assert self._running is not None
        return await in_thread(self._running.wait, timeout)

    def __await__(self) -> Generator[Any, None, Runs]:
        return self.start().__await__()

    async def __aenter__(self) -> Running:
        await self.start()
        assert self._running is not None
        return self._running

    async def __aexit__(self, *error: object) -> None:
        await self.stop()


# Loaded when something is run: what reacts and waits is no part of what a store costs to import.


def definitions(found: Any, log: Log) -> list[Kept]:
    """What a class, an effect or an address MODULE:NAME stands for on the read side. Raises InvalidProjection."""
    from eventfold.process.code import load
    from eventfold.process.runner import sorted_out
    from eventfold.process.subscribed import subscribed

    if not isinstance(found, str):
        kept, reacting = sorted_out([found])
    else:
        kept, reacting = sorted_out(load(found))
    return [*kept, *(subscribed(each, log) for each in reacting)]


def _running(desk: Desk, work: tuple[Work, ...], clock: Clock | None) -> Running:
    from eventfold.process.runner import Running, wall_clock

    return Running(desk, work, clock or wall_clock)


def _settle(desk: Desk, work: tuple[Work, ...], clock: Clock | None, timeout: float) -> None:
    from eventfold.process.runner import settled, wall_clock

    settled(desk, work, clock or wall_clock, timeout)
