"""The runner: a thread for each partition of each projection, woken by commits; what it logs.

Knows: threads, back-off, when to renew a lease, what was logged already. Does not know: what a step does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import msgspec

from eventfold.concurrency import CommitSignal, run
from eventfold.errors import EventfoldError, ProjectionStopped, StoreClosed, StoreUnavailable, TargetUnavailable
from eventfold.log.context import Log
from eventfold.ports.target import PartitionKey, Target
from eventfold.projections.catch_up import worker_context
from eventfold.projections.definition import ProjectionDefinition
from eventfold.projections.failures import paused_error, stopped_error
from eventfold.projections.generations import register
from eventfold.projections.leases import LeaseHeartbeat, PartitionAssignment, new_holder_id
from eventfold.projections.worker import PartitionWorker, StepResult

GATHER_S = 0.002  # seconds to wait after a ring, so that events that come one by one are taken together
LOOK_EVERY_S = 1.0  # seconds: how often an idle worker looks whether somebody did something by hand
BACK_OFF_S = (0.05, 5.0)  # seconds: the first pause after a target was away, and the longest
MAX_REPEATS = 10  # parked events that are told one by one


class _Shared(msgspec.Struct, frozen=True):
    """What the threads of one runner share. `holder` is the name of them all in leases, which last `lease` seconds."""

    log: Log
    lease: float
    holder: str
    stop: threading.Event
    failed: dict[str, EventfoldError]
    trouble: dict[str, EventfoldError]


class Runner:
    """Projections being run: `with store.run(CarrierMonth): …`, or `stop()` it yourself.

    `failed` holds what ended a projection's threads (its code changed, a cursor of another store); `trouble` what is
    being tried again just now (a database away). What its handlers failed at is in the projection's status. All of it
    is told to the logger "eventfold", too.
    """

    def __init__(self, log: Log, definitions: Sequence[tuple[ProjectionDefinition, Target]], lease: float) -> None:
        self.failed: dict[str, EventfoldError] = {}
        self.trouble: dict[str, EventfoldError] = {}
        self._stop = threading.Event()
        self._bells: list[CommitSignal] = []
        self._threads: list[threading.Thread] = []
        self._hearts: dict[Target, LeaseHeartbeat] = {}
        shared = _Shared(log, lease, new_holder_id(), self._stop, self.failed, self.trouble)
        for definition, target in definitions:
            share = (
                PartitionAssignment(definition.partitions, shared.holder, min(LOOK_EVERY_S, lease / 3))
                if definition.partitions > 1
                else None
            )
            heart = self._hearts.get(target) or self._hearts.setdefault(target, LeaseHeartbeat(target, lease))
            for partition in range(definition.partitions):
                bell = CommitSignal(log.engine.watch)
                self._bells.append(bell)
                name = f"eventfold-{definition.name}-{partition}"
                job = _PartitionThread(shared, definition, target, partition, bell, heart, share)
                self._threads.append(threading.Thread(target=job.run, name=name, daemon=True))
        for thread in self._threads:
            thread.start()

    @property
    def running(self) -> bool:
        """Whether any of its threads lives."""
        return any(thread.is_alive() for thread in self._threads)

    def wait(self, timeout: float | None = None) -> bool:
        """Until it was stopped, or every projection failed; False if `timeout` (seconds) came first."""
        ends = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            while thread.is_alive():
                left = 0.2 if ends is None else min(0.2, ends - time.monotonic())  # so that Ctrl-C is heard
                if left <= 0:
                    return False
                thread.join(left)
        return True

    def stop(self) -> None:
        """Finish the pages in hand, commit them, give the leases back. Stopping twice is harmless."""
        self._stop.set()
        for bell in self._bells:
            bell.notify()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        for heart in self._hearts.values():
            heart.stop()
        for bell in self._bells:
            bell.close()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


class _PartitionThread:
    """One thread's work."""

    def __init__(
        self,
        shared: _Shared,
        definition: ProjectionDefinition,
        target: Target,
        partition: int,
        bell: CommitSignal,
        heart: LeaseHeartbeat,
        share: PartitionAssignment | None,
    ) -> None:
        self._shared, self._definition, self._target, self._partition, self._bell = (
            shared,
            definition,
            target,
            partition,
            bell,
        )
        self._heart, self._telling = heart, WorkerLog(definition.name)
        self._share = share
        self._pause = BACK_OFF_S[0]

    def run(self) -> None:
        """Until stopped; a generation that is no longer wanted is exchanged for the one that is."""
        shared, name = self._shared, self._definition.name
        while not shared.stop.is_set():
            try:
                self._generation()
            except StoreClosed:
                return
            except (TargetUnavailable, StoreUnavailable) as error:
                shared.trouble[name] = error
                self._telling.trouble(error)
                self._wait(self._pause)
                self._pause = min(self._pause * 2, BACK_OFF_S[1])
            except EventfoldError as error:
                shared.failed[name] = error
                self._telling.failed(error)
                return
            except BaseException as error:  # noqa: BLE001 (it is told): SystemExit, say, which would end the thread without a word
                stopped = ProjectionStopped(
                    f"The thread of {name} was ended by {error!r}, which its code raised.",
                    "Raise an error derived from Exception in handlers, and start the runner again.",
                    projection=name,
                )
                stopped.__cause__ = error
                shared.failed[name] = stopped
                self._telling.failed(stopped)
                return

    def _generation(self) -> None:
        shared = self._shared
        record = run(register(self._definition, shared.log, self._target))
        place = PartitionKey(record.name, record.live, self._partition)
        context = worker_context(shared.log, self._target, shared.lease)
        worker = PartitionWorker(self._definition, context, place, shared.holder)
        try:
            self._steps(worker, context.lease)
        finally:
            if self._share is not None:
                self._share.note_held(self._partition, held=False)
            try:
                worker.release()
            except (TargetUnavailable, StoreUnavailable) as error:  # it will expire by itself
                shared.trouble[self._definition.name] = error

    def _steps(self, worker: PartitionWorker, lease: float) -> None:
        stop, look = self._shared.stop, min(LOOK_EVERY_S, lease / 3)
        beaten = time.monotonic()
        while not stop.is_set():
            if self._left_to_others(worker):
                self._wait(look / 4)
                continue
            self._bell.clear()
            with self._heart.during(worker.lease):
                state = run(worker.step())
            self._settled()
            self._telling.state(state, worker)
            if state is StepResult.STOPPED and worker.ended_by is not None and worker.checkpoint is not None:
                raise stopped_error(self._definition.name, worker.checkpoint) from worker.ended_by
            if state is StepResult.PROGRESSED:
                beaten = time.monotonic()
                continue
            if state is StepResult.SUPERSEDED:
                return
            if state is StepResult.IDLE and self._bell.wait(look):
                self._wait(GATHER_S)
            elif state is not StepResult.IDLE:
                self._wait(look)
            if time.monotonic() - beaten >= look:
                worker.renew_lease()
                beaten = time.monotonic()

    def _left_to_others(self, worker: PartitionWorker) -> bool:
        """Whether this partition is not for us just now; lets go of it where others are to have it."""
        share, partition = self._share, self._partition
        if share is None:
            return False
        share.note_held(partition, worker.checkpoint is not None)
        if worker.checkpoint is None:
            return not share.may_claim(partition)
        place = worker.place
        kept = self._target.checkpoints
        if not share.should_release(
            partition, lambda: [checkpoint.holder for checkpoint in kept(place.name, place.generation)]
        ):
            return False
        worker.release()
        return True

    def _settled(self) -> None:
        if self._pause != BACK_OFF_S[0]:
            self._pause = BACK_OFF_S[0]
            self._shared.trouble.pop(self._definition.name, None)
            self._telling.recovered()

    def _wait(self, seconds: float) -> None:
        self._shared.stop.wait(seconds)


