"""The actions that a reaction may return: a decision, a timer, the cancellation of timers. Plain values.

Knows: functions, events, moments. Does not know: the log, when and how often an action is carried out.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypeVar

import msgspec

from eventfold.core.envelope import to_micros
from eventfold.core.event import is_event_class
from eventfold.core.renamed import refuse_old_attributes
from eventfold.errors import EventfoldError, InvalidProcess

P = ParamSpec("P")
Refused = type[Exception] | tuple[type[Exception], ...]
X = TypeVar("X", bound=Exception)


@refuse_old_attributes("Decision")
class Decision(msgspec.Struct, frozen=True):
    """A command: `store.decide(function, *args, **kwargs)`, made once, even if the reaction is repeated."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    refusals: tuple[tuple[Refused, Any], ...] = ()

    def on_refusal(self, errors: type[X] | tuple[type[X], ...], then: Callable[[X], object] | object) -> Decision:
        """Return the decision with an event to record if it raises one of these errors.

        `then` is the event, or a function of the error that returns it. The process may react to that event and
        compensate. Any other error leaves the instance stuck; so does an error of the store (a lost connection), unless
        its own class is named: `Exception` does not include those.
        """
        return msgspec.structs.replace(self, refusals=(*self.refusals, (errors, then)))

    @property
    def description(self) -> str:
        """The command as text, for operators."""
        arguments = [*map(repr, self.args), *(f"{key}={value!r}" for key, value in self.kwargs.items())]
        name = getattr(self.function, "__qualname__", None) or repr(self.function)
        return f"{name}({', '.join(arguments)})"


class Timer(msgspec.Struct, frozen=True):
    """An event to record later: `delay` after the time of the event reacted to, or at a `moment`."""

    event: Any
    delay: timedelta | None = None
    moment: datetime | None = None


class Cancel(msgspec.Struct, frozen=True):
    """The cancellation of this instance's timers: all, those of an event class, or those for an equal event."""

    what: Any = None


def decide(function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Decision:
    """Return a decision as an action. The arguments are those of `store.decide`; states are loaded when it is made."""
    return Decision(function, args, kwargs)


def after(
    event: Any, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0, weeks: float = 0
) -> Timer:
    """Return a timer as an action: the event is recorded this long after the event reacted to was recorded.

    A worker that is behind may therefore set a timer that is due already; it fires at once. Raises InvalidProcess on a
    negative time.
    """
    try:
        delay = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    except (OverflowError, ValueError, TypeError) as error:
        raise InvalidProcess(f"A timer cannot be set after that time: {error}.", "Give a number of days.") from None
    if delay < timedelta(0):
        raise InvalidProcess(
            f"A timer for {_event(event)!r} is to fire {-delay} before its cause.",
            "Give a time that is not negative, or record the event at once: yield the event.",
        )
    return Timer(_event(event), delay)


def at(event: Any, moment: datetime) -> Timer:
    """Return a timer as an action: the event is recorded at a moment, an aware datetime; at once if that has passed.

    Raises InvalidProcess on a naive datetime.
    """
    try:
        to_micros(moment)
    except EventfoldError as error:
        raise InvalidProcess(f"A timer cannot be set. {error.what}", error.remedy) from None
    return Timer(_event(event), None, moment)


def cancel(what: Any = None) -> Cancel:
    """Return the cancellation of this instance's timers as an action.

    `what`: an event class, an event (timers for equal events), or None (all timers). A timer that has fired cannot be
    cancelled. Raises InvalidProcess if `what` is anything else.
    """
    if what is not None and not (isinstance(what, type) and is_event_class(what)):
        _event(what)
    return Cancel(what)


def matches_refusal(errors: Refused, error: Exception) -> bool:
    """Whether an error is of one of these classes.

    `Exception` includes every error of the user's code, but none of the store's: a lost connection is not a refusal.
    """
    kinds = errors if isinstance(errors, tuple) else (errors,)
    is_of_the_store = isinstance(error, EventfoldError)
    return any(isinstance(error, kind) and (not is_of_the_store or issubclass(kind, EventfoldError)) for kind in kinds)


def class_of(value: object) -> type:
    """Return the class of a value, typed as `type` whatever a type checker infers for the value."""
    return type(value)


def _event(event: Any) -> Any:
    if is_event_class(class_of(event)):
        return event
    raise InvalidProcess(
        f"A timer was given {event!r}, which is no event.", "Give an event: after(ReminderDue(self.order), days=3)."
    )
