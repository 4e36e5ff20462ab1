"""The parts of an AsyncStore as its traced view uses them: opened once, by whichever of the two is used first.

Knows: which parts are replaced. Does not know: how they are opened.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec

from eventfold.log.context import Log
from eventfold.ports.target import Target
from eventfold.projections.admin import ProjectionAdmin
from eventfold.telemetry.reads import TracedReads
from eventfold.telemetry.spans import Spans
from eventfold.telemetry.work import TracedWork
from eventfold.wiring import Opening


class TracedOpening(Opening):
    """The parts of `inner`. `work`: what makes spans of read models and processes; `reads`: spans of pages."""

    def __init__(self, inner: Opening, *, work: TracedWork | None = None, reads: Spans | None = None) -> None:
        self.inner: Opening = inner.inner if isinstance(inner, TracedOpening) else inner
        self.url = inner.url
        self._work, self._reads = work, reads
        self._traced_log: Log | None = None
        self._traced_admin: ProjectionAdmin | None = None

    def opened(self) -> Log:
        """See Opening.opened."""
        return self.inner.opened()

    async def log(self) -> Log:
        """See Opening.log."""
        log = await self.inner.log()
        if self._reads is None:
            return log
        if self._traced_log is None:
            self._traced_log = msgspec.structs.replace(log, engine=TracedReads(log.engine, self._reads.read))
        return self._traced_log

    async def admin(self) -> ProjectionAdmin:
        """See Opening.admin."""
        admin = await self.inner.admin()
        if self._work is None:
            return admin
        if self._traced_admin is None:
            self._traced_admin = admin.observed_by(self._work)
        return self._traced_admin

    @asynccontextmanager
    async def own_target(self) -> AsyncGenerator[Target | None]:
        """See Opening.own_target."""
        async with self.inner.own_target() as target:
            yield target

    async def close(self) -> None:
        """See Opening.close."""
        await self.inner.close()
