"""Calling a decision: finding the states among its arguments, and the events that it returned or recorded.

Knows: what a decision takes and returns. Does not know: logs, conditions, retries.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, cast

from eventfold.core.aggregate import Aggregate, record_jointly
from eventfold.core.event import event_of, is_event_class
from eventfold.core.state import State, copy_state, state_definition_of
from eventfold.errors import InvalidDecision


class DecisionCall:
    """A decision with its arguments. `questions` are the states among the arguments, in order, `definitions` theirs.

    Raises InvalidDecision if it is not a function, if it is bound to a state, or if an argument is a State class.
    """

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not callable(function):  # pyright: ignore[reportUnnecessaryComparison]
            raise InvalidDecision(
                f"{function!r} is no function.",
                "Give the function and its arguments, store.decide(transfer, Account(…)), not what it returned.",
            )
        bound: Any = function
        if isinstance(getattr(bound, "__self__", None), State) or type(bound) is partial:
            _refuse_bound_state(bound)
        self.function = function
        self._names, self._positional = tuple(kwargs), len(args)
        self._arguments = [*args, *kwargs.values()]
        self.questions: list[State] = []
        for each in self._arguments:
            if isinstance(each, State):
                self.questions.append(each)
            else:
                self.questions += _questions_in(function, each)
        self.definitions = [state_definition_of(type(state)) for state in self.questions]

    @property
    def name(self) -> str:
        """The function's name, for messages."""
        return name_of(self.function)

    def events(self, folded: Sequence[State]) -> list[Any]:
        """Call the decision over the states of its questions, in order. Returns its events.

        The states are copied first. Raises what the function raises, and InvalidDecision.
        """
        states = list(map(copy_state, folded, self.definitions))
        recorded, answers = record_jointly(states), iter(states)
        arguments = [
            next(answers) if isinstance(each, State) else _with_answers(each, answers) for each in self._arguments
        ]
        named = dict(zip(self._names, arguments[self._positional :], strict=True))
        result = self.function(*arguments[: self._positional], **named)
        return _decided_events(self.function, result, recorded, states)


def _refuse_bound_state(function: Any) -> None:
    """Raise InvalidDecision for a method of a state, or a partial with one: that state would never be loaded."""
    inner, bound = function, list[Any]()
    while isinstance(inner, partial):
        part = cast("partial[Any]", inner)
        bound += [*part.args, *part.keywords.values()]
        inner = part.func
    owner: Any = getattr(inner, "__self__", None)
    held = next((each for each in (owner, *bound) if isinstance(each, State)), None)
    if held is None:
        return
    cls, name = type(held).__name__, getattr(inner, "__name__", "decision")
    question = f"{cls}({', '.join(state_definition_of(type(held)).question) and '…'})"
    if held is owner:
        call = "change" if isinstance(held, Aggregate) else "decide"
        raise InvalidDecision(
            f"{name_of(inner)} was given as a method of one {cls}, which is never loaded.",
            f"Give the method of the class, and the state as its argument: store.{call}({cls}.{name}, {question}).",
        )
    raise InvalidDecision(
        f"{name_of(inner)} was given as a partial that holds a {cls}, which is never loaded.",
        f"Give the function, and the state as an argument: store.decide({name}, {question}).",
    )


def _questions_in(function: Callable[..., Any], value: Any) -> Iterator[State]:
    """Yield the states in one argument, also those in lists, tuples and the values of dicts, in order."""
    if isinstance(value, State):
        yield value
    elif type(value) in (list, tuple):
        for each in value:
            yield from _questions_in(function, each)
    elif type(value) is dict:
        for each in cast("dict[Any, Any]", value).values():
            yield from _questions_in(function, each)
    elif isinstance(value, type) and issubclass(value, State):
        raise InvalidDecision(
            f"{name_of(function)} was given the class {value.__name__} in place of a question.",
            f"Give a question, like {value.__name__}({', '.join(state_definition_of(value).question) and '…'}).",
        )


def _with_answers(value: Any, answers: Iterator[State]) -> Any:
    """Return the argument with each state in it replaced by the next answer; the same object if it has no state."""
    if isinstance(value, State):
        return next(answers)
    if type(value) in (list, tuple):
        parts = [_with_answers(each, answers) for each in value]
        return value if all(map(operator.is_, parts, value)) else type(value)(parts)
    if type(value) is dict:
        values = cast("dict[Any, Any]", value)
        parts = [_with_answers(each, answers) for each in values.values()]
        return values if all(map(operator.is_, parts, values.values())) else dict(zip(values, parts, strict=True))
    return value


def _decided_events(
    function: Callable[..., Any], result: Any, recorded: list[Any], states: Sequence[State]
) -> list[Any]:
    """Return the events returned, or those that the aggregates recorded. Raises InvalidDecision if there are both."""
    if result is None and any(isinstance(each, Aggregate) for each in states):
        return recorded
    events = events_of(function, result)
    if recorded:
        raise InvalidDecision(
            f"{location_of(function)} returned a value, and its aggregates have recorded events.",
            "Let them record everything and return nothing.",
            recorded=len(recorded),
        )
    return events


def events_of(function: Callable[..., Any], result: Any) -> list[Any]:
    """Return the result of a decision as a list of events. Raises InvalidDecision if it is not one."""
    if result is None:
        raise InvalidDecision(
            f"{location_of(function)} returned None.",
            "Return the events, or an empty list if there is nothing to write.",
        )
    if hasattr(result, "__await__"):
        if hasattr(result, "close"):
            result.close()  # or Python would warn that it was never awaited
        raise InvalidDecision(
            f"{location_of(function)} is asynchronous, and a decision cannot wait.",
            "Make it a plain function; fetch what it needs beforehand and pass it as an argument.",
        )
    many = (
        cast("Iterable[Any]", result) if isinstance(result, (list, tuple)) or hasattr(result, "__next__") else [result]
    )
    events = list(many)
    for event in events:
        inner = event_of(event)
        if not is_event_class(type(cast(object, inner))):
            raise InvalidDecision(
                f"{location_of(function)} returned {inner!r}, which is no event.",
                "Return an event, or a list of events (ef.Event, @ef.event or ef.Draft).",
            )
    return events


def name_of(function: Callable[..., Any]) -> str:
    """Return a function's name, for messages."""
    return getattr(function, "__qualname__", None) or repr(function)


def location_of(function: Callable[..., Any]) -> str:
    """Return a function's name with its file and line, for messages."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return name_of(function)
    return f"{name_of(function)} ({code.co_filename.rpartition('/')[2]}, line {code.co_firstlineno})"
