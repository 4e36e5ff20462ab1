"""Room: the writing half of the engine: batches appended, with rows folded from them where there are any, and answered.

Knows: what to make of each answer. Does not know: how a batch is phrased (append.py), over which connection it goes
(servers.py), how rows are folded (inline.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec
import psycopg
from psycopg import errors as pg

from eventfold.core.envelope import Receipt, Staged, Stored, receipt
from eventfold.core.moment_tags import is_moment
from eventfold.core.query import Clause, Query
from eventfold.engines.postgres import inline, transactions
from eventfold.engines.postgres.append import (
    Batch,
    OtherEpoch,
    answered,
    arguments,
    batches,
    call,
    how,
    outcomes,
    repeats_itself,
)
from eventfold.engines.postgres.arrays import uuids
from eventfold.engines.postgres.checksums import first_of, missing, verified, whole
from eventfold.engines.postgres.connection import Colour, Rows
from eventfold.engines.postgres.errors import lost, translated, unconfirmed, unreceipted
from eventfold.engines.postgres.inline import Folded, Inline
from eventfold.engines.postgres.options import Options, quoted
from eventfold.engines.postgres.replication import ADOPTED, adopted
from eventfold.engines.postgres.schema import LAYOUT
from eventfold.engines.postgres.servers import Link, Sessions
from eventfold.engines.postgres.spellings import Spellings
from eventfold.engines.postgres.statements import MOST, Reading
from eventfold.errors import (
    AppendConflict,
    AppendUnconfirmed,
    CorruptEvent,
    EventfoldError,
    EventIdReused,
    StoreBusy,
    StoreUnavailable,
)
from eventfold.ports.engine import AppendRequest, Capabilities, Folder, Outcome, Turn
from eventfold.ports.inline import Inlined
from eventfold.ports.refusals import id_reused, is_repeat, not_behind, other_epoch

RECENT = 2_048  # appends
MOST_LOOKS = 8  # attempts at a call while events it is built on are written by others


class Writing:
    """What PostgresEngine writes."""

    def __init__(self, url: str, options: Options, colour: Colour, create: bool) -> None:
        self.options = options
        self.capabilities = Capabilities(suspends=colour == "async", blocks=colour == "sync", inline=colour == "sync")
        self._sessions = Sessions(url, options, colour, create, self._forget)
        self._schema = quoted(options.schema)
        self._spellings = Spellings(self._schema)
        self._sql = Reading(self._schema)
        self._statements: dict[tuple[str, ...], str] = {}
        self._inline = Inline(options.schema, self._sessions.lock_ms, self._sessions.holders)
        self._recent: dict[bytes, int] = {}  # the last events of appends made here, and where they stand
        self._seen = 0  #  the furthest position this engine has come across
        self._floor = 0  # what a reader must see: what a refused writer was told of, and, if asked for, our own writes

    def _forget(self) -> None:
        """Another epoch: what was come across may be lost."""
        self._recent, self._seen, self._floor = {}, 0, 0
        self._spellings.forget()

    @property
    def store_id(self) -> str:
        """See the port."""
        return self._sessions.store_id

    @property
    def epoch(self) -> int:
        """See the port."""
        return self._sessions.epoch

    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """See the port."""
        done: list[Outcome] = []
        requests = await self._spelled_out(requests)
        for batch in batches(requests) if requests else ():
            try:
                done += await self._append(batch)
            except EventfoldError as error:
                if not done:
                    raise
                # An earlier part is written already: what this part met is the outcome of its own requests.
                done += [error] * len(batch.requests)
        for number, outcome in enumerate(done):
            if isinstance(outcome, EventIdReused):
                done[number] = await self._as_spelled_before(requests[number]) or outcome
        return done

    async def _spelled_out(self, requests: Sequence[AppendRequest]) -> Sequence[AppendRequest]:
        """The requests, their conditions with every spelling that the log has of the moments in them."""
        if not any(clause.query.names_moments() for request in requests for clause in request.unless):
            return requests
        result: list[AppendRequest] = []
        for request in requests:
            clauses = [Clause(await self._spelled(c.query, MOST), c.after, c.behind) for c in request.unless]
            result.append(msgspec.structs.replace(request, unless=tuple(clauses)))
        return result

    async def _spelled(self, query: Query, through: int | None = None) -> Query:
        """The query with other spellings of its moments, at least those up to a position; None: the furthest known."""
        if not query.names_moments():
            return query
        ask = partial(self._sessions.ask, primary=True)
        return await self._spellings.all_of(query, self._seen if through is None else through, ask)

    async def _as_spelled_before(self, request: AppendRequest) -> Receipt | None:
        """The receipt of an append that wrote these events, with their moments in another time zone, if one did."""
        if not any(is_moment(tag) for event in request.events for tag in event.tags):
            return None
        rows = await self._sessions.ask(self._sql.known, [uuids([request.events[0].id])], primary=True)
        if not rows:
            return None
        stored = self._verified(await self._sessions.ask(self._sql.append, [rows[0][0]], primary=True))
        if len(stored) != len(request.events) or not is_repeat(request.events, stored):
            return None
        return receipt(self.store_id, self.epoch, stored, repeated=True)

    async def _append(self, batch: Batch) -> list[Outcome]:
        if repeats_itself(batch.requests[0]):
            return [await self._twice(batch.requests[0])]
        if any(_is_old(request, self.epoch) for request in batch.requests):
            return await self._without_old(batch.requests)
        if behind := batch.behind():
            batch = msgspec.structs.replace(batch, standing=await self._standing(behind))
        for _ in range(MOST_LOOKS):
            try:
                done, epoch = await self._commit(batch)
            except OtherEpoch:
                return await self.append_many(batch.requests)
            if done is not None:
                return await self._outcomes(done, epoch)
            batch = msgspec.structs.replace(batch, standing=await self._standing(batch.behind(all=True)))
        raise StoreBusy(
            "Others kept writing the events that this append is built on while it was judged; nothing was written.",
            "Try again.",
        )

    async def _without_old(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """Refuse those whose conditions were read in another epoch, unless they repeat an append; append the others."""
        done, others = dict[int, Outcome](), list[int]()
        for number, request in enumerate(requests):
            if _is_old(request, self.epoch) and not await self._is_known(request):
                done[number] = other_epoch(request.unless[0], request.epoch or 0, self.epoch)
            else:
                others.append(number)
        # Those that are known are not judged by their condition.
        again = [msgspec.structs.replace(requests[number], epoch=None) for number in others]
        done.update(zip(others, await self.append_many(again), strict=True))
        return [done[number] for number in range(len(done))]

    async def _is_known(self, request: AppendRequest) -> bool:
        """Whether the request's key, or an event of it, is in the store: then it writes nothing."""
        if request.key is not None and await self._sessions.ask(self._sql.request, [request.key], primary=True):
            return True
        ids = uuids([event.id for event in request.events])
        return bool(await self._sessions.ask(self._sql.known, [ids], primary=True))

    async def _commit(self, batch: Batch) -> tuple[Folded | None, int]:
        """Judge and write; in which epoch. None: a condition begins behind an event of this call that is in the log.

        Then nothing was written, and it is to be looked up where that event stands: most calls have no such event.
        Raises OtherEpoch: nothing was written either, and the new one is known from now on.
        """
        return await self._sessions.writers.lend(partial(self._commit_over, batch))

    async def _commit_over(self, batch: Batch, link: Link) -> tuple[Folded | None, int]:
        try:
            if any(_is_old(request, link.epoch) for request in batch.requests):
                raise OtherEpoch
            if self._inline.folder is not None:
                done = await self._inline.append(link, batch, self._statement)
            else:
                try:
                    rows = await link.fetch(*self._statement(link, batch), prepare=True)
                except pg.UniqueViolation:
                    # An id is known already. Looking first would cost every append what this costs a few.
                    rows = await link.fetch(*self._statement(link, batch, True), prepare=True)
                done = Folded(batch, range(len(batch.requests)), answered(rows), {})
            self._refuse_if_local(link)
        except psycopg.Error as error:
            if error.sqlstate == "EF010":
                return None, link.epoch
            raise self._failed(error, link) from None
        except OtherEpoch:
            await self._sessions.look(link)
            raise
        return done, link.epoch

    def _statement(self, link: Link, batch: Batch, careful: bool = False) -> tuple[str, tuple[Any, ...]]:
        given = arguments(batch) | how(batch, self._seen) | self._inline.brought
        if link.pooled:
            given["patience"] = self._sessions.lock_ms()
        if careful:
            given["careful"] = True
        names = tuple(given)
        if names not in self._statements:
            self._statements[names] = self._in_epoch(call(f"{self._schema}.append", given))
        return self._statements[names], (*given.values(), link.epoch)

    def _in_epoch(self, function: str) -> str:
        """The call, made only where the store is in the epoch that is the statement's last parameter.

        An argument that depends on the store's row keeps the planner from making the call first.
        """
        function = function.replace("%b::uuid[]", "CASE WHEN s.one THEN %b::uuid[] END", 1)
        return f"SELECT a.* FROM {self._schema}.store s CROSS JOIN LATERAL {function} a WHERE s.epoch = %b"

    async def _standing(self, identities: list[bytes]) -> dict[bytes, int]:
        """Where events stand in the log, those that do; mostly they were written by us a moment ago."""
        found = {identity: self._recent[identity] for identity in identities if identity in self._recent}
        if unknown := [identity for identity in identities if identity not in found]:
            rows = await self._sessions.ask(self._sql.known, [uuids(unknown)], primary=True)
            found |= {bytes(identity): position for position, identity in rows}
        return found

    async def _twice(self, request: AppendRequest) -> Outcome:
        """The outcome of a request in which two events have the same id."""
        if request.key is not None and (known := await self.request(request.key)) is not None:
            return msgspec.structs.replace(known, repeated=True)
        rows = await self._sessions.ask(self._sql.known, [uuids([event.id for event in request.events])], primary=True)
        at = {event_id: position for position, event_id in rows}
        return id_reused(request.events, [at.get(event.id) for event in request.events])

    def _failed(self, error: psycopg.Error, link: Link) -> EventfoldError:
        """What became of something that was to be written: open, if the connection is gone, and nothing otherwise."""
        where = self._sessions.primary.where
        if lost(error, link.closed):
            return unconfirmed(error, where)
        if error.sqlstate == "EF007":
            return not_behind(int(error.diag.message_detail or 0), 0)
        return translated(error, where)

    def _refuse_if_local(self, link: Link) -> None:
        if link.only_local:
            link.only_local = False
            raise AppendUnconfirmed(
                "The append was committed here, and the wait for the standby that should have it too was cancelled.",
                "Check the standby, then repeat the identical append, which is safe.",
                server=self._sessions.primary.where,
            )

    async def _outcomes(self, done: Folded, epoch: int) -> list[Outcome]:
        result: dict[int, Outcome] = dict(done.refused)
        found = outcomes(done.part, done.answer, self.store_id, epoch) if done.answer is not None else []
        for place, outcome in zip(done.places, found, strict=True):
            if outcome is not None:
                result[place] = await self._repeated(outcome) if isinstance(outcome, int) else outcome
                self._learn(result[place])
        if None in found:
            await self._tell_lacking(done, [n for n, outcome in enumerate(found) if outcome is None], result)
        return [result[place] for place in range(len(result))]

    async def _repeated(self, position: int) -> Outcome:
        """The first receipt of an append that was repeated, or why it cannot be given: an outcome, never raised.

        Others of the same call may have been written by now, and an error raised would say that nothing was.
        """
        try:
            return await self._receipt_at(position, repeated=True)
        except StoreUnavailable as error:
            return unreceipted(error, self._sessions.primary.where)
        except CorruptEvent as error:
            return error

    async def _tell_lacking(self, done: Folded, numbers: list[int], result: dict[int, Outcome]) -> None:
        """Refuse those of a call whose events somebody's code was lacking for; the others are appended without them."""
        inlined, others = await self.inlined(), list[int]()
        for number in numbers:
            if (error := inline.why(inlined, self._inline.folder, done.part, number)) is not None:
                result[done.places[number]] = error
            else:
                others.append(number)
        again = await self.append_many([done.part.requests[number] for number in others])
        result.update((done.places[number], outcome) for number, outcome in zip(others, again, strict=True))

    def _learn(self, outcome: Outcome) -> None:
        if isinstance(outcome, Receipt):
            recent = self._recent  # before the epoch is looked at: see Sessions.begin
            if outcome.epoch != self.epoch:
                return
            self._sessions.saw(outcome.last, outcome.epoch, outcome.ids[-1])
            self._seen = max(self._seen, outcome.last)
            recent[outcome.ids[-1]] = outcome.last
            if len(recent) > RECENT:
                recent.pop(next(iter(recent)), None)
            if self.options.read_your_writes:
                self._floor = max(self._floor, outcome.last)
        elif isinstance(outcome, AppendConflict):
            self._floor = max(self._floor, outcome.fields["found"])

    async def append_joined(self, connection: Any, requests: Sequence[AppendRequest]) -> list[Staged]:
        """Append within the user's own transaction on `connection`: it commits or rolls back with it.

        `connection`: psycopg's, SQLAlchemy's Connection or Session (async ones too), or Django's. Positions are
        assigned and conditions judged at its COMMIT, which fails (see `refusal`) if one does not hold. What is
        returned has no positions yet; `confirm` gives the receipt afterwards. Raises InvalidInput on a connection
        that is in no transaction or in one of another isolation level than READ COMMITTED.
        """
        for request in requests:
            if _is_old(request, self.epoch):
                raise other_epoch(request.unless[0], request.epoch or 0, self.epoch)
        epoch, where = self.epoch, self._sessions.primary.where
        requests = await self._spelled_out(requests)
        try:
            return await transactions.stage(connection, requests, self._schema, self.store_id, epoch, where)
        except OtherEpoch:
            await self._sessions.ask(self._sql.store_epoch, primary=True, epoch=True)  # it is known from now on
            raise other_epoch(next(r.unless[0] for r in requests if r.unless), epoch, self.epoch) from None

    async def staged(
        self, connection: Any, types: Sequence[str] | None = None, key: str | None = None
    ) -> list[tuple[Stored, str | None]]:
        """What `append_joined` has staged in the connection's transaction: events in order, each with its request key.

        Of appends that have an event of one of these types (None: any type), and of the one under this key; other
        events of these come along. What was rolled back to a savepoint is not among them. Before the COMMIT their
        position is 0.
        """
        where = self._sessions.primary.where
        return await transactions.staged_before(connection, self._schema, types, key, where)

    async def confirm(self, staged: Staged) -> Receipt | None:
        """The receipt of a joined append after its COMMIT; None if it was not committed.

        Raises AppendUnconfirmed where that cannot be looked up now.
        """
        try:
            rows = await self._sessions.ask(self._sql.known, [uuids(staged.ids[:1])], primary=True)
            found = await self._receipt_at(rows[0][0], repeated=False) if rows else None
        except StoreUnavailable as error:
            raise AppendUnconfirmed(
                f"Whether the joined append was committed could not be looked up: {error.what}",
                "Ask again (confirm), before anything is appended in its place.",
                cause=error.code,
                server=self._sessions.primary.where,
            ) from error
        if found is None or found.ids != staged.ids or found.digest != staged.digest:
            return None
        return msgspec.structs.replace(found, repeated=found.last <= staged.after)

    def fold_with(self, folder: Folder) -> None:
        """See the port."""
        if not self.capabilities.inline:
            raise inline.unsupported()
        self._inline.folder = folder

    async def inlined(self) -> list[Inlined]:
        """See the port."""
        return inline.read(await self._sessions.ask(self._inline.sql, primary=True))

    async def in_turn(self, work: Callable[[Turn], Awaitable[None]]) -> None:
        """See the port."""
        if not self.capabilities.inline:
            raise inline.unsupported()
        await self._sessions.writers.lend(partial(self._turn_over, work))

    async def _turn_over(self, work: Callable[[Turn], Awaitable[None]], link: Link) -> None:
        try:
            await self._inline.turn(link, work, self._sql.page, self._events)
            self._refuse_if_local(link)
        except psycopg.Error as error:
            raise self._failed(error, link) from None

    async def adopt(self, events: Sequence[Stored], keys: Sequence[tuple[str, int]] = ()) -> None:
        """See the port. Needs the rights of the store's owner."""
        try:
            await self._own(f"SELECT {self._schema}.adopt({ADOPTED})", adopted(events, keys))
        except AppendConflict as conflict:
            raise not_behind(conflict.fields["found"], events[0].position) from None

    async def succeed(self, store_id: str, epoch: int) -> None:
        """See the port. Needs the rights of the store's owner."""
        try:
            await self._own(f"SELECT {self._schema}.succeed({LAYOUT}, %b, %b)", [store_id, epoch])
        except AppendConflict as conflict:
            raise not_behind(conflict.fields["found"], 1) from None
        self._sessions.store_id = store_id
        self._sessions.begin(epoch)

    async def _own(self, sql: str, values: Sequence[Any]) -> None:
        await self._sessions.writers.lend(partial(self._own_over, sql, values))

    async def _own_over(self, sql: str, values: Sequence[Any], link: Link) -> None:
        try:
            await link.fetch(sql, values)
            self._refuse_if_local(link)
        except psycopg.Error as error:
            raise self._failed(error, link) from None

    async def request(self, key: str) -> Receipt | None:
        """See the port."""
        rows = await self._sessions.ask(self._sql.request, [key], primary=True)
        return await self._receipt_at(first_of(rows[0])[1], repeated=False) if rows else None

    async def _receipt_at(self, position: int, *, repeated: bool) -> Receipt:
        rows = await self._sessions.ask(self._sql.append, [position], primary=True)
        return receipt(self.store_id, self.epoch, whole(self._verified(rows), position), repeated=repeated)

    def _verified(self, rows: Rows) -> list[Stored]:
        return verified(rows, self._sessions.unplaced)

    def _events(self, rows: Rows) -> list[Stored]:
        """A page's rows, each behind head, epoch and the head's id; one without a place stands for no events."""
        if rows[0][3] is None:
            return []
        lost = next((row[3] for row in rows if row[-1] is None), None)  # an event has a checksum
        if lost is not None:
            raise missing(lost)
        return self._verified([row[3:] for row in rows])


def _is_old(request: AppendRequest, epoch: int) -> bool:
    """Whether a request's condition was read in another epoch."""
    return request.epoch is not None and request.epoch != epoch and bool(request.unless)
