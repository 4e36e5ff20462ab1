"""Given / when / then for what goes on by itself: processes, timers, effects; with time under control.

    given(OrderPlaced("o-1", 80)) \\
        .run(Payment) \\
        .waits(ReminderDue("o-1")) \\
        .later(days=3) \\
        .then(ReminderDue("o-1"), Reminded("o-1"))

Knows: a scenario's store and clock, what can be run. Does not know: any test runner.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from eventfold.concurrency import run
from eventfold.core.envelope import from_micros
from eventfold.core.event import Recorded, event_of
from eventfold.processes.definition import process_definition
from eventfold.processes.effects import Effect
from eventfold.processes.timer_events import fired_event
from eventfold.processes.timers import TimerQueue
from eventfold.store import Store
from eventfold.testing.clock import Clock
from eventfold.testing.difference import difference

if TYPE_CHECKING:
    from eventfold.processes import Process


class ProcessScenario:
    """Processes at work on a past: whatever `happens`, or comes `later`, is reacted to before the next line."""

    def __init__(self, store: Store, clock: Clock, processes: tuple[type[Process], ...]) -> None:
        self._store, self._clock, self._processes = store, clock, processes
        self._before = store.head()
        self._given_positions: set[int] = set()  # positions of what was given rather than come to
        self._run_until_idle()

    def happens(self, *events: Any) -> ProcessScenario:
        """These events are recorded, one after the other, and reacted to; `then` looks at what comes of them."""
        self._before = self._store.head()
        for event in events:
            self._given_positions.update(self._store.append(event).positions)
            self._run_until_idle()
        return self

    def later(self, **time: float) -> ProcessScenario:
        """So much time passes, `later(days=3)`: the timers that are due by then fire, in order, and are reacted to."""
        self._before = self._store.head()
        clock, end = self._clock, self._clock.now + timedelta(**time)
        while (due := self._next_due()) is not None and due <= end:
            clock.set(max(due, clock.now))
            self._run_until_idle()
        clock.set(end)
        self._run_until_idle()
        return self

    def then(self, *expected: Any) -> ProcessScenario:
        """Exactly these events came of it, in this order: by decisions, by timers, or of the processes' own."""
        wanted = [event_of(e) for e in expected]
        found = [each.event for each in self._recorded_since()]
        if found != wanted:
            raise AssertionError(difference(wanted, found))
        return self

    def nothing(self) -> ProcessScenario:
        """Nothing came of it."""
        return self.then()

    def asks(self, *wishes: Any) -> ProcessScenario:
        """The last reaction of each process, to what happened or came later, asked for these wishes, in order.

        `decide(…)`, `after(…)`, `at(…)`, `cancel(…)` and events are plain values: they are equal if they say the same.
        """
        found = [wish for process in self._processes for wish in self._actions_of(process)]
        if found != [*wishes]:
            raise AssertionError(difference([*wishes], found, "the wishes differ (- expected, + asked for):"))
        return self

    def waits(self, *expected: Any) -> ProcessScenario:
        """Exactly these events will be recorded by timers, in the order in which they are due."""
        timers = [each for process in self._processes for each in self._timers_of(process).waiting]
        timers.sort(key=lambda each: (each.fact.due, each.position))
        decode = self._store.registry.decode
        new = [(fired_event(each.id, each.fact), each.fact.due) for each in timers]
        found = [event for each, due in new for event in decode(each.at(1, due, 0, 1))]
        if found != [*expected]:
            raise AssertionError(difference([*expected], found, "the timers differ (- expected, + waiting):"))
        return self

    def gives(self, effect: Effect, *expected: Any) -> ProcessScenario:
        """The effect will be called with exactly these events, of all there are; it is not called here."""
        found = [each.event for each in self._store.read() if isinstance(each.event, effect.events)]
        if found != [*expected]:
            raise AssertionError(difference([*expected], found, f"{effect.name} differs (- expected, + given):"))
        return self

    def _run_until_idle(self) -> None:
        self._store.settle(*self._processes, clock=self._clock)

    def _timers_of(self, process: type[Process]) -> TimerQueue:
        table = TimerQueue(process_definition(process).name, self._store.projections.log)
        run(table.catch_up())
        return table

    def _next_due(self) -> datetime | None:
        dues = [due for each in self._processes if (due := self._timers_of(each).next_due()) is not None]
        return from_micros(min(dues)) if dues else None

    def _recorded_since(self) -> list[Recorded[Any]]:
        """What came of it: all that was recorded, but for what was given and for what the processes note of timers."""
        found = self._store.read(after=self._before)
        return [each for each in found if each.position not in self._given_positions and not each.type.startswith("$")]

    def _actions_of(self, process: type[Process]) -> list[Any]:
        plan, store = process_definition(process), self._store
        last: list[Any] = []
        for recorded in store.read(after=self._before):
            if isinstance(recorded.event, plan.events):
                last = []
                for key in plan.keys_of(recorded.event):
                    asked: Any = store.state(process(*key), at=recorded.position).react(recorded.event)
                    if isinstance(asked, list | tuple) or hasattr(asked, "__next__"):
                        last.extend(cast("Iterable[Any]", asked))
                    elif asked is not None:
                        last.append(asked)
        return last
