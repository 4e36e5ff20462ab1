"""Accounts whose balances every append keeps up, and the plain fold that they must equal."""

from __future__ import annotations

from collections import Counter
from typing import Any

import eventfold as ef


class InlineMoved(ef.Event):
    """Money came to an account, or went."""

    account: ef.Tag
    amount: int


class InlineNoted(ef.Event):
    """Something no read model here is about."""

    text: str


class Forbidden(Exception):
    """What a balance says to an amount of 13, and to money it has not."""


class InlineBalance(ef.Projection):
    """A row for each account; below zero it refuses, and 13 it refuses always."""

    account: str
    balance: int = 0
    moves: int = 0
    last: list[int] = []

    def evolve(self, event: InlineMoved) -> None:
        """Mutates before it refuses, so that a row that is not put back shows."""
        self.balance += event.amount
        self.moves += 1
        self.last = [*self.last, event.amount][-3:]
        if event.amount == 13 or self.balance < 0:
            raise Forbidden(f"{event.amount} to {self.account}")

    def keep(self) -> bool:
        """An account that was emptied by taking 1,000 is closed."""
        return not (self.balance == 0 and self.last[-1:] == [-1_000])


class InlineLedger(ef.SqlProjection):
    """The same in SQL, whose handler fails at 17, after it has written."""

    tables = {"inline_ledger": "account TEXT NOT NULL PRIMARY KEY, balance INTEGER NOT NULL"}

    def moved(self, event: InlineMoved, tx: ef.Transaction) -> None:
        """Adds."""
        mark = "?" if type(tx.connection).__module__.startswith("apsw") else "%s"
        tx.execute(
            f"INSERT INTO {{inline_ledger}} VALUES ({mark}, {mark}) ON CONFLICT (account)"
            " DO UPDATE SET balance = {inline_ledger}.balance + excluded.balance",
            (event.account, event.amount),
        )
        if event.amount == 17:
            raise Forbidden("17")


class InlineTotal(ef.Projection):
    """A row that the database itself refuses at 19: what is no number is no INTEGER."""

    account: str
    total: int = 0

    def evolve(self, event: InlineMoved) -> None:
        """Adds; at 19 it leaves behind what no column of it can hold."""
        self.total = None if event.amount == 19 else self.total + event.amount  # type: ignore[assignment]


def balances(store: Any) -> dict[str, int]:
    """The balances as the rows have them."""
    return {row.account: row.balance for row in store.rows(InlineBalance)}


def folded(store: Any) -> dict[str, int]:
    """The balances as the log has them."""
    sums: Counter[str] = Counter()
    for recorded in store.read(ef.Query.of(types=InlineMoved)):
        sums[recorded.event.account] += recorded.event.amount
    return dict(sums)


def ledger(store: Any) -> dict[str, int]:
    """The balances as the table in SQL has them."""
    target = store.projections.target(InlineLedger)
    return {account: int(balance) for account, balance in target.dump("inline_ledger", 1)}


def proved(store: Any) -> bool:
    """Whether every ledger of the store is proved."""
    return all(proof.proved for proof in store.projections.verify())
