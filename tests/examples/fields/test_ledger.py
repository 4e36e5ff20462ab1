"""The ledger: a slice of the shop's invoices, the rules under contention, the month that was closed and corrected."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.demo import fields
from eventfold.demo.shop.source import Invoice, Line, in_utc
from examples.fields.ledger.app import (
    AccountOpened,
    Books,
    Bought,
    Chart,
    Entry,
    EntryPosted,
    Period,
    PeriodClosed,
    Posting,
    Refused,
    close,
    post,
    reopen,
    reverse,
)
from examples.fields.ledger.check import breaches, check, journal
from examples.fields.ledger.load import ACCOUNTS, Late, Ledger, entry_of, load
from tests.support.data import need

LIMIT = 48_500  # lines: December 2009, which is closed, and the first days of January
LATE = Late(since=date(2009, 12, 22), booked=date(2010, 1, 6))
JUNE = "2010-06"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a store with a slice of the source, for tests that only read it or copy it."""
    need("online-retail")
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    with ef.Store(str(path)) as store:
        assert load(store, LIMIT, LATE).is_complete
    return path


@pytest.fixture
def copied(loaded: Path, tmp_path: Path) -> Path:
    """A copy of that store, to be changed."""
    return Path(shutil.copy(loaded, tmp_path / "copy.db"))


def test_the_figures_are_those_of_the_source_and_a_second_load_writes_nothing(copied: Path) -> None:
    """SQL finds balances, debtors, carried balances, suspense and the corrected month in the lines themselves."""
    with ef.Store(str(copied)) as store:
        checked = check(store, LIMIT, LATE)
        assert checked.comparison.mismatches == []
        assert checked.comparison.compared > 900
        head = store.head()
        again = load(store, LIMIT, LATE)
        assert (again.loaded, again.events) == (0, 0)
        assert again.is_complete
        assert store.head() == head
        assert checked.figures["suspense_lines"] > 500
        assert checked.plot is not None


def test_the_books_of_a_closed_month_differ_from_those_known_now(loaded: Path) -> None:
    """As of the close they lack the credit notes that came later; both balance, and the difference was carried."""
    with ef.Store(str(loaded)) as store:
        first, second = store.read(ef.Query.of(types=[PeriodClosed], tags=["period:2009-12"]))
        then = store.state(Books("2009-12"), at=first.position)
        now = store.state(Books("2009-12"), occurred_until=in_utc(datetime(2010, 1, 1)))
        late = list(store.read(ef.Query.of(types=[EntryPosted], tags=["period:2009-12"]), after=first.position))
        assert late
        assert all(each.event.entry.startswith("C") for each in late)
        assert {each.position for each in late} == set(range(late[0].position, second.position))
        assert sum(then.balances.values()) == sum(now.balances.values()) == 0
        missing = sum(
            posting.amount for each in late for posting in each.event.postings if posting.account == "receivables"
        )
        assert now.balances["receivables"] - then.balances["receivables"] == missing < 0
        assert store.state(Books("2010-01")).carried["receivables"] == now.balances["receivables"]


def test_a_forged_entry_is_named_by_the_check(copied: Path) -> None:
    """One that does not balance, and one in a closed month."""
    odd = (Posting("receivables", Decimal(5)), Posting("sales", Decimal(-4)))
    even = (Posting("receivables", Decimal(5)), Posting("sales", Decimal(-5)))
    with ef.Store(str(copied)) as store:
        assert list(breaches(store)) == []
        first = fields.forge(store, EntryPosted("x-1", "2010-01", None, ("receivables", "sales"), odd))
        second = fields.forge(store, EntryPosted("x-2", "2009-12", None, ("receivables", "sales"), even))
        assert list(breaches(store)) == [
            f"event {first:,}: entry x-1 does not balance",
            f"event {second:,}: period 2009-12 is closed",
        ]


def test_a_changed_byte_is_found(copied: Path) -> None:
    """The engine names the event whose payload was changed in the file."""
    fields.change_byte(copied, 100)
    assert 100 in [flaw.position for flaw in fields.damage_of(str(copied)).flaws]


def test_the_journal_of_a_period_is_exported_line_by_line(loaded: Path, tmp_path: Path) -> None:
    """Each posting is a line, with the position of its event and both times."""
    with ef.Store(str(loaded)) as store:
        count = journal(store, "2010-01", tmp_path / "j.csv")
        lines = (tmp_path / "j.csv").read_text("utf-8").splitlines()
        assert len(lines) == count + 1
        assert lines[0].startswith("position,entry,occurred,recorded")


def opened(url: str, *events: Any) -> None:
    """Create a ledger with its accounts open, and these events."""
    with ef.Store(url) as store:
        store.append(*[AccountOpened(account) for account in ACCOUNTS], *events)


def entry(number: str, pieces: int, period: str = JUNE) -> EntryPosted:
    """An invoice, or with negative pieces a credit note, of one customer and one code."""
    line = Line("85048", "", pieces, Decimal("6.95"))
    return entry_of(Invoice(number, in_utc(datetime.fromisoformat(f"{period}-15")), "c-1", "", (line,)))


def arguments(draft: EntryPosted) -> tuple[Any, ...]:
    """What `post` takes."""
    accounts = tuple(sorted({each.account for each in draft.postings}))
    return Chart(accounts), Period(draft.period), Entry(draft.entry), Bought("c-1"), draft


