"""Room: the desk: what may be asked of a store's projections: run, status, rows, proof, generations.

Knows: classes and names of projections. Does not know: how an event is folded, how rows are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from functools import partial
from typing import Any, TypeVar

import msgspec

from eventfold.concurrency import run
from eventfold.core.query import Cursor, Query
from eventfold.core.table import filter_value
from eventfold.core.unstorable import refuse_limit, refuse_unfit, unfit_filter
from eventfold.errors import (
    CursorMismatch,
    EventfoldError,
    InvalidInput,
    InvalidProjection,
    LeaseHeld,
    ProjectionBehind,
    ProjectionError,
    TargetUnavailable,
    UnknownProjection,
    Unreadable,
)
from eventfold.flow import generations
from eventfold.flow.acts import prepared
from eventfold.flow.enrol import inline
from eventfold.flow.fold import name_table
from eventfold.flow.generations import Comparison, known_in
from eventfold.flow.project import Work
from eventfold.flow.prove import LogProof, Progress, Proof, prove, prove_log, unproved
from eventfold.flow.status import Status, away, status_of
from eventfold.flow.stopped import paused, restored, stopped_error
from eventfold.log.follow import verify
from eventfold.log.read import moment
from eventfold.ports.target import (
    ELSEWHERE,
    Checkpoint,
    Disturbed,
    PendingCommand,
    Place,
    Registered,
    RowRefused,
    Target,
)
from eventfold.projection.classes import Projection
from eventfold.projection.plan import Kept, Plan, plan_of, plans_of
from eventfold.running import inlining
from eventfold.running.finding import DISTURBED, Named, changed_too_often
from eventfold.running.hands import Hands
from eventfold.running.keeping import Keeping
from eventfold.running.leases import new_holder_id
from eventfold.running.row_check import RowCheck, RowProof
from eventfold.running.runner import Runner, catch_up, means_of
from eventfold.targets.outbox import SINK

P = TypeVar("P", bound=Projection)
PATIENCE = 30.0  # seconds


class Desk(Hands):
    """The projections of a store: `store.projections`. A projection is named by its class or by its name.

    By name, it is looked for in the store's own database; what needs its code imports it from where it was kept from.
    """

    # Running

    def inline(self, *projections: Kept) -> None:
        """Have every append to the store keep these up, whoever makes it. See Store(inline=…).

        Raises NotSupported, InvalidProjection, ProjectionChanged (its code is another now), ProjectionStopped.
        """
        plans, own = plans_of(projections), self._target(None)
        folder = inlining.folder_of(self.log, own, plans)
        known = {plan.name: self._register(plan)[1] for plan in plans}
        self.log.engine.fold_with(folder)
        for plan in inlining.strangers(self.log, plans):
            self._take_in(plan, own, known[plan.name])

    def _take_in(self, plan: Plan, own: Target, known: Registered) -> None:
        """Have every append keep its live generation up, whichever that is by then."""
        for _ in range(DISTURBED):
            with suppress(Disturbed):
                if not inlining.take_in(self.log, own, plan, known, self._lease):
                    self._refuse(own, Place(plan.name, known.live))
                return
            known = self._register(plan)[1]
        raise changed_too_often(own, plan.name)

    def project(self, *projections: Kept, timeout: float = PATIENCE, progress: Progress | None = None) -> None:
        """See Store.project."""
        head = run(self.log.engine.head()).position
        failed: list[EventfoldError] = []
        for plan in plans_of(projections):
            try:
                target, known = self._register(plan)
                if inline(target.checkpoints(plan.name, known.live)):
                    continue  # every append has done it
                for partition in range(plan.partitions):
                    self._catch_up(plan, target, Place(plan.name, known.live, partition), head, timeout, progress)
            except (ProjectionError, InvalidProjection, CursorMismatch) as error:  # no reason not to serve the others
                failed.append(error)
        if failed:
            for other in failed[1:]:
                failed[0].add_note(str(other))
            raise failed[0]

    def _catch_up(
        self,
        plan: Plan,
        target: Target,
        place: Place,
        head: int,
        timeout: float,
        progress: Progress | None = None,
    ) -> None:
        work = Work(plan, means_of(self.log, target, self._lease), place, new_holder_id())
        ends = time.monotonic() + timeout

        def tell(position: int) -> None:
            if progress is not None:
                progress(position, head)

        while catch_up(work, 0.02, tell) == "held":
            held = next(c for c in target.checkpoints(place.name, place.generation) if c.place == place)
            if held.position >= head and not target.undelivered(place.name, place.generation):
                return  # its runner has done it
            if held.stopped:
                raise stopped_error(place.name, held)
            if time.monotonic() > ends:
                raise self._behind(place.name, held, head, timeout)
        self._refuse(target, place)

    def _refuse(self, target: Target, place: Place) -> None:
        held = next(c for c in target.checkpoints(place.name, place.generation) if c.place == place)
        if held.stopped:
            raise stopped_error(place.name, held)
        known = known_in(target, place.name)
        if known.paused:
            raise paused(place.name, known.paused)

    def run(self, *projections: Kept) -> Runner:
        """See Store.run."""
        plans = [(plan, self._register(plan)[0]) for plan in plans_of(projections)]
        runner = Runner(self.log, plans, self._lease)
        self._runners.append(runner)
        return runner

    def wait(self, projection: Named, position: int | None = None, timeout: float = PATIENCE) -> int:
        """See Store.wait."""
        name, target = self._find(projection)
        wanted = run(self.log.engine.head()).position if position is None else position
        ends, nap = time.monotonic() + timeout, 0.001
        while True:
            try:
                known = known_in(target, name)
                held = min(target.checkpoints(name, known.live), key=lambda each: each.position)
            except TargetUnavailable:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.05)  # away for a moment, like whoever writes there: it is waited for all the same
                continue
            if held.position >= wanted and not target.undelivered(name, known.live):
                self._refuse_restored(known, held)
                return held.position
            if inline([held]) and (head := run(self.log.engine.head()).position) >= wanted:
                return head
            if held.stopped:
                raise stopped_error(name, held)
            if time.monotonic() > ends:
                raise self._behind(name, held, wanted, timeout)
            time.sleep(nap)
            nap = min(nap * 1.5, 0.02)

    def _refuse_restored(self, known: Registered, held: Checkpoint) -> None:
        """Rows of history that this log does not have answer for nothing that is in it."""
        try:
            run(verify(self.log, Cursor(held.store, held.epoch, held.position, held.event_id)))
        except CursorMismatch as error:
            raise restored(known.name, known.kind, error) from error

    def _behind(self, name: str, held: Checkpoint, wanted: int, timeout: float) -> ProjectionBehind:
        sentence = self.status(name)[0].sentence if self._find(name)[1].registered(name) else ""
        return ProjectionBehind(
            f"{name} has come to position {held.position} and not to {wanted} within {timeout:g} s. {sentence}",
            "Allow more time (timeout=…), or see eventfold projections status.",
            projection=name,
            position=held.position,
            wanted=wanted,
        )

    def keeping(self, name: str, query: Query, after: int | Cursor | str) -> Keeping:
        """What keeps the progress of a follower: see Store.follow."""
        kept = Keeping(self.log, self._target(None), name, query, after, self._lease)
        self._keepings.add(kept)
        return kept

    # Looking

    def known(self) -> list[Registered]:
        """Every projection and follower of the store, by name; of those in a database that is away, what is noted here.

        `kind` is rows, sql, effects, follower or, where only its name is known here, elsewhere.
        """
        own = self._own()
        if own is None:
            found = {each.name: each for target in self._targets.values() for each in target.all()}
            return sorted(found.values(), key=lambda each: each.name)
        found = {each.name: each for each in own.all()}
        for name, noted in found.items():
            if noted.kind in (ELSEWHERE, SINK):
                with suppress(EventfoldError):
                    found[name] = known_in(self._find(name)[1], name)
        return sorted(found.values(), key=lambda each: each.name)

    def status(self, *projections: Named) -> list[Status]:
        """Where projections stand, by default all of `known()`, and why they are behind if they are."""
        return [self._status(each, not projections) for each in projections or [known.name for known in self.known()]]

    def _status(self, projection: Named, one_of_all: bool) -> Status:
        try:
            name, target = self._find(projection)
            return run(status_of(self.log, target, known_in(target, name), target.now()))
        except (TargetUnavailable, InvalidProjection, UnknownProjection) as error:
            own = self._own()
            noted = own.registered(projection) if own is not None and isinstance(projection, str) else None
            if not one_of_all or noted is None:
                raise
            return away(noted, run(self.log.engine.head()).position, error)

    def checkpoints(self, projection: Named) -> list[Checkpoint]:
        """Every checkpoint of a projection, with its ledger, of all its generations."""
        name, target = self._find(projection)
        return target.checkpoints(name)

    def rows(
        self,
        projection: type[P],
        where: Mapping[str, Any],
        order: Sequence[str],
        limit: int | None,
        generation: int | None,
    ) -> list[P]:
        """See Store.rows."""
        plan = plan_of(projection)
        if plan.rows is None:
            raise InvalidProjection(f"{plan.name} has tables of its own.", "Ask them with SQL.")
        refuse_limit(limit)
        target = self._of(plan)
        if generation is not None:
            generations.refuse_unknown(target.checkpoints(plan.name), plan.name, generation)
        table = name_table(plan.rows.table, generation or known_in(target, plan.name).live)
        packed = {name: filter_value(table, name, value) for name, value in where.items()}
        refuse_unfit(plan.name, plan.rows.table, packed)
        try:
            found = target.select(table, packed, order, limit)
        except (RowRefused, TypeError, ValueError, OverflowError) as error:  # no row can be like that
            raise unfit_filter(plan.name, plan.rows.table, packed, error) from error
        return [plan.rows.unpack(row) for row in found]

    def verify(self, *projections: Named, progress: Progress = lambda _done, _all: None) -> list[Proof]:
        """Count the log again and hold every ledger against it: of these projections and followers, or of all.

        Processes and effects are named by their class or name as well. A proof says of every event that it was taken
        once, and nothing of what the rows' columns hold: see `verify_rows`. One that cannot be counted (its class
        cannot be imported here, its database is away) is not proved and says why; the others are counted all the same.
        `progress` is told (done, all), in positions to be counted.
        """
        todo: list[tuple[Target, Checkpoint, Plan | None, bool]] = []
        proofs: list[Proof] = []
        for each in projections or [known.name for known in self.known()]:
            try:
                todo.extend(self._to_prove(each))
            except TargetUnavailable as error:
                if projections:
                    raise
                proofs.append(unproved(str(each), error))  # its database is away: the others can be proved all the same
        whole, done = sum(held.position for _, held, _, _ in todo), 0
        for target, held, plan, for_rollback in todo:
            told = partial(_ahead, progress, done, whole)
            try:
                proofs.append(run(prove(self.log, target, held, plan, told, for_rollback=for_rollback)))
            except (InvalidInput, ProjectionError, Unreadable) as error:
                proofs.append(unproved(held.place.name, error, held))
            done += held.position
            progress(done, whole)
        return proofs

    def _to_prove(self, projection: Named) -> list[tuple[Target, Checkpoint, Plan | None, bool]]:
        """Its checkpoints; with its definition where it is split by key, if that can be imported here.

        Last, whether readers neither see that generation nor will.
        """
        name, target = self._find(projection)
        known = known_in(target, name)
        found: list[tuple[Target, Checkpoint, Plan | None, bool]] = []
        for held in target.checkpoints(name):
            plan = None
            if held.partitions > 1 or not isinstance(projection, str):
                with suppress(InvalidInput):
                    plan = self._plan(projection)
            found.append((target, held, plan, held.place.generation not in (known.live, known.building)))
        return found

    def verify_rows(self, *projections: Named, progress: Progress = lambda _done, _all: None) -> list[RowProof]:
        """Fold read models again, beside what readers see, and compare every row: of these, or of all that have rows.

        The rows folded again are a generation that is dropped at the end: it needs as much room as the live rows, and
        their database must take writes. Rows that change meanwhile are compared again. Raises ProjectionStopped where
        the fold fails, InvalidProjection for what has no rows or whose class cannot be imported, TargetUnavailable.
        """
        named = projections or [each.name for each in self.known() if each.kind not in ("effects", "follower")]
        found: list[RowProof] = []
        for each in named:
            plan = self._plan(each)
            if plan.kind == "effects":
                raise InvalidProjection(f"{plan.name} keeps no rows.", "Name a read model.", projection=plan.name)
            found.append(RowCheck(plan, self._of(plan), self.log, self._lease).compare(progress))
        return found

    def verify_log(self, progress: Progress = lambda _done, _all: None) -> LogProof:
        """Have the engine check its own log: whatever is written twice is compared. `progress` is told (done, all)."""
        return run(prove_log(self.log, progress))

    # Generations

    def rebuild(
        self,
        projection: Named,
        *,
        at: int | date | None = None,
        progress: Callable[[int, int], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> int:
        """Build it anew beside what readers see; returns the number of the generation.

        Interrupted (or when `stop` says so) it is gone on with by the next rebuild of the same code. `progress` is
        told (position, head). `at` builds it as of a moment in the past: a generation to look at and to compare with,
        never to switch to.
        """
        plan = self._plan(projection)
        target = self._of(plan)
        until = None if at is None else run(moment(self.log, at))

        def command(generation: int) -> PendingCommand:
            return prepared(self.log, self._options, plan.name, "rebuild", generation, until=until)

        building = known_in(target, plan.name).building
        left = [] if building is None or until is not None else target.checkpoints(plan.name, building)
        if left and not run(generations.goes_on(plan, self.log, target, left)):
            target.withdraw(plan.name, building, left[0].store)
        generation = self._carried_out(
            target, plan.name, lambda: run(generations.begin(plan, self.log, target, until, command))
        )
        self._build(plan, target, generation, until, progress, stop)
        return generation

    def _build(
        self,
        plan: Plan,
        target: Target,
        generation: int,
        until: int | None,
        progress: Progress | None,
        stop: Callable[[], bool],
    ) -> None:
        head = until if until is not None else run(self.log.engine.head()).position
        for partition in range(plan.partitions):
            place = Place(plan.name, generation, partition)
            work = Work(plan, means_of(self.log, target, self._lease), place, new_holder_id())

            def tell(position: int, done: int = partition) -> None:
                if progress is not None:
                    progress(done * head + position, plan.partitions * head)

            state = catch_up(work, PATIENCE, tell, stop)
            self._refuse(target, place)
            if state == "held":
                self._refuse_unfinished(target, place, head)

    def _refuse_unfinished(self, target: Target, place: Place, head: int) -> None:
        """What somebody else is still building is not built."""
        held = next(c for c in target.checkpoints(place.name, place.generation) if c.place == place)
        if held.position < head:
            raise LeaseHeld(
                f"Generation {place.generation} of {place.name} is being built by {held.holder}, and has come to "
                f"position {held.position} of {head}.",
                "Let that one finish, or end it; then ask again.",
                projection=place.name,
                holder=held.holder,
                position=held.position,
            )

    def compare(self, projection: Named, generation: int | None = None) -> Comparison:
        """What readers see beside another generation (by default the one being built, else the previous one).

        Both are brought up to date first, as far as this process has their code; rows of an older eventfold that
        have to be rebuilt stay where they are.
        """
        plan = self._plan(projection)
        target = self._of(plan)
        known = known_in(target, plan.name)
        other = generation or known.building or known.previous
        if other is None:
            raise UnknownProjection(
                f"{plan.name} has one generation only.", f"Build another: eventfold projections rebuild {plan.name}."
            )
        generations.refuse_unknown(target.checkpoints(plan.name), plan.name, other)
        head = run(self.log.engine.head()).position
        for held in (*target.checkpoints(plan.name, known.live), *target.checkpoints(plan.name, other)):
            # Rows as of different positions would differ for that alone; what is of other code is its runner's to move.
            stands = held.until is not None or known.previous == held.place.generation or inline([held])
            stands = stands or generations.outdated(plan, target, held.place.generation)
            if plan.is_code_of(held.fingerprint) and not stands:
                with suppress(CursorMismatch):  # of a log that was restored: it stays where it is, and is shown so
                    self._catch_up(plan, target, held.place, head, PATIENCE)
        return generations.compare(plan, target, (known.live, other))

    def switch(self, projection: Named) -> Registered:
        """Let readers see what was built: it is brought up to date, then it takes one small transaction."""
        plan = self._plan(projection)
        target = self._of(plan)

        def attempt() -> Registered:
            known = known_in(target, plan.name)
            if known.building is not None:
                self.rebuild(projection)
            new = generations.switched(known_in(target, plan.name))
            if new.live != known.building:  # what was built meanwhile is another
                raise Disturbed
            held = target.checkpoints(plan.name, known.live)
            command = prepared(self.log, self._options, plan.name, "switch", new.live)
            if inline(held):
                inlining.switch(self.log, target, plan, new, command)
                self._drop_unused(target, plan.name, known.previous)
                return new
            if known.previous is not None:
                target.withdraw(plan.name, known.previous, held[0].store)
            with target.control(plan.name) as tx:
                if (now := tx.record()) is None or generations.switched(now) != new or now.previous != known.previous:
                    raise Disturbed
                if now.previous is not None:
                    tx.drop(now.previous, now.tables)
                tx.save_record(new)
                tx.save_command(command)
            return new

        return self._carried_out(target, plan.name, attempt)

    @staticmethod
    def _drop_unused(target: Target, name: str, generation: int | None) -> None:
        """Drop a generation that readers neither see, nor saw before, nor will see."""
        if generation is not None:
            with target.control(name) as tx:
                known = tx.record()
                if known is not None and generation not in (known.live, known.previous, known.building):
                    tx.drop(generation, known.tables)

    def rollback(self, projection: Named) -> Registered:
        """Let readers see the previous generation again. Its runner goes on where it was, with its own code."""
        name, target = self._find(projection)

        def attempt() -> Registered:
            known_in(target, name)
            with target.control(name) as tx:
                if (known := tx.record()) is None:
                    raise Disturbed
                inlining.refuse_act("rolled back", known, tx.checkpoints(known.live))
                new = generations.rolled_back(known)
                tx.save_record(new)
                self._command(tx, name, "rollback", new.live)
                return new

        return self._carried_out(target, name, attempt)

    def discard(self, projection: Named, generation: int | None = None) -> None:
        """Give up what is being built, or drop a generation that was built as of a moment in the past."""
        name, target = self._find(projection)

        def chosen(known: Registered, held: Sequence[Checkpoint]) -> int:
            dropped = generations.switched(known).live if generation is None else generation
            if dropped in (known.live, known.previous):
                raise InvalidProjection(
                    f"Generation {dropped} of {name} is what readers see, or saw before.", "It goes by itself, later."
                )
            generations.refuse_unknown(held, name, dropped)
            return dropped

        def attempt() -> None:
            dropped = chosen(known_in(target, name), target.checkpoints(name))
            target.withdraw(name, dropped, self.log.engine.store_id)
            with target.control(name) as tx:
                if (known := tx.record()) is None or chosen(known, tx.checkpoints()) != dropped:
                    raise Disturbed
                tx.drop(dropped, known.tables)
                if dropped == known.building:
                    tx.save_record(msgspec.structs.replace(known, building=None))
                self._command(tx, name, "discard", dropped)

        self._carried_out(target, name, attempt)


def _ahead(progress: Progress, before: int, whole: int, position: int) -> None:
    progress(before + position, whole)
