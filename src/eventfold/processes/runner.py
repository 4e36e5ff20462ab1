"""Running read models, processes and effects in threads, with their timers and retries.

Knows: threads, the wall clock, the runner of `projections`. Does not know: what a reaction is, how a timer fires.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from types import TracebackType
from typing import Any

from eventfold.concurrency import CommitSignal, in_thread, run
from eventfold.core.backoff import Backoff
from eventfold.errors import (
    EventfoldError,
    ProcessError,
    StoreClosed,
    StoreUnavailable,
    TargetUnavailable,
)
from eventfold.processes.effects import Effect
from eventfold.processes.parts import Clocked, expand, make
from eventfold.processes.retries import RetryScheduler
from eventfold.processes.timers import TimerQueue
from eventfold.processes.work import ProcessOrEffect, Work, name_of, partition_work, policy_of, register_all
from eventfold.projections.admin import ProjectionAdmin
from eventfold.projections.catch_up import CATCH_UP_TIMEOUT_S, wall_clock
from eventfold.projections.definition import projection_definition, projection_definitions
from eventfold.projections.pace import MAX_PAUSE_S
from eventfold.projections.runner import Runner

CHECK_EVERY_S = 1.0  # between checks of the clock, which may have been set, and of parked events
GATHER_PAUSE_S = 0.005  # pause after a notification of a commit, so that commits at the same time are read together
BACKOFF = Backoff(0.05, 5.0)  # while the store is unavailable
Clock = Callable[[], int]


def _timers_of(reacting: Sequence[ProcessOrEffect], admin: ProjectionAdmin) -> list[Clocked]:
    """Return the timers of each process."""
    return [TimerQueue(name_of(each), admin.log) for each in reacting if not isinstance(each, Effect)]


class ProcessRunner:
    """Running read models, processes and effects: `with store.run(CarrierMonth, Payment): …`, or call `stop()`.

    `failed`: errors that ended a part of it for good, by name (changed code, a cursor of another store). `trouble`:
    errors after which it is being tried again (a database that is unavailable). Errors of handlers are in the status
    of each projection. Stuck instances and undelivered effects do not end anything: see `eventfold processes`.
    `partially`: run the others if the code of one has changed or its progress is unknown; it is in `failed`. If none is
    left, the error is raised. `waits_for_switch`: a read model whose code has changed waits for the switch to its rows.
    """

    def __init__(
        self,
        admin: ProjectionAdmin,
        work: Sequence[Work],
        clock: Clock = wall_clock,
        max_pause: float = MAX_PAUSE_S,
        *,
        partially: bool = False,
        waits_for_switch: bool = False,
    ) -> None:
        plain, clocked = expand(work)
        projections, reacting = partition_work(plain) if plain or not clocked else ([], [])
        refused: dict[str, EventfoldError] | None = {} if partially else None
        subscriptions = register_all(admin, reacting, refused)
        reacting = list(subscriptions)
        self._has_reactions = bool(plain)  # without any, it runs while its steps that are due at a time do
        self._failed: dict[str, EventfoldError] = {}
        self._trouble: dict[str, EventfoldError] = {}
        self._timers = [*_timers_of(reacting, admin), *make(clocked, admin)]
        self._retries = RetryScheduler(admin.catalog.target_at, {name_of(each): policy_of(each) for each in reacting})
        self._clock = clock
        self._stop = threading.Event()
        self._commits = CommitSignal(admin.log.engine.watch)
        self._reactions: Runner = admin.run(
            *(*projections, *subscriptions.values()),
            max_pause=max_pause,
            clock=clock,
            refused=refused,
            waits_for_switch=waits_for_switch,
        )
        self._timer_thread = threading.Thread(target=self._fire_timers, name="eventfold-timers", daemon=True)
        if reacting or clocked:
            self._timer_thread.start()

    @property
    def failed(self) -> dict[str, EventfoldError]:
        """The parts that have ended for good, by name, each with the error that ended it."""
        return self._reactions.failed | self._failed

    @property
    def trouble(self) -> dict[str, EventfoldError]:
        """The parts that are being tried again, by name, each with the last error."""
        return self._reactions.trouble | self._trouble

    @property
    def running(self) -> bool:
        """Whether any of its threads is alive."""
        return self._timer_thread.is_alive() or self._reactions.running

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it was stopped or everything has failed. Returns False after `timeout` seconds."""
        if not self._has_reactions:
            self._timer_thread.join(timeout)
            return not self._timer_thread.is_alive()
        return self._reactions.wait(timeout)

    def stop(self) -> None:
        """Finish the current events, save the checkpoints and release the leases. Stopping twice has no effect."""
        self._stop.set()
        self._commits.close()
        self._reactions.stop()
        if self._timer_thread.is_alive() and self._timer_thread is not threading.current_thread():
            self._timer_thread.join()

    def __enter__(self) -> ProcessRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _fire_timers(self) -> None:
        failures, last_retry = 0, 0.0
        while not self._stop.is_set():
            self._commits.clear()
            try:
                for queue in self._timers:
                    run(queue.fire(self._clock()))
                if time.monotonic() - last_retry >= CHECK_EVERY_S:
                    self._retries.tick(time.monotonic())
                    last_retry = time.monotonic()
                self._trouble.pop("timers", None)
                failures = 0
            except StoreClosed:
                return
            except (StoreUnavailable, TargetUnavailable) as error:
                self._trouble["timers"] = error
                failures += 1
                self._stop.wait(BACKOFF.pause(failures))
                continue
            except EventfoldError as error:
                self._end_with(error)
                return
            except BaseException as error:  # noqa: BLE001 (e.g. of the user's clock: the thread must not end unnoticed)
                failure = ProcessError(
                    f"The thread that fires timers was ended by {error!r}.",
                    "Correct the clock given to run(clock=…), the only code of yours that it calls, and start again.",
                    process="timers",
                )
                failure.__cause__ = error
                self._end_with(failure)
                return
            if self._commits.wait(self._until_due()):
                self._stop.wait(GATHER_PAUSE_S)

    def _end_with(self, error: EventfoldError) -> None:
        self._failed["timers"] = error
        self._reactions.stop()  # otherwise a process would continue without its timers, unnoticed

    def _until_due(self) -> float:
        """Return the seconds to wait for the next timer; at most CHECK_EVERY_S, since the clock may be set."""
        dues = [due for queue in self._timers if (due := queue.next_due()) is not None]
        if not dues:
            return CHECK_EVERY_S
        return min(CHECK_EVERY_S, max(GATHER_PAUSE_S, (min(dues) - self._clock()) / 1e6))


