"""`compare`: rows and events are equal at one watermark, or each difference is named, with the event that gave ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

import eventfold as ef
from eventfold.errors import CaptureStopped, InvalidInput, MigrationError
from eventfold.migrate import spool
from eventfold.migrate.comparison import Comparison, TableComparison
from eventfold.migrate.hidden import hide_with
from eventfold.migrate.mapping import Mapping, TableMapping
from eventfold.migrate.progress import Compared
from eventfold.migrate.session import Session, open_session
from tests.migrate.shop import WAYS, Shop
from tests.migrate.test_capture import drain, opened, pass_over
from tests.support.memory import tmp_path as tmp_path  # no promise here is about a disk

shop_of = contextmanager(opened)


@pytest.fixture(params=WAYS)
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Shop, Session]]:
    """A loaded shop, by each way of recording."""
    yield from opened(request.param, tmp_path)


def kinds(found: Comparison) -> dict[str, dict[str, int]]:
    """Return the counts of what differs, by table."""
    return {label: dict(each.counts) for label, each in found.tables.items() if each.counts}


def test_equal_rows_are_equal_and_each_pass_is_a_fact(loaded: tuple[Shop, Session]) -> None:
    """After changes of all sorts, captured by the comparison itself; the fact says so."""
    shop, session = loaded
    assert session.compare().equal
    shop.run("UPDATE orders SET status = 'paid', note = 'ring' WHERE id = 1")
    shop.run("INSERT INTO customer VALUES (7, 'Zoë', '')")
    shop.run("DELETE FROM line WHERE order_id = 19")
    shop.run("UPDATE line SET order_id = 1, number = 2 WHERE order_id = 18")
    found = session.compare()
    assert found.equal and found.rows == 6 + 20 + 19 and found.verdict == "all 45 rows of 3 tables are equal"
    fact = session.state().compared
    assert fact == Compared("migration", True, 45, 0, found.verdict, found.position, found.point)
    assert session.compare(["line"]).rows == 19
    assert session.state().compared is not None and session.state().compared.tables == ("line",)  # pyright: ignore[reportOptionalMemberAccess]


def test_a_verdict_of_one_table_and_of_one_row_is_in_the_singular() -> None:
    """Numbers of several are in the plural."""
    one = Comparison({"line": TableComparison(1, {})}, (), 1, "", 0.0)
    assert one.verdict == "the one row of 1 table is equal"
    two = Comparison({"line": TableComparison(2, {}), "customer": TableComparison(0, {})}, (), 1, "", 0.0)
    assert two.verdict == "all 2 rows of 2 tables are equal"


def test_each_difference_has_both_values_and_the_event_that_gave_ours(loaded: tuple[Shop, Session]) -> None:
    """Writers that nothing recorded: a changed row, a deleted one, a new one; 20 of each kind are shown."""
    shop, session = loaded
    shop.run("UPDATE orders SET note = 'seen' WHERE id = 4")
    assert session.compare().equal
    shop.run("UPDATE orders SET note = 'unseen', total = 1 WHERE id = 4")
    shop.run("DELETE FROM line WHERE order_id = 3")
    for number in range(100, 130):
        shop.run("INSERT INTO customer VALUES (?, 'New', NULL)", number)
    pass_over(shop, session)
    found = session.compare()
    assert not found.equal and found.differing == 32
    assert kinds(found) == {"orders": {"different": 1}, "line": {"extra": 1}, "customer": {"missing": 30}}
    assert found.tables["orders"].columns == {"total": 1, "note": 1}
    by_kind = {
        kind: [each for each in found.differences if each.kind == kind] for kind in ("different", "extra", "missing")
    }
    assert [len(each) for each in by_kind.values()] == [1, 1, 20]
    (different,) = by_kind["different"]
    total, note = different.columns
    assert (different.table, different.key) == ("orders", "4")
    assert (total.column, total.ours, total.theirs) == ("total", "4.50", "1.00")
    assert (note.column, note.ours, note.theirs) == ("note", "seen", "unseen")
    assert total.by is not None and (total.by.type, total.by.evidence) == ("OrderImported", "column")
    assert note.by is not None and (note.by.type, note.by.evidence) == ("OrderChanged", "change")
    (extra,) = by_kind["extra"]
    assert extra.key == "3/1" and extra.by is not None and extra.by.type == "LineImported"
    assert all(each.by is None for each in by_kind["missing"])
    assert "1 of" not in found.verdict and "customer: 30 not in the events" in found.verdict
    assert "unseen" not in found.verdict
    session.reread([], "tried")
    assert session.compare().equal


def test_a_pass_is_of_one_watermark_while_writers_go_on(loaded: tuple[Shop, Session]) -> None:
    """Changes that are made after the snapshot are no difference, whether they are captured meanwhile or not."""
    shop, session = loaded
    numbers = iter(range(1_000))

    def catch_up() -> None:
        shop.run("UPDATE orders SET total = ? WHERE id = 4", next(numbers))
        shop.run("INSERT INTO customer VALUES (?, 'Late', NULL)", 100 + next(numbers))
        drain(session)

    for _ in range(3):
        shop.run("UPDATE orders SET note = ? WHERE id = 5", f"note {next(numbers)}")
        found = session.compare(catch_up=catch_up)
        assert found.equal, found.differences
    assert session.store.count(ef.Query.of(types="CustomerImported")) > 5


def test_what_is_not_captured_in_time_is_an_error_and_no_difference(loaded: tuple[Shop, Session]) -> None:
    """With the way out; nothing is recorded as compared."""
    shop, session = loaded
    shop.run("UPDATE orders SET total = 9 WHERE id = 4")
    with pytest.raises(MigrationError, match="was captured within 0 s"):
        session.compare(catch_up=lambda: None, patience=0)
    assert session.state().compared is None


@pytest.mark.parametrize("way", ["postgresql-triggers", "postgresql-decoding"])
def test_a_transaction_of_several_appends_is_judged_as_a_whole(way: str, tmp_path: Path) -> None:
    """A capture that is killed between two of its appends, and a transaction that is open: neither is half seen."""
    with shop_of(way, tmp_path) as (shop, session):
        other = shop.connect()
        other.begin()
        other.run("UPDATE orders SET note = 'open' WHERE id = 6")
        shop.run("INSERT INTO customer SELECT n, 'many', NULL FROM generate_series(100, 2599) AS n")

        with session.capture() as capture, pytest.raises(KeyboardInterrupt):
            write = capture._write

            def killed(requests: Sequence[Any]) -> None:
                write(requests[:1])
                raise KeyboardInterrupt

            capture._write = killed
            capture.once()
        assert session.store.count(ef.Query.of(types="CustomerImported")) == 5 + 1_000
        with pytest.raises(MigrationError, match="was captured within"):
            session.compare(catch_up=lambda: None, patience=0)
        found = session.compare()
        assert found.equal and found.tables["customer"].rows == 2_505
        other.commit()
        assert session.compare().equal
        other.close()


def test_equality_is_declared_by_type(tmp_path: Path) -> None:
    """A row as it is written in the source, and what an event says of it: the same value, or not."""
    kinds = {
        "n": ("numeric(10,2)", "1.50", "1.5", False),
        "f": ("double precision", "0", "-0", False),
        "c": ("char(5)", "ab", "ab   ", True),
        "s": ("text", "ab", "ab ", False),
        "j": ("jsonb", '{"a": 1, "b": 2.0}', '{"b": 2, "a": 1.0}', True),
        "t": ("timestamptz", "2024-01-01 12:00:00+02", "2024-01-01 10:00:00+00", True),
        "e": ("text", "", None, False),
        "v": ("interval", "1 mon", "30 days", False),
    }
    shop = Shop("postgresql-triggers", tmp_path)
    shop.run(f"CREATE TABLE kinds (id integer PRIMARY KEY, {', '.join(f'{n} {t[0]}' for n, t in kinds.items())})")
    shop.run(f"INSERT INTO kinds VALUES (1, {', '.join('?' * len(kinds))})", *[each[1] for each in kinds.values()])
    tables = dict(shop.mapping.tables)
    tables["kinds"] = TableMapping(
        role="entity", tag="kind", key=("id",), opening="KindImported", changed="KindChanged", removed="KindRemoved",
        keep=("id", *kinds),
    )  # fmt: skip
    with shop.session(msgspec.structs.replace(shop.mapping, tables=tables)) as session:
        session.load(recorded=False)
        for name, (type, _, other, _) in kinds.items():
            shop.run(f"UPDATE kinds SET {name} = CAST(? AS {'numeric' if name == 'n' else type})", other)
        found = session.compare(["kinds"])
        expected = {name: 1 for name, (*_, is_equal) in kinds.items() if not is_equal and name != "n"}
        assert found.tables["kinds"].columns == expected
        shop.run("ALTER TABLE kinds ALTER COLUMN n TYPE numeric(10,3)")
    with shop.session(msgspec.structs.replace(shop.mapping, tables=tables)) as session:
        scaled = session.compare(["kinds"]).differences[0].columns[0]
        assert (scaled.column, scaled.ours, scaled.theirs) == ("n", "1.50", "1.500")
    shop.application.close()


def test_a_row_that_cannot_be_read_and_a_key_that_is_there_twice_are_named(tmp_path: Path) -> None:
    """A text in a number of SQLite, and two rows with one key where no constraint forbids it."""
    with shop_of("sqlite", tmp_path) as (shop, session):
        session.remove()
        shop.run("UPDATE line SET quantity = 'many' WHERE order_id = 4")
        shop.run("CREATE TABLE loose AS SELECT * FROM customer")
        shop.run("INSERT INTO loose SELECT * FROM customer WHERE id = 2")
        found = session.compare()
        (each,) = found.differences
        assert (each.table, each.key, each.kind) == ("line", "4/1", "unreadable") and "'many'" in each.reason
        assert each.by is not None and each.by.type == "LineImported"
        tables = {"loose": msgspec.structs.replace(shop.mapping.tables["customer"])}
        tables |= {label: TableMapping(role="ignored") for label in shop.mapping.tables}
        with (
            ef.Store(str(tmp_path / "loose.db")) as store,
            open_session(store, Mapping(dialect="sqlite", tables=tables), shop.address) as loose,
        ):
            shop.run("DELETE FROM loose WHERE rowid > 5")
            loose.load(recorded=False)
            shop.run("INSERT INTO loose SELECT * FROM customer WHERE id = 2")
            assert [(each.key, each.kind) for each in loose.compare().differences] == [("2", "doubled")]


def test_columns_that_events_do_not_have_are_named_and_hidden_ones_are_compared(tmp_path: Path) -> None:
    """A dropped column is said to be left out; of a hidden one the hashes are compared, and no value is shown."""
    shop = Shop("sqlite", tmp_path)
    shop.fill()
    tables = dict(shop.mapping.tables)
    tables["customer"] = msgspec.structs.replace(tables["customer"], keep=("id",), hide=("email",), drop=("name",))
    mapping = Mapping(dialect="sqlite", tables=tables)
    with (
        ef.Store(shop.store_path) as store,
        open_session(store, mapping, shop.address, hide=hide_with(b"k" * 32)) as session,
    ):
        shop.begin(session)
        found = session.compare()
        assert found.equal and found.left_out == ("customer.name (dropped)",)
        shop.run("UPDATE customer SET name = 'other', email = 'new@example.com' WHERE id = 1")
        pass_over(shop, session)
        (column,) = session.compare().differences[0].columns
        assert column.column == "email" and column.ours != column.theirs
        assert str(column.ours).startswith("hidden-") and "new@example.com" not in str(column)
    shop.application.close()


def test_more_than_memory_may_hold_is_compared_by_files(tmp_path: Path) -> None:
    """The same findings, whatever the limit; nothing is left of the files."""
    with shop_of("sqlite", tmp_path) as (shop, session):
        for number in range(3):
            shop.run("UPDATE orders SET note = ? WHERE id < 10", f"note {number}")
        drain(session)
        shop.run("UPDATE orders SET note = 'x' WHERE id = 3")
        shop.run("DELETE FROM line WHERE order_id = 5")
        pass_over(shop, session)
        folder = tmp_path / "spool"
        folder.mkdir()
        found = session.compare(folder=folder)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(spool, "STEP_BYTES", 1_000)
            patched.setattr(spool.Spool.__init__, "__defaults__", (None, 2_000))
            again = session.compare(folder=folder)
        assert again.differences == found.differences and again.tables == found.tables and found.differing == 2
        assert not list(folder.iterdir())


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    """A table that is not loaded, an alarm that is not settled, a definition that was changed, an unknown table."""
    shop = Shop("sqlite", tmp_path)
    shop.fill()
    with shop.session() as session:
        with pytest.raises(InvalidInput, match="not loaded completely"):
            session.compare()
        shop.begin(session)
        with pytest.raises(InvalidInput, match="no table"):
            session.compare(["nothing"])
        shop.run("UPDATE customer SET name = 'unseen' WHERE id = 1")
        pass_over(shop, session)
        shop.run("UPDATE customer SET name = 'seen' WHERE id = 1")
        with pytest.raises(CaptureStopped, match="customer/1 was missed"):
            session.compare()
        with pytest.raises(CaptureStopped, match="was stopped"):
            session.compare()
        session.reread(["customer"], "tried")
        assert session.compare().equal
        shop.run("CREATE TABLE other (id integer PRIMARY KEY)")
        shop.run("DROP TABLE line")
        shop.run(
            "CREATE TABLE line (order_id integer NOT NULL, number integer NOT NULL, sku varchar(30) NOT NULL, "
            "quantity integer NOT NULL, PRIMARY KEY (order_id, number))"
        )
    ignored = {"other": TableMapping(role="ignored")}
    changed = msgspec.structs.replace(shop.mapping, tables=shop.mapping.tables | ignored)
    with shop.session(changed) as session, pytest.raises(CaptureStopped, match=r"varchar\(20\)[^@]*varchar\(30\)"):
        session.compare()
    shop.application.close()


def test_tables_that_are_read_again_meanwhile_are_compared_again(tmp_path: Path) -> None:
    """The rows that were read are older than their events then: a new snapshot is taken."""
    with shop_of("sqlite", tmp_path) as (shop, session):
        shop.run("UPDATE orders SET note = 'seen' WHERE id = 4")
        turns: list[int] = []

        def catch_up() -> None:
            drain(session)
            if len(turns) < 2:
                turns.append(1)
                shop.run("UPDATE customer SET name = ? WHERE id = 1", f"later {len(turns)}")
                session.reread(["customer"], "tried")
                shop.run("UPDATE orders SET total = ? WHERE id = 4", len(turns))

        assert session.compare(catch_up=catch_up).equal
        assert len(turns) == 2
