"""Aggregates: states with methods that check rules and record events.

    class Account(ef.Aggregate):
        account: ef.Tag
        balance: Decimal = Decimal(0)

        def withdraw(self, amount: Decimal) -> None:   # the rule: runs in a decision, never when events are folded
            if self.balance < amount:
                raise InsufficientFunds(self.account)
            self.record(MoneyWithdrawn(self.account, amount))

        def evolve(self, event: MoneyWithdrawn) -> None:   # the fold: runs for every event, refuses nothing
            self.balance -= event.amount

A method can be called and tested without a log. Knows: states and events. Does not know: the log.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from eventfold.core.class_data import get_class_data, set_class_data
from eventfold.core.envelope import unwritten_event
from eventfold.core.event import Recorded, declaration_of, is_event_class
from eventfold.core.signals import is_from_handler
from eventfold.core.state import State, evolve_all, evolve_recorded, state_definition_of
from eventfold.core.tags import fields_by_tag, tag_values
from eventfold.core.upcast import apply_upcasters, upcaster_from
from eventfold.errors import InvalidDecision, InvalidEvent

_TAGS = "__eventfold_tags__"
if TYPE_CHECKING:

    class _Recording(State):
        """What a type checker sees: a State."""
else:

    class _Recording(State, dict=True):
        """A State with a `__dict__`, for the recorded events."""


class Aggregate(_Recording):
    """The base class of aggregates: a State with methods that decide and `record` events."""

    def record(self, event: Any) -> None:
        """Fold an event into this aggregate immediately, and append it when the decision is complete.

        An event of a class that `evolve` does not name is appended only: later folds do not read it either. Raises
        InvalidDecision if its tags name another entity: the next fold of this aggregate would not include it.
        """
        _refuse_another_entitys(self, event)
        vars(self).setdefault("_recorded", []).append(event)
        if _is_folded(self, event):
            if upcaster_from(type(cast(object, event))) is None:
                evolve_all(self, (event,))
            else:
                _fold_upcast(self, event)

    def recorded(self) -> list[Any]:
        """Return the events recorded and not yet appended, in order.

        In a decision over several aggregates, the events of all of them.
        """
        return list(vars(self).get("_recorded", ()))


def _is_folded(aggregate: Aggregate, event: object) -> bool:
    """Whether folds of this aggregate read events of this class. Its own query, or one of every type, may do so."""
    types = state_definition_of(type(aggregate)).types
    if not types or type(aggregate).query is not State.query or not is_event_class(type(event)):
        return True
    return declaration_of(type(event)).type in types


def _fold_upcast(aggregate: Aggregate, event: object) -> None:
    """Fold an event of an older class into an aggregate as it will be read: after all upcasters."""
    definition, own = state_definition_of(type(aggregate)), declaration_of(type(event))
    try:
        parts = [part for part in apply_upcasters(event) if isinstance(part, definition.events)]
    except Exception as error:  # an upcaster is user code, and may raise anything
        if is_from_handler(error):
            raise
        raise InvalidEvent(
            f"An event that {type(aggregate).__name__} recorded, {own.type} v{own.version}, could not be upcast: "
            f"{error!r}.",
            "Record an event of the newest class, or fix the upcaster; it must accept every event of its version.",
            type=own.type,
            version=own.version,
        ) from error
    if definition.recorded:
        evolve_recorded(aggregate, [Recorded(unwritten_event(own.type, own.version), part) for part in parts])
    else:
        evolve_all(aggregate, parts)


def _refuse_another_entitys(aggregate: Aggregate, event: object) -> None:
    if type(aggregate).query is not State.query:
        return  # its query is not built from its tag fields, so these do not tell which events it is folded from
    tags = _tags_of(type(event))
    for field, key in state_definition_of(type(aggregate)).tags:
        if key not in tags:
            continue
        own = set(tag_values(getattr(aggregate, field)))
        named = {value for each in tags[key] for value in tag_values(getattr(event, each))}
        if own.isdisjoint(named):
            name, what = type(aggregate).__name__, type(event).__name__
            raise InvalidDecision(
                f"The {name} of {key} {', '.join(sorted(own))} recorded a {what} of "
                f"{f'{key} ' + ', '.join(sorted(named)) if named else f'no {key}'}.",
                f"Record it in that {name}: decide over both, store.decide(…, {name}(…), {name}(…)).",
                aggregate=name,
                event=what,
            )


def _tags_of(cls: type) -> dict[str, list[str]]:
    """Return the fields of an event class by tag key."""
    found: dict[str, list[str]] | None = get_class_data(cls, _TAGS)
    if found is None:
        try:
            found = fields_by_tag(cls)
        except NameError:
            return {}  # the append refuses this class, and names the annotation that cannot be resolved
        set_class_data(cls, _TAGS, found)
    return found


def record_jointly(aggregates: Iterable[Any]) -> list[Any]:
    """Make several aggregates record into one list, which keeps the order of their events. Returns the list."""
    shared: list[Any] = []
    for each in aggregates:
        if isinstance(each, Aggregate):
            vars(each)["_recorded"] = shared
    return shared
