"""The bank, as an aggregate, whose methods check rules and record events.

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


class Account(ef.Aggregate):
    account: ef.Tag
    balance: Decimal = Decimal(0)

    def deposit(self, amount: Decimal) -> None:
        self.record(MoneyDeposited(self.account, amount))

    def withdraw(self, amount: Decimal) -> None:
        if not 0 < amount <= self.balance:
            raise InsufficientFunds(f"{self.account} has {self.balance}, not {amount}")
        self.record(MoneyWithdrawn(self.account, amount))

    def evolve(self, event: MoneyDeposited | MoneyWithdrawn) -> None:
        self.balance += event.amount if isinstance(event, MoneyDeposited) else -event.amount


def transfer(source: Account, target: Account, amount: Decimal) -> None:
    source.withdraw(amount)
    target.deposit(amount)


if __name__ == "__main__":
    with ef.Store("bank.db") as store:
        store.change(Account.deposit, Account("a-1"), Decimal(80))
        done = store.decide(transfer, Account("a-1"), Account("a-2"), amount=Decimal(50))
        print(done.state(Account("a-1")), done.state(Account("a-2")))
