"""Room: deciding: load, decide, append under exactly the condition that was read, retry on conflict.

Knows: the order of these steps. Does not know: what any decision is about.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import msgspec

from eventfold.aggregate import Aggregate, together
from eventfold.errors import AppendConflict, InvalidDecision, InvalidInput
from eventfold.event import Draft, Recorded, is_event_class
from eventfold.flow.append import encode, join, write
from eventfold.flow.log import Log, Options, refuse_unauthorised
from eventfold.flow.read import Bounds, Reader, load, load_kept
from eventfold.query import Clause, Query
from eventfold.record import NewEvent, Receipt
from eventfold.state import State, copied, evolve_all, plan_of

S = TypeVar("S", bound=State)
if TYPE_CHECKING:
    from typing_extensions import TypeVar as _DefaultTypeVar

    E = _DefaultTypeVar("E", default=Any)  # so that `ef.Decided` alone is a type
else:
    E = TypeVar("E")
CONFLICT_PAUSE = 0.001  # seconds, doubled with each conflict up to 64 ms, and spread by chance in the bridge


class Decided(Generic[E]):
    """What a decision came to: the events written, where, and the states after them.

    `receipt` is None when the decision was to write nothing; `repeated` says that this command id had
    been decided before: the events are those of the first time, and nothing was written now. `staged` is set
    instead where the append joined a transaction of the user's: no event has a position before its COMMIT.
    """

    __slots__ = ("_states", "attempts", "events", "receipt", "staged")

    def __init__(
        self,
        events: tuple[Recorded[E], ...],
        receipt: Receipt | None,
        states: Mapping[Any, State],
        attempts: int,
        staged: Any = None,
    ) -> None:
        self.events = events
        self.receipt = receipt
        self.attempts = attempts
        self.staged = staged
        self._states = states

    @property
    def positions(self) -> range:
        """The positions written; empty when nothing was."""
        return self.receipt.positions if self.receipt else range(0)

    @property
    def repeated(self) -> bool:
        """Whether this was decided before, under the same command id."""
        return self.receipt is not None and self.receipt.repeated

    def state(self, question: S) -> S:
        """The state of one of the questions decided over, with the decision's own events in it."""
        key = plan_of(type(question)).key(question)
        if key not in self._states:
            raise InvalidDecision(f"This decision was not over {question!r}.", "Ask the store: store.state(…).")
        return cast(S, copied(self._states[key]))

    def __repr__(self) -> str:
        return f"Decided({', '.join(map(repr, self.events)) or 'nothing'})"


async def decide(
    log: Log, options: Options, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Decided[Any]:
    """Run one decision to its end. Domain errors pass through untouched, without retry."""
    refuse_unauthorised(options, function, args, kwargs)
    if not callable(function):  # pyright: ignore[reportUnnecessaryComparison]
        raise InvalidDecision(
            f"{function!r} is no function.",
            "Give the function and its arguments, store.decide(transfer, Account(…)), not what it returned.",
        )
    given = [*args, *kwargs.values()]
    questions = [state for each in given for state in _questions_in(function, each)]
    if options.command_id is not None and (done := await log.engine.request(options.command_id)) is not None:
        return await _repeated(log, questions, done)
    for attempt in range(1, options.attempts + 1):
        loaded, head = await _load_all(log, questions)
        states = [copied(state) for state in loaded]
        recorded, answers = together(states), iter(states)
        arguments = [_answered(each, answers) for each in given]
        result = function(*arguments[: len(args)], **dict(zip(kwargs, arguments[len(args) :], strict=True)))
        events = _decided_events(function, result, recorded, states)
        if not events:
            return Decided((), None, _keyed(questions, loaded), attempt)
        new = encode(log, options, events)
        clauses = tuple(Clause(each.query(), head) for each in questions)
        if options.connection is not None:
            staged = await join(log, options, new, clauses, options.command_id)
            return _staged(questions, loaded, new, events, staged, attempt)
        try:
            receipt = await write(log, options, new, clauses, options.command_id)
        except AppendConflict as conflict:
            if attempt == options.attempts:
                raise AppendConflict(
                    f"The decision {_name(function)} met a conflict in each of {attempt} attempts.",
                    "Try again later, allow more attempts (store.using(attempts=…)), or decide over less.",
                    **conflict.fields,
                ) from None
            await log.pause(-min(CONFLICT_PAUSE * 2**attempt, 0.064))
            continue
        if receipt.repeated and receipt.ids != tuple(event.id for event in new):
            return await _repeated(log, questions, receipt)
        return _decided(log, questions, loaded, new, events, receipt, attempt)
    raise InvalidInput("A decision was given no attempts.", "Use attempts=1 or more.")


def _questions_in(function: Callable[..., Any], value: Any) -> Iterator[State]:
    """The states of one argument, also those in lists, tuples and the values of dicts, in order."""
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
            f"{_name(function)} was to decide over the class {value.__name__}, which asks nothing.",
            f"Give a question, like {value.__name__}({', '.join(plan_of(value).question) and '…'}).",
        )


