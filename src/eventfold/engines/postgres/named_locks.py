"""Room: locks by name: a session's advisory lock each, so that a process that dies lets go of its locks.

Knows: sessions, and what the server shows of them. Does not know: what a name stands for.
"""

from __future__ import annotations

import hashlib

import psycopg

from eventfold.engines.postgres.connection import Colour, Pool
from eventfold.engines.postgres.errors import translated
from eventfold.engines.postgres.servers import Link, Sessions
from eventfold.errors import NotSupported

MOST = 64  # locks that one engine may hold at once: each keeps a connection
KEPT = 1  # connections that are kept when they hold no lock
HOLDER = """SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (l.classid::bigint << 32) | l.objid::bigint = %b LIMIT 1"""


class _Held:
    """A lock, and the connection that has it, or is to have it."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.link: Link | None = None


class NamedLocks:
    """The locks of one engine, each on a connection of its own."""

    def __init__(self, sessions: Sessions, colour: Colour) -> None:
        self._sessions = sessions
        self._pool = Pool(
            *(sessions.primary, colour, MOST, sessions.options.patience, self._greet),
            keep=KEPT,
            max_idle=sessions.options.max_idle,
        )
        self._held: dict[str, _Held] = {}

    async def take(self, name: str, owner: str) -> str | None:
        """Take a lock if it is free: None; otherwise who has it. Raises NotSupported behind a transaction pooler."""
        if self._sessions.pooled:
            raise NotSupported(
                "A lock belongs to a session, and a transaction pooler stands between here and the server.",
                "Open the store at the server's own address for decisions that lock, or decide without a lock.",
                engine="postgres",
                capability="locks",
            )
        ours = _Held(owner)
        holder = self._held.setdefault(name, ours)  # at once, so that of our own threads too only one goes on
        if holder is not ours:
            return holder.owner
        try:
            link = ours.link = await self._pool.take()  # kept before it locks: no exception leaves a lock unknown
        except BaseException:
            self._held.pop(name, None)
            raise
        try:
            found = await self._try(link, self._number(name), owner)
        except BaseException as error:
            self._held.pop(name, None)
            if not isinstance(error, psycopg.Error):
                await link.close()  # it may have been locked
            await self._pool.give(link)
            if isinstance(error, psycopg.Error):
                raise translated(error, self._pool.address.where) from None
            raise
        if found is None:
            return None
        self._held.pop(name, None)
        await self._pool.give(link)
        return found

    async def give_back(self, name: str) -> None:
        """Let go of a lock. Harmless where it is not held; a connection that is gone has let go already."""
        held = self._held.get(name)
        if held is None:
            return
        if held.link is not None:
            try:
                await held.link.fetch("SELECT pg_advisory_unlock(%b)", (self._number(name),))
            except BaseException as error:  # it may be locked still, and is not once its session has ended
                self._held.pop(name, None)
                await held.link.close()
                await self._pool.give(held.link)
                if not isinstance(error, psycopg.Error):
                    raise
            else:
                await self._pool.give(held.link)
        if self._held.get(name) is held:
            del self._held[name]

    async def close(self) -> None:
        """Let go of all of them, and hang up."""
        for name in list(self._held):
            await self.give_back(name)
        await self._pool.close()

    @staticmethod
    async def _try(link: Link, number: int, owner: str) -> str | None:
        if (await link.fetch("SELECT pg_try_advisory_lock(%b)", (number,)))[0][0]:
            await link.fetch("SELECT set_config('application_name', %b, false)", (owner[:60],))
            return None
        rows = await link.fetch(HOLDER, (number,))
        return (rows[0][0] if rows else None) or "someone"

    def _number(self, name: str) -> int:
        text = f"eventfold {self._sessions.store_id} {name}".encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:8], signed=True)

    async def _greet(self, link: Link) -> None:
        """A lock needs nothing of a session."""
