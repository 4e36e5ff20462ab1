"""The meter: a month is billed once, where it is covered; bills are traced back, and what is forged is found."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.demo.fields import LoadCount, change_byte, contend, damage_of, forge
from eventfold.server import application
from eventfold.testing.clock import Clock
from examples.fields.meters import check as checks
from examples.fields.meters import fleet_load
from examples.fields.meters.app import (
    CalibrationFoundBad,
    CreditIssued,
    MeterCalibrated,
    MeterFellSilent,
    MeterSpokeAgain,
    Month,
    MonthBilled,
    ReadingsTaken,
    Refused,
    Traceability,
    bill,
    credit,
)
from examples.fields.meters.expiry import CalibrationDue, CalibrationExpired, Expiry
from examples.fields.meters.holders import Erased, Holder, HolderErased, Names, assign, erase
from examples.fields.meters.load import METER, Minute, day, drafts, load, minutes
from examples.fields.meters.seats import FLEET, Fleet, ReplacementsForecast, came
from examples.fields.meters.voltage import (
    EVERY_MINUTE,
    STANDARD,
    Verdicts,
    VoltageRuleAdopted,
    WeekOfVoltage,
    judge_week,
)
from tests.support.data import need
from tests.support.memory import tmp_path  # noqa: F401 - no promise here is about a disk
from tests.support.servers.http import serving

SLICE = 30_000  # rows: three weeks, and the end of December
MARCH = day("2009-03-01")


@pytest.fixture(autouse=True)
def data() -> None:
    """The data set is here."""
    need("household-power")


def readings(hour: int, watts: int = 600, centivolts: int = 23_000) -> ReadingsTaken:
    """An hour of March 2009 at an even power: 36,000 watt-minutes at 600 W."""
    at = MARCH + timedelta(hours=hour)
    even: list[int | None] = [watts] * 60
    return ReadingsTaken(METER, f"{at:%Y-%m}", at, even, [centivolts] * 60, ([0] * 60, [0] * 60, [0] * 60))


def calibrated(name: str, since: str, until: str) -> MeterCalibrated:
    """A certificate."""
    return MeterCalibrated(METER, name, day(since), day(until), "the laboratory")


@pytest.fixture(scope="module")
def loaded() -> Iterator[tuple[ef.Store, LoadCount]]:
    """A store in memory with the slice."""
    need("household-power")
    with ef.Store("memory:") as store:
        yield store, load(store, SLICE)


def test_a_slice_is_accounted_for_and_sql_agrees(loaded: tuple[ef.Store, LoadCount]) -> None:
    """Days, weeks, silences, the bill of December and four forecasts are those of the source."""
    store, count = loaded
    assert (count.read, sum(count.rejected.values()), count.is_complete) == (SLICE, 4, True)
    checked = checks.check(store, SLICE)
    assert checked.comparison.mismatches == []
    assert (checked.figures["silences"], checked.figures["bills"]) == (2, 1)
    assert [line[4] for line in checked.figures["seats"]] == [7, 8, 5, 14]


def test_a_second_load_writes_nothing(loaded: tuple[ef.Store, LoadCount]) -> None:
    """Hours, silences, calibrations and seats have ids from their source; bills and forecasts are known."""
    store, count = loaded
    head = store.head()
    again = load(store, SLICE)
    assert (again.loaded, again.repeated, again.events, store.head()) == (0, count.loaded, 0, head)


def test_a_month_is_billed_once_by_thirty_two_tasks(served: str) -> None:
    """One bill stands; without the append condition there are thirty-two, which the check finds."""
    with ef.Store(served) as store:
        store.append(calibrated("C-1", "2009-01-01", "2010-01-01"), readings(0), readings(1))
        done = contend(served, bill, [(Month(METER, "2009-03"), Traceability(METER))] * 32, Refused)
        assert (done.accepted, done.refused) == (1, 31)
        assert store.state(Month(METER, "2009-03")).bill == MonthBilled(METER, "2009-03", 72_000, 0)
        store.append(ReadingsTaken(METER, "2009-04", day("2009-04-01"), [600] * 60, [23_000] * 60, ([], [], [])))
        april = [(Month(METER, "2009-04"), Traceability(METER))] * 32
        assert contend(served, bill, april, Refused, conditional=False).accepted == 32
        assert len(checks.billed_twice(store)) == 31


def test_readings_after_an_expired_calibration_are_kept_and_not_billed() -> None:
    """The certificate ends on 1 March at two o'clock: two of five hours are billed."""
    with ef.Store("memory:") as store:
        until = MARCH + timedelta(hours=2)
        store.append(MeterCalibrated(METER, "C-1", day("2009-01-01"), until, "the laboratory"))
        store.append(*map(readings, range(5)))
        store.decide(bill, Month(METER, "2009-03"), Traceability(METER))
        sent = store.state(Month(METER, "2009-03")).bill
        assert sent is not None and (sent.billed, sent.not_billed) == (72_000, 108_000)


