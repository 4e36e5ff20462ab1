"""A ledger in double entry: accounts, entries, periods. An entry balances, and goes into an open period only.

A credit note credits no more pieces than its customer has bought of that code. That is decided over the entry's
accounts, its period and its customer at once; an aggregate per account could not hold it.
"""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from typing import Annotated

import msgspec

import eventfold as ef

ZERO = Decimal(0)
CARRIED = ("receivables", "suspense")  # the accounts whose balances are carried into the next period


class Posting(msgspec.Struct, frozen=True, array_like=True):
    """One side of an entry, in pounds: debit positive, credit negative. `quantity`: pieces of `code` that were sold."""

    account: str
    amount: Decimal
    code: str = ""
    quantity: int = 0


class AccountOpened(ef.Event, type="ledger.AccountOpened"):
    account: ef.Tag


class EntryPosted(ef.Event, type="ledger.EntryPosted"):
    entry: ef.Tag
    period: ef.Tag  # 2010-06
    customer: ef.Tag | None
    accounts: Annotated[tuple[str, ...], ef.tag("account")]
    postings: tuple[Posting, ...]


class EntryReversed(ef.Event, type="ledger.EntryReversed"):
    entry: ef.Tag  # that is reversed
    period: ef.Tag
    customer: ef.Tag | None
    accounts: Annotated[tuple[str, ...], ef.tag("account")]
    postings: tuple[Posting, ...]
    why: str


class PeriodClosed(ef.Event, type="ledger.PeriodClosed"):
    period: ef.Tag


class BalanceCarried(ef.Event, type="ledger.BalanceCarried"):
    period: ef.Tag  # into which
    account: ef.Tag
    amount: Decimal


class PeriodReopened(ef.Event, type="ledger.PeriodReopened"):
    period: ef.Tag
    why: str


Booked = EntryPosted | EntryReversed


class Refused(Exception):
    """The ledger does not take this."""


class Chart(ef.State):
    accounts: Annotated[tuple[str, ...], ef.tag("account")]
    opened: set[str] = set()

    def evolve(self, event: AccountOpened) -> None:
        self.opened.add(event.account)


class Period(ef.State):
    period: ef.Tag
    is_closed: bool = False

    def evolve(self, event: PeriodClosed | PeriodReopened) -> None:
        self.is_closed = isinstance(event, PeriodClosed)


class Entry(ef.State):
    entry: ef.Tag
    posted: Booked | None = None
    is_reversed: bool = False

    def evolve(self, event: Booked) -> None:
        self.posted = self.posted or event
        self.is_reversed = isinstance(event, EntryReversed)


class Bought(ef.State):
    """The pieces of each code that a customer has bought and not returned. Postings in suspense do not count."""

    customer: ef.Tag
    pieces: dict[str, int] = {}

    def evolve(self, event: Booked) -> None:
        for each in event.postings:
            if each.code and each.account != "suspense":
                self.pieces[each.code] = self.pieces.get(each.code, 0) + each.quantity

    def excess(self, postings: tuple[Posting, ...]) -> set[str]:
        """The codes of which these postings return more than there is."""
        returned: defaultdict[str, int] = defaultdict(int)
        for each in postings:
            if each.code and each.account != "suspense":
                returned[each.code] += each.quantity
        return {code for code, pieces in returned.items() if pieces < 0 and self.pieces.get(code, 0) + pieces < 0}


class Books(ef.State):
    period: ef.Tag
    balances: dict[str, Decimal] = {}
    carried: dict[str, Decimal] = {}

    def evolve(self, event: Booked | BalanceCarried) -> None:
        if isinstance(event, BalanceCarried):
            self.carried[event.account] = self.carried.get(event.account, ZERO) + event.amount
            return
        for each in event.postings:
            self.balances[each.account] = self.balances.get(each.account, ZERO) + each.amount


def refuse_if(wrong: object, why: str) -> None:
    if wrong:
        raise Refused(why)


def post(chart: Chart, period: Period, entry: Entry, bought: Bought | None, draft: EntryPosted) -> EntryPosted:
    """Post an entry. `bought` is None for an entry without a customer."""
    unknown = {each.account for each in draft.postings} - chart.opened
    refuse_if(entry.posted, f"entry {draft.entry} is posted already")
    refuse_if(sum(each.amount for each in draft.postings), f"entry {draft.entry} does not balance")
    refuse_if(unknown, f"there is no account {', '.join(sorted(unknown))}")
    refuse_if(period.is_closed, f"period {draft.period} is closed")
    excess = bought.excess(draft.postings) if bought else set[str]()
    refuse_if(excess, f"entry {draft.entry} returns more than was bought of {', '.join(sorted(excess))}")
    return draft


def reverse(entry: Entry, period: Period, why: str) -> EntryReversed:
    """Reverse an entry, in an open period, once. The entry itself stays as it is."""
    was = entry.posted
    if was is None or entry.is_reversed:
        raise Refused(f"entry {entry.entry} is not posted, or was reversed")
    refuse_if(period.is_closed, f"period {period.period} is closed")
    back = tuple(Posting(each.account, -each.amount, each.code, -each.quantity) for each in was.postings)
    return EntryReversed(entry.entry, period.period, was.customer, was.accounts, back, why)


def close(period: Period, books: Books, following: Books) -> list[ef.Event]:
    """Close a period, and carry its balances forward: of a period that was reopened, only what has changed."""
    refuse_if(period.is_closed, f"period {period.period} is closed already")
    events: list[ef.Event] = [PeriodClosed(period.period)]
    for account in CARRIED:
        balance = books.balances.get(account, ZERO) + books.carried.get(account, ZERO)
        if change := balance - following.carried.get(account, ZERO):
            events.append(BalanceCarried(following.period, account, change))
    return events


def reopen(period: Period, why: str) -> PeriodReopened:
    refuse_if(not period.is_closed, f"period {period.period} is open")
    return PeriodReopened(period.period, why)


class TrialBalance(ef.Projection, name="ledger_trial_balance"):
    period: str
    account: str
    debit: Decimal = ZERO
    credit: Decimal = ZERO

    @staticmethod
    def key(event: Booked) -> list[tuple[str, str]]:
        return [(event.period, account) for account in event.accounts]

    def evolve(self, event: Booked) -> None:
        amounts = [each.amount for each in event.postings if each.account == self.account]
        self.debit += sum((amount for amount in amounts if amount > 0), ZERO)
        self.credit -= sum((amount for amount in amounts if amount < 0), ZERO)


class Debtor(ef.Projection, name="ledger_debtor"):
    customer: str
    owes: Decimal = ZERO

    @staticmethod
    def key(event: Booked) -> str | None:
        return event.customer

    def evolve(self, event: Booked) -> None:
        self.owes += sum((each.amount for each in event.postings if each.account == "receivables"), ZERO)
