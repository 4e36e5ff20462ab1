"""The bank, as functions that take states and return events.

Explained step by step in docs/tutorial/bank.md.
"""

from __future__ import annotations

from decimal import Decimal

import eventfold as ef


class MoneyDeposited(ef.Event):
    account: ef.Tag
    amount: Decimal


class MoneyWithdrawn(ef.Event):
    account: ef.Tag
    amount: Decimal


class InsufficientFunds(Exception):
    pass


class Account(ef.State):
    account: ef.Tag
    balance: Decimal = Decimal(0)

    def evolve(self, event: MoneyDeposited | MoneyWithdrawn) -> None:
        self.balance += event.amount if isinstance(event, MoneyDeposited) else -event.amount


def transfer(source: Account, target: Account, amount: Decimal) -> list[ef.Event]:
    if not 0 < amount <= source.balance:
        raise InsufficientFunds(f"{source.account} has {source.balance}, not {amount}")
    return [MoneyWithdrawn(source.account, amount), MoneyDeposited(target.account, amount)]


if __name__ == "__main__":
    with ef.Store("bank.db") as store:
        store.append(MoneyDeposited("a-1", Decimal(80)))
        done = store.decide(transfer, Account("a-1"), Account("a-2"), amount=Decimal(50))
        print(done.state(Account("a-1")), done.state(Account("a-2")))
