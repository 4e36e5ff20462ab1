"""The car parks: doubts, one open alert, a rule that changes, deadlines by the clock, and what is forged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import eventfold as ef
from eventfold.demo.fields import change_byte, contend, damage_of, forge
from eventfold.testing.clock import Clock
from examples.fields.carparks import check as checks
from examples.fields.carparks.app import (
    Alerting,
    AlertRaised,
    AlertResolved,
    CollectorSilent,
    OccupancyReported,
    ParkSilent,
    Reading,
    Refused,
    Rule,
    Rulebook,
    RuleChanged,
    acknowledge,
    judge,
)
from examples.fields.carparks.deadlines import (
    AlertEscalated,
    DeadlineMissed,
    Escalation,
    IncidentClassified,
    Notices,
    NoticeSent,
    Regulation,
    month_after,
)
from examples.fields.carparks.load import RULE, load, raise_silences
from examples.fields.carparks.metrics import exposition
from tests.support.data import need
from tests.support.memory import tmp_path  # noqa: F401 - no promise here is about a disk

SLICE = 3_000  # rows: the first three car parks
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
FULL = Reading(datetime(2016, 10, 4, 12, tzinfo=UTC), 95.0)
VERSION = ef.Draft(RuleChanged(RULE, Rule(RULE, 1, 90, 85), "ann"), occurred=datetime(2016, 10, 1, tzinfo=UTC))


@pytest.fixture(autouse=True)
def data() -> None:
    """The data set is here."""
    need("parking")


def test_a_slice_is_accounted_for_and_sql_agrees() -> None:
    """Repeats write nothing; doubts, alerts, silences and hourly means are those of the source."""
    with ef.Store("memory:") as store:
        count = load(store, SLICE)
        assert (count.read, count.repeated, count.is_complete) == (SLICE, 11, True)
        checked = checks.check(store, SLICE)
    assert checked.comparison.mismatches == []
    assert checked.comparison.compared > 1_500
    assert checked.figures["silences"]["collector"] == 2


def test_a_second_load_writes_nothing() -> None:
    """Readings have ids from the source, and an evaluator that judges them again raises nothing."""
    with ef.Store("memory:") as store:
        load(store, 1_500)
        head = store.head()
        again = load(store, 1_500)
        assert (again.loaded, again.repeated, again.events, store.head()) == (0, 1_500, 0, head)


def test_thirty_two_evaluators_open_one_alert_and_one_person_takes_it(served: str) -> None:
    """One alert for the park and the rule, acknowledged once; without the append condition there are thirty-two."""
    with ef.Store(served) as store:
        store.append(VERSION)
        judged = [(Alerting("p", RULE), Rulebook(RULE), FULL)] * 32
        done = contend(served, judge, judged, Refused)
        assert (done.accepted, done.unchanged) == (1, 31)
        done = contend(served, acknowledge, [(Alerting("p", RULE), f"person {n}") for n in range(32)], Refused)
        assert (done.accepted, done.refused) == (1, 31)
        other = [(Alerting("q", RULE), Rulebook(RULE), FULL)] * 32
        assert contend(served, judge, other, Refused, conditional=False).accepted == 32
        assert len(checks.opened_twice(store)) == 31


def test_a_change_of_the_rule_leaves_what_was_raised_under_the_old_one() -> None:
    """The version is kept with the alert; the new one judges from its moment on."""
    with ef.Store("memory:") as store:
        changed = ef.Draft(RuleChanged(RULE, Rule(RULE, 2, 97, 92), "ann"), occurred=FULL.at + timedelta(hours=1))
        store.append(VERSION, changed)
        alerting, book = Alerting("p", RULE), Rulebook(RULE)
        later = Reading(FULL.at + timedelta(hours=2), 91.0)
        for reading in (FULL, later, Reading(later.at + timedelta(hours=1), 95.0)):
            store.decide(judge, alerting, book, reading)
        raised = [each.event for each in store.read(ef.Query.of(types=[AlertRaised]))]
        assert [each.version for each in raised] == [1]
        assert store.state(alerting).open is None


def test_a_collector_that_is_down_is_one_alert() -> None:
    """Three parks fall silent for a day with the collector; one of them falls silent alone, too."""
    with ef.Store("memory:") as store:
        for day in (3, 4, 6, 7, 8):
            for hour in range(8, 17):
                at = datetime(2016, 10, day, hour, tzinfo=UTC)
                parks = ("a", "b", "c") if day != 7 else ("a", "b")
                store.append(*[ef.Draft(OccupancyReported(park, at, 50, 100), occurred=at) for park in parks])
        assert len(store.alerts.replay(CollectorSilent)) == 1
        assert len(store.alerts.replay(ParkSilent)) == 4
        raise_silences(store)
        raised = [each.event.park for each in store.read(ef.Query.of(types=[AlertRaised]))]
        assert sorted(raised) == ["all", "c"]


@pytest.mark.parametrize(
    ("under", "classified_after", "deadlines"),
    [
        ("NIS2", 5, {"early warning": 24, "notification": 72}),
        ("DORA", 5, {"initial notification": 9}),
        ("DORA", 23, {"initial notification": 24}),
    ],
)
def test_a_notice_that_is_not_sent_is_missed_at_its_deadline(
    under: Regulation, classified_after: int, deadlines: dict[str, int]
) -> None:
    """The clock is moved to the hour before each deadline and to the deadline; a restart in between changes nothing."""
    with ef.Store("memory:") as store:
        store.append(IncidentClassified("i-1", under, NOON, NOON + timedelta(hours=classified_after)))
        for stage, hours in deadlines.items():
            store.run_until_idle(Notices, clock=Clock(NOON + timedelta(hours=hours, minutes=-1)))
            assert stage not in missed(store)
            store.run_until_idle(Notices, clock=Clock(NOON + timedelta(hours=hours)))
            assert stage in missed(store)


def test_notices_that_were_sent_are_not_missed_and_begin_the_next_deadline() -> None:
    """The final report is due a month after the notification: on 28 February, if that was sent on 31 January."""
    with ef.Store("memory:") as store:
        store.append(IncidentClassified("i-1", "NIS2", NOON, NOON))
        store.append(*[NoticeSent("i-1", stage, NOON, "ann") for stage in ("early warning", "notification")])
        store.run_until_idle(Notices, clock=Clock(NOON + timedelta(hours=80)))
        assert missed(store) == []
        due = month_after(NOON)
        assert due == datetime(2026, 2, 28, 12, tzinfo=UTC)
        store.run_until_idle(Notices, clock=Clock(due))
        assert missed(store) == ["final report"]


def missed(store: ef.Store) -> list[str]:
    """The stages whose deadline was missed."""
    return [each.event.stage for each in store.read(ef.Query.of(types=[DeadlineMissed]))]


def test_an_alert_that_no_person_takes_is_escalated_once() -> None:
    """Fifteen minutes by the runner's clock, and not again."""
    with ef.Store("memory:") as store:
        store.run_until_idle(Escalation)
        raised = store.append(AlertRaised("p", RULE, "p/1", 1, "full"))
        store.run_until_idle(Escalation)
        last = next(iter(store.read(after=raised.last - 1, limit=1))).time
        for minutes in (14, 16, 60):
            store.run_until_idle(Escalation, clock=Clock(last + timedelta(minutes=minutes)))
            assert store.count(ef.Query.of(types=[AlertEscalated])) == (minutes > 15)


