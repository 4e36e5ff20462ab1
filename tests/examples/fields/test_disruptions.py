"""Disruptions: which next legs are late because of one, and a spare aircraft flies one leg at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.demo.fields import change_byte, contend, damage_of, forge
from eventfold.demo.flights import FlightArrived, FlightDeparted
from eventfold.testing import given
from examples.fields.disruptions.app import (
    Carried,
    Cover,
    Gone,
    Refused,
    Rotation,
    SpareAssigned,
    SparePlan,
    SpareReleased,
    assign_spare,
    release_spare,
)
from examples.fields.disruptions.check import breaches, check
from examples.fields.disruptions.load import load
from examples.fields.disruptions.ocel import ocel

FLIGHTS = 2_000
NOON = datetime(2013, 1, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = "2013-01-02"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with the first flights."""
    path = tmp_path_factory.mktemp("disruptions") / "flights.db"
    with ef.Store(str(path)) as store:
        assert load(store, FLIGHTS).is_complete
    return path


def test_the_figures_are_those_of_the_source_and_a_second_load_writes_nothing(loaded: Path) -> None:
    """What each aircraft passed on, and the longest chain, agree with SQL; loading again finds every row."""
    with ef.Store(str(loaded)) as store:
        again = load(store, FLIGHTS)
        assert (again.events, again.loaded) == (0, 0)
        assert again.is_complete
        found = check(store, FLIGHTS)
    assert found.comparison.compared > 500
    assert found.comparison.mismatches == []
    assert found.figures["minutes passed on"] > 0
    assert found.figures["longest"]["legs"] >= found.figures["longest"]["known after 12 h"]


def legs(*flights: tuple[str, int, int, int]) -> list[FlightDeparted | FlightArrived]:
    """Flights of two hours by one aircraft: name, hours after noon by the schedule, delays of departure and arrival."""
    events: list[FlightDeparted | FlightArrived] = []
    for name, hours, delay, arrival_delay in flights:
        planned = NOON + hours * HOUR
        about = (name, "UA", "EWR", "IAH", DAY, "N1")
        events.append(FlightDeparted(*about, planned + timedelta(minutes=delay), delay))
        arrived = planned + 2 * HOUR + timedelta(minutes=arrival_delay)
        events.append(FlightArrived(*about, arrived, arrival_delay, 100))
    return events


def test_a_delay_is_passed_on_until_the_slack_absorbs_it() -> None:
    """Out, turn, back and turn take five hours. Each slack takes its part, and a leg's own delay is not passed on."""
    rotation = given(*legs(("a", 0, 90, 90), ("b", 5, 80, 80), ("c", 11, 40, 40), ("d", 17, 0, 0)))
    state = rotation.store.state(Rotation("N1", (DAY,)))
    assert state.because_of("a") == [Carried("b", 80, 80), Carried("c", 20, 40)]
    assert state.because_of("c") == []
    assert state.because_of("unknown") == []


def test_an_early_leg_and_a_leg_without_arrival_pass_nothing_on() -> None:
    """What left in time is late because of itself; behind a diverted flight nothing is known."""
    early = given(*legs(("a", 0, 0, -5), ("b", 5, 30, 30)))
    assert early.store.state(Rotation("N1", (DAY,))).because_of("a") == []
    diverted = given(*legs(("a", 0, 200, 200))[:1], *legs(("b", 5, 90, 90)))
    assert diverted.store.state(Rotation("N1", (DAY,))).because_of("a") == []


def test_the_past_shows_what_was_known_on_the_way() -> None:
    """As of a moment the chain has the legs that had left by then."""
    store = given().store
    for event in legs(("a", 0, 90, 90), ("b", 5, 90, 90), ("c", 10, 90, 90)):
        store.append(ef.Draft(event, occurred=event.at))
    question = Rotation("N1", (DAY,))
    known = store.state(question, occurred_until=NOON + 7 * HOUR).because_of("a")
    assert [each.flight for each in known] == ["b"]
    assert [each.flight for each in store.state(question).because_of("a")] == ["b", "c"]


