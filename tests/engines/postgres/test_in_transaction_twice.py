"""Several decisions in one transaction of the user's: each sees what the decisions before it have staged."""

from __future__ import annotations

import asyncio
import io
import unittest
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from django.db import transaction
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import eventfold as ef
from eventfold.engines.postgres import refusal
from tests.docs.pages import blocks, pages


class Withdrawn(ef.Event, type="joining-twice-withdrawn"):
    """Money left an account."""

    account: ef.Tag
    amount: int


class Deposited(ef.Event, type="joining-twice-deposited"):
    """Money came into an account."""

    account: ef.Tag
    amount: int


class Account(ef.State):
    """The balance of an account, and its movements."""

    account: ef.Tag
    balance: int = 0
    steps: int = 0

    def evolve(self, event: Deposited | Withdrawn) -> None:
        """Apply one movement."""
        self.balance += event.amount if isinstance(event, Deposited) else -event.amount
        self.steps += 1


class TooLittle(Exception):
    """The error of the rule."""


def deposit(account: Account, amount: int) -> Deposited:
    """Decide to deposit; always allowed."""
    return Deposited(account.account, amount)


def withdraw(account: Account, amount: int) -> Withdrawn:
    """Decide to withdraw at most the balance."""
    if account.balance < amount:
        raise TooLittle
    return Withdrawn(account.account, amount)


def move(source: Account, to: Account, amount: int) -> list[ef.Event]:
    """Decide to move an amount between two accounts."""
    return [withdraw(source, amount), deposit(to, amount)]


@pytest.fixture
def store(url: str, schema: str) -> Iterator[ef.Store]:
    """A store in a schema of its own."""
    with ef.Store(url, schema=schema) as store:
        yield store


def test_the_second_decision_sees_what_the_first_has_staged(store: ef.Store, url: str) -> None:
    """Ten decisions over one state in one transaction commit, and the rule held for each."""
    store.append(Deposited("a", 100))
    with psycopg.connect(url) as connection:
        joined = store.in_transaction(connection)
        for turn in range(1, 11):
            done = joined.decide(withdraw, Account("a"), 10)
            assert done.state(Account("a")).balance == 100 - 10 * turn
        with pytest.raises(TooLittle):
            joined.decide(withdraw, Account("a"), 1)
        assert store.state(Account("a")).balance == 100
    assert store.state(Account("a")) == Account("a", balance=0, steps=11)
    with psycopg.connect(url) as connection, pytest.raises(TooLittle):
        store.in_transaction(connection).decide(withdraw, Account("a"), 1)


def test_decisions_over_several_states_see_each_other(store: ef.Store, url: str) -> None:
    """An amount moves from a to b, and then to c, where nothing was before."""
    with psycopg.connect(url) as connection:
        joined = store.in_transaction(connection)
        joined.append(Deposited("a", 5), Deposited("b", 0))
        joined.decide(move, Account("a"), Account("b"), 5)
        joined.decide(move, Account("b"), Account("c"), 5)
        with pytest.raises(TooLittle):
            joined.decide(move, Account("a"), Account("b"), 1)
    assert [store.state(Account(name)).balance for name in "abc"] == [0, 0, 5]


def test_events_rolled_back_to_a_savepoint_are_forgotten(store: ef.Store, url: str) -> None:
    """The next decision does not see what was rolled back, and builds on the rest."""
    with psycopg.connect(url) as connection, connection.transaction():
        joined = store.in_transaction(connection)
        joined.decide(deposit, Account("a"), 10)
        with pytest.raises(ZeroDivisionError), connection.transaction():
            joined.decide(deposit, Account("a"), 90)
            raise ZeroDivisionError
        with pytest.raises(TooLittle):
            joined.decide(withdraw, Account("a"), 50)
        assert joined.decide(withdraw, Account("a"), 10).state(Account("a")).balance == 0
    assert store.state(Account("a")) == Account("a", balance=0, steps=2)


