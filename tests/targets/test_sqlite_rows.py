"""Rows on SQLite: pages of any size are written and loaded by few different statements, and no thread reads ahead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.core.table import Column, Table, generation_table
from eventfold.ports.messages import Capabilities
from eventfold.ports.target import Checkpoint, PartitionKey, ProjectionRecord, RowRefused
from eventfold.projections.prefetch import can_prefetch
from eventfold.targets.sql.target import SqlTarget
from eventfold.targets.sqlite.driver import MAX_ROWS_PER_STATEMENT, SqliteDriver
from eventfold.targets.sqlite.statements import SqliteStatements

ONE = Table("one", (Column("id", "text"), Column("amount", "int", nullable=True)), ("id",))
TWO = Table("two", (Column("id", "text"), Column("at", "moment"), Column("amount", "int")), ("id", "at"))
SIZES = (0, 1, 2, 3, 7, 64, MAX_ROWS_PER_STATEMENT - 1, MAX_ROWS_PER_STATEMENT, MAX_ROWS_PER_STATEMENT + 1, 1_203)


class Spied(SqliteDriver):
    """A driver that remembers the statements it runs."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.ran: list[str] = []

    def connection(self, lent: Any) -> Any:
        """Return a connection whose statements are remembered."""
        connection = super().connection(lent)
        connection.exec_trace = lambda _cursor, sql, _bindings: not self.ran.append(sql)
        return connection


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Spied]:
    """A driver of an own file."""
    spied = Spied(str(tmp_path / "rows.db"))
    yield spied
    spied.close()


def created(driver: Spied, declared: Table) -> SqlTarget:
    """A target with the table of a projection."""
    target = SqlTarget(driver, SqliteStatements(driver))
    key = PartitionKey(declared.name, 1)
    record = ProjectionRecord(name=declared.name, kind="rows", code="m:C", live=1, tables=(declared.name,))
    checkpoint = Checkpoint(place=key, store="s", epoch=1, query="{}", fingerprint="f")
    with target.control(declared.name) as tx:
        tx.create(record, {declared.name: declared}, [checkpoint])
    return target


@pytest.mark.parametrize("size", SIZES)
def test_a_page_of_any_size_is_written_whole_and_loaded_whole(driver: Spied, size: int) -> None:
    """Also a page that is not a multiple of the rows of a statement; a key without a row is not found."""
    target, table = created(driver, ONE), generation_table(ONE, 1)
    rows = [(f"k{number * 7 % size}", number) for number in range(size)] if size else []
    rows = list({row[0]: row for row in rows}.values())
    for _ in range(2):  # the second time as replacements
        with target.transaction(PartitionKey(ONE.name, 1)) as tx:
            tx.upsert(table, rows)
        found = target.load(table, [*[(row[0],) for row in rows], ("absent",)])
        assert sorted(found) == sorted(rows)
        rows = [(key, None) for key, _ in rows]


@pytest.mark.parametrize("declared", [ONE, TWO])
def test_rows_that_must_be_new_are_inserted_or_refused(driver: Spied, declared: Table) -> None:
    """A moment in a key is the same in every zone. The rows before the refused one are undone with the transaction."""
    from datetime import UTC, datetime, timedelta, timezone

    target, table, key = created(driver, declared), generation_table(declared, 1), PartitionKey(declared.name, 1)
    noon = datetime(2026, 1, 2, 12, tzinfo=UTC)

    def rows(first: int, last: int, at: datetime) -> list[tuple[Any, ...]]:
        middle = () if declared is ONE else (at,)
        return [(f"k{number:04}", *middle, number) for number in range(first, last)]

    with target.transaction(key) as tx:
        tx.insert(table, rows(0, 1_203, noon))
    with pytest.raises(RowRefused), target.transaction(key) as tx:
        tx.insert(table, [*rows(2_000, 2_700, noon), *rows(7, 8, noon.astimezone(timezone(timedelta(hours=9))))])
    assert [row for page in target.scan(table) for row in page] == rows(0, 1_203, noon)
    with target.transaction(key) as tx:
        tx.insert(table, rows(2_000, 2_001, noon))
    assert len([row for page in target.scan(table) for row in page]) == 1_204


def test_pages_of_many_sizes_need_few_statements(driver: Spied) -> None:
    """Statements of 1, 2, 4, … rows or keys stay prepared; one for each number of rows would not."""
    target, table = created(driver, ONE), generation_table(ONE, 1)
    for size in range(1, 200):
        rows = [(f"k{number}", size) for number in range(size)]
        with target.transaction(PartitionKey(ONE.name, 1)) as tx:
            tx.upsert(table, rows)
        assert len(target.load(table, [(row[0],) for row in rows])) == size
    of_rows = {sql for sql in driver.ran if "one__1" in sql and "CREATE" not in sql}
    assert 2 < len(of_rows) <= 2 * 9 + 1


def test_rows_with_an_order_column_in_their_key_are_loaded(driver: Spied) -> None:
    """A moment in a key is compared as a moment, in whatever zone it is asked for."""
    from datetime import UTC, datetime, timedelta, timezone

    target, table = created(driver, TWO), generation_table(TWO, 1)
    noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    with target.transaction(PartitionKey(TWO.name, 1)) as tx:
        tx.upsert(table, [(f"k{number}", noon + timedelta(hours=number), number) for number in range(5)])
    east = timezone(timedelta(hours=9))
    wanted = [(f"k{number}", (noon + timedelta(hours=number)).astimezone(east)) for number in (4, 0, 2)]
    assert sorted(row[2] for row in target.load(table, wanted)) == [0, 2, 4]


def test_a_page_is_read_ahead_only_where_another_thread_can_work(tmp_path: Path) -> None:
    """SQLite holds the interpreter; a server does not, and neither does a target that does not say."""
    with ef.Store(str(tmp_path / "log.db")) as store:
        log, target = store.projections.log, SqlTarget(SqliteDriver(str(tmp_path / "rows.db")))
        assert not can_prefetch(log, target)
        target.releases_interpreter = True
        assert can_prefetch(log, target)
        del target.releases_interpreter
        assert can_prefetch(log, target)
        target.releases_interpreter = False
        assert not log.engine.capabilities.releases_interpreter
    assert not Capabilities().releases_interpreter
