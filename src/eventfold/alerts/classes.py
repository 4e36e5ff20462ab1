"""The base class of alerts: a row for each key, folded from events, and a question to it: is something wrong?

Knows: class keywords. Does not know: what the annotations mean (definition.py), how rows are folded (rows.py).
"""

from __future__ import annotations

import inspect
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from eventfold.alerts.detectors.detector import Detector
from eventfold.alerts.facts import Severity
from eventfold.core.annotations import take_options
from eventfold.core.class_data import get_class_data, remember_visible_names, set_class_data
from eventfold.core.durations import LONGEST
from eventfold.errors import InvalidProjection
from eventfold.projections.classes import Projection, ProjectionMeta
from eventfold.projections.definition import ProjectionDefinition

TimeBy = Literal["recorded", "occurred"]


class AlertOptions(msgspec.Struct, frozen=True):
    """The keywords of an alert's class statement that other read models do not have. `clear_after` in µs."""

    severity: Severity = "page"
    clear_after: int = 0
    by: TimeBy = "recorded"


_OPTIONS = "__eventfold_alert__"


def alert_options(cls: type) -> AlertOptions:
    """Return the options of an alert's class."""
    return get_class_data(cls, _OPTIONS) or AlertOptions()


def _checked(cls: type, given: dict[str, Any]) -> AlertOptions:
    """Return the keywords as options. Raises InvalidProjection."""
    for name, kind in (("severity", Severity), ("by", TimeBy)):
        if name in given and given[name] not in get_args(kind):
            raise InvalidProjection(
                f"{cls.__qualname__} has {name}={given[name]!r}.",
                f"Give one of {', '.join(map(repr, get_args(kind)))}.",
            )
    pause: Any = given.get("clear_after", timedelta())
    if not isinstance(pause, timedelta) or not timedelta() <= pause <= timedelta(microseconds=LONGEST):
        raise InvalidProjection(
            f"{cls.__qualname__} has clear_after={pause!r}.", "Give a duration, such as ef.minutes(10)."
        )
    options: dict[str, Any] = {**given, "clear_after": pause // timedelta(microseconds=1)}
    return AlertOptions(**options)


def own_detectors(cls: type[Projection]) -> dict[str, Detector]:
    """Return the detectors of an alert's fields, by field, as they are before the first event."""
    found: dict[str, Detector] = {}
    defaults = cls.__struct_defaults__
    for name, default in zip(
        cls.__struct_fields__[len(cls.__struct_fields__) - len(defaults) :], defaults, strict=True
    ):
        factory = getattr(default, "factory", None)
        value = default if factory is None else factory()
        if isinstance(value, Detector):
            found[name] = value
    return found


def refuse_silent_rule(cls: type[Alert]) -> None:
    """Raise InvalidProjection where no verdict of the rule can ever be anything but silence."""
    if inspect.iscoroutinefunction(cls.judge):
        raise InvalidProjection(
            f"{cls.__qualname__}.judge is an async function, and a verdict waits for nothing.",
            "Write def judge(self) -> str | None.",
        )
    if cls.judge is not Alert.judge:
        return
    detectors = own_detectors(cls)
    if not detectors:
        raise InvalidProjection(
            f"{cls.__qualname__} can never fire: it has no detector and no judge method.",
            "Give a field such as `declined: ef.Rate = ef.rate(per=ef.minutes(5), more_than=20)`, or write "
            "def judge(self) -> str | None, which returns the reason to raise it.",
        )
    if not any(each.can_fire() for each in detectors.values()):
        raise InvalidProjection(
            f"{cls.__qualname__} can never fire: {', '.join(detectors)} has no limit, and there is no judge method.",
            "Give the detector a limit (ef.rate(per=ef.minutes(5), more_than=20)), or write def judge(self).",
        )


if TYPE_CHECKING:
    AlertMeta = ProjectionMeta
else:

    class AlertMeta(ProjectionMeta):
        """The metaclass that separates an alert's keywords from those of a projection."""

        def __new__(mcls, _name, _bases, _namespace, **keywords):
            terms = take_options(keywords, AlertOptions)
            cls = super().__new__(mcls, _name, _bases, _namespace, **keywords)
            remember_visible_names(cls, sys._getframe(1).f_locals)
            set_class_data(cls, _OPTIONS, _checked(cls, terms))
            if "evolve" in _namespace and not cls.__module__.startswith("eventfold.alerts.classes"):
                refuse_silent_rule(cls)
            return cls


class Alert(Projection, metaclass=AlertMeta):
    """A rule that raises an alert: a read model with a clock, and facts `$alert-raised`, `$alert-cleared` in the log.

        class CardTesting(ef.Alert, severity="page", clear_after=ef.minutes(10)):
            card: ef.Tag
            declined: ef.Rate = ef.rate(per=ef.minutes(5), more_than=20)

            def evolve(self, event: PaymentDeclined) -> None:
                self.declined.add()

    Fields without a default are the key: each key has episodes of its own. An alert without such fields has one row.
    `judge` is asked after every event, and when time alone may change the verdict: a reason opens an episode, None
    ends it. Episodes are determined by the log and by moments that the rule gives, not by when a runner asked. What
    happened before the rule was first run is folded in silence; what is wrong when that ends is raised once. So are
    rebuilds. Run it like a read model: `store.run(CardTesting)`.

    Class keywords, besides those of a projection (`name`, `target`, `on_error`, `attempts`, `partitions`, `version`):
    `severity`     "page", "ticket" or "none".
    `clear_after`  a duration: an episode ends when `judge` has returned None for so long. Default: at once.
    `by`           "recorded": the time of an event is when it was recorded; "occurred": when it happened, at the latest
                   when it was recorded.
    `start`        "beginning" (default): it learns from all events of the log; "now": from later ones only.
    """

    def judge(self) -> str | None:
        """Return why something is wrong, one sentence with its numbers, or None. Pure: it changes nothing.

        By default: the reason of the first detector that fires, in the order of the fields.
        """
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, Detector):
                reason = value.fires(value.now)
                if reason is not None:
                    return reason
        return None

    @classmethod
    def __eventfold_compile__(cls) -> ProjectionDefinition:
        from eventfold.alerts.definition import compile_alert

        return compile_alert(cls)
