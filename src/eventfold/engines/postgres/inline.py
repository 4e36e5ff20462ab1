"""Room: read models that every append keeps up: appends in which rows are folded, and turns in which nobody appends.

Knows: how often a batch is begun anew, and without whom. Does not know: how events are folded (the folder does), what
an append's outcomes mean. In the blocking colour only: folding is work, and no work for an event loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec
import psycopg
from psycopg import errors as pg

from eventfold.core.envelope import Stored, within
from eventfold.core.mutex import Mutex
from eventfold.core.query import Query
from eventfold.engines.postgres.append import Answer, Batch, answered, batches, written
from eventfold.engines.postgres.arrays import texts
from eventfold.engines.postgres.checksums import checksum
from eventfold.engines.postgres.connection import Rows
from eventfold.engines.postgres.options import lock_of, quoted
from eventfold.engines.postgres.pool import Holders
from eventfold.engines.postgres.servers import Link
from eventfold.errors import AppendUnconfirmed, EventfoldError, InlineFailed, NotSupported, StoreDamaged
from eventfold.ports.engine import PAGE_BYTES, Folder, Folding, Page, Span, Stale, Turn
from eventfold.ports.inline import Inlined, lacking

STRETCH = 2_000  # positions read at once in a turn

T = TypeVar("T")
Statement = Callable[[Link, Batch, bool], tuple[str, Sequence[Any]]]
Reader = Callable[[Rows], list[Stored]]


class Folded(msgspec.Struct, frozen=True):
    """What became of a batch: the part that was written or judged, where its requests stand in the batch, the answer.

    `refused`: those that could not be folded, by their place in the batch.
    """

    part: Batch
    places: Sequence[int]
    answer: Answer | None
    refused: dict[int, EventfoldError]


class Inline:
    """What an engine knows of read models that every append keeps up."""

    def __init__(self, schema: str, patience: Callable[[], int], holders: Holders) -> None:
        self.folder: Folder | None = None
        self._schema, self._patience, self._holders = schema, patience, holders
        self._left = False  # whether the last transaction failed, perhaps before it could be forgotten
        self._mutex = Mutex()  # what the folder remembers is of one transaction after the other
        self.sql = f"SELECT name, code, types, ticket, crc FROM {quoted(schema)}.inlined ORDER BY name"  # noqa: S608

    @property
    def brought(self) -> dict[str, Any]:
        """The argument of `append` that says whose code is here."""
        if self.folder is None or not self.folder.codes:
            return {}
        return {"brought": texts([f"{name} {code}" for name, code in self.folder.codes.items()])}

    async def _begin(self, link: Link) -> None:
        """A transaction in which rows are found where a target of this store finds them, and read alike."""
        self._holders.add(link.loan)
        await link.script(
            f"BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL search_path = {quoted(self._schema)};"
            f" SET LOCAL TimeZone = 'UTC'; SET LOCAL lock_timeout = {self._patience()};"
            " SET LOCAL enable_seqscan = on; SET LOCAL plan_cache_mode = auto"
        )

    async def append(self, link: Link, batch: Batch, statement: Statement) -> Folded:
        """One commit of events and rows. What cannot be folded is left out, and the rest done again without it."""
        return self._mutex.run_user_code(_drive, self._alone(self._append(link, batch, statement)))

    async def _alone(self, work: Coroutine[Any, Any, T]) -> T:
        if self._left and self.folder is not None:
            self.folder.forget()
        self._left = True
        result = await work
        self._left = False
        return result

    async def _append(self, link: Link, batch: Batch, statement: Statement) -> Folded:
        refused: dict[int, EventfoldError] = {}
        careful = at_once = again = False
        while True:
            places = [place for place in range(len(batch.requests)) if place not in refused]
            if not places:
                return Folded(batch, (), None, refused)
            part = batch
            if refused:
                part = next(batches([batch.requests[place] for place in places]))
                part = msgspec.structs.replace(part, standing=batch.standing)
            try:
                answer, failed = await self._attempt(link, part, statement(link, part, careful), at_once)
            except pg.UniqueViolation:  # an id is known already
                if careful:
                    raise
                careful = True
            except InlineFailed:  # a row that the database does not take: whose is it?
                if at_once:
                    raise
                at_once = True
            except Stale as stale:
                if again:
                    raise stale.__cause__ or stale from None
                again = True
            else:
                if not failed:
                    return Folded(part, places, answer, refused)
                refused |= {places[index]: error for index, error in failed.items()}

    async def _attempt(
        self, link: Link, part: Batch, statement: tuple[str, Sequence[Any]], at_once: bool
    ) -> tuple[Answer, dict[int, EventfoldError]]:
        folding, head = None, None
        assert self.folder is not None
        await self._begin(link)
        try:
            answer = answered(await link.fetch(statement[0], statement[1], prepare=True))
            folding = self.folder.begin(link.connection, answer.head, parsed(answer.folded))
            last, failed = _take(folding, part, answer, at_once)
            if not failed:
                folding.write()
                await link.fetch("COMMIT")
                head = last
        finally:
            try:
                if folding is not None:
                    folding.end(head)
                await _rolled_back(link)
            except Exception as error:
                if head is None:
                    raise
                raise AppendUnconfirmed(
                    f"The append was committed, and what follows failed ({type(error).__name__}: {error}).",
                    "Repeat the identical append: it will not be written twice.",
                ) from error
        return answer, failed

    async def turn(self, link: Link, work: Callable[[Turn], Awaitable[None]], page: Any, events: Reader) -> None:
        """See Engine.in_turn. `page` words a question, `events` reads the answer."""
        self._mutex.run_user_code(_drive, self._alone(self._turn(link, work, page, events)))

    async def _turn(self, link: Link, work: Callable[[Turn], Awaitable[None]], page: Any, events: Reader) -> None:
        await self._begin(link)
        try:
            await link.fetch(f"SELECT pg_advisory_xact_lock({lock_of(self._schema)})")
            sql = f"SELECT coalesce(max(position), 0) FROM {quoted(self._schema)}.event"  # noqa: S608
            head: int = (await link.fetch(sql))[0][0]
            await work(PostgresTurn(link, self._schema, head, read(await link.fetch(self.sql)), page, events))
            await link.fetch("COMMIT")
        finally:
            await _rolled_back(link)


class PostgresTurn:
    """See engine.Turn."""

    def __init__(
        self, link: Link, schema: str, head: int, inlined: Sequence[Inlined], page: Any, events: Reader
    ) -> None:
        self.connection, self.head, self.inlined = link.connection, head, inlined
        self._link, self._page, self._events = link, page, events
        self._table = f"{quoted(schema)}.inlined"

    async def read(self, query: Query, after: int) -> Page:
        """See the port."""
        until = min(after + STRETCH, self.head)
        events = await self._asked(query, Span(after=after, until=until), STRETCH)
        size = within(events, len(events), PAGE_BYTES)
        if size == len(events):
            return Page(events, until, until < self.head)
        del events[size:]
        edge = events[-1]
        if edge.position < min(edge.last, until):
            events += await self._asked(query, Span(after=edge.position, until=min(edge.last, until)), None)
        return Page(events, events[-1].position, True)

    async def _asked(self, query: Query, span: Span, limit: int | None) -> list[Stored]:
        sql, values = self._page(query, span, limit)
        return self._events(await self._link.fetch(sql, values))

    async def enrol(self, inlined: Inlined) -> None:
        """See the port."""
        await self.dismiss(inlined.name)
        values = [inlined.name, inlined.code, texts(inlined.types), inlined.ticket, _checksum(inlined)]
        sql = f"INSERT INTO {self._table} (name, code, types, ticket, crc) VALUES (%b, %b, %b, %b, %b)"  # noqa: S608
        await self._link.fetch(sql, values)

    async def dismiss(self, name: str) -> None:
        """See the port."""
        await self._link.fetch(f"DELETE FROM {self._table} WHERE name = %b", [name])  # noqa: S608


def _take(folding: Folding, part: Batch, answer: Answer, at_once: bool) -> tuple[int | None, dict[int, EventfoldError]]:
    """Fold what was written; the last position, and what could not be folded.

    What was built on something that could not be folded is not judged by that: without it, it is not written either.
    """
    failed: dict[int, EventfoldError] = {}
    gone: set[bytes] = set()
    last = None
    for index, first in written(part, answer):
        request = part.requests[index]
        size = len(request.events)
        last = first + size - 1
        if any(clause.behind in gone for clause in request.unless if clause.behind is not None):
            gone.add(request.events[-1].id)
            continue
        if any(event.type in folding.types for event in request.events):
            stored = [
                event.at(first + offset, answer.time, offset, size) for offset, event in enumerate(request.events)
            ]
            error = folding.take(stored, at_once)
            if error is not None:
                failed[index] = error
                gone.add(request.events[-1].id)
    return last, failed


def _drive(work: Coroutine[Any, Any, T]) -> T:
    """Run what never suspends, since its connection blocks."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    work.close()
    raise RuntimeError("a connection that blocks has suspended")


