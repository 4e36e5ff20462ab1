"""Eight writers, two followers, a read model, a process and an effect on one store, while its servers change.

Each is started once and lives on: nothing here opens a store again. Every answer is noted with its time, and `check`
compares the notes with the log.

Knows: the public calls of a store. Does not know: what happens to the servers.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from uuid import UUID

import eventfold as ef
from eventfold.errors import EventfoldError
from eventfold.processes import decide, effect

THREADS, TASKS = 4, 4
PACE_S = 0.01  # between two appends of one writer
TIMEOUT_S = 90.0


class Noted(ef.Event, type="standby.noted"):
    """A writer's own event."""

    writer: ef.Tag
    number: int


class Taken(ef.Event, type="standby.taken"):
    """The seat has its `number`-th holder, counted from 1: writers compete."""

    seat: ef.Tag
    number: int


class Greeted(ef.Event, type="standby.greeted"):
    """The process greeted the `number`-th holder of the seat."""

    seat: ef.Tag
    number: int


class Seat(ef.State):
    """How often a seat was taken."""

    seat: ef.Tag
    count: int = 0

    def evolve(self, event: Taken) -> None:
        """Apply the event."""
        self.count += 1


class Greetings(ef.State):
    """How many greetings there were at a seat."""

    seat: ef.Tag
    count: int = 0

    def evolve(self, event: Greeted) -> None:
        """Apply the event."""
        self.count += 1


def take(seat: Seat) -> Taken:
    """Take the next number."""
    return Taken(seat.seat, seat.count + 1)


def greet(greetings: Greetings, number: int) -> Greeted:
    """Greet, without a check whether it happened before: the process must not ask twice."""
    return Greeted(greetings.seat, number)


class PerSeat(ef.Projection, name="standby_per_seat"):
    """The number of holders of each seat."""

    seat: str
    count: int = 0

    def evolve(self, event: Taken) -> None:
        """Apply the event."""
        self.count += 1


class Greeting(ef.Process, name="standby_greeting", start="beginning"):
    """Greets every third holder of a seat."""

    seat: ef.Tag

    def evolve(self, event: Taken) -> None:
        """Do nothing: the process has no state of its own."""

    def react(self, event: Taken) -> Iterator[Any]:
        """Request a decision."""
        if event.number % 3 == 0:
            yield decide(greet, Greetings(self.seat), event.number)


SENT: list[UUID] = []


@effect(start="beginning", name="standby_letter")
def letter(event: ef.Recorded[Greeted]) -> None:
    """Note the event's id in place of a letter."""
    SENT.append(event.id)


@dataclass(frozen=True)
class Acknowledged:
    """An append that was acknowledged: when (monotonic clock), by whom, and the receipt's words."""

    at: float
    writer: str
    epoch: int
    position: int
    id: UUID


