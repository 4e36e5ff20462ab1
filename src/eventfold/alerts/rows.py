"""A row of an alert: the user's rule with its moments, folded by events and by time alone.

Time alone changes a verdict at moments that the detectors name (`due`). Before an event is folded, the row passes all
moments up to that event, in order; so the row, and every change of its verdict, depends on the log only. A runner
that asks by its clock passes the same moments with a copy of the row, and finds the same changes.
Knows: detectors, verdicts, moments. Does not know: the log, tables, clocks, whether a change is reported.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Any, ClassVar, Literal

import msgspec

from eventfold.alerts.classes import Alert
from eventfold.alerts.detectors.detector import Detector
from eventfold.alerts.facts import MAX_REASON
from eventfold.core.event import Recorded
from eventfold.errors import InvalidProjection
from eventfold.projections.definition import ProjectionDefinition, projection_definition

OWN_FIELDS = ("clock", "due", "raised_at", "opened_by", "reason", "quiet_since")
ALERT_FIELD = "alert"  # the key of the only row of an alert without a key: its name
BEFORE_ALL = -(1 << 62)  # µs since 1970 UTC: earlier than every event, also those that occurred before 1970
MAX_STEPS = 100_000  # moments that one row passes at once: a detector that names more does not work


class Change(msgspec.Struct, frozen=True):
    """A change of a row's verdict. `at`, `began`: when, and when its episode began, in µs since 1970 UTC.

    `opening`: what opened the episode, the same in every run. `episode`: the one to end, where that is known.
    """

    kind: Literal["raised", "cleared"]
    at: int
    opening: str
    reason: str
    began: int = 0
    episode: str = ""


class RulePlan(msgspec.Struct, frozen=True):
    """What rows of one alert need of its class. `size`: fields of the key; `clear_after` in µs.

    `fresh`: for each field that is not of the key, what makes its value before the first event.
    """

    cls: type[Alert]
    name: str
    is_keyed: bool
    size: int
    by_occurred: bool
    clear_after: int
    takes_recorded: bool
    detectors: tuple[Callable[[Any], Any], ...]
    judges: bool  # the class has a judge of its own
    fresh: tuple[Callable[[], Any], ...]
    only: Callable[[Any], Any] | None  # returns the only detector of a rule that has no judge of its own

    @property
    def subject(self) -> str:
        """The name of the key's field; "" if the key has none or several."""
        return self.cls.__struct_fields__[0] if self.is_keyed and self.size == 1 else ""


