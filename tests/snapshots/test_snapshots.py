"""A snapshot only saves time: it is dropped whenever the fold could mean something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.concurrency import run
from eventfold.core.fingerprint import fingerprint
from eventfold.core.snapshot import Snapshot, pack, snapshot_key


class Ticked(ef.Event, type="snapshot-ticked"):
    """A tick of a clock."""

    clock: ef.Tag
    by: int = 1


class Clock(ef.State):
    """How often a clock ticked."""

    clock: ef.Tag
    ticks: int = 0

    def evolve(self, event: Ticked) -> None:
        """Add one."""
        self.ticks += event.by


def kept(store: ef.Store, question: ef.State) -> Snapshot | None:
    """Return the stored snapshot of a state."""
    key = snapshot_key(question)
    assert key is not None
    return run(store.engine.services.snapshots.get(key))


def reads(store: ef.Store) -> list[int]:
    """Return a list that receives, from now on, the number of events of each page that is read."""
    sizes: list[int] = []
    engine = store.engine
    read = engine.read

    async def counted(query: Any, span: Any) -> Any:
        page = await read(query, span)
        sizes.append(len(page.events))
        return page

    engine.read = counted  # type: ignore[method-assign]
    return sizes


@pytest.fixture
def path(tmp_path: Path) -> str:
    """The path of a store with a clock that ticked 2,500 times."""
    path = str(tmp_path / "clock.db")
    with ef.Store(path) as store:
        store.extend(Ticked("c") for _ in range(2_500))
    return path


def test_a_cold_store_folds_only_what_came_after_the_snapshot(path: str) -> None:
    """A thousand events are not folded twice."""
    with ef.Store(path) as store:
        assert store.state(Clock("c")).ticks == 2_500
        store.extend(Ticked("c") for _ in range(7))
    with ef.Store(path) as store:
        sizes = reads(store)
        assert store.state(Clock("c")).ticks == 2_507
        assert sum(sizes) == 7


def test_few_events_are_not_worth_a_snapshot(tmp_path: Path) -> None:
    """The policy counts events folded since the last snapshot."""
    with ef.Store(str(tmp_path / "few.db"), snapshots=10) as store:
        store.extend(Ticked("c") for _ in range(9))
        store.state(Clock("c"))
        assert kept(store, Clock("c")) is None
        store.append(Ticked("c"))
        store.state(Clock("c"))
        first = kept(store, Clock("c"))
        assert first is not None
        assert first.position == 10


def test_snapshots_can_be_switched_off(path: str) -> None:
    """With snapshots=0 none is stored and none is used."""
    with ef.Store(path, snapshots=0) as store:
        store.state(Clock("c"))
        assert kept(store, Clock("c")) is None


def test_a_changed_fold_does_not_use_an_old_snapshot(path: str) -> None:
    """The same state, folded by other code, is folded from the beginning."""
    with ef.Store(path) as store:
        assert store.state(Clock("c")).ticks == 2_500

    class Changed(ef.State):
        clock: ef.Tag
        ticks: int = 0

        def evolve(self, event: Ticked) -> None:
            self.ticks += 2 * event.by

    Changed.__module__, Changed.__qualname__ = Clock.__module__, Clock.__qualname__
    assert snapshot_key(Changed("c")) == snapshot_key(Clock("c"))
    with ef.Store(path) as store:
        assert store.state(Changed("c")).ticks == 5_000


FACTOR = 1


def scaled(by: int) -> int:
    """A function outside the class, which a fold uses."""
    return by * FACTOR


def test_the_fingerprint_sees_what_the_fold_uses_outside_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function, and a constant that the function uses, are part of the fold."""

    def one() -> type[ef.State]:
        class Scaled(ef.State):
            clock: ef.Tag
            ticks: int = 0

            def evolve(self, event: Ticked) -> None:
                self.ticks += scaled(event.by)

        return Scaled

    before, same = fingerprint(one()), fingerprint(one())
    assert before == same
    monkeypatch.setitem(globals(), "FACTOR", 2)
    assert fingerprint(one()) != before


def test_a_snapshot_of_lost_history_is_not_used(path: str) -> None:
    """Its position must still have the event it was folded through."""
    with ef.Store(path) as store:
        store.state(Clock("c"))
        real = kept(store, Clock("c"))
        assert real is not None
        forged = Snapshot(real.fingerprint, real.position, b"x" * 16, b'{"clock":"c","ticks":99}')
        run(store.engine.services.snapshots.put(snapshot_key(Clock("c")), forged))
    with ef.Store(path) as store:
        assert store.state(Clock("c")).ticks == 2_500


def test_a_snapshot_that_cannot_be_decoded_is_ignored(path: str) -> None:
    """A snapshot that cannot be decoded is ignored."""
    with ef.Store(path) as store:
        store.state(Clock("c"))
        real = kept(store, Clock("c"))
        assert real is not None
        broken = Snapshot(real.fingerprint, real.position, real.event_id, b'{"clock":3}')
        run(store.engine.services.snapshots.put(snapshot_key(Clock("c")), broken))
    with ef.Store(path) as store:
        assert store.state(Clock("c")).ticks == 2_500


def test_a_state_that_would_not_decode_equal_is_not_stored() -> None:
    """A tuple in a field typed Any would return as a list."""

    class Loose(ef.State):
        clock: ef.Tag
        last: Any = None

        def evolve(self, event: Ticked) -> None:
            self.last = (event.by,)

    state = Loose("c")
    state.evolve(Ticked("c"))
    assert pack(state) is None


def test_a_store_that_cannot_be_written_to_still_answers(path: str) -> None:
    """Storing a snapshot is an optimisation: its failure does not reach the reader."""
    with ef.Store(path, readonly=True) as store:
        assert store.state(Clock("c")).ticks == 2_500
        assert kept(store, Clock("c")) is None


def test_dropping_all_snapshots_changes_nothing(path: str) -> None:
    """The log is the source of truth."""
    with ef.Store(path) as store:
        store.state(Clock("c"))
        assert run(store.engine.services.snapshots.delete_prefix()) == 1
    with ef.Store(path) as store:
        assert store.state(Clock("c")).ticks == 2_500
