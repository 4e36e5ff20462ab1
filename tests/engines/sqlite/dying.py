"""A program that dies (kill -9) at each step of creating a file in turn, and checks each time what is left.

Run as `python -m tests.engines.sqlite.dying backup|create|merge|idle|reindex|rescue|upgrade FOLDER [STRIDE]`; prints
the number of steps and of kills, and the problems. Every STRIDE-th step is tried, except for backups and creations.
Steps are SQLite's calls of its file system and, for a backup, the system calls that make the copy visible.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import eventfold as ef
from eventfold.concurrency.run import run
from eventfold.engines.sqlite import SqliteEngine, backup, idle_merge, merge_schedule, schema
from eventfold.errors import StoreNotFound
from tests.engines.sqlite.faulty import Disk
from tests.engines.sqlite.noted import Noted, assert_whole, engine_of, noted
from tests.layouts.kept import described, sqlite_store

MAX_STEPS = 400
FINISHED = 7


def die() -> None:
    """Die as a killed process does: without any cleanup."""
    os.kill(os.getpid(), signal.SIGKILL)


def counted(disk: Disk, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of the system that counts as a step, too."""

    def step(*args: Any) -> Any:
        disk.meet(name)
        return function(*args)

    return step


def dying(n: int, work: Callable[[], None]) -> bool:
    """Run `work` in a child that dies at its nth step. Returns whether it ended by itself before."""
    pid = os.fork()
    if pid == 0:
        _child(n, work)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == FINISHED, status
    return not os.WIFSIGNALED(status)


def _child(n: int, work: Callable[[], None]) -> NoReturn:
    try:
        disk = Disk()
        for name in ("fsync", "rename", "ftruncate"):
            setattr(backup.os, name, counted(disk, name, getattr(os, name)))
        disk.refuse_nth(n, die)
        work()
        os._exit(FINISHED)
    finally:
        os._exit(1)


def backups(folder: Path) -> tuple[int, list[str]]:
    """Kill backups: nothing is at the path, or the whole copy in its epoch; the next backup works and cleans up."""
    source, copy = str(folder / "log.db"), folder / "copy.db"
    with ef.Store(source) as store:
        for n in range(40):
            store.append(noted(n))
    wrong: list[str] = []
    for n in range(1, MAX_STEPS):

        def work() -> None:
            with ef.Store(source) as store:
                store.backup(str(copy))

        finished = dying(n, work)
        if copy.exists():
            with ef.Store(str(copy), create=False) as made:
                if (made.engine.epoch, made.head()) != (2, 40):
                    wrong.append(f"step {n}: epoch {made.engine.epoch}, {made.head()} events")
        elif finished:
            wrong.append(f"step {n}: ended without a copy")
        remove(copy)
        if not finished:
            with ef.Store(source) as store:
                store.backup(str(copy))
            if assert_whole(copy) != 40:
                wrong.append(f"step {n}: the next backup is not whole")
            remove(copy)
        left = sorted(each.name for each in folder.iterdir() if not each.name.startswith("log.db"))
        if left:
            wrong.append(f"step {n}: {left} left behind")
        if finished:
            return n, wrong
    raise AssertionError("it never ended by itself")


def creations(folder: Path) -> tuple[int, list[str]]:
    """Kill the creation of stores: nothing usable is left, or a store; creating it again makes it whole."""
    path = folder / "new.db"
    wrong: list[str] = []
    for n in range(1, MAX_STEPS):
        finished = dying(n, lambda: ef.Store(str(path)).close())
        try:
            with ef.Store(str(path), create=False) as store:
                if store.head():
                    wrong.append(f"step {n}: events in a new store")
        except ef.EventfoldError as error:
            if not isinstance(error, StoreNotFound) and "empty" not in str(error):
                wrong.append(f"step {n}: {error!r}")
        try:
            with ef.Store(str(path)) as store:
                store.append(noted(n))
            if assert_whole(path) != 1:
                wrong.append(f"step {n}: not whole")
        except ef.EventfoldError as error:
            wrong.append(f"step {n}: {error!r}")
        remove(path)
        if finished:
            return n, wrong
    raise AssertionError("it never ended by itself")


def merges(folder: Path, stride: int = 1) -> tuple[int, list[str]]:
    """Appends whose commits carry slices of merges, and the merge at close: the log and its index are whole.

    What was acknowledged is there; the store goes on with what the last process left.
    """
    path, acknowledged = folder / "log.db", folder / "acknowledged"
    merge_schedule.SLICE_POSTINGS = 4
    wrong: list[str] = []
    ef.Store(str(path)).close()
    for n in range(1, 10 * MAX_STEPS, stride):
        acknowledged.write_text("0")

        def work(n: int = n) -> None:
            with ef.Store(str(path), merge_events=3) as store:
                for number in range(n % 3, 14):
                    last = store.append(noted(number, f"w-{number % 4}"), noted(number, f"new-{n}-{number}")).last
                    acknowledged.write_text(str(last))

        finished = dying(n, work)
        with ef.Store(str(path), create=False) as store:
            wrong += [f"step {n}: {problem}" for problem in engine_of(store).check()]
            if store.head() < int(acknowledged.read_text() or 0):
                wrong.append(f"step {n}: {acknowledged.read_text()} was acknowledged, and {store.head()} is the head")
            every = [(each.position, each.event.who) for each in store.read() if isinstance(each.event, Noted)]
            for who in ("w-1", f"new-{n}-5", f"new-{n}-13"):
                found = [each.position for each in store.read(ef.Query.of(tags=f"who:{who}"))]
                if found != [position for position, name in every if name == who]:
                    wrong.append(f"step {n}: {who} at {found}")
        if assert_whole(path) != len(every):
            wrong.append(f"step {n}: not whole")
        if finished:
            return n, wrong
    raise AssertionError("it never ended by itself")