async def _rolled_back(link: Link) -> None:
    if not link.closed and not link.idle():
        try:
            await link.fetch("ROLLBACK")
        except psycopg.Error:  # it is gone, and with it the transaction; whoever takes it back closes it
            return


def parsed(folded: Sequence[str] | None) -> list[Inlined]:
    """The read models that `append` told of."""
    found: list[Inlined] = []
    for text in folded or ():
        name, code, ticket, *types = text.split("\n")
        found.append(Inlined(name, code, tuple(types), ticket))
    return found


def read(rows: Rows) -> list[Inlined]:
    """The read models in the table. Raises StoreDamaged if a row is not as it was written."""
    found: list[Inlined] = []
    for name, code, types, ticket, crc in rows:
        each = Inlined(name, code, tuple(types), ticket)
        if _checksum(each) != crc:
            raise StoreDamaged(
                f"The registration of the read model {name!r} does not have its checksum.",
                "Keep a copy of the database as it is, check the server's disk, and restore a backup.",
                projection=name,
            )
        found.append(each)
    return found


def _checksum(inlined: Inlined) -> int:
    """See `checksum` in sql/guard.sql."""
    return checksum("\n".join((inlined.name, inlined.code, inlined.ticket, *inlined.types)))


def why(inlined: Sequence[Inlined], folder: Folder | None, batch: Batch, place: int) -> EventfoldError | None:
    """Why a request of a batch was refused in which some code was lacking; None: for the sake of others."""
    codes = dict[str, str]() if folder is None else folder.codes
    return lacking(inlined, codes, [event.type for event in batch.requests[place].events])


def unsupported() -> NotSupported:
    """For the other colour."""
    return NotSupported(
        "An engine on an event loop folds no read models within its appends.",
        "Name them where the store is opened: AsyncStore(url, inline=[…]); it then appends by an engine that blocks.",
        engine="postgres",
        capability="inline",
    )