def test_a_calibration_that_is_found_bad_is_traced_back_to_the_last_good_one_and_credited_once() -> None:
    """What the bill rested on when it was sent stays answerable after the certificate was withdrawn."""
    with ef.Store("memory:") as store:
        store.append(calibrated("C-1", "2008-06-01", "2009-06-01"), calibrated("C-2", "2009-02-01", "2010-02-01"))
        store.append(*map(readings, range(3)))
        chain, month = Traceability(METER), Month(METER, "2009-03")
        store.decide(bill, month, chain)
        assert not store.decide(credit, month, chain, "C-2").events
        sent = store.head()
        store.append(CalibrationFoundBad(METER, "C-2", "the reference was wrong", "the laboratory"))
        assert store.state(chain).doubts() == [(day("2008-06-01"), day("2010-02-01"))]
        assert store.state(chain, at=sent).covers(MARCH) and not store.state(chain).covers(MARCH)
        for _ in range(2):
            store.decide(credit, month, chain, "C-2")
        assert store.state(month).credited == 108_000
        assert store.count(ef.Query.of(types=[CreditIssued])) == 1


def test_a_timer_says_that_a_certificate_expires_before_and_when_it_does() -> None:
    """Thirty days before, and at the minute, by the runner's clock."""
    with ef.Store("memory:") as store:
        store.append(calibrated("C-9", "2090-01-01", "2091-01-01"))
        due, expired = ef.Query.of(types=[CalibrationDue]), ef.Query.of(types=[CalibrationExpired])
        for moment, counts in (("2090-11-30", (0, 0)), ("2090-12-02", (1, 0)), ("2091-01-01", (1, 1))):
            store.run_until_idle(Expiry, clock=Clock(day(moment)))
            assert (store.count(due), store.count(expired)) == counts


def test_a_week_is_judged_by_the_rule_of_its_time() -> None:
    """Ten minutes at 254 V break both rules; one minute among ten breaks the older one only."""
    monday = day("2009-03-02")
    spike: list[int | None] = [25_400, *[23_000] * 59]
    with ef.Store("memory:") as store:
        high: list[int | None] = [25_400] * 60
        for week, volts in ((0, spike), (1, spike), (2, high)):
            at = monday + timedelta(weeks=week)
            store.append(ReadingsTaken(METER, f"{at:%Y-%m}", at, [600] * 60, volts, ([], [], [])))
        store.append(ef.Draft(VoltageRuleAdopted(METER, EVERY_MINUTE, "ann"), occurred=day("2009-01-01")))
        store.append(ef.Draft(VoltageRuleAdopted(METER, STANDARD, "ann"), occurred=monday + timedelta(days=10)))
        store.project(WeekOfVoltage)
        weeks = store.rows(WeekOfVoltage, order=["week"])
        rules = [[each.event.rule for each in store.decide(judge_week, Verdicts(METER), week).events] for week in weeks]
        assert rules == [[EVERY_MINUTE], [], [STANDARD]]
        assert not store.decide(judge_week, Verdicts(METER), weeks[0]).events


