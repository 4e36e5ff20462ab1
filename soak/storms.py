"""Series of signals: handlers that raise anywhere in `append`, `decide` and `follow`, and tasks that are cancelled.

Knows: SIGINT, SIGALRM, cancellation. Does not know: which code has a claim or a lock at a given moment.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from typing import Any

import eventfold as ef
from eventfold.errors import EventfoldError
from soak import children, clients
from soak.check import check
from soak.clients import Interrupted, Place
from soak.history import History, lines
from soak.rounds import Round

SECONDS = 1.5  # length of a storm
TIMEOUT_S = 30.0  # seconds after the storm in which everything must work again


def sqlite(turn: Round) -> None:
    """See _storm."""
    _storm(turn, Place(str(turn.folder / "store.db"), turn.folder, ""))


def postgres(turn: Round) -> None:
    """See _storm."""
    _storm(turn, Place(turn.schema(), turn.folder, "", {"patience": 5.0}))


def _storm(turn: Round, place: Place) -> None:
    """Send signals to a process with threads, or with tasks; afterwards everything must work."""
    place.open().close()
    kind = _in_tasks if turn.index % 3 == 2 else _in_threads
    pid = children.fork(turn.folder, kind, place, turn.seed, name="storm")
    ends = time.monotonic() + SECONDS * 4
    ready = turn.folder / "storm.history"
    while not any(words[0] == "ready" for words in lines(ready)) and children.running(pid) and time.monotonic() < ends:
        time.sleep(0.01)
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        os.kill(pid, signal.SIGINT)
        turn.count("signals")
        time.sleep(turn.dice.uniform(0.0005, 0.02))
    os.kill(pid, signal.SIGUSR2)  # the storm is over
    if children.wait([pid], TIMEOUT_S):
        turn.findings.add("the process hangs, or failed, after the storm")
    turn.count("storms")
    turn.count("raised", sum(int(words[1]) for words in lines(ready) if words[0] == "alarms"))
    turn.count("events", len(check(place, turn.findings)))


def _in_threads(place: Place, seed: str) -> None:
    """SIGINT and a timer interrupt the main thread; three other threads work on the same store."""
    history, dice, over, alarms = History(place.folder, "main"), random.Random(seed), threading.Event(), [0]
    state, armed = History(place.folder, "storm"), [0]  # how many signals may still raise in this operation
    signal.signal(signal.SIGUSR2, lambda *_: over.set())
    ends = time.monotonic() + SECONDS * 6

    def interrupt(number: int, _frame: Any) -> None:
        if not armed[0]:
            return
        armed[0] -= 1
        alarms[0] += 1
        raise Interrupted(signal.Signals(number).name)

    store = place.open()
    crew = [threading.Thread(target=_beside, args=(store, place, f"{seed}/{n}", n, over, ends)) for n in range(3)]
    for each in crew:
        each.start()
    number = 0
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.001, dice.choice((0.003, 0.0071, 0.02)))
    state.write("ready")
    while not over.is_set() and time.monotonic() < ends:
        number += 1
        try:
            try:
                armed[0] = dice.choice((0, 1, 1, 2))
                _one(store, history, dice, number)
                armed[0] = 0
            except Interrupted:
                armed[0] = min(armed[0], 1)
                raise
        except Interrupted:  # at most two for one operation, so that none is raised here
            armed[0] = 0
        except EventfoldError as error:  # a follower was decoding an event, where every error becomes this class
            if not isinstance(error.__cause__, Interrupted):
                raise
            armed[0] = 0
        except RuntimeError as error:  # two inside threading.Condition.wait, which Python's own code does not survive
            if "release unlocked lock" not in str(error):
                raise
            armed[0] = 0
    signal.setitimer(signal.ITIMER_REAL, 0)
    state.write("alarms", alarms[0])
    for each in crew:
        each.join()
    for _ in range(5):
        number += 1
        if not clients.attempt(store, history, clients.plan(dice, "main", number)):
            raise AssertionError("an append after the storm was refused")
    store.close()


def _one(store: ef.Store, history: History, dice: random.Random, number: int) -> None:
    """Run one operation whose outcome is unknown if it is interrupted; some follow and read instead."""
    if dice.random() < 0.2:
        with store.follow(after=max(0, store.head() - 5)) as follower:
            next(iter(follower.pages(timeout=0.001)))
        return
    step = clients.plan(dice, "main", number)
    history.asked(step[1], clients.size_of(step))
    asked = False
    try:
        asked = True
        receipt = clients.perform(store, step)
        clients.note(history, step, receipt, again=False)
    except Interrupted as error:
        if asked:
            history.unknown(step[1], error)
        raise
    except Exception as error:
        if "release unlocked lock" in str(error):
            raise
        clients.note_error(history, step, error)


def _beside(store: ef.Store, place: Place, seed: str, thread: int, over: threading.Event, ends: float) -> None:
    history, dice, number = History(place.folder, f"beside-{thread}"), random.Random(seed), 0
    while not over.is_set() and time.monotonic() < ends:
        number += 1
        clients.attempt(store, history, clients.plan(dice, f"beside-{thread}", number))


def _in_tasks(place: Place, seed: str) -> None:
    """Every signal cancels some of the tasks; each starts again."""
    history, dice, over = History(place.folder, "main"), random.Random(seed), threading.Event()
    state = History(place.folder, "storm")
    ends = time.monotonic() + SECONDS * 6

    async def work(store: ef.AsyncStore, task: int, number: int) -> None:
        mine = random.Random(f"{seed}/{task}/{number}")
        for turn in range(1000):
            if over.is_set() or time.monotonic() > ends:
                return
            await clients.attempt_async(store, history, clients.plan(mine, f"t{task}-{number}", turn))

    async def again(store: ef.AsyncStore, task: int, tasks: dict[int, asyncio.Task[None]]) -> None:
        number = 0
        while not over.is_set() and time.monotonic() < ends:
            number += 1
            tasks[task] = asyncio.ensure_future(work(store, task, number))
            await asyncio.wait([tasks[task]])

    async def main() -> None:
        loop, tasks = asyncio.get_running_loop(), dict[int, asyncio.Task[None]]()

        def cancel() -> None:
            for each in dice.sample(sorted(tasks), min(3, len(tasks))):
                tasks[each].cancel()

        async with ef.AsyncStore(place.url, **place.options) as store:
            loop.add_signal_handler(signal.SIGINT, cancel)
            loop.add_signal_handler(signal.SIGALRM, cancel)
            loop.add_signal_handler(signal.SIGUSR2, over.set)
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.005)
            state.write("ready")
            await asyncio.gather(*(again(store, task, tasks) for task in range(8)))
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number in range(5):
                if not await clients.attempt_async(store, history, clients.plan(dice, "after", number)):
                    raise AssertionError("an append after the storm was refused")

    asyncio.run(main())
