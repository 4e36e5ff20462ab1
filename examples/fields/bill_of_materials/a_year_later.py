"""A question that was not thought of when the first unit was built: which units contain a substance, and who has them.

Knows: events that were recorded before the question. Does not know: when they were recorded. None was changed for it.

REACH, Regulation (EC) 1907/2006, article 33: a customer who asks is answered within 45 days whether an article has more
than 0.1 % by weight of a substance on the candidate list. An article in another one stays an article (Court of Justice,
C-106/14): a horn of brass on a bicycle counts by its own weight.
"""

from __future__ import annotations

import eventfold as ef
from examples.fields.bill_of_materials.app import PartDefined, UnitBuilt, UnitShipped

THRESHOLD = 0.001  # of an article's weight


class Affected(ef.State):
    """Units with an article that has more than the threshold of a substance, and the customers who have them."""

    substance: str
    articles: dict[str, float] = {}
    units: dict[str, list[str]] = {}
    customers: dict[str, str] = {}

    def query(self) -> ef.Query:
        """All parts and units, whatever the substance."""
        return ef.Query.of(types=[PartDefined, UnitBuilt, UnitShipped])

    def evolve(self, event: PartDefined | UnitBuilt | UnitShipped) -> None:
        match event:
            case PartDefined(specification=specification):
                grams = sum(each.grams for each in specification.substances if each.name == self.substance)
                if grams > THRESHOLD * specification.grams:
                    self.articles[event.part] = grams / specification.grams
            case UnitBuilt():
                if found := [part for part in event.parts if part in self.articles]:
                    self.units[event.unit] = found
            case UnitShipped():
                if event.unit in self.units:
                    self.customers[event.unit] = event.customer
