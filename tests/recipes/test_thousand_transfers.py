"""A thousand transfers at once among ten accounts: the total stays, and no account is ever overdrawn."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import eventfold as ef
from examples.bank import Account, InsufficientFunds, MoneyDeposited, transfer
from tests.recipes.crowd import PATIENCE, RACERS, Crowd, Threads

ACCOUNTS = [f"a-{n}" for n in range(10)]
TRANSFERS = 1_000
PATIENT = 1_000  # attempts


def orders(seed: int = 7) -> list[tuple[str, str, Decimal]]:
    """A thousand transfers between two different accounts each, some of them too large."""
    chance, made = random.Random(seed), list[tuple[str, str, Decimal]]()
    for _ in range(TRANSFERS):
        source, target = chance.sample(ACCOUNTS, 2)
        made.append((source, target, Decimal(chance.randint(1, 60))))
    return made


def by_threads(url: str) -> list[Any]:
    """Thirty-two threads on two handles."""
    with ef.Store(url) as one, ef.Store(url) as other:

        def run(numbered: tuple[int, tuple[str, str, Decimal]]) -> Any:
            number, (source, target, amount) = numbered
            store = (one, other)[number % 2].using(attempts=PATIENT)
            try:
                return store.decide(transfer, Account(source), Account(target), amount=amount)
            except InsufficientFunds as error:
                return error

        with ThreadPoolExecutor(RACERS) as racers:
            return list(racers.map(run, enumerate(orders()), timeout=PATIENCE))


async def by_tasks(url: str) -> list[Any]:
    """A thousand tasks on one handle."""
    async with ef.AsyncStore(url) as store:

        async def run(source: str, target: str, amount: Decimal) -> Any:
            try:
                patient = store.using(attempts=PATIENT)
                return await patient.decide(transfer, Account(source), Account(target), amount=amount)
            except InsufficientFunds as error:
                return error

        return await asyncio.wait_for(asyncio.gather(*[run(*order) for order in orders()]), PATIENCE)


def test_a_thousand_transfers_keep_the_total(crowd: Crowd) -> None:
    """Whatever order they come in, money is neither made nor lost, and what was refused left no trace."""
    crowd.store.append(*[MoneyDeposited(account, Decimal(100)) for account in ACCOUNTS])
    answers = by_threads(crowd.url) if isinstance(crowd, Threads) else asyncio.run(by_tasks(crowd.url))
    made = [answer for answer in answers if isinstance(answer, ef.Decided)]
    assert len(answers) == TRANSFERS and len(made) > TRANSFERS // 4
    assert crowd.store.head() == len(ACCOUNTS) + 2 * len(made)
    assert sum(crowd.store.state(Account(account)).balance for account in ACCOUNTS) == 1_000
    for account in ACCOUNTS:
        assert all(step.state.balance >= 0 for step in crowd.store.history(Account(account)))