def idle_merges(folder: Path, stride: int = 1) -> tuple[int, list[str]]:
    """Merges while the process appends nothing, which die in the thread that merges."""
    path = folder / "log.db"
    merge_schedule.IDLE_POSTINGS, idle_merge.IDLE_S, idle_merge.PAUSE_S = 40, 0.001, 0.0
    wrong: list[str] = []
    for n in range(1, 10 * MAX_STEPS, stride):
        remove(path)  # or the tails of killed processes, together, would be left to those that wrote them
        ef.Store(str(path)).close()

        def work() -> None:
            store = ef.Store(str(path))
            for _ in range(3):
                store.extend(noted(number, f"w-{number % 40}") for number in range(300))
                while store.stats()["tail_events"] >= idle_merge.MIN_EVENTS:
                    time.sleep(0.001)

        finished = dying(n, work)
        with ef.Store(str(path), create=False) as store:
            wrong += [f"step {n}: {problem}" for problem in engine_of(store).check()]
            head = store.head()
            found = sum(store.count(ef.Query.of(tags=f"who:w-{number}")) for number in range(40))
            if found != head:
                wrong.append(f"step {n}: {found} of {head} events are found by tag")
        if assert_whole(path) != head:
            wrong.append(f"step {n}: not whole")
        if finished:
            return n, wrong
    raise AssertionError("it never ended by itself")


def upgrading(folder: Path, stride: int = 1) -> tuple[int, list[str]]:
    """Upgrades that die: the old layout, or the new one; an upgrade that is begun again succeeds."""
    path, copy = folder / "old.db", folder / "old.db.layout-2"
    wrong: list[str] = []
    for n in range(1, 10 * MAX_STEPS, stride):
        remove(path)
        sqlite_store(2, str(path))
        finished = dying(n, lambda: run(SqliteEngine(str(path)).upgrade()))
        done = run(SqliteEngine(str(path)).upgrade(copies=False))
        if done.had not in (2, schema.LAYOUT):
            wrong.append(f"step {n}: layout {done.had}")
        with ef.Store(str(path), create=False) as store:
            wrong += [f"step {n}: {problem}" for problem in engine_of(store).check()]
            events = store.head()
        if events != len(described("sqlite", 2)[1]):
            wrong.append(f"step {n}: {events} events")
        remove(copy)
        if finished:
            return n, wrong
    raise AssertionError("it never ended by itself")


def rescues(folder: Path, stride: int = 1) -> tuple[int, list[str]]:
    """Rebuilds of an index with a damaged page that die: begun again, they succeed."""
    return reindexing(folder, stride, damages=True)


def reindexing(folder: Path, stride: int = 1, *, damages: bool = False) -> tuple[int, list[str]]:
    """Rebuilds of the index that die: the index before or the new one, never a part."""
    path = folder / "log.db"
    wrong: list[str] = []
    with ef.Store(str(path)) as store:
        for n in range(40):
            store.append(noted(n))
    for n in range(1, 10 * MAX_STEPS, stride):
        if damages:
            overwrite_root(path, "posting")
            finished = dying(n, lambda: run(SqliteEngine(str(path)).reindex()))
            run(SqliteEngine(str(path)).reindex())
            with ef.Store(str(path), create=False) as store:
                wrong += [f"step {n}: {problem}" for problem in engine_of(store).check()]
            if assert_whole(path) != 40:
                wrong.append(f"step {n}: not whole")
            if finished:
                return n, wrong
            continue
        finished = dying(n, lambda: run(SqliteEngine(str(path)).reindex()))
        with ef.Store(str(path), create=False) as store:
            wrong += [f"step {n}: {problem}" for problem in engine_of(store).check()]
        if assert_whole(path) != 40:
            wrong.append(f"step {n}: not whole")
        if finished:
            return n, wrong
    raise AssertionError("it never ended by itself")


def overwrite_root(path: Path, table: str) -> None:
    """Overwrite the first page of a table's B-tree, in a file that no process has open."""
    connection = sqlite3.connect(path)
    (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\x5a" * size)


def remove(path: Path) -> None:
    """Remove a store and the files that belong to it."""
    for end in ("", "-wal", "-shm", "-journal", ".lock"):
        Path(f"{path}{end}").unlink(missing_ok=True)


if __name__ == "__main__":
    ways: dict[str, Callable[..., tuple[int, list[str]]]] = {
        "backup": backups,
        "create": creations,
        "merge": merges,
        "idle": idle_merges,
        "reindex": reindexing,
        "rescue": rescues,
        "upgrade": upgrading,
    }
    more = map(int, sys.argv[3:])
    steps, problems = ways[sys.argv[1]](Path(sys.argv[2]), *more)
    print(json.dumps({"steps": steps, "kills": steps // int((sys.argv[3:] or ["1"])[0]), "wrong": problems}))
