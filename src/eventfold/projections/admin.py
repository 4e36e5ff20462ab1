"""The administration of a store's projections: run, status, rows, verification, operations, rebuilds.

Knows: all commands and queries, by class or by name. Does not know: how events are folded, how rows are stored.
"""

from __future__ import annotations

import builtins
import copy
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from functools import partial
from typing import Any, TypeVar
from weakref import WeakSet

from eventfold.concurrency import run
from eventfold.core.envelope import Receipt
from eventfold.core.event import Event
from eventfold.core.query import Cursor, Query
from eventfold.core.renamed import refuse_old_attributes
from eventfold.core.store_address import names_store
from eventfold.errors import (
    CursorMismatch,
    EventfoldError,
    InvalidInput,
    InvalidProjection,
    ProjectionError,
    TargetUnavailable,
    Unreadable,
)
from eventfold.log.context import Log, Options
from eventfold.log.cursors import check_position, verify
from eventfold.ports.services import require
from eventfold.ports.target import (
    ELSEWHERE,
    FORWARDED,
    Checkpoint,
    CheckpointChanged,
    ParkedEvent,
    PartitionKey,
    ProjectionRecord,
    Target,
)
from eventfold.projections import inline_admin
from eventfold.projections.catalog import Named, ProjectionCatalog
from eventfold.projections.catch_up import (
    CATCH_UP_TIMEOUT_S,
    behind_error,
    catch_up_partition,
    refuse_stopped,
    wall_clock,
)
from eventfold.projections.classes import Projection
from eventfold.projections.commands import MAX_DISTURBED, OperatorCommands, changed_too_often
from eventfold.projections.comparison import Comparison, RowCheck, RowProof
from eventfold.projections.definition import (
    ProjectionDefinition,
    ProjectionLike,
    projection_definition,
    projection_definitions,
)
from eventfold.projections.failures import ahead_of_log_error, stopped_error
from eventfold.projections.fields import codec_of
from eventfold.projections.follower_progress import FollowerProgress
from eventfold.projections.generations import keeps_progress, require_record
from eventfold.projections.inline_admin import is_inline
from eventfold.projections.observer import Observer
from eventfold.projections.operations import ProjectionOperations
from eventfold.projections.pace import MAX_PAUSE_S
from eventfold.projections.rebuilds import ProjectionRebuilds
from eventfold.projections.rows import TargetRows
from eventfold.projections.runner import Runner
from eventfold.projections.status import Status, status_of
from eventfold.projections.statuses import AWAY, Located, Observed, observe, statuses
from eventfold.projections.verified import TYPE, append_facts, results_of
from eventfold.projections.verify import LogProof, Progress, Proof, prove, prove_log, unproved_error
from eventfold.selection import Selection

P = TypeVar("P", bound=Projection)