@pytest.mark.parametrize("account", ["a", "b"])
def test_events_of_others_in_between_still_conflict(store: ef.Store, url: str, account: str) -> None:
    """Others write after the first read of a state, which is decided over first, or later."""
    connection = psycopg.connect(url)
    joined = store.in_transaction(connection)
    joined.decide(deposit, Account("a"), 10)
    joined.decide(move, Account("a"), Account("b"), 10)
    store.append(Deposited(account, 7))
    with pytest.raises(psycopg.Error) as failed:
        connection.commit()
    connection.close()
    conflict = refusal(failed.value)
    assert isinstance(conflict, ef.AppendConflict)
    assert (conflict.fields["found"], conflict.fields["after"]) == (1, 0)
    assert store.state(Account("a")).balance + store.state(Account("b")).balance == 7


def test_a_later_decision_over_another_state_conflicts_with_others(store: ef.Store, url: str) -> None:
    """Staged events of another state hide nothing that others have written between the read and COMMIT."""
    connection = psycopg.connect(url)
    joined = store.in_transaction(connection)
    joined.append(Deposited("a", 1))
    joined.append(Deposited("b", 1))
    joined.decide(withdraw, Account("b"), 1)
    store.append(Deposited("b", 7))
    with pytest.raises(psycopg.Error) as failed:
        connection.commit()
    connection.close()
    assert isinstance(refusal(failed.value), ef.AppendConflict)
    assert store.head() == 1


def test_an_append_under_a_condition_conflicts_with_its_own_transaction(store: ef.Store, url: str) -> None:
    """A plain condition does not exclude what is staged: the same name twice is refused."""
    connection = psycopg.connect(url)
    joined = store.in_transaction(connection)
    joined.append(Deposited("a", 1), unless=Account("a"))
    joined.append(Deposited("a", 1), unless=Account("a"))
    with pytest.raises(psycopg.Error) as failed:
        connection.commit()
    connection.close()
    assert isinstance(refusal(failed.value), ef.AppendConflict)


def test_a_repeated_command_is_staged_once(store: ef.Store, url: str) -> None:
    """The second call finds the first one's events in its transaction, although its rule would refuse by now."""
    store.append(Deposited("a", 10))
    with psycopg.connect(url) as connection:
        joined = store.using(command_id="c-1").in_transaction(connection)
        first = joined.decide(withdraw, Account("a"), 10)
        again = joined.decide(withdraw, Account("a"), 10)
        assert again.staged.ids == first.staged.ids
        assert again.state(Account("a")).balance == 0
    receipt = store.confirm(again.staged)
    assert receipt is not None
    assert (receipt.first, store.head()) == (2, 2)


def test_events_written_before_the_commit_are_seen_as_well(store: ef.Store, url: str) -> None:
    """SET CONSTRAINTS ALL IMMEDIATE writes before the COMMIT, as the end of a Django TestCase does."""
    with psycopg.connect(url) as connection:
        joined = store.in_transaction(connection)
        joined.decide(deposit, Account("a"), 10)
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        connection.execute("SET CONSTRAINTS ALL DEFERRED")
        joined.decide(withdraw, Account("a"), 4)
        assert joined.decide(withdraw, Account("a"), 6).state(Account("a")).balance == 0
    assert store.state(Account("a")) == Account("a", balance=0, steps=3)


def test_the_next_transaction_of_a_connection_starts_empty(store: ef.Store, url: str) -> None:
    """Nothing of the transaction before, committed or not, counts as staged in it."""
    with psycopg.connect(url) as connection:
        joined = store.in_transaction(connection)
        for _ in range(3):
            joined.decide(deposit, Account("a"), 10)
            joined.decide(withdraw, Account("a"), 5)
            connection.commit()
            joined.decide(deposit, Account("a"), 1000)
            connection.rollback()
        assert joined.decide(deposit, Account("a"), 0).state(Account("a")).balance == 15


