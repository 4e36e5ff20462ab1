"""Episodes: when a rule raises and clears an alert, and that each fact is written once."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import eventfold as ef
from eventfold.alerts.detectors.detector import as_field
from eventfold.alerts.episode_log import MAX_FACTS
from eventfold.testing.clock import Clock
from tests.alerts.rules import (
    HOUR_US,
    CardTesting,
    NoOrders,
    OrderPlaced,
    PaymentDeclined,
    QuietCard,
    Silence,
    facts,
    watching,
    words,
)


def test_a_rule_raises_once_and_time_clears_it(either: ef.Store, clock: Clock) -> None:
    """Four events raise it, more change nothing, and it is cleared when the window has passed, without an event."""
    store = either
    store.run_until_idle(CardTesting, clock=clock)
    for _ in range(3):
        store.append(*[PaymentDeclined("c-1"), PaymentDeclined("c-2")] * 2)
        store.run_until_idle(CardTesting, clock=clock)
    raised = facts(store)
    assert words(raised) == [("raised", "c-1"), ("raised", "c-2")]
    assert getattr(raised[0], "severity", "") == "page" and "4" in raised[0].reason
    clock.advance(1_000)
    store.run_until_idle(CardTesting, clock=clock)
    store.run_until_idle(CardTesting, clock=clock)
    cleared = facts(store)[2:]
    assert sorted(words(cleared)) == [("cleared", "c-1"), ("cleared", "c-2")]
    assert {each.episode for each in cleared} == {each.episode for each in raised}
    store.append(PaymentDeclined("c-1"))  # this event passes the moment at which it was cleared
    store.run_until_idle(CardTesting, clock=clock)
    assert len(facts(store)) == 4
    assert all(proof.proved for proof in store.projections.verify())


def test_silence_is_noticed_by_the_clock_and_ended_by_an_event(either: ef.Store, clock: Clock) -> None:
    """A moment at which nothing happened raises the alert; the next event clears it."""
    store = either
    store.run_until_idle(NoOrders, clock=clock)
    store.append(OrderPlaced("o-1"))
    store.run_until_idle(NoOrders, clock=clock)
    assert facts(store) == []
    clock.advance(2 * 3600)
    store.run_until_idle(NoOrders, clock=clock)
    (raised,) = facts(store)
    order = next(iter(store.read(ef.Query.of(types=[OrderPlaced]))))
    assert raised.at == order.stored.time + HOUR_US and raised.reason == "Nothing for 60 minutes."
    assert raised.key == ""


def test_an_event_after_silence_clears_the_alert() -> None:
    """The episode that a clock opened is ended by the event that ends the silence, with the event's time."""
    clock = Clock()
    with ef.Store("memory:", clock=clock) as store:
        store.run_until_idle(NoOrders, clock=clock)  # it waits for the first order from here
        clock.advance(3601)
        store.run_until_idle(NoOrders, clock=clock)
        assert words(facts(store)) == [("raised", "")]
        clock.advance(10)
        store.append(OrderPlaced("o-1"))
        store.run_until_idle(NoOrders, clock=clock)
        raised, cleared = facts(store)
        assert (cleared.episode, cleared.at - raised.at) == (raised.episode, 11_000_000)
        clock.advance(3601)
        store.run_until_idle(NoOrders, clock=clock)
        assert words(facts(store)) == [("raised", ""), ("cleared", ""), ("raised", "")]


def test_what_happened_before_the_first_run_is_silent_and_what_is_still_wrong_is_raised_once() -> None:
    """One episode of the past has ended and stays unknown; one is open and is raised at the first run."""
    clock = Clock()
    with ef.Store("memory:", clock=clock) as store:
        store.append(*[PaymentDeclined("c-1")] * 9)
        clock.advance(3600)
        store.append(*[PaymentDeclined("c-2")] * 9)
        before = clock.micros
        clock.advance(60)
        store.run_until_idle(CardTesting, clock=clock)
        store.run_until_idle(CardTesting, clock=clock)
        (raised,) = facts(store)
        assert (raised.key, raised.at) == ("c-2", before)
        (began,) = watching(store, "card_testing")
        assert began.after == 18
        clock.advance(600)
        store.run_until_idle(CardTesting, clock=clock)
        assert words(facts(store)) == [("raised", "c-2"), ("cleared", "c-2")]
        assert facts(store)[1].episode == raised.episode


