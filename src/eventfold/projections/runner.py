"""The runner: a thread for each partition of each projection, woken by commits, and the warnings that it logs.

Knows: threads, back-off, when to renew a lease, what was logged already. Does not know: what a step does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from eventfold.concurrency import CommitSignal, run
from eventfold.concurrency.deadlines import stopped_by
from eventfold.concurrency.waiting import Flag
from eventfold.core.backoff import Backoff
from eventfold.core.counted import count_of
from eventfold.core.store_address import StoreAddress
from eventfold.errors import (
    EventfoldError,
    ProjectionChanged,
    ProjectionStopped,
    StoreClosed,
    StoreUnavailable,
    TargetUnavailable,
)
from eventfold.log.context import Log
from eventfold.ports.target import PartitionKey, Target
from eventfold.projections.catch_up import wall_clock, worker_context
from eventfold.projections.definition import ProjectionDefinition
from eventfold.projections.failures import paused_error, stopped_error
from eventfold.projections.generations import register
from eventfold.projections.joint_commit import JointCommits, joint_commits
from eventfold.projections.leases import LeaseHeartbeat, PartitionAssignment, new_holder_id
from eventfold.projections.observer import Observer
from eventfold.projections.pace import MAX_PAUSE_S, Pace, check_max_pause
from eventfold.projections.worker import PartitionWorker, StepResult

GATHER_S = 0.002  # seconds to wait after a commit signal, so that events appended one by one share a page
POLL_EVERY_S = 1.0  # seconds: how often an idle worker reads whether an operator changed something
BACKOFF = Backoff(0.05, 5.0)  # while a database is unreachable
SWITCH_POLL_S = 0.2  # seconds: how often a runner that waits for a switch reads whether it has happened
MAX_REPEATS = 10  # parked events that are logged one by one


class _Shared(msgspec.Struct, frozen=True):
    """What the threads of one runner share. `holder` names all of them in leases, which last `lease` seconds.

    `max_pause`: the longest pause between two pages, in seconds; `began`: when the runner was started (monotonic).
    `clock` returns the time in µs since 1970 UTC, for alerts.
    """

    log: Log
    lease: float
    max_pause: float
    began: float
    holder: str
    stop: threading.Event
    failed: dict[str, EventfoldError]
    trouble: dict[str, EventfoldError]
    clock: Callable[[], int]
    observer: Observer | None
    address: StoreAddress
    waits_for_switch: bool


class Runner:
    """Running projections: use `with store.run(CarrierMonth): …`, or call `stop()`.

    `failed`: by projection, the error that ended its threads (its code changed, its cursor is of another store), or for
    which it was not run (`refused`).
    `trouble`: by projection, an error after which it is retrying (its database is unreachable; with `waits_for_switch`
    also that its rows are of other code: it begins when a rebuild is switched to). Errors of handlers are
    in the projection's status. All of these are also logged as warnings by the logger "eventfold".
    """

    def __init__(
        self,
        log: Log,
        definitions: Sequence[tuple[ProjectionDefinition, Target]],
        lease: float,
        max_pause: float = MAX_PAUSE_S,
        clock: Callable[[], int] = wall_clock,
        observer: Observer | None = None,
        refused: Mapping[str, EventfoldError] | None = None,
        address: StoreAddress = StoreAddress(),  # noqa: B008 (it is frozen)
        *,
        waits_for_switch: bool = False,
    ) -> None:
        self.failed: dict[str, EventfoldError] = dict(refused or {})
        self.trouble: dict[str, EventfoldError] = {}
        self._stop = threading.Event()
        self._signals: list[CommitSignal] = []
        self._paused: list[tuple[str, Flag]] = []  # by projection, the flag that ends a pause of its thread
        self._threads: list[threading.Thread] = []
        self._heartbeats: dict[Target, LeaseHeartbeat] = {}
        shared = _Shared(
            log,
            lease,
            check_max_pause(max_pause),
            time.monotonic(),
            new_holder_id(),
            self._stop,
            self.failed,
            self.trouble,
            clock,
            observer,
            address,
            waits_for_switch,
        )
        joint = _joint_commits_of(definitions)
        for definition, target in definitions:
            assignment = (
                PartitionAssignment(definition.partitions, shared.holder, min(POLL_EVERY_S, lease / 3))
                if definition.partitions > 1
                else None
            )
            heartbeat = self._heartbeats.get(target) or self._heartbeats.setdefault(
                target, LeaseHeartbeat(target, lease)
            )
            for partition in range(definition.partitions):
                signal = CommitSignal(log.engine.watch)
                self._signals.append(signal)
                name = f"eventfold-{definition.name}-{partition}"
                own = joint.get(target) if definition.kind == "rows" else None
                work = _PartitionThread(shared, definition, target, partition, signal, heartbeat, assignment, own)
                self._paused.append((definition.name, work.wanted))
                self._threads.append(threading.Thread(target=work.run, name=name, daemon=True))
        for name, error in self.failed.items():
            address.in_error(error)
            WorkerLog(name, address).refused(error)
        for thread in self._threads:
            thread.start()

    @property
    def running(self) -> bool:
        """Whether any of its threads is alive."""
        return any(thread.is_alive() for thread in self._threads)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is stopped or every projection has failed. Returns False after `timeout` seconds."""
        ends = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            while thread.is_alive():
                left = 0.2 if ends is None else min(0.2, ends - time.monotonic())  # short, so that Ctrl-C takes effect
                if left <= 0:
                    return False
                thread.join(left)
        return True

    def end_pause(self, name: str) -> None:
        """Let a projection read its next page now, because a caller waits for it."""
        for each, wanted in self._paused:
            if each == name:
                wanted.set()

    def stop(self) -> None:
        """Commit the pages in progress, end the threads, release the leases. Stopping twice is harmless."""
        self._stop.set()
        for _, wanted in self._paused:
            wanted.set()
        for signal in self._signals:
            signal.notify()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        for heartbeat in self._heartbeats.values():
            heartbeat.stop()
        for signal in self._signals:
            signal.close()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


