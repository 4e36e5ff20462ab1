"""The shop: a slice of its invoices, stock under contention, baskets in parts, payments, webhooks, past prices."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import eventfold as ef
from eventfold.demo import fields
from eventfold.demo.shop import run as demonstrate
from eventfold.demo.shop.app import Bought, Order, Prices, Refused, Stock, abandon, change_line, give_back, reserve
from eventfold.demo.shop.busy_day import oversold, replay
from eventfold.demo.shop.check import breaches, check
from eventfold.demo.shop.events import (
    PART,
    GoodsReturned,
    OrderCancelled,
    OrderLine,
    OrderPlaced,
    PartReserved,
    PaymentAuthorised,
    PaymentCaptured,
    PaymentRefunded,
    PaymentRefused,
    PaymentTimedOut,
    PricesSet,
    StockReceived,
)
from eventfold.demo.shop.load import load
from eventfold.demo.shop.payment import Payment, answer, request_payment
from eventfold.demo.shop.webhooks import receive, shipper
from eventfold.errors import DataMissing, InvalidInput, InvalidSignature
from eventfold.testing.clock import Clock
from eventfold.webhooks import key_of, sign, verify
from tests.cli.commands import run as eventfold
from tests.support.data import need
from tests.support.servers.http import serving

LIMIT = 20_000  # lines: the first nine days
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a store with a slice of the source."""
    need("online-retail")
    path = tmp_path_factory.mktemp("shop") / "shop.db"
    with ef.Store(str(path)) as store:
        assert load(store, LIMIT).is_complete
    return path


@pytest.fixture
def copied(loaded: Path, tmp_path: Path) -> Path:
    """A copy of that store, to be changed."""
    return Path(shutil.copy(loaded, tmp_path / "copy.db"))


def order(number: str, **pieces: int) -> OrderPlaced:
    """An order of these pieces, at a pound each."""
    lines = tuple(OrderLine(product, count, Decimal(1)) for product, count in pieces.items())
    return OrderPlaced(number, "c-1", "United Kingdom", lines)


def products(count: int) -> dict[str, int]:
    """One piece of each of many products."""
    return {f"p{number:04}": 1 for number in range(count)}


def received(**pieces: int) -> list[StockReceived]:
    """The stock with these pieces."""
    entries = list(pieces.items())
    return [
        StockReceived(tuple(dict(part)), tuple(dict(part).values()), "test")
        for first in range(0, len(entries), PART)
        for part in [entries[first : first + PART]]
    ]


def test_the_figures_are_those_of_the_source_and_a_second_load_writes_nothing(copied: Path) -> None:
    """SQL finds revenue, customers, products, stock, prices and unexplained returns in the lines themselves."""
    with ef.Store(str(copied)) as store:
        checked = check(store, LIMIT)
        assert checked.comparison.mismatches == []
        assert checked.comparison.compared > 4_000
        assert checked.figures["replayed"]["sold_out"] > 0
        head = store.head()
        again = load(store, LIMIT)
        assert (again.loaded, again.events, again.is_complete) == (0, 0, True)
        assert store.head() == head


@pytest.mark.parametrize("conditional", [True, False])
def test_thirty_two_orders_of_ten_pieces_sell_ten(served: str, conditional: bool) -> None:
    """Without the condition more are sold than there are, and the check of the log finds it."""
    with ef.Store(served) as store:
        store.append(*received(mug=10), *[order(f"o-{number}", mug=1) for number in range(32)])
    wanted = [(Order(f"o-{number}"), Stock(("mug",)), 0) for number in range(32)]
    done = fields.contend(served, reserve, wanted, Refused, conditional=conditional)
    with ef.Store(served) as store:
        assert (done.accepted == 10) == conditional
        assert (oversold(store) == []) == conditional
        assert store.state(Stock(("mug",))).on_hand["mug"] == 10 - done.accepted


def test_baskets_of_many_parts_are_reserved_whole_or_not_at_all(served: str) -> None:
    """Ten orders of 120 products want the same pieces, of which there are three; the rest release every part."""
    there = dict.fromkeys(products(120), 3)
    day = replay(served, [order(f"o-{number}", **products(120)) for number in range(10)], there)
    assert day.below_zero == []
    assert day.held_by_cancelled == 0
    assert day.sold_out >= 7
    with ef.Store(served) as store:
        states = [store.state(Order(f"o-{number}")) for number in range(10)]
        assert {len(each.reserved) for each in states} <= {0, 3}
        held = sum(len(each.reserved) for each in states) // 3
        left = store.state(Stock(tuple(there))).on_hand
        assert set(left.values()) == {3 - held}


