"""The flow: what each rule is worth, anomalies that are judged once, and what is found that no one decided."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.alerts import delivery
from eventfold.demo.fields import change_byte, contend, damage_of, forge
from eventfold.demo.watch.receiver import Receiver
from examples.fields.flow import check as checks
from examples.fields.flow.app import (
    BRANCH,
    AlreadyJudged,
    Anomalies,
    AnomalyConfirmed,
    AnomalyDismissed,
    AnomalyRaised,
    FlowCorrected,
    FlowReported,
    OutsideBand,
    Week,
    judge,
    raise_anomaly,
)
from examples.fields.flow.load import load, raise_anomalies, rows
from tests.support.data import need
from tests.support.memory import tmp_path  # noqa: F401 - no promise here is about a disk

RAISED = AnomalyRaised(BRANCH, "a-1", "OutsideBand", datetime(2022, 3, 23, 8, tzinfo=UTC), "51.53 l/s")


@pytest.fixture(autouse=True)
def data() -> None:
    """The data set is here."""
    need("water-flow")


def test_the_whole_data_gives_the_figures_of_the_page_and_sql_agrees() -> None:
    """1,268 readings, ten gaps of 111 hours, and the precision and recall of each rule."""
    with ef.Store("memory:") as store:
        count = load(store)
        assert (count.read, count.loaded, count.is_complete) == (1_268, 1_268, True)
        checked = checks.check(store)
    assert checked.comparison.mismatches == []
    assert checked.comparison.compared > 1_250
    assert (checked.figures["gaps"], checked.figures["silent_hours"]) == (10, 111)
    scores = {name: (one["episodes"], one["right"], one["found"]) for name, one in checked.figures["scores"].items()}
    assert scores == {
        "OutsideBand": (5, 4, 4),
        "FarFromMedian": (3, 3, 3),
        "FartherThanFive": (4, 4, 4),
        "RareValue": (2, 1, 1),
        "Drifted": (1, 1, 1),
    }


def test_a_second_load_writes_nothing() -> None:
    """Ids come from the source, and an anomaly that is known is not raised again."""
    with ef.Store("memory:") as store:
        load(store, 300)
        head = store.head()
        again = load(store, 300)
        assert (again.loaded, again.repeated, again.events, store.head()) == (0, 300, 0, head)


def test_one_of_thirty_two_operators_judges_an_anomaly(served: str) -> None:
    """The first judgement stands; without the append condition all thirty-two stand."""
    judgements = [(Anomalies(BRANCH), AnomalyConfirmed(BRANCH, "a-1", f"operator {n}", "a leak")) for n in range(32)]
    with ef.Store(served) as store:
        store.append(RAISED)
        done = contend(served, judge, judgements, AlreadyJudged)
        assert (done.accepted, done.refused) == (1, 31)
        store.append(AnomalyRaised(BRANCH, "a-2", "OutsideBand", RAISED.since, "again"))
        second = [(state, AnomalyConfirmed(BRANCH, "a-2", one.by, one.cause)) for state, one in judgements]
        done = contend(served, judge, second, AlreadyJudged, conditional=False)
        assert (done.accepted, done.refused) == (32, 0)


def test_an_anomaly_is_raised_once_by_any_number_of_evaluators_and_may_be_dismissed() -> None:
    """Thirty-two evaluators find the same episode; what was dismissed is not raised again."""
    with ef.Store("memory:") as store:
        written = [store.decide(raise_anomaly, Anomalies(BRANCH), RAISED).events for _ in range(32)]
        assert sum(map(len, written)) == 1
        store.decide(judge, Anomalies(BRANCH), AnomalyDismissed(BRANCH, "a-1", "ann", "the valve was closed"))
        assert not store.decide(raise_anomaly, Anomalies(BRANCH), RAISED).events
        assert store.state(Anomalies(BRANCH)).judged == {"a-1": "ann"}


def test_a_correction_changes_the_state_and_not_what_was_known_before() -> None:
    """The reading stays in the log; the state as of its position has it, the state now has the corrected one."""
    with ef.Store("memory:") as store:
        load(store, 60)
        before = store.head()
        at, litres = list(rows(60))[-1]
        store.append(FlowCorrected(BRANCH, at, Decimal("99.9"), "the sensor was calibrated"))
        assert store.state(Week(BRANCH)).readings[at] == Decimal("99.9")
        assert store.state(Week(BRANCH), at=before).readings[at] == litres


def test_a_forged_anomaly_and_a_changed_byte_are_found(tmp_path: Path) -> None:  # noqa: F811
    """The check names the anomaly that no rule finds; the engine names the event whose byte was changed."""
    path = tmp_path / "flow.db"
    with ef.Store(str(path)) as store:
        load(store, 200)
        assert checks.check(store, 200).comparison.mismatches == []
        forge(store, RAISED)
        (found,) = checks.check(store, 200).comparison.mismatches
        assert "no rule finds" in found.figure and found.events == "a-1"
    change_byte(path, 17)
    assert 17 in [flaw.position for flaw in damage_of(str(path)).flaws]


def test_a_rule_that_runs_beside_the_sensor_delivers_its_alert() -> None:
    """The readings of a fall arrive one by one, and a webhook on this machine gets the reason."""
    with ef.Store("memory:") as store, Receiver() as receiver:
        store.run_until_idle(OutsideBand)
        pager = delivery.webhook(receiver.url, secret=receiver.secret, name="pager", group_page=0.01)
        with store.run(OutsideBand, pager):
            for at, litres in list(rows(96)):
                store.append(ef.Draft(FlowReported(BRANCH, litres), occurred=at))
            message = receiver.wait_for("raised", 30)
        assert message is not None and "51.53 l/s against a median of 100.88" in message.text
        assert raise_anomalies(store, OutsideBand) == 1