class _PartitionThread:
    """The work of one thread: one partition of one projection. `wanted`: set it to end a pause between pages."""

    def __init__(
        self,
        shared: _Shared,
        definition: ProjectionDefinition,
        target: Target,
        partition: int,
        signal: CommitSignal,
        heartbeat: LeaseHeartbeat,
        assignment: PartitionAssignment | None,
        joint: JointCommits | None,
    ) -> None:
        self._shared, self._definition, self._target, self._partition = shared, definition, target, partition
        self._signal, self._heartbeat, self._worker_log = signal, heartbeat, WorkerLog(definition.name, shared.address)
        self._assignment, self._joint = assignment, joint
        self.wanted = Flag()
        # Effects and processes are not read models: what they do is awaited, and they append themselves.
        self._pace = Pace(0.0 if definition.kind == "effects" else shared.max_pause, shared.began)
        self._failures = 0  # since the last success

    def run(self) -> None:
        """Work until stopped. Where another generation became the live one, continue with that one."""
        with stopped_by(self._shared.stop):
            self._run()

    def _run(self) -> None:
        shared, name = self._shared, self._definition.name
        while not shared.stop.is_set():
            try:
                self._run_generation()
            except StoreClosed:
                return
            except (TargetUnavailable, StoreUnavailable) as error:
                shared.trouble[name] = error
                self._worker_log.trouble(error)
                self._failures += 1
                self._wait(BACKOFF.pause(self._failures))
            except EventfoldError as error:
                shared.address.in_error(error)
                if shared.waits_for_switch and isinstance(error, ProjectionChanged):
                    shared.trouble[name] = error
                    self._failures += 1
                    self._worker_log.waits(error)
                    self._wait(SWITCH_POLL_S)
                    continue
                shared.failed[name] = error
                self._worker_log.failed(error)
                return
            except BaseException as error:  # noqa: BLE001 (it is logged): SystemExit, say, would end the thread silently
                stopped = ProjectionStopped(
                    f"The code of {name} raised {error!r}, which ended its thread.",
                    "Raise errors derived from Exception in handlers, and start the runner again.",
                    projection=name,
                )
                stopped.__cause__ = error
                shared.failed[name] = stopped
                self._worker_log.failed(stopped)
                return

    def _run_generation(self) -> None:
        shared = self._shared
        record = run(register(self._definition, shared.log, self._target))
        partition_key = PartitionKey(record.name, record.live, self._partition)
        context = worker_context(shared.log, self._target, shared.lease, self._joint, shared.clock, shared.observer)
        worker = PartitionWorker(self._definition, context, partition_key, shared.holder)
        try:
            self._run_steps(worker, context.lease)
        finally:
            if self._joint is not None:
                self._joint.leave(partition_key)
            if self._assignment is not None:
                self._assignment.note_held(self._partition, held=False)
            try:
                worker.release()
            except (TargetUnavailable, StoreUnavailable) as error:  # the lease expires by itself
                shared.trouble[self._definition.name] = error

    def _run_steps(self, worker: PartitionWorker, lease: float) -> None:
        stop, poll_every = self._shared.stop, min(POLL_EVERY_S, lease / 3)
        renewed_at = time.monotonic()
        while not stop.is_set():
            if self._left_to_others(worker):
                self._wait(poll_every / 4)
                continue
            self._signal.clear()
            self.wanted.clear()
            state = self._step(worker)
            self._note_success()
            self._worker_log.state(state, worker)
            if state is StepResult.STOPPED and worker.ended_by is not None and worker.checkpoint is not None:
                raise stopped_error(self._definition.name, worker.checkpoint) from worker.ended_by
            if state is StepResult.PROGRESSED:
                renewed_at = time.monotonic()
                self._pause_after(worker)
                continue
            self._pace.after_idle()
            if state is StepResult.SUPERSEDED:
                return
            if state is StepResult.IDLE and self._signal.wait(poll_every):
                self._expect(worker, GATHER_S)
                self._wait(GATHER_S)
            elif state is not StepResult.IDLE:
                self._wait(poll_every)
            if time.monotonic() - renewed_at >= poll_every:
                worker.renew_lease()
                renewed_at = time.monotonic()

    def _step(self, worker: PartitionWorker) -> StepResult:
        """Let the worker do its next step. Other read models of the target wait for its page, unless it is behind."""
        try:
            if worker.last_page is None or not worker.last_page[1]:
                self._expect(worker, 0.0)
            with self._heartbeat.during(worker.lease):
                return run(worker.step())
        finally:
            if self._joint is not None:
                self._joint.leave(worker.partition_key)

    def _expect(self, worker: PartitionWorker, seconds: float) -> None:
        """Let other read models of the target know that this one will begin to work on a page so many seconds later."""
        if self._joint is not None:
            self._joint.expect(worker.partition_key, time.monotonic() + seconds)

    def _pause_after(self, worker: PartitionWorker) -> None:
        """Pause after a page, while others append."""
        if worker.last_page is not None:
            self._pace.after_page(*worker.last_page)
            delay = self._pace.delay(time.monotonic())
            if delay and not self._shared.stop.is_set():
                self._expect(worker, delay)
                self.wanted.wait(delay)

    def _left_to_others(self, worker: PartitionWorker) -> bool:
        """Whether this partition is left to other runners now. Releases it where this runner has too many."""
        assignment, partition = self._assignment, self._partition
        if assignment is None:
            return False
        assignment.note_held(partition, worker.checkpoint is not None)
        if worker.checkpoint is None:
            return not assignment.may_claim(partition)
        partition_key = worker.partition_key
        checkpoints = self._target.checkpoints
        if not assignment.should_release(
            partition,
            lambda: [checkpoint.holder for checkpoint in checkpoints(partition_key.name, partition_key.generation)],
        ):
            return False
        worker.release()
        return True

    def _note_success(self) -> None:
        if self._failures:
            self._failures = 0
            self._shared.trouble.pop(self._definition.name, None)
            self._worker_log.recovered()

    def _wait(self, seconds: float) -> None:
        self._shared.stop.wait(seconds)


