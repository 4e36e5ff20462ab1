"""What the calls of remote engines share: for each store its waiting callers and its remote locks.

Knows: names of stores. Does not know: HTTP, what the callers do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from eventfold.aio import AsyncStore
from eventfold.server.commits import CommitWait
from eventfold.server.locks import RemoteLocks


class RemoteState:
    """For each store of a server, made at the first use: the callers that wait for commits, and the remote locks.

    Callers that wait are answered when `stopping` is set.
    """

    def __init__(self, stores: Mapping[str, AsyncStore], stopping: asyncio.Event) -> None:
        self._stores, self._stopping = stores, stopping
        self._commits: dict[str, CommitWait] = {}
        self._locks: dict[str, RemoteLocks] = {}

    def commits_of(self, store: str) -> CommitWait:
        """The callers that wait for a commit to a store."""
        found = self._commits.get(store)
        if found is None:
            found = self._commits[store] = CommitWait(self._stores[store].engine, self._stopping)
        return found

    def locks_of(self, store: str) -> RemoteLocks:
        """The locks of a store that remote callers hold."""
        found = self._locks.get(store)
        if found is None:
            found = self._locks[store] = RemoteLocks(self._stores[store].engine)
        return found

    async def forget(self, store: str) -> None:
        """Answer every waiting caller of a store, and release its locks: before it is closed."""
        waiting, locks = self._commits.pop(store, None), self._locks.pop(store, None)
        if waiting is not None:
            waiting.close()
        if locks is not None:
            await locks.close()

    async def close(self) -> None:
        """Do so for every store."""
        for store in {*self._commits, *self._locks}:
            await self.forget(store)
