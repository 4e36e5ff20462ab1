"""The public class for sync code: `Store`, whose methods delegate to the log, the projections and the processes.

Knows: the public methods. Does not know: how any of them is implemented. `AsyncStore` (aio.py) has the same methods.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import date
from itertools import chain
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
from eventfold.log import copy as log_copy
from eventfold.log.append import Asked, Unless, append_encoded, append_next, append_now, check_batches, query_of
from eventfold.log.context import Command, Options, context, with_options
from eventfold.log.copy import Copied, Progress, refuse_no_store, with_proof
from eventfold.log.cursors import cursor_after, known_position, position_of
from eventfold.log.decide import decide
from eventfold.log.decided import Decided
from eventfold.log.follow import LogFollower
from eventfold.log.lock import acquire, release
from eventfold.log.lock import names_of as lock_names
from eventfold.log.lock_holders import LockSet, whoami
from eventfold.log.lookups import counts_of, tag_keys_of, tag_names_of, tags_of
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
from eventfold.projections.pace import MAX_PAUSE_S
from eventfold.projections.view import View, view
from eventfold.searches import Search
from eventfold.selection import Filter, Rows, Selection
from eventfold.transactions import Joining, confirm
from eventfold.wiring import open_log, projection_admin

if TYPE_CHECKING:
    from eventfold.alerts.admin import AlertAdmin
    from eventfold.processes.admin import ProcessAdmin
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
    """A log of events, for sync code. Threads may share it. Open it once per process; a fork must open its own.

    `url` is a path (a SQLite file), `memory:`, `memory:NAME`, `postgresql://…`, `http://…` (a server), an address with
    the scheme of another installed engine (entry points of the group `eventfold.engines`), or an engine object.
    `create` creates the store if there is none. `cache` is the number of folded states to keep in memory; `snapshots`
    the number of folded events after which a state is also stored beside the log (0: never). `inline` are read models
    that every append from now on updates in its own transaction, whichever process appends. `target` is the address of
    the database where read models, followers and processes store rows and checkpoints, or a target object: use the same
    in every process (default: the log's own database). Other options are those of the engine.

    Raises StoreUnavailable errors (StoreNotFound, NotAStore, StoreVersionMismatch, …), InvalidUrl, MissingExtra.
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
        self._options, self._projections = Options(), projection_admin(self._log, target, url=url)
        if inline:
            try:
                self._projections.inline(*inline)
            except BaseException:
                self.close()
                raise

    # Writing

    def append(self, *events: Any, unless: Unless = None, after: int | Cursor = 0, key: str | None = None) -> Receipt:
        """Append 1 to 1,000 events: all of them or none, durably, in order, at adjacent positions.

        `unless` is the condition: AppendConflict is raised if the log has an event after position `after` (exclusive)
        that matches this query (or this State's query); it may also be several (query, position) pairs. `key` makes
        the append idempotent: a second append with the same key writes nothing and returns the receipt of the first.
        Raises InvalidEvent, AppendConflict, AppendUnconfirmed, EventIdReused, StoreUnavailable errors.
        """
        done = append_now(self._log, self._options, events, unless, after, key)
        return done if isinstance(done, Receipt) else run(done)

    def append_encoded(
        self, *events: NewEvent, unless: Unless = None, after: int | Cursor = 0, key: str | None = None
    ) -> Receipt:
        """Append 1 to 1,000 events that are already encoded, of any type: `store.append_encoded(NewEvent.of(…))`.

        For importers without event classes. The bytes are stored unchanged; otherwise as `append`, with its errors.
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

        A batch ends earlier when its payloads reach 8 MiB, which bounds the memory that is used. `progress` is called
        after each batch with the number of events written so far. Returns the number of events written.
        """
        check_batches(self._options, batch)
        count, rest = 0, iter(events)
        while written := run(append_next(self._log, self._options, rest, batch)):
            count += written
            if progress is not None:
                progress(count)
        return count

    def decide(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Decided[R]:
        """Fold every State among the arguments, call the function with them, and append the events it returns.

        States may also be inside lists, tuples and dicts. The decision is consistent: if an event that one of its
        states is folded from was appended in the meantime, nothing is written and the function is called again with
        new states (see `using(attempts=)`). Errors that the function raises are passed on unchanged. Raises
        InvalidDecision, AppendConflict after the last attempt, and what `append` raises.
        """
        return run(decide(self._log, self._options, function, args, kwargs))

    def change(
        self, method: Callable[Concatenate[A, P], R], aggregate: A, /, *args: P.args, **kwargs: P.kwargs
    ) -> Decided[R]:
        """Load an aggregate, call one of its methods, and append the events that it records.

            store.change(Account.withdraw, Account("a-1"), Decimal(5))

        Consistent and retried like `decide`. Raises what the method raises, and what `decide` raises.
        """
        return self.decide(method, aggregate, *args, **kwargs)

    def using(self: St, *, attempts: int | None = None, command_id: str | None = None, **metadata: Any) -> St:
        """Return the same store with options for its appends and decisions.

        `attempts` is how often a call is tried at most after conflicts and lost replies (default 10). `command_id`
        makes a decision idempotent: it is made once per id. Any other keyword (`actor`, `correlation_id`,
        `causation_id`, …) is metadata that is stored with every event.
        """
        view = copy.copy(self)
        view._options = with_options(self._options, attempts, command_id, metadata)
        return view

    def with_authorization(self: St, by: Callable[[Command], None]) -> St:
        """Return the same store with an authorization check: `by` is called before each decision reads anything.

        It gets a Command: function, arguments, metadata of the caller (`actor`). If it raises, the decision is refused.
        """
        view = copy.copy(self)
        view._options = msgspec.structs.replace(self._options, authorise=by)
        return view

    def in_transaction(self, connection: Any) -> Joining:
        """Append and decide within your own PostgreSQL transaction: your rows and the events commit together.

        `connection` is one of psycopg, a SQLAlchemy Connection or Session, or one of Django, to the store's database.
        """
        return Joining(self._log, msgspec.structs.replace(self._options, connection=connection))

    def confirm(self, staged: Staged) -> Receipt | None:
        """Return the receipt of an append made by `in_transaction`, after the COMMIT; None if it was not committed."""
        return run(confirm(self._log, staged))

    def context(self, **metadata: Any) -> AbstractContextManager[None]:
        """Add metadata to every event that is appended inside the block, by any store.

            with store.context(actor="teller-7"): …

        Tasks started inside inherit it; a plain `threading.Thread` does not (start it with
        `contextvars.copy_context().run`, or use `using(actor=…)`). It applies to the `contextvars.Context` in which it
        is entered: where a framework runs each half of a generator in a context of its own (FastAPI does so for a
        plain `def` dependency with `yield`), it has no effect on the request, and leaving it raises nothing.
        """
        return context(metadata)

    @contextmanager
    def lock(self, *asked: Asked, timeout: float = 10.0, owner: str | None = None) -> Generator[None, None, None]:
        """Lock states or queries against other callers of `lock`: `with store.lock(Account("a-1")): store.decide(…)`.

        For states with so many concurrent decisions that optimistic ones would be retried too often, and for decisions
        too expensive to make twice. The lock is advisory: the append condition alone guarantees consistency. Raises
        StoreBusy after `timeout` seconds, naming the holder (`owner`; by default this user, machine and process).
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
        """Iterate over the matching events, in the order of their positions.

        `after` is an exclusive position. `until` is inclusive: a position (the whole append that contains it is read)
        or a moment of recording; `since` is an inclusive moment of recording. `occurred_since` and `occurred_until` are
        inclusive moments of business time; **they filter events and do not sort them: events come in the order in
        which they were recorded**. A date means a day in UTC: the first moment of it for `since` and `occurred_since`,
        the last for the others. `limit` is the number of events at most; `backwards` starts with the newest. `raw`
        reads events without their classes, as RawEvent.
        Raises Unreadable errors (no event is skipped), PositionBeyondHead on a position greater than the head.
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
        return chain.from_iterable(_pages(run(reader.next_page()), reader))  # a generator less for each event

    def event(self, id: UUID | str, *, raw: bool = False) -> Recorded[Any] | None:
        """Return the event with this id (a UUID or its text), or None if there is none.

        `raw` reads it without its class, as RawEvent. Raises InvalidInput on an invalid id, Unreadable errors.
        """
        return run(event_of(self._log, id, raw))

    def search(self, filter: str = "", *, backwards: bool = True, within: Query | None = None) -> Search:
        """Return a search by a line of text: `type:Paid customer:42 data.amount>100`, newest first. See Search."""
        return Search(self._log, filter, backwards, within)

    def state(self, question: S, *, at: int | date | None = None, occurred_until: date | None = None) -> S:
        """Return the state now, or as of a moment; a copy, which you may change.

        `at` is an inclusive moment of the log: a position, an aware datetime, or a date (the end of that day in UTC).
        `occurred_until`, an inclusive moment of business time, leaves out events that occurred later, as far as they
        are recorded now. **Events are folded in the order in which they were recorded, not in which they occurred: an
        event that is recorded late is folded after later ones. Without `occurred_until`, an event that is dated in the
        future is folded at once.**
        """
        return run(state_at(self._log, question, at, occurred_until))

    def history(self, question: S, *, after: int = 0, until: int | date | None = None) -> Iterator[Step[S]]:
        """Iterate over the steps of a state: each event that it is folded from, with the state after it.

        `after` is an exclusive position: earlier events are folded, but their steps are not returned. `until` as in
        `read`. Raises PositionBeyondHead.
        """
        history = History(self._log, question, after, until)
        while (steps := run(history.next_steps())) is not None:
            yield from steps

    def follow(
        self, query: Query = EVERYTHING, *, name: str | None = None, after: int | Cursor | str = 0, raw: bool = False
    ) -> Follower:
        """Iterate over events without end: first those in the log, then each one as it is appended by any process.

        `after` is an exclusive position, a Cursor or its text; 0 is the beginning. No event is missed or repeated.
        Close the follower to end it. With a `name`, the store keeps the follower's checkpoint, which `acknowledge()`
        moves: the next follower of that name resumes there, and `after` is ignored. One follower of a name may run at a
        time (LeaseHeld), and `eventfold verify` proves its checkpoint.
        """
        kept = None if name is None else self._projections.follower_progress(name, query, after)
        return Follower(LogFollower(self._log, query, after, raw), CommitSignal(self.engine.watch), kept)

    def count(self, query: Query = EVERYTHING, *, after: int = 0, until: int | date | None = None) -> int:
        """Return how many events match from `after` (exclusive) to `until` (see `read`). Raises PositionBeyondHead."""
        end = None if until is None else run(resolve_position(self._log, until))
        return run(self.engine.count(query_of(query), run(known_position(self._log, after, "after")), end))

    def counts(self, query: Query, bounds: Sequence[int | date]) -> list[int]:
        """Return how many events match in each range between two of the ascending `bounds`, for a histogram.

        A range is exclusive at its lower bound and inclusive at its upper one. A bound is a position, or a moment of
        recording; beyond the head it means the head. One number fewer than bounds. Raises InvalidQuery.
        """
        return run(counts_of(self._log, query_of(query), bounds))

    def head(self) -> int:
        """Return the position of the last event; 0 if there is none."""
        return run(self.engine.head()).position

    def cursor(self, position: int | None = None) -> Cursor:
        """Return a cursor at a position (default: the head), for `follow(after=…)`. It is verified when it is used.
        Raises PositionBeyondHead.
        """
        return run(cursor_after(self._log, self.head() if position is None else position))

    def verify(self, cursor: Cursor | str) -> int:
        """Return the position of a cursor. Raises CursorMismatch if it does not belong to this store's history."""
        return run(position_of(self._log, Cursor.parse(cursor) if isinstance(cursor, str) else cursor))

    def receipt(self, key: str) -> Receipt | None:
        """Return the receipt of the append with this `key` or `command_id`, or None if there was none."""
        return run(self.engine.receipt_of(key))

    def types(self) -> list[TypeCount]:
        """Return every event type in the log, with the number of its events."""
        return run(self.engine.types())

    def tags(self, prefix: str = "", *, limit: int = 1_000, after: str = "") -> list[TagCount]:
        """Return the tags that start with `prefix`, sorted, each with its number of events, first and last position.

        At most `limit` of them, after the tag `after` (exclusive): pass the last tag of a page to get the next page.
        """
        return run(tags_of(self._log, prefix, limit, after))

    def tag_names(self, prefix: str = "", *, limit: int = 1_000, after: str = "") -> list[str]:
        """Return what `tags` returns, without counts, in a time that depends on `limit`, not on numbers of events."""
        return run(tag_names_of(self._log, prefix, limit, after))

    def tag_keys(self, prefix: str = "", *, limit: int = 1_000, after: str = "") -> list[str]:
        """Return the keys of the tags that start with `prefix`, sorted: "account:" is the key of "account:a-1".

        A tag without a colon is its own key. At most `limit` keys, after the key `after` (exclusive).
        """
        return run(tag_keys_of(self._log, prefix, limit, after))

    def tag(self, tag: str) -> TagCount:
        """Return the number of events with this tag, and the positions of the first and the last; all 0 if none has it.

        `last` fits as `after` of `append(…, unless=Query.of(tags=tag), after=…)`. Raises InvalidQuery on a bad tag.
        """
        return run(tag_of(self._log, tag))

    def stats(self) -> dict[str, Any]:
        """Return figures for operators: sizes in bytes, settings, versions."""
        return run(self.engine.stats())

    # Read models

    def project(
        self, *projections: ProjectionLike, timeout: float = CATCH_UP_TIMEOUT_S, progress: Progress | None = None
    ) -> None:
        """Bring read models up to the head of the log, in this thread; register them and create their tables if needed.

        If another runner holds the lease of one, wait for it to reach the head, at most `timeout` seconds.
        `progress(position, head)` is called after every page, for one read model after the other. Raises
        InvalidProjection, ProjectionChanged (its code differs from the code that wrote its rows), ProjectionStopped (a
        handler failed), ProjectionBehind, TargetUnavailable.
        """
        self._projections.project(*projections, timeout=timeout, progress=progress)

    def wait(self, projection: Named, position: int | None = None, timeout: float = CATCH_UP_TIMEOUT_S) -> int:
        """Wait until a read model has reached a position (inclusive; default: the head), and return its checkpoint.

        Any process may run it. Raises ProjectionBehind after `timeout` seconds, with the reason.
        """
        return self._projections.wait(projection, position, timeout)

    def rows(
        self,
        projection: type[M],
        /,
        *filters: Filter | Mapping[str, Any] | None,
        order: str | Sequence[str] = (),
        limit: int | None = None,
        after: str | None = None,
        wait: int | None = None,
        generation: int | None = None,
        **fields: Any,
    ) -> Rows[M]:
        """Return the rows that satisfy all filters and whose fields equal these values, sorted by `order`, then by key.

        For example `rows(Balance, ef.col(Balance.total) > Decimal(5), owner="ann", order="-total", limit=50)`.
        `order` names fields, `-` before a name means descending; None is last. `limit` is the number of rows at most.
        `after` is the `next` of an earlier page of the same query, exclusive. A filter may be a dict of values, for
        fields that have the name of an argument: `rows(Lines, {"order": "o-1"})`. `wait` is a position that the read
        model must reach first: use a receipt's `last` to read your own writes. `generation` selects another generation
        than the live one. Raises InvalidFilter (a wrong column, type, or cursor), UnknownProjection, TargetUnavailable.
        """
        return self._projections.select(projection, filters, fields, order, generation, wait).rows(limit, after)

    def select(
        self,
        projection: type[M],
        /,
        *filters: Filter | Mapping[str, Any] | None,
        order: str | Sequence[str] = (),
        wait: int | None = None,
        generation: int | None = None,
        **fields: Any,
    ) -> Selection[M]:
        """Return a selection of rows: `store.select(Balance, owner="ann").sum(ef.col(Balance.total))`.

        Its methods ask: `count count_by sum min max first exists rows pages explain`. Arguments as in `rows`.
        """
        return self._projections.select(projection, filters, fields, order, generation, wait)

    def view(
        self,
        projection: type[M],
        *,
        at: int | date | None = None,
        occurred_until: date | None = None,
        since: View[M] | None = None,
    ) -> View[M]:
        """Fold the rows of a read model in memory, without a table: current, or as of `at` (a position or a moment).

        `at` and `occurred_until` are inclusive, see Store.state. `since` is an earlier view to continue from: do not
        use that view any more; it cannot be combined with `occurred_until`.
        """
        return run(view(self._projections.log, projection, at, since, occurred_until))

    @property
    def projections(self) -> ProjectionAdmin:
        """The administration of projections: status, rebuild, compare, switch, parked events, verify, …"""
        return self._projections.using(self._options)

    # Processes and effects

    @property
    def processes(self) -> ProcessAdmin:
        """The processes and effects: their instances that wait or are stuck, retry, skip."""
        from eventfold.processes.admin import ProcessAdmin

        return ProcessAdmin(self.projections)

    @property
    def alerts(self) -> AlertAdmin:
        """The alerts: what is open, the history of each key, acknowledge, snooze; replay a rule over the past."""
        from eventfold.alerts.admin import AlertAdmin

        return AlertAdmin(self._projections, self._options)

    def run(self, *work: Work, clock: Clock | None = None, max_pause: float = MAX_PAUSE_S) -> ProcessRunner:
        """Run read models, subscriptions, alerts, processes and effects in threads of this process, until stopped.

        `with store.run(CarrierMonth, Payment, mail): …`. Several operating system processes may run the same: they
        share the work by leases, and take over from one that was killed. `clock` returns the time for timers and
        alerts, in µs since 1970 UTC. `max_pause`: while others append, a read model pauses before its next page, longer
        each time up to this bound in seconds (0 to 1). `wait` and `rows(wait=…)` of this store end its pause.
        Raises InvalidProjection, ProjectionChanged, InvalidProcess, InvalidState, InvalidInput (`max_pause`),
        TargetUnavailable, StoreUnavailable.
        """
        from eventfold.processes.runner import ProcessRunner, wall_clock

        return ProcessRunner(self._projections, work, clock or wall_clock, max_pause)

    def run_until_idle(self, *work: Work, clock: Clock | None = None, timeout: float = CATCH_UP_TIMEOUT_S) -> None:
        """Do all pending work, including timers due by `clock`, until there is no more; then return.

        For tests and scripts: nothing keeps running afterwards. Events that wait for a retry are retried once,
        immediately. Raises ProcessError if something failed, ProjectionBehind if another runner holds a lease for
        longer than `timeout` seconds, and what `run` and `project` raise.
        """
        from eventfold.processes.runner import run_until_idle, wall_clock

        run_until_idle(self._projections, work, clock or wall_clock, timeout)

    # Maintenance

    @refuse_old_keywords
    def copy_to(
        self, target: Store, *, keep_identity: bool = False, verify: bool = True, progress: Progress | None = None
    ) -> Copied:
        """Copy every event into another store, of any engine: ids, positions, times, append boundaries, keys.

        An interrupted copy can be repeated: it continues where it stopped. `keep_identity` gives an empty target this
        store's identity, so that cursors stay valid there (InvalidInput if it has events under an identity of its
        own). `verify` reads both stores and compares them. `progress(done, total)` is called with numbers of events.

        The checkpoints of followers, effects and processes that this store keeps in its own target are copied as well,
        since they cannot be rebuilt. With `keep_identity` they continue in the target store only: in this store each is
        paused, its current work is awaited (30 s at most), and its leases are revoked. Without it they could run in
        both. Raises CursorMismatch if the target's events are not a prefix of this log, TargetUnavailable.
        """
        refuse_no_store(Store, target)
        targets = (self._projections.catalog.own_target(), target._projections.catalog.own_target())
        here, there = self.engine, target.engine
        moving = Handover(*targets, (here, there), succeeds=keep_identity)

        async def begin() -> None:
            moving.begin()

        copying = log_copy.copy(here, there, keep_identity=keep_identity, progress=progress, before_succession=begin)
        copied = moving.finish(run(copying))
        return with_proof(copied, run(log_copy.verify(here, there, progress))) if verify else copied

    def backup(self, path: str) -> None:
        """Write a consistent copy of the whole store to another path, while it is in use. The copy starts a new epoch.
        Raises NotSupported if the engine has backup tools of its own.
        """
        require(self.engine, "backup")(path)

    def close(self) -> None:
        """Release connections, files and threads. A second call does nothing."""
        self._projections.close()
        run(self.engine.close())

    def __enter__(self: St) -> St:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.engine!r})"


def _pages(page: Iterable[Recorded[Any]] | None, reader: Reader) -> Iterator[Iterable[Recorded[Any]]]:
    while page is not None:
        yield page
        del page  # its memory is used for the next one
        page = run(reader.next_page())
