"""After `close()` every call that needs the rows says that the store was closed, and none opens a database again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.errors import StoreClosed
from tests.projections.flights import CarrierMonth, flights
from tests.projections.modes import opened


class Elsewhere(CarrierMonth, name="closed_elsewhere", target="memory:"):
    """The same in another database, which would be empty if it was opened again."""


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_rows_of_a_closed_store_are_an_error(url: str, mode: str) -> None:
    """In the log's database and in another one, also by a selection that was made before."""
    with opened(url, mode) as store:
        store.extend(flights(20))
        store.project(CarrierMonth, Elsewhere)
        assert store.rows(CarrierMonth) and store.rows(Elsewhere)
        store.close()
        for call in (
            lambda: store.rows(CarrierMonth),
            lambda: store.rows(Elsewhere),
            lambda: store.project(CarrierMonth),
            lambda: store.wait(CarrierMonth, 1),
            lambda: store.projections.list(),
            lambda: store.projections.status(),
            lambda: store.projections.parked(CarrierMonth),
            lambda: store.projections.checkpoints(CarrierMonth),
            lambda: store.projections.verify(CarrierMonth),
        ):
            with pytest.raises(StoreClosed, match=r"(closed|not open)"):
                call()


def test_a_selection_that_was_made_before_is_an_error_as_well(tmp_path: Path) -> None:
    """Its rows would be read over a connection that is opened again, and stays open."""
    with ef.Store(str(tmp_path / "s.db")) as store:
        store.extend(flights(20))
        store.project(CarrierMonth)
        selected = store.select(CarrierMonth)
        asked: list[Callable[[], object]] = [selected.count, selected.rows, selected.first, selected.exists]
        assert all(ask() for ask in asked)
        store.close()
        store.close()
        for ask in asked:
            with pytest.raises(StoreClosed, match="was closed"):
                ask()