class AsyncProcessRunner:
    """The async ProcessRunner: `async with store.run(Payment) as running: …`, or `await store.run(Payment)`."""

    def __init__(
        self,
        admin: Callable[[], Awaitable[ProjectionAdmin]],
        work: Sequence[Work],
        clock: Clock = wall_clock,
        max_pause: float = MAX_PAUSE_S,
    ) -> None:
        self._admin, self._work, self._clock, self._max_pause = admin, work, clock, max_pause
        self._running: ProcessRunner | None = None

    async def start(self) -> AsyncProcessRunner:
        """Start the runner. `async with` and `await` do this themselves. Raises what Store.run raises."""
        if self._running is None:
            self._running = await in_thread(
                ProcessRunner, await self._admin(), self._work, self._clock, self._max_pause
            )
        return self

    async def stop(self) -> None:
        """See ProcessRunner.stop."""
        if self._running is not None:
            await in_thread(self._running.stop)

    async def wait(self, timeout: float | None = None) -> bool:
        """See ProcessRunner.wait."""
        await self.start()
        assert self._running is not None
        return await in_thread(self._running.wait, timeout)

    def __await__(self) -> Generator[Any, None, AsyncProcessRunner]:
        return self.start().__await__()

    async def __aenter__(self) -> ProcessRunner:
        await self.start()
        assert self._running is not None
        return self._running

    async def __aexit__(self, *error: object) -> None:
        await self.stop()


def run_until_idle(
    admin: ProjectionAdmin, work: Sequence[Work], clock: Clock = wall_clock, timeout: float = CATCH_UP_TIMEOUT_S
) -> None:
    """Handle all events and fire all timers that are due by `clock`, in the calling thread, until nothing is left.

    Parked events are tried once more, without a pause. Raises ProcessError if an event is parked in the end,
    ProjectionBehind if another runner holds a lease for longer than `timeout` seconds. If the code of one has changed
    or its progress is unknown, the others do their work before that error is raised.
    """
    plain, clocked = expand(work)
    projections, reacting = partition_work(plain)
    refused: dict[str, EventfoldError] = {}
    subscriptions = register_all(admin, reacting, refused)
    admin.catalog.register_each(projection_definitions(projections), refused)
    projections = [each for each in projections if projection_definition(each).name not in refused]
    reacting = list(subscriptions)
    queues = [*_timers_of(reacting, admin), *make(clocked, admin)]
    retries = RetryScheduler(admin.catalog.target_at, {name_of(each): policy_of(each) for each in reacting})
    retries.tick_all()
    head = -1
    while True:
        admin.project(*projections, *subscriptions.values(), timeout=timeout, clock=clock)
        for queue in queues:
            run(queue.fire(clock()))
        now = run(admin.log.engine.head()).position
        if now == head:
            break
        head = now
    for each in reacting:
        stuck = [entry for entry in admin.parked(name_of(each)) if entry.state == "parked"]
        if stuck:
            raise ProcessError(
                f"{name_of(each)} failed at event {stuck[0].position} ({stuck[0].type}) of {stuck[0].key}: "
                f"{stuck[0].error}",
                "Fix the cause and run again, or see eventfold processes STORE.",
                process=name_of(each),
                key=stuck[0].key,
                position=stuck[0].position,
            )
    if refused:
        first, *others = refused.values()
        for other in others:
            first.add_note(str(other))
        raise first
