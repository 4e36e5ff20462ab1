"""Given / when / then: test decisions, states, rows, processes and alerts on a store in memory.

    given(MoneyDeposited("a-1", Decimal(80))) \\
        .when(transfer, Account("a-1"), Account("a-2"), amount=Decimal(50)) \\
        .then(MoneyWithdrawn("a-1", Decimal(50)), MoneyDeposited("a-2", Decimal(50)))

Knows: the store. Does not know: any test runner; it raises AssertionError with the differences.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec

from eventfold.core.state import State
from eventfold.projections import Projection
from eventfold.store import Store
from eventfold.testing.alert_scenario import AlertScenario
from eventfold.testing.clock import Clock
from eventfold.testing.difference import describe_events, difference
from eventfold.testing.expected import as_expected, as_found
from eventfold.testing.process_scenario import ProcessScenario

if TYPE_CHECKING:
    from eventfold.alerts.classes import Alert
    from eventfold.processes import Process

P = ParamSpec("P")


def given(*events: Any, clock: Clock | None = None) -> Scenario:
    """Start a scenario with these events or Drafts, in order; without any, with an empty log.

    They are recorded at the time of `clock`, by default 2026-01-01 UTC. See Scenario.later.
    """
    return Scenario(events, clock)


class Scenario:
    """A log of given events; make decisions with `when`, and check states with `state`."""

    def __init__(self, events: tuple[Any, ...], clock: Clock | None = None) -> None:
        self.clock = clock or Clock()  # does not move, except by `later`
        self._begin = self.clock()
        self.store = Store("memory:", clock=self.clock)
        if events:
            self.store.extend(events)

    def given(self, *events: Any) -> Scenario:
        """Record more events."""
        self.store.extend(events)
        return self

    def later(self, **time: float) -> Scenario:
        """Advance the clock for the next events and decisions: `later(days=3)`, with the arguments of timedelta."""
        self.clock.set(self.clock.now + timedelta(**time))
        return self

    def when(self, decision: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> DecisionResult:
        """Make a decision: a function of states, or a method of an aggregate by its class."""
        before = self.store.head()
        try:
            self.store.decide(decision, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 (a rule may raise anything; `raises` says which it should)
            return DecisionResult(self, before, error)
        return DecisionResult(self, before, None)

    def state(self, question: State) -> FoundState:
        """The state folded from the log."""
        return FoundState(self.store.state(question))

    def rows(self, projection: type[Projection], where: dict[str, Any] | None = None, /, **fields: Any) -> FoundRows:
        """The rows of a read model, all or those with these values."""
        self.store.project(projection)
        return FoundRows(projection.__name__, self.store.rows(projection, fields | (where or {})))

    def run(self, *processes: type[Process]) -> ProcessScenario:
        """Run processes on the log; they also react to later events and timers."""
        return ProcessScenario(self.store, self.clock, processes)

    def alert(self, rule: type[Alert]) -> AlertScenario:
        """Ask a rule: `given(OrderPlaced("o-1")).alert(NoOrders).later(hours=2).raises("Nothing")`, or `.silent()`."""
        return AlertScenario(self.store, self.clock, rule, self._begin)


class DecisionResult:
    """The result of a decision: check it by `then`, `nothing` or `raises`."""

    def __init__(self, scenario: Scenario, before: int, error: Exception | None) -> None:
        self._scenario, self._error = scenario, error
        self._recorded = list(scenario.store.read(after=before))
        self.events = [r.event for r in self._recorded]

    def then(self, *expected: Any) -> Scenario:
        """Assert that exactly these events were written, in this order. Returns the scenario.

        Of a Draft, the parts that it gives are compared as well: `then(ef.Draft(event, occurred=…))`. Its metadata is
        all that is expected, except what processes and traces add.
        """
        self._refuse_error()
        wanted = as_expected(expected)
        found = as_found(self._recorded, wanted)
        if found != wanted:
            raise AssertionError(difference(wanted, found))
        return self._scenario

    def nothing(self) -> Scenario:
        """Assert that no event was written and no error raised."""
        return self.then()

    def raises(self, kind: type[BaseException], match: str = "") -> BaseException:
        """Assert that the decision raised this error, with `match` in its text, and wrote nothing."""
        if self._error is None:
            raise AssertionError(f"expected {kind.__name__}, but it was decided: {describe_events(self.events)}")
        if not isinstance(self._error, kind) or match not in str(self._error):
            wanted = f"{kind.__name__}({match!r})" if match else kind.__name__
            raise AssertionError(f"expected {wanted}, but it raised {self._error!r}") from self._error
        return self._error

    def state(self, question: State) -> FoundState:
        """The state after the decision."""
        self._refuse_error()
        return self._scenario.state(question)

    def _refuse_error(self) -> None:
        if self._error is not None:
            raise AssertionError(f"the decision raised {self._error!r}") from self._error


class FoundRows:
    """Rows of a read model, in the order of their keys."""

    def __init__(self, name: str, rows: list[Any]) -> None:
        self._name, self.rows = name, rows

    def are(self, *expected: Any) -> FoundRows:
        """Assert that there are exactly these rows, in the order of their keys."""
        if self.rows != [*expected]:
            words = f"the rows of {self._name} differ (- expected, + found):"
            raise AssertionError(difference([*expected], self.rows, words))
        return self

    def has(self, *expected: Any, **fields: Any) -> FoundRows:
        """Assert that these rows are among them; with `fields`, that some row has these values."""
        missing = [row for row in expected if row not in self.rows]
        if missing:
            raise AssertionError(difference(missing, self.rows, f"{self._name} lacks rows (- expected, + found):"))
        if fields and not any(_has_values(row, fields) for row in self.rows):
            wanted = ", ".join(f"{name}={value!r}" for name, value in fields.items())
            raise AssertionError(difference([], self.rows, f"{self._name} has no row with {wanted} (+ found):"))
        return self


def _has_values(row: Any, fields: dict[str, Any]) -> bool:
    return all(getattr(row, name) == value for name, value in fields.items())


class FoundState:
    """A folded state, to check some of its fields."""

    def __init__(self, state: State) -> None:
        self.state = state

    def has(self, **expected: Any) -> FoundState:
        """Assert that these fields have these values."""
        found = {name: getattr(self.state, name) for name in expected}
        wrong = [f"  {n}: expected {v!r}, found {found[n]!r}" for n, v in expected.items() if found[n] != v]
        if wrong:
            raise AssertionError("\n".join([f"{type(self.state).__name__} differs:", *wrong]))
        return self
