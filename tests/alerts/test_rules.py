"""The test kit for rules, and rules that cannot work: each is refused when it is declared or compiled."""

from __future__ import annotations

import types
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.alerts.detectors.detector import as_field
from eventfold.alerts.facts import AlertRaised
from eventfold.errors import InvalidProjection
from eventfold.projections import projection_definition
from eventfold.testing import Clock, given
from tests.alerts.rules import CardTesting, NoOrders, OrderPlaced, PaymentDeclined, QuietCard, Silence


def test_given_events_a_rule_raises_or_is_silent() -> None:
    """Events, moments without events, and keys; the message of a failure names what was found."""
    declined = PaymentDeclined("c-1")
    given(*[declined] * 3).alert(CardTesting).silent().given(declined).raises("4 in 5 minutes", key="c-1")
    given(*[declined] * 4).alert(CardTesting).silent(key="c-2").later(minutes=6).silent()
    clock = Clock()
    scenario = given(OrderPlaced("o-1"), clock=clock).alert(NoOrders).silent()
    clock.advance(3_599)
    scenario.at(clock).silent().later(seconds=1).raises("Nothing for 60 minutes")
    scenario.given(OrderPlaced("o-2")).silent()
    assert [each.is_open for each in scenario.episodes] == [False]
    given().alert(NoOrders).silent().at(clock.now + timedelta(hours=1)).raises()


def test_a_failed_check_says_what_was_found() -> None:
    """The rule, the moment, and the open episodes with their reasons."""
    scenario = given(*[PaymentDeclined("c-1")] * 4).alert(CardTesting)
    with pytest.raises(AssertionError) as failed:
        scenario.silent()
    assert str(failed.value).splitlines() == [
        "expected CardTesting to be silent at 2026-01-01 00:00:00Z, found open:",
        "  c-1: 4 in 5 minutes, more than the limit of 3. (since 00:00:00Z)",
    ]
    with pytest.raises(AssertionError, match=r"expected CardTesting of 'c-2' to be raised at .*, found open"):
        scenario.raises(key="c-2")
    with pytest.raises(AssertionError, match=r"with 'disk' in its reason at .*, found no open episode"):
        given().alert(CardTesting).raises("disk")


def test_a_rule_judges_by_a_method_of_its_own() -> None:
    """`judge` reads all fields, plain ones too, and its reason is the episode's."""

    class Drained(ef.Alert, severity="ticket"):
        card: ef.Tag
        seen: int = 0
        declined: ef.Rate = ef.rate(per=ef.minutes(5))

        def evolve(self, event: PaymentDeclined, recorded: ef.Recorded[PaymentDeclined]) -> None:
            self.seen += recorded.position > 0
            self.declined.add()

        def judge(self) -> str | None:
            return f"{self.declined.count} of {self.seen} lately." if self.declined.count > 1 else None

    scenario = given(*[PaymentDeclined("c-1")] * 2).alert(Drained).raises("2 of 2 lately.")
    scenario.later(minutes=6).silent().given(PaymentDeclined("c-1")).silent()


def test_a_rule_that_returns_no_sentence_is_an_error() -> None:
    """True is no reason that a person can be given."""

    class Careless(ef.Alert):
        card: ef.Tag

        def evolve(self, event: PaymentDeclined) -> None: ...

        def judge(self) -> Any:
            return True

    with pytest.raises(
        InvalidProjection, match=r"Careless.judge returned True, which is no reason\. Return a sentence"
    ):
        given(PaymentDeclined("c-1")).alert(Careless).silent()