def test_a_rebuild_raises_nothing(store: ef.Store, clock: Clock) -> None:
    """The new generation folds the same past, and writes only that it watches from now on."""
    store.run_until_idle(CardTesting, clock=clock)
    store.append(*[PaymentDeclined("c-1")] * 9)
    store.run_until_idle(CardTesting, clock=clock)
    before = facts(store)
    store.projections.rebuild(CardTesting)
    store.projections.switch(CardTesting)
    store.run_until_idle(CardTesting, clock=clock)
    store.run_until_idle(CardTesting, clock=clock)
    assert facts(store) == before and len(before) == 1
    assert [each.generation for each in watching(store, "card_testing")] == [1, 2]
    clock.advance(1_000)
    store.run_until_idle(CardTesting, clock=clock)  # the episode of the first generation is ended by the second
    assert words(facts(store)) == [("raised", "c-1"), ("cleared", "c-1")]
    assert len({each.episode for each in facts(store)}) == 1


def _rule(most: int) -> type[ef.Alert]:
    class Declines(ef.Alert, name="declines"):
        card: ef.Tag
        declined: ef.Rate = ef.rate(per=ef.minutes(5), more_than=most)

        def evolve(self, event: PaymentDeclined) -> None:
            self.declined.add()

    return Declines


def test_a_rule_that_is_changed_while_it_is_raised_is_settled_once(store: ef.Store, clock: Clock) -> None:
    """What the new rule is satisfied with is cleared, what it is not is raised; then both are left alone."""
    one, other = _rule(5), _rule(2)
    store.run_until_idle(one, clock=clock)
    store.append(*[PaymentDeclined("c-1")] * 9, *[PaymentDeclined("c-2")] * 4, PaymentDeclined("c-3"))
    store.run_until_idle(one, clock=clock)
    assert words(facts(store)) == [("raised", "c-1")]
    with pytest.raises(ef.EventfoldError) as refused:
        store.run_until_idle(other, clock=clock)
    assert refused.value.code == "projection-changed"
    for rule, expected in ((other, ("raised", "c-2")), (_rule(20), None)):
        store.projections.rebuild(rule)
        store.projections.switch(rule)
        before = len(facts(store))
        store.run_until_idle(rule, clock=clock)
        store.run_until_idle(rule, clock=clock)
        news = facts(store)[before:]
        assert words(news) == ([expected] if expected else [("cleared", "c-1"), ("cleared", "c-2")])
    assert {each.reason for each in facts(store)[2:]} == {"The rule changed, and the new one is satisfied."}


def test_flapping_is_one_episode_with_clear_after() -> None:
    """A verdict that changes every minute is one episode, until it has been silent for long enough."""

    class Flapping(ef.Alert, clear_after=ef.minutes(10)):
        card: ef.Tag
        declined: ef.Rate = ef.rate(per=ef.seconds(12), more_than=1)

        def evolve(self, event: PaymentDeclined) -> None:
            self.declined.add()

    clock = Clock()
    with ef.Store("memory:", clock=clock) as store:
        store.run_until_idle(Flapping, clock=clock)
        for _ in range(30):
            store.append(PaymentDeclined("c-1"), PaymentDeclined("c-1"))
            clock.advance(60)
            store.run_until_idle(Flapping, clock=clock)
        assert words(facts(store)) == [("raised", "c-1")]
        clock.advance(599)
        store.run_until_idle(Flapping, clock=clock)
        assert words(facts(store)) == [("raised", "c-1"), ("cleared", "c-1")]
        raised, cleared = facts(store)
        assert cleared.reason == "The rule has been satisfied for 10 minutes."
        assert 0 < cleared.at - raised.at - 29 * 60_000_000 - 600_000_000 <= 12_000_000


