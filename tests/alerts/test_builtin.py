"""Built-in alerts: what each one reports, that two runners raise once, and that they clear."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import eventfold as ef
from eventfold.alerts.builtin import BuiltIn, Lagging, Parked, Silent, Stuck, Undelivered, VerifyOld
from eventfold.alerts.facts import Episode
from eventfold.concurrency import run
from eventfold.errors import InvalidInput
from eventfold.processes import effect
from eventfold.processes.parts import Clocked
from eventfold.projections.verified import TYPE, Verified

HOUR = 3_600_000_000


class BuiltinOrder(ef.Event, type="builtin-order"):
    """An order, which some handlers refuse."""

    order: ef.Tag
    fits: bool = True


class OrdersSeen(ef.Projection, name="builtin_seen"):
    """Counts orders."""

    order: ef.Tag
    count: int = 0

    def evolve(self, event: BuiltinOrder) -> None:
        if not event.fits:
            raise ValueError("this order does not fit")
        self.count += 1


class OrdersParked(ef.Projection, name="builtin_parked", on_error="park", attempts=1):
    """Counts orders and parks those that do not fit."""

    order: ef.Tag
    count: int = 0

    def evolve(self, event: BuiltinOrder) -> None:
        if not event.fits:
            raise ValueError("this order does not fit")
        self.count += 1


class OrderFlow(ef.Process, name="builtin_flow", start="beginning", attempts=1):
    """A process that fails on orders that do not fit."""

    order: ef.Tag
    seen: int = 0

    def evolve(self, event: BuiltinOrder) -> None:
        self.seen += 1

    def react(self, event: BuiltinOrder) -> Iterator[object]:
        if not event.fits:
            raise ValueError("this order does not fit")
        yield from ()


@effect(name="builtin_mail", start="beginning", attempts=1)
def send_mail(event: BuiltinOrder) -> None:
    """Fail on orders that do not fit."""
    if not event.fits:
        raise ValueError("this order does not fit")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ef.Store]:
    """A store in a file."""
    with ef.Store(str(tmp_path / "s.db")) as opened:
        yield opened


def clocked(alert: BuiltIn, store: ef.Store) -> Clocked:
    """The step of a built-in alert, as a runner makes it."""
    (make,) = alert.__eventfold_parts__().clocked
    return make(store.projections)


def check(alert: BuiltIn, store: ef.Store, after: int = 0) -> dict[str, str]:
    """Let a new runner check once, `after` µs later than now; the open episodes of the alert by key."""
    run(clocked(alert, store).fire(time.time_ns() // 1000 + after))
    return {each.key: each.reason for each in store.alerts.list(alert.name)}


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, for a minute at most."""
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_a_read_model_that_no_runner_works_on_is_lagging_and_then_is_not(store: ef.Store) -> None:
    """The reason says how late it is, how many events wait, and why; catching up clears it."""
    alert = Lagging(OrdersSeen, limit=ef.seconds(0.05))
    store.project(OrdersSeen)
    assert check(alert, store) == {}
    store.append(BuiltinOrder("o-1"))
    eventually(lambda: bool(check(alert, store)))
    (reason,) = check(alert, store).values()
    assert reason.startswith("builtin_seen is ")
    assert "1 event: " in reason
    store.project(OrdersSeen)
    assert check(alert, store) == {}
    (ended,) = store.alerts.list(alert.name, open_only=False)
    assert ended.cleared_because == "The store is as it should be again."


def test_a_read_model_that_stopped_is_lagging_at_once(store: ef.Store) -> None:
    """Whatever the limit is: a stopped one does not go on by itself."""
    store.append(BuiltinOrder("o-1", fits=False))
    with pytest.raises(ef.EventfoldError):
        store.project(OrdersSeen)
    (reason,) = check(Lagging(), store).values()
    assert "this order does not fit" in reason


def test_a_paused_read_model_is_lagging_only_if_it_was_named(store: ef.Store) -> None:
    """An operator who pauses one knows that it falls behind."""
    store.project(OrdersSeen)
    store.projections.pause(OrdersSeen, "maintenance")
    store.append(BuiltinOrder("o-1"))
    named = Lagging("builtin_seen", limit=ef.seconds(0.01))
    eventually(lambda: bool(check(named, store)))
    assert check(Lagging(limit=ef.seconds(0.01)), store) == {}


def test_a_read_model_that_the_store_does_not_know_is_reported_after_the_limit(store: ef.Store) -> None:
    """A misspelled name is named, once a service had the time to start."""
    alert = Lagging("builtin_sen")
    assert check(alert, store) == {}
    assert check(alert, store, after=HOUR) == {
        "builtin_sen": "The store knows no builtin_sen, so nothing has ever run it."
    }


def test_parked_events_stuck_instances_and_failed_effects_are_reported_each_by_its_alert(store: ef.Store) -> None:
    """One order that does not fit; processes are no effects, and effects no processes."""
    store.append(BuiltinOrder("o-1"), BuiltinOrder("o-2", fits=False))
    store.project(OrdersParked)
    for work in (OrderFlow, send_mail):
        with pytest.raises(ef.EventfoldError):
            store.run_until_idle(work)
    parked = check(Parked(), store)
    assert parked["builtin_parked"] == "1 event of builtin_parked failed and is parked; the first is at position 2."
    assert set(parked) == {"builtin_parked", "builtin_flow", "builtin_mail"}
    assert check(Parked(OrdersParked, more_than=1), store) == {}
    assert check(Stuck(), store) == {"builtin_flow": "1 instance of the process builtin_flow is stuck."}
    assert check(Stuck(OrderFlow), store) == check(Stuck(), store)
    assert check(Undelivered(), store) == {}
    (undelivered,) = check(Undelivered(), store, after=HOUR).items()
    assert undelivered[0] == "builtin_mail"
    assert undelivered[1].startswith("1 event of the effect builtin_mail is not delivered, the first for 1 hour")
    assert undelivered[1].endswith("; 1 failed.")
    assert list(check(Undelivered(send_mail), store, after=HOUR)) == ["builtin_mail"]