class WorkerLog:
    """Of one projection."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._told = ""
        self._parked = 0

    def state(self, state: StepResult, worker: PartitionWorker) -> None:
        """What came of a step."""
        while worker.newly_parked:
            entry = worker.newly_parked.pop(0)
            self._parked += 1
            if self._parked <= MAX_REPEATS:
                self._warn(
                    f"{self._name} parked event {entry.position} ({entry.type}) of {entry.key}, after {entry.attempts} "
                    f"attempts: {entry.error}"
                )
            if self._parked == MAX_REPEATS:
                self._warn(
                    f"{self._name} parks more, which is told no longer: eventfold projections parked {self._name}"
                )
        if state is StepResult.STOPPED and worker.checkpoint is not None:
            self._once(str(stopped_error(self._name, worker.checkpoint)))
        elif state is StepResult.PAUSED:
            self._once(str(paused_error(self._name, worker.paused_because)))
        elif state in (StepResult.PROGRESSED, StepResult.IDLE):
            self._told = ""

    def trouble(self, error: EventfoldError) -> None:
        """Something that is tried again."""
        self._once(f"{self._name}: {error}")

    def recovered(self) -> None:
        """It went well again."""
        if self._told:
            self._warn(f"{self._name} goes on.")
        self._told = ""

    def failed(self, error: EventfoldError) -> None:
        """Something that ended it."""
        self._once(f"{self._name} is run no longer: {error}")

    def _once(self, text: str) -> None:
        if self._told != text:
            self._told = text
            self._warn(text)

    @staticmethod
    def _warn(text: str) -> None:
        import logging  # here: most processes that open a store have nothing to tell

        logging.getLogger("eventfold").warning("%s", text)
