"""Sends the drawn instructions to the exchange, in groups, and counts what became of them.

Knows: decisions over several books and accounts, request keys. Does not know: how orders are drawn.

A group of instructions is one decision: they are carried out one after another over the books and accounts that they
name, and all their events are one append. Its request key is the name of its first and last order, so a group that is
sent again writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any

import eventfold as ef
from eventfold.demo.exchange.app import Account, Book, cancel, submit
from eventfold.demo.exchange.events import LimitSet, OrderRejected, OrderTraded, SessionOpened
from eventfold.demo.exchange.matcher import Instruction
from eventfold.demo.exchange.matching import Rule, price_time
from eventfold.demo.exchange.orders import LIMITS, instructions
from eventfold.demo.exchange.ticks import START, Tick, trades_until
from eventfold.demo.fields import LoadCount, id_from
from eventfold.errors import AppendConflict, EventIdReused, InvalidInput

GROUP = 50  # instructions in one decision
ORDERS = 20_000  # instructions, if there is no limit
SPAN = timedelta(minutes=10)  # of trades that are read or drawn at first


class Flow:
    """What is sent: the instructions, the trades that they repeat, and whether these are real.

    `limit`: how many instructions, rounded down to whole groups, at least one. `real`: see `trades_until`.
    """

    def __init__(self, limit: int | None = None, real: bool | None = None) -> None:
        wanted = max(1, (limit or ORDERS) // GROUP) * GROUP
        self.is_real, self.trades, self.sent = False, list[Tick](), list[Instruction]()
        for doubled in range(8):
            self.is_real, self.trades = trades_until(START + SPAN * 2**doubled, real)
            self.sent = list(islice(instructions(self.trades), wanted))
            if len(self.sent) == wanted:
                break
        del self.trades[sum(each.immediate for each in self.sent) :]

    @property
    def source(self) -> str:
        """Which trades are repeated, in words."""
        return "trades of the E-mini future, September 2013" if self.is_real else "drawn trades"


def load(store: ef.Store, limit: int | None = None, flow: Flow | None = None) -> LoadCount:
    """Send the instructions in groups, except groups that the log has; a row of the count is one instruction."""
    flow = flow or Flow(limit)
    count, sent = LoadCount(), flow.sent
    count.made = count.events = open_session(store, flow)
    for first in range(0, len(sent), GROUP):
        group = sent[first : first + GROUP]
        count.read += len(group)
        key = f"{group[0].kind} {group[0].order} to {group[-1].kind} {group[-1].order}"
        if store.receipt(key) is not None:
            count.repeated += len(group)
            continue
        decided = store.using(command_id=key).decide(carry_out, books_of(group), accounts_of(group), group)
        rejected = sum(isinstance(each.event, OrderRejected) for each in decided.events)
        count.events += len(decided.events)
        count.loaded += len(group) - rejected
        if rejected:
            count.reject("orders beyond the limit of their account", rejected)
    return count


def open_session(store: ef.Store, flow: Flow) -> int:
    """Append what is loaded and the accounts' limits, unless they are there; return how many events were written.

    Raises InvalidInput if the store has another session, or other events.
    """
    session = SessionOpened(flow.source, len(flow.sent))
    first = [session, *(LimitSet(account, contracts) for account, contracts in LIMITS.items())]
    drafts = [ef.Draft(each, id=id_from(START, number), occurred=START) for number, each in enumerate(first)]
    try:
        written = store.append(*drafts, unless=ef.Query())
    except (AppendConflict, EventIdReused):
        raise InvalidInput(
            "The store has other events than this session.",
            "Give a new store, or load the number of orders, and the trades, with which it was begun.",
        ) from None
    return 0 if written.repeated else len(drafts)


def books_of(group: Iterable[Instruction]) -> dict[str, Book]:
    """The books that instructions are about, as questions."""
    return {name: Book(name) for name in sorted({each.instrument for each in group})}


def accounts_of(group: Iterable[Instruction]) -> dict[str, Account]:
    """Accounts that instructions are about. Those on the other side of a trade are not asked: they were, before."""
    return {name: Account(name) for name in sorted({each.account for each in group})}


def carry_out(
    books: dict[str, Book], accounts: dict[str, Account], group: Sequence[Instruction], rule: Rule = price_time
) -> list[ef.Draft[Any]]:
    """Carry out instructions one after another, each over the states after the one before."""
    made: list[ef.Draft[Any]] = []
    for each in group:
        book, account = books[each.instrument], accounts[each.account]
        if each.kind == "cancel":
            drafts = cancel(book, account, each.order, each.at)
        else:
            drafts = submit(book, account, each.order, each.side, each.price, each.size, each.at, each.immediate, rule)
        for draft in drafts:
            apply(draft.event, books, accounts)
        made += drafts
    return made


def apply(event: Any, books: dict[str, Book], accounts: dict[str, Account]) -> None:
    """Fold an event into the states that it concerns, as the log will."""
    if not isinstance(event, OrderRejected):
        books[event.instrument].evolve(event)
        concerned = {event.maker_account, event.taker_account} if isinstance(event, OrderTraded) else {event.account}
        for name in concerned & accounts.keys():
            accounts[name].evolve(event)