def test_class_keywords_are_checked_where_the_class_is_declared() -> None:
    """Severity, duration and time are of closed sets; the error names the class."""
    for keywords, message in [
        ({"severity": "high"}, r"Rule has severity='high'. Give one of 'page', 'ticket', 'none'"),
        ({"clear_after": 10}, r"Rule has clear_after=10. Give a duration, such as ef.minutes"),
        ({"clear_after": -ef.minutes(1)}, "clear_after"),
        ({"clear_after": timedelta.max}, "clear_after"),
        ({"by": "arrival"}, r"by='arrival'. Give one of 'recorded', 'occurred'"),
        ({"colour": "red"}, "colour"),
    ]:
        with pytest.raises((InvalidProjection, TypeError), match=message):
            types.new_class("Rule", (ef.Alert,), keywords)


def test_a_rule_that_can_never_fire_is_refused_where_it_is_declared() -> None:
    """No detector and no judge, or a detector without a limit."""
    with pytest.raises(InvalidProjection, match="Empty can never fire: it has no detector and no judge method"):

        class Empty(ef.Alert):  # pyright: ignore[reportUnusedClass]
            card: ef.Tag

            def evolve(self, event: PaymentDeclined) -> None: ...

    with pytest.raises(InvalidProjection, match=r"Waiting\.judge is an async function"):

        class Waiting(ef.Alert):  # pyright: ignore[reportUnusedClass]
            card: ef.Tag

            def evolve(self, event: PaymentDeclined) -> None: ...

            async def judge(self) -> str | None: ...  # type: ignore[override] # pyright: ignore

    with pytest.raises(InvalidProjection, match="can never fire: declined has no limit, and there is no judge"):

        class Limitless(ef.Alert):  # pyright: ignore[reportUnusedClass]
            card: ef.Tag
            declined: ef.Rate = ef.rate(per=ef.minutes(5))

            def evolve(self, event: PaymentDeclined) -> None:
                self.declined.add()


def test_rules_that_cannot_work_are_refused_when_they_are_compiled() -> None:
    """Each message names the class and what to write."""

    class OfFacts(ef.Alert):
        last: Silence = as_field(Silence())

        def evolve(self, event: AlertRaised) -> None: ...

    class OfEverything(ef.Alert):
        last: Silence = as_field(Silence())

        def evolve(self, event: ef.Event) -> None: ...

    class OtherKey(ef.Alert):
        account: ef.Tag
        last: Silence = as_field(Silence())

        def evolve(self, event: PaymentDeclined) -> None: ...

    class Taken(ef.Alert):
        card: ef.Tag
        last: Silence = as_field(Silence())
        due: int = 0

        def evolve(self, event: PaymentDeclined) -> None: ...

    class Untyped(ef.Alert):
        last: Silence = as_field(Silence())

        def evolve(self, event) -> None: ...  # type: ignore[no-untyped-def]

    class Mixed(ef.Alert):
        card: int | str
        times: int = 0

        def evolve(self, event: OrderPlaced) -> None: ...

        def judge(self) -> str | None:
            return "often" if self.times else None

    for rule, message in (
        (Mixed, "The key card of Mixed has several types"),
        (OfFacts, r"evolve takes \$alert-raised, and alerts write \$alert-"),
        (OfEverything, "evolve takes every event"),
        (OtherKey, "has account, but PaymentDeclined has no field of that name"),
        (Taken, "has a field due, which the rows of every alert have"),
        (Untyped, "Annotate it with event classes"),
    ):
        with pytest.raises(InvalidProjection, match=message):
            projection_definition(rule)


def test_two_rules_of_one_name_are_refused(memory: ef.Store) -> None:
    """They would share rows and facts."""

    class Other(ef.Alert, name="no_orders"):
        last: Silence = as_field(Silence())

        def evolve(self, event: OrderPlaced) -> None: ...

    with pytest.raises(ef.EventfoldError, match="named no_orders"):
        memory.run_until_idle(NoOrders, Other)


def test_an_alert_cannot_be_folded_within_appends(tmp_path: Path) -> None:
    """Its facts are appends themselves."""
    with pytest.raises(InvalidProjection, match="is an alert, which appends facts itself"):
        ef.Store(str(tmp_path / "store.db"), inline=[QuietCard])
