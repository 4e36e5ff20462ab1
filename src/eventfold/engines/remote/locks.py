"""Named locks of a server: each has a lease, which is renewed in the background while the lock is held.

If a client dies, its locks are released after LOCK_LEASE_S seconds. If the server is started again, the next renewal
acquires the locks there again, unless another caller was faster: the holder does not learn of it, and its decisions
still have their conditions.
Knows: leases. Does not know: HTTP, what a name means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import uuid4

from eventfold.core.mutex import Mutex
from eventfold.engines.remote.background import Background
from eventfold.engines.remote.connection import Connection
from eventfold.engines.remote.services import Ask
from eventfold.errors import EventfoldError
from eventfold.ports.engine_messages import LOCK_LEASE_S, AcquireLock, Nothing, Owner, ReleaseLock, RenewLocks

RENEW_S = LOCK_LEASE_S / 4


class RemoteLocks:
    """See services.Locks."""

    def __init__(self, ask: Ask, background: Background) -> None:
        self._ask, self._background = ask, background
        self._held: dict[str, AcquireLock] = {}
        self._mutex = Mutex()
        self._cancel: Callable[[], None] | None = None

    async def try_acquire(self, name: str, owner: str) -> str | None:
        """See services.Locks."""
        lock = AcquireLock(name, owner, uuid4().hex)
        holder = self._held.setdefault(name, lock)
        if holder is not lock:
            return holder.owner
        try:
            found = (await self._ask("acquire-lock", lock, Owner)).value
        except BaseException:  # the server may have acquired it
            self._held.pop(name, None)
            self._release_in_background(lock)
            raise
        if found is not None:
            self._held.pop(name, None)
            return found
        self._mutex.run(self._start_renewal)
        return None

    async def release(self, name: str) -> None:
        """See services.Locks."""
        lock = self._held.pop(name, None)
        if lock is None:
            return
        try:
            await self._ask("release-lock", ReleaseLock(name, lock.holder), Nothing)
        except EventfoldError:
            return  # its lease ends, since it is not renewed any more
        except BaseException:
            self._release_in_background(lock)
            raise

    async def close(self) -> None:
        """Release all locks."""
        for name in tuple(self._held):
            await self.release(name)
        if self._cancel is not None:
            self._cancel()
            self._cancel = None

    def _start_renewal(self) -> None:
        if self._cancel is None:
            self._cancel = self._background.start(self._renew)

    async def _renew(self, connection: Connection) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            if not (held := list(self._held.values())):
                continue
            try:
                await connection.ask("renew-locks", RenewLocks(held), Nothing)
            except EventfoldError:
                continue  # the next renewal acquires what was lost meanwhile

    def _release_in_background(self, lock: AcquireLock) -> None:
        async def release(connection: Connection) -> None:
            try:
                await connection.ask("release-lock", ReleaseLock(lock.name, lock.holder), Nothing)
            except EventfoldError:
                return  # its lease ends

        self._background.start(release)
