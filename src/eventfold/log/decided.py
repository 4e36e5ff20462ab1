"""The result of a decision: the events written, their positions, and the states after them.

Knows: how the type of the events follows from what a decision returns. Does not know: how a decision is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from eventfold.core.envelope import NewEvent, Receipt, unwritten_event
from eventfold.core.event import Draft, Event, Recorded, event_of
from eventfold.core.query import Matcher
from eventfold.core.registry import Registry
from eventfold.core.state import State, copy_state, evolve_plain, evolve_recorded, private_copy, state_definition_of
from eventfold.errors import InvalidDecision
from eventfold.log.own_events import as_read
from eventfold.log.pipeline import BaseState

S = TypeVar("S", bound=State)
if TYPE_CHECKING:
    from typing import overload

    from typing_extensions import TypeVar as _DefaultTypeVar

    R_co = _DefaultTypeVar("R_co", covariant=True, default=Any)  # so that `ef.Decided` alone is a type
    E = TypeVar("E")
    Ev = TypeVar("Ev", bound=Event)

    class _Events:
        """The type of `Decided.events`, by what the decision returns: an event or several, drafts of them, or None.

        The overloads for classes derived from ef.Event come first: for a union of such classes mypy would otherwise
        infer their common base. Instances of other event classes may be iterable themselves, as pydantic's are; so for
        those classes only sequences and iterators count as several events.
        """

        @overload
        def __get__(self, decided: Decided[None], owner: object) -> tuple[Recorded[Any], ...]: ...
        @overload
        def __get__(self, decided: Decided[Iterable[Ev] | None], owner: object) -> tuple[Recorded[Ev], ...]: ...
        @overload
        def __get__(self, decided: Decided[Ev], owner: object) -> tuple[Recorded[Ev], ...]: ...
        @overload
        def __get__(self, decided: Decided[Ev | None], owner: object) -> tuple[Recorded[Ev], ...]: ...
        @overload
        def __get__(
            self, decided: Decided[Draft[E] | Sequence[Draft[E]] | Iterator[Draft[E]] | None], owner: object
        ) -> tuple[Recorded[E], ...]: ...
        @overload
        def __get__(
            self,
            decided: Decided[Ev | Draft[Ev] | Sequence[Ev | Draft[Ev]] | Iterator[Ev | Draft[Ev]] | None],
            owner: object,
        ) -> tuple[Recorded[Ev], ...]: ...
        @overload
        def __get__(
            self, decided: Decided[Sequence[E] | Iterator[E] | None], owner: object
        ) -> tuple[Recorded[E], ...]: ...
        @overload
        def __get__(self, decided: Decided[E], owner: object) -> tuple[Recorded[E], ...]: ...
        def __get__(self, decided: Any, owner: object) -> Any: ...
else:
    R_co = TypeVar("R_co", covariant=True)


class Decided(Generic[R_co]):
    """The result of a decision: the events written, their positions, and the states after them.

    `attempts`  how often the decision was made; attempts over outdated cached states do not count; 0 for a repeat.
    `receipt`   None if the decision wrote nothing.
    `repeated`  whether this command id had been decided before, or events with these ids written: then the events and
                states are those of the first time, and nothing was written now.
    `staged`    set instead of `receipt` if the append joined a transaction of the user: no event has a position before
                its COMMIT.
    The type argument is what the decision returns: `ef.Decided[list[Paid]]`.
    """

    __slots__ = ("_events", "_states", "attempts", "receipt", "staged")

    def __init__(
        self,
        events: tuple[Recorded[Any], ...],
        receipt: Receipt | None,
        states: Mapping[Any, State | Exception],
        attempts: int,
        staged: Any = None,
    ) -> None:
        self._events = events
        self.receipt = receipt
        self.attempts = attempts
        self.staged = staged
        self._states = states

    if TYPE_CHECKING:
        events = _Events()
    else:

        @property
        def events(self) -> tuple[Recorded[Any], ...]:
            """The events that were written, in order, as they are in the log: of the classes that were returned."""
            return self._events

    @property
    def positions(self) -> range:
        """The positions of the events written; empty if none was."""
        return self.receipt.positions if self.receipt else range(0)

    @property
    def repeated(self) -> bool:
        """Whether this was written before, under the same command id or by events of the same ids."""
        return self.receipt is not None and self.receipt.repeated

    def state(self, question: S) -> S:
        """Return the state of one of the decision's questions, with the decision's own events folded into it.

        If its `evolve` takes envelopes, they are the written ones; for a staged decision their position is 0. Raises
        InvalidDecision if the decision was not over this question, and what `evolve` raised for these events.
        """
        if not isinstance(question, State):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidDecision(
                f"{question!r:.200} is no State.", 'Ask with one of the questions decided over, like Account("a-1").'
            )
        key = state_definition_of(type(question)).key(question)
        if key not in self._states:
            raise InvalidDecision(f"This decision was not over {question!r}.", "Ask the store: store.state(…).")
        state = self._states[key]
        if isinstance(state, Exception):
            raise state
        return cast(S, copy_state(state))

    def __repr__(self) -> str:
        return f"Decided({', '.join(map(repr, self._events)) or 'nothing'})"


def states_after(
    registry: Registry, base: Sequence[BaseState], new: Sequence[NewEvent], events: Sequence[Any]
) -> list[State]:
    """Return copies of the states with a decision's own events folded into them, as they will be read from the log."""
    plain = [private_copy(event_of(event)) for event in events]
    unchanged = all(map(registry.is_read_unchanged, set(map(type, plain))))
    states: list[State] = []
    for each in base:
        definition, query = state_definition_of(type(each.state)), each.clause.query
        state = copy_state(each.state, definition)
        matches = (query if len(new) == 1 or len(query.items) == 1 else Matcher(query)).matches
        if unchanged and not definition.recorded:  # as most are
            evolve_plain(state, [event for n, event in zip(new, plain, strict=True) if matches(n.type, n.tags)])
        else:
            own = [(n, event) for n, event in zip(new, plain, strict=True) if matches(n.type, n.tags)]
            steps = own if unchanged else as_read(registry, state, own)
            evolve_recorded(state, [Recorded(unwritten_event(n.type, n.version), event) for n, event in steps])
        states.append(state)
    return states


def states_after_written(
    registry: Registry, base: Sequence[BaseState], recorded: Sequence[Recorded[Any]]
) -> list[State | Exception]:
    """Return the same with the written events and their envelopes; an error in place of a state that failed."""
    plain = [(each.stored, private_copy(each.event)) for each in recorded]
    unchanged = all(map(registry.is_read_unchanged, set(map(type, [event for _, event in plain]))))
    states: list[State | Exception] = []
    for each in base:
        state, query = copy_state(each.state), each.clause.query
        try:
            own = [(stored, event) for stored, event in plain if query.matches(stored.type, stored.tag_set)]
            steps = own if unchanged else as_read(registry, state, own)
            evolve_recorded(state, [Recorded(stored, event) for stored, event in steps])
        except Exception as error:  # noqa: BLE001 (Decided.state raises it: the events are written)
            states.append(error)
        else:
            states.append(state)
    return states
