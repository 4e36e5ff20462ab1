"""The administration of a store's projections: run, status, rows, proofs; pause to remove; rebuild to discard.

Knows: what may be asked and done, by class or by name. Does not know: how an event is folded, how rows are kept.
"""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from functools import partial
from typing import Any, TypeVar
from weakref import WeakSet

from eventfold.concurrency import run
from eventfold.core.query import Cursor, Query
from eventfold.core.renamed import refuse_old_attributes
from eventfold.core.table import filter_value, generation_table
from eventfold.core.unstorable import refuse_limit, refuse_unstorable_filter, sort_fields, unstorable_filter_error
from eventfold.errors import (
    CursorMismatch,
    EventfoldError,
    InvalidInput,
    InvalidProjection,
    ProjectionError,
    TargetUnavailable,
    UnknownProjection,
    Unreadable,
)
from eventfold.log.context import Options
from eventfold.log.cursors import verify
from eventfold.ports.services import require
from eventfold.ports.target import (
    ELSEWHERE,
    FORWARDED,
    Checkpoint,
    CheckpointChanged,
    ParkedEvent,
    PartitionKey,
    ProjectionRecord,
    RowRefused,
    Target,
)
from eventfold.projections import generations, inline_admin
from eventfold.projections.catalog import Named, ProjectionCatalog
from eventfold.projections.catch_up import CATCH_UP_TIMEOUT_S, behind_error, catch_up_partition, refuse_stopped
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
from eventfold.projections.follower_progress import FollowerProgress
from eventfold.projections.generations import require_record
from eventfold.projections.inline_admin import is_inline
from eventfold.projections.operations import ProjectionOperations
from eventfold.projections.rebuilds import ProjectionRebuilds
from eventfold.projections.runner import Runner
from eventfold.projections.status import Status, status_of, unreachable_status
from eventfold.projections.verify import LogProof, Progress, Proof, prove, prove_log, unproved_error

P = TypeVar("P", bound=Projection)


