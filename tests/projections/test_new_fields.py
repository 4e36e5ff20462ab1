"""A read model whose class has a field that its rows were not folded with."""

from __future__ import annotations

from pathlib import Path

import pytest

import eventfold as ef
from eventfold.errors import InvalidProjection, InvalidState, ProjectionChanged


class ToolAdded(ef.Event, type="new-fields.tool-added"):
    tool: ef.Tag


class Shelf(ef.Projection):
    tool: str
    added: int = 0

    def evolve(self, event: ToolAdded) -> None:
        self.added += 1


class ShelfOfToday(ef.Projection, name="shelf"):
    tool: str
    added: int = 0
    kind: str = "tool"
    stock: int = 0

    def evolve(self, event: ToolAdded) -> None:
        self.added += 1
        self.stock += 1


class ShelfThatDoubles(ef.Projection, name="shelf"):
    """A field more, and a fault: everything is counted twice."""

    tool: str
    added: int = 0
    kind: str = "tool"
    stock: int = 0
    size: str = ""

    def evolve(self, event: ToolAdded) -> None:
        self.added += 2
        self.stock += 2


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_column_that_the_rows_do_not_have_is_an_error_and_never_a_text(
    shared_url: str, tmp_path: Path, elsewhere: bool
) -> None:
    """SQLite would read a quoted name that is no column as a text; after the rebuild the rows have it."""
    target = f"duckdb:{tmp_path / 'rows.duckdb'}" if elsewhere else None
    with ef.Store(shared_url, target=target) as store:
        store.append(ToolAdded("drill"))
        store.project(Shelf)
        for ask in (
            lambda: store.rows(ShelfOfToday),
            lambda: store.rows(ShelfOfToday, kind="kind"),
            lambda: store.select(ShelfOfToday).sum(ef.col(ShelfOfToday.stock)),
        ):
            with pytest.raises(ProjectionChanged, match="have no column kind, stock") as refused:
                ask()
            assert "if the class here is the newer one, rebuild the rows" in refused.value.remedy
        store.projections.rebuild(ShelfOfToday)
        store.projections.switch(ShelfOfToday)
        assert store.rows(ShelfOfToday, kind="tool") == [ShelfOfToday("drill", 1, "tool", 1)]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_older_code_that_reads_rows_without_its_column_is_an_error_that_names_other_code(
    shared_url: str, tmp_path: Path, elsewhere: bool
) -> None:
    """After the switch of newer code that dropped fields: the error names generation and columns, not a database."""
    target = f"duckdb:{tmp_path / 'rows.duckdb'}" if elsewhere else None
    with ef.Store(shared_url, target=target) as store:
        store.append(ToolAdded("drill"))
        store.project(ShelfOfToday)
        store.projections.rebuild(Shelf)
        store.projections.switch(Shelf)
        for ask in (
            lambda: store.rows(ShelfOfToday),
            lambda: store.select(ShelfOfToday).sum(ef.col(ShelfOfToday.stock)),
        ):
            with pytest.raises(ProjectionChanged, match=r"shelf \(generation 2\) were made by other code") as refused:
                ask()
            assert "If newer code made them, deploy it here" in refused.value.remedy
            assert refused.value.fields["columns"] == ["kind", "stock"]
        assert store.rows(Shelf) == [Shelf("drill", 1)]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_generations_are_compared_without_the_columns_that_one_does_not_have(
    shared_url: str, tmp_path: Path, elsewhere: bool
) -> None:
    """Before the switch and after it, by either code: shared values are compared, the new fields are named."""
    target = f"duckdb:{tmp_path / 'rows.duckdb'}" if elsewhere else None
    with ef.Store(shared_url, target=target) as store:
        store.append(ToolAdded("drill"), ToolAdded("saw"))
        store.project(Shelf)
        store.projections.rebuild(ShelfOfToday)
        for code in (ShelfOfToday, ShelfOfToday, Shelf):
            found = store.projections.compare(code)
            assert (found.equal, found.rows) == (True, (2, 2))
            assert found.left_out == (("kind", "stock") if code is ShelfOfToday else ())
            if found.generations == (1, 2):
                store.projections.switch(ShelfOfToday)
        store.projections.rebuild(ShelfThatDoubles)
        found = store.projections.compare(ShelfThatDoubles)
        assert (found.different, found.left_out) == (2, ("size",))
        assert found.differences[0].before is not None and len(found.differences[0].before) == 4


class RepairedAtFirst(ef.Event, type="new-fields.repaired", version=1):
    tool: ef.Tag


class Repaired(ef.Event, type="new-fields.repaired", version=2):
    tool: ef.Tag
    workshop: str


@ef.upcast
def with_workshop(old: RepairedAtFirst) -> Repaired:
    """Repairs of the first years were made by the library itself."""
    return Repaired(old.tool, "our own")


def test_a_fold_that_names_a_class_whose_events_are_upcast_is_refused() -> None:
    """It would get none of them: states and read models name the class of today."""

    class Tool(ef.State):
        tool: ef.Tag
        repaired: int = 0

        def evolve(self, event: RepairedAtFirst) -> None:
            self.repaired += 1

    class Repairs(ef.Projection):
        tool: str
        repaired: int = 0

        def evolve(self, event: ToolAdded | RepairedAtFirst) -> None:
            self.repaired += 1

    with ef.Store("memory:") as store:
        store.append(Repaired("drill", "Meyer"))
        with pytest.raises(InvalidState, match="upcast to Repaired and never reach it"):
            store.state(Tool("drill"))
        with pytest.raises(InvalidProjection, match="Name Repaired instead"):
            store.project(Repairs)
