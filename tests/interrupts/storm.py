"""A series of signals at a store in use: `python -m tests.interrupts.storm URL SIGNALS sync|async [SCHEMA]`.

SIGINT and SIGALRM come in turn, at random moments, while the main thread (or an event loop in it) and workers decide,
append, follow and lock. Ends with exit code 0 and a line of figures if afterwards everything acknowledged exists once
and the store goes on; a hang ends it with the stacks of all threads.
Knows: signals. Does not know: what an engine does.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from typing import Any

import eventfold as ef
from eventfold.core.envelope import new_id
from eventfold.errors import StoreUnavailable
from tests.interrupts.sweep import Seat, Seated, sit

DEADLINE = 300.0
acknowledged: list[str] = []
armed, once = False, True
interrupted = 0


def name() -> str:
    """Return a new name for one event."""
    return new_id().hex()


def on_signal(number: int, frame: Any) -> None:
    """Raise as Python's own handler does, or as a job's time limit does, where the test expects it."""
    global armed
    if armed:
        armed = not once  # the next one only when the test is ready again
        raise KeyboardInterrupt if number == signal.SIGINT else TimeoutError


def use(store: ef.Store, by: str) -> None:
    """Make one random call."""
    match random.randrange(4):
        case 0:
            store.decide(sit, Seat(f"s-{random.randrange(3)}"), by)
        case 1:
            store.append(Seated("a", by), key=by)
        case 2:
            with store.lock(Seat("l"), timeout=60):
                store.decide(sit, Seat("l"), by)
        case _:
            with store.follow(after=store.head()) as follower:
                store.append(Seated("f", by))
                next(follower.pages(timeout=5))
    acknowledged.append(by)


def storm(signals: int) -> threading.Thread:
    """Start a thread that sends signals until all are sent and half as many have interrupted something.

    Several signals that come while the machine is busy may count as one.
    """

    def send() -> None:
        number = 0
        while number < signals or interrupted < signals // 2:
            time.sleep(random.uniform(0.001, 0.02))
            os.kill(os.getpid(), signal.SIGINT if number % 2 else signal.SIGALRM)
            number += 1

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


def in_threads(url: str, options: dict[str, Any], signals: int) -> None:
    """Interrupt the main thread, while three workers go on."""
    global armed, interrupted
    with ef.Store(url, **options) as store:
        stop = [False]

        def work() -> None:
            while not stop[0]:
                use(store, name())

        workers = [threading.Thread(target=work, daemon=True) for _ in range(3)]
        for each in workers:
            each.start()
        sending = storm(signals)
        while sending.is_alive():
            try:
                armed = True
                use(store, name())
                armed = False
            except (KeyboardInterrupt, TimeoutError, StoreUnavailable):  # TimeoutError is an OSError, too
                armed = False
                interrupted += 1
        stop[0] = True
        for each in workers:
            each.join(120)
        assert not any(each.is_alive() for each in workers), "a worker hangs"
        for _ in range(20):
            use(store, name())


async def tasks(store: ef.AsyncStore) -> None:
    """Run tasks that decide and append until they are cancelled."""

    async def work() -> None:
        while True:
            by = name()
            if random.random() < 0.5:
                await store.append(Seated("a", by))
            else:
                await store.decide(sit, Seat(f"s-{random.randrange(3)}"), by)
            acknowledged.append(by)

    async with store, asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(work())


def in_tasks(url: str, options: dict[str, Any], signals: int) -> None:
    """Run a loop for each signal: SIGINT cancels the main task, SIGALRM raises anywhere in the loop."""
    global interrupted, armed, once
    once = False
    for number in range(signals):
        if number % 2:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        sending = threading.Thread(target=until_it_ends, args=(signal.SIGINT if number % 2 else signal.SIGALRM,))
        try:
            try:
                armed = True
                sending.start()
                asyncio.run(tasks(ef.AsyncStore(url, **options)))
            finally:
                armed = False
            sending.join()
        except* (KeyboardInterrupt, TimeoutError, ef.EventfoldError):  # a driver may take it for a lost connection
            interrupted += 1
        sending.join()
        signal.signal(signal.SIGINT, on_signal)


def until_it_ends(number: int) -> None:
    """Send signals until the loop has ended: it goes on after a signal that raised in one of its own callbacks."""
    pause = random.uniform(0.01, 0.1)
    while armed:
        time.sleep(pause)
        if armed:
            os.kill(os.getpid(), number)
        pause = 0.3


def main(url: str, signals: int, mode: str, schema: str = "") -> None:
    """Run the program that the module's docstring describes."""
    options: dict[str, Any] = {"schema": schema} if schema else {}
    faulthandler.dump_traceback_later(DEADLINE, exit=True)
    ef.Store(url, **options).close()
    for number in (signal.SIGINT, signal.SIGALRM):
        signal.signal(number, on_signal)
    (in_threads if mode == "sync" else in_tasks)(url, options, signals)
    with ef.Store(url, **options) as store:
        there = Counter(recorded.event.by for recorded in store.read())
        lost, twice = [by for by in acknowledged if by not in there], [by for by, n in there.items() if n > 1]
        assert not lost and not twice and len(set(acknowledged)) == len(acknowledged), (lost[:3], twice[:3])
        for each in range(3):
            store.decide(sit, Seat(f"s-{each}"), name())
    print(f"{interrupted} interrupts, {len(acknowledged)} acknowledged")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
