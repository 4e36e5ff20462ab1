"""Events of decisions are folded to rows as those of a migration are, so that rows can be compared after a cutover."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventfold.errors import InvalidInput
from eventfold.migrate.rows import FoldedRows
from tests.migrate.test_reverse import BOSS, CLERK, TEAM, Reversed, reversed_into


def folded(made: Reversed) -> FoldedRows:
    """Return the folded rows of a store, as a new reader sees them."""
    return FoldedRows(made.store, made.plan.events)


def test_a_decision_changes_the_folded_row(tmp_path: Path) -> None:
    """Values are as the column holds them; what the database makes is not known, and not said to be NULL."""
    with reversed_into("sqlite", tmp_path) as made:
        made.decide(TEAM, BOSS, CLERK, ("ItemAdded", {"person": 8, "nr": 1, "price": "1.5", "quantity": 3}))
        made.decide(("PersonLeft", {"id": 7, "gone": True}), ("PersonLeft", {"id": 8}))
        rows = folded(made).table("item")
        assert rows["8/1"].values == {"person": 8, "nr": 1, "price": "1.50", "quantity": 3}
        assert rows["8/1"].is_decided
        people = folded(made)
        assert people.get("person", "8").values is None, "it is removed"
        anna = people.get("person", "7")
        assert anna.values is not None and anna.values["gone"] is True
        assert anna.completed({"id": 7, "secret": "x", "name": "other"}) == {"secret": "x"} | anna.values


def test_an_event_that_no_row_has_is_refused(tmp_path: Path) -> None:
    """An event without the tag of its row would not be found when its row is folded."""
    with reversed_into("sqlite", tmp_path) as made:
        made.tag = lambda name, data: "person:1"  # type: ignore[method-assign]
        made.decide(BOSS)
        with pytest.raises(InvalidInput, match="does not say which row of person"):
            made.projection.catch_up()
