"""The administration of projections for async users: the same methods, awaited; each call runs in a thread.

Knows: the methods of ProjectionAdmin. Does not know: what they do.
"""

from __future__ import annotations

import builtins
from collections.abc import Awaitable, Callable
from datetime import date
from typing import TypeVar

from eventfold.concurrency import in_thread
from eventfold.core.envelope import Receipt
from eventfold.core.event import Event
from eventfold.core.renamed import refuse_old_attributes
from eventfold.ports.target import Checkpoint, ParkedEvent, ProjectionRecord
from eventfold.projections.admin import ProjectionAdmin
from eventfold.projections.catalog import Named
from eventfold.projections.comparison import Comparison, RowProof
from eventfold.projections.status import Status
from eventfold.projections.verify import LogProof, Progress, Proof

R = TypeVar("R")


@refuse_old_attributes("AsyncProjectionAdmin")
class AsyncProjectionAdmin:
    """The twin of `ProjectionAdmin`: `await store.projections.status()`."""

    def __init__(self, admin: Callable[[], Awaitable[ProjectionAdmin]]) -> None:
        self._admin = admin

    async def ask(self, question: Callable[[ProjectionAdmin], R]) -> R:
        """Call a function with the sync administration in a thread, for several calls at once; return its result."""
        return await in_thread(question, await self._admin())

    # Inspection

    async def list(self) -> builtins.list[ProjectionRecord]:
        """See ProjectionAdmin.list."""
        return await self.ask(lambda admin: admin.list())

    async def status(self, *projections: Named) -> builtins.list[Status]:
        """See ProjectionAdmin.status."""
        return await self.ask(lambda admin: admin.status(*projections))

    async def checkpoints(self, projection: Named) -> builtins.list[Checkpoint]:
        """See ProjectionAdmin.checkpoints."""
        return await self.ask(lambda admin: admin.checkpoints(projection))

    async def verify(self, *projections: Named, progress: Progress = lambda _done, _all: None) -> builtins.list[Proof]:
        """See ProjectionAdmin.verify. `progress` is called from a thread."""
        return await self.ask(lambda admin: admin.verify(*projections, progress=progress))

    async def verify_rows(
        self, *projections: Named, progress: Progress = lambda _done, _all: None
    ) -> builtins.list[RowProof]:
        """See ProjectionAdmin.verify_rows. `progress` is called from a thread."""
        return await self.ask(lambda admin: admin.verify_rows(*projections, progress=progress))

    async def verify_log(self, progress: Progress = lambda _done, _all: None) -> LogProof:
        """See ProjectionAdmin.verify_log. `progress` is called from a thread."""
        return await self.ask(lambda admin: admin.verify_log(progress))

    async def record(self, *proofs: LogProof | Proof | RowProof) -> Receipt | None:
        """See ProjectionAdmin.record."""
        return await self.ask(lambda admin: admin.record(*proofs))

    async def append_fact(self, type: str, tag: str, event: Event) -> Receipt:
        """See ProjectionAdmin.append_fact."""
        return await self.ask(lambda admin: admin.append_fact(type, tag, event))

    # Operations

    async def pause(self, projection: Named, because: str) -> None:
        """See ProjectionAdmin.pause."""
        await self.ask(lambda admin: admin.pause(projection, because))

    async def resume(self, projection: Named) -> None:
        """See ProjectionAdmin.resume."""
        await self.ask(lambda admin: admin.resume(projection))

    async def parked(self, projection: Named, generation: int | None = None) -> builtins.list[ParkedEvent]:
        """See ProjectionAdmin.parked."""
        return await self.ask(lambda admin: admin.parked(projection, generation))

    async def retry(self, projection: Named, position: int | None = None) -> int:
        """See ProjectionAdmin.retry."""
        return await self.ask(lambda admin: admin.retry(projection, position))

    async def skip(self, projection: Named, position: int, because: str) -> None:
        """See ProjectionAdmin.skip."""
        await self.ask(lambda admin: admin.skip(projection, position, because))

    async def accept(self, projection: Named) -> None:
        """See ProjectionAdmin.accept."""
        await self.ask(lambda admin: admin.accept(projection))

    async def begin(self, projection: Named, at: int | date) -> int:
        """See ProjectionAdmin.begin."""
        return await self.ask(lambda admin: admin.begin(projection, at))

    async def remove(self, projection: Named) -> int:
        """See ProjectionAdmin.remove."""
        return await self.ask(lambda admin: admin.remove(projection))

    # Generations

    async def rebuild(
        self,
        projection: Named,
        *,
        at: int | date | None = None,
        progress: Callable[[int, int], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> int:
        """See ProjectionAdmin.rebuild. `progress` and `stop` are called from a thread.

        When cancelled it stops after the current page; the next rebuild continues there.
        """
        cancelled = False
        ask = self.ask(
            lambda admin: admin.rebuild(projection, at=at, progress=progress, stop=lambda: cancelled or stop())
        )
        try:
            return await ask
        except BaseException:
            cancelled = True
            raise

    async def compare(self, projection: Named, generation: int | None = None) -> Comparison:
        """See ProjectionAdmin.compare."""
        return await self.ask(lambda admin: admin.compare(projection, generation))

    async def switch(self, projection: Named) -> ProjectionRecord:
        """See ProjectionAdmin.switch."""
        return await self.ask(lambda admin: admin.switch(projection))

    async def rollback(self, projection: Named) -> ProjectionRecord:
        """See ProjectionAdmin.rollback."""
        return await self.ask(lambda admin: admin.rollback(projection))

    async def discard(self, projection: Named, generation: int | None = None) -> None:
        """See ProjectionAdmin.discard."""
        await self.ask(lambda admin: admin.discard(projection, generation))
