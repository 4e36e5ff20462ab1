"""Fingerprints in stores stay those of the same code, also when this package moves its own modules."""

import eventfold as ef
from eventfold.core.fingerprint import fingerprint
from eventfold.projections.definition import projection_definition


class Placed(ef.Event, type="recorded-fingerprints-placed"):
    """An event with a tag."""

    order: ef.Tag
    amount: int


class Order(ef.Aggregate):
    """A state whose fields name a generic class of this package."""

    order: ef.Tag
    amount: int = 0
    last: ef.Recorded[ef.Event] | None = None

    def evolve(self, event: Placed) -> None:
        """Use a class of this package."""
        self.amount += event.amount if isinstance(event, ef.Event) else 0


class Rows(ef.Projection):
    """A read model whose key is this package's default."""

    order: str
    amount: int = 0

    def evolve(self, event: Placed) -> None:
        """Use a function and a class of this package."""
        self.amount += event.amount if ef.Query(Placed) and ef.diff else 0


def test_a_state_has_the_fingerprint_that_stores_hold() -> None:
    """A snapshot that an earlier release stored is used."""
    assert fingerprint(Order).digest == "49f9272733f0dfbdf383f490"


def test_a_read_model_has_the_fingerprint_that_stores_hold() -> None:
    """Rows of an earlier release are not reported as made by other code."""
    assert projection_definition(Rows).fingerprint == "c41fbebe-9cf1122cd4e63e3ad4b16aeb"
