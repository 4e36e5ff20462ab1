"""The cracks: predictions as of then and their score, one order for a part, and forged predictions."""

from __future__ import annotations

from pathlib import Path

import pytest

import eventfold as ef
from eventfold.demo.fields import change_byte, contend, damage_of, forge
from eventfold.testing import given
from examples.fields.cracks import check as checks
from examples.fields.cracks.app import (
    CrackMeasured,
    FailurePredicted,
    InspectionDone,
    InspectionOrdered,
    Line,
    MeasurementCorrected,
    PartReplaced,
    Refused,
    Specimen,
    order_inspection,
    predict,
    score,
)
from examples.fields.cracks.load import LENGTHS, load
from tests.support.memory import tmp_path  # noqa: F401 - no promise here is about a disk

DUE = FailurePredicted("9", "reciprocal", 80_000, "cursor", 115_000.0)


def test_the_whole_data_gives_the_figures_of_the_page_and_sql_agrees() -> None:
    """As of 80,000 cycles 10 of 12 failures are named and none falsely; as of 100,000 cycles 8 of 10."""
    assert len(LENGTHS) == 21
    with ef.Store("memory:") as store:
        count = load(store)
        assert (count.read, count.loaded, count.is_complete) == (262, 262, True)
        checked = checks.check(store)
    assert checked.comparison.mismatches == []
    assert checked.figures["failed"] == 12
    early, late = checked.figures["scores"][80_000], checked.figures["scores"][100_000]
    assert (early["predicted"], early["precision"], early["recall"], early["too_late"]) == (21, 1.0, 10 / 12, 12)
    assert (late["predicted"], late["precision"], late["recall"], late["too_late"]) == (19, 1.0, 8 / 10, 10)
    assert (round(early["mean_error"]), round(late["mean_error"])) == (4_344, 2_197)
    assert checked.figures["what_if"]["within 130,000 cycles"] == {"found": 11, "missed": 1, "for nothing": 0}


def test_a_second_load_writes_nothing() -> None:
    """Readings have ids from the source; parts that are gone get no prediction, no order and no second score."""
    with ef.Store("memory:") as store:
        load(store)
        head = store.head()
        again = load(store)
        assert (again.loaded, again.repeated, again.events, store.head()) == (0, 262, 0, head)


def test_one_of_thirty_two_planners_orders_the_inspection(served: str) -> None:
    """The first order stands; without the append condition all thirty-two stand."""
    with ef.Store(served) as store:
        store.append(DUE)
        orders = [(Specimen("9"), f"planner {n}") for n in range(32)]
        done = contend(served, order_inspection, orders, Refused)
        assert (done.accepted, done.refused) == (1, 31)
        store.append(InspectionDone("9", "ann"))
        done = contend(served, order_inspection, orders, Refused, conditional=False)
        assert (done.accepted, done.refused) == (32, 0)
        assert store.count(ef.Query.of(types=[InspectionOrdered])) == 33


def test_a_part_that_failed_or_was_replaced_gets_no_prediction_and_a_replaced_one_no_score() -> None:
    """No one will know when a replaced part would have failed."""
    readings = {0: 90, 10_000: 95, 20_000: 100, 30_000: 105}
    replaced = given(DUE, PartReplaced("9", 90_000, "ann"))
    replaced.when(predict, Specimen("9"), Line(), 100_000, "cursor", readings).raises(Refused, "was replaced")
    replaced.when(order_inspection, Specimen("9"), "bob").raises(Refused, "was replaced")
    replaced.when(score, Specimen("9")).nothing()


def test_a_correction_is_what_the_model_uses_and_the_first_reading_stays_known() -> None:
    """As of the position before the correction, the state has the first reading."""
    with ef.Store("memory:") as store:
        store.append(CrackMeasured("9", 0, 90), CrackMeasured("9", 10_000, 99))
        before = store.head()
        store.append(MeasurementCorrected("9", 10_000, 92, "ann"))
        assert store.state(Specimen("9")).readings == {0: 90, 10_000: 92}
        assert store.state(Specimen("9"), at=before).readings == {0: 90, 10_000: 99}


@pytest.mark.parametrize("what", ["another value", "a cursor behind the failure", "a cursor of another store"])
def test_a_forged_prediction_is_found(what: str) -> None:
    """Every prediction is made again from its cursor."""
    with ef.Store("memory:") as store, ef.Store("memory:") as other:
        load(store)
        load(other, 200)
        honest = next(iter(store.read(ef.Query.of(types=[FailurePredicted])))).event
        cursor = {"another value": honest.cursor, "a cursor behind the failure": str(store.cursor())}
        forged = FailurePredicted("1", "reciprocal", 90_000, cursor.get(what, str(other.cursor())), 99_000.0)
        assert checks.unfounded(store) == []
        forge(store, forged)
        (found,) = checks.unfounded(store)
        assert found.startswith("specimen 1 as of 90,000 cycles")
        assert any("its cursor does not give" in each.figure for each in checks.check(store).comparison.mismatches)


def test_a_changed_byte_is_found(tmp_path: Path) -> None:  # noqa: F811
    """The engine names the event."""
    path = tmp_path / "cracks.db"
    with ef.Store(str(path)) as store:
        load(store, 100)
    change_byte(path, 17)
    assert 17 in [flaw.position for flaw in damage_of(str(path)).flaws]