@refuse_old_attributes("ProjectionAdmin")
class ProjectionAdmin:
    """The projections of a store: `store.projections`. A projection is named by its class or by its name.

    By name, it is looked for in the store's own database; what needs its code imports it from where it was kept from.
    """

    def __init__(
        self,
        catalog: ProjectionCatalog,
        options: Options | None = None,
        *,
        runners: list[Runner] | None = None,
        followers: WeakSet[FollowerProgress] | None = None,
    ) -> None:
        self.catalog = catalog
        self.log = catalog.log  # for tools: a log whose calls block
        commands = OperatorCommands(catalog.log, options or Options())
        self._operations = ProjectionOperations(catalog, commands)
        self._rebuilds = ProjectionRebuilds(catalog, commands)
        self._runners: list[Runner] = [] if runners is None else runners  # stopped by close()
        self._followers: WeakSet[FollowerProgress] = WeakSet() if followers is None else followers

    def using(self, options: Options) -> ProjectionAdmin:
        """The same projections, whose operations are recorded with the metadata of these options."""
        return ProjectionAdmin(self.catalog, options, runners=self._runners, followers=self._followers)

    def target(self, projection: Named) -> Target:
        """Where a projection's rows are kept: for tools."""
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
        """Have every append to the store keep these up, whoever makes it. See Store(inline=…).

        Raises NotSupported, InvalidProjection, ProjectionChanged (its code is another now), ProjectionStopped.
        """
        definitions, own = projection_definitions(projections), self.catalog.target_at()
        folder = inline_admin.inline_projector(self.log, own, definitions)
        records = {definition.name: self.catalog.register(definition)[1] for definition in definitions}
        require(self.log.engine, "inline").set_projector(folder)
        for definition in inline_admin.unregistered(self.log, definitions):
            self._register_inline(definition, own, records[definition.name])

    def _register_inline(self, definition: ProjectionDefinition, own: Target, record: ProjectionRecord) -> None:
        """Have every append keep its live generation up, whichever that is by then."""
        for _ in range(MAX_DISTURBED):
            with suppress(CheckpointChanged):
                if not inline_admin.register_inline(self.log, own, definition, record, self.catalog.lease):
                    refuse_stopped(own, PartitionKey(definition.name, record.live))
                return
            record = self.catalog.register(definition)[1]
        raise changed_too_often(own, definition.name)

    def project(
        self, *projections: ProjectionLike, timeout: float = CATCH_UP_TIMEOUT_S, progress: Progress | None = None
    ) -> None:
        """See Store.project."""
        head = run(self.log.engine.head()).position
        failed: list[EventfoldError] = []
        for definition in projection_definitions(projections):
            try:
                target, record = self.catalog.register(definition)
                if is_inline(target.checkpoints(definition.name, record.live)):
                    continue  # every append has done it
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
                    )
            except (ProjectionError, InvalidProjection, CursorMismatch) as error:  # no reason not to serve the others
                failed.append(error)
        if failed:
            for other in failed[1:]:
                failed[0].add_note(str(other))
            raise failed[0]

    def run(self, *projections: ProjectionLike) -> Runner:
        """See Store.run."""
        definitions = [
            (definition, self.catalog.register(definition)[0]) for definition in projection_definitions(projections)
        ]
        runner = Runner(self.log, definitions, self.catalog.lease)
        self._runners.append(runner)
        return runner

    def wait(self, projection: Named, position: int | None = None, timeout: float = CATCH_UP_TIMEOUT_S) -> int:
        """See Store.wait."""
        name, target = self.catalog.find(projection)
        wanted = run(self.log.engine.head()).position if position is None else position
        ends, nap = time.monotonic() + timeout, 0.001
        while True:
            try:
                record = require_record(target, name)
                checkpoint = min(target.checkpoints(name, record.live), key=lambda each: each.position)
            except TargetUnavailable:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.05)  # away for a moment, like whoever writes there: it is waited for all the same
                continue
            if checkpoint.position >= wanted and not target.delivery_lag(name, record.live):
                self._refuse_restored(record, checkpoint)
                return checkpoint.position
            if is_inline([checkpoint]) and (head := run(self.log.engine.head()).position) >= wanted:
                return head
            if checkpoint.stopped:
                raise stopped_error(name, checkpoint)
            if time.monotonic() > ends:
                raise behind_error(self.log, target, name, checkpoint, wanted, timeout)
            time.sleep(nap)
            nap = min(nap * 1.5, 0.02)

    def _refuse_restored(self, record: ProjectionRecord, checkpoint: Checkpoint) -> None:
        """Rows of history that this log does not have answer for nothing that is in it."""
        try:
            run(verify(self.log, Cursor(checkpoint.store, checkpoint.epoch, checkpoint.position, checkpoint.event_id)))
        except CursorMismatch as error:
            raise ahead_of_log_error(record.name, record.kind, error) from error

    def follower_progress(self, name: str, query: Query, after: int | Cursor | str) -> FollowerProgress:
        """What keeps the progress of a follower: see Store.follow."""
        progress = FollowerProgress(self.log, self.catalog.target_at(), name, query, after, self.catalog.lease)
        self._followers.add(progress)
        return progress

    # Looking

    def list(self) -> builtins.list[ProjectionRecord]:
        """Every projection and follower of the store, by name; of those in a database that is away, what is noted here.

        `kind` is rows, sql, effects, follower or, where only its name is known here, elsewhere.
        """
        own = self.catalog.own_target()
        if own is None:
            found = {each.name: each for target in self.catalog.open_targets() for each in target.records()}
            return sorted(found.values(), key=lambda each: each.name)
        found = {each.name: each for each in own.records()}
        for name, noted in found.items():
            if noted.kind in (ELSEWHERE, FORWARDED):
                with suppress(EventfoldError):
                    found[name] = require_record(self.catalog.find(name)[1], name)
        return sorted(found.values(), key=lambda each: each.name)

    def status(self, *projections: Named) -> builtins.list[Status]:
        """Where projections stand, by default all of `known()`, and why they are behind if they are."""
        return [self._status(each, not projections) for each in projections or [record.name for record in self.list()]]

    def _status(self, projection: Named, one_of_all: bool) -> Status:
        try:
            name, target = self.catalog.find(projection)
            return run(status_of(self.log, target, require_record(target, name), target.now()))
        except (TargetUnavailable, InvalidProjection, UnknownProjection) as error:
            own = self.catalog.own_target()
            noted = own.record(projection) if own is not None and isinstance(projection, str) else None
            if not one_of_all or noted is None:
                raise
            return unreachable_status(noted, run(self.log.engine.head()).position, error)

    def checkpoints(self, projection: Named) -> builtins.list[Checkpoint]:
        """Every checkpoint of a projection, with its ledger, of all its generations."""
        name, target = self.catalog.find(projection)
        return target.checkpoints(name)

    def rows(
        self,
        projection: type[P],
        where: Mapping[str, Any],
        order: str | Sequence[str],
        limit: int | None,
        generation: int | None,
    ) -> builtins.list[P]:
        """See Store.rows."""
        by = sort_fields(order)
        definition = projection_definition(projection)
        if definition.rows is None:
            raise InvalidProjection(f"{definition.name} has tables of its own.", "Ask them with SQL.")
        refuse_limit(limit)
        target = self.catalog.target_of(definition)
        if generation is not None:
            generations.refuse_unknown(target.checkpoints(definition.name), definition.name, generation)
        table = generation_table(definition.rows.table, generation or require_record(target, definition.name).live)
        packed = {name: filter_value(table, name, value) for name, value in where.items()}
        refuse_unstorable_filter(definition.name, definition.rows.table, packed)
        try:
            found = target.select(table, packed, by, limit)
        except (RowRefused, TypeError, ValueError, OverflowError) as error:  # no row can be like that
            raise unstorable_filter_error(definition.name, definition.rows.table, packed, error) from error
        return [definition.rows.unpack(row) for row in found]

    def verify(self, *projections: Named, progress: Progress = lambda _done, _all: None) -> builtins.list[Proof]:
        """Count the log again and hold every ledger against it: of these projections and followers, or of all.

        Processes and effects are named by their class or name as well. A proof says of every event that it was taken
        once, and nothing of what the rows' columns hold: see `verify_rows`. One that cannot be counted (its class
        cannot be imported here, its database is away) is not proved and says why; the others are counted all the same.
        `progress` is told (done, all), in positions to be counted.
        """
        todo: list[tuple[Target, Checkpoint, ProjectionDefinition | None, bool]] = []
        proofs: list[Proof] = []
        for each in projections or [record.name for record in self.list()]:
            try:
                todo.extend(self._checkpoints_to_verify(each))
            except TargetUnavailable as error:
                if projections:
                    raise
                proofs.append(
                    unproved_error(str(each), error)
                )  # its database is away: the others can be proved all the same
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
        """Its checkpoints; with its definition where it is split by key, if that can be imported here.

        Last, whether readers neither see that generation nor will.
        """
        name, target = self.catalog.find(projection)
        record = require_record(target, name)
        found: list[tuple[Target, Checkpoint, ProjectionDefinition | None, bool]] = []
        for checkpoint in target.checkpoints(name):
            definition = None
            if checkpoint.partitions > 1 or not isinstance(projection, str):
                with suppress(InvalidInput):
                    definition = self.catalog.definition_of(projection)
            found.append(
                (target, checkpoint, definition, checkpoint.place.generation not in (record.live, record.building))
            )
        return found

    def verify_rows(
        self, *projections: Named, progress: Progress = lambda _done, _all: None
    ) -> builtins.list[RowProof]:
        """Fold read models again, beside what readers see, and compare every row: of these, or of all that have rows.

        The rows folded again are a generation that is dropped at the end: it needs as much room as the live rows, and
        their database must take writes. Rows that change meanwhile are compared again. Raises ProjectionStopped where
        the fold fails, InvalidProjection for what has no rows or whose class cannot be imported, TargetUnavailable.
        """
        named = projections or [each.name for each in self.list() if each.kind not in ("effects", "follower")]
        found: list[RowProof] = []
        for each in named:
            definition = self.catalog.definition_of(each)
            if definition.kind == "effects":
                raise InvalidProjection(
                    f"{definition.name} keeps no rows.", "Name a read model.", projection=definition.name
                )
            found.append(
                RowCheck(definition, self.catalog.target_of(definition), self.log, self.catalog.lease).compare(progress)
            )
        return found

    def verify_log(self, progress: Progress = lambda _done, _all: None) -> LogProof:
        """Have the engine check its own log: whatever is written twice is compared. `progress` is told (done, all)."""
        return run(prove_log(self.log, progress))

    # Operations

    def pause(self, projection: Named, because: str) -> None:
        """Stop working on it, everywhere, until it is resumed."""
        self._operations.pause(projection, because)

    def resume(self, projection: Named) -> None:
        """Go on: after a pause, or once more with the event at which it stopped."""
        self._operations.resume(projection)

    def parked(self, projection: Named, generation: int | None = None) -> builtins.list[ParkedEvent]:
        """The events that were not handled: parked, due to be tried again, or skipped; by default what readers see."""
        return self._operations.parked(projection, generation)

    def retry(self, projection: Named, position: int | None = None) -> int:
        """Have parked events tried again by the runner: one, or all; returns how many. Later ones of a key follow."""
        return self._operations.retry(projection, position)

    def skip(self, projection: Named, position: int, because: str) -> None:
        """Leave one event out for good, and say why: one that is parked, or the one it stopped at.

        In what is being built as well as in what readers see.
        """
        self._operations.skip(projection, position, because)

    def accept(self, projection: Named) -> None:
        """Say that the rows are right as they are, though the code has changed.

        Refused where they cannot be: other columns, another number of partitions, or events in the log that the old
        code was not given, or the new one is not. Raises ProjectionChanged.
        """
        self._operations.accept(projection)

    def begin(self, projection: Named, at: int | date) -> int:
        """Let an effect, a process or a subscription go on behind a position (or moment, or day); returns the position.

        What came before is done with, whoever did it; what comes after is done, again if it was. Made known if it is
        not. What was parked is given up. Nothing may be at work on it: raises LeaseHeld. InvalidProjection for read
        models, which are rebuilt, and followers, which begin where they are told (after=store.cursor(…)).
        """
        return self._operations.begin(projection, at)

    def remove(self, projection: Named) -> int:
        """Give up what is kept: of a follower its progress, of a read model every generation and its rows.

        Returns the position it had come to. Nothing may be at work on it: raises LeaseHeld.
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
        """Build it anew beside what readers see; returns the number of the generation.

        Interrupted (or when `stop` says so) it is gone on with by the next rebuild of the same code. `progress` is
        told (position, head). `at` builds it as of a moment in the past: a generation to look at and to compare with,
        never to switch to.
        """
        return self._rebuilds.rebuild(projection, at=at, progress=progress, stop=stop)

    def compare(self, projection: Named, generation: int | None = None) -> Comparison:
        """What readers see beside another generation (by default the one being built, else the previous one).

        Both are brought up to date first, as far as this process has their code; rows of an older eventfold that
        have to be rebuilt stay where they are.
        """
        return self._rebuilds.compare(projection, generation)

    def switch(self, projection: Named) -> ProjectionRecord:
        """Let readers see what was built: it is brought up to date, then it takes one small transaction."""
        return self._rebuilds.switch(projection)

    def rollback(self, projection: Named) -> ProjectionRecord:
        """Let readers see the previous generation again. Its runner goes on where it was, with its own code."""
        return self._rebuilds.rollback(projection)

    def discard(self, projection: Named, generation: int | None = None) -> None:
        """Give up what is being built, or drop a generation that was built as of a moment in the past."""
        self._rebuilds.discard(projection, generation)


def _ahead(progress: Progress, before: int, whole: int, position: int) -> None:
    progress(before + position, whole)
