"""Events and rules of a shop, which the tests of alerts use."""

from __future__ import annotations

from collections.abc import Iterable

import eventfold as ef
from eventfold.alerts.detectors.detector import as_field
from eventfold.alerts.facts import CLEARED, RAISED, AlertCleared, AlertRaised, AlertWatching
from eventfold.core.query import Item, Query

HOUR_US = 3_600_000_000


class PaymentDeclined(ef.Event):
    """A card was refused."""

    card: ef.Tag


class OrderPlaced(ef.Event, type="AlertedOrderPlaced"):
    """An order came in."""

    order: ef.Tag


class Silence(ef.Detector):
    """Fires when nothing was marked for `expect` µs."""

    expect: int = HOUR_US
    last: int | None = None

    def mark(self) -> None:
        """Something came."""
        self.last = self.now

    def begin(self) -> None:
        """Wait from here."""
        self.last = self.now

    def fires(self, now: int) -> str | None:
        """Say how long nothing has come."""
        if self.last is None or now - self.last < self.expect:
            return None
        return f"Nothing for {(now - self.last) / 60_000_000:g} minutes."

    def due(self, now: int) -> int | None:
        """Return when the silence will be too long."""
        return self.last + self.expect if self.last is not None and self.last + self.expect > now else None


class CardTesting(ef.Alert, severity="page"):
    """Many declined payments of one card."""

    card: ef.Tag
    declined: ef.Rate = ef.rate(per=ef.minutes(5), more_than=3)

    def evolve(self, event: PaymentDeclined) -> None:
        """Count it."""
        self.declined.add()


class NoOrders(ef.Alert, severity="ticket"):
    """An order is expected every hour."""

    last: Silence = as_field(Silence())

    def evolve(self, event: OrderPlaced) -> None:
        """Note it."""
        self.last.mark()


class QuietCard(ef.Alert, severity="none", partitions=3):
    """Each card that was declined once is expected to be declined every hour."""

    card: ef.Tag
    last: Silence = as_field(Silence())

    def evolve(self, event: PaymentDeclined) -> None:
        """Note it."""
        self.last.mark()


FACTS = Query((Item((RAISED, CLEARED)),))
Fact = AlertRaised | AlertCleared


def facts(store: ef.Store, alert: str = "", after: int = 0) -> list[Fact]:
    """Return the raised and cleared facts of an alert, or of all, in order."""
    return [each.event for each in store.read(FACTS, after=after) if alert in ("", each.event.alert)]


def words(found: Iterable[Fact]) -> list[tuple[str, str]]:
    """Return what facts say, each as (raised or cleared, key)."""
    return [("raised" if isinstance(fact, AlertRaised) else "cleared", fact.key) for fact in found]


def watching(store: ef.Store, alert: str) -> list[AlertWatching]:
    """Return the facts that a rule began to watch."""
    found: list[AlertWatching] = [each.event for each in store.read(Query((Item(("$alert-watching",)),)))]
    return [each for each in found if each.alert == alert]
