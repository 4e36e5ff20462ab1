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
START = Decimal(300)  # in each account
PATIENT = 1_000  # attempts


def orders(seed: int = 7) -> list[tuple[str, str, Decimal]]:
    """A thousand transfers between two different accounts each, some of them too large."""
    chance, made = random.Random(seed), list[tuple[str, str, Decimal]]()
    for _ in range(TRANSFERS):
        source, target = chance.sample(ACCOUNTS, 2)
        made.append((source, target, Decimal(chance.randint(1, 60))))
    return made


def by_threads(crowd: Crowd) -> list[Any]:
    """Thirty-two threads on two handles."""
    with crowd.another() as one, crowd.another() as other:

        def run(numbered: tuple[int, tuple[str, str, Decimal]]) -> Any:
            number, (source, target, amount) = numbered
            store = (one, other)[number % 2].using(attempts=PATIENT)
            try:
                return store.decide(transfer, Account(source), Account(target), amount=amount)
            except InsufficientFunds as error:
                return error

        with ThreadPoolExecutor(RACERS) as racers:
            return list(racers.map(run, enumerate(orders()), timeout=PATIENCE))


async def by_tasks(crowd: Crowd) -> list[Any]:
    """Run a thousand tasks on one handle, twice as many at a time as racers in other tests."""
    turns = asyncio.Semaphore(2 * RACERS)
    async with crowd.another_async() as store:

        async def run(source: str, target: str, amount: Decimal) -> Any:
            patient = store.using(attempts=PATIENT)
            try:
                async with turns:
                    return await patient.decide(transfer, Account(source), Account(target), amount=amount)
            except InsufficientFunds as error:
                return error

        return await asyncio.wait_for(asyncio.gather(*[run(*order) for order in orders()]), PATIENCE)


def test_a_thousand_transfers_keep_the_total(crowd: Crowd) -> None:
    """In any order of commits the total is unchanged, and refused transfers leave no trace."""
    crowd.store.append(*[MoneyDeposited(account, START) for account in ACCOUNTS])
    answers = by_threads(crowd) if isinstance(crowd, Threads) else asyncio.run(by_tasks(crowd))
    made = [answer for answer in answers if isinstance(answer, ef.Decided)]
    assert len(answers) == TRANSFERS and len(made) > TRANSFERS // 10
    assert crowd.store.head() == len(ACCOUNTS) + 2 * len(made)
    assert sum(crowd.store.state(Account(account)).balance for account in ACCOUNTS) == START * len(ACCOUNTS)
    for account in ACCOUNTS:
        assert all(step.state.balance >= 0 for step in crowd.store.history(Account(account)))
