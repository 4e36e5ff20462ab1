"""The exchange: its rules under contention, its trades by a second matcher, the past, corrections, FIX."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

import eventfold as ef
from eventfold.demo.exchange import run
from eventfold.demo.exchange.app import Account, Book, Minute, Trade, bust, cancel, halt, resume, submit
from eventfold.demo.exchange.check import OFFERED, check, rush
from eventfold.demo.exchange.events import (
    LimitSet,
    OrderCancelled,
    OrderRejected,
    OrderSubmitted,
    OrderTraded,
    TradingHalted,
)
from eventfold.demo.exchange.load import Flow, load
from eventfold.demo.exchange.matching import Resting, pro_rata
from eventfold.demo.exchange.replay import trades_again, trades_in, what_if
from eventfold.demo.exchange.ticks import FAR, NEAR, START, trades_until
from eventfold.demo.fields import change_byte, contend, damage_of, forge
from eventfold.errors import InvalidInput
from eventfold.testing import given
from tests.support.data import need
from tests.support.servers.postgres import shared

SLICE = 2_000  # instructions
NOON = START


@pytest.fixture(scope="session")
def flow() -> Flow:
    """The first drawn instructions."""
    return Flow(SLICE, real=False)


@pytest.fixture
def loaded(tmp_path: Path, flow: Flow) -> Iterator[ef.Store]:
    """A store with them."""
    with ef.Store(str(tmp_path / "exchange.db")) as store:
        load(store, flow=flow)
        yield store


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new store."""
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    return shared().url(schema=f"s{uuid4().hex[:12]}")


def open_accounts(url: str, limit: int, *accounts: str) -> None:
    """Create a store with accounts."""
    with ef.Store(url) as store:
        store.append(*[LimitSet(account, limit) for account in accounts])


def test_a_second_load_writes_nothing(loaded: ef.Store, flow: Flow) -> None:
    """Each group of orders has a request key; every instruction is counted."""
    head = loaded.head()
    again = load(loaded, flow=flow)
    assert (again.read, again.loaded, again.repeated, again.events) == (SLICE, 0, SLICE, 0)
    assert again.is_complete
    assert loaded.head() == head


