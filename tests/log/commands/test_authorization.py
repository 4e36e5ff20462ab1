"""An authorization function sees a decision before anything is read, in both modes."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

import eventfold as ef
from eventfold.log.context import Command
from tests.testing.bank import Account, Deposited, transfer


class Forbidden(Exception):
    """The user's own error."""


def tellers_only(command: Command) -> None:
    """Allow only tellers to move money, and at most 100."""
    if not str(command.metadata.get("actor", "")).startswith("teller-"):
        raise Forbidden(command.function.__name__)
    if command.named["amount"] > 100:
        raise Forbidden("too much")


def test_the_command_has_the_actor_the_states_and_the_arguments() -> None:
    """It has the context's actor, the options' actor, the states and the arguments."""
    seen: list[Command] = []
    store = ef.Store("memory:")
    store.append(Deposited("a", Decimal(80)))
    with store.context(actor="teller-7", correlation_id="r-1"):
        store.with_authorization(seen.append).using(actor="teller-8").decide(
            transfer, Account("a"), Account("b"), amount=Decimal(5)
        )
    (command,) = seen
    assert command.function is transfer
    assert command.arguments == (Account("a"), Account("b"))
    assert command.named == {"amount": Decimal(5)}
    assert command.metadata == {"actor": "teller-8", "correlation_id": "r-1"}


def test_a_refusal_passes_through_and_nothing_is_written() -> None:
    """The user's own error is raised unchanged; a change of an aggregate is a command too."""
    store = ef.Store("memory:")
    store.append(Deposited("a", Decimal(800)))
    guarded = store.with_authorization(tellers_only)
    for actor, amount in (("eve", 5), ("teller-7", 500)):
        with pytest.raises(Forbidden):
            guarded.using(actor=actor).decide(transfer, Account("a"), Account("b"), amount=Decimal(amount))
    with pytest.raises(Forbidden):
        guarded.change(Account.withdraw, Account("a"), amount=Decimal(5))
    assert store.head() == 1
    guarded.using(actor="teller-7").decide(transfer, Account("a"), Account("b"), amount=Decimal(5))
    assert store.head() == 3


def test_async_decisions_are_authorised_too() -> None:
    """AsyncStore authorises as Store does."""

    async def main() -> None:
        async with ef.AsyncStore("memory:") as store:
            await store.append(Deposited("a", Decimal(80)))
            with pytest.raises(Forbidden):
                await store.with_authorization(tellers_only).decide(
                    transfer, Account("a"), Account("b"), amount=Decimal(5)
                )

    asyncio.run(main())