def test_many_keys_fall_silent_at_once_in_several_partitions(store: ef.Store, clock: Clock) -> None:
    """More keys than one append has facts: each is raised once, also when asked again by another runner."""
    store.run_until_idle(QuietCard, clock=clock)
    cards = [f"c-{number}" for number in range(3 * MAX_FACTS + 7)]
    store.extend(map(PaymentDeclined, cards))
    clock.advance(7200)
    for _ in range(2):
        store.run_until_idle(QuietCard, clock=clock)
        assert sorted(words(facts(store))) == sorted(("raised", card) for card in cards)


def test_two_runners_at_the_same_time_raise_once(url: str) -> None:
    """Two stores run the same rule in threads beside appends: one fact for each key."""
    cards = [f"c-{number}" for number in range(20)]
    with ef.Store(url) as one, ef.Store(url) as other:
        with one.run(CardTesting) as first, other.run(CardTesting) as second:
            one.wait(CardTesting, timeout=60)
            for _ in range(4):
                one.append(*map(PaymentDeclined, cards))
            one.wait(CardTesting, timeout=60)
            assert not (first.failed or second.failed or first.trouble or second.trouble)
        one.run_until_idle(CardTesting)
        assert sorted(words(facts(one))) == sorted(("raised", card) for card in cards)


def test_a_runner_raises_while_others_append(tmp_path: Path) -> None:
    """A follower of the facts sees the raise, whose moment is the event's."""
    with ef.Store(str(tmp_path / "store.db")) as store, store.run(CardTesting):
        store.wait(CardTesting, timeout=60)
        receipt = store.append(*[PaymentDeclined("c-1")] * 4)
        with store.follow(ef.Query.of("$alert-raised"), after=receipt.last) as follower:
            raised = next(iter(follower))
        assert raised.event.key == "c-1"
        assert raised.event.at == next(iter(store.read(after=receipt.last - 1))).stored.time


def test_the_episodes_do_not_depend_on_the_borders_of_pages_or_on_when_time_is_asked() -> None:
    """One run over all events after the fact, and one that asks between any two of them, write the same episodes."""
    moments = [0, 10, 20, 25, 26, 400, 4100, 4101, 4102, 4103, 9000, 9001, 9002, 9003, 20_000]
    written: list[list[Any]] = []
    for asks_often in (True, False):
        clock = Clock()
        with ef.Store("memory:", clock=clock) as store:
            store.run_until_idle(CardTesting, QuietCard, NoOrders, clock=clock)
            for before, now in pairwise([0, *moments]):
                clock.advance(now - before)
                store.append(PaymentDeclined("c-1"), PaymentDeclined(f"c-{now % 2}"), OrderPlaced("o"))
                if asks_often:
                    for _ in range(3):
                        store.run_until_idle(CardTesting, QuietCard, NoOrders, clock=clock)
            store.run_until_idle(CardTesting, QuietCard, NoOrders, clock=clock)
            found = [(each.alert, each.key, each.at, type(each).__name__, each.reason) for each in facts(store)]
            written.append(sorted(found))
    assert written[0] == written[1] and len(written[0]) > 8