@pytest.mark.parametrize("conditional", [True, False], ids=["with-the-condition", "without-it"])
def test_thirty_two_dispatchers_get_a_spare_aircraft_once(served: str, conditional: bool) -> None:
    """Of 32 who want the same spare at one time, one gets it. Without the condition it flies many legs at once."""
    with ef.Store(served):
        pass
    asked = [(SparePlan("p", "S-1"), Cover("p", f"f-{n}"), Gone(f"f-{n}"), NOON, NOON + HOUR) for n in range(32)]
    result = contend(served, assign_spare, asked, Refused, conditional=conditional)
    with ef.Store(served) as store:
        found = breaches(store)
    if conditional:
        assert (result.accepted, result.refused, found) == (1, 31, [])
    else:
        assert result.accepted > 1
        assert found


def test_thirty_two_spare_aircraft_cover_a_flight_once(served: str) -> None:
    """Of 32 spare aircraft for one flight, one is assigned."""
    with ef.Store(served):
        pass
    asked = [(SparePlan("p", f"S-{n}"), Cover("p", "f"), Gone("f"), NOON, NOON + HOUR) for n in range(32)]
    result = contend(served, assign_spare, asked, Refused)
    with ef.Store(served) as store:
        assert breaches(store) == []
    assert (result.accepted, result.refused) == (1, 31)


def test_a_flight_that_is_gone_gets_no_spare_and_a_released_one_is_free() -> None:
    """A departure ends the question; a release gives the spare back."""
    asked = (SparePlan("p", "S-1"), Cover("p", "a"), Gone("a"), NOON, NOON + HOUR)
    given(legs(("a", 0, 0, 0))[0]).when(assign_spare, *asked).raises(Refused)
    assigned = given().when(assign_spare, *asked).then(SpareAssigned("p", "S-1", "a", NOON, NOON + HOUR))
    released = assigned.when(release_spare, SparePlan("p", "S-1"), "a").then(SpareReleased("p", "S-1", "a"))
    other = (SparePlan("p", "S-1"), Cover("p", "b"), Gone("b"), NOON, NOON + HOUR)
    released.when(assign_spare, *other).then(SpareAssigned("p", "S-1", "b", NOON, NOON + HOUR))


def test_a_forged_event_and_a_changed_byte_are_found(loaded: Path, tmp_path: Path) -> None:
    """A departure that is not in the source differs in its aircraft's account; two spares of a flight are named."""
    path = tmp_path / "forged.db"
    path.write_bytes(loaded.read_bytes())
    with ef.Store(str(path)) as store:
        event = next(iter(store.read(ef.Query.of(types=[FlightDeparted])))).event
        forge(store, event)
        last = forge(store, *[SpareAssigned("p", f"S-{n}", "f", NOON, NOON + HOUR) for n in range(2)])
        found = [each.figure for each in check(store, FLIGHTS).comparison.mismatches]
    assert any(each.endswith(f"of aircraft, {event.aircraft}") for each in found)
    assert any("f has two spare aircraft" in each for each in found)
    change_byte(path, last)
    assert damage_of(str(path)).flaws


def test_process_mining_reads_the_events_as_objects(loaded: Path) -> None:
    """Each event is related to an object for each tag, and every object and type is declared."""
    with ef.Store(str(loaded)) as store:
        events = list(store.read(limit=200))
    document = ocel(events)
    objects = {each["id"]: each["type"] for each in document["objects"]}
    declared = {each["name"] for each in document["objectTypes"]}
    assert len(document["events"]) == 200
    assert set(objects.values()) == declared >= {"flight", "carrier", "origin"}
    for event, recorded in zip(document["events"], events, strict=True):
        assert {each["objectId"] for each in event["relationships"]} == set(recorded.tags) <= objects.keys()
    assert {each["name"] for each in document["eventTypes"]} == {recorded.type for recorded in events}
