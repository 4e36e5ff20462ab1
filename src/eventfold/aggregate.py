"""Room: aggregates, for those who write rules as methods: a State whose methods decide, and record what they decide.

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

from eventfold.state import State, evolve_all

if TYPE_CHECKING:

    class _Recording(State):
        """What a type checker sees: a State."""
else:

    class _Recording(State, dict=True):
        """A State with room for what it has recorded."""


class Aggregate(_Recording):
    """A State with methods that decide. `record` an event instead of returning it."""

    def record(self, event: Any) -> None:
        """Take an event in, at once, and keep it to be appended when the decision is done."""
        vars(self).setdefault("_recorded", []).append(event)
        evolve_all(self, (event,))

    def recorded(self) -> list[Any]:
        """The events recorded and not yet appended, in order; with other aggregates' where they decide together."""
        return list(vars(self).get("_recorded", ()))


def together(aggregates: Iterable[Any]) -> list[Any]:
    """Let several aggregates record into one list, so that the order among them is kept. Returns the list."""
    shared: list[Any] = []
    for each in aggregates:
        if isinstance(each, Aggregate):
            vars(each)["_recorded"] = shared
    return shared