@pytest.mark.parametrize("conditional", [True, False])
def test_thirty_two_credit_notes_at_once_return_only_what_was_bought(served: str, conditional: bool) -> None:
    """Ten pieces were bought, so ten notes are posted. Without the condition more are, and the check finds it."""
    opened(served, entry("i-1", 10))
    notes = [arguments(entry(f"C{number}", -1)) for number in range(32)]
    done = fields.contend(served, post, notes, Refused, conditional=conditional)
    with ef.Store(served) as store:
        left = store.state(Bought("c-1")).pieces["85048"]
        assert (done.accepted == 10, left == 0, list(breaches(store)) == []) == (conditional,) * 3
        assert left == 10 - done.accepted


def test_no_entry_follows_the_close_of_its_period(served: str) -> None:
    """Of 32 tasks one closes the month while the others post into it: what is posted is posted before."""
    opened(served)

    def act(wanted: str, period: Period, books: Books, following: Books, states: tuple[Any, ...]) -> Any:
        return close(period, books, following) if wanted == "close" else post(*states)

    def asked(number: int) -> tuple[Any, ...]:
        wanted = "close" if number == 16 else "post"
        states = () if wanted == "close" else arguments(entry(f"i-{number}", 1))
        books = Books(JUNE) if wanted == "close" else None
        return wanted, Period(JUNE), books, Books("2010-07") if books else None, states

    done = fields.contend(served, act, [asked(number) for number in range(32)], Refused)
    with ef.Store(served) as store:
        (closed,) = store.read(ef.Query.of(types=[PeriodClosed]))
        later = store.count(ef.Query.of(types=[EntryPosted]), after=closed.position)
        posted = store.count(ef.Query.of(types=[EntryPosted]))
        assert later == 0
        assert done.accepted == posted + 1
        carried = store.state(Books("2010-07")).carried.get("receivables", Decimal(0))
        assert carried == posted * Decimal("6.95")


def test_an_entry_is_reversed_once_and_stays_in_the_log(served: str) -> None:
    """32 tasks reverse it at once; afterwards the customer owes nothing, and both facts can be read."""
    opened(served, entry("i-1", 10))
    wanted = [(Entry("i-1"), Period(JUNE), f"typed twice ({number})") for number in range(32)]
    done = fields.contend(served, reverse, wanted, Refused)
    assert (done.accepted, done.refused) == (1, 31)
    with ef.Store(served) as store:
        assert set(store.state(Books(JUNE)).balances.values()) == {Decimal(0)}
        assert store.count(ef.Query.of(tags=["entry:i-1"])) == 2


REFUSALS: list[tuple[str, Callable[[], Any]]] = [
    ("posted already", lambda: post(chart(), Period(JUNE), with_entry(), None, entry("i-1", 1))),
    ("no account tips", lambda: post(chart(), Period(JUNE), Entry("t"), None, with_account("tips"))),
    ("returns more", lambda: post(chart(), Period(JUNE), Entry("c"), Bought("c-1"), entry("C1", -1))),
    ("is open", lambda: reopen(Period(JUNE), "why")),
    ("not posted", lambda: reverse(Entry("none"), Period(JUNE), "why")),
]


def chart() -> Chart:
    """All accounts of the shop, open."""
    made = Chart(ACCOUNTS)
    for account in ACCOUNTS:
        made.evolve(AccountOpened(account))
    return made


def with_entry() -> Entry:
    """An entry that is posted."""
    made = Entry("i-1")
    made.evolve(entry("i-1", 1))
    return made


def with_account(account: str) -> EntryPosted:
    """An entry on an account that was never opened."""
    postings = (Posting("receivables", Decimal(1)), Posting(account, Decimal(-1)))
    return EntryPosted("t", JUNE, None, ("receivables", account), postings)


@pytest.mark.parametrize(("why", "attempt"), REFUSALS, ids=[why for why, _ in REFUSALS])
def test_what_the_ledger_refuses(why: str, attempt: Callable[[], Any]) -> None:
    """Each refusal says why."""
    with pytest.raises(Refused, match=why):
        attempt()


def invoices_of(lines: list[tuple[str, str, tuple[Line, ...]]]) -> Iterator[Invoice]:
    """Invoices by number, day and lines."""
    for number, day, given in lines:
        yield Invoice(number, in_utc(datetime.fromisoformat(day)), "c-1", "", given)


def test_an_invoice_of_both_sheets_is_written_once_in_whatever_order_its_lines_are() -> None:
    """As the 22,523 lines that the source has twice: the second copy is counted as repeated."""
    lines = (Line("85048", "a", 2, Decimal("6.95")), Line("21232", "b", 3, Decimal("1.25")))
    twice = [("536400", "2010-12-01T09:00", tuple(sorted(lines))), ("536401", "2010-12-02T09:00", lines[:1])]
    count = fields.LoadCount()
    with ef.Store("memory:") as store:
        fields.write(store, Ledger(LATE, count).drafts(invoices_of([*twice, *twice])), count)
        assert store.count(ef.Query.of(types=[EntryPosted])) == 2
    assert (count.loaded, count.repeated) == (3, 3)