def test_business_time_counts_where_the_rule_says_so() -> None:
    """Events that were recorded together but happened over hours are no burst by occurred time."""

    class ByBusiness(ef.Alert, by="occurred"):
        card: ef.Tag
        declined: ef.Rate = ef.rate(per=ef.minutes(5), more_than=3)

        def evolve(self, event: PaymentDeclined) -> None:
            self.declined.add()

    with ef.Store("memory:") as store:
        begin = datetime(2026, 1, 1, tzinfo=UTC)
        store.run_until_idle(ByBusiness, CardTesting)
        store.append(
            *[ef.Draft(PaymentDeclined("c-1"), occurred=begin + timedelta(hours=hour)) for hour in range(9)],
            *[ef.Draft(PaymentDeclined("c-2"), occurred=begin + timedelta(seconds=each)) for each in range(9)],
        )
        store.run_until_idle(ByBusiness, CardTesting)
        assert words(facts(store, "card_testing")) == [("raised", "c-1"), ("raised", "c-2")]
        assert words(facts(store, "by_business"))[0] == ("raised", "c-2")
        assert ("raised", "c-1") not in words(facts(store, "by_business"))
        future = datetime(2090, 1, 1, tzinfo=UTC)
        store.append(*[ef.Draft(PaymentDeclined("c-3"), occurred=future + timedelta(days=each)) for each in range(4)])
        store.run_until_idle(ByBusiness)  # dated in the future, they happened at the latest when they were recorded
        assert ("raised", "c-3") in words(facts(store, "by_business"))


