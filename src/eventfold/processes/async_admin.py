"""The processes and effects of a store for async users: the same methods, awaited; each call runs in a thread.

Knows: the methods of ProcessAdmin. Does not know: what they do.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import TypeVar

from eventfold.processes.admin import LISTED, ProcessAdmin
from eventfold.processes.classes import Process
from eventfold.processes.inspection import Instance
from eventfold.projections.async_admin import AsyncProjectionAdmin

R = TypeVar("R")


class AsyncProcessAdmin:
    """The twin of `ProcessAdmin`: `await store.processes.list()`."""

    def __init__(self, admin: AsyncProjectionAdmin) -> None:
        self._admin = admin

    async def ask(self, question: Callable[[ProcessAdmin], R]) -> R:
        """Call a function with the sync administration in a thread, for several calls at once; return its result."""
        return await self._admin.ask(lambda admin: question(ProcessAdmin(admin)))

    async def names(self) -> builtins.list[str]:
        """See ProcessAdmin.names."""
        return await self.ask(lambda admin: admin.names())

    async def list(self, process: str | type[Process] | None = None, *, limit: int = LISTED) -> builtins.list[Instance]:
        """See ProcessAdmin.list."""
        return await self.ask(lambda admin: admin.list(process, limit=limit))

    async def instance(self, process: str | type[Process], key: str) -> Instance | None:
        """See ProcessAdmin.instance."""
        return await self.ask(lambda admin: admin.instance(process, key))

    async def state(self, process: type[Process], key: str) -> Process | None:
        """See ProcessAdmin.state."""
        return await self.ask(lambda admin: admin.state(process, key))

    async def retry(self, process: str | type[Process], position: int | None = None) -> int:
        """See ProcessAdmin.retry."""
        return await self.ask(lambda admin: admin.retry(process, position))

    async def skip(self, process: str | type[Process], position: int, because: str) -> None:
        """See ProcessAdmin.skip."""
        await self.ask(lambda admin: admin.skip(process, position, because))
