"""The ward: what was known when, and two rules that hold while 32 tasks try to break them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import eventfold as ef
from eventfold.demo.fields import change_byte, contend, damage_of, forge
from eventfold.testing import given
from examples.fields.ward import app
from examples.fields.ward.check import breaches, check, tracing
from examples.fields.ward.graphml import graphml
from examples.fields.ward.load import EVENING, SOURCE, WARD, load, merged
from tests.support.data import need

NOON = datetime(2010, 12, 8, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with all contacts."""
    need(SOURCE)
    path = tmp_path_factory.mktemp("ward") / "ward.db"
    with ef.Store(str(path)) as store:
        count = load(store)
        assert count.is_complete
        assert count.loaded == count.read
    return path


def test_the_figures_are_those_of_the_source_and_a_second_load_writes_nothing(loaded: Path) -> None:
    """Contacts by role, pair and hour agree with SQL; loading again finds each line and repeats no decision."""
    with ef.Store(str(loaded)) as store:
        head = store.head()
        again = load(store)
        assert (again.events, again.made, store.head()) == (0, 0, head)
        found = check(store)
    assert found.comparison.compared > 1_000
    assert found.comparison.mismatches == []
    assert found.figures["contacts"] == 14_037  # as the paper that describes the data says
    assert 0.935 < found.figures["by day"] < 0.945  # 94.1 % there


def test_a_correction_shows_who_was_not_tested(loaded: Path) -> None:
    """As known on the third evening no one was missed; the correction of the fourth day names one."""
    with ef.Store(str(loaded)) as store:
        then, now = tracing(store, EVENING), tracing(store, EVENING + timedelta(days=7))
        tests = store.state(app.Tests(WARD)).samples
        history = [step.recorded.type for step in store.history(app.Tests(WARD)) if step.recorded.event.test == "t-3"]
    assert then.missed == set()
    assert now.missed
    assert set(then.positive) < set(now.positive)
    assert tests["t-3"].positive
    assert history == ["TestOrdered", "TestResulted", "TestCorrected"]


def test_the_network_is_read_by_other_programs(loaded: Path) -> None:
    """The GraphML of a moment has the people and pairs seen by then."""
    with ef.Store(str(loaded)) as store:
        early, whole = (
            ElementTree.fromstring(graphml(store, until)) for until in (datetime(2010, 12, 6, 18, tzinfo=UTC), None)
        )
    space = "{http://graphml.graphdrawing.org/xmlns}"
    assert len(whole.findall(f".//{space}node")) == 75
    assert 0 < len(early.findall(f".//{space}edge")) < len(whole.findall(f".//{space}edge"))


@pytest.mark.parametrize("conditional", [True, False], ids=["with-the-condition", "without-it"])
def test_thirty_two_tasks_order_one_test_of_a_person(served: str, conditional: bool) -> None:
    """Of 32 who order a test of one person, one succeeds. Without the condition the person is tested often."""
    with ef.Store(served):
        pass
    asked = [(app.order_test, app.Person("p-1"), WARD, f"t-{number}", NOON) for number in range(32)]
    result = contend(served, _call, asked, app.Refused, conditional=conditional)
    with ef.Store(served) as store:
        ordered, found = store.count(ef.Query.of(types=[app.TestOrdered])), breaches(store)
    if conditional:
        assert (result.accepted, result.refused, ordered, found) == (1, 31, 1, [])
    else:
        assert ordered > 1
        assert found


def test_no_one_is_admitted_behind_an_outbreak(served: str) -> None:
    """While 31 tasks admit people, one declares an outbreak: no one is admitted behind it."""
    with ef.Store(served):
        pass
    asked: list[tuple[object, ...]] = [(app.admit, app.Ward(WARD), f"p-{number}", NOON) for number in range(31)]
    asked.insert(16, (app.declare_outbreak, app.Ward(WARD), NOON))
    result = contend(served, _call, asked, app.Refused)
    with ef.Store(served) as store:
        kinds = [recorded.type for recorded in store.read()]
        assert breaches(store) == []
    assert result.accepted + result.refused == 32
    assert kinds[-1] == "OutbreakDeclared"


def _call(function: Callable[..., Any], *arguments: object) -> Any:
    return function(*arguments)


def test_a_forged_event_and_a_changed_byte_are_found(loaded: Path, tmp_path: Path) -> None:
    """A contact that no badge sensed differs from the source, a test ordered past the rule is named."""
    path = tmp_path / "forged.db"
    path.write_bytes(loaded.read_bytes())
    with ef.Store(str(path)) as store:
        contact = app.ContactSensed(("1098", "1100"), ("NUR", "NUR"), 40)
        forge(store, ef.Draft(contact, occurred=NOON))
        last = forge(store, *[ef.Draft(app.TestOrdered(WARD, "1098", f"x-{n}"), occurred=NOON) for n in range(2)])
        found = check(store).comparison.mismatches
    assert any(each.figure == "contacts and seconds of, NUR NUR" for each in found)
    assert any("1098 was tested twice" in each.figure for each in found)
    change_byte(path, last)
    assert damage_of(str(path)).flaws


def test_readings_of_a_pair_that_follow_each_other_are_one_contact() -> None:
    """A gap of more than one step begins another contact; other pairs do not interrupt one."""
    pair, other = ("a", "b", "NUR", "PAT"), ("a", "c", "NUR", "MED")
    found = merged([(0, *pair), (20, *pair), (20, *other), (40, *pair), (80, *pair)])
    assert [(contact.start, contact.one, contact.other, contact.seconds) for contact in found] == [
        (0, "a", "b", 60),
        (20, "a", "c", 20),
        (80, "a", "b", 20),
    ]


def test_an_isolated_person_is_not_tested_until_it_is_lifted() -> None:
    """Isolation refuses a test, and so does a test within 24 hours."""
    person = app.Person("p-1")
    isolated = given(app.PatientIsolated(WARD, "p-1"))
    isolated.when(app.order_test, person, WARD, "t-1", NOON).raises(app.Refused)
    lifted = isolated.given(app.IsolationLifted(WARD, "p-1"))
    tested = lifted.given(ef.Draft(app.TestOrdered(WARD, "p-1", "t-1"), occurred=NOON))
    tested.when(app.order_test, person, WARD, "t-2", NOON + timedelta(hours=23)).raises(app.Refused)
    tested.when(app.order_test, person, WARD, "t-2", NOON + timedelta(hours=24)).then(
        app.TestOrdered(WARD, "p-1", "t-2")
    )


def test_only_a_result_is_corrected() -> None:
    """A test without a result, or never ordered, has nothing to correct; an equal result changes nothing."""
    tests = app.Tests(WARD)
    ordered = given(ef.Draft(app.TestOrdered(WARD, "p-1", "t-1"), occurred=NOON))
    ordered.when(app.correct, tests, "t-1", True, "?", NOON).raises(app.Refused)
    ordered.when(app.report, tests, "t-9", True, NOON).raises(app.Refused)
    done = ordered.when(app.report, tests, "t-1", False, NOON).then(app.TestResulted(WARD, "p-1", "t-1", False))
    done.when(app.correct, tests, "t-1", False, "?", NOON).nothing()
