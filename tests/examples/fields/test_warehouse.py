"""The warehouse: no unit leaves that is not there, while 32 tasks pick; and its figures are those of the source."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.demo.fields import change_byte, contend, damage_of, forge
from eventfold.testing import given
from examples.fields.warehouse.app import (
    LineBackordered,
    LineShipped,
    Lot,
    LotRecalled,
    LotReceived,
    NotOnHand,
    Shelf,
    Stock,
    StockWrittenOff,
    WriteOffExceededStock,
    pick,
    recall,
    receive,
    ship,
    write_off,
)
from examples.fields.warehouse.check import check, follow
from examples.fields.warehouse.epcis import epcis
from examples.fields.warehouse.load import SOURCE, load, read_moves
from examples.fields.warehouse.supply import CLOSED, Move, Warehouse, supplier_of
from tests.support.data import need

ROWS = 6_000
LOT = LotReceived("L1", "P", 10)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with the first rows."""
    need(SOURCE)
    path = tmp_path_factory.mktemp("warehouse") / "warehouse.db"
    with ef.Store(str(path)) as store:
        count = load(store, ROWS)
        assert count.is_complete
        assert count.loaded > ROWS * 0.9
        assert count.rejected
    return path


def test_the_figures_are_those_of_the_source_and_a_second_load_writes_nothing(loaded: Path) -> None:
    """Every account, every lot and the trace of one agree with SQL; loading again finds each row."""
    with ef.Store(str(loaded)) as store:
        head = store.head()
        again = load(store, ROWS)
        assert (again.events, again.loaded, store.head()) == (0, 0, head)
        assert again.is_complete
        found = check(store, ROWS)
    assert found.comparison.compared > 3_000
    assert found.comparison.mismatches == []
    assert found.figures["least_left"] == 0
    assert found.plot is not None


def test_the_past_of_a_lot_is_asked_as_of_a_moment(loaded: Path) -> None:
    """Who had units of a lot at a moment is a part of who has them in the end."""
    with ef.Store(str(loaded)) as store:
        then = store.state(Lot("OPEN-85123A"), occurred_until=datetime(2009, 12, 1, 12, tzinfo=UTC))
        now = store.state(Lot("OPEN-85123A"))
        document = epcis(store, "OPEN-85123A", datetime(2012, 1, 1, tzinfo=UTC))
    assert 0 < sum(then.customers.values()) < sum(now.customers.values())
    assert then.orders < now.orders
    shipped = [each for each in document["epcisBody"]["eventList"] if each["bizStep"] == "shipping"]
    assert sum(each["quantityList"][0]["quantity"] for each in shipped) == sum(now.customers.values())
    parties = [each["destinationList"][0]["destination"] for each in shipped if "destinationList" in each]
    assert {party.rpartition("/")[2] for party in parties} == now.customers.keys() - {""}


@pytest.mark.parametrize("conditional", [True, False], ids=["with-the-condition", "without-it"])
def test_thirty_two_tasks_pick_no_unit_that_is_not_there(served: str, conditional: bool) -> None:
    """Of 32 who each pick a unit of a lot of ten, ten get one. Without the condition more leave than came."""
    with ef.Store(served) as store:
        store.append(LOT)
    asked = [(Shelf("P"), "L1", f"o-{number}", 1) for number in range(32)]
    result = contend(served, pick, asked, NotOnHand, conditional=conditional)
    with ef.Store(served) as store:
        shipped = sum(recorded.event.units for recorded in store.read(ef.Query.of(types=[LineShipped])))
        breaches = follow(store).breaches
    if conditional:
        assert (result.accepted, result.refused, shipped, breaches) == (10, 22, 10, [])
    else:
        assert shipped > 10
        assert breaches


def test_a_recalled_lot_leaves_no_more(served: str) -> None:
    """While 31 tasks pick from a lot, one recalls it: nothing is shipped behind the recall."""
    with ef.Store(served) as store:
        store.append(LotReceived("L1", "P", 1_000))
    asked: list[tuple[object, ...]] = [(pick, Shelf("P"), "L1", f"o-{number}", 1) for number in range(31)]
    asked.insert(16, (recall, Shelf("P"), Lot("L1"), "a hot plate that melts"))
    result = contend(served, _call, asked, NotOnHand)
    with ef.Store(served) as store:
        kinds = [type(recorded.event) for recorded in store.read(ef.Query.of(tags=["lot:L1"]))]
        assert follow(store).breaches == []
    assert result.accepted + result.refused == 32
    assert kinds.count(LotRecalled) == 1
    assert LineShipped not in kinds[kinds.index(LotRecalled) :]


