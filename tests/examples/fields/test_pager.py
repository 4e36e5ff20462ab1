"""The pager: one alert for a system, no release while it is open, escalation by a timer, another rule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.demo.fields import change_byte, contend, damage_of, forge
from eventfold.testing.clock import Clock
from examples.fields.pager import check as checks
from examples.fields.pager.app import (
    AlertRaised,
    Budget,
    FailureReported,
    Refused,
    ReleaseDeployed,
    ReleaseRefused,
    Rule,
    RuleChanged,
    acknowledge,
    evaluate,
    release,
    report,
)
from examples.fields.pager.load import SYSTEMS, load
from examples.fields.pager.on_call import AlertEscalated, OnCall
from tests.support.data import need
from tests.support.memory import tmp_path  # noqa: F401 - no promise here is about a disk

NOON = datetime(1977, 3, 1, 12, tzinfo=UTC)
SLICE = 250  # rows: SS1A, and a part of SS1B


@pytest.fixture(autouse=True)
def data() -> None:
    """The data sets are here."""
    need(*[f"failures-{system}" for system in SYSTEMS])


def failures(number: int) -> list[ef.Draft[FailureReported]]:
    """Failures of one system, an hour apart, the last one at noon."""
    return [
        ef.Draft(FailureReported("SS9", each + 1), occurred=NOON - timedelta(hours=number - 1 - each))
        for each in range(number)
    ]


def test_the_whole_data_gives_the_figures_of_the_page_and_sql_agrees() -> None:
    """1,430 failures, 85 alerts, 42 of 427 releases refused, 23 under another rule; every alert again by SQL."""
    with ef.Store("memory:") as store:
        count = load(store)
        assert (count.read, count.loaded, count.is_complete) == (1_436, 1_436, True)
        checked = checks.check(store)
    assert checked.comparison.mismatches == []
    systems = checked.figures["systems"]
    assert {name: (each["failures"], each["alerts"]) for name, each in systems.items()} == {
        "SS1A": (112, 9),
        "SS1B": (375, 26),
        "SS1C": (277, 23),
        "SS2": (192, 4),
        "SS3": (278, 16),
        "SS4": (196, 7),
    }
    assert round(systems["SS1A"]["open_s"] / 3600, 2) == 547.45
    assert [checked.figures[name] for name in ("refused", "refused_under_ten", "releases")] == [42, 23, 427]
    assert any("23 failures in its week" in line for _, lines in checked.chapters for line in lines)


def test_a_second_load_writes_nothing() -> None:
    """Failures have ids from the source; what was decided is not decided again."""
    with ef.Store("memory:") as store:
        load(store, SLICE)
        head = store.head()
        again = load(store, SLICE)
        assert (again.loaded, again.repeated, again.events, store.head()) == (0, SLICE, 0, head)


def test_thirty_two_evaluators_open_one_alert(served: str) -> None:
    """However many evaluate, one alert is open; without the append condition there are thirty-two."""
    with ef.Store(served) as store:
        store.append(*failures(8))
        done = contend(served, evaluate, [(Budget("SS9"), NOON)] * 32, Refused)
        assert (done.accepted, done.unchanged) == (1, 31)
        later = NOON + timedelta(days=8)
        store.decide(evaluate, Budget("SS9"), later)
        assert store.state(Budget("SS9")).alert is None
        store.append(*[ef.Draft(each.event, occurred=later + timedelta(hours=n)) for n, each in enumerate(failures(8))])
        spent = later + timedelta(hours=8)
        done = contend(served, evaluate, [(Budget("SS9"), spent)] * 32, Refused, conditional=False)
        assert done.accepted == 32


def test_no_release_goes_out_while_the_budget_is_spent_except_by_a_named_person(served: str) -> None:
    """Thirty-two releases, the alert first: all are refused, with the rule and the number; one has a name to it."""
    with ef.Store(served) as store:
        for each in failures(8):
            store.decide(report, Budget("SS9"), each)
        assert store.state(Budget("SS9")).alert == "SS9-1"
        contend(served, release, [(Budget("SS9"), f"r{n}", NOON) for n in range(32)], Refused)
        assert store.count(ef.Query.of(types=[ReleaseDeployed])) == 0
        refused = [each.event for each in store.read(ef.Query.of(types=[ReleaseRefused]))]
        assert len(refused) == 32
        assert {(each.alert, each.failures, each.rule.name) for each in refused} == {("SS9-1", 8, Rule().name)}
        store.decide(release, Budget("SS9"), "hotfix", NOON, override_by="ann")
        (deployed,) = [each.event for each in store.read(ef.Query.of(types=[ReleaseDeployed]))]
        assert deployed.override_by == "ann"
        with pytest.raises(Refused):
            store.decide(release, Budget("SS9"), "hotfix", NOON)


def test_a_changed_rule_holds_from_then_on_and_rewrites_nothing() -> None:
    """The alert keeps the rule that it was raised under."""
    with ef.Store("memory:") as store:
        for each in failures(8):
            store.decide(report, Budget("SS9"), each)
        store.append(ef.Draft(RuleChanged("SS9", checks.STRICT, "ann"), occurred=NOON))
        store.decide(evaluate, Budget("SS9"), NOON)
        assert store.state(Budget("SS9")).alert is None
        (raised,) = store.read(ef.Query.of(types=[AlertRaised]))
        assert raised.event.rule == Rule()


def test_a_timer_calls_the_second_person_unless_a_person_took_the_alert() -> None:
    """Fifteen minutes by the clock of the runner; an acknowledged alert calls no one."""
    with ef.Store("memory:") as store:
        store.run_until_idle(OnCall)
        for system in ("SS8", "SS9"):
            store.append(AlertRaised(system, f"{system}-1", Rule(), 8))
        store.decide(acknowledge, Budget("SS8"), "ann")
        with pytest.raises(Refused, match="ann"):
            store.decide(acknowledge, Budget("SS8"), "bob")
        store.run_until_idle(OnCall)
        last = list(store.read())[-1].time
        store.run_until_idle(OnCall, clock=Clock(last + timedelta(minutes=14)))
        assert store.count(ef.Query.of(types=[AlertEscalated])) == 0
        store.run_until_idle(OnCall, clock=Clock(last + timedelta(minutes=16)))
        (escalated,) = [each.event for each in store.read(ef.Query.of(types=[AlertEscalated]))]
        assert (escalated.system, escalated.to) == ("SS9", "second on call")


def test_a_forged_release_and_a_changed_byte_are_found(tmp_path: Path) -> None:  # noqa: F811
    """The check names the release that went out while an alert was open; the engine names the changed event."""
    path = tmp_path / "pager.db"
    with ef.Store(str(path)) as store:
        load(store, 60)
        assert checks.check(store, 60).comparison.mismatches == []
        for each in failures(8):
            store.decide(report, Budget("SS9"), each)
        forge(store, ReleaseDeployed("SS9", "at night"))
        (found,) = checks.unfounded(store)
        assert "at night" in found and "SS9-1" in found
    change_byte(path, 17)
    assert 17 in [flaw.position for flaw in damage_of(str(path)).flaws]