def _answered(value: Any, answers: Iterator[State]) -> Any:
    """The argument with each state in it replaced by the next answer; the very same object where there is none."""
    if isinstance(value, State):
        return next(answers)
    if type(value) in (list, tuple):
        parts = [_answered(each, answers) for each in value]
        return value if all(map(operator.is_, parts, value)) else type(value)(parts)
    if type(value) is dict:
        given = cast("dict[Any, Any]", value)
        parts = [_answered(each, answers) for each in given.values()]
        return given if all(map(operator.is_, parts, given.values())) else dict(zip(given, parts, strict=True))
    return value


def _decided_events(
    function: Callable[..., Any], result: Any, recorded: list[Any], states: Sequence[State]
) -> list[Any]:
    """What was returned, or what the aggregates among the states have recorded; never one of them unnoticed."""
    if result is None and any(isinstance(each, Aggregate) for each in states):
        return recorded
    events = events_of(function, result)
    if recorded:
        raise InvalidDecision(
            f"{_name(function)} returned a value, and its aggregates have recorded events.",
            "Let them record everything and return nothing.",
            recorded=len(recorded),
        )
    return events


def events_of(function: Callable[..., Any], result: Any) -> list[Any]:
    """What a decision returned, as a list of events. Raises InvalidDecision if it is anything else."""
    if result is None:
        raise InvalidDecision(
            f"{_name(function)} returned None.",
            "Return the events, or an empty list where there is nothing to write.",
        )
    if hasattr(result, "__await__"):
        getattr(result, "close", int)()  # or Python would warn that it was never awaited
        raise InvalidDecision(
            f"{_name(function)} is asynchronous, and a decision waits for nothing.",
            "Make it a plain function; fetch what it needs beforehand and pass it as an argument.",
        )
    many = (
        cast("Iterable[Any]", result) if isinstance(result, (list, tuple)) or hasattr(result, "__next__") else [result]
    )
    events = list(many)
    for event in events:
        inner = cast(Any, event).event if isinstance(event, Draft) else event
        if not is_event_class(type(cast(object, inner))):
            raise InvalidDecision(
                f"{_name(function)} returned {inner!r}, which is no event.",
                "Return an event, or a list of events (ef.Event, @ef.event or ef.Draft).",
            )
    return events


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


async def _load_all(log: Log, questions: Sequence[State]) -> tuple[list[State], int]:
    """All states at one head, so that the decision sees one moment of the log."""
    loaded = [await load_kept(log, question) for question in questions]
    head = max((position for _, position in loaded), default=0)
    for index, (_, position) in enumerate(loaded):
        if position < head:
            loaded[index] = await load_kept(log, questions[index], head)
    return [state for state, _ in loaded], head


def _staged(
    questions: Sequence[State],
    loaded: Sequence[State],
    new: tuple[NewEvent, ...],
    events: list[Any],
    staged: Any,
    attempt: int,
) -> Decided[Any]:
    """Decided within the user's transaction: no positions before its COMMIT, and nothing enters the cache."""
    states: list[State] = []
    for question, before in zip(questions, loaded, strict=True):
        state, asked = copied(before), question.query()
        plain = [event.event if isinstance(event, Draft) else event for event in events]
        evolve_all(state, [e for n, e in zip(new, plain, strict=True) if asked.matches(n.type, n.tags)])
        states.append(state)
    return Decided((), None, _keyed(questions, states), attempt, staged)


def _decided(
    log: Log,
    questions: Sequence[State],
    loaded: Sequence[State],
    new: tuple[NewEvent, ...],
    events: list[Any],
    receipt: Receipt,
    attempt: int,
) -> Decided[Any]:
    plain = [event.event if isinstance(event, Draft) else event for event in events]
    stored = [each.at(receipt.first + offset, receipt.time, offset, len(new)) for offset, each in enumerate(new)]
    recorded = tuple(Recorded(s, event) for s, event in zip(stored, plain, strict=True))
    states: list[State] = []
    for question, before in zip(questions, loaded, strict=True):
        # The condition held, so nothing this state is folded from stands between what was read and our events.
        state, asked = copied(before), question.query()
        evolve_all(state, [e for s, e in zip(stored, plain, strict=True) if asked.matches(s.type, s.tag_set)])
        states.append(state)
        if not receipt.repeated:
            log.cache.put(plan_of(type(question)).key(question), state, receipt.last)
    return Decided(recorded, receipt, _keyed(questions, states), attempt)


async def _repeated(log: Log, questions: Sequence[State], receipt: Receipt) -> Decided[Any]:
    """A command decided before: its events as they were written, the states as they were after them."""
    reader = Reader(log, Query(), Bounds(after=receipt.first - 1, until=receipt.last))
    recorded: list[Recorded[Any]] = []
    while (page := await reader.next_page()) is not None:
        recorded.extend(page)
    states = [(await load(log, question, receipt.last))[0] for question in questions]
    repeated = msgspec.structs.replace(receipt, repeated=True)
    return Decided(tuple(recorded), repeated, _keyed(questions, states), 0)


def _keyed(questions: Sequence[State], states: Iterable[State]) -> dict[Any, State]:
    return {plan_of(type(q)).key(q): s for q, s in zip(questions, states, strict=True)}
