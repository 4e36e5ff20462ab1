"""Locks by name, each a lease in the bucket `locks`: renewed while it is held, free when its process is gone.

If a process dies, its locks are free after LOCK_LEASE_S seconds. If one stands still for that long, another caller may
acquire its lock; if none did, it has the lock again. It does not learn of that: its decisions still have their
conditions.
Knows: leases. Does not know: what a name means.
"""

from __future__ import annotations

import hashlib

from eventfold.engines.jetstream.buckets import Bucket
from eventfold.engines.jetstream.connection import ClusterConnection
from eventfold.engines.jetstream.leases import Lease, Leases
from eventfold.ports.engine_messages import LOCK_LEASE_S


class ClusterLocks:
    """See services.Locks. Its coroutines run on the event loop of the client."""

    def __init__(self, connection: ClusterConnection) -> None:
        bucket = Bucket(connection, connection.address.names.bucket("locks"))
        self._leases = Leases(bucket, int(LOCK_LEASE_S), lost=self._keep, reacquires=True)
        self._held: dict[str, Lease | str] = {}  # the text of the owner while it is being acquired

    async def try_acquire(self, name: str, owner: str) -> str | None:
        """See services.Locks."""
        if (holder := self._held.get(name)) is not None:
            return holder if isinstance(holder, str) else holder.record.note
        self._held[name] = owner
        try:
            lease = await self._leases.acquire(lock_key(name), owner)
        except BaseException:
            self._held.pop(name, None)
            raise
        if isinstance(lease, Lease):
            self._held[name] = lease
            return None
        self._held.pop(name, None)
        return lease.note

    async def release(self, name: str) -> None:
        """See services.Locks."""
        lease = self._held.get(name)
        if isinstance(lease, Lease):
            del self._held[name]
            await self._leases.release(lease)

    async def close(self) -> None:
        """Release all locks."""
        self._held.clear()
        await self._leases.close()

    def _keep(self, lease: Lease) -> None:
        """Keep the entry of a lock that another caller acquired: its holder releases it, which has no effect then."""


def lock_key(name: str) -> str:
    """Return the key of a lock: names have characters and lengths that keys cannot have."""
    return f"lock.{hashlib.sha256(name.encode()).hexdigest()[:40]}"
