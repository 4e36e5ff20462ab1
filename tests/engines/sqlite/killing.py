"""A program that forks writers of one store, kills them at random moments and checks that acknowledged events exist.

Run as `python -m tests.engines.sqlite.killing STORE ROUNDS SEED`; prints its counts as JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn
from uuid import UUID

import apsw

import eventfold as ef
from eventfold.engines.sqlite import SqliteEngine, checkpoint
from eventfold.errors import AppendConflict
from tests.engines.sqlite.noted import Noted, engine_of, noted

Say = Callable[[int, int, list[UUID]], None]


def one_by_one(store: ef.Store, say: Say, dice: random.Random) -> None:
    """Append single events."""
    for n in range(100_000):
        done = store.append(noted(n))
        say(done.first, done.last, list(done.event_ids))


def batches(store: ef.Store, say: Say, dice: random.Random) -> None:
    """Append several events at a time."""
    while True:
        done = store.append(*[noted(n) for n in range(dice.randint(2, 60))])
        say(done.first, done.last, list(done.event_ids))


def conditional(store: ef.Store, say: Say, dice: random.Random) -> None:
    """Append under a condition that holds, then under one that does not."""
    me, last = f"c-{os.getpid()}", store.head()
    while True:
        mine = ef.Query.of(Noted, tags=f"who:{me}")
        done = store.append(noted(last, me), noted(last, me), unless=mine, after=last)
        say(done.first, done.last, list(done.event_ids))
        try:
            store.append(noted(0, me), unless=mine, after=last)
            raise AssertionError("a condition was not judged")
        except AppendConflict:
            last = done.last


def combined(store: ef.Store, say: Say, dice: random.Random) -> None:
    """Append from eight threads, whose appends are combined into common commits."""
    threads = [threading.Thread(target=one_by_one, args=(store, say, dice), daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def extending(store: ef.Store, say: Say, dice: random.Random) -> None:
    """Import many events in appends of 200, acknowledged by the progress callback."""
    base = dice.getrandbits(60) << 64
    drafts = (ef.Draft(noted(n), id=UUID(int=base + n)) for n in range(100_000))
    acknowledged = 0

    def progress(count: int) -> None:
        nonlocal acknowledged
        say(0, 0, [UUID(int=base + n) for n in (acknowledged, count - 1)])
        acknowledged = count

    store.extend(drafts, batch=200, progress=progress)


WAYS = (one_by_one, batches, conditional, combined, extending)


def child(path: str, pipe: int, seed: int) -> NoReturn:
    """Write until killed. A third of the children checkpoint after every few commits."""
    dice = random.Random(seed)
    checkpoint.CHECKPOINT_PAGES = dice.choice([10, 4_000, 4_000])
    store = ef.Store(path)

    def say(first: int, last: int, ids: list[UUID]) -> None:
        os.write(pipe, f"{first} {last} {' '.join(each.hex for each in ids)}\n".encode())

    dice.choice(WAYS)(store, say, dice)
    os._exit(1)


def fork(path: str, seed: int) -> tuple[int, int]:
    """Start a child. Returns its process id, and the pipe on which it reports what was acknowledged."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        child(path, writing, seed)
    os.close(writing)
    return pid, reading


def read_lines(pipe: int) -> list[list[str]]:
    """Return the complete lines that a child wrote before it died."""
    with open(pipe, "rb") as found:
        *lines, _half = found.read().decode().split("\n")
    return [line.split() for line in lines]


def main(path: str, rounds: int, seed: int) -> None:
    """Kill writers, check the store, and go on with the same store."""
    dice = random.Random(seed)
    with ef.Store(path):  # creates the store, so that it exists even if the first child is killed early
        pass
    kills = acknowledged = 0
    while kills < rounds:
        children = [fork(path, dice.getrandbits(32)) for _ in range(dice.choice([1, 1, 2]))]
        for pid, _ in children:
            time.sleep(dice.uniform(0.0, 0.12))
            os.kill(pid, signal.SIGKILL)
            kills += 1
        for pid, _ in children:
            _, status = os.waitpid(pid, 0)
            assert os.WIFSIGNALED(status), f"a writer ended by itself: {status}"
        lines = [line for _, pipe in children for line in read_lines(pipe)]
        with ef.Store(path) as store:
            engine = engine_of(store)
            for first, last, *ids in lines:
                acknowledged += len(ids)
                assert _there(engine, int(first), int(last), [bytes.fromhex(each) for each in ids]), (first, last, ids)
    with ef.Store(path) as store:
        problems = [str(problem) for problem in engine_of(store).check()]
        print(json.dumps({"kills": kills, "acknowledged": acknowledged, "events": store.head(), "problems": problems}))


def _there(engine: SqliteEngine, first: int, last: int, ids: list[bytes]) -> bool:
    def look(connection: apsw.Connection) -> bool:
        if first:
            sql = "SELECT id FROM event WHERE position BETWEEN ? AND ? ORDER BY position"
            return [row[0] for row in connection.execute(sql, (first, last))] == ids
        return all(connection.execute("SELECT 1 FROM event WHERE id = ?", (each,)).fetchone() for each in ids)

    return engine._run_read(look)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
