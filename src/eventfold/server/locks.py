"""Named locks for remote callers: each has a lease, which the caller renews while it holds the lock.

Knows: leases, the lock service of one store. Does not know: HTTP, what a name means.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from eventfold.ports.engine import Engine
from eventfold.ports.engine_messages import LOCK_LEASE_S, AcquireLock
from eventfold.ports.services import require

MAX_CHECK_S = 1.0  # between two looks for leases that have ended


class _Lease:
    """A lock that a remote caller holds until `ends`, by the monotonic clock."""

    __slots__ = ("ends", "holder", "owner")

    def __init__(self, owner: str, holder: str) -> None:
        self.owner, self.holder = owner, holder
        self.ends = time.monotonic() + LOCK_LEASE_S


class RemoteLocks:
    """The locks of one store that remote callers hold. The store's own lock service excludes all other processes.

    Acquiring and releasing a lock of the store are done one after the other, so that a repeated call finds what the
    first one did. The lease of a lock that is not renewed ends after LOCK_LEASE_S seconds.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._leases: dict[str, _Lease] = {}
        self._turn = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None

    async def acquire(self, name: str, owner: str, holder: str) -> str | None:
        """Acquire a lock and return None; otherwise return its owner. The same holder may ask again."""
        async with self._turn:
            held = self._leases.get(name)
            if held is not None:
                if held.holder != holder:
                    return held.owner
                held.ends = time.monotonic() + LOCK_LEASE_S
                return None
            found = await require(self._engine, "locks").try_acquire(name, owner)
            if found is None:
                self._leases[name] = _Lease(owner, holder)
                if self._watch is None or self._watch.done():
                    self._watch = asyncio.get_running_loop().create_task(self._end_leases())
            return found

    async def release(self, name: str, holder: str) -> None:
        """Release a lock, if this holder has it."""
        async with self._turn:
            held = self._leases.get(name)
            if held is not None and held.holder == holder:
                await self._release(name)

    async def renew(self, locks: Sequence[AcquireLock]) -> None:
        """Extend the leases of these locks; those that were lost are acquired again if they are free."""
        for lock in locks:
            await self.acquire(lock.name, lock.owner, lock.holder)

    async def close(self) -> None:
        """Release every lock."""
        if self._watch is not None:
            self._watch.cancel()
        async with self._turn:
            for name in tuple(self._leases):
                await self._release(name)

    async def _release(self, name: str) -> None:
        self._leases.pop(name, None)
        await require(self._engine, "locks").release(name)

    async def _end_leases(self) -> None:
        """Release the locks whose leases have ended, until none is held."""
        while self._leases:
            now = time.monotonic()
            next_end = min(lease.ends for lease in self._leases.values())
            await asyncio.sleep(min(max(next_end - now, 0.01), MAX_CHECK_S))
            async with self._turn:
                now = time.monotonic()
                for name in [name for name, lease in self._leases.items() if lease.ends <= now]:
                    await self._release(name)