class AlertRow:
    """The row of one key. Its columns: the fields of the rule, and

    `clock`        the time of its last event; `due`: the next moment at which the verdict may change without an event.
    `raised_at`    since when it is raised (`opened_by`, `reason`: by what and why); None: it is not.
    `quiet_since`  since when the verdict is None while it is raised.

    `changes`: the changes of the verdict since they were last taken; None: there are none. They are not stored.
    """

    plan: ClassVar[RulePlan]
    __struct_fields__: ClassVar[tuple[str, ...]]
    __slots__ = ("changes", "rule", *OWN_FIELDS)

    def __init__(self, *values: Any) -> None:
        """Make the row of a key from the key's values, or a stored row from the values of all columns."""
        plan = self.plan
        self.changes: list[Change] | None = None
        self.clock: int
        self.due: int | None
        self.raised_at: int | None
        self.opened_by: str | None
        self.reason: str | None
        self.quiet_since: int | None
        of_rule = values if plan.is_keyed else values[1:]
        if len(values) == plan.size:
            self.rule: Any = plan.cls(*of_rule, *[make() for make in plan.fresh])
            self.clock = BEFORE_ALL
            self.due = self.raised_at = self.opened_by = self.reason = self.quiet_since = None
        else:
            self.rule = plan.cls(*of_rule[: -len(OWN_FIELDS)])
            self.clock, self.due, self.raised_at, self.opened_by, self.reason, self.quiet_since = values[
                -len(OWN_FIELDS) :
            ]

    @classmethod
    def __eventfold_compile__(cls) -> ProjectionDefinition:
        return projection_definition(cls.plan.cls)

    @property
    def alert(self) -> str:
        """The name of the alert: the key of the only row of an alert without a key."""
        return self.plan.name

    def __getattr__(self, name: str) -> Any:
        if name == "rule":
            raise AttributeError(name)
        return getattr(self.rule, name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AlertRow):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name, None) for name in self.__struct_fields__)

    __hash__ = None  # pyright: ignore[reportAssignmentType] (a row changes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{n}={getattr(self, n)!r}' for n in self.__struct_fields__)})"

    # The fold

    def evolve(self, event: Any, recorded: Recorded[Any]) -> Any:
        """Fold one event: pass the moments before it, evolve the rule, ask its verdict."""
        plan, stored = self.plan, recorded.stored
        now = stored.time
        if plan.by_occurred and stored.occurred is not None:
            now = min(now, stored.occurred)  # an event that is dated in the future must not stop the row's time
        if now < self.clock:  # by business time an event may come late: a row's time never goes back
            now = self.clock
        due = self.due
        if due is not None and due <= now:
            self.pass_moments(now)
        self.clock = now
        rule = self.rule
        for get in plan.detectors:
            get(rule).now = now
        done = rule.evolve(event, recorded) if plan.takes_recorded else rule.evolve(event)
        if done is not None:
            return done
        if (get := plan.only) is not None and self.raised_at is None:  # the usual case, made short
            detector = get(rule)
            if detector.fires(now) is None:
                self.due = detector.due(now)
                return None
        self._ask(now, stored.position)
        return None

    def keep(self) -> bool:
        """Whether the row stays: while it is raised, and until its changes are facts, it does."""
        return self.raised_at is not None or self.changes is not None or self.rule.keep()

    def begin(self, now: int) -> None:
        """Begin to watch without an event, at `now` in µs since 1970 UTC."""
        self.clock = now
        for get in self.plan.detectors:
            detector = get(self.rule)
            detector.now = now
            detector.begin()
        self._ask(now, None)

    def pass_moments(self, now: int) -> None:
        """Pass the moments up to `now`, inclusive, at which the verdict may change without an event."""
        steps = 0
        while (due := self.due) is not None and due <= now:
            steps += 1
            for get in self.plan.detectors:
                get(self.rule).now = due
            self._ask(due, None)
            further = self._next_due()
            if steps > MAX_STEPS or (further is not None and further <= due):
                raise InvalidProjection(
                    f"A detector of {self.plan.name} names the moment {further} after {due}, which is not later, or "
                    f"more than {MAX_STEPS:,} moments between two events.",
                    "Correct its method due: it returns the first moment after `now` at which `fires` may change.",
                    projection=self.plan.name,
                )

    def _next_due(self) -> int | None:
        return self.due

    def _ask(self, now: int, position: int | None) -> None:
        """Ask the verdict at `now`, note a change of it, and find the next moment. `position`: of the event, if any."""
        plan, rule = self.plan, self.rule
        reason: Any = None
        if plan.judges:
            reason = rule.judge()
        else:
            for get in plan.detectors:
                reason = get(rule).fires(now)
                if reason is not None:
                    break
        if reason is not None or self.raised_at is not None:
            self._decide(now, position, reason)
        next_due: int | None = None
        for get in plan.detectors:
            due = get(rule).due(now)
            if due is not None and (next_due is None or due < next_due):
                next_due = due
        if self.quiet_since is not None:
            end = self.quiet_since + plan.clear_after
            if next_due is None or end < next_due:
                next_due = end
        self.due = next_due

    def _decide(self, now: int, position: int | None, reason: Any) -> None:
        if reason is not None:
            if type(reason) is not str or not reason:
                raise InvalidProjection(
                    f"{self.plan.cls.__name__}.judge returned {reason!r:.80}, which is no reason.",
                    "Return a sentence to raise the alert, and None if nothing is wrong.",
                    projection=self.plan.name,
                )
            self.quiet_since = None
            if self.raised_at is None:
                opening = f"at {now}" if position is None else f"event {position}"
                self.raised_at, self.opened_by, self.reason = now, opening, reason[:MAX_REASON]
                self._note(Change("raised", now, opening, self.reason, now))
            return
        if self.quiet_since is None:
            self.quiet_since = now
        if now - self.quiet_since >= self.plan.clear_after:
            reason = _satisfied_for(self.plan.clear_after)
            self._note(Change("cleared", now, self.opened_by or "", reason, self.raised_at or 0))
            self.raised_at = self.opened_by = self.reason = self.quiet_since = None

    def _note(self, change: Change) -> None:
        if self.changes is None:
            self.changes = []
        self.changes.append(change)

    def take_changes(self) -> list[Change]:
        """Return the changes of the verdict since the last call, in order."""
        changes, self.changes = self.changes or [], None
        return changes


def _satisfied_for(micros: int) -> str:
    if not micros:
        return "The rule is satisfied again."
    seconds = micros / 1e6
    words = f"{seconds / 60:g} minutes" if seconds >= 120 else f"{seconds:g} seconds"
    return f"The rule has been satisfied for {words}."


def makers_of(cls: type[Alert]) -> tuple[Callable[[], Any], ...]:
    """Return, for each field with a default, a function that makes its value: faster than the default's own copy.

    A detector is as it would be read back from a table, so that a stored row and one in memory have equal values.
    """
    made: list[Callable[[], Any]] = []
    for default in cls.__struct_defaults__:
        factory = getattr(default, "factory", None)
        value = default if factory is None else factory()
        if isinstance(value, Detector):
            stored: Detector = msgspec.json.decode(msgspec.json.encode(value), type=type(value))
            mutable = [name for name in stored.__struct_fields__ if not _is_immutable(getattr(stored, name))]
            made.append(partial(_copied, stored, tuple(mutable)))
        else:
            made.append(partial(_same, value) if factory is None else factory)
    return tuple(made)


def _copied(detector: Detector, mutable: tuple[str, ...]) -> Detector:
    made = msgspec.structs.replace(detector)
    for name in mutable:
        value = getattr(detector, name)
        setattr(made, name, value.copy() if value in ([], {}) else copy.deepcopy(value))
    return made


def _is_immutable(value: Any) -> bool:
    """Whether rows may share a value: a number, a text, None, or a frozen struct, as a calendar is."""
    if isinstance(value, msgspec.Struct):
        return value.__struct_config__.frozen
    return isinstance(value, str | int | float | bytes | None)


def _same(value: Any) -> Any:
    return value


def row_class_of(plan: RulePlan) -> type[AlertRow]:
    """Return the class of the rows of one alert, with the fields of its rule as attributes."""
    fields = plan.cls.__struct_fields__
    namespace: dict[str, Any] = {name: property(attrgetter(f"rule.{name}")) for name in fields}
    key = () if plan.is_keyed else (ALERT_FIELD,)
    namespace |= {
        "__slots__": (),
        "__module__": plan.cls.__module__,
        "__qualname__": plan.cls.__qualname__,
        "__doc__": plan.cls.__doc__,
        "__struct_fields__": (*key, *fields, *OWN_FIELDS),
        "plan": plan,
    }
    return type(plan.cls.__name__, (AlertRow,), namespace)
