"""`compare`: rows and events are equal at one watermark, or each difference is named, with the event that gave ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from eventfold.migrate.comparison import Comparison
from eventfold.migrate.progress import Compared
from eventfold.migrate.session import Session
from tests.migrate.shop import WAYS, Shop
from tests.migrate.test_capture import opened, pass_over
from tests.support.memory import tmp_path as tmp_path  # no promise here is about a disk


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
