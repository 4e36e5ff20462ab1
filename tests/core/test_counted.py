"""Numbers with their nouns: one event, two events."""

from __future__ import annotations

import eventfold as ef
from eventfold.core.counted import count_of, each_of


class Made(ef.Event, type="counted.made"):
    """Something was made."""

    name: ef.Tag


class Makes(ef.Projection, name="counted_makes"):
    """What was made."""

    name: str
    count: int = 0

    def evolve(self, event: Made) -> None:
        """Count."""
        self.count += 1


def test_one_is_singular() -> None:
    """Any other number is plural, also none."""
    assert [count_of(number, "row") for number in (0, 1, 2_000)] == ["0 rows", "1 row", "2,000 rows"]
    assert [each_of(number, "row") for number in (0, 1, 2)] == ["Each of 0 rows", "The one row", "Each of 2 rows"]


def test_proofs_of_one_event_and_of_one_row_are_in_the_singular() -> None:
    """Of several they are in the plural."""
    with ef.Store("memory:") as store:
        for events, rows in (("The one event was", "The one row equals"), ("Each of 2 events was", "Each of 2 rows")):
            store.append(Made(events))
            store.project(Makes)
            assert store.projections.verify(Makes)[0].verdict.startswith(events)
            assert store.projections.verify_rows(Makes)[0].verdict.startswith(rows)
