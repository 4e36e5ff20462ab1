"""The clients of a round: writers, runners, followers, operators and copies, each a function for a child process.

Knows: the public calls of a store, and how to note their answers. Does not know: faults, and which answers are right.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import eventfold as ef
from eventfold.core.envelope import Receipt
from eventfold.errors import AppendUnconfirmed, CursorMismatch, EventfoldError, LeaseHeld, LeaseLost
from soak.facts import SEATS, Fragile, Greeting, Noted, PerSeat, PerWriter, Seat, elsewhere, letter, take, take_two
from soak.history import History, describe, lines

ATTEMPTS = 30  # of a decision: seats are few on purpose
PAUSE = 0.02  # seconds after an error, so that an unreachable store is not called in a tight loop


@dataclass(frozen=True)
class Place:
    """Where a client works: the store, the folder of its histories, and the other database of read models."""

    url: str
    folder: Path
    other: str
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    def open(self) -> ef.Store:
        """Open the store."""
        return ef.Store(self.url, **self.options)

    def open_within(self, seconds: float) -> ef.Store:
        """Open the store, with retries while it is unreachable, as a supervisor restarts a program."""
        ends = time.monotonic() + seconds
        while True:
            try:
                return self.open()
            except EventfoldError:
                if time.monotonic() > ends:
                    raise
            time.sleep(PAUSE)

    def models(self) -> list[type[ef.Projection]]:
        """Return the read models, one of them in the other database."""
        return [PerWriter, PerSeat, Fragile, elsewhere(self.other)] if self.other else [PerWriter, PerSeat, Fragile]


Step = tuple[str, str, Any]  # kind, op, arguments


def plan(dice: random.Random, name: str, number: int) -> Step:
    """Return one random operation."""
    op, chance = f"{name}.{number}", dice.random()
    if chance < 0.4:
        return "append", op, [Noted(name, op, 0, 1, "x" * dice.randrange(300))]
    if chance < 0.6:
        size = dice.choice((2, 3, 7, 40))
        return "append", op, [Noted(name, op, index, size, "y" * dice.randrange(100)) for index in range(size)]
    if chance < 0.7:
        return "keyed", op, [ef.Draft(Noted(name, op, index, 2), id=uuid4()) for index in range(2)]
    if chance < 0.92:
        return "take", op, [f"s{dice.randrange(SEATS)}"]
    return "take", op, [f"s{each}" for each in dice.sample(range(SEATS), 2)]


def size_of(step: Step) -> int:
    """Return how many events the operation writes."""
    return len(step[2])


def perform(store: ef.Store, step: Step) -> Receipt | None:
    """Run the operation on a Store."""
    kind, op, about = step
    if kind == "append":
        return store.append(*about)
    if kind == "keyed":
        return store.append(*about, key=op)
    seats = [Seat(each) for each in about]
    deciding = store.using(attempts=ATTEMPTS)
    if len(seats) == 1:
        return deciding.decide(take, seats[0], op).receipt
    return deciding.decide(take_two, seats[0], seats[1], op).receipt


async def perform_async(store: ef.AsyncStore, step: Step) -> Receipt | None:
    """Run the operation on an AsyncStore."""
    kind, op, about = step
    if kind == "append":
        return await store.append(*about)
    if kind == "keyed":
        return await store.append(*about, key=op)
    seats = [Seat(each) for each in about]
    deciding = store.using(attempts=ATTEMPTS)
    if len(seats) == 1:
        return (await deciding.decide(take, seats[0], op)).receipt
    return (await deciding.decide(take_two, seats[0], seats[1], op)).receipt


class Interrupted(Exception):
    """Raised by the signal handlers of the rounds that send signals."""


def note(history: History, step: Step, receipt: Receipt | None, *, again: bool) -> None:
    """Note an answer. `again`: the client itself repeated the call, so that `repeated` is the right answer."""
    if receipt is None:
        history.write("refused", step[1], "no receipt")
        return
    repeated = receipt.repeated and not again
    history.written(step[1], receipt.epoch, receipt.first, receipt.event_ids, repeated=repeated)


def note_error(history: History, step: Step, error: BaseException) -> None:
    """Note an error in place of an answer."""
    if isinstance(error, AppendUnconfirmed | Interrupted | asyncio.CancelledError):
        history.unknown(step[1], error)
    elif isinstance(error, EventfoldError):
        history.refused(step[1], error)
    else:
        history.unknown(step[1], error)
        history.foreign(step[1], error)


def attempt(store: ef.Store, history: History, step: Step) -> bool:
    """Run the operation and note the answer; one with ids and a key is repeated while its outcome is unknown."""
    history.asked(step[1], size_of(step))
    for turn in range(4):
        try:
            note(history, step, perform(store, step), again=turn > 0)
        except Exception as error:  # noqa: BLE001 - every error is noted, and judged later
            if turn == 0 or isinstance(error, AppendUnconfirmed):  # a repeat's refusal proves nothing
                note_error(history, step, error)
            if step[0] != "keyed" or not isinstance(error, AppendUnconfirmed):
                return False
            time.sleep(PAUSE)
        else:
            return True
    return False


def write(place: Place, name: str, seed: str, seconds: float, threads: int = 3, pace: float = 0.0) -> None:
    """Append and decide in threads, until the time is over."""
    history, ends = History(place.folder, name), time.monotonic() + seconds
    with place.open_within(seconds) as store:

        def work(thread: int) -> None:
            dice, number = random.Random(f"{seed}/{thread}"), 0
            while time.monotonic() < ends:
                number += 1
                if not attempt(store, history, plan(dice, f"{name}-{thread}", number)):
                    time.sleep(PAUSE)
                if pace:
                    time.sleep(pace * dice.random())

        if threads == 1:
            work(0)
            return
        crew = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
        for each in crew:
            each.start()
        for each in crew:
            each.join()


async def attempt_async(store: ef.AsyncStore, history: History, step: Step) -> bool:
    """Do what `attempt` does, on an AsyncStore."""
    history.asked(step[1], size_of(step))
    for turn in range(4):
        try:
            note(history, step, await perform_async(store, step), again=turn > 0)
        except asyncio.CancelledError as error:
            note_error(history, step, error)
            raise
        except Exception as error:  # noqa: BLE001 - every error is noted, and judged later
            if turn == 0 or isinstance(error, AppendUnconfirmed):
                note_error(history, step, error)
            if step[0] != "keyed" or not isinstance(error, AppendUnconfirmed):
                return False
            await asyncio.sleep(PAUSE)
        else:
            return True
    return False


def write_async(place: Place, name: str, seed: str, seconds: float, tasks: int = 8, pace: float = 0.0) -> None:
    """Append and decide in tasks, until the time is over."""
    history, ends = History(place.folder, name), time.monotonic() + seconds

    async def work(store: ef.AsyncStore, task: int) -> None:
        dice, number = random.Random(f"{seed}/{task}"), 0
        while time.monotonic() < ends:
            number += 1
            if not await attempt_async(store, history, plan(dice, f"{name}-{task}", number)):
                await asyncio.sleep(PAUSE)
            if pace:
                await asyncio.sleep(pace * dice.random())

    async def main() -> None:
        while True:
            try:
                async with ef.AsyncStore(place.url, **place.options) as store:
                    await asyncio.gather(*(work(store, task) for task in range(tasks)))
                return
            except EventfoldError:  # the store is unreachable: a supervisor would restart the program
                if time.monotonic() > ends:
                    raise
            await asyncio.sleep(PAUSE)

    asyncio.run(main())


def run(place: Place, seconds: float, lease: float = 0.0) -> None:
    """Run everything that can be run."""
    history, ends = History(place.folder, f"run-{os.getpid()}"), time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        try:
            with place.open() as store:
                if lease:
                    store.projections.catalog.lease = lease  # a round is shorter than the default lease
                with store.run(*place.models(), Greeting, letter) as running:
                    running.wait(left)
                return
        except EventfoldError:
            time.sleep(PAUSE)  # the store is unreachable: a supervisor would restart the program
        except Exception as error:  # noqa: BLE001
            history.foreign("runner", error)
            return


def follow(place: Place, name: str, seed: str, seconds: float, *, named: bool) -> None:
    """Follow by name, or by a cursor that the client saves. Notes what it saw and what it acknowledged."""
    history, dice, ends = History(place.folder, f"follow-{name}"), random.Random(seed), time.monotonic() + seconds
    kept = place.folder / f"cursor-{name}"
    while time.monotonic() < ends:
        try:
            _follow(place, name, history, dice, ends, None if named else kept)
        except CursorMismatch as error:
            history.write("mismatch", describe(error))
            if named:
                return
            kept.unlink(missing_ok=True)
        except (LeaseHeld, LeaseLost):
            history.write("lease")
            time.sleep(PAUSE)
        except EventfoldError:
            time.sleep(PAUSE)
        except Exception as error:  # noqa: BLE001
            history.foreign("follower", error)
            return


def _follow(place: Place, name: str, history: History, dice: random.Random, ends: float, kept: Path | None) -> None:
    after: str | int = kept.read_text() if kept is not None and kept.exists() else 0
    with place.open() as store:
        source = store.follow(name=name) if kept is None else store.follow(after=after)
        with source as follower:
            history.write("begin", 0 if kept is None or after == 0 else after)
            for page in follower.pages(timeout=0.05):
                for recorded in page:
                    history.write("saw", recorded.position, recorded.id.hex)
                if page and dice.random() < 0.5:
                    _acknowledge(follower, history, page[-1].position, kept)
                if time.monotonic() > ends:
                    history.write("end")
                    return


def _acknowledge(follower: Any, history: History, position: int, kept: Path | None) -> None:
    if kept is None:
        follower.acknowledge()
    else:
        beside = kept.with_suffix(".new")
        with beside.open("w") as file:
            file.write(str(follower.cursor))
            file.flush()
            os.fsync(file.fileno())
        beside.rename(kept)
    history.write("kept", position)


def operate(place: Place, name: str, seed: str, seconds: float) -> None:
    """Act as an operator: pause, resume, retry, skip, rebuild, compare, switch, roll back, discard, verify."""
    history, dice, ends = History(place.folder, name), random.Random(seed), time.monotonic() + seconds
    failing = Path(os.environ["SOAK_FAILING"])
    with place.open_within(seconds) as store:
        acts = _acts(store, dice)
        while time.monotonic() < ends:
            if dice.random() < 0.2:
                failing.unlink(missing_ok=True) if failing.exists() else failing.touch()
            act = dice.choice(acts)
            try:
                act()
            except EventfoldError:
                time.sleep(PAUSE / 4)
            except Exception as error:  # noqa: BLE001
                history.foreign("operator", error)


def _acts(store: ef.Store, dice: random.Random) -> list[Callable[[], object]]:
    admin = store.projections

    def skip() -> None:
        parked = [entry for entry in admin.parked(Fragile) if entry.state == "parked"]
        if parked:
            admin.skip(Fragile, dice.choice(parked).position, because="soak")

    def rebuild() -> None:
        admin.rebuild(dice.choice([PerWriter, PerSeat]))

    def switch() -> None:
        admin.rebuild(PerSeat)
        admin.switch(PerSeat)

    return [
        lambda: admin.pause(PerWriter, "soak"),
        lambda: admin.resume(PerWriter),
        lambda: admin.resume(PerWriter),
        lambda: admin.retry(Fragile),
        lambda: admin.retry(Fragile),
        skip,
        rebuild,
        switch,
        lambda: admin.compare(PerSeat),
        lambda: admin.rollback(PerSeat),
        lambda: admin.discard(dice.choice([PerWriter, PerSeat])),
        lambda: admin.accept(PerWriter),
        lambda: admin.status(),
        lambda: admin.verify(Fragile),
    ]


def copy(place: Place, name: str, seconds: float, *, backups: bool) -> None:
    """Make backups in files with new names, or copy repeatedly into one other store."""
    history, ends, number = History(place.folder, name), time.monotonic() + seconds, 0
    with place.open_within(seconds) as store:
        while time.monotonic() < ends:
            number += 1
            try:
                if backups:
                    path = place.folder / f"{name}-{number}.backup"
                    history.write("backup", path.name)
                    store.backup(str(path))
                    history.write("copied", path.name)
                    time.sleep(PAUSE * 2)
                else:
                    with ef.Store(str(place.folder / "copy.db")) as target:
                        store.copy_to(target, verify=False)
            except EventfoldError:
                time.sleep(PAUSE)
            except Exception as error:  # noqa: BLE001
                history.foreign("copy", error)
                return


def acknowledged(folder: Path) -> int:
    """Return how many appends were acknowledged so far."""
    return sum(words[0] == "written" for path in folder.glob("*.history") for words in lines(path))