def test_events_that_occurred_before_1970_are_as_far_apart_as_they_were() -> None:
    """Four in four days are not four in five minutes."""

    class Old(ef.Alert, by="occurred"):
        card: ef.Tag
        declined: ef.Rate = ef.rate(per=ef.minutes(5), more_than=1)

        def evolve(self, event: PaymentDeclined) -> None:
            self.declined.add()

    with ef.Store("memory:") as store:
        days = [datetime(1960, 1, day, tzinfo=UTC) for day in range(1, 5)]
        store.append(*[ef.Draft(PaymentDeclined("c-1"), occurred=day) for day in days])
        assert store.alerts.replay(Old) == []
        store.append(*[ef.Draft(PaymentDeclined("c-1"), occurred=days[-1])] * 2)
        (episode,) = store.alerts.replay(Old)
        assert episode.at == (days[-1] - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


class Order(ef.Event, type="orders.of-a-place"):
    """An order of a place."""

    place: str
    shop: str


@pytest.mark.parametrize("partitions", [1, 3])
def test_keys_of_several_values_with_commas_have_episodes_of_their_own(partitions: int) -> None:
    """A comma in a value is escaped, so that two keys are never one episode; a changed rule clears each."""

    def rule(limit: int) -> type[ef.Alert]:
        class Busy(ef.Alert, partitions=partitions):
            place: str
            shop: str
            orders: ef.Rate = ef.rate(per=ef.minutes(5), more_than=limit)

            def evolve(self, event: Order) -> None:
                self.orders.add()

        return Busy

    keys = [("a, b", "c"), ("a", "b, c"), ("a\\", "b"), ("a", "\\b"), ("x", "y"), ("", ""), (",", "\n")]
    strict, loose = rule(1), rule(9)
    clock = Clock()
    with ef.Store("memory:", clock=clock) as store:
        store.run_until_idle(strict, clock=clock)
        store.append(*[Order(*key) for key in keys] * 2)
        store.run_until_idle(strict, clock=clock)
        found = [each.key for each in store.alerts.list()]
        assert len(set(found)) == len(keys) and {"a\\, b, c", "a, b\\, c", "x, y"} < set(found)
        assert {each.key for each in store.alerts.replay(strict)} == set(found)
        for each in (rule(0), loose):
            store.projections.rebuild(each)
            store.projections.switch(each)
            store.run_until_idle(each, clock=clock)
            assert len(store.alerts.list()) == (0 if each is loose else len(keys))
        assert len(facts(store)) == 2 * len(keys)


def test_rows_have_the_columns_of_the_rule_and_its_moments(store: ef.Store, clock: Clock) -> None:
    """`store.rows` of an alert filters by them; folding again gives the same rows."""
    store.run_until_idle(CardTesting, NoOrders, clock=clock)
    store.append(*[PaymentDeclined("c-1")] * 4, PaymentDeclined("c-2"), OrderPlaced("o-1"))
    store.run_until_idle(CardTesting, NoOrders, clock=clock)
    first, second = store.rows(CardTesting)
    assert (first.card, first.declined.count, second.declined.count) == ("c-1", 4, 1)
    opening = facts(store)[0]
    rows: list[Any] = store.rows(CardTesting, raised_at=opening.at)
    assert [row.card for row in rows] == ["c-1"] and rows[0].reason == opening.reason
    clock.advance(7200)
    store.run_until_idle(CardTesting, NoOrders, clock=clock)
    proofs = store.projections.verify_rows(CardTesting) + store.projections.verify_rows(NoOrders)
    assert [proof.proved for proof in proofs] == [True, True], proofs


def test_an_alert_without_a_key_and_an_event_waits_from_its_registration() -> None:
    """A rule that expects events is raised although none has ever come, once, also after a restart."""
    clock = Clock()
    name = f"memory:{uuid4().hex}"
    with ef.Store(name, clock=clock) as keep:
        for _ in range(3):
            with ef.Store(name, clock=clock) as store:
                store.run_until_idle(NoOrders, clock=clock)
            clock.advance(2_000)
        with ef.Store(name, clock=clock) as store:
            store.run_until_idle(NoOrders, clock=clock)
        (raised,) = facts(keep)
        assert raised.at == watching(keep, "no_orders")[0].at + HOUR_US


def test_a_detector_that_never_goes_on_is_an_error_and_no_endless_loop() -> None:
    """The message names the alert and the method to correct."""

    class Stuck(Silence):
        def due(self, now: int) -> int | None:
            return now

    class Broken(ef.Alert):
        card: ef.Tag
        last: Stuck = as_field(Stuck())

        def evolve(self, event: PaymentDeclined) -> None:
            self.last.mark()

    clock = Clock()
    with ef.Store("memory:", clock=clock) as store:
        store.append(PaymentDeclined("c-1"))
        clock.advance(5)
        store.append(PaymentDeclined("c-1"))
        with pytest.raises(ef.EventfoldError, match=r"names the moment .*Correct its method due") as refused:
            store.run_until_idle(Broken, clock=clock)
        assert refused.value.code == "projection-stopped"


def test_a_program_that_reads_all_events_need_not_import_alerts(tmp_path: Path) -> None:
    """The classes of the facts are found by their stored names."""
    path = str(tmp_path / "store.db")
    with ef.Store(path) as store:
        store.append(*[PaymentDeclined("c-1")] * 4)
        store.run_until_idle(CardTesting)
    program = "import eventfold as ef, sys; print(*[e.type for e in ef.Store(sys.argv[1]).read(after=4)])"
    ran = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, timeout=60)
    assert ran.stdout.split() == ["$alert-raised", "$alert-watching"], ran.stderr


def test_a_rule_that_watches_again_after_a_rollback_raises_again_what_the_other_cleared() -> None:
    """Each time that the strict rule comes back, the key is raised once; the loose one clears it."""
    clock = Clock()
    strict, loose = _rule(3), _rule(50)
    with ef.Store("memory:", clock=clock) as store:
        store.append(*[PaymentDeclined("c-1")] * 4)
        store.run_until_idle(strict, clock=clock)
        store.projections.rebuild(loose)
        store.projections.switch(loose)
        store.run_until_idle(loose, clock=clock)
        for rule in (strict, loose, strict, loose, strict):
            store.projections.rollback(rule)
            store.run_until_idle(rule, clock=clock)
            assert [each.key for each in store.alerts.list()] == (["c-1"] if rule is strict else [])
        assert words(facts(store)) == [("raised", "c-1"), ("cleared", "c-1")] * 3 + [("raised", "c-1")]
        assert len({each.episode for each in facts(store)}) == 4