def test_sessions_and_tasks_see_what_is_staged(store: ef.Store, url: str, schema: str) -> None:
    """This holds for SQLAlchemy's Session and AsyncSession, and psycopg's AsyncConnection."""
    address = url.replace("postgresql://", "postgresql+psycopg://")
    plain = sa.create_engine(address)
    with Session(plain) as session, session.begin():
        store.in_transaction(session).decide(deposit, Account("a"), 10)
        store.in_transaction(session).decide(withdraw, Account("a"), 10)
    plain.dispose()

    async def main() -> None:
        engine = create_async_engine(address)
        async with ef.AsyncStore(url, schema=schema) as twin:
            async with AsyncSession(engine) as session, session.begin():
                await twin.in_transaction(session).decide(deposit, Account("a"), 10)
                await twin.in_transaction(session).decide(withdraw, Account("a"), 10)
            async with await psycopg.AsyncConnection.connect(url) as connection:
                await twin.in_transaction(connection).decide(deposit, Account("a"), 10)
                done = await twin.in_transaction(connection).decide(withdraw, Account("a"), 10)
                assert done.state(Account("a")).steps == 6
        await engine.dispose()

    asyncio.run(main())
    assert store.state(Account("a")) == Account("a", balance=0, steps=6)


def test_requests_of_django_see_what_is_staged(connections: Any, store: ef.Store) -> None:
    """Two decisions within `atomic` commit together; an inner block that is rolled back loses only its own events."""
    from django.db import connection as default

    assert connections
    joined = store.in_transaction(default)
    with transaction.atomic():
        joined.decide(deposit, Account("a"), 10)
        with pytest.raises(TooLittle), transaction.atomic():
            joined.decide(withdraw, Account("a"), 5)
            joined.decide(withdraw, Account("a"), 6)
        joined.decide(withdraw, Account("a"), 10)
    default.close()
    assert store.state(Account("a")) == Account("a", balance=0, steps=2)


def test_a_test_case_of_django_sees_what_it_has_staged(connections: Any, store: ef.Store) -> None:
    """TestCase rolls a test's transaction back: decisions see each other in it, readers see nothing of them."""
    from django.db import connection as default
    from django.test import TestCase

    class Moving(TestCase):
        """One test, as a project writes it."""

        def test_moving(self) -> None:
            """Run within the transaction of the test."""
            with transaction.atomic():
                store.in_transaction(default).decide(deposit, Account("a"), 10)
            done = store.in_transaction(default).decide(withdraw, Account("a"), 4)
            self.assertEqual(done.state(Account("a")).balance, 6)
            self.assertEqual(store.state(Account("a")).balance, 0)

    assert connections
    result = unittest.TextTestRunner(stream=io.StringIO()).run(Moving("test_moving"))
    assert result.wasSuccessful(), result.errors or result.failures
    assert store.head() == 0
    default.close()


def test_the_documented_request_pays_all_or_nothing(connections: Any, store: ef.Store) -> None:
    """The code of docs/how-to/web-applications.md runs within Django's `atomic`."""
    from django.db import connection as default

    assert connections
    page = next(page for page in pages() if page.name == "web-applications.md")
    (block,) = [
        block
        for block in blocks(page)
        if "def pay_all(log: ef.Store, connection: Any, account: str, bills: list[int]) -> int:" in block.lines
    ]
    documented: dict[str, Any] = {"ef": ef, "Any": Any}
    exec(compile("\n".join(block.lines), str(page), "exec", dont_inherit=True), documented)
    store.append(documented["Deposited"]("a", 100))
    with transaction.atomic():
        assert documented["pay_all"](store, default, "a", [30, 20]) == 50
    with pytest.raises(ValueError, match="not enough"), transaction.atomic():
        documented["pay_all"](store, default, "a", [30, 30])
    assert store.state(documented["Account"]("a")).cents == 50
    default.close()
