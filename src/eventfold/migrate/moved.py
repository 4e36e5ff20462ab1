"""Tables that were cut over, as long as they are: their rows follow the events, and their other writers are refused.

Knows: the block, the reverse projection, the ledger. Does not know: when tables are cut over, or rolled back.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import msgspec

from eventfold.concurrency import run
from eventfold.core.query import Query
from eventfold.errors import CaptureStopped
from eventfold.log.read import Bounds, Reader
from eventfold.migrate.blocks.block import Block, Refusal
from eventfold.migrate.connection import Connection
from eventfold.migrate.decided import DecidedEvents
from eventfold.migrate.plan import Plan
from eventfold.migrate.progress import AlarmRaised, Ledger, WriterRefused
from eventfold.migrate.reflection import Table
from eventfold.migrate.reverse import ReverseProjection, Written, is_of_migration
from eventfold.migrate.sources.source import Recorder

LOOKED_S = 1.0  # between two looks at refusals and the block


class MovedTables:
    """Tables of a migration that are cut over, or are about to be. `connection` may write.

    What is written here passes the block, and is not captured.
    """

    def __init__(
        self, ledger: Ledger, plan: Plan, labels: Sequence[str], connection: Connection, recorder: Recorder
    ) -> None:
        self._ledger, self._connection = ledger, connection
        self._looked = 0.0
        self.plan = plan.only(labels)
        self.block = block_of(connection, ledger.name)
        (first, last), (before, after) = self.block.permitted, recorder.unrecorded
        self.projection = ReverseProjection(
            ledger.store, self.plan, connection, ledger.name, (*first, *before), (*after, *last)
        )

    @property
    def tables(self) -> list[Table]:
        """The tables, in the order of loading."""
        return list(self.plan.tables.values())

    def catch_up(self) -> Written:
        """Write the rows of everything that was decided. Raises as ReverseProjection.catch_up does."""
        return self.projection.catch_up()

    def follow(self) -> None:
        """Write what was decided since the last call; from time to time, look who was refused, and at the block."""
        self.catch_up()
        if time.monotonic() - self._looked > LOOKED_S:
            self.record_refusals()
            self.check_block()
            self._looked = time.monotonic()

    def record_refusals(self) -> int:
        """Record which writers were refused since the last look, by their origin. Returns how many were."""
        known = self._ledger.read().refusals_read
        found = self.block.refusals(known)
        by_origin: dict[tuple[str, ...], list[Refusal]] = {}
        for each in found.found:
            origin = (each.table, each.operation, each.application, each.user, each.address)
            by_origin.setdefault(origin, []).append(each)
        facts = [_fact(self._ledger.name, some[-1], len(some)) for some in by_origin.values()]
        if found.lost:
            facts.append(WriterRefused(self._ledger.name, found.last, found.lost))
        for fact in sorted(facts, key=lambda each: each.number):  # the greatest number comes last
            self._ledger.add(fact)
        return sum(each.count for each in facts)

    def check_block(self) -> None:
        """Raise CaptureStopped, after an alarm was recorded, if the block of a table is not complete any more."""
        gaps = self.block.gaps(self.tables)
        if not gaps:
            return
        label = gaps[0]
        what = f"the block of {', '.join(gaps[:10])} was dropped or switched off, so others may have written"
        self._ledger.add(AlarmRaised(self._ledger.name, "bypassed", label, what))
        raise CaptureStopped(
            f"The migration stopped: {what}.",
            "Find out who did it: the owner of the table or a superuser. Then run `eventfold migrate cutover --only "
            f"{label}` again, which blocks and compares.",
            kind="bypassed",
            table=label,
            key="",
        )

    def decided_after(self, position: int, labels: Sequence[str]) -> Counter[str]:
        """Return how many events of decisions there are of some of the tables behind a position, by type."""
        decided = DecidedEvents(self.plan.events)
        query = Query.of(types=DecidedEvents(self.plan.only(labels).events).types)
        reader = Reader(self._ledger.store.projections.log, query, Bounds(after=position), raw=True)
        found: Counter[str] = Counter()
        while (page := run(reader.next_stored())) is not None:
            own = [each for each in page if not is_of_migration(each)]
            found.update(each.type for each in own if decided.read(each).label in labels)
        return found


def block_of(connection: Connection, name: str) -> Block:
    """Return the block of a source."""
    match connection.dialect:
        case "sqlite":
            from eventfold.migrate.blocks.sqlite_block import SqliteBlock

            return SqliteBlock(connection, name)
        case "postgresql":
            from eventfold.migrate.blocks.postgres_block import PostgresBlock

            return PostgresBlock(connection, name)
        case _:
            from eventfold.migrate.blocks.mariadb_block import MariadbBlock

            return MariadbBlock(connection, name)


def _fact(name: str, last: Refusal, count: int) -> WriterRefused:
    return WriterRefused(name, count=count, **msgspec.structs.asdict(last))
