"""Cutover and rollback: writers are refused and named, events lead, the old tables follow, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from eventfold.core.envelope import NewEvent
from eventfold.errors import CaptureStopped, InvalidInput, MigrationError, SourceUnavailable
from eventfold.migrate.blocks.postgres_block import PLACES
from eventfold.migrate.cutover import capture_waiting, check_cutover, cut_over
from eventfold.migrate.moved import MovedTables, block_of
from eventfold.migrate.rollback import roll_back
from eventfold.migrate.session import Session
from tests.migrate.shop import WAYS, Shop
from tests.migrate.test_capture import opened
from tests.support.memory import tmp_path as tmp_path
from tests.support.repetitions import IS_SLOW

TABLES = ["customer", "orders", "line"]


FEW_WAYS = WAYS if IS_SLOW else ("sqlite", "postgresql-triggers")


@pytest.fixture(params=WAYS)
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Shop, Session]]:
    """A loaded shop, by each way of recording."""
    yield from opened(request.param, tmp_path)


@pytest.fixture(params=FEW_WAYS)
def loaded_by_few(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Shop, Session]]:
    """A loaded shop, by two ways of recording; by all where tests may be slow."""
    yield from opened(request.param, tmp_path)


def decide(session: Session, *events: tuple[str, dict[str, Any]]) -> None:
    """Append events of these types and data in one append, as the new application does."""
    encoded: list[NewEvent] = []
    for name, data in events:
        table = next(each for each in session.plan.events.values() if name in each.types)
        tag = table.tag(table.key(data))
        encoded.append(NewEvent(uuid4().bytes, name, 1, msgspec.json.encode(data), (tag,), None, None))
    session.store.append_encoded(*encoded)


def following(session: Session) -> MovedTables:
    """Let the tables follow the events, and look who was refused, as the running capture does."""
    with session.capture() as capture, session.recorder() as recorder:
        capture.drain()
        with session.moved(session.state().moved, recorder) as moved:
            moved.follow()
            moved.record_refusals()
    return moved


ORDER = {
    "id": 100, "customer_id": 1, "status": "new", "total": "12.5", "placed_at": "2026-01-02T10:00:00", "note": "by us",
}  # fmt: skip


def test_events_lead_after_a_cutover_and_the_old_application_writes_on_after_a_rollback(
    loaded: tuple[Shop, Session],
) -> None:
    """Both ways, with rows of both sides: none is lost, and no change of ours is taken for one of others."""
    shop, session = loaded
    shop.run("UPDATE orders SET total = 7 WHERE id = 3")
    done = cut_over(session, session.plan.with_parts(TABLES))
    assert done.rows == 45 and session.state().phase == "cut over"
    for statement in (
        "UPDATE orders SET total = 8 WHERE id = 3",
        "INSERT INTO customer VALUES (50, 'Eve', NULL)",
        "DELETE FROM line WHERE order_id = 1",
    ):
        with pytest.raises(SourceUnavailable, match="written by events since its cutover"):
            shop.run(statement)
    decide(
        session,
        ("OrderImported", ORDER),
        ("LineImported", {"order_id": 100, "number": 1, "sku": "pear", "quantity": 2}),
        ("OrderPaid", {"id": 3, "status": "paid"}),
        ("LineRemoved", {"order_id": 5, "number": 1}),
    )
    following(session)
    assert shop.application.rows("SELECT status, note FROM orders WHERE id = 100") == [("new", "by us")]
    assert shop.application.rows("SELECT status FROM orders WHERE id = 3") == [("paid",)]
    assert shop.application.rows("SELECT sku FROM line WHERE order_id IN (5, 100)") == [("pear",)]
    assert session.compare(catch_up=lambda: capture_waiting(session)).equal
    decide(session, ("OrderShipped", {"id": 100, "status": "shipped", "shipped_at": "2026-01-03T09:00:00"}))
    back = roll_back(session, TABLES)
    assert back.rows == 46 and session.state().phase == "capturing"
    assert shop.application.rows("SELECT status FROM orders WHERE id = 100") == [("shipped",)], "the last one as well"
    shop.run("UPDATE orders SET status = 'paid', note = 'by them' WHERE id = 100")
    shop.run("DELETE FROM line WHERE order_id = 3")
    shop.run("UPDATE orders SET total = 9 WHERE id = 3")
    shop.run("INSERT INTO customer VALUES (51, 'Finn', NULL)")
    capture_waiting(session)
    assert session.compare(catch_up=lambda: capture_waiting(session)).equal
    cut_over(session, session.plan.with_parts(TABLES))  # and once more
    with pytest.raises(SourceUnavailable):
        shop.run("UPDATE orders SET total = 9 WHERE id = 3")
    roll_back(session, TABLES)
    shop.run("UPDATE orders SET total = 10 WHERE id = 3")


def test_each_refusal_is_recorded_with_its_origin(loaded: tuple[Shop, Session]) -> None:
    """It survives the rollback of the refused transaction, as far as the database permits; status says who it was."""
    shop, session = loaded
    cut_over(session, ["orders", "line"])
    if shop.dialect == "postgresql":
        shop.application.run("SET application_name = 'nightly report'")
    for _ in range(3):
        with pytest.raises(SourceUnavailable):
            shop.run("UPDATE orders SET total = 8 WHERE id = 3")
    shop.application.begin()
    shop.run("UPDATE customer SET name = 'not kept' WHERE id = 1")
    with pytest.raises(SourceUnavailable):
        shop.run("DELETE FROM line WHERE order_id = 3")
    shop.application.rollback()
    following(session)
    found = {(last.table, last.operation): (count, last) for last, count in session.state().refusals_by_origin}
    count, last = found["orders", "UPDATE"]
    assert count == 3
    if shop.dialect == "sqlite":  # nothing in a file outlives a rollback
        assert ("line", "DELETE") not in found
        return
    assert found["line", "DELETE"][0] == 1
    assert last.user and last.address and int(last.process) > 0
    assert last.application == ("nightly report" if shop.dialect == "postgresql" else last.application)
    following(session)
    assert sum(count for _, count in session.state().refusals_by_origin) == 4, "each is counted once"


def test_one_entity_is_cut_over_and_others_are_captured_on(
    loaded: tuple[Shop, Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orders with their lines; customers stay with the old application, then follow, and go back alone."""
    shop, session = loaded
    assert session.plan.with_parts(["orders"]) == ["orders", "line"]
    cut_over(session, session.plan.with_parts(["orders"]))
    assert session.state().phase == "cut over (2 of 3 tables)"
    shop.run("INSERT INTO customer VALUES (60, 'Gina', NULL)")
    capture_waiting(session)
    decide(session, ("OrderImported", {**ORDER, "customer_id": 60}))
    following(session)
    assert shop.application.rows("SELECT customer_id FROM orders WHERE id = 100") == [(60,)]
    cut_over(session, ["customer"])
    decide(session, ("CustomerChanged", {"id": 60, "name": "Gina B."}), ("OrderPaid", {"id": 100, "status": "paid"}))
    original = session.ledger.add

    def deciding(fact: Any) -> None:
        original(fact)
        decide(session, ("OrderChanged", {"id": 100, "note": type(fact).__name__}))  # orders stay cut over meanwhile

    monkeypatch.setattr(session.ledger, "add", deciding)
    roll_back(session, ["customer"])
    monkeypatch.undo()
    following(session)
    shop.run("UPDATE customer SET name = 'Gina C.' WHERE id = 60")
    with pytest.raises(SourceUnavailable):
        shop.run("UPDATE orders SET total = 1 WHERE id = 100")
    capture_waiting(session)
    assert session.compare(catch_up=lambda: capture_waiting(session)).equal
    assert shop.application.rows("SELECT status FROM orders WHERE id = 100") == [("paid",)]
    assert session.state().moved == ["line", "orders"]


