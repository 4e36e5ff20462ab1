"""What a reaction may ask for: a decision, a timer, the end of timers. Plain values; nothing is done here.

Knows: functions, events, moments. Does not know: the log, when or how often any of it is carried out.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypeVar

import msgspec

from eventfold.core.envelope import to_micros
from eventfold.core.event import is_event_class
from eventfold.errors import EventfoldError, InvalidProcess

P = ParamSpec("P")
Refused = type[Exception] | tuple[type[Exception], ...]
X = TypeVar("X", bound=Exception)


class Decision(msgspec.Struct, frozen=True):
    """A command: `store.decide(function, *args, **kwargs)`, once, however often it is asked for."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    refusals: tuple[tuple[Refused, Any], ...] = ()

    def on_refusal(self, errors: type[X] | tuple[type[X], ...], then: Callable[[X], object] | object) -> Decision:
        """What is recorded where the decision raises one of these errors: an event, or a function of the error.

        The process may react to that event and compensate. An error that is not named leaves the instance stuck; so
        does one of the store's (a lost connection), unless its own class is named: `Exception` does not mean those.
        """
        return msgspec.structs.replace(self, refusals=(*self.refusals, (errors, then)))

    @property
    def description(self) -> str:
        """The command, as an operator reads it."""
        given = [*map(repr, self.args), *(f"{key}={value!r}" for key, value in self.kwargs.items())]
        name = getattr(self.function, "__qualname__", None) or repr(self.function)
        return f"{name}({', '.join(given)})"


class Timer(msgspec.Struct, frozen=True):
    """An event that is to be recorded later: `delay` after the event reacted to, or at a `moment`."""

    event: Any
    delay: timedelta | None = None
    moment: datetime | None = None


class Cancel(msgspec.Struct, frozen=True):
    """The end of this instance's timers: all, those of an event class, or those for exactly this event."""

    what: Any = None


def decide(function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Decision:
    """Ask for a decision, as `store.decide` takes it: its states are loaded when it is carried out."""
    return Decision(function, args, kwargs)


def after(
    event: Any, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0, weeks: float = 0
) -> Timer:
    """Ask for a timer: the event is recorded so long after the event reacted to was recorded.

    A worker that comes late therefore sets it in the past: then it fires at once. Raises InvalidProcess on a
    negative time: nothing can be due before its cause.
    """
    try:
        delay = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    except (OverflowError, ValueError, TypeError) as error:
        raise InvalidProcess(f"A timer cannot be set after that time: {error}.", "Give a number of days.") from None
    if delay < timedelta(0):
        raise InvalidProcess(
            f"A timer for {_event(event)!r} was asked for {-delay} before its cause.",
            "Give a time that is not negative, or ask for the event itself: yield the event.",
        )
    return Timer(_event(event), delay)


def at(event: Any, moment: datetime) -> Timer:
    """Ask for a timer at a moment, an aware datetime; one that has passed fires at once.

    Raises InvalidProcess on a naive datetime, which names no moment.
    """
    try:
        to_micros(moment)
    except EventfoldError as error:
        raise InvalidProcess(f"A timer cannot be set. {error.what}", error.remedy) from None
    return Timer(_event(event), None, moment)


def cancel(what: Any = None) -> Cancel:
    """Ask for this instance's timers to end: all of them, those of an event class, or those for an equal event.

    One that has fired already is not taken back. Raises InvalidProcess on anything else.
    """
    if what is not None and not (isinstance(what, type) and is_event_class(what)):
        _event(what)
    return Cancel(what)


def matches_refusal(errors: Refused, error: Exception) -> bool:
    """Whether an error is the refusal that is meant.

    `Exception` means every error of the user's, and none of the store's: that a database was away is no refusal.
    """
    kinds = errors if isinstance(errors, tuple) else (errors,)
    ours = isinstance(error, EventfoldError)
    return any(isinstance(error, kind) and (not ours or issubclass(kind, EventfoldError)) for kind in kinds)


def class_of(value: object) -> type:
    """The class of a value, whatever is known of it."""
    return type(value)


def _event(event: Any) -> Any:
    if is_event_class(class_of(event)):
        return event
    raise InvalidProcess(
        f"A timer was asked for {event!r}, which is no event.", "Give an event: after(ReminderDue(self.order), days=3)."
    )