def test_an_order_is_changed_only_while_nothing_is_reserved(served: str) -> None:
    """32 tasks reserve and change one order: what is reserved is what the order says."""
    with ef.Store(served) as store:
        store.append(*received(mug=100), order("o-1", mug=5))

    def act(number: int, state: Order, stock: Stock) -> Any:
        return change_line(state, "mug", number) if number % 2 else reserve(state, stock, 0)

    fields.contend(served, act, [(number, Order("o-1"), Stock(("mug",))) for number in range(32)], Refused)
    with ef.Store(served) as store:
        state = store.state(Order("o-1"))
        assert state.reserved[0].pieces == (state.lines["mug"],)
        assert store.count(ef.Query.of(types=[PartReserved])) == 1


@pytest.mark.parametrize("conditional", [True, False])
def test_no_more_is_returned_than_was_bought(served: str, conditional: bool) -> None:
    """32 credit notes of one piece each, of a customer who bought five."""
    with ef.Store(served) as store:
        store.append(order("o-1", mug=5))
    notes = [
        (Bought("c-1"), GoodsReturned(f"n-{number}", "c-1", "", (OrderLine("mug", 1, Decimal(1)),)))
        for number in range(32)
    ]
    done = fields.contend(served, give_back, notes, Refused, conditional=conditional)
    assert (done.accepted == 5) == conditional


@pytest.fixture
def paying() -> Iterator[tuple[ef.Store, Clock]]:
    """A store with an order whose payment was requested, and a clock."""
    with ef.Store("memory:") as store:
        store.append(*received(mug=9), order("o-1", mug=2))
        store.decide(reserve, Order("o-1"), Stock(("mug",)), 0)
        store.decide(request_payment, Order("o-1"))
        clock = Clock(datetime.now(UTC))
        store.run_until_idle(Payment, clock=clock)
        yield store, clock


def test_an_authorised_payment_is_captured_and_refunded_when_the_order_is_cancelled(
    paying: tuple[ef.Store, Clock],
) -> None:
    """Also after the quarter of an hour has passed: the timer was cancelled."""
    store, clock = paying
    store.decide(answer, Order("o-1"), PaymentAuthorised("o-1", "r-1"))
    store.run_until_idle(Payment, clock=clock)
    assert store.state(Order("o-1")).payment == "captured"
    clock.advance(3_600)
    store.run_until_idle(Payment, clock=clock)
    assert not store.state(Order("o-1")).is_cancelled
    store.decide(abandon, Order("o-1"), "the customer cancelled")
    (refund,) = store.read(ef.Query.of(types=[PaymentRefunded]))
    assert refund.event.amount == Decimal(2)
    assert store.state(Stock(("mug",))).on_hand["mug"] == 9


@pytest.mark.parametrize("silent", [True, False])
def test_a_payment_that_is_refused_or_unanswered_cancels_the_order(
    paying: tuple[ef.Store, Clock], silent: bool
) -> None:
    """What was reserved is back, and a late answer changes nothing."""
    store, clock = paying
    if silent:
        clock.advance(16 * 60)
    else:
        store.decide(answer, Order("o-1"), PaymentRefused("o-1", "no funds"))
    store.run_until_idle(Payment, clock=clock)
    assert store.state(Order("o-1")).is_cancelled
    assert store.state(Stock(("mug",))).on_hand["mug"] == 9
    assert store.count(ef.Query.of(types=[PaymentTimedOut])) == silent
    assert not store.decide(answer, Order("o-1"), PaymentAuthorised("o-1", "late")).events
    assert store.count(ef.Query.of(types=[OrderCancelled])) == 1


def signed(body: dict[str, str], identity: str = "m-1", secret: str = SECRET) -> tuple[dict[str, str], bytes]:
    """Headers and body of a message of the provider."""
    content = json.dumps(body).encode()
    return sign(identity, int(time.time()), content, [key_of(secret)]), content


