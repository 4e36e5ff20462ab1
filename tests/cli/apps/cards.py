"""Payments, alerts on them, and targets, some of them wrong: for the tests of `eventfold alert`."""

from __future__ import annotations

from datetime import timedelta

import eventfold as ef
from eventfold.alerts import delivery
from eventfold.alerts.classes import Alert
from eventfold.alerts.detectors.rate import Rate, rate


class CardDeclined(ef.Event):
    """A payment that a bank declined."""

    card: ef.Tag
    amount: int = 0
    shop: str | None = None


class CardLost(ef.Event):
    """No event of the log is one."""

    card: ef.Tag


class CardTesting(Alert, severity="page"):
    """Many declined payments of one card."""

    card: ef.Tag
    declined: Rate = rate(per=timedelta(minutes=5), more_than=3)

    def evolve(self, event: CardDeclined) -> None:
        """Count."""
        self.declined.add()


class Misspelt(Alert, severity="ticket"):
    """Reads a field that the class does not have."""

    card: ef.Tag
    declined: Rate = rate(per=timedelta(minutes=5), more_than=3)

    def evolve(self, event: CardDeclined) -> None:
        """Count."""
        self.declined.add(event.amonut)  # type: ignore[attr-defined]


class Unfilled(Alert, severity="ticket"):
    """Reads a field that no event of the log has."""

    card: ef.Tag
    declined: Rate = rate(per=timedelta(minutes=5), more_than=3)

    def evolve(self, event: CardDeclined) -> None:
        """Count."""
        self.declined.add(1 if event.shop else 0)


class Silent(Alert, severity="ticket"):
    """Watches events of which the log has none."""

    card: ef.Tag
    declined: Rate = rate(per=timedelta(minutes=5), more_than=3)

    def evolve(self, event: CardLost) -> None:
        """Count."""
        self.declined.add()


class Twin(Alert, name="card_testing"):
    """Has the name of another."""

    card: ef.Tag
    declined: Rate = rate(per=timedelta(minutes=5), more_than=9)

    def evolve(self, event: CardDeclined) -> None:
        """Count."""
        self.declined.add()


messages: list[delivery.Message] = []
me = delivery.function(messages.append, name="me", group_page=0)
away = delivery.webhook("http://127.0.0.1:9/T0KEN-123456", secret=None, name="away", timeout=2.0, only=["card_testin"])