def test_prometheus_reads_what_is_open_and_how_full_each_park_is() -> None:
    """The text is parsed by Prometheus' own client; a resolved alert is not in it."""
    with ef.Store("memory:") as store:
        store.append(
            AlertRaised("p", RULE, "p/1", 1, "full"),
            AlertRaised("q", RULE, "q/1", 1, "full"),
            AlertResolved("q", RULE, "q/1"),
            OccupancyReported("p", NOON, 95, 100),
        )
        families = {each.name: each for each in text_string_to_metric_families(exposition(store).decode())}
    alerts = [(each.labels, each.value) for each in families["carpark_alerts_open"].samples]
    assert alerts == [({"park": "p", "rule": RULE}, 1.0)]
    assert families["carpark_places_taken_ratio"].samples[0].value == 0.95


def test_a_forged_alert_and_a_changed_byte_are_found(tmp_path: Path) -> None:  # noqa: F811
    """The check finds the alert that no reading explains; the engine names the changed event."""
    path = tmp_path / "carparks.db"
    with ef.Store(str(path)) as store:
        load(store, 1_000)
        assert checks.check(store, 1_000).comparison.mismatches == []
        forged = AlertRaised("BHMBCCMKT01", RULE, "BHMBCCMKT01/nearly-full/99", 1, "said a caller")
        forge(store, ef.Draft(forged, occurred=datetime(2016, 10, 5, 9, tzinfo=UTC)))
        found = [each.figure for each in checks.check(store, 1_000).comparison.mismatches]
        assert "alerts of fullness" in found
    change_byte(path, 17)
    assert 17 in [flaw.position for flaw in damage_of(str(path)).flaws]