@pytest.mark.parametrize("lost", ["removed", "target"])
def test_rows_that_were_removed_or_lost_are_folded_again_in_silence(lost: str, tmp_path: Path) -> None:
    """The past stays silent, although the same rule has watched before; also through restarts within the past."""
    clock = Clock()

    def opened(rows: str) -> ef.Store:
        return ef.Store(f"sqlite:{tmp_path / 'log.db'}", clock=clock, target=f"sqlite:{tmp_path / rows}")

    with opened("rows.db") as store:
        for card in ("c-1", "c-2", "c-3"):
            store.append(*[PaymentDeclined(card)] * 4)
            clock.advance(1_000)
        store.append(PaymentDeclined("c-1"), PaymentDeclined("c-2"), PaymentDeclined("c-3"))
        store.run_until_idle(CardTesting, clock=clock)
        if lost == "removed":
            store.projections.remove(CardTesting)
    with opened("rows.db" if lost == "removed" else "other.db") as store:
        store.run_until_idle(CardTesting, clock=clock)
        assert facts(store) == [] and store.alerts.names() == ["card_testing"]
        store.append(*[PaymentDeclined("c-9")] * 4)
        store.run_until_idle(CardTesting, clock=clock)
        assert words(facts(store)) == [("raised", "c-9")]
        assert [each.rule == "" for each in watching(store, "card_testing")] == [False, True, False]


class Failing(ef.Alert):
    """Its judge fails for one card when time has passed."""

    card: ef.Tag
    last: Silence = as_field(Silence())

    def judge(self) -> str | None:
        """Fail where nothing came for too long."""
        if self.card == "c-1" and self.last.fires(self.last.now) is not None:
            raise ValueError("no such card")
        return self.last.fires(self.last.now)

    def evolve(self, event: PaymentDeclined) -> None:
        """Note it."""
        self.last.mark()


class FailingParks(Failing, on_error="park"):
    """The same, and others go on."""

    def evolve(self, event: PaymentDeclined) -> None:
        """Note it."""
        self.last.mark()


def test_a_judge_that_fails_as_time_passes_stops_the_rule_visibly(store: ef.Store, clock: Clock) -> None:
    """The status names the key and the error, skipping is refused, and resuming tries again."""
    store.run_until_idle(Failing, clock=clock)
    store.append(PaymentDeclined("c-1"), PaymentDeclined("c-2"))
    store.run_until_idle(Failing, clock=clock)
    clock.advance(4_000)
    expected = "in judge of c-1 as time passed: ValueError: no such card"
    for _ in range(2):
        with pytest.raises(ef.EventfoldError, match=f"failing stopped {expected}. Fix it and resume it") as refused:
            store.run_until_idle(Failing, clock=clock)
        assert refused.value.code == "projection-stopped"
        (status,) = store.projections.status()
        assert status.state == "stopped" and f"Stopped {expected}" in status.sentence
        with pytest.raises(ef.EventfoldError):
            store.projections.skip(Failing, 0, because="it has no event")
        store.projections.resume(Failing)


def test_a_judge_that_fails_as_time_passes_holds_up_no_other_key_where_events_are_parked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The failure is logged, other keys are raised, and the next event of the key is parked."""
    clock = Clock()
    with ef.Store("memory:", clock=clock) as store:
        store.run_until_idle(FailingParks, clock=clock)
        store.append(PaymentDeclined("c-1"), PaymentDeclined("c-2"))
        store.run_until_idle(FailingParks, clock=clock)
        clock.advance(4_000)
        store.run_until_idle(FailingParks, clock=clock)
        assert words(facts(store)) == [("raised", "c-2")]
        assert "failed in judge of c-1 as time passed: ValueError: no such card" in caplog.text
        store.append(PaymentDeclined("c-1"))
        store.run_until_idle(FailingParks, clock=clock)
        assert [each.key for each in store.projections.parked(FailingParks)] == ["c-1"]