def _joint_commits_of(definitions: Sequence[tuple[ProjectionDefinition, Target]]) -> dict[Target, JointCommits]:
    """Return an object for each target that can commit rows of several partitions together."""
    found = {target: joint_commits(target) for target in {target for _, target in definitions}}
    return {target: joint for target, joint in found.items() if joint is not None}


class WorkerLog:
    """Logs warnings about one partition of a projection, each of them once while it lasts."""

    def __init__(self, name: str, address: StoreAddress) -> None:
        self._name, self._address = name, address
        self._logged = ""
        self._parked = 0

    def state(self, state: StepResult, worker: PartitionWorker) -> None:
        """Log the result of a step, if it is new, and the events that it parked."""
        while worker.newly_parked:
            entry = worker.newly_parked.pop(0)
            self._parked += 1
            if self._parked <= MAX_REPEATS:
                self._warn(
                    f"{self._name} parked event {entry.position} ({entry.type}) of {entry.key}, after "
                    f"{count_of(entry.attempts, 'attempt')}: {entry.error}"
                )
            if self._parked == MAX_REPEATS:
                self._warn(
                    f"{self._name} may park more events, which are not logged. List them: "
                    f"eventfold projections parked STORE {self._name}"
                )
        if state is StepResult.STOPPED and worker.checkpoint is not None:
            self._warn_once(str(stopped_error(self._name, worker.checkpoint)))
        elif state is StepResult.PAUSED:
            self._warn_once(str(paused_error(self._name, worker.paused_because)))
        elif state in (StepResult.PROGRESSED, StepResult.IDLE):
            self._logged = ""

    def trouble(self, error: EventfoldError) -> None:
        """Log an error after which the projection is retrying."""
        self._warn_once(f"{self._name}: {error}")

    def waits(self, error: EventfoldError) -> None:
        """Log that it waits until its rows are those of this code."""
        self._warn_once(f"{self._name} waits until the rows are of its code: {error}")

    def recovered(self) -> None:
        """Log that it works again, if an error was logged before."""
        if self._logged:
            self._warn(f"{self._name} works again.")
        self._logged = ""

    def failed(self, error: EventfoldError) -> None:
        """Log the error that ended its thread."""
        self._warn_once(f"{self._name} is no longer running: {error}")

    def refused(self, error: EventfoldError) -> None:
        """Log why it is not run, while others are."""
        self._warn_once(f"{self._name} is not run, the others are: {error} Then start this runner again.")

    def _warn_once(self, text: str) -> None:
        if self._logged != text:
            self._logged = text
            self._warn(text)

    def _warn(self, text: str) -> None:
        import logging  # here, to save the import: most processes that open a store log nothing

        logging.getLogger("eventfold").warning("%s", self._address.in_text(text))