@names_store(lambda admin: admin.catalog.address)
@refuse_old_attributes("ProjectionAdmin")
class ProjectionAdmin:
    """The projections of a store: `store.projections`. Methods take a projection as its class or its name.

    A name is searched in the store's own database. Methods that need its code import the class from its recorded
    MODULE:NAME.
    """

    def __init__(
        self,
        catalog: ProjectionCatalog,
        options: Options | None = None,
        *,
        runners: list[Runner] | None = None,
        followers: WeakSet[FollowerProgress] | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.catalog, self._observer = catalog, observer
        self.log = catalog.log if observer is None else observer.log(catalog.log)  # for tools
        self._options = options or Options()
        commands = OperatorCommands(catalog.log, self._options)
        self._operations = ProjectionOperations(catalog, commands)
        self._rebuilds = ProjectionRebuilds(catalog, commands)
        self._runners: list[Runner] = [] if runners is None else runners  # stopped by close()
        self._followers: WeakSet[FollowerProgress] = WeakSet() if followers is None else followers

    def using(self, options: Options) -> ProjectionAdmin:
        """Return an administration of the same projections that records its operations with these options' metadata."""
        return ProjectionAdmin(
            self.catalog, options, runners=self._runners, followers=self._followers, observer=self._observer
        )

    def observed_by(self, observer: Observer) -> ProjectionAdmin:
        """Return an administration of the same projections whose work `observer` sees, instead of the present one."""
        return ProjectionAdmin(
            self.catalog, self._options, runners=self._runners, followers=self._followers, observer=observer
        )

    def _definitions(self, projections: Sequence[ProjectionLike]) -> list[ProjectionDefinition]:
        """Return the definitions to run, with what the observer puts around them. Raises InvalidProjection."""
        found = projection_definitions(projections)
        if self._observer is None:
            return found
        return [self._observer.definition(*each) for each in zip(projections, found, strict=True)]

    def over(self, log: Log) -> ProjectionAdmin:
        """Return an administration of the same projections over another object for the same log: one that measures."""
        catalog = copy.copy(self.catalog)
        catalog.log = log
        return ProjectionAdmin(
            catalog, self._options, runners=self._runners, followers=self._followers, observer=self._observer
        )

    def target(self, projection: Named) -> Target:
        """Return the target with a projection's rows: for tools."""
        return self.catalog.find(projection)[1]

    def close(self) -> None:
        """Release followers, stop runners, close every target."""
        for follower in tuple(self._followers):
            follower.release()
        while self._runners:
            self._runners.pop().stop()
        self.catalog.close()

    # Running

    def inline(self, *projections: ProjectionLike) -> None:
        """Register projections that every append to the store updates, in any process. See Store(inline=…).

        Raises NotSupported, InvalidProjection, ProjectionChanged (the code has changed), ProjectionStopped.
        """
        definitions = projection_definitions(projections)
        require(self.log.engine, "inline")  # first: an engine without it may have no target either
        own = self.catalog.target_at()
        projector = inline_admin.inline_projector(self.log, own, definitions)
        records = {definition.name: self.catalog.register(definition)[1] for definition in definitions}
        require(self.log.engine, "inline").set_projector(projector)
        for definition in inline_admin.unregistered(self.log, definitions):
            self._register_inline(definition, own, records[definition.name])

    def _register_inline(self, definition: ProjectionDefinition, own: Target, record: ProjectionRecord) -> None:
        """Register the live generation to be updated by every append; start over if another one became live."""
        for _ in range(MAX_DISTURBED):
            with suppress(CheckpointChanged):
                if not inline_admin.register_inline(self.log, own, definition, record, self.catalog.lease):
                    refuse_stopped(own, PartitionKey(definition.name, record.live))
                return
            record = self.catalog.register(definition)[1]
        raise changed_too_often(own, definition.name)

    def project(
        self,
        *projections: ProjectionLike,
        timeout: float = CATCH_UP_TIMEOUT_S,
        progress: Progress | None = None,
        clock: Callable[[], int] = wall_clock,
    ) -> None:
        """See Store.project. `clock` returns the time for alerts, in µs since 1970 UTC."""
        head = run(self.log.engine.head()).position
        failed: list[EventfoldError] = []
        for definition in self._definitions(projections):
            try:
                target, record = self.catalog.register(definition)
                if is_inline(target.checkpoints(definition.name, record.live)):
                    continue  # every append updates it
                for partition in range(definition.partitions):
                    catch_up_partition(
                        self.log,
                        definition,
                        target,
                        PartitionKey(definition.name, record.live, partition),
                        head,
                        lease=self.catalog.lease,
                        timeout=timeout,
                        progress=progress,
                        clock=clock,
                        observer=self._observer,
                    )
            except (ProjectionError, InvalidProjection, CursorMismatch) as error:  # continue with the others
                failed.append(error)
        if failed:
            for other in failed[1:]:
                failed[0].add_note(str(other))
            raise failed[0]

    def run(
        self,
        *projections: ProjectionLike,
        max_pause: float = MAX_PAUSE_S,
        clock: Callable[[], int] = wall_clock,
        refused: dict[str, EventfoldError] | None = None,
        waits_for_switch: bool = False,
    ) -> Runner:
        """See Store.run. `refused`: projections that are not run, by name, each with the error; see also Runner.

        If given, one whose code has changed or whose progress is unknown is added to it, and the others are run; if
        none is left, the first error is raised.
        """
        definitions = self.catalog.register_each(self._definitions(projections), refused, waits_for_switch)
        if refused and not definitions:
            raise next(iter(refused.values()))
        lease, address, observer = self.catalog.lease, self.catalog.address, self._observer
        more = (max_pause, clock, observer, refused, address)
        runner = Runner(self.log, definitions, lease, *more, waits_for_switch=waits_for_switch)
        self._runners.append(runner)
        return runner

    def wait(self, projection: Named, position: int | None = None, timeout: float = CATCH_UP_TIMEOUT_S) -> int:
        """See Store.wait."""
        name, target = self.catalog.find(projection)
        position_wanted = (
            run(self.log.engine.head()).position if position is None else check_position(position, "position")
        )
        ends, pause = time.monotonic() + timeout, 0.001
        while True:
            try:
                record = require_record(target, name)
                checkpoint = min(target.checkpoints(name, record.live), key=lambda each: each.position)
            except TargetUnavailable:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.05)  # the database may be reachable again before the timeout, for its writer too
                continue
            if checkpoint.position >= position_wanted and not target.delivery_lag(name, record.live):
                self._refuse_restored(record, checkpoint)
                return checkpoint.position
            if is_inline([checkpoint]) and (head := run(self.log.engine.head()).position) >= position_wanted:
                return head
            if checkpoint.stopped:
                raise stopped_error(name, checkpoint)
            if time.monotonic() > ends:
                raise behind_error(self.log, target, name, checkpoint, position_wanted, timeout)
            self._end_pause(name)
            time.sleep(pause)
            pause = min(pause * 1.5, 0.02)

    def _end_pause(self, name: str) -> None:
        """Let the runners of this store read the next page of a projection now, since a caller waits for it."""
        for runner in tuple(self._runners):
            runner.end_pause(name)

    def _refuse_restored(self, record: ProjectionRecord, checkpoint: Checkpoint) -> None:
        """Raise CursorMismatch where the rows were folded from history that this log does not have."""
        try:
            run(verify(self.log, Cursor(checkpoint.store, checkpoint.epoch, checkpoint.position, checkpoint.event_id)))
        except CursorMismatch as error:
            raise ahead_of_log_error(record.name, record.kind, error) from error

    def follower_progress(self, name: str, query: Query, after: int | Cursor | str) -> FollowerProgress:
        """Return an object that stores the progress of a named follower. See Store.follow."""
        progress = FollowerProgress(self.log, self.catalog.target_at(), name, query, after, self.catalog.lease)
        self._followers.add(progress)
        return progress

    # Inspection

    def list(self) -> builtins.list[ProjectionRecord]:
        """Return the records of all projections and followers of the store, sorted by name.

        `kind` is rows, sql, effects, follower or consumer (of a server); elsewhere, where its own database is
        unreachable, so that only the name and the class's address are known.
        """
        own = self.catalog.own_target()
        if own is None:
            records = {each.name: each for target in self.catalog.open_targets() for each in target.records()}
            return sorted(records.values(), key=lambda each: each.name)
        records = {each.name: each for each in own.records()}
        for name, record in records.items():
            if record.kind in (ELSEWHERE, FORWARDED):
                with suppress(EventfoldError):
                    records[name] = require_record(self.catalog.find(name)[1], name)
        return sorted(records.values(), key=lambda each: each.name)

    def status(self, *projections: Named) -> builtins.list[Status]:
        """Return the status of these projections, by default of all in `list()`."""
        if not projections:
            return statuses(self.log, self._located(), tolerant=True)
        named = [self.catalog.find(each) for each in projections]
        found = [(require_record(target, name), target) for name, target in named]
        if len(found) > 1:
            return statuses(self.log, found, tolerant=False)
        return [run(status_of(self.log, target, record, target.now())) for record, target in found]

    def observe(self) -> builtins.list[Observed]:
        """Return the statuses of all, each with the checkpoints and the parked events that it was made from."""
        return observe(self.log, self._located(), tolerant=True)

    def _located(self) -> builtins.list[Located]:
        """Return the records of all projections, each with its target, or the error that says why it has none."""
        own = self.catalog.own_target()
        if own is None:
            every = {each.name: (each, target) for target in self.catalog.open_targets() for each in target.records()}
            return [every[name] for name in sorted(every)]
        there: dict[int, dict[str, ProjectionRecord]] = {}  # the records of other targets, each read once
        located: builtins.list[Located] = []
        for record in own.records():
            if record.kind not in (ELSEWHERE, FORWARDED):
                located.append((record, own))
                continue
            try:
                target = self.catalog.find_recorded(record.name, record)[1]
                if id(target) not in there:
                    there[id(target)] = {each.name: each for each in target.records()}
                located.append((there[id(target)].get(record.name) or require_record(target, record.name), target))
            except AWAY as error:
                located.append((record, error))
        return located

    def checkpoints(self, projection: Named) -> builtins.list[Checkpoint]:
        """Return the checkpoints of all partitions and generations of a projection."""
        name, target = self.catalog.find(projection)
        return target.checkpoints(name)

    def select(
        self,
        projection: type[P],
        filters: Sequence[Any],
        equal: Mapping[str, Any],
        order: str | Sequence[str],
        generation: int | None = None,
        wait: int | None = None,
    ) -> Selection[P]:
        """See Store.select."""
        if wait is not None:
            self.wait(projection, check_position(wait, "wait"))
        definition = projection_definition(projection)
        codec_of(definition)
        self.catalog.target_of(definition)
        target = partial(self.catalog.target_at, definition.target)
        return Selection(TargetRows(definition, target, generation, self.log.engine.store_id), filters, equal, order)

    def verify(self, *projections: Named, progress: Progress = lambda _done, _all: None) -> builtins.list[Proof]:
        """Recount the log and compare every ledger with it: of these projections, processes and followers, or of all.

        A proof shows that every event was handled once; it does not check the values of rows, for which see
        `verify_rows`. One that cannot be counted (its class cannot be imported here, its database is unreachable) is
        not proved, and its verdict says why. `progress(done, all)` is called with numbers of positions.
        """
        todo: list[tuple[Target, Checkpoint, ProjectionDefinition | None, bool]] = []
        proofs: list[Proof] = []
        for each in projections or [record.name for record in self.list()]:
            try:
                todo.extend(self._checkpoints_to_verify(each))
            except TargetUnavailable as error:
                if projections:
                    raise
                proofs.append(unproved_error(str(each), error))  # its database is unreachable: prove the others
        whole, done = sum(checkpoint.position for _, checkpoint, _, _ in todo), 0
        for target, checkpoint, definition, for_rollback in todo:
            report = partial(_ahead, progress, done, whole)
            try:
                proofs.append(run(prove(self.log, target, checkpoint, definition, report, for_rollback=for_rollback)))
            except (InvalidInput, ProjectionError, Unreadable) as error:
                proofs.append(unproved_error(checkpoint.place.name, error, checkpoint))
            done += checkpoint.position
            progress(done, whole)
        return proofs

    def _checkpoints_to_verify(
        self, projection: Named
    ) -> builtins.list[tuple[Target, Checkpoint, ProjectionDefinition | None, bool]]:
        """Return the checkpoints of a projection, each with its target, its definition and whether it is superseded.

        The definition is given where partitions need it and the class can be imported. Superseded: the generation is
        neither live nor being built.
        """
        name, target = self.catalog.find(projection)
        record = require_record(target, name)
        checkpoints: list[tuple[Target, Checkpoint, ProjectionDefinition | None, bool]] = []
        for checkpoint in target.checkpoints(name):
            definition = None
            if checkpoint.partitions > 1 or not isinstance(projection, str):
                with suppress(InvalidInput):
                    definition = self.catalog.definition_of(projection)
            checkpoints.append(
                (target, checkpoint, definition, checkpoint.place.generation not in (record.live, record.building))
            )
        return checkpoints

    def verify_rows(
        self, *projections: Named, progress: Progress = lambda _done, _all: None
    ) -> builtins.list[RowProof]:
        """Fold read models again beside the live rows, and compare every row: of these, or of all with rows.

        The rows folded again are a generation that is dropped at the end. It needs as much space as the live rows, and
        a writable database. Rows that change meanwhile are compared again. Raises ProjectionStopped where the fold
        fails, InvalidProjection for a projection without rows or whose class cannot be imported, TargetUnavailable.
        """
        named = projections or [each.name for each in self.list() if each.kind not in keeps_progress]
        proofs: list[RowProof] = []
        for each in named:
            definition = self.catalog.definition_of(each)
            if definition.kind == "effects":
                raise InvalidProjection(
                    f"{definition.name} has no rows.", "Name a read model.", projection=definition.name
                )
            proofs.append(
                RowCheck(definition, self.catalog.target_of(definition), self.log, self.catalog.lease).compare(progress)
            )
        return proofs

    def verify_log(self, progress: Progress = lambda _done, _all: None) -> LogProof:
        """Have the engine check its own log, by comparing data that it stores twice.

        `progress(done, all)` is called with numbers of events.
        """
        return run(prove_log(self.log, progress))

    def record(self, *proofs: LogProof | Proof | RowProof) -> Receipt | None:
        """Append the results of verifications to the log: an event `$verified` for each subject, tagged by its name.

        None if there are none. They have the metadata of the caller, such as `actor`. Raises what an append raises.
        """
        found = [(each, TYPE, f"{TYPE}:{each.subject}") for each in results_of(proofs)]
        return run(append_facts(self.log, self._options, found))

    def append_fact(self, type: str, tag: str, event: Event) -> Receipt:
        """Append an event of eventfold, whose type begins with `$`, with the metadata of the caller: for tools."""
        receipt = run(append_facts(self.log, self._options, [(event, type, tag)]))
        assert receipt is not None
        return receipt

    # Operations

    def pause(self, projection: Named, because: str) -> None:
        """Pause a projection in all processes until it is resumed. `because`: the reason, which its status shows.

        Raises InvalidProjection without a reason, or for an inline projection.
        """
        self._operations.pause(projection, because)

    def resume(self, projection: Named) -> None:
        """Resume a projection after a pause, or try again the event at which it stopped."""
        self._operations.resume(projection)

    def parked(self, projection: Named, generation: int | None = None) -> builtins.list[ParkedEvent]:
        """Return the parked, due and skipped events of a generation (by default the live one), in order of position."""
        return self._operations.parked(projection, generation)

    def retry(self, projection: Named, position: int | None = None) -> int:
        """Mark parked events due for a retry by the runner: one, or all. Returns how many.

        Later parked events of the same keys are retried as well. Raises EventNotParked.
        """
        return self._operations.retry(projection, position)

    def skip(self, projection: Named, position: int, because: str) -> None:
        """Skip one event for good: a parked one, or the one at which the projection stopped. `because`: the reason.

        It is skipped in the live generation and in the one being built. Raises EventNotParked.
        """
        self._operations.skip(projection, position, because)

    def accept(self, projection: Named) -> None:
        """Accept the existing rows as right for code that has changed.

        Raises ProjectionChanged where they cannot be: other columns, another number of partitions, or events in the
        log that only one of the old and the new code handles.
        """
        self._operations.accept(projection)

    def begin(self, projection: Named, at: int | date) -> int:
        """Continue an effect, a process or a subscription after a position (or moment, or day); return the position.

        Events up to it, inclusive, count as handled; later ones are handled, also if they were before. Registers it if
        necessary. Drops its parked events. Raises LeaseHeld while a runner works on it; InvalidProjection for read
        models (rebuild them) and followers (follow with after=store.cursor(…)).
        """
        return self._operations.begin(projection, at)

    def remove(self, projection: Named) -> int:
        """Remove a follower's progress, or all generations of a read model with their rows.

        Returns the position that it had reached. Raises LeaseHeld while a runner or follower works on it.
        """
        return self._operations.remove(projection)

    # Generations

    def rebuild(
        self,
        projection: Named,
        *,
        at: int | date | None = None,
        progress: Callable[[int, int], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> int:
        """Build a new generation beside the live one, up to the log's head; return its number.

        If it is interrupted (or `stop()` returns True), the next rebuild of the same code continues it.
        `progress(position, head)` is called after each page. `at`: build it as of a position, moment or day in the
        past; such a generation can be read and compared, but never goes live.
        """
        return self._rebuilds.rebuild(projection, at=at, progress=progress, stop=stop)

    def compare(self, projection: Named, generation: int | None = None) -> Comparison:
        """Compare the live generation with another (by default the one being built, else the previous one).

        Both are caught up first, if this process has their code; rows of an older eventfold that have to be rebuilt
        are compared at the position where they are.
        """
        return self._rebuilds.compare(projection, generation)

    def switch(self, projection: Named) -> ProjectionRecord:
        """Make the generation being built live: catch it up, then switch in one small transaction."""
        return self._rebuilds.switch(projection)

    def rollback(self, projection: Named) -> ProjectionRecord:
        """Make the previous generation live again. A runner with its code continues at its checkpoint."""
        return self._rebuilds.rollback(projection)

    def discard(self, projection: Named, generation: int | None = None) -> None:
        """Drop the generation being built, or one that was built as of a moment in the past."""
        self._rebuilds.discard(projection, generation)


def _ahead(progress: Progress, before: int, whole: int, position: int) -> None:
    progress(before + position, whole)
