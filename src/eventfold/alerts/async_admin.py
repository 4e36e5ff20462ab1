"""The alerts of a store for async code: the same methods, awaited; each call runs in a thread.

Knows: the methods of AlertAdmin. Does not know: what they do.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import TypeVar

from eventfold.alerts.admin import LISTED, AlertAdmin, Named
from eventfold.alerts.classes import Alert
from eventfold.alerts.delivery.undelivered import TargetStatus
from eventfold.alerts.facts import Episode, OpenEpisodes
from eventfold.alerts.replay import Progress
from eventfold.core.envelope import Receipt
from eventfold.log.context import Options
from eventfold.projections.async_admin import AsyncProjectionAdmin

R = TypeVar("R")


class AsyncAlertAdmin:
    """The twin of `AlertAdmin`: `await store.alerts.list()`."""

    def __init__(self, admin: AsyncProjectionAdmin, options: Options) -> None:
        self._admin, self._options = admin, options

    async def ask(self, question: Callable[[AlertAdmin], R]) -> R:
        """Call a function with the sync administration in a thread, for several calls at once; return its result."""
        return await self._admin.ask(lambda admin: question(AlertAdmin(admin, self._options)))

    async def names(self) -> builtins.list[str]:
        """See AlertAdmin.names."""
        return await self.ask(lambda admin: admin.names())

    async def list(
        self, alert: Named | None = None, *, open_only: bool = True, limit: int = LISTED
    ) -> builtins.list[Episode]:
        """See AlertAdmin.list."""
        return await self.ask(lambda admin: admin.list(alert, open_only=open_only, limit=limit))

    async def show(self, alert: Named, key: str | None = None, *, limit: int = LISTED) -> builtins.list[Episode]:
        """See AlertAdmin.show."""
        return await self.ask(lambda admin: admin.show(alert, key, limit=limit))

    async def open(self) -> OpenEpisodes:
        """See AlertAdmin.open."""
        return await self.ask(lambda admin: admin.open())

    async def targets(self) -> builtins.list[TargetStatus]:
        """See AlertAdmin.targets."""
        return await self.ask(lambda admin: admin.targets())

    async def acknowledge(
        self,
        alert: Named,
        key: str = "",
        *,
        until: datetime | timedelta,
        because: str,
        actor: str | None = None,
    ) -> Receipt:
        """See AlertAdmin.acknowledge."""
        return await self.ask(lambda admin: admin.acknowledge(alert, key, until=until, because=because, actor=actor))

    async def snooze(
        self,
        alert: Named,
        key: str | None = None,
        *,
        until: datetime | timedelta,
        because: str,
        actor: str | None = None,
    ) -> Receipt:
        """See AlertAdmin.snooze."""
        return await self.ask(lambda admin: admin.snooze(alert, key, until=until, because=because, actor=actor))

    async def retire(self, alert: Named, *, because: str, actor: str | None = None) -> builtins.list[str]:
        """See AlertAdmin.retire."""
        return await self.ask(lambda admin: admin.retire(alert, because=because, actor=actor))

    async def replay(
        self,
        alert: type[Alert],
        *,
        since: date | timedelta | None = None,
        until: date | None = None,
        progress: Progress = lambda _position, _head: None,
    ) -> builtins.list[Episode]:
        """See AlertAdmin.replay. `progress` is called from a thread."""
        return await self.ask(lambda admin: admin.replay(alert, since=since, until=until, progress=progress))
