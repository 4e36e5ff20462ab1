"""Given / when / then for processes, timers and effects, with a clock that the test sets.

    given(OrderPlaced("o-1", 80)) \\
        .run(Payment) \\
        .waits(ReminderDue("o-1")) \\
        .later(days=3) \\
        .then(ReminderDue("o-1"), Reminded("o-1"))

Knows: a store, a clock, processes. Does not know: any test runner.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from eventfold.concurrency import run
from eventfold.core.envelope import from_micros
from eventfold.core.event import Recorded
from eventfold.processes.definition import process_definition
from eventfold.processes.effects import Effect
from eventfold.processes.timer_events import fired_event
from eventfold.processes.timers import TimerQueue
from eventfold.store import Store
from eventfold.testing.clock import Clock
from eventfold.testing.difference import difference
from eventfold.testing.expected import as_expected, as_found

if TYPE_CHECKING:
    from eventfold.processes import Process


class ProcessScenario:
    """Processes that run on given events. They react to each event and timer before the next call returns."""

    def __init__(self, store: Store, clock: Clock, processes: tuple[type[Process], ...]) -> None:
        self._store, self._clock, self._processes = store, clock, processes
        self._before = store.head()
        self._given_positions: set[int] = set()  # positions of given events, which are not results
        self._run_until_idle()

    def happens(self, *events: Any) -> ProcessScenario:
        """Record these events, one after the other, and let processes react; `then` checks the results."""
        self._before = self._store.head()
        for event in events:
            self._given_positions.update(self._store.append(event).positions)
            self._run_until_idle()
        return self

    def later(self, **time: float) -> ProcessScenario:
        """Advance the clock, `later(days=3)`: timers that are due by then fire in order, and processes react."""
        self._before = self._store.head()
        clock, end = self._clock, self._clock.now + timedelta(**time)
        while (due := self._next_due()) is not None and due <= end:
            clock.set(max(due, clock.now))
            self._run_until_idle()
        clock.set(end)
        self._run_until_idle()
        return self

    def then(self, *expected: Any) -> ProcessScenario:
        """Assert that exactly these events resulted, in this order: by decisions, by timers, or by the processes.

        Of a Draft, the parts that it gives are compared as well. See DecisionResult.then.
        """
        wanted = as_expected(expected)
        found = as_found(self._recorded_since(), wanted)
        if found != wanted:
            raise AssertionError(difference(wanted, found))
        return self

    def nothing(self) -> ProcessScenario:
        """Assert that no event resulted."""
        return self.then()

    def asks(self, *actions: Any) -> ProcessScenario:
        """Assert that the last reaction of each process returned exactly these actions, in order.

        `decide(…)`, `after(…)`, `at(…)`, `cancel(…)` and events are plain values, compared by value.
        """
        found = [action for process in self._processes for action in self._actions_of(process)]
        if found != [*actions]:
            raise AssertionError(difference([*actions], found, "the actions differ (- expected, + returned):"))
        return self

    def waits(self, *expected: Any) -> ProcessScenario:
        """Assert that exactly these events are pending on timers, in the order of their due times."""
        timers = [each for process in self._processes for each in self._timers_of(process).waiting]
        timers.sort(key=lambda each: (each.fact.due, each.position))
        decode = self._store.registry.decode
        new = [(fired_event(each.id, each.fact, each.trace), each.fact.due) for each in timers]
        found = [event for each, due in new for event in decode(each.at(1, due, 0, 1))]
        if found != [*expected]:
            raise AssertionError(difference([*expected], found, "the timers differ (- expected, + waiting):"))
        return self

    def gives(self, effect: Effect, *expected: Any) -> ProcessScenario:
        """Assert that exactly these events of the log are passed to the effect; it is not called."""
        found = [each.event for each in self._store.read() if isinstance(each.event, effect.events)]
        if found != [*expected]:
            raise AssertionError(difference([*expected], found, f"{effect.name} differs (- expected, + passed):"))
        return self

    def _run_until_idle(self) -> None:
        self._store.run_until_idle(*self._processes, clock=self._clock)

    def _timers_of(self, process: type[Process]) -> TimerQueue:
        table = TimerQueue(process_definition(process).name, self._store.projections.log)
        run(table.catch_up())
        return table

    def _next_due(self) -> datetime | None:
        dues = [due for each in self._processes if (due := self._timers_of(each).next_due()) is not None]
        return from_micros(min(dues)) if dues else None

    def _recorded_since(self) -> list[Recorded[Any]]:
        """The events recorded since the last step, except given ones and the records of timers."""
        found = self._store.read(after=self._before)
        return [each for each in found if each.position not in self._given_positions and not each.type.startswith("$")]

    def _actions_of(self, process: type[Process]) -> list[Any]:
        plan, store = process_definition(process), self._store
        last: list[Any] = []
        for recorded in store.read(after=self._before):
            if isinstance(recorded.event, plan.events):
                last = []
                for key in plan.keys_of(recorded.event):
                    actions: Any = store.state(process(*key), at=recorded.position).react(recorded.event)
                    if isinstance(actions, list | tuple) or hasattr(actions, "__next__"):
                        last.extend(cast("Iterable[Any]", actions))
                    elif actions is not None:
                        last.append(actions)
        return last
