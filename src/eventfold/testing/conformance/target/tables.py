"""Tables: rows are written whole by their keys, and read by key, in pages, all of them."""

from __future__ import annotations

import pytest

from eventfold.core.table import Column, Table, generation_table
from eventfold.ports.target import PartitionKey, ProjectionRecord, Target
from eventfold.selection.conditions import OrderTerm, RowQuery
from eventfold.testing.conformance.target.flights import new_checkpoints

NAME = "conformance_table"
KEY = PartitionKey(NAME, 1)
DECLARED = Table(
    NAME,
    (Column("id", "text"), Column("part", "int"), Column("amount", "int", nullable=True), Column("note", "text")),
    ("id", "part"),
    (("amount",),),
)
TABLE = generation_table(DECLARED, 1)
BY_KEY = (OrderTerm(TABLE.columns[0]), OrderTerm(TABLE.columns[1]))


@pytest.fixture
def table(target: Target) -> Table:
    """The table of a projection's first generation."""
    record = ProjectionRecord(name=NAME, kind="rows", code="m:C", live=1, tables=(NAME,))
    with target.control(NAME) as tx:
        tx.create(record, {NAME: DECLARED}, new_checkpoints(NAME))
    with target.transaction(KEY) as tx:
        tx.upsert(TABLE, [("a", 1, 5, "x"), ("a", 2, None, "y"), ("b", 1, -3, "x"), ("c", 1, 5, "")])
    return TABLE


def test_rows_are_loaded_by_their_keys(target: Target, table: Table) -> None:
    """`load` returns the rows that exist; a key without a row is no error."""
    assert target.load(table, [("a", 2), ("z", 1), ("c", 1)]) in (
        [("a", 2, None, "y"), ("c", 1, 5, "")],
        [("c", 1, 5, ""), ("a", 2, None, "y")],
    )
    assert target.load(table, []) == []


def test_a_row_is_replaced_whole_and_deleted_by_its_key(target: Target, table: Table) -> None:
    """Also within one transaction; deleting a key that does not exist is no error."""
    with target.transaction(KEY) as tx:
        tx.upsert(table, [("a", 1, None, "new")])
        tx.delete(table, [("b", 1), ("z", 9)])
        tx.upsert(table, [("a", 1, 7, "newer")])
    assert target.find(table, RowQuery(order=BY_KEY)) == [
        ("a", 1, 7, "newer"),
        ("a", 2, None, "y"),
        ("c", 1, 5, ""),
    ]


def test_a_scan_gives_every_row_once_in_the_order_of_keys(target: Target, table: Table) -> None:
    """A scan returns all rows, in pages, however many there are."""
    with target.transaction(KEY) as tx:
        tx.upsert(table, [("n", number, number, "") for number in range(2_500)])
    pages = list(target.scan(table))
    keys = [row[:2] for page in pages for row in page]
    assert len(pages) > 1
    assert keys == sorted(keys)
    assert len(keys) == len(set(keys)) == 2_504


def test_a_dump_gives_every_row(target: Target, table: Table) -> None:
    """The database sorts the rows; two dumps are equal."""
    dumped = list(target.dump(NAME, 1))
    assert len(dumped) == 4
    assert dumped == list(target.dump(NAME, 1))


def test_a_table_of_this_release_is_not_outdated(target: Target, table: Table) -> None:
    """Only tables of earlier releases may have to be rebuilt."""
    assert not target.outdated(table)