def test_a_difference_lifts_the_block(loaded_by_few: tuple[Shop, Session]) -> None:
    """The old application writes on; nothing is switched."""
    shop, session = loaded_by_few
    decide(session, ("OrderPaid", {"id": 3, "status": "paid"}))  # an application that decides too early
    with pytest.raises(MigrationError, match=r"1 of 40 rows differ.*block is lifted"):
        cut_over(session, ["orders", "line"])
    assert (session.state().blocked, session.state().moved) == ([], [])
    shop.run("UPDATE orders SET total = 8 WHERE id = 4")


def test_a_writer_past_the_block_is_found(loaded: tuple[Shop, Session]) -> None:
    """A dropped trigger: by its absence, and by what was written; a rollback with a reason takes the rows."""
    shop, session = loaded
    cut_over(session, TABLES)
    pass_block(shop, "orders", "UPDATE orders SET note = 'past the block' WHERE id = 6")
    with pytest.raises(CaptureStopped, match=r"orders.*which no event says|the block of orders was dropped"):
        following(session)
    assert session.state().alarms[0].kind == "bypassed" and session.state().phase == "stopped"
    with pytest.raises(MigrationError, match="orders: 1 different"):
        cut_over(session, TABLES)  # it compares again
    with pytest.raises(CaptureStopped):
        roll_back(session, TABLES)
    roll_back(session, TABLES, "the nightly job is right")
    assert session.state().phase == "capturing"
    shop.run("UPDATE orders SET note = 'as usual' WHERE id = 6")
    capture_waiting(session)
    assert session.compare(catch_up=lambda: capture_waiting(session)).equal


def test_a_row_that_was_corrected_is_confirmed_by_another_cutover(loaded_by_few: tuple[Shop, Session]) -> None:
    """The block is complete again, and what was recorded of it is no alarm any more."""
    shop, session = loaded_by_few
    cut_over(session, TABLES)
    pass_block(shop, "orders", "UPDATE orders SET note = 'past' WHERE id = 6")
    with pytest.raises(CaptureStopped):
        following(session)
    pass_block(shop, "orders", "UPDATE orders SET note = NULL WHERE id = 6")
    cut_over(session, TABLES)
    following(session)
    with pytest.raises(SourceUnavailable):
        shop.run("UPDATE orders SET note = 'past' WHERE id = 6")
    assert session.state().phase == "cut over"