def test_an_interrupted_load_is_continued(tmp_path: Path, flow: Flow) -> None:
    """A load that ended in the middle leaves the same log, once it is continued, as one that did not."""
    with ef.Store(str(tmp_path / "one.db")) as store:
        load(store, flow=flow)
        expected = [each.event for each in store.read()]
    with ef.Store(str(tmp_path / "two.db")) as store:
        interrupted = Interrupted(flow, SLICE // 2)
        with pytest.raises(KeyboardInterrupt):
            load(store, flow=interrupted)
        assert 0 < store.head() < len(expected)
        assert load(store, flow=flow).is_complete
        assert [each.event for each in store.read()] == expected


class Interrupted(Flow):
    """A flow whose instructions end with an interrupt."""

    def __init__(self, whole: Flow, after: int) -> None:
        self.is_real, self.trades, self.sent = whole.is_real, whole.trades, StopsAfter(whole.sent, after)


class StopsAfter(list):  # type: ignore[type-arg]
    """Instructions; reading beyond a place is interrupted."""

    def __init__(self, whole: list, after: int) -> None:  # type: ignore[type-arg]
        super().__init__(whole)
        self.after = after

    def __getitem__(self, asked):  # type: ignore[no-untyped-def]
        if isinstance(asked, slice) and asked.start >= self.after:
            raise KeyboardInterrupt
        return super().__getitem__(asked)


def test_another_session_is_refused(loaded: ef.Store) -> None:
    """A store keeps one session: other trades or another number of orders are an error, and nothing is written."""
    head = loaded.head()
    with pytest.raises(InvalidInput, match="other events"):
        load(loaded, flow=Flow(SLICE // 2, real=False))
    assert loaded.head() == head


def test_every_trade_is_the_one_of_the_second_matcher(loaded: ef.Store, flow: Flow) -> None:
    """Trades, rejections, minutes by DuckDB and a replay from the log agree, and the report fits 80 columns."""
    checked = check(loaded, flow=flow)
    assert checked.comparison.mismatches == []
    assert checked.comparison.compared > 300
    assert checked.figures["OrderTraded"] == len(trades_in(loaded, NEAR)) + len(trades_in(loaded, FAR))
    assert max(len(line) for _, lines in checked.chapters for line in lines) <= 80


def test_the_real_trades_keep_their_prices_and_sizes(tmp_path: Path) -> None:
    """Volume and value of each minute are those that DuckDB finds in the file of the real trades."""
    need("emini")
    flow = Flow(SLICE, real=True)
    with ef.Store(str(tmp_path / "real.db")) as store:
        assert load(store, flow=flow).is_complete
        checked = check(store, flow=flow)
        assert checked.comparison.mismatches == []
        near = [tick for tick in flow.trades if tick.instrument == NEAR]
        assert sum(each.size for each in trades_in(store, NEAR)) == sum(tick.size for tick in near)


def test_drawn_trades_are_always_the_same() -> None:
    """The seed is fixed, so a figure of a document does not change."""
    until = START + timedelta(seconds=30)
    assert trades_until(until, real=False) == trades_until(until, real=False)
    assert not trades_until(until, real=False)[0]


def test_a_forged_trade_is_found(loaded: ef.Store, flow: Flow) -> None:
    """A trade that no decision made differs from the second matcher's trades, and from the source's minutes."""
    real = trades_in(loaded, NEAR)[0]
    forge(loaded, ef.Draft(OrderTraded(NEAR, "forged", "a", "b", "maker-1", "taker-1", "buy", real.price, 5, real.at)))
    named = [each.figure for each in check(loaded, flow=flow).comparison.mismatches]
    assert any(name.startswith("trade ") for name in named)
    assert any(name.startswith("volume and value") for name in named)


def test_a_changed_byte_is_found(tmp_path: Path, flow: Flow) -> None:
    """The engine's check of its log names the position of an event of which one byte was changed."""
    path = tmp_path / "exchange.db"
    with ef.Store(str(path)) as store:
        load(store, flow=flow)
    assert damage_of(str(path)).flaws == ()
    change_byte(path, 1)
    assert [flaw.position for flaw in damage_of(str(path)).flaws][:1] == [1]


def test_a_contract_is_sold_once(url: str) -> None:
    """Thirty-two members take ten contracts at the same moment: ten are sold. Without the condition more are."""
    sold = {}
    for conditional, instrument in ((True, "A"), (False, "B")):
        open_accounts(url, 100, "seller", *[f"member-{n}" for n in range(32)])
        with ef.Store(url) as store:
            store.decide(submit, Book(instrument), Account("seller"), f"offer-{instrument}", "sell", 5, OFFERED, NOON)
        orders = [
            (Book(instrument), Account(f"member-{n}"), f"bid-{instrument}-{n}", "buy", 5, 1, NOON, True)
            for n in range(32)
        ]
        contend(url, submit, orders, (), conditional=conditional)
        with ef.Store(url) as store:
            sold[conditional] = sum(each.size for each in trades_in(store, instrument))
    assert sold[True] == OFFERED
    assert sold[False] > OFFERED


def test_the_limit_holds_over_all_instruments(url: str) -> None:
    """One account orders 32 contracts at once in two instruments, limit 20: without the condition it is exceeded."""
    accepted = {}
    for conditional in (True, False):
        account = f"small-{conditional}"
        open_accounts(url, 20, account)
        orders = [
            (Book(f"{conditional}{n % 2}"), Account(account), f"{account}-{n}", "buy", 5, 1, NOON) for n in range(32)
        ]
        contend(url, submit, orders, (), conditional=conditional)
        with ef.Store(url) as store:
            accepted[conditional] = store.count(ef.Query.of(types=[OrderSubmitted], tags=[f"account:{account}"]))
            refused = store.count(ef.Query.of(types=[OrderRejected], tags=[f"account:{account}"]))
            assert accepted[conditional] + refused == 32
    assert accepted[True] == 20
    assert accepted[False] > 20


def test_the_demonstration_shows_what_the_condition_is_for() -> None:
    """The report's chapter on 32 members: ten of ten sold by decide, more without its condition."""
    assert rush().sold == OFFERED
    assert rush(conditional=False).sold > OFFERED


def traded_after(past: list[ef.Event], price: int, size: int) -> list[ef.Event]:
    """What happens when the account `t` buys, after events that are given."""
    with ef.Store("memory:") as store:
        store.append(LimitSet("m", 100), LimitSet("t", 100), *past)
        decided = store.decide(submit, Book("X"), Account("t"), "take", "buy", price, size, NOON)
        return [each.event for each in decided.events]


def test_price_comes_before_time_and_time_before_size() -> None:
    """The best price trades first, within it the older order, whatever its size."""
    asks = (("dear", 11, 50), ("old", 10, 1), ("young", 10, 50))
    past: list[ef.Event] = [OrderSubmitted("X", order, "m", "sell", price, size, NOON) for order, price, size in asks]
    trades = [each for each in traded_after(past, 11, 60) if isinstance(each, OrderTraded)]
    assert [(each.maker, each.price, each.size) for each in trades] == [
        ("old", 10, 1),
        ("young", 10, 50),
        ("dear", 11, 9),
    ]


def test_an_account_does_not_trade_with_itself() -> None:
    """Its older order on the other side gives way, and the next account's order trades."""
    past: list[ef.Event] = [
        OrderSubmitted("X", "own", "t", "sell", 10, 5, NOON),
        OrderSubmitted("X", "other", "m", "sell", 10, 5, NOON),
    ]
    submitted, cancelled, traded = traded_after(past, 10, 5)
    assert isinstance(submitted, OrderSubmitted)
    assert isinstance(cancelled, OrderCancelled) and (cancelled.order, cancelled.reason) == ("own", "self-trade")
    assert isinstance(traded, OrderTraded) and traded.maker == "other"


def test_a_halted_instrument_takes_no_orders() -> None:
    """An order is rejected while trading is halted, and accepted after it is resumed; orders in the book stay."""
    with ef.Store("memory:") as store:
        store.append(LimitSet("m", 100))
        store.decide(submit, Book("X"), Account("m"), "o-1", "buy", 10, 5, NOON)
        store.decide(halt, Book("X"), "a price moved too far")
        rejected = store.decide(submit, Book("X"), Account("m"), "o-2", "buy", 10, 5, NOON)
        assert [each.event for each in rejected.events] == [OrderRejected("X", "o-2", "m", "trading is halted", NOON)]
        store.decide(resume, Book("X"))
        store.decide(submit, Book("X"), Account("m"), "o-3", "buy", 10, 5, NOON)
        assert [each.order for each in store.state(Book("X")).buy] == ["o-1", "o-3"]
    given(TradingHalted("X", "once")).when(halt, Book("X"), "twice").nothing()


def test_a_busted_trade_leaves_accounts_and_minutes_and_stays_in_the_past() -> None:
    """It is declared void once; what the accounts and the minute said before can still be asked."""
    with ef.Store("memory:") as store:
        store.append(LimitSet("m", 100), LimitSet("t", 100))
        store.decide(submit, Book("X"), Account("m"), "ask", "sell", 10, 5, NOON)
        store.decide(submit, Book("X"), Account("t"), "take", "buy", 10, 3, NOON)
        before = store.head()
        assert store.state(Account("t")).positions == {"X": 3}
        assert len(store.decide(bust, Trade("take.1"), "clearly erroneous").events) == 1
        assert store.decide(bust, Trade("take.1"), "again").events == ()
        assert store.state(Account("t")).positions == {"X": 0} == store.state(Account("m")).positions
        minutes = store.view(Minute).rows(instrument="X"), store.view(Minute, at=before).rows(instrument="X")
        assert [[(each.volume, each.value) for each in rows] for rows in minutes] == [[(0, 0)], [(3, 30)]]


def test_a_cancellation_after_the_trade_changes_nothing() -> None:
    """Nor does the cancellation of another account's order."""
    with ef.Store("memory:") as store:
        store.append(LimitSet("m", 100), LimitSet("t", 100))
        store.decide(submit, Book("X"), Account("m"), "ask", "sell", 10, 5, NOON)
        assert store.decide(cancel, Book("X"), Account("t"), "ask", NOON).events == ()
        store.decide(submit, Book("X"), Account("t"), "take", "buy", 10, 5, NOON)
        assert store.decide(cancel, Book("X"), Account("m"), "ask", NOON).events == ()


def test_the_book_at_a_millisecond_is_the_book_that_was_there(loaded: ef.Store, flow: Flow) -> None:
    """Folded until a moment, it has the orders that were sent and not yet traded or cancelled, in their order."""
    place = SLICE // 2
    moment = flow.sent[place].at
    book = loaded.state(Book(NEAR), occurred_until=moment)
    live: dict[str, int] = {}
    for recorded in loaded.read(ef.Query.of(tags=[f"instrument:{NEAR}"]), occurred_until=moment):
        match recorded.event:
            case OrderSubmitted(order=order, size=size):
                live[order] = size
            case OrderTraded(maker=maker, taker=taker, size=size):
                live[maker] -= size
                live[taker] -= size
            case OrderCancelled(order=order, size=size):
                live[order] -= size
            case _:
                pass
    assert {each.order: each.size for each in (*book.buy, *book.sell)} == {o: left for o, left in live.items() if left}
    assert [each.price for each in book.buy] == sorted((each.price for each in book.buy), reverse=True)
    assert [each.price for each in book.sell] == sorted(each.price for each in book.sell)
    assert book.buy[0].price < book.sell[0].price


def test_the_same_orders_under_pro_rata_trade_otherwise(loaded: ef.Store) -> None:
    """The log's orders replayed by its own rule make the log's trades; by the other rule some orders trade instead."""
    head = loaded.head()
    assert trades_again(loaded, NEAR) == trades_in(loaded, NEAR)
    other = what_if(loaded, NEAR, pro_rata)
    assert other.different
    assert loaded.head() == head


def test_pro_rata_shares_a_price_by_size() -> None:
    """Rounded down in proportion, the rest by time; a worse price comes after the whole better one."""
    queue = [Resting("a", "m", 10, 1), Resting("b", "m", 10, 9), Resting("c", "m", 10, 10), Resting("d", "m", 11, 5)]
    assert [(each.order, part) for each, part in pro_rata(queue, 10)] == [("a", 1), ("b", 4), ("c", 5)]
    assert [(each.order, part) for each, part in pro_rata(queue, 22)] == [("a", 1), ("b", 9), ("c", 10), ("d", 2)]


def test_the_demonstration_runs_and_agrees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command's function: exit code 0, with the ladder, and words that say where the trades come from."""
    assert run(str(tmp_path / "demo.db"), SLICE, drawn=True) == 0
    printed = capsys.readouterr().out
    assert "drawn trades" in printed
    assert "bids" in printed and "all of them agree" in printed
    assert run(str(tmp_path / "demo.db"), SLICE, drawn=True, as_json=True) == 0
    assert f'"repeated":{SLICE}' in capsys.readouterr().out


def test_orders_come_in_by_fix_and_reports_go_out() -> None:
    """A new order and a cancellation by FIX; an order that is sent twice trades once and is answered alike."""
    simplefix = pytest.importorskip("simplefix")
    from examples.fields.exchange.fix_gateway import execute, parse

    def message(kind: str, *pairs: tuple[int, object]) -> bytes:
        made = simplefix.FixMessage()
        made.append_pair(8, "FIX.4.4")
        made.append_pair(35, kind)
        for tag, value in ((55, "X"), (60, "20130903-15:31:07.123"), *pairs):
            made.append_pair(tag, value)
        return made.encode()

    offer = message("D", (11, "o-1"), (1, "m"), (54, 2), (44, "1500.25"), (38, 5))
    take = message("D", (11, "o-2"), (1, "t"), (54, 1), (44, "1500.25"), (38, 3), (59, 3))
    withdraw = message("F", (11, "o-3"), (1, "m"), (41, "o-1"))
    with ef.Store("memory:") as store:
        store.append(LimitSet("m", 100), LimitSet("t", 100))
        answers = [execute(store, each) for each in parse(offer + take + take + withdraw + withdraw)]
        shown = [[(str(each.get(150)), str(each.get(39))) for each in group] for group in answers]
        assert shown[1] == [("b'0'", "b'0'"), ("b'F'", "b'2'")] == shown[2]
        fill = answers[1][1]
        assert (fill.get(31), fill.get(32), fill.get(14)) == (b"1500.25", b"3", b"3")
        assert [each.get(39) for each in answers[3]] == [b"4"]
        assert len(trades_in(store, "X")) == 1