class Load:
    """Everything that works on the store. `acknowledged`, `errors`: what writers were answered."""

    def __init__(self, url: str, **options: Any) -> None:
        self.acknowledged: list[Acknowledged] = []
        self.errors: list[tuple[float, str, EventfoldError]] = []
        self.seen: dict[str, list[tuple[int, UUID]]] = {"cursor": [], "named": []}
        self.failures: list[BaseException] = []
        self._url, self._options = url, options
        self._stop = threading.Event()
        self._kept = ExitStack()
        self._threads: list[threading.Thread] = []
        SENT.clear()

    def start(self) -> Load:
        """Open the stores and start everything."""
        self.store = self._kept.enter_context(ef.Store(self._url, **self._options))
        self.running = self._kept.enter_context(self.store.run(PerSeat, Greeting, letter))
        for number in range(THREADS):
            self._spawn(self._write, f"thread-{number}")
        self._spawn(lambda: asyncio.run(self._write_in_tasks()))
        self._spawn(self._follow, "cursor")
        self._spawn(self._follow, "named")
        return self

    def _spawn(self, work: Any, *arguments: Any) -> None:
        def guarded() -> None:
            try:
                work(*arguments)
            except BaseException as error:  # noqa: BLE001 - a worker that ends is what the test looks for
                self.failures.append(error)

        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _write(self, name: str) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            try:
                if number % 2:
                    receipt = self.store.append(Noted(name, number))
                else:
                    receipt = self.store.using(attempts=50).decide(take, Seat(f"s{number % 3}")).receipt
                self._note(name, receipt)
            except EventfoldError as error:
                self.errors.append((time.monotonic(), name, error))
            time.sleep(PACE_S)

    async def _write_in_tasks(self) -> None:
        async with ef.AsyncStore(self._url, **self._options) as store:

            async def work(name: str) -> None:
                number = 0
                while not self._stop.is_set():
                    number += 1
                    try:
                        if number % 2:
                            receipt = await store.append(Noted(name, number))
                        else:
                            receipt = (await store.using(attempts=50).decide(take, Seat(f"s{number % 3}"))).receipt
                        self._note(name, receipt)
                    except EventfoldError as error:
                        self.errors.append((time.monotonic(), name, error))
                    await asyncio.sleep(PACE_S)

            await asyncio.gather(*(work(f"task-{number}") for number in range(TASKS)))

    def _note(self, name: str, receipt: Any) -> None:
        self.acknowledged.append(
            Acknowledged(time.monotonic(), name, receipt.epoch, receipt.first, receipt.event_ids[0])
        )

    def _follow(self, name: str) -> None:
        with ef.Store(self._url, **self._options) as store:
            source = store.follow(name=name) if name == "named" else store.follow(after=0)
            with source as follower:
                for page in follower.pages(timeout=0.2):
                    self.seen[name] += [(recorded.position, recorded.id) for recorded in page]
                    if page and name == "named":
                        follower.acknowledge()
                    if not page and self._stop.is_set() and self._has_all(name):
                        return

    def _has_all(self, name: str) -> bool:
        return bool(self.seen[name]) and self.seen[name][-1][0] >= max(a.position for a in self.acknowledged)

    def is_writing_since(self, moment: float, more: int = 50) -> bool:
        """Whether every writer, and so many appends in all, were acknowledged after a moment."""
        since = [each for each in tuple(self.acknowledged) if each.at > moment]
        return len(since) >= more and len({each.writer for each in since}) == THREADS + TASKS

    def longest_gap(self, after: float, before: float) -> float:
        """The longest time, in seconds, between two acknowledgements of any writers between two moments."""
        times = sorted(each.at for each in self.acknowledged if after <= each.at <= before)
        return max((b - a for a, b in pairwise(times)), default=before - after)

    def stop(self) -> None:
        """Stop the writers, and wait until the others have caught up."""
        self._stop.set()
        ends = time.monotonic() + TIMEOUT_S
        for thread in self._threads:
            thread.join(max(0.0, ends - time.monotonic()))
        self.stuck = sum(thread.is_alive() for thread in self._threads)

    def close(self) -> None:
        """End everything."""
        self._stop.set()
        self._kept.close()

    def check(self, url: str) -> list[str]:
        """What is wrong, one sentence each. Call it after `stop`."""
        wrong: list[str] = [f"a worker ended with {type(error).__name__}: {error}" for error in self.failures]
        if self.stuck:
            wrong.append(f"{self.stuck} workers are stuck")
        wrong += [f"a runner ended with {error}" for error in self.running.failed.values()]
        for model in (PerSeat, Greeting, letter):
            self.store.wait(model, timeout=TIMEOUT_S)
        with ef.Store(url) as store:
            events = list(store.read())
        wrong += self._compare_log(events)
        return wrong + self._compare_followers(events)

    def _compare_log(self, events: list[ef.Recorded[Any]]) -> list[str]:
        wrong: list[str] = []
        if [recorded.position for recorded in events] != list(range(1, len(events) + 1)):
            wrong.append("the log has a gap")
        log = {recorded.position: recorded.id for recorded in events}
        lost = [each for each in self.acknowledged if log.get(each.position) != each.id]
        if lost:
            wrong.append(f"{len(lost)} of {len(self.acknowledged)} acknowledged events are lost: {lost[:3]}")
        notes = Counter((r.event.writer, r.event.number) for r in events if isinstance(r.event, Noted))
        if twice := [key for key, count in notes.items() if count > 1]:
            wrong.append(f"written twice: {twice[:5]}")
        taken: Counter[str] = Counter()
        for recorded in events:
            if isinstance(recorded.event, Taken):
                taken[recorded.event.seat] += 1
                if recorded.event.number != taken[recorded.event.seat]:
                    wrong.append(f"a decision over an old state at {recorded.position}")
        rows = {row.seat: row.count for row in self.store.rows(PerSeat)}
        if rows != dict(taken):
            wrong.append(f"rows {rows} are not the fold {dict(taken)}")
        greeted = Counter((r.event.seat, r.event.number) for r in events if isinstance(r.event, Greeted))
        due = {(seat, number) for seat, count in taken.items() for number in range(3, count + 1, 3)}
        if greeted != Counter(due):
            wrong.append(f"the process decided {len(greeted)} times of {len(due)}: {(due ^ set(greeted))}")
        sent = {recorded.id for recorded in events if isinstance(recorded.event, Greeted)}
        if sent - set(SENT):
            wrong.append(f"{len(sent - set(SENT))} effects were not executed")
        return wrong + [f"not proved: {proof}" for proof in self.store.projections.verify(PerSeat) if not proof.proved]

    def _compare_followers(self, events: list[ef.Recorded[Any]]) -> list[str]:
        log = [(recorded.position, recorded.id) for recorded in events]
        return [
            f"follower {name} saw {len(seen)} events, not the first of {len(log)} in order"
            for name, seen in self.seen.items()
            if not seen or seen != log[: len(seen)]
        ]