def pass_block(shop: Shop, table: str, statement: str) -> None:
    """Write past the block, as an owner of the table may: without its triggers."""
    if shop.dialect == "postgresql":
        shop.application.run(f"ALTER TABLE {table} DISABLE TRIGGER eventfold_block")
        shop.run(statement)
        return
    names = {
        "sqlite": "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND name LIKE '%_block_U_orders'",
        "mariadb": "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = DATABASE() AND "
        f"trigger_name LIKE 'ef_block_%%' AND event_manipulation = 'UPDATE' AND event_object_table = '{table}'",
    }
    for (name,) in shop.application.rows(names[shop.dialect]):
        shop.application.run(f'DROP TRIGGER "{name}"')
    shop.run(statement)


def test_an_application_that_decides_on_stops_the_rollback(
    loaded_by_few: tuple[Shop, Session], monkeypatch: Any
) -> None:
    """Its events would not be in the tables: they stay cut over, blocked, and nothing is lost."""
    shop, session = loaded_by_few
    cut_over(session, TABLES)
    decide(session, ("OrderPaid", {"id": 3, "status": "paid"}))
    original = session.ledger.add

    def deciding(fact: Any) -> None:
        original(fact)
        if type(fact).__name__ == "RolledBack":
            decide(session, ("OrderPaid", {"id": 4, "status": "paid"}))

    monkeypatch.setattr(session.ledger, "add", deciding)
    with pytest.raises(MigrationError, match="still writes events: 1 OrderPaid"):
        roll_back(session, TABLES)
    monkeypatch.undo()
    assert session.state().moved == sorted(TABLES)
    with pytest.raises(SourceUnavailable):
        shop.run("UPDATE orders SET note = 'no' WHERE id = 6")
    roll_back(session, TABLES)
    assert shop.application.rows("SELECT status FROM orders WHERE id = 4") == [("paid",)]


def test_what_cannot_be_cut_over_is_said_before(loaded_by_few: tuple[Shop, Session]) -> None:
    """Unknown tables, and those that are cut over already; what was installed cannot be removed meanwhile."""
    _, session = loaded_by_few
    with pytest.raises(InvalidInput, match="invoice is no table"):
        session.plan.with_parts(["invoice"])
    check_cutover(session, TABLES)
    with pytest.raises(InvalidInput, match="None of these tables"):
        roll_back(session, TABLES)
    cut_over(session, ["orders"])
    with pytest.raises(InvalidInput, match="orders is cut over already"):
        cut_over(session, ["orders", "line"])
    with pytest.raises(InvalidInput, match="Run eventfold migrate rollback first"):
        session.remove()
    with pytest.raises(InvalidInput, match="its rows follow the events"):
        session.reread(["orders"], "no reason")


@pytest.fixture
def on_postgres(tmp_path: Path) -> Iterator[tuple[Shop, Session]]:
    """A loaded shop on PostgreSQL."""
    yield from opened("postgresql-triggers", tmp_path)


def test_a_superuser_who_replicates_is_refused_as_well(on_postgres: tuple[Shop, Session]) -> None:
    """Triggers that fire always, in a session that fires no others; TRUNCATE too; readers go on."""
    shop, session = on_postgres
    cut_over(session, TABLES)
    other = shop.connect()
    other.run("SET session_replication_role = replica")
    for statement in ("UPDATE orders SET total = 1 WHERE id = 1", "TRUNCATE line"):
        with pytest.raises(SourceUnavailable, match="written by events since its cutover"):
            other.run(statement)
    assert other.rows("SELECT count(*) FROM line") == [(20,)]
    other.close()
    following(session)
    assert {last.operation for last, _ in session.state().refusals_by_origin} == {"UPDATE", "TRUNCATE"}


def test_refusals_beyond_the_places_are_counted(on_postgres: tuple[Shop, Session]) -> None:
    """Those whose origin was overwritten are a number without one."""
    shop, session = on_postgres
    cut_over(session, TABLES)
    for _ in range(PLACES + 4):
        with pytest.raises(SourceUnavailable):
            shop.run("UPDATE orders SET total = 1 WHERE id = 1")
    following(session)
    assert [(last.table, count) for last, count in session.state().refusals_by_origin] == [("orders", PLACES), ("", 4)]


def test_a_right_that_is_missing_is_named_before_anything_is_blocked(on_postgres: tuple[Shop, Session]) -> None:
    """A role that does not own the tables cannot block their writers."""
    shop, session = on_postgres
    role = f"reader_{uuid4().hex[:8]}"
    shop.application.run(f"CREATE ROLE {role} LOGIN SUPERUSER")
    other = shop.connect()
    other.run(f"SET ROLE {role}")
    shop.application.run(f"ALTER ROLE {role} NOSUPERUSER")
    with pytest.raises(SourceUnavailable, match=f"The role {role} may not create a schema.*triggers on orders"):
        block_of(other, session.name).refuse([session.plan.tables["orders"]])
    other.close()
