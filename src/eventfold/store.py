"""The façade for sync users: `Store`. Each method is a line or two.

Knows: what a user may ask. Does not know: how any of it is done. `AsyncStore` (aio.py) is its twin.
"""

from __future__ import annotations

import copy
import getpass
import os
import platform
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import date
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID

import msgspec

from eventfold.concurrency import CommitSignal, run
from eventfold.core.aggregate import Aggregate
from eventfold.core.envelope import MAX_EVENTS_PER_APPEND, NewEvent, Receipt, Staged
from eventfold.core.event import Recorded
from eventfold.core.query import Cursor, Query
from eventfold.core.renamed import refuse_old_attributes, refuse_old_keywords
from eventfold.core.state import State, Step
from eventfold.errors import InvalidInput
from eventfold.log.append import (
    Asked,
    Unless,
    append,
    append_encoded,
    append_next,
    check_batches,
    query_of,
)
from eventfold.log.context import Command, Options, context, with_options
from eventfold.log.copy import Copied, Progress, with_proof
from eventfold.log.copy import copy as copy_log
from eventfold.log.copy import verify as verify_log
from eventfold.log.cursors import cursor_after, known_position, position_of
from eventfold.log.decide import decide
from eventfold.log.decided import Decided
from eventfold.log.follow import LogFollower
from eventfold.log.lock import acquire, release
from eventfold.log.lock import names_of as lock_names
from eventfold.log.lock_holders import LockSet
from eventfold.log.read import Bounds, History, Reader, event_of, resolve_position, state_at, tag_of
from eventfold.log.state_cache import StateCache
from eventfold.ports.engine import Engine
from eventfold.ports.messages import TagCount, TypeCount
from eventfold.ports.services import require
from eventfold.ports.target import Target
from eventfold.projections.admin import ProjectionAdmin
from eventfold.projections.catalog import Named
from eventfold.projections.catch_up import CATCH_UP_TIMEOUT_S
from eventfold.projections.classes import Projection
from eventfold.projections.definition import ProjectionLike
from eventfold.projections.followers import Follower
from eventfold.projections.handover import Handover
from eventfold.projections.view import View, view
from eventfold.transactions import Joining, confirm
from eventfold.wiring import open_log, projection_admin

if TYPE_CHECKING:
    from eventfold.processes.runner import Clock, ProcessRunner, Work

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=State)
A = TypeVar("A", bound=Aggregate)
M = TypeVar("M", bound=Projection)
St = TypeVar("St", bound="Store")
EVERYTHING = Query()