def test_forecasts_use_what_was_known_and_are_compared_with_what_came() -> None:
    """A forecast is made again from the fleet as of its moment; one that is forged is found."""
    with ef.Store("memory:") as store:
        fleet_load.load(store, LoadCount())
        fleet = store.state(Fleet(FLEET))
        assert (len(fleet.installed), sum(map(len, fleet.replaced.values()))) == (41, 48)
        (last,) = list(store.read(ef.Query.of(types=[ReplacementsForecast])))[-1:]
        assert came(fleet, last.event.as_of, 90) == 14
        assert fleet.mean_cumulative(fleet_load.LAST_LOOK)[-1][1] == pytest.approx(1.5427, abs=1e-4)


def test_rows_that_are_empty_or_unknown_are_counted_and_a_silence_is_two_events() -> None:
    """A silence over an hour's end begins and ends at its minutes; a row in another form is rejected by its reason."""
    numbers = (600, 23_000, 0, 0, 0)
    taken = [Minute(MARCH + timedelta(minutes=n), None if 50 <= n < 70 else numbers, n != 55) for n in range(120)]
    count = LoadCount()
    events = [draft.event for draft, _ in drafts(taken, count)]
    assert [type(each).__name__ for each in events] == [
        "ReadingsTaken",
        "MeterFellSilent",
        "ReadingsTaken",
        "MeterSpokeAgain",
    ]
    assert events[1] == MeterFellSilent(METER, MARCH + timedelta(minutes=50))
    assert events[3] == MeterSpokeAgain(METER, MARCH + timedelta(minutes=50), 20)
    assert sorted(count.rejected.values()) == [1, 19]
    assert next(minutes(1)).numbers == (4_216, 23_484, 0, 1, 17)


def test_a_gateway_sends_a_batch_again_under_its_key_over_http(tmp_path: Path) -> None:  # noqa: F811
    """The answer was lost: the second time the server returns the first receipt, and writes nothing."""
    with ef.Store(str(tmp_path / "meters.db")):
        pass
    app = application(str(tmp_path / "meters.db"), modules=["examples.fields.meters.app"])
    with serving(app) as url, ef.Store(url) as gateway:
        batch = [readings(0), readings(1)]
        first = gateway.append(*batch, key="gateway-7/batch-1")
        again = gateway.append(*batch, key="gateway-7/batch-1")
        assert again.repeated and again.positions == first.positions
        assert gateway.count() == 2


def test_a_holder_is_erased_and_the_bills_stay(tmp_path: Path) -> None:  # noqa: F811
    """No file has the name any more; an erasure that was interrupted after its event is completed by the next call."""
    names = Names(tmp_path / "names.db")
    with ef.Store(str(tmp_path / "meters.db")) as store:
        holder = names.add("Marguerite Duval")
        store.decide(assign, Holder(holder), METER)
        store.append(calibrated("C-1", "2009-01-01", "2010-01-01"), readings(0))
        store.decide(bill, Month(METER, "2009-03"), Traceability(METER))
        store.decide(erase, Holder(holder), "ann")  # and then the process ended
        assert names.of(holder) == "Marguerite Duval"
        for _ in range(2):
            names.erase(store, holder, "ann")
        assert names.of(holder) is None
        with pytest.raises(Erased):
            store.decide(assign, Holder(holder), "another meter")
        assert store.state(Month(METER, "2009-03")).bill is not None
        assert store.count(ef.Query.of(types=[HolderErased])) == 1
    names.close()
    assert not [each for each in tmp_path.iterdir() if b"Duval" in each.read_bytes()]


def test_a_forged_reading_and_a_changed_byte_are_found(tmp_path: Path) -> None:  # noqa: F811
    """The check finds the hour that the source does not have; the engine names the changed event."""
    path = tmp_path / "meters.db"
    with ef.Store(str(path)) as store:
        load(store, 3_000)
        forge(store, readings(0))
        found = [each.figure for each in checks.check(store, 3_000).comparison.mismatches]
        assert any(each.startswith("day, ") for each in found)
    change_byte(path, 17)
    assert 17 in [flaw.position for flaw in damage_of(str(path)).flaws]
