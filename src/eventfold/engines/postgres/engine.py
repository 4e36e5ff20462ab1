"""The PostgreSQL engine: every method of the engine port, over one schema of a database.

Knows: which part answers which call. Does not know: SQL (statements.py, append.py), connections (servers.py, pool.py),
how pages are read (reader.py) and events written (writer.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from eventfold.core.envelope import Receipt
from eventfold.core.query import Query
from eventfold.core.renamed import check_keywords
from eventfold.engines.postgres import schema
from eventfold.engines.postgres.connection import Mode, ResultRows
from eventfold.engines.postgres.integrity import IntegrityCheck
from eventfold.engines.postgres.listen import Listener
from eventfold.engines.postgres.named_locks import NamedLocks
from eventfold.engines.postgres.options import ServerAddress, parse_url, quote_identifier, target_url
from eventfold.engines.postgres.pool import TargetPools
from eventfold.engines.postgres.reader import PostgresReader
from eventfold.engines.postgres.replication import Replication
from eventfold.engines.postgres.servers import Servers
from eventfold.engines.postgres.snapshots import PostgresSnapshots
from eventfold.engines.postgres.statements import STATS_COLUMNS, ReadStatements
from eventfold.engines.postgres.transactions import TransactionalAppends
from eventfold.engines.postgres.writer import PostgresWriter
from eventfold.errors import NotSupported
from eventfold.ports.integrity import Problem, Progress
from eventfold.ports.messages import AppendRequest, Capabilities, Head, Outcome, Page, Span, TagCount, TypeCount
from eventfold.ports.services import ReindexResult, RestoreResult, Services, UpgradeResult


class PostgresEngine:
    """One log in one schema of a PostgreSQL database; any number of processes may use it at once.

    `mode`: whether calls block ("sync") or run on an asyncio event loop ("async"). `create`: whether to create a
    store that does not exist. For the other options see `PostgresOptions`.
    """

    name = "postgres"

    def __init__(self, url: str, *, mode: Mode = "sync", create: bool = True, **options: Any) -> None:
        check_keywords("PostgresEngine", options)
        plain_url, self.options = parse_url(url, options)
        self.capabilities = Capabilities(suspends=mode == "async", blocks=mode == "sync", releases_interpreter=True)
        self._default_target = target_url(plain_url, self.options.schema)
        self._given_options: dict[str, Any] = {**options, "schema": self.options.schema}
        self._blocking_pool_size = self.options.pool  # of the engine that `blocking_engine` returns
        self._schema = quote_identifier(self.options.schema)
        self._sql = ReadStatements(self._schema)
        self._servers = Servers(plain_url, self.options, mode, create, self._forget_epoch)
        self._reader = PostgresReader(self._servers)
        self._writer = PostgresWriter(self._servers, self._reader)
        self._locks = NamedLocks(self._servers, mode)
        self._listener: Listener | None = None
        self.services = Services(
            lookups=self._reader,
            snapshots=PostgresSnapshots(self._servers),
            locks=self._locks,
            replication=Replication(self._servers, self._writer),
            inline=self._writer if mode == "sync" else None,  # an event loop folds nothing: `blocking` does
            transactions=TransactionalAppends(self._servers, self._reader),
            maintenance=self,
            blocking=self,
            lend=self.lend,
        )

    def _forget_epoch(self) -> None:
        self._writer.forget_epoch()
        self._reader.forget_epoch()

    @property
    def store_id(self) -> str:
        """See the port."""
        return self._servers.store_id

    @property
    def epoch(self) -> int:
        """See the port."""
        return self._servers.epoch

    @property
    def default_target(self) -> str:
        """See the port: the schema of the log, on the primary. Contains the password if the address does."""
        return self._default_target

    # Opening, closing, maintenance

    async def open(self) -> None:
        """See the port."""
        await self._servers.open()

    async def close(self) -> None:
        """See the port."""
        await self._locks.close()
        await self._servers.close()
        if self._listener is not None:  # it notifies once more, so that callers that wait learn of the close
            if self.capabilities.suspends:
                await asyncio.to_thread(self._listener.close)
            else:
                self._listener.close()

    def blocking_engine(self) -> PostgresEngine:
        """Another engine on the same store, not opened yet, whose calls block: read models run with it."""
        options: dict[str, Any] = {**self._given_options, "pool": self._blocking_pool_size}
        return PostgresEngine(self._default_target, create=False, **options)

    async def share(self) -> None:
        """Give half of the connections to the engine that `blocking_engine` returns. Call it once, before that."""
        self._blocking_pool_size = await self._servers.give_up_half()

    async def lend(self, address: ServerAddress) -> TargetPools | None:
        """Connections of this engine for read models at an address; None if the address is another server's."""
        if self.capabilities.suspends or address.parameters != self._servers.primary.parameters:
            return None
        return await self._servers.target_pools()

    async def upgrade(self, copy: str | None = None, *, copies: bool = True) -> UpgradeResult:
        """Bring a store of an older layout to this version's. Needs the rights of the store's owner.

        Call it on an engine that is not open. No copy is made: `copy` is refused, and so is an upgrade with `copies`,
        which must be False to say that a backup exists. Processes of the older layout can write no more afterwards.
        Raises NotSupported, StoreBusy while the store is in use, StoreUnavailable: nothing was changed then.
        """
        if copy is not None and copies:
            raise NotSupported(
                "A PostgreSQL store is upgraded in one transaction, and no copy of it is written to a file.",
                "Make one by pg_dump, then upgrade with --no-backup.",
                engine=self.name,
            )
        return UpgradeResult(await self._servers.upgrade(has_backup=not copies), schema.LAYOUT)

    async def reindex(self) -> ReindexResult:
        """Raises NotSupported: the server maintains and rebuilds its indexes itself."""
        raise NotSupported(
            "A PostgreSQL server maintains the indexes of a store itself.",
            "Rebuild them by the server's own command: REINDEX SCHEMA.",
            engine=self.name,
        )

    async def restored(self) -> RestoreResult:
        """Begin a new epoch after a restore by other tools. Needs the rights of the store's owner.

        Call it on an engine that is not open, before anything uses the store; the engine is closed afterwards. Raises
        StoreUnavailable.
        """
        try:
            return RestoreResult(*await self._servers.begin_epoch())
        finally:
            await self.close()

    async def check(self, progress: Progress = lambda _done, _all: None) -> AsyncIterator[Problem]:
        """Compare everything in the store that is written twice, and yield what differs.

        Reads verify what they find; only this finds what a damaged index hides. `progress` is called with the number of
        events compared so far and in all. Appends and reads may continue meanwhile. The primary is asked.
        """
        servers = self._servers

        async def run_query(sql: str, values: Sequence[Any]) -> ResultRows:
            return await servers.query(sql, values, primary=True)

        async for problem in IntegrityCheck(run_query, self._schema, self.store_id, servers.unplaced).problems(
            progress
        ):
            yield problem

    async def stats(self) -> dict[str, Any]:
        """See the port."""
        servers = self._servers
        return {
            "engine": self.name,
            "schema": self.options.schema,
            "server": servers.primary.where,
            "replica": servers.replica.where if servers.replica else None,
            "pooler": servers.behind_pooler,
            "listener": self._listener.mode if self._listener else "idle",
            "layout": schema.LAYOUT,
            **dict(zip(STATS_COLUMNS, (await servers.query(self._sql.stats))[0], strict=True)),
        }

    # Appending

    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """See the port."""
        return await self._writer.append_many(requests)

    async def receipt_of(self, key: str) -> Receipt | None:
        """See the port."""
        return await self._reader.receipt_of(key)

    # Reading

    async def read(self, query: Query, span: Span) -> Page:
        """See the port."""
        return await self._reader.read(query, span)

    async def head(self) -> Head:
        """See the port."""
        return await self._reader.head()

    async def count(self, query: Query, after: int = 0, until: int | None = None) -> int:
        """See the port."""
        return await self._reader.count(query, after, until)

    async def position_at(self, time: int) -> int:
        """See the port."""
        return await self._reader.position_at(time)

    async def event_id(self, position: int) -> bytes | None:
        """See the port."""
        event = await self._reader.event_at(position)
        return event.id if event else None

    async def boundary(self, position: int) -> int:
        """See the port."""
        event = await self._reader.event_at(position)
        return event.last if event else position

    async def types(self) -> list[TypeCount]:
        """See the port."""
        return await self._reader.types()

    async def tags(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[TagCount]:
        """See the port."""
        rows = await self._servers.query(*self._sql.tags(prefix, limit, after)) if limit > 0 else []
        return [TagCount(*row) for row in rows]

    def watch(self, notify: Callable[[], None]) -> Callable[[], None]:
        """See the port."""
        if self._listener is None:
            poll_interval_s = self.options.poll if self._servers.behind_pooler else None
            primary, replica = self._servers.primary, self._servers.replica
            self._listener = Listener(primary, replica, self._sql.head, self.options.schema, poll_interval_s)
        return self._listener.watch(notify)