@refuse_old_attributes("Store")
class Store:
    """A log of events, for sync code. Safe to share between threads; opened once per process, not across a fork.

    `url` a path (a SQLite file), `memory:`, `memory:NAME` or `postgresql://…`, an address with the scheme of another
    installed engine (entry points of the group `eventfold.engines`), or an engine made by hand; `create` makes the
    store if nothing is there; `cache` how many folded states to keep in memory; `snapshots` after how many
    events folded a state is kept beside the log as well (0: never); `inline` read models that every append keeps up,
    in its own transaction, from now on and whoever makes it; `target` the address of a database where read models,
    followers and processes keep rows and progress, or a target made by hand, the same in every process (by default the
    log's own database); other options are the engine's own.

    Raises StoreNotFound, NotAStore, InvalidUrl, MissingExtra, StoreVersionMismatch and their kin.
    """

    def __init__(
        self,
        url: str | Engine,
        *,
        create: bool = True,
        cache: int = 1_000,
        snapshots: int = 1_000,
        inline: Sequence[ProjectionLike] = (),
        target: str | Target | None = None,
        **options: Any,
    ) -> None:
        self._log = open_log(url, StateCache(cache, snapshots), create=create, options=options)
        self.engine, self.registry = self._log.engine, self._log.registry
        self._options = Options()
        self._projections = projection_admin(self._log, target)
        if inline:
            try:
                self._projections.inline(*inline)
            except BaseException:
                self.close()
                raise

    # Writing

    def append(self, *events: Any, unless: Unless = None, after: int | Cursor = 0, key: str | None = None) -> Receipt:
        """Append 1 to 1,000 events: all of them or none, durably, in order, adjacent.

        `unless` the condition: refused with AppendConflict if an event matching this query (or State's
        query) stands after position `after`; or several (query, position) pairs. `key` makes the append
        idempotent: a second one under the same key writes nothing and returns the first one's receipt.
        Raises InvalidEvent, AppendConflict, AppendUnconfirmed, EventIdReused, StoreUnavailable errors.
        """
        return run(append(self._log, self._options, events, unless, after, key))

    def append_encoded(
        self, *events: NewEvent, unless: Unless = None, after: int | Cursor = 0, key: str | None = None
    ) -> Receipt:
        """Append 1 to 1,000 events that are bytes already, of any type: `store.append_encoded(NewEvent.of(…))`.

        For adapters and importers that have no classes. Stored byte for byte; conditions, keys, metadata of the
        context and errors are those of `append`.
        """
        return run(append_encoded(self._log, self._options, events, unless, after, key))

    def extend(
        self,
        events: Iterable[Any],
        *,
        batch: int = MAX_EVENTS_PER_APPEND,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Append any number of events, `batch` at a time (each batch is atomic, the whole is not).

        A batch has fewer events where their payloads come to 8 MiB, so that no more of them is ever held.
        `progress` is called with the count written so far. Returns the count written.
        """
        check_batches(self._options, batch)
        count, rest = 0, iter(events)
        while written := run(append_next(self._log, self._options, rest, batch)):
            count += written
            if progress is not None:
                progress(count)
        return count

    def decide(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Decided[R]:
        """Load every State among the arguments, call the function with them folded, append what it returns.

        Arguments may be lists, tuples and dicts of states, too. Consistent: refused and retried (see
        `using(attempts=)`) if anything its states are folded from was written meanwhile. Errors the function
        raises pass through untouched. Raises InvalidDecision, AppendConflict when the attempts are used up, and
        whatever `append` raises.
        """
        return run(decide(self._log, self._options, function, args, kwargs))

    def change(
        self, method: Callable[Concatenate[A, P], R], aggregate: A, /, *args: P.args, **kwargs: P.kwargs
    ) -> Decided[R]:
        """Call a method of an aggregate, by its class, on one that is loaded; append what it records.

            store.change(Account.withdraw, Account("a-1"), Decimal(5))

        Consistent and retried as `decide` is. Raises what the method raises, and what `decide` raises.
        """
        return self.decide(method, aggregate, *args, **kwargs)

    def using(self: St, *, attempts: int | None = None, command_id: str | None = None, **metadata: Any) -> St:
        """The same store with options: `attempts` for conflicts and lost answers (10), `command_id` to decide
        a command once only, and metadata for whatever is written: `actor`, `correlation_id`, `causation_id`, any key.
        """
        view = copy.copy(self)
        view._options = with_options(self._options, attempts, command_id, metadata)
        return view

    def with_authorization(self: St, by: Callable[[Command], None]) -> St:
        """The same store, where every decision is shown to `by` before anything is read; what it raises refuses it.

        The command has the function, its arguments and the metadata of whoever asks (`actor`).
        """
        view = copy.copy(self)
        view._options = msgspec.structs.replace(self._options, authorise=by)
        return view

    def in_transaction(self, connection: Any) -> Joining:
        """Append and decide within your own transaction, on PostgreSQL: your rows and our events commit together.

        `connection`: psycopg's, SQLAlchemy's Connection or Session, or Django's, to the store's own database.
        """
        return Joining(self._log, msgspec.structs.replace(self._options, connection=connection))

    def confirm(self, staged: Staged) -> Receipt | None:
        """The receipt of an append that joined a transaction, after its COMMIT; None if it was not committed."""
        return run(confirm(self._log, staged))

    def context(self, **metadata: Any) -> AbstractContextManager[None]:
        """Metadata for everything written inside, by any store: `with store.context(actor="teller-7"):`.

        Inherited by tasks started inside; a bare `threading.Thread` starts without it (run it in
        `contextvars.copy_context().run`, or use `using(actor=…)`). It holds in the `contextvars.Context` it is entered
        in: a framework that gives each half of a generator a context of its own (a plain `def` dependency of FastAPI
        with `yield`) enters it where nothing is written. Leaving it elsewhere raises nothing.
        """
        return context(metadata)

    @contextmanager
    def lock(self, *asked: Asked, timeout: float = 10.0, owner: str | None = None) -> Generator[None, None, None]:
        """Keep others out who lock the same questions: `with store.lock(Account("a-1")): store.decide(…)`.

        For hot questions, where optimistic decisions would be retried too often, and for decisions too dear to
        make twice. The append condition stays the safety. Raises StoreBusy after `timeout` seconds, naming the
        holder (`owner`; by default this user, machine and process).
        """
        hold = LockSet(lock_names(asked), owner or whoami())
        try:
            run(acquire(self._log, hold, timeout))
            yield
        finally:
            run(release(self._log, hold))

    # Reading

    def read(
        self,
        query: Query = EVERYTHING,
        *,
        after: int | Cursor = 0,
        until: int | date | None = None,
        since: date | None = None,
        occurred_since: date | None = None,
        occurred_until: date | None = None,
        limit: int | None = None,
        backwards: bool = False,
        raw: bool = False,
    ) -> Iterator[Recorded[Any]]:
        """The matching events, in order. `after` exclusive; `until` inclusive, a position (with the whole append
        that wrote it) or the last moment recorded; `since` inclusive; `occurred_…` inclusive, by the business's
        time, **which leaves events out and does not order them: they come in the order they were recorded**; `raw`
        reads events whose classes are not known here. A date is a day in UTC: of `since` and `occurred_since` its
        first moment, of the others its last. Raises Unreadable errors, never skips; PositionBeyondHead on a
        position that this store has not given.
        """
        bounds = Bounds(
            after=after,
            until=until,
            since=since,
            occurred_since=occurred_since,
            occurred_until=occurred_until,
            limit=limit,
            backwards=backwards,
        )
        reader = Reader(self._log, query, bounds, raw)
        return _each(run(reader.next_page()), reader)

    def event(self, id: UUID | str, *, raw: bool = False) -> Recorded[Any] | None:
        """The event of this id (a UUID or its text), wherever it stands; None where there is none.

        `raw` gives it without its class. Raises InvalidInput on what is no id, Unreadable errors.
        """
        return run(event_of(self._log, id, raw))

    def state(self, question: S, *, at: int | date | None = None, occurred_until: date | None = None) -> S:
        """The state now; as of a moment of the log (`at`: a position, an aware datetime, or a date); or as far as the
        business had come (`occurred_until`, inclusive). A copy: change it as you like. A date is the end of that day in
        UTC.

        `occurred_until` leaves out what occurred later, as far as it is known now. **Events are folded in the order in
        which they were recorded, not in which they occurred: a late fact counts after later ones. Without
        `occurred_until` an event that is dated ahead counts at once.**
        """
        return run(state_at(self._log, question, at, occurred_until))

    def history(self, question: S, *, after: int = 0, until: int | date | None = None) -> Iterator[Step[S]]:
        """Every step: the event and the state after it. Steps up to `after` are folded but not given."""
        history = History(self._log, question, Bounds(until=until))
        while (steps := run(history.next_steps())) is not None:
            yield from (step for step in steps if step.recorded.position > after)

    def follow(
        self, query: Query = EVERYTHING, *, name: str | None = None, after: int | Cursor | str = 0, raw: bool = False
    ) -> Follower:
        """Events as they come, for ever: first those there are, then each as it is written, by anyone.

        `after` a position, a Cursor or its text; 0 is the beginning. No gap, no repeat. Close it to end.
        With a `name` the store keeps how far it has come, whenever you `acknowledge()`: it resumes there, whatever
        `after` says, one follower of a name at a time (LeaseHeld), and `eventfold verify` proves its progress.
        """
        kept = None if name is None else self._projections.follower_progress(name, query, after)
        return Follower(LogFollower(self._log, query, after, raw), CommitSignal(self.engine.watch), kept)

    def count(self, query: Query = EVERYTHING, *, after: int = 0, until: int | date | None = None) -> int:
        """How many events match after `after` (exclusive), up to `until` (as in read). Raises PositionBeyondHead."""
        end = None if until is None else run(resolve_position(self._log, until))
        return run(self.engine.count(query_of(query), run(known_position(self._log, after)), end))

    def head(self) -> int:
        """The position of the last event; 0 when there is none."""
        return run(self.engine.head()).position

    def cursor(self, position: int | None = None) -> Cursor:
        """A cursor at a position, by default the head: for `follow(after=…)`, verified when it is used.

        Raises PositionBeyondHead.
        """
        return run(cursor_after(self._log, self.head() if position is None else position))

    def verify(self, cursor: Cursor | str) -> int:
        """The position of a cursor, if it belongs to this history. Raises CursorMismatch."""
        return run(position_of(self._log, Cursor.parse(cursor) if isinstance(cursor, str) else cursor))

    def receipt(self, key: str) -> Receipt | None:
        """The receipt of the append made under a request key or command id, if there was one."""
        return run(self.engine.receipt_of(key))

    def types(self) -> list[TypeCount]:
        """Every event type in the log, with its count."""
        return run(self.engine.types())

    def tags(self, prefix: str = "", *, limit: int = 1_000, after: str = "") -> list[TagCount]:
        """Tags that start with `prefix`, in order, after the tag `after`: how many events, the first, the last."""
        return run(self.engine.tags(prefix, limit, after))

    def tag(self, tag: str) -> TagCount:
        """How many events carry this tag, and the positions of the first and last of them; all 0 where none does.

        `last` is what `append(…, unless=Query.of(tags=tag), after=…)` asks for. Raises InvalidQuery on a bad tag.
        """
        return run(tag_of(self._log, tag))

    def stats(self) -> dict[str, Any]:
        """Facts for an operator: sizes in bytes, settings, versions."""
        return run(self.engine.stats())

    # Read models

    def project(
        self, *projections: ProjectionLike, timeout: float = CATCH_UP_TIMEOUT_S, progress: Progress | None = None
    ) -> None:
        """Bring read models up to the head of the log, here and now; made known and their tables ready if they are not.

        Where a runner elsewhere holds one, it is waited for, `timeout` seconds. `progress(position, head)` is called
        after every page, for one read model after the other. Raises InvalidProjection,
        ProjectionChanged (its code is another now), ProjectionStopped (a handler failed), ProjectionBehind,
        TargetUnavailable.
        """
        self._projections.project(*projections, timeout=timeout, progress=progress)

    def wait(self, projection: Named, position: int | None = None, timeout: float = CATCH_UP_TIMEOUT_S) -> int:
        """Wait until a read model has taken everything up to a position (by default the head); returns where it is.

        Whoever runs it, in whatever process. Raises ProjectionBehind after `timeout` seconds, with the reason.
        """
        return self._projections.wait(projection, position, timeout)

    def rows(
        self,
        projection: type[M],
        where: Mapping[str, Any] | None = None,
        /,
        *,
        order: str | Sequence[str] = (),
        limit: int | None = None,
        wait: int | None = None,
        generation: int | None = None,
        **fields: Any,
    ) -> list[M]:
        """The rows whose fields equal these, by key or in this `order` (`"-delay"`: the greatest first).

        None is the least value, on every target. `where` the same as a dict, for fields that are called as an
        argument is: `rows(Lines, {"order": "o-1"})`.
        `wait` a position it must have come to first (a receipt's `last`: read your own writes); `generation` another
        than the one that is live.
        """
        if wait is not None:
            self._projections.wait(projection, wait)
        return self._projections.rows(projection, fields | dict(where or {}), order, limit, generation)

    def view(
        self,
        projection: type[M],
        *,
        at: int | date | None = None,
        occurred_until: date | None = None,
        since: View[M] | None = None,
    ) -> View[M]:
        """Its rows, folded in memory from the log: no table, always current, or as of `at` (a position or a moment).

        `occurred_until` leaves out what occurred later; inclusive, see Store.state. `since` an earlier view to go on
        from, which must not be used any more; not with `occurred_until`.
        """
        return run(view(self._projections.log, projection, at, since, occurred_until))

    @property
    def projections(self) -> ProjectionAdmin:
        """What can be asked about projections and done to them: status, rebuild, compare, switch, parked, verify, …"""
        return self._projections.using(self._options)

    # Processes and effects

    def run(self, *work: Work, clock: Clock | None = None) -> ProcessRunner:
        """Keep read models, subscriptions, processes and effects going, in threads of this process, until stopped.

        `with store.run(CarrierMonth, Payment, mail): …`. Several processes may run the same: they share the work by
        leases, and take over from one that was killed. `clock` tells timers the time, in µs since 1970 UTC.

        Raises InvalidProjection, ProjectionChanged, InvalidProcess, InvalidState, TargetUnavailable, StoreUnavailable.
        """
        from eventfold.processes.runner import ProcessRunner, wall_clock

        return ProcessRunner(self._projections, work, clock or wall_clock)

    def run_until_idle(self, *work: Work, clock: Clock | None = None, timeout: float = CATCH_UP_TIMEOUT_S) -> None:
        """Do all there is to do now, timers due by `clock` included, until nothing more comes of it; then return.

        For tests and scripts: nothing is left running. What waits to be tried again is tried once, at once. Raises
        ProcessError where something did not get through, ProjectionBehind if a runner elsewhere holds the work for
        longer than `timeout` seconds, and what `run` and `project` raise.
        """
        from eventfold.processes.runner import run_until_idle, wall_clock

        run_until_idle(self._projections, work, clock or wall_clock, timeout)

    # Keeping

    @refuse_old_keywords
    def copy_to(
        self, target: Store, *, keep_identity: bool = False, verify: bool = True, progress: Progress | None = None
    ) -> Copied:
        """Copy every event into another store, whatever its engine: ids, positions, times, boundaries, keys.

        Resumable: an interrupted copy goes on where it stopped. `keep_identity` gives an empty target this store's
        identity, so that cursors hold there (InvalidInput where it has events under one of its own); `verify` reads
        both and compares. `progress(done, total)`.

        What cannot be built again goes along: how far followers, effects and processes have come that this store keeps
        in its own target. With `keep_identity` they go on in the target only: here each is paused, what is in hand is
        waited for (30 s at most), and its leases are lost. Without, they could go on in both.
        Raises CursorMismatch if the target holds anything else than a beginning of this log, TargetUnavailable.
        """
        refuse_no_store(Store, target)
        targets = (self._projections.catalog.own_target(), target._projections.catalog.own_target())
        moving = Handover(*targets, (self.engine, target.engine), succeeds=keep_identity)

        async def begin() -> None:
            moving.begin()

        copied = run(
            copy_log(
                self.engine, target.engine, keep_identity=keep_identity, progress=progress, before_succession=begin
            )
        )
        copied = moving.finish(copied)
        return with_proof(copied, run(verify_log(self.engine, target.engine, progress))) if verify else copied

    def backup(self, path: str) -> None:
        """A consistent copy of the whole store at another path, while it is in use; the copy starts a new epoch.

        Raises NotSupported where the engine has its own tools for that.
        """
        require(self.engine, "backup")(path)

    def close(self) -> None:
        """Release everything. Closing twice is harmless."""
        self._projections.close()
        run(self.engine.close())

    def __enter__(self: St) -> St:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.engine!r})"


def whoami() -> str:
    """How a lock's holder is called when it does not say itself."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user of a number only; no descriptor left to look it up
        user = f"user {os.getuid()}" if hasattr(os, "getuid") else "an unknown user"
    return f"{user} on {platform.node()}, process {os.getpid()}"


def refuse_no_store(kind: type, target: object) -> None:
    """Raises InvalidInput if what a log is to be copied to is no store of this kind."""
    if not isinstance(target, kind):
        raise InvalidInput(
            f"A log is copied to another {kind.__name__}, and this is {target!r}.",
            f'Give one: store.copy_to(ef.{kind.__name__}("copy.db")).',
        )


def _each(page: list[Recorded[Any]] | None, reader: Reader) -> Iterator[Recorded[Any]]:
    while page is not None:
        yield from page
        page = run(reader.next_page())
