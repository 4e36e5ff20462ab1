"""How many messages a person gets: grouping, reminders, the budget, hours, snoozes; with a clock that the test sets."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

import eventfold as ef
from eventfold.alerts import delivery
from eventfold.alerts.delivery import Message
from eventfold.alerts.delivery.delivery import Options
from eventfold.testing.clock import Clock
from tests.alerts.delivery.facts import HOUR, MINUTE, acknowledged, cleared, raised, record, snoozed


class Office:
    """A store with a target, both at the time of one clock. `got`: the messages since the last question."""

    def __init__(self, clock: Clock, options: Options) -> None:
        self.clock, self.received = clock, list[Message]()
        self.store = ef.Store("memory:", clock=clock)
        self.target = delivery.function(self.received.append, **{"name": "me", **options})
        self.run()

    def run(self) -> None:
        """Do what is due."""
        self.store.run_until_idle(self.target, clock=self.clock)

    def after(self, seconds: float) -> list[str]:
        """The sentences of the messages that came until then, second by second at the end of it."""
        self.clock.advance(seconds)
        self.run()
        found = [message.sentence for message in self.received]
        self.received.clear()
        return found


@pytest.fixture
def clock() -> Clock:
    """A clock, on a Monday at noon."""
    return Clock(datetime(2026, 6, 1, 12, tzinfo=UTC))


@pytest.fixture
def office(clock: Clock, options: Options) -> Iterator[Office]:
    """A store with a target."""
    office = Office(clock, options)
    yield office
    office.store.close()


@pytest.fixture
def options() -> Options:
    """The options of the target."""
    return {}


def test_one_message_when_raised_and_one_when_cleared(office: Office, clock: Clock) -> None:
    """A page within seconds; nothing is sent twice."""
    first = raised("c-1", clock())
    record(office.store, first)
    assert office.after(1) == []
    assert office.after(1) == ["CardTesting c-1: c-1 fails."]
    assert office.after(600) == []
    record(office.store, cleared(first, clock()))
    assert office.after(2) == ["CardTesting c-1 is cleared"]
    assert office.after(86_400) == []


def test_the_end_of_an_episode_that_was_raised_and_cleared_within_a_group_is_announced(
    office: Office, clock: Clock
) -> None:
    """Also if the end of an earlier episode of the same key is due at that moment: each that is raised is cleared."""
    first = raised("c-1", clock())
    record(office.store, first)
    assert office.after(2) == ["CardTesting c-1: c-1 fails."]
    second, third = raised("c-1", clock() + 1), raised("c-1", clock() + 2)
    record(office.store, cleared(first, clock()), second, cleared(second, clock() + 1), third)
    assert office.after(2) == ["CardTesting: 2 keys", "CardTesting: 2 keys are cleared"]
    assert office.after(600) == []


def test_episodes_of_one_alert_are_grouped_for_half_a_minute(office: Office, clock: Clock) -> None:
    """Fourteen cards are one message; another alert has its own; the first ten are listed, all are counted."""
    facts = [raised(f"c-{number}", clock(), severity="ticket") for number in range(14)]
    for fact in facts:
        record(office.store, fact)
        assert office.after(2) == []
    record(office.store, raised("", clock(), "NoOrders", "ticket"))
    clock.advance(2)
    office.run()
    (message,) = office.received
    assert message.title == "[ticket] CardTesting: 14 keys" and (message.count, len(message.entries)) == (14, 10)
    assert "- c-9: c-9 fails." in message.body and "- and 4 more" in message.body
    office.received.clear()
    record(office.store, *(cleared(fact, clock()) for fact in facts))
    assert office.after(30) == ["CardTesting: 14 keys are cleared", "NoOrders: NoOrders fails."]


def test_an_episode_that_ends_before_its_message_is_reported_too(office: Office, clock: Clock) -> None:
    """First that it was raised, then that it is cleared, however short it was."""
    first = raised("c-1", clock(), severity="ticket")
    record(office.store, first, cleared(first, clock()))
    assert office.after(29) == []
    assert office.after(1) == ["CardTesting c-1: c-1 fails.", "CardTesting c-1 is cleared"]


def test_what_is_still_raised_is_sent_again_after_four_hours(office: Office, clock: Clock) -> None:
    """Again and again, until it is cleared."""
    first = raised("c-1", clock())
    record(office.store, first)
    office.after(2)
    assert office.after(4 * 3600 - 1) == []
    assert office.after(1) == ["CardTesting c-1 is still raised after 4 h"]
    assert office.after(4 * 3600) == ["CardTesting c-1 is still raised after 8 h"]
    record(office.store, cleared(first, clock()))
    office.after(60)
    assert office.after(9 * 3600) == []


def test_an_acknowledged_episode_sends_no_reminder_until_that_ends(office: Office, clock: Clock) -> None:
    """The others of the alert do; and its end is reported."""
    first, second = raised("c-1", clock()), raised("c-2", clock())
    record(office.store, first, second)
    office.after(2)
    record(office.store, acknowledged(first, clock() + 6 * HOUR))
    assert office.after(4 * 3600) == ["CardTesting c-2 is still raised after 4 h"]
    record(office.store, cleared(second, clock()), acknowledged(first, clock() + 5 * HOUR))
    assert office.after(60) == ["CardTesting c-2 is cleared"]
    assert office.after(5 * 3600 - 61) == []
    assert office.after(1) == ["CardTesting c-1 is still raised after 9 h"]
    record(office.store, cleared(first, clock()))
    assert office.after(2) == ["CardTesting c-1 is cleared"]


def test_a_snoozed_key_sends_nothing_until_that_ends(office: Office, clock: Clock) -> None:
    """Neither new episodes nor reminders; what is open then is announced, what has ended is not."""
    open_before = raised("c-0", clock())
    record(office.store, open_before)
    office.after(2)
    record(office.store, snoozed("c-1", clock() + 5 * HOUR), snoozed("c-0", clock() + 5 * HOUR))
    short, long = raised("c-1", clock()), raised("c-1", clock() + MINUTE)
    record(office.store, short, cleared(short, clock()), long, raised("c-2", clock()))
    assert office.after(2) == ["CardTesting c-2: c-2 fails."]
    assert office.after(4 * 3600) == ["CardTesting c-2 is still raised after 4 h"]
    assert office.after(3600 - 2) == ["CardTesting c-1: c-1 fails."]
    assert office.after(2 * 3600) == []
    assert office.after(2 * 3600) == ["CardTesting: 3 keys are still raised after 9 h"]


def test_a_snoozed_alert_sends_nothing_about_any_key(office: Office, clock: Clock) -> None:
    """Other alerts do."""
    record(office.store, snoozed(None, clock() + HOUR), raised("c-1", clock()), raised("c-2", clock(), "Other"))
    assert office.after(60) == ["Other c-2: c-2 fails."]
    assert office.after(3540) == ["CardTesting c-1: c-1 fails."]


@pytest.mark.parametrize("options", [{"budget": 5}])
def test_an_alert_sends_its_budget_in_an_hour_then_one_message_that_says_so(office: Office, clock: Clock) -> None:
    """What follows is not lost: it is sent together, as soon as the budget allows. Another alert has its own."""
    found: list[str] = []
    for number in range(12):
        record(office.store, raised(f"c-{number}", clock()))
        found += office.after(60)
    assert found[:5] == [f"CardTesting c-{number}: c-{number} fails." for number in range(5)]
    assert found[5:] == ["CardTesting sent 5 messages within an hour; the next may come at 2026-06-01T13:01:00Z"]
    record(office.store, raised("", clock(), "Other"))
    assert office.after(2) == ["Other: Other fails."]
    assert office.after(3660 - 722 - 1) == []
    assert office.after(1) == ["CardTesting: 7 keys"]


class Day:
    """Hours from 7:00 to 15:00 in UTC."""

    def after(self, start: int, open_micros: int) -> int:
        """See Hours."""
        hour = start % (24 * HOUR)
        if 7 * HOUR <= hour < 15 * HOUR:
            return start + open_micros
        return start - hour + (7 * HOUR if hour < 7 * HOUR else 31 * HOUR) + open_micros


@pytest.mark.parametrize("options", [{"hours": Day()}])
def test_a_ticket_waits_for_the_hours_and_a_page_does_not(office: Office, clock: Clock) -> None:
    """The ticket comes when the hours begin, the next morning."""
    clock.advance(3 * 3600)
    record(office.store, raised("c-1", clock(), "Odd", "ticket"), raised("c-2", clock(), "Urgent", "page"))
    assert office.after(60) == ["Urgent c-2: c-2 fails."]
    assert [each for each in office.after(16 * 3600 - 61) if "Odd" in each] == []
    assert office.after(1) == ["Odd c-1: c-1 fails."]


@pytest.mark.parametrize("options", [{"severities": ["page"], "only": ["CardTesting"]}])
def test_a_target_gets_the_severities_and_the_alerts_that_it_is_for(office: Office, clock: Clock) -> None:
    """Nothing else, neither when raised nor when cleared."""
    other, ticket = raised("", clock(), "Other"), raised("c-1", clock(), severity="ticket")
    record(office.store, other, ticket, cleared(other, clock()), cleared(ticket, clock()), raised("c-2", clock()))
    assert office.after(60) == ["CardTesting c-2: c-2 fails."]


def test_a_new_target_is_sent_what_is_open_and_nothing_that_has_ended(office: Office, clock: Clock) -> None:
    """What was raised and cleared before it was first run is history."""
    past, still = raised("c-1", clock()), raised("c-2", clock())
    record(office.store, past, still, cleared(past, clock()))
    office.after(10)
    second = list[Message]()
    clock.advance(60)
    office.store.run_until_idle(delivery.function(second.append, name="second"), clock=clock)
    assert [message.sentence for message in second] == ["CardTesting c-2: c-2 fails."]
    clock.advance(60)
    office.store.run_until_idle(delivery.function(second.append, name="second"), clock=clock)
    assert len(second) == 1


def test_a_clock_that_jumps_sends_nothing_twice(office: Office, clock: Clock) -> None:
    """An hour back, and a day ahead: each state is reported once, and a reminder is only sent late or early."""
    first = raised("c-1", clock())
    record(office.store, first)
    assert office.after(2) == ["CardTesting c-1: c-1 fails."]
    clock.back(3600)
    assert office.after(1) == []
    second = raised("c-2", clock())
    record(office.store, second)
    assert office.after(3601) == ["CardTesting c-2: c-2 fails."]
    assert office.after(86_400) == ["CardTesting: 2 keys are still raised after 25 h"]
    record(office.store, cleared(first, clock()), cleared(second, clock()))
    assert office.after(2) == ["CardTesting: 2 keys are cleared"]
    clock.back(2 * 86_400)
    assert office.after(60) == []
