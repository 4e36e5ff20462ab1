"""The session again from the log, under this rule of allocation or another: what would have been.

Knows: decisions as plain functions, events. Does not know: SQL, reports. Nothing is written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec

import eventfold as ef
from eventfold.demo.exchange.app import Account, Book
from eventfold.demo.exchange.events import OrderCancelled, OrderSubmitted, OrderTraded
from eventfold.demo.exchange.load import carry_out
from eventfold.demo.exchange.matcher import Instruction
from eventfold.demo.exchange.matching import Rule, price_time

UNLIMITED = 1 << 40  # contracts: the log has only orders that were within the limits


class WhatIf(msgspec.Struct, frozen=True):
    """Contracts traded of each resting order under two rules, where they differ: (as it was, as it would have been)."""

    trades: tuple[int, int]
    contracts: tuple[int, int]
    different: dict[str, tuple[int, int]]


def sent_before(store: ef.Store, instrument: str) -> Iterator[Instruction]:
    """Yield what members sent for an instrument, read back from the log."""
    query = ef.Query.of(types=[OrderSubmitted, OrderCancelled], tags=[f"instrument:{instrument}"])
    for recorded in store.read(query):
        event: OrderSubmitted | OrderCancelled = recorded.event
        match event:
            case OrderSubmitted():
                yield Instruction(
                    "submit",
                    instrument,
                    event.order,
                    event.account,
                    event.side,
                    event.price,
                    event.size,
                    event.at,
                    event.immediate,
                )
            case OrderCancelled(reason="by the account"):
                yield Instruction("cancel", instrument, event.order, event.account, "buy", 0, event.size, event.at)
            case _:
                pass


def trades_again(store: ef.Store, instrument: str, rule: Rule = price_time) -> list[OrderTraded]:
    """Return the trades that the orders in the log make under a rule, in order."""
    book = {instrument: Book(instrument)}
    accounts: dict[str, Account] = defaultdict()
    made: list[OrderTraded] = []
    for each in sent_before(store, instrument):
        accounts.setdefault(each.account, Account(each.account, limit=UNLIMITED))
        drafts: list[ef.Draft[Any]] = carry_out(book, accounts, [each], rule)
        made += [draft.event for draft in drafts if isinstance(draft.event, OrderTraded)]
    return made


def trades_in(store: ef.Store, instrument: str) -> list[OrderTraded]:
    """Return the trades in the log, in order."""
    query = ef.Query.of(types=[OrderTraded], tags=[f"instrument:{instrument}"])
    return [recorded.event for recorded in store.read(query)]


def what_if(store: ef.Store, instrument: str, rule: Rule) -> WhatIf:
    """Compare what each resting order traded with what it would have traded under another rule."""
    was, would = trades_in(store, instrument), trades_again(store, instrument, rule)
    sums = [defaultdict[str, int](int), defaultdict[str, int](int)]
    for total, trades in zip(sums, (was, would), strict=True):
        for trade in trades:
            total[trade.maker] += trade.size
    orders = dict.fromkeys([*sums[0], *sums[1]])
    return WhatIf(
        trades=(len(was), len(would)),
        contracts=(sum(sums[0].values()), sum(sums[1].values())),
        different={order: (sums[0][order], sums[1][order]) for order in orders if sums[0][order] != sums[1][order]},
    )