def test_a_signed_message_of_the_provider_is_applied_once(paying: tuple[ef.Store, Clock]) -> None:
    """Delivered twice, it changes the order once; unsigned, or about something else, it is refused."""
    store, _ = paying
    headers, body = signed({"order": "o-1", "result": "authorised", "reference": "r-1"})
    assert receive(store, headers, body, SECRET)
    assert not receive(store, headers, body, SECRET)
    assert store.count(ef.Query.of(types=[PaymentAuthorised])) == 1
    with pytest.raises(InvalidSignature):
        receive(store, headers, body + b" ", SECRET)
    with pytest.raises(InvalidInput, match="no answer about a payment"):
        receive(store, *signed({"order": "o-1", "result": "perhaps"}), SECRET)


def test_the_shipper_hears_of_a_paid_order_by_a_signed_message(paying: tuple[ef.Store, Clock]) -> None:
    """The event's id is the message's, so that a repeat is recognised there."""
    store, clock = paying
    store.decide(answer, Order("o-1"), PaymentAuthorised("o-1", "r-1"))
    store.run_until_idle(Payment, clock=clock)
    messages: list[tuple[str, Any]] = []

    async def take(request: Request) -> Response:
        messages.append((request.headers["webhook-id"], verify(request.headers, await request.body(), SECRET)))
        return Response(status_code=204)

    with serving(Starlette(routes=[Route("/shipping", take, methods=["POST"])])) as address:
        store.run_until_idle(shipper(f"{address}/shipping", SECRET))
    (captured,) = store.read(ef.Query.of(types=[PaymentCaptured]))
    ((identity, message),) = messages
    assert identity == str(captured.id)
    assert message["data"]["order"] == "o-1"


def test_the_lowest_price_of_thirty_days_is_that_of_the_days_before_and_of_the_price_in_force() -> None:
    """A price that was set before the days began counts, while it was in force; one of the day itself does not."""
    with ef.Store("memory:") as store:
        for day, price in ((1, "3.00"), (2, "1.00"), (20, "5.00")):
            store.append(PricesSet(date(2011, 10, day), ("mug",), (Decimal(price),)))
        store.append(PricesSet(date(2011, 11, 20), ("mug", "cup"), (Decimal("4.00"), Decimal("0.50"))))
        prices = store.state(Prices("mug"))
    assert prices.lowest(date(2011, 10, 2)) == Decimal("3.00")
    assert prices.lowest(date(2011, 10, 25)) == Decimal("1.00")
    assert prices.lowest(date(2011, 12, 1)) == Decimal("4.00")
    assert prices.lowest(date(2011, 9, 1)) is None


def test_forged_events_and_a_changed_byte_are_found(copied: Path) -> None:
    """An order placed twice, a reservation of what is not there, a return of what was not bought."""
    with ef.Store(str(copied)) as store:
        assert list(breaches(store)) == []
        assert oversold(store) == []
        known = next(iter(store.read(ef.Query.of(types=[OrderPlaced])))).event
        first = fields.forge(store, known)
        second = fields.forge(store, GoodsReturned("n-x", "c-x", "", (OrderLine("85048", 1, Decimal(1)),)))
        third = fields.forge(store, PartReserved("o-x", 0, ("85048",), (10_000_000,)))
        assert list(breaches(store)) == [
            f"event {first:,}: order {known.order} was placed already",
            f"event {second:,}: n-x returns more than was bought of 85048",
        ]
        (found,) = oversold(store)
        assert found.startswith(f"event {third:,}: 85048")
    fields.change_byte(copied, 100)
    assert 100 in [flaw.position for flaw in fields.damage_of(str(copied)).flaws]


def test_the_demonstration_reports_and_refuses_a_foreign_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines of at most 80 columns, commands that can be typed, exit code 0."""
    need("online-retail")
    monkeypatch.chdir(tmp_path)
    assert demonstrate(None, 6_000) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "all of them agree" in shown
    assert "eventfold verify" in shown
    command = next(line.split()[1:] for line in shown.splitlines() if line.strip().startswith("eventfold state"))
    assert eventfold(*command).code == 0
    with ef.Store(str(tmp_path / "other.db")) as store:
        store.append_encoded(ef.NewEvent.of("elsewhere", b"{}"))
    with pytest.raises(InvalidInput, match="other events"):
        demonstrate(str(tmp_path / "other.db"), 6_000)


def test_without_the_data_the_command_to_type_is_named_and_no_store_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly as it has to be typed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    monkeypatch.delenv("EVENTFOLD_DATA", raising=False)
    with pytest.raises(DataMissing, match="eventfold demo fetch online-retail"):
        demonstrate(str(tmp_path / "shop.db"))
    assert not (tmp_path / "shop.db").exists()
