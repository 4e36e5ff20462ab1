"""A sweep: each call of the store is interrupted at one instruction after another, and then the store must still work.

Knows: what must hold after an exception at any point. Does not know: which engine it is.
"""

from __future__ import annotations

import gc
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable

import eventfold as ef
from eventfold.core.envelope import new_id
from eventfold.core.query import Query
from tests.interrupts.raising import Raiser

WRITING = ("append", "decide_warm", "decide_cold")
DEADLINE_S = 60.0  # seconds in which a working store finishes a test's calls


class Seated(ef.Event):
    """Someone took a seat."""

    seat: ef.Tag
    by: str


class Seat(ef.State):
    """How often a seat was taken."""

    seat: ef.Tag
    taken: int = 0

    def evolve(self, event: Seated) -> None:
        """Add one."""
        self.taken += 1


class SeatRow(ef.Projection, name="sweep_seats"):
    """The same as rows."""

    seat: str
    taken: int = 0

    def evolve(self, event: Seated) -> None:
        """Add one."""
        self.taken += 1


def sit(seat: Seat, by: str) -> Seated:
    """Decide to take a seat; every caller may."""
    return Seated(seat.seat, by)


class Sweep:
    """One store that is interrupted repeatedly."""

    def __init__(self, store: ef.Store) -> None:
        self.store = store
        self.acknowledged: list[str] = []
        self.seen: list[str] = []  # the events that the long-lived follower received
        self.number = 0
        self._prefix = new_id().hex()[-8:]
        self.points = 0
        self._projects = False
        self._begin, self._cold = store.head(), "cold"
        self._follower = store.follow(after=self._begin)
        self._pages = self._follower.pages(timeout=0.0)

    def name(self) -> str:
        """Return a new name for one event."""
        self.number += 1
        return f"{self._prefix}-{self.number}"

    # What is interrupted

    def decide_warm(self, name: str) -> None:
        """Decide over a cached state."""
        self.store.decide(sit, Seat("warm"), name)

    def decide_cold(self, name: str) -> None:
        """Decide over a state that has to be read."""
        self.store.decide(sit, Seat(self._cold), name)

    def append(self, name: str) -> None:
        """Append under a condition and a key."""
        self.store.append(Seated("append", name), unless=Seat("none"), key=name)

    def follow(self, name: str) -> None:
        """Follow new events with a new follower."""
        with self.store.follow(Seat("warm").query(), after=max(0, self.store.head() - 2)) as follower:
            for _ in follower.pages(timeout=0.0):
                break

    def follow_on(self, name: str) -> None:
        """Follow new events with the follower that goes on after each interrupt."""
        self.seen += [recorded.event.by for recorded in next(self._pages)]

    def read(self, name: str) -> None:
        """Read some events."""
        list(self.store.read(Seat("warm").query(), limit=3, backwards=True))

    def lock(self, name: str) -> None:
        """Take a lock and release it."""
        with self.store.lock(Seat("locked"), timeout=DEADLINE_S):
            self.store.head()

    def project(self, name: str) -> None:
        """Bring a read model up to date."""
        self.store.project(SeatRow, timeout=DEADLINE_S / 2)

    # What must hold

    def begin(self, act: Callable[[str], None]) -> None:
        """Prepare the caches and events that a call needs."""
        if act.__name__ == "decide_cold":
            self._cold = f"cold-{self.number}"
            self.store.append(Seated(self._cold, self.name()))
            self.store.projections.log.cache.clear()
        elif act.__name__ == "decide_warm":
            self.store.state(Seat("warm"))
        elif act.__name__ == "project":
            self._projects = True
            self.store.projections.catalog.lease = 0.2  # a lease that an exception left behind expires
            self.store.append(Seated("append", self.name()))
        elif act.__name__ == "follow_on":
            self._catch_up()
            self.store.append(Seated("append", self.name()))

    def _catch_up(self) -> None:
        self._pages = self._follower.pages(timeout=0.0)
        while page := next(self._pages):
            self.seen += [recorded.event.by for recorded in page]

    def use(self) -> None:
        """Use every kind of call, over the states that were interrupted."""
        for seat in ("warm", self._cold):
            name = self.name()
            assert self.store.decide(sit, Seat(seat), name).receipt is not None
            self.acknowledged.append(name)
        name = self.name()
        self.store.append(Seated("append", name), unless=Seat("none"), key=name)
        self.acknowledged.append(name)
        with self.store.lock(Seat("locked"), timeout=DEADLINE_S / 2):
            pass
        with self.store.follow(after=self.store.head() - 1) as follower:
            page = next(follower.pages(timeout=DEADLINE_S / 2))
            assert page[-1].event.by == name, page
        if self._projects:
            self.store.project(SeatRow, timeout=DEADLINE_S / 2)
            expected = Counter(recorded.event.seat for recorded in self.store.read(Query.of(types=Seated)))
            assert {row.seat: row.taken for row in self.store.rows(SeatRow)} == expected

    def interrupt(self, act: Callable[[str], None], at: int, error: type[BaseException]) -> Raiser:
        """Interrupt one call, then use the store from another thread. Returns the raiser."""
        self.begin(act)
        name, raiser = self.name(), Raiser(at, error)
        result = raiser.run(lambda: act(name))
        if act.__name__ in WRITING and not isinstance(result, BaseException):
            self.acknowledged.append(name)
        if not raiser.raised:
            assert result is None, f"{act.__name__} was not interrupted and failed: {result!r}"
            return raiser
        self.points += 1
        failed: list[BaseException] = []

        def use() -> None:
            try:
                self.use()
            except BaseException as failure:  # noqa: BLE001 (raised below)
                failed.append(failure)

        thread = threading.Thread(target=use, daemon=True)
        thread.start()
        thread.join(DEADLINE_S)
        point = f"{act.__name__} interrupted at {at}, {raiser.where}"
        if thread.is_alive():
            raise AssertionError(f"hangs: {point}")
        if failed:
            raise AssertionError(f"fails: {point}: {failed[0]!r}") from failed[0]
        return raiser

    def sweep(
        self,
        act: Callable[[str], None],
        every: int,
        error: type[BaseException] = KeyboardInterrupt,
        whole: Iterable[str] = (),
    ) -> int:
        """Interrupt a call at every `every`-th of its instructions, and at each one in files named by `whole`."""
        for _ in range(3):  # until every cache and connection exists
            self.begin(act)
            act(self.name())
        self.begin(act)
        counting, name = Raiser(0), self.name()
        counting.run(lambda: act(name))
        chosen = [n for n, place in enumerate(counting.places, 1) if n % every == 0 or place in whole]
        for at in chosen:
            self.interrupt(act, at, error)
        if every == 1:
            at = len(counting.places) + 1
            while self.interrupt(act, at, error).raised:
                at += 1
        self.check()
        return len(chosen)

    def check(self) -> None:
        """Check that everything acknowledged exists once, and everything that was interrupted at most once."""
        self.use()
        everything = self.store.read(after=self._begin)
        there = Counter(recorded.event.by for recorded in everything)
        twice = [name for name, count in there.items() if count > 1]
        lost = [name for name in self.acknowledged if name not in there]
        assert not twice and not lost, f"written twice: {twice[:5]}, lost: {lost[:5]}"
        if self.seen:
            self._catch_up()
            assert set(self.seen) == set(there), f"not followed: {sorted(set(there) - set(self.seen))[:5]}"


def descriptors() -> int:
    """Return the number of this process's open descriptors, after a garbage collection."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))
