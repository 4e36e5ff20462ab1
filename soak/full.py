"""Full disks: appends, runners and backups on a disk that is full, then has free space, then is full again.

Knows: two kinds of small disks. Does not know: how much space a store needs.
"""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import eventfold as ef
from eventfold.errors import EventfoldError, StoreFull
from soak import children, clients
from soak.check import Allowed, check
from soak.clients import Place
from soak.facts import Noted
from soak.history import History, lines
from soak.kills import await_work
from soak.machine import LoopDisk, MemoryDisk
from soak.rounds import Round

ENLARGEMENTS = 4  # times that free space is added


def full(turn: Round) -> None:
    """Let a disk fill up repeatedly while clients work; appends refused because it is full must not exist."""
    memory = turn.index % 2 == 0
    disk = MemoryDisk(turn.folder, turn.dice.randrange(400, 1500)) if memory else LoopDisk(turn.folder, 4)
    place = Place(str(disk.folder / "store.db"), turn.folder, f"sqlite:{disk.folder / 'rows.db'}")
    ballast = disk.folder / "ballast"
    try:
        if not memory:
            _fill(ballast, turn.dice.randrange(0, 1 << 20))
        started = [
            children.fork(turn.folder, fill, place, "w", turn.seed, name="write"),
            children.fork(turn.folder, clients.run, place, 60.0, name="run"),
            children.fork(turn.folder, _follow, place, turn.seed, name="follow"),
        ]
        for enlargement in range(ENLARGEMENTS):
            found = _await_full(turn, enlargement)
            turn.count("full disks", found)
            _backup(turn, place, disk.folder)
            if isinstance(disk, MemoryDisk):
                disk.grow(turn.dice.randrange(100, 500))
            elif ballast.exists():
                ballast.unlink()
            else:
                for path in disk.folder.glob("*.backup"):
                    path.unlink()
        children.kill(started)
        if isinstance(disk, MemoryDisk):
            disk.grow(60_000)
            turn.count("events", len(check(place, turn.findings, Allowed())))
        else:  # check a copy on a disk with free space
            for path in disk.folder.glob("*.db*"):
                if path.is_file():
                    shutil.copy(path, turn.folder)
            moved = Place(str(turn.folder / "store.db"), turn.folder, f"sqlite:{turn.folder / 'rows.db'}")
            turn.count("events", len(check(moved, turn.findings, Allowed())))
    finally:
        disk.unmount()


def fill(place: Place, name: str, seed: str) -> None:
    """Write large events, note `full` whenever StoreFull is raised, and go on when there is free space."""
    history, dice, number = History(place.folder, name), random.Random(seed), 0
    with place.open_within(30.0) as store:
        while True:
            number += 1
            step = clients.plan(dice, name, number)
            if step[0] == "append":
                step = ("append", step[1], [Noted(name, step[1], 0, 1, "z" * dice.randrange(8000))])
            history.asked(step[1], clients.size_of(step))
            try:
                clients.note(history, step, clients.perform(store, step), again=False)
            except Exception as error:  # noqa: BLE001
                clients.note_error(history, step, error)
                if isinstance(error, StoreFull):
                    history.write("full")
                time.sleep(clients.PAUSE)


def _follow(place: Place, seed: str) -> None:
    clients.follow(place, "named-0", seed, 60.0, named=True)


def _fill(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.write(bytes(size))


def _await_full(turn: Round, times: int) -> int:
    ends = time.monotonic() + 10.0
    before = _full(turn)
    while time.monotonic() < ends:
        if _full(turn) > before:
            await_work(turn, 0)
            return 1
        time.sleep(0.01)
    return 0


def _full(turn: Round) -> int:
    return sum(words == ["full"] for words in lines(turn.folder / "w.history"))


def _backup(turn: Round, place: Place, folder: Path) -> None:
    """Back up onto the full disk: the library's error and no file, or a whole backup."""
    path = folder / f"b{turn.dice.getrandbits(20)}.backup"
    try:
        with place.open() as store:
            store.backup(str(path))
        with ef.Store(str(path), create=False, readonly=True) as copy:
            list(copy.read())
    except EventfoldError as error:
        if path.exists():
            turn.findings.add(f"a backup that failed on a full disk left {path.name}: {error}")
        if isinstance(error, StoreFull) and "append" in str(error):
            turn.findings.add(f"a full disk in a backup is reported as an append: {error}")
