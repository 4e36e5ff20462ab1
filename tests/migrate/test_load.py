"""The initial load: one opening event a row, facts before it, in the order of business time, each id once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eventfold.core.envelope import NewEvent
from eventfold.errors import CaptureStopped, InvalidInput, ValueNotExact
from eventfold.migrate.connection import Connection
from eventfold.migrate.events import event_id
from eventfold.migrate.load import Loader
from eventfold.migrate.progress import TYPES
from eventfold.migrate.session import Session
from eventfold.migrate.sorting import Sorter
from tests.migrate.shop import CUSTOMERS, ORDERS, WAYS, Shop, assert_equal
from tests.support.memory import tmp_path as tmp_path  # no promise here is about a disk

KINDS = tuple(each for each in WAYS if each != "postgresql-decoding")


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """A shop on each database, with rows."""
    found = Shop(request.param, tmp_path)
    found.fill()
    yield found
    found.application.close()


def events_of(session: Session) -> list[Any]:
    """Return the events of rows, in order."""
    return [each for each in session.store.read(raw=True) if each.event.type not in TYPES]


def test_every_row_has_one_opening_event_after_the_facts_it_proves(shop: Shop) -> None:
    """Three tables are loaded: types, tags, times and order are those of the mapping, and each row folds to itself."""
    with shop.session() as session:
        session.install(shop.way)
        loaded = session.load()
        assert loaded.rows == {"customer": CUSTOMERS, "orders": ORDERS, "line": ORDERS}
        assert loaded.events == CUSTOMERS + 2 * ORDERS + 7 == len(events_of(session))
        assert_equal(shop, session)
        found = events_of(session)
        types = [each.event.type for each in found]
        assert types[:CUSTOMERS] == ["CustomerImported"] * CUSTOMERS  # they are referred to, and have no time
        assert types[-ORDERS:] == ["LineImported"] * ORDERS  # they refer to rows with a time
        moments = [each.occurred for each in found[CUSTOMERS:-ORDERS]]
        assert moments == sorted(moments)
        third = [each for each in found if "order:3" in each.tags and each.event.type.startswith("Order")]
        assert [(each.event.type, each.occurred) for each in third] == [
            ("OrderShipped", datetime(2024, 2, 4, 8, 30, tzinfo=UTC)),
            ("OrderImported", datetime(2024, 2, 4, 8, 30, tzinfo=UTC)),  # the row is as it was after it was shipped
        ]
        assert third[0].event.json() == {"id": 3, "shipped_at": "2024-02-04T08:30:00"} or shop.dialect == "sqlite"
        assert set(third[1].tags) == {"order:3", "customer:3"}
        assert third[1].metadata["source"] == "orders/3" and third[1].metadata["evidence"] == "column"
        assert found[0].metadata["evidence"] == "row" and found[0].occurred is None
        line = next(each for each in found if each.event.type == "LineImported")
        assert set(line.tags) == {"line:0/1", "order:0"}


def test_a_dry_run_makes_every_event_and_writes_none(shop: Shop) -> None:
    """It counts the events by type, and shows some."""
    with shop.session() as session:
        before = session.store.head()
        done = session.dry_run()
        assert session.store.head() == before
        assert done.types == {
            "CustomerImported": CUSTOMERS,
            "OrderImported": ORDERS,
            "OrderShipped": 7,
            "LineImported": ORDERS,
        }
        assert {each.type for each in done.examples} == set(done.types)


def test_ids_are_derived_and_in_the_order_of_time() -> None:
    """The same parts give the same id; a later moment a greater one; before 1970 counts as 1970."""
    moment = 1_700_000_000_000_000
    assert event_id(moment, "a", "b") == event_id(moment, "a", "b") != event_id(moment, "a", "c")
    assert event_id(moment, "z") < event_id(moment + 1_000, "a")
    assert event_id(-5, "a")[:6] == bytes(6)
    found = event_id(moment, "a")
    assert len(found) == 16 and found[6] >> 4 == 8 and found[8] >> 6 == 2


@pytest.mark.parametrize("way", ["sqlite", "postgresql-triggers"])
def test_a_load_that_was_ended_goes_on_and_leaves_changes_to_capture(way: str, tmp_path: Path) -> None:
    """Rows that were loaded before are found by their events; what changed in them since is captured as a change."""
    shop = Shop(way, tmp_path)
    shop.fill()

    class Ended(Exception):
        """Stands for a kill."""

    with shop.session() as session:
        session.install(shop.way)
        original = Loader._append_one
        calls = 0

        def ending(self: Loader, batch: list[NewEvent]) -> None:
            nonlocal calls
            calls += 1
            original(self, batch[:11])  # as if the batches were small
            raise Ended

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Loader, "_append_one", ending)
            with pytest.raises(Ended):
                session.load()
        assert session.state().is_loading
    shop.run("UPDATE customer SET name = 'changed' WHERE id = 2")  # it is loaded
    shop.run("UPDATE orders SET total = 77 WHERE id = 12")  # it is not
    shop.run("DELETE FROM line WHERE order_id = 19")
    with shop.session() as session:
        loaded = session.load()
        assert loaded.found >= CUSTOMERS and not session.state().is_loading
        with session.capture() as capture:
            capture.drain()
        assert_equal(shop, session)
        changed = [each for each in events_of(session) if each.metadata["op"] in ("change", "remove")]
        assert [each.event.type for each in changed] == ["CustomerChanged"]
        with pytest.raises(InvalidInput, match="Everything is loaded"):
            session.load()
    shop.application.close()


def test_rows_are_read_in_one_snapshot_and_changes_during_the_load_follow(shop: Shop) -> None:
    """A change that is committed while rows are read is not in the load, and becomes an event of its own."""
    with shop.session() as session:
        session.install(shop.way)
        original = Loader._pages

        def changing(self: Loader, *given: Any) -> Iterator[Any]:
            for number, page in enumerate(original(self, *given)):
                if not number and shop.dialect != "sqlite":
                    shop.run("UPDATE orders SET note = 'meanwhile' WHERE id = 19")
                yield page

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Loader, "_pages", changing)
            session.load()
        if shop.dialect == "sqlite":
            shop.run("UPDATE orders SET note = 'meanwhile' WHERE id = 19")
        opening = next(each for each in events_of(session) if each.metadata["source"] == "orders/19")
        assert opening.event.json()["note"] is None
        with session.capture() as capture:
            assert capture.drain() == 1
        assert_equal(shop, session)


def test_a_load_without_recording_is_refused_unless_no_client_writes(shop: Shop) -> None:
    """Changes made during it would be missed."""
    with shop.session() as session:
        with pytest.raises(InvalidInput, match="not recorded"):
            session.load()
        assert session.load(recorded=False).events
        assert_equal(shop, session)


def test_a_value_that_its_type_cannot_hold_ends_the_load_with_its_row(tmp_path: Path) -> None:
    """SQLite permits a text in a numeric column: the message names the column and the key."""
    shop = Shop("sqlite", tmp_path)
    shop.fill()
    shop.run("UPDATE orders SET total = 'many' WHERE id = 7")
    with shop.session() as session:
        session.install()
        with pytest.raises(ValueNotExact, match=r"total of orders has 'many' in the row id=7"):
            session.load()
        shop.run("UPDATE orders SET total = 7 WHERE id = 7")
        session.load()
        with session.capture() as capture:
            capture.drain()
        assert_equal(shop, session)
    shop.application.close()


def test_tables_read_again_become_equal_by_events_that_say_so(shop: Shop) -> None:
    """After changes that nothing recorded: a changed row, one more and one less, each with the evidence `reread`."""
    with shop.session() as session:
        session.load(recorded=False)
        shop.run("UPDATE orders SET total = 1 WHERE id = 4")
        shop.run("DELETE FROM line WHERE order_id = 19")
        shop.run("INSERT INTO customer VALUES (9, 'New', NULL)")
        done = session.reread(["orders", "customer", "line"], "they were changed by hand")
        assert done.events == 3
        assert_equal(shop, session)
        found = [each for each in events_of(session) if each.metadata["evidence"] == "reread"]
        assert sorted(each.event.type for each in found) == ["CustomerImported", "LineRemoved", "OrderChanged"]
        with pytest.raises(InvalidInput, match="No reason"):
            session.reread(["orders"], "")
        with pytest.raises(InvalidInput, match="no table"):
            session.reread(["other"], "why")


def test_events_are_sorted_also_when_they_do_not_fit_in_memory(tmp_path: Path) -> None:
    """Parts are written to files and merged, in more than one round; the files are removed."""
    draw = random.Random(1)
    places = [(draw.randrange(-5, 5), draw.randrange(3), number, 0) for number in range(2_000)]
    with Sorter(tmp_path, part=10) as sorter:
        for place in places:
            data = msgspec.json.encode(place)
            sorter.add(place, NewEvent(bytes(16), "T", 1, data, ("a:1",), None, None))
        found = [tuple(msgspec.json.decode(each.data)) for each in sorter]
        assert any(tmp_path.iterdir())
    assert found == sorted(places)
    assert not any(tmp_path.iterdir())


def test_rows_a_second_are_limited(tmp_path: Path) -> None:
    """With a rate the work waits; the progress tells how far it is and how long it takes."""
    shop = Shop("sqlite", tmp_path)
    shop.fill()
    progress: list[Any] = []
    with shop.session() as session:
        session.load(recorded=False, max_rate=300, progress=progress.append)
        assert session.state().loaded is not None and session.state().loaded.seconds >= 0.25
    assert {each.step for each in progress} == {"reading", "writing"}
    assert progress[-1].rows == progress[-1].total == CUSTOMERS + 2 * ORDERS
    shop.application.close()


def test_a_replica_may_be_read_instead(tmp_path: Path) -> None:
    """Rows come from another address, and what its snapshot sees is asked there."""
    shop = Shop("postgresql-triggers", tmp_path)
    shop.fill()
    asked: list[Connection] = []
    with shop.session() as session:
        session.install(shop.way)
        session._replica = shop.connect()
        session._replica.run("SET default_transaction_read_only = on")
        original = type(session).recorder

        session.load(progress=lambda _: asked.append(session._replica))  # pyright: ignore[reportArgumentType]
        assert original is type(session).recorder and asked
        assert_equal(shop, session)
        session._replica.close()
    shop.application.close()


def test_an_alarm_ends_with_reading_again(tmp_path: Path) -> None:
    """The alarm is in the store, so that every later capture is refused until the table is read again."""
    shop = Shop("sqlite", tmp_path)
    shop.fill()
    with shop.session() as session:
        shop.begin(session)
        triggers = [
            row[0] for row in shop.application.rows("SELECT sql FROM sqlite_schema WHERE name LIKE '%_U_orders'")
        ]
        shop.run('DROP TRIGGER "eventfold_migration_U_orders"')
        shop.run("UPDATE orders SET total = 5 WHERE id = 1")
        shop.run(triggers[0])
        shop.run("UPDATE orders SET note = 'x' WHERE id = 1")
        with session.capture() as capture, pytest.raises(CaptureStopped, match=r"orders/1 was missed.*5\.00.*1\.50"):
            capture.drain()
        assert session.state().phase == "stopped"
        with pytest.raises(CaptureStopped, match="was stopped"), session.capture():
            pass
        session.reread(["orders"], "a trigger was dropped")
        with session.capture() as capture:
            shop.run("UPDATE orders SET note = 'y' WHERE id = 1")
            assert capture.drain() == 2  # the first was seen when the table was read again
        assert_equal(shop, session)
        assert session.state().phase == "capturing"
    shop.application.close()
