"""Room: the desk for async users: the same names as the desk's, awaited; each call is made in a thread.

Knows: which calls there are. Does not know: what they do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import date
from typing import TypeVar

from eventfold.concurrency import in_thread
from eventfold.flow.generations import Comparison
from eventfold.flow.prove import LogProof, Progress, Proof
from eventfold.flow.status import Status
from eventfold.ports.target import Checkpoint, Entry, Registered
from eventfold.running.desk import Desk
from eventfold.running.finding import Named
from eventfold.running.row_check import RowProof

R = TypeVar("R")


class AsyncDesk:
    """The twin of `Desk`: `await store.projections.status()`."""

    def __init__(self, desk: Callable[[], Awaitable[Desk]]) -> None:
        self._desk = desk

    async def ask(self, question: Callable[[Desk], R]) -> R:
        """Whatever the desk answers, asked in a thread: several questions in one, say."""
        return await in_thread(question, await self._desk())

    # Looking

    async def known(self) -> list[Registered]:
        """See Desk.known."""
        return await self.ask(lambda desk: desk.known())

    async def status(self, *projections: Named) -> list[Status]:
        """See Desk.status."""
        return await self.ask(lambda desk: desk.status(*projections))

    async def checkpoints(self, projection: Named) -> list[Checkpoint]:
        """See Desk.checkpoints."""
        return await self.ask(lambda desk: desk.checkpoints(projection))

    async def verify(self, *projections: Named, progress: Progress = lambda _done, _all: None) -> list[Proof]:
        """See Desk.verify. `progress` is called from a thread."""
        return await self.ask(lambda desk: desk.verify(*projections, progress=progress))

    async def verify_rows(self, *projections: Named, progress: Progress = lambda _done, _all: None) -> list[RowProof]:
        """See Desk.verify_rows. `progress` is called from a thread."""
        return await self.ask(lambda desk: desk.verify_rows(*projections, progress=progress))

    async def verify_log(self, progress: Progress = lambda _done, _all: None) -> LogProof:
        """See Desk.verify_log. `progress` is called from a thread."""
        return await self.ask(lambda desk: desk.verify_log(progress))

    # By hand

    async def pause(self, projection: Named, because: str) -> None:
        """See Desk.pause."""
        await self.ask(lambda desk: desk.pause(projection, because))

    async def resume(self, projection: Named) -> None:
        """See Desk.resume."""
        await self.ask(lambda desk: desk.resume(projection))

    async def parked(self, projection: Named, generation: int | None = None) -> list[Entry]:
        """See Desk.parked."""
        return await self.ask(lambda desk: desk.parked(projection, generation))

    async def retry(self, projection: Named, position: int | None = None) -> int:
        """See Desk.retry."""
        return await self.ask(lambda desk: desk.retry(projection, position))

    async def skip(self, projection: Named, position: int, because: str) -> None:
        """See Desk.skip."""
        await self.ask(lambda desk: desk.skip(projection, position, because))

    async def accept(self, projection: Named) -> None:
        """See Desk.accept."""
        await self.ask(lambda desk: desk.accept(projection))

    async def begin(self, projection: Named, at: int | date) -> int:
        """See Desk.begin."""
        return await self.ask(lambda desk: desk.begin(projection, at))

    async def forget(self, projection: Named) -> int:
        """See Desk.forget."""
        return await self.ask(lambda desk: desk.forget(projection))

    # Generations

    async def rebuild(
        self,
        projection: Named,
        *,
        at: int | date | None = None,
        progress: Callable[[int, int], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> int:
        """See Desk.rebuild. `progress` and `stop` are called from a thread. Cancelled, it stops after the page in hand,
        and the next rebuild goes on there.
        """
        cancelled = False
        ask = self.ask(
            lambda desk: desk.rebuild(projection, at=at, progress=progress, stop=lambda: cancelled or stop())
        )
        try:
            return await ask
        except BaseException:
            cancelled = True
            raise

    async def compare(self, projection: Named, generation: int | None = None) -> Comparison:
        """See Desk.compare."""
        return await self.ask(lambda desk: desk.compare(projection, generation))

    async def switch(self, projection: Named) -> Registered:
        """See Desk.switch."""
        return await self.ask(lambda desk: desk.switch(projection))

    async def rollback(self, projection: Named) -> Registered:
        """See Desk.rollback."""
        return await self.ask(lambda desk: desk.rollback(projection))

    async def discard(self, projection: Named, generation: int | None = None) -> None:
        """See Desk.discard."""
        await self.ask(lambda desk: desk.discard(projection, generation))
