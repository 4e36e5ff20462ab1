"""Accounts with inline balances, and the plain fold that these must equal."""

from __future__ import annotations

from collections import Counter
from typing import Any

import eventfold as ef


class InlineMoved(ef.Event):
    """Money was added to an account, or withdrawn."""

    account: ef.Tag
    amount: int


class InlineNoted(ef.Event):
    """An event that no read model here handles."""

    text: str


class Forbidden(Exception):
    """The error of a balance for an amount of 13, and for an overdraft."""


class InlineBalance(ef.Projection):
    """A row for each account; it refuses a balance below zero, and an amount of 13 always."""

    account: str
    balance: int = 0
    moves: int = 0
    last: list[int] = []

    def evolve(self, event: InlineMoved) -> None:
        """Mutate before raising, so that a row that is not restored shows."""
        self.balance += event.amount
        self.moves += 1
        self.last = [*self.last, event.amount][-3:]
        if event.amount == 13 or self.balance < 0:
            raise Forbidden(f"{event.amount} to {self.account}")

    def keep(self) -> bool:
        """An account that was emptied by taking 1,000 is closed."""
        return not (self.balance == 0 and self.last[-1:] == [-1_000])


class InlineLedger(ef.SqlProjection):
    """The same in SQL; its handler fails at 17, after it has written."""

    tables = {"inline_ledger": "account TEXT NOT NULL PRIMARY KEY, balance INTEGER NOT NULL"}

    def moved(self, event: InlineMoved, tx: ef.Transaction) -> None:
        """Add the amount."""
        mark = "?" if type(tx.connection).__module__.startswith("apsw") else "%s"
        tx.execute(
            f"INSERT INTO {{inline_ledger}} VALUES ({mark}, {mark}) ON CONFLICT (account)"
            " DO UPDATE SET balance = {inline_ledger}.balance + excluded.balance",
            (event.account, event.amount),
        )
        if event.amount == 17:
            raise Forbidden("17")


class InlineTotal(ef.Projection):
    """A row that the database itself refuses at 19: a text that is not a number does not fit INTEGER."""

    account: str
    total: int = 0

    def evolve(self, event: InlineMoved) -> None:
        """Add; at 19 assign a value that its column cannot hold."""
        self.total = None if event.amount == 19 else self.total + event.amount  # type: ignore[assignment]


def balances(store: Any) -> dict[str, int]:
    """Return the balances of the rows."""
    return {row.account: row.balance for row in store.rows(InlineBalance)}


def folded(store: Any) -> dict[str, int]:
    """Return the balances computed from the log."""
    sums: Counter[str] = Counter()
    for recorded in store.read(ef.Query.of(types=InlineMoved)):
        sums[recorded.event.account] += recorded.event.amount
    return dict(sums)


def ledger(store: Any) -> dict[str, int]:
    """Return the balances of the SQL table."""
    target = store.projections.target(InlineLedger)
    return {account: int(balance) for account, balance in target.dump("inline_ledger", 1)}


def proved(store: Any) -> bool:
    """Return whether verify proves every ledger of the store."""
    return all(proof.proved for proof in store.projections.verify())
