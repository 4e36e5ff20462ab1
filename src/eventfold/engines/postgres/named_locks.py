"""Room: locks by name: a session's advisory lock each, so that a process that dies lets go of its locks.

Knows: sessions, and what the server shows of them. Does not know: what a name stands for.
"""

from __future__ import annotations

import hashlib

import psycopg

from eventfold.engines.postgres.connection import Connection, Mode
from eventfold.engines.postgres.errors import translate_error
from eventfold.engines.postgres.pool import Pool
from eventfold.engines.postgres.servers import Servers
from eventfold.errors import NotSupported

MAX_LOCKS = 64  # locks that one engine may hold at once: each keeps a connection
MAX_KEPT_CONNECTIONS = 1  # connections that are kept when they hold no lock
HOLDER_SQL = """SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (l.classid::bigint << 32) | l.objid::bigint = %b LIMIT 1"""


class _HeldLock:
    """A lock, and the connection that has it, or is to have it."""

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
        self._held: dict[str, _HeldLock] = {}

    async def try_acquire(self, name: str, owner: str) -> str | None:
        """Take a lock if it is free: None; otherwise who has it. Raises NotSupported behind a transaction pooler."""
        if self._servers.behind_pooler:
            raise NotSupported(
                "A lock belongs to a session, and a transaction pooler stands between here and the server.",
                "Open the store at the server's own address for decisions that lock, or decide without a lock.",
                engine="postgres",
                capability="locks",
            )
        ours = _HeldLock(owner)
        holder = self._held.setdefault(name, ours)  # at once, so that of our own threads too only one goes on
        if holder is not ours:
            return holder.owner
        try:
            connection = (
                ours.connection
            ) = await self._pool.acquire()  # kept before it locks: no exception leaves a lock unknown
        except BaseException:
            self._held.pop(name, None)
            raise
        try:
            found = await self._try_lock(connection, self._lock_number(name), owner)
        except BaseException as error:
            self._held.pop(name, None)
            if not isinstance(error, psycopg.Error):
                await connection.close()  # it may have been locked
            await self._pool.release(connection)
            if isinstance(error, psycopg.Error):
                raise translate_error(error, self._pool.address.where) from None
            raise
        if found is None:
            return None
        self._held.pop(name, None)
        await self._pool.release(connection)
        return found

    async def release(self, name: str) -> None:
        """Let go of a lock. Harmless where it is not held; a connection that is gone has let go already."""
        held = self._held.get(name)
        if held is None:
            return
        if held.connection is not None:
            try:
                await held.connection.fetch("SELECT pg_advisory_unlock(%b)", (self._lock_number(name),))
            except BaseException as error:  # it may be locked still, and is not once its session has ended
                self._held.pop(name, None)
                await held.connection.close()
                await self._pool.release(held.connection)
                if not isinstance(error, psycopg.Error):
                    raise
            else:
                await self._pool.release(held.connection)
        if self._held.get(name) is held:
            del self._held[name]

    async def close(self) -> None:
        """Let go of all of them, and hang up."""
        for name in list(self._held):
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
        """A lock needs nothing of a session."""
