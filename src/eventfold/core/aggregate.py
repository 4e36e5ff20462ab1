"""Aggregates, for those who write rules as methods: a State whose methods decide, and record what they decide.

    class Account(ef.Aggregate):
        account: ef.Tag
        balance: Decimal = Decimal(0)

        def withdraw(self, amount: Decimal) -> None:   # the rule: runs once, never on replay
            if self.balance < amount:
                raise InsufficientFunds(self.account)
            self.record(MoneyWithdrawn(self.account, amount))

        def evolve(self, event: MoneyWithdrawn) -> None:   # the fold: runs on every replay, refuses nothing
            self.balance -= event.amount

Knows: states and events. Does not know: the log; a method can be called and tested without one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from eventfold.core.class_data import get_class_data, set_class_data
from eventfold.core.state import State, evolve_all, state_definition_of
from eventfold.core.tags import fields_by_tag, tag_values
from eventfold.errors import InvalidDecision

_TAGS = "__eventfold_tags__"
if TYPE_CHECKING:

    class _Recording(State):
        """What a type checker sees: a State."""
else:

    class _Recording(State, dict=True):
        """A State with room for what it has recorded."""


class Aggregate(_Recording):
    """A State with methods that decide. `record` an event instead of returning it."""

    def record(self, event: Any) -> None:
        """Take an event in, at once, and keep it to be appended when the decision is done.

        Raises InvalidDecision where its tags name another entity than this one, whose next fold would never see it.
        """
        _refuse_another_entitys(self, event)
        vars(self).setdefault("_recorded", []).append(event)
        evolve_all(self, (event,))

    def recorded(self) -> list[Any]:
        """The events recorded and not yet appended, in order; with other aggregates' where they decide together."""
        return list(vars(self).get("_recorded", ()))


def _refuse_another_entitys(aggregate: Aggregate, event: object) -> None:
    if type(aggregate).query is not State.query:
        return  # it asks otherwise than by its tag fields, so these do not tell what is its own
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
                f"Let that {name} record it: decide over both, store.decide(…, {name}(…), {name}(…)).",
                aggregate=name,
                event=what,
            )


def _tags_of(cls: type) -> dict[str, list[str]]:
    """The fields of an event class by the tag key they give."""
    found: dict[str, list[str]] | None = get_class_data(cls, _TAGS)
    if found is None:
        try:
            found = fields_by_tag(cls)
        except NameError:
            return {}  # the append refuses such a class, and says what cannot be resolved
        set_class_data(cls, _TAGS, found)
    return found


def record_jointly(aggregates: Iterable[Any]) -> list[Any]:
    """Let several aggregates record into one list, so that the order among them is kept. Returns the list."""
    shared: list[Any] = []
    for each in aggregates:
        if isinstance(each, Aggregate):
            vars(each)["_recorded"] = shared
    return shared
