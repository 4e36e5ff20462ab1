"""The clock of the source is set back, and rows have one time: the order of the log is that of the changes.

Knows: each way of recording changes. Does not know: how a source writes times.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eventfold.migrate.session import Session
from eventfold.migrate.sources.changes import Transaction
from tests.migrate.shop import WAYS, Shop, assert_equal
from tests.migrate.test_capture import captured, drain, opened
from tests.support.memory import tmp_path as tmp_path  # no promise here is about a disk

NOON = datetime(2024, 3, 31, 12, tzinfo=UTC)
BEFORE = NOON - timedelta(hours=1)  # after the clock was set back; two changes of different rows, and one of the first
TIMES = (NOON, BEFORE, BEFORE, BEFORE - timedelta(hours=1))


class Clock:
    """What the clock of the source showed at each transaction: a transaction that is read again has the same time."""

    def __init__(self, *times: datetime) -> None:
        self._times = [int(each.timestamp() * 1_000_000) for each in times]
        self._given: dict[str, int] = {}

    def at(self, transaction: Transaction) -> Transaction:
        """Return a transaction with the time of this clock."""
        time = self._given.setdefault(transaction.id, self._times[min(len(self._given), len(self._times) - 1)])
        return msgspec.structs.replace(transaction, at=time)

    @contextmanager
    def capture(self, session: Session) -> Iterator[Any]:
        """Open a capture whose source has this clock."""
        with session.capture() as capture:
            recorder: Any = capture._recorder
            changes = recorder.changes
            recorder.changes = lambda limit: [self.at(each) for each in changes(limit)]
            yield capture


@pytest.mark.parametrize("way", WAYS)
def test_changes_under_a_clock_that_was_set_back_are_captured_in_their_order(way: str, tmp_path: Path) -> None:
    """A later change of a row has an earlier time, two rows have one: each is an event with the time of the source."""
    for shop, session in opened(way, tmp_path):
        shop.run("UPDATE orders SET total = 1 WHERE id = 1")
        shop.run("UPDATE orders SET total = 2 WHERE id = 1")
        shop.run("UPDATE orders SET total = 2 WHERE id = 4")
        shop.run("UPDATE orders SET total = 3 WHERE id = 1")
        with Clock(*TIMES).capture(session) as capture:
            assert capture.drain() == 4
        events = captured(session)
        assert [(each.event.json()["id"], each.event.json()["total"]) for each in events] == [
            (1, "1.00"),
            (1, "2.00"),
            (4, "2.00"),
            (1, "3.00"),
        ]
        assert [each.occurred for each in events] == list(TIMES)
        assert len({each.id for each in events}) == 4
        recorded = [each.time for each in events]
        assert recorded == sorted(recorded)
        assert_equal(shop, session)
        shop.run("UPDATE orders SET total = 4 WHERE id = 1")  # the images before it are those of the last change
        assert drain(session) == 1
        assert_equal(shop, session)


@pytest.mark.parametrize("way", WAYS)
def test_changes_that_are_read_again_after_the_clock_was_set_back_are_written_once(way: str, tmp_path: Path) -> None:
    """Killed between append and acknowledgement: what identifies a change is its place in the source, not its time."""
    for shop, session in opened(way, tmp_path):
        shop.run("UPDATE orders SET total = 1 WHERE id = 1")
        shop.run("UPDATE orders SET total = 2 WHERE id = 4")
        clock = Clock(*TIMES)
        with clock.capture(session) as capture:
            forgotten: list[Any] = []
            capture._recorder.acknowledge = forgotten.append
            assert capture.once() == 2 and forgotten
        shop.run("UPDATE orders SET total = 3 WHERE id = 1")
        with clock.capture(session) as capture:
            assert capture.drain() == 3
        assert [each.event.json()["total"] for each in captured(session)] == ["1.00", "2.00", "3.00"]
        assert [each.occurred for each in captured(session)] == list(TIMES[:3])
        assert_equal(shop, session)


@pytest.mark.parametrize("way", WAYS)
def test_rows_with_one_time_and_rows_against_the_order_of_keys_are_loaded_once(way: str, tmp_path: Path) -> None:
    """Three orders were placed at one moment, and the next one, by the clock, an hour before: each has its event."""
    shop = Shop(way, tmp_path)
    shop.fill()
    shop.run("UPDATE orders SET placed_at = '2024-03-31 12:00:00' WHERE id IN (5, 6, 7)")
    shop.run("UPDATE orders SET placed_at = '2024-03-31 11:00:00' WHERE id = 8")
    with shop.session() as session:
        shop.begin(session)
        assert_equal(shop, session)
        opening = [each for each in session.store.read(raw=True) if each.event.type == "OrderImported"]
        placed = {each.event.json()["id"]: each for each in opening}
        assert len({each.id for each in opening}) == len(opening) == len(placed)
        assert [placed[number].occurred for number in (5, 6, 7, 8)] == [NOON, NOON, NOON, BEFORE]
        shop.run("UPDATE orders SET note = 'one moment' WHERE placed_at = '2024-03-31 12:00:00'")
        assert drain(session) >= 1
        assert_equal(shop, session)
        ids = [(each.event.json()["id"], each.id) for each in opening]
    shop.store_path = str(tmp_path / "again.db")
    with shop.session() as session:  # ids follow from the rows: another load gives the same ones
        session.load(recorded=False)
        again = [each for each in session.store.read(raw=True) if each.event.type == "OrderImported"]
        assert [(each.event.json()["id"], each.id) for each in again] == ids
    shop.application.close()
