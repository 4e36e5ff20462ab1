"""Decisions of one process over one state are built on each other and committed together; none is refused because of an
event that was not committed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest

import eventfold as ef
from eventfold.engines import open_engine
from eventfold.errors import StoreFull
from eventfold.testing import Faulty
from tests.conformance.engines import ENGINES


class PaidIn(ef.Event):
    account: ef.Tag
    amount: Decimal


class PaidOut(ef.Event):
    account: ef.Tag
    amount: Decimal


class Account(ef.State):
    account: ef.Tag
    balance: Decimal = Decimal(0)
    entries: int = 0

    def evolve(self, event: PaidIn | PaidOut) -> None:
        self.balance += event.amount if isinstance(event, PaidIn) else -event.amount
        self.entries += 1


class Poor(Exception):
    pass


def deposit(account: Account, amount: int) -> PaidIn:
    return PaidIn(account.account, Decimal(amount))


def withdraw(account: Account, amount: int) -> PaidOut:
    if account.balance < amount:
        raise Poor(account.balance)
    return PaidOut(account.account, Decimal(amount))


def transfer(source: Account, target: Account, amount: int) -> list[ef.Event]:
    return [withdraw(source, amount), PaidIn(target.account, Decimal(amount))]


Opening = Callable[[], tuple[ef.AsyncStore, Faulty]]


@pytest.fixture(params=list(ENGINES))
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Opening:
    """Return a function that opens an async store whose commits can be held, delayed and made to fail."""
    place = {key: value for key, value in ENGINES[request.param](tmp_path).items() if key != "clock"}

    def open_one() -> tuple[ef.AsyncStore, Faulty]:
        url = place["url"]
        options = {key: value for key, value in place.items() if key != "url"}
        engine = open_engine(url, "sync", True, options)
        faulty = Faulty(engine, blocks=True)
        return ef.AsyncStore(faulty), faulty

    return open_one


async def _started(*made: Any) -> list[asyncio.Task[Any]]:
    """Start each task after the one before has got as far as it can by itself. Returns the tasks."""
    tasks: list[asyncio.Task[Any]] = []
    for each in made:
        tasks.append(asyncio.ensure_future(each))
        await asyncio.sleep(0.2)
    return tasks


def run(main: Any) -> None:
    """Run a coroutine for at most a minute."""
    asyncio.run(asyncio.wait_for(main, 60))


def test_decisions_over_one_state_share_a_commit(opening: Opening) -> None:
    """During a commit the next decisions are made, each over the one before; none is made twice."""

    async def main() -> None:
        store, faulty = opening()
        async with store:
            await store.append(PaidIn("a", Decimal(100)))
            gate = faulty.hold()
            first = await _started(store.decide(withdraw, Account("a"), 10))
            assert await asyncio.to_thread(gate.arrived)
            rest = await _started(*[store.decide(withdraw, Account("a"), n) for n in (20, 21, 22)])
            gate.open()
            done = await asyncio.gather(*first, *rest)
            assert [d.attempts for d in done] == [1] * 4
            assert [d.state(Account("a")).balance for d in done] == [90, 70, 49, 27]
            assert [d.positions for d in done] == [range(n, n + 1) for n in range(2, 6)]
            assert faulty.commits == [1, 1, 3]

    run(main())


def test_a_refusal_over_an_uncommitted_event_is_decided_again_if_that_fails(opening: Opening) -> None:
    """A withdrawal that was refused because of another, uncommitted one succeeds if that other one fails."""

    async def main() -> None:
        store, faulty = opening()
        async with store:
            await store.append(PaidIn("a", Decimal(100)))
            gate = faulty.hold()
            faulty.fail_before(StoreFull("The disk is full.", "Free some space."))
            (holding,) = await _started(store.decide(deposit, Account("b"), 1))
            assert await asyncio.to_thread(gate.arrived)
            everything, some = await _started(
                store.decide(withdraw, Account("a"), 100), store.decide(withdraw, Account("a"), 30)
            )
            assert not some.done()  # it has been refused, and waits to see whether the other decision commits
            gate.open()
            await holding
            with pytest.raises(StoreFull):
                await everything
            assert (await some).state(Account("a")).balance == 70

    run(main())


def test_a_refusal_over_a_committed_event_stays_a_refusal(opening: Opening) -> None:
    """The decision's own error reaches the caller once the events it depends on are committed."""

    async def main() -> None:
        store, faulty = opening()
        async with store:
            await store.append(PaidIn("a", Decimal(100)))
            gate = faulty.hold()
            (everything,) = await _started(store.decide(withdraw, Account("a"), 100))
            assert await asyncio.to_thread(gate.arrived)
            (some,) = await _started(store.decide(withdraw, Account("a"), 30))
            assert not some.done()
            gate.open()
            await everything
            with pytest.raises(Poor):
                await some

    run(main())


def test_a_failed_commit_fails_all_that_was_built_on_it_and_all_are_made_again(opening: Opening) -> None:
    """A rival's event in between refuses the whole chain; each decision is then made over the log, and none is lost."""

    async def main() -> None:
        store, faulty = opening()
        rival, _ = opening()
        async with store, rival:
            await store.append(PaidIn("a", Decimal(100)))
            await store.state(Account("a"))
            gate = faulty.hold()
            tasks = await _started(*[store.decide(withdraw, Account("a"), n) for n in (1, 2, 3, 4)])
            assert await asyncio.to_thread(gate.arrived)
            await rival.append(PaidIn("a", Decimal(1000)))
            gate.open()
            done = await asyncio.gather(*tasks)
            assert sorted(d.positions[0] for d in done) == [3, 4, 5, 6]
            assert (await store.state(Account("a"))).balance == 1090

    run(main())


