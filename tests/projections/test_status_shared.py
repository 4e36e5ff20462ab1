"""Status while several runners share the partitions of one read model, and from a machine with a wrong clock."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

import eventfold as ef
from tests.projections.flights import Departed


class Shared(ef.Projection, name="status_shared", partitions=3):
    """A read model with three partitions."""

    carrier: str
    n: int = 0

    def evolve(self, event: Departed) -> None:
        """Count."""
        self.n += 1


def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)


def filled(url: str) -> ef.Store:
    """Return a store whose read model is registered and current."""
    store = ef.Store(url)
    store.extend([Departed(f"c-{n}", 1, 1) for n in range(30)])
    store.project(Shared)
    return store


@pytest.mark.parametrize("behind", [False, True], ids=["current", "behind"])
def test_a_partition_between_two_runners_is_run(store: ef.Store, behind: bool) -> None:
    """One is released for another runner, the others are leased: the status does not report that it is not run."""
    store.append(Departed("a", 1, 1))
    store.project(Shared)
    target = store.projections.target(Shared)
    places = [held.place for held in store.projections.checkpoints(Shared)]
    held = [target.claim(place, "runner-1", 30.0) for place in places]
    if behind:
        store.append(Departed("a", 1, 1))
    for each in held[1:]:  # one after the other
        assert each is not None
        assert store.projections.status(Shared)[0].state == ("behind" if behind else "current")
        target.release(each)
        (status,) = store.projections.status(Shared)
        assert status.state == ("behind" if behind else "current")
        assert "running" not in status.sentence
        assert "no runner" not in status.sentence
    assert held[0] is not None
    target.release(held[0])
    (status,) = store.projections.status(Shared)
    assert status.state == "idle"
    assert (
        ("start a runner" in status.sentence) if behind else (status.sentence == "Current; no runner is working on it.")
    )


def test_a_partition_that_no_runner_takes_for_long_is_reported(
    store: ef.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are leased, and this one has not been renewed for more than ten seconds."""
    store.append(Departed("a", 1, 1))
    store.project(Shared)
    target = store.projections.target(Shared)
    store.append(Departed("a", 1, 1))
    for held in store.projections.checkpoints(Shared)[1:]:
        assert target.claim(held.place, "runner-1", 60.0) is not None
    later = target.now() + 11_000_000
    monkeypatch.setattr(target, "now", lambda: later)
    (status,) = store.projections.status(Shared)
    assert status.state == "idle"
    assert status.sentence.startswith("Partition 0 is not running since ")


@pytest.mark.parametrize("skew", [100, -100])
def test_the_clock_of_the_machine_that_asks_is_not_asked(
    store: ef.Store, monkeypatch: pytest.MonkeyPatch, skew: int
) -> None:
    """Leases are compared with the clock that they were written by."""
    store.append(Departed("a", 1, 1))
    store.project(Shared)
    target = store.projections.target(Shared)
    for held in store.projections.checkpoints(Shared):
        assert target.claim(held.place, "runner-1", 60.0) is not None
    was, now = time.time_ns, target.now
    monkeypatch.setattr(target, "now", lambda: now() - (skew * 1_000_000 if "postgres" not in target.address else 0))
    monkeypatch.setattr(time, "time_ns", lambda: was() + skew * 1_000_000_000)  # on a file, target.now takes it back
    (status,) = store.projections.status(Shared)
    assert (status.state, status.holder) == ("current", "runner-1")


def test_two_runners_at_work_are_never_reported_as_none(shared_url: str) -> None:
    """Status is polled while they rebalance by releasing partitions to each other."""
    with filled(shared_url) as store, ef.Store(shared_url) as second, store.run(Shared), second.run(Shared):
        held = store.projections.checkpoints
        until(lambda: len({each.holder for each in held(Shared) if each.holder}) == 2)
        ends = time.monotonic() + 1.5
        while time.monotonic() < ends:
            (status,) = store.projections.status(Shared)
            assert status.state == "current", status.sentence
            time.sleep(0.02)
