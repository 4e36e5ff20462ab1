"""Locks by name: one advisory lock of a session each, which the server releases when the process dies.

Knows: sessions, pg_locks. Does not know: what a lock's name means.
"""

from __future__ import annotations

import hashlib

import psycopg

from eventfold.engines.postgres.connection import Connection, Mode
from eventfold.engines.postgres.errors import translate_error
from eventfold.engines.postgres.pool import Pool
from eventfold.engines.postgres.servers import Servers
from eventfold.errors import NotSupported

MAX_LOCKS = 64  # that one engine may hold at a time: each has a connection of its own
MAX_KEPT_CONNECTIONS = 1  # kept open without a lock
HOLDER_SQL = """SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (l.classid::bigint << 32) | l.objid::bigint = %b LIMIT 1"""


class _HeldLock:
    """A lock, and the connection that holds it or is about to."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.connection: Connection | None = None


class NamedLocks:
    """The locks of one engine, each on a connection of its own."""

    def __init__(self, servers: Servers, mode: Mode) -> None:
        self._servers = servers
        self._pool = Pool(
            *(servers.primary, mode, MAX_LOCKS, servers.options.patience, self._skip_setup),
            max_kept=MAX_KEPT_CONNECTIONS,
            max_idle_s=servers.options.max_idle,
        )
        self._locks: dict[str, _HeldLock] = {}

    async def try_acquire(self, name: str, owner: str) -> str | None:
        """Acquire a free lock and return None; otherwise return its owner. Raises NotSupported behind a pooler."""
        if self._servers.behind_pooler:
            raise NotSupported(
                "A lock belongs to a session, and a transaction pooler is between this process and the server.",
                "Open the store at the server's own address for decisions that lock, or decide without a lock.",
                engine="postgres",
                capability="locks",
            )
        lock = _HeldLock(owner)
        holder = self._locks.setdefault(name, lock)  # first, so that only one thread of this process continues
        if holder is not lock:
            return holder.owner
        try:
            # Assigned before it locks: every lock that is held is known.
            connection = lock.connection = await self._pool.acquire()
        except BaseException:
            self._locks.pop(name, None)
            raise
        try:
            found = await self._try_lock(connection, self._lock_number(name), owner)
        except BaseException as error:
            self._locks.pop(name, None)
            if not isinstance(error, psycopg.Error):
                await connection.close()  # it may hold the lock
            await self._pool.release(connection)
            if isinstance(error, psycopg.Error):
                raise translate_error(error, self._pool.address.where) from None
            raise
        if found is None:
            return None
        self._locks.pop(name, None)
        await self._pool.release(connection)
        return found

    async def release(self, name: str) -> None:
        """Release a lock. Has no effect if it is not held; the server has released those of a lost connection."""
        lock = self._locks.get(name)
        if lock is None:
            return
        if lock.connection is not None:
            try:
                await lock.connection.fetch("SELECT pg_advisory_unlock(%b)", (self._lock_number(name),))
            except BaseException as error:  # it may still hold the lock, which ends with its session
                self._locks.pop(name, None)
                await lock.connection.close()
                await self._pool.release(lock.connection)
                if not isinstance(error, psycopg.Error):
                    raise
            else:
                await self._pool.release(lock.connection)
        if self._locks.get(name) is lock:
            del self._locks[name]

    async def close(self) -> None:
        """Release all locks and close the connections."""
        for name in list(self._locks):
            await self.release(name)
        await self._pool.close()

    @staticmethod
    async def _try_lock(connection: Connection, number: int, owner: str) -> str | None:
        if (await connection.fetch("SELECT pg_try_advisory_lock(%b)", (number,)))[0][0]:
            await connection.fetch("SELECT set_config('application_name', %b, false)", (owner[:60],))
            return None
        rows = await connection.fetch(HOLDER_SQL, (number,))
        return (rows[0][0] if rows else None) or "someone"

    def _lock_number(self, name: str) -> int:
        text = f"eventfold {self._servers.store_id} {name}".encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:8], signed=True)

    async def _skip_setup(self, connection: Connection) -> None:
        """A lock needs no session settings."""