def test_a_lost_answer_in_the_middle_of_a_chain_writes_nothing_twice(opening: Opening) -> None:
    """An append whose answer was lost is repeated unchanged; later decisions hold, or are made again."""

    async def main() -> None:
        store, faulty = opening()
        async with store:
            await store.append(PaidIn("a", Decimal(1000)))
            for turn in range(6):
                if turn % 2:
                    faulty.lose_reply()
                else:
                    faulty.drop_request()
                await asyncio.gather(*[store.decide(withdraw, Account("a"), 1) for _ in range(12)])
            assert (await store.state(Account("a"))).balance == 1000 - 6 * 12
            assert await store.head() == 1 + 6 * 12

    run(main())


def test_a_cancelled_decision_does_not_cancel_those_built_on_it(opening: Opening) -> None:
    """A decision cancelled before its turn is not written; those that were built on it are made again."""

    async def main() -> None:
        store, faulty = opening()
        async with store:
            await store.append(PaidIn("a", Decimal(100)))
            gate = faulty.hold()
            (holding,) = await _started(store.decide(deposit, Account("a"), 1))
            assert await asyncio.to_thread(gate.arrived)
            cancelled, after = await _started(
                store.decide(withdraw, Account("a"), 90),
                store.decide(deposit, Account("a"), 2),
            )
            cancelled.cancel()
            await asyncio.sleep(0.01)
            gate.open()
            await holding
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            assert (await after).state(Account("a")).balance == 103

    run(main())


@pytest.mark.parametrize("seed", range(3))
def test_a_crowd_over_few_accounts_keeps_every_rule(opening: Opening, seed: int) -> None:
    """Transfers, deposits and withdrawals over five accounts come from two stores, with rivals and lost answers in
    between: no balance is ever negative, and the total is the sum of deposits and withdrawals.
    """
    chance = Random(seed)

    async def main() -> None:
        store, faulty = opening()
        other, _ = opening()
        total = Decimal(5 * 50)

        async def one(n: int) -> Decimal:
            at = store if n % 3 else other
            a, b = chance.sample("abcde", 2)
            amount = chance.randint(1, 40)
            try:
                match n % 4:
                    case 0:
                        await at.using(attempts=200).decide(deposit, Account(a), amount)
                        return Decimal(amount)
                    case 1:
                        await at.using(attempts=200).decide(withdraw, Account(a), amount)
                        return Decimal(-amount)
                    case _:
                        await at.using(attempts=200).decide(transfer, Account(a), Account(b), amount)
                        return Decimal(0)
            except Poor:
                return Decimal(0)

        async with store, other:
            await store.append(*[PaidIn(name, Decimal(50)) for name in "abcde"])
            for turn in range(4):
                if turn == 1:
                    faulty.lose_reply()
                if turn == 2:
                    faulty.drop_request()
                total += sum(await asyncio.gather(*[one(n) for n in range(60)]))
            balances = dict.fromkeys("abcde", Decimal(0))
            async for recorded in store.read():
                event = recorded.event
                balances[event.account] += event.amount if isinstance(event, PaidIn) else -event.amount
                assert balances[event.account] >= 0
            assert sum(balances.values()) == total

    run(main())


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
def test_threads_chain_as_tasks_do(engine: str, tmp_path: Path) -> None:
    """Sixteen threads over one account: each decision is made at the first attempt, and commits are shared."""
    url = ENGINES[engine](tmp_path)["url"]
    faulty = Faulty(open_engine(url, "sync", True, {}))
    with ef.Store(faulty) as store:
        store.append(PaidIn("a", Decimal(0)))
        faulty.delay(0.003, times=1_000)
        attempts: list[int] = []

        def work() -> None:
            attempts.extend(store.decide(deposit, Account("a"), 1).attempts for _ in range(20))

        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert attempts == [1] * 320
        assert store.state(Account("a")).entries == 321
        assert len(faulty.commits) < 200


def test_a_cached_state_saves_a_read_and_is_never_the_reason_of_a_refusal(tmp_path: Path) -> None:
    """A cached decision reads nothing; one that refuses over an outdated state reads the log before it raises."""
    reads: list[int] = []

    class Counting(Faulty):
        async def read(self, query: Any, span: Any) -> Any:
            reads.append(1)
            return await self.inner.read(query, span)

    url = str(tmp_path / "log.db")
    with ef.Store(Counting(open_engine(url, "sync", True, {}))) as store, ef.Store(url) as rival:
        store.append(PaidIn("a", Decimal(10)))
        store.decide(withdraw, Account("a"), 1)
        reads.clear()
        assert store.decide(withdraw, Account("a"), 1).state(Account("a")).balance == 8
        assert not reads
        rival.append(PaidIn("a", Decimal(100)))
        assert (
            store.decide(withdraw, Account("a"), 50).state(Account("a")).balance == 58
        )  # the cached 8 would not suffice
        rival.append(PaidIn("a", Decimal(100)))
        done = store.using(attempts=1).decide(withdraw, Account("a"), 1)  # over 58, so it conflicts
        assert done.state(Account("a")).balance == 157
        assert done.attempts == 1


def test_a_decision_that_decides_inside_itself_does_not_hang(tmp_path: Path) -> None:
    """Deciding within a decision is discouraged, but does not deadlock."""
    with ef.Store(str(tmp_path / "log.db")) as store:
        store.append(PaidIn("a", Decimal(10)))

        def nested(account: Account) -> PaidIn:
            if account.entries < 3:
                store.decide(deposit, Account("a"), 1)
            return PaidIn("a", Decimal(5))

        began = time.monotonic()
        store.decide(nested, Account("a"))
        assert time.monotonic() - began < 30
        assert store.state(Account("a")).balance == 17