def _call(function: Callable[..., list[ef.Event]], *arguments: object) -> list[ef.Event]:
    return function(*arguments)


def test_a_forged_event_and_a_changed_byte_are_found(loaded: Path, tmp_path: Path) -> None:
    """A shipment that was never decided breaks its lot's account; a changed byte breaks the log's own digest."""
    path = tmp_path / "forged.db"
    path.write_bytes(loaded.read_bytes())
    with ef.Store(str(path)) as store:
        last = forge(store, LineShipped("o-0", "85123A", "OPEN-85123A", 20_000, "13085"))
        found = check(store, ROWS).comparison.mismatches
    assert any("OPEN-85123A" in each.figure and str(last) in each.figure for each in found)
    assert any(each.figure.startswith("units shipped or waiting, 85123A") for each in found)
    change_byte(path, last)
    assert damage_of(str(path)).flaws


def test_what_is_not_there_waits_for_the_next_lot() -> None:
    """A line is shipped in parts, the oldest lot first; the rest waits, and later lines wait behind it."""
    past = given(LOT, LotReceived("L2", "P", 5))
    short = past.when(ship, Shelf("P"), "o-1", 18, "c-1").then(
        LineShipped("o-1", "P", "L1", 10, "c-1"),
        LineShipped("o-1", "P", "L2", 5, "c-1"),
        LineBackordered("o-1", "P", 3, "c-1"),
    )
    behind = short.when(ship, Shelf("P"), "o-2", 4).then(LineBackordered("o-2", "P", 4, ""))
    behind.when(receive, Shelf("P"), Lot("L3"), 5, 6).then(
        LotReceived("L3", "P", 5, 6),
        LineShipped("o-1", "P", "L3", 3, "c-1", waited=True),
        LineShipped("o-2", "P", "L3", 2, "", waited=True),
    ).state(Shelf("P")).has(waiting=[("o-2", "", 2)], lots={})


def test_a_lot_is_received_once_and_recalled_once() -> None:
    """Scanning a lot twice writes nothing; neither does a second recall, or one of a lot that never came."""
    past = given(LOT)
    past.when(receive, Shelf("P"), Lot("L1"), 10).nothing()
    past.when(recall, Shelf("P"), Lot("L9"), "?").nothing()
    recalled = past.when(recall, Shelf("P"), Lot("L1"), "lead").then(LotRecalled("L1", "P", "lead"))
    recalled.when(recall, Shelf("P"), Lot("L1"), "lead").nothing()
    recalled.when(ship, Shelf("P"), "o-1", 1).then(LineBackordered("o-1", "P", 1, ""))


def test_more_is_never_written_off_than_there_is() -> None:
    """What the books do not have is named as a difference, and the account keeps both."""
    past = (
        given(LOT)
        .when(write_off, Shelf("P"), 12, "d-1", "damages")
        .then(StockWrittenOff("P", "L1", 10, "d-1", "damages"), WriteOffExceededStock("P", 2, "d-1", "damages"))
    )
    past.rows(Stock).has(product="P", received=10, written_off=10, exceeded=2)


def test_a_closed_supplier_delays_its_own_products_only() -> None:
    """Without the closure fewer units of S5 wait, and the other suppliers' history is the same to the unit."""
    names = [f"{number:05d}" for number in range(200)]
    late = next(name for name in names if supplier_of(name) == "S5")
    other = next(name for name in names if supplier_of(name) == "S4")
    days = [
        datetime(2011, 1, 3, 12),
        *(datetime(2011, month, day, 12) for month in range(2, 12) for day in range(1, 28)),
    ]
    moves = [Move(at, f"{at:%j}", "c", name, 9 if at.month < 3 else 30) for at in days for name in (late, other)]

    def waited(closed: dict[str, tuple[datetime, datetime]]) -> dict[str, int]:
        units = {late: 0, other: 0}
        for happened in Warehouse(moves, closed).history():
            for event in happened.events:
                if isinstance(event, LineBackordered):
                    units[event.product] += event.units
        return units

    had, without = waited(dict(CLOSED)), waited({})
    assert had[late] > without[late]
    assert had[other] == without[other]


def test_moves_come_in_order_of_time() -> None:
    """Rows of the source become moves in order of time, in the shop's clock."""
    need(SOURCE)
    moves = read_moves(ROWS)
    assert list(moves) == sorted(moves, key=lambda move: move.at)
    assert moves[0].at == datetime(2009, 12, 1, 7, 45)