def test_an_effect_that_no_runner_works_on_is_undelivered_after_the_limit(store: ef.Store) -> None:
    """Waiting events count as well as failed ones."""
    store.run_until_idle(send_mail)
    store.append(BuiltinOrder("o-1"))
    alert = Undelivered("builtin_mail", limit=ef.seconds(0.05))
    eventually(lambda: bool(check(alert, store)))


def test_an_old_or_failed_verification_is_reported(store: ef.Store) -> None:
    """Never verified, verified long ago, found wrong: each has its reason."""
    alert = VerifyOld(limit=ef.hours(48))
    store.append(BuiltinOrder("o-1"))
    assert check(alert, store) == {}
    assert check(alert, store, after=49 * HOUR) == {"log": "Nothing was verified for 2 days 1 hour."}
    store.projections.record(store.projections.verify_log())
    assert check(alert, store, after=47 * HOUR) == {}
    assert list(check(alert, store, after=50 * HOUR)) == ["log"]
    fault = Verified("builtin_seen", "rows", 1, 1, False, "1 row differs.")
    store.projections.append_fact(TYPE, f"{TYPE}:builtin_seen", fault)
    assert check(alert, store) == {}, "a read model that does not exist, or was removed, will not be verified again"
    store.project(OrdersSeen)
    assert check(alert, store)["rows of builtin_seen"] == (
        "The last verification of rows of builtin_seen found a fault: 1 row differs."
    )


def test_expected_types_that_fall_silent_are_reported(store: ef.Store) -> None:
    """Counted from the last event of the type, or from when the alert was first run."""
    alert = Silent(BuiltinOrder, expect=ef.hours(1))
    assert check(alert, store) == {}
    assert list(check(alert, store, after=HOUR + 1_000_000)) == ["builtin-order"]
    store.append(BuiltinOrder("o-1"))
    assert check(alert, store) == {}
    (reason,) = check(alert, store, after=2 * HOUR).values()
    assert "one is expected every 1 hour" in reason


def test_two_runners_raise_and_clear_once(store: ef.Store, tmp_path: Path) -> None:
    """Two stores of one file check at the same time: one episode, and one end of it."""
    store.append(BuiltinOrder("o-1", fits=False))
    store.project(OrdersParked)
    with ef.Store(str(tmp_path / "s.db")) as other:
        pair = [clocked(Parked(), each) for each in (store, other)]
        now = time.time_ns() // 1000
        for each in pair:
            run(each.fire(now))
        store.projections.skip(OrdersParked, 1, "it does not fit")
        later = [clocked(Parked(), each) for each in (other, store)]
        for each in later:
            run(each.fire(now + 5_000_000))
    episodes: list[Episode] = store.alerts.list("parked", open_only=False)
    assert [each.is_open for each in episodes] == [False]
    assert store.count(ef.Query.of(types=["$alert-raised"])) == 1
    assert store.count(ef.Query.of(types=["$alert-cleared"])) == 1


def test_a_runner_of_built_in_alerts_alone_raises_clears_and_stops(store: ef.Store) -> None:
    """`store.run(Parked())` runs without any read model, and its names are known to `store.alerts`."""
    store.append(BuiltinOrder("o-1", fits=False))
    store.project(OrdersParked)
    with store.run(Parked(), VerifyOld()) as running:
        eventually(lambda: store.alerts.names() == ["parked", "verify_old"])
        eventually(lambda: bool(store.alerts.list("parked")))
        assert running.running
        assert not running.wait(0.01)
        store.projections.skip(OrdersParked, 1, "it does not fit")
        eventually(lambda: not store.alerts.list("parked"))
    assert not running.running
    assert running.failed == {}


def test_built_in_alerts_of_a_module_are_found_by_its_name() -> None:
    """`eventfold run STORE MODULE` runs those that the module makes."""
    from eventfold.processes.work import load

    module = ModuleType("builtin_rules")
    exec("from eventfold.alerts.builtin import *\nlag = Lagging()\nold = VerifyOld()", module.__dict__)
    sys.modules["builtin_rules"] = module
    try:
        assert [repr(each) for each in load("builtin_rules")] == ["<Lagging lagging>", "<VerifyOld verify_old>"]
    finally:
        del sys.modules["builtin_rules"]


def test_limits_that_cannot_be_used_are_refused() -> None:
    """A duration of zero and a list of no types are named where they are written."""
    for make in (lambda: Lagging(limit=ef.seconds(0)), lambda: VerifyOld(limit=ef.hours(-1))):
        with pytest.raises(InvalidInput):
            make()
    with pytest.raises(InvalidInput, match="no event class"):
        Silent(expect=ef.hours(1))


def test_names_are_those_of_facts_and_commands() -> None:
    """One that watches a single thing has its name, so that it and the general one do not end each other's episodes."""
    assert [Lagging().name, Lagging(OrdersSeen).name, Lagging("x", name="late").name] == [
        "lagging",
        "lagging_builtin_seen",
        "late",
    ]
