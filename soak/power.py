"""Power cuts: of a real file system that is shut down, and of a disk that keeps any part of what was not synced.

Knows: when the power is cut, and what may be lost then. Does not know: what SQLite writes.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

from soak import children, clients, history, machine
from soak.check import Allowed, check
from soak.clients import Place
from soak.disks import Layer, Recording, after_power_cut
from soak.kills import await_work, crowd
from soak.machine import LoopDisk
from soak.rounds import Round
from tests.support.servers.postgres import PostgresServer

CUTS = 5  # of one file system


def file_system(turn: Round) -> None:
    """Run clients on an ext4 file system that is shut down under them without a flush, unmounted and mounted again."""
    normal = turn.index % 4 == 3
    disk = LoopDisk(turn.folder, 32)
    other = "" if normal else f"sqlite:{disk.folder / 'rows.db'}"
    place = Place(str(disk.folder / "store.db"), turn.folder, other, {"durability": "normal"} if normal else {})
    allowed = Allowed(tail=normal, progress=True)
    try:
        for cut in range(1 if normal else CUTS):
            before = clients.acknowledged(turn.folder)
            started = crowd(turn, place, cut, copies=False)
            await_work(turn, before + turn.dice.randrange(0, 120))
            before_cut = history.now(turn.folder)
            disk.cut()
            time.sleep(turn.dice.choice((0.0, 0.03)))  # some clients live on, on a disk that answers with errors
            children.kill(started)
            history.forget_answers(turn.folder, before_cut)  # answers from a machine without power do not count
            disk.unmount()
            disk.mount()
            turn.count("power cuts")
            check(place, turn.findings, allowed, models=False)
        turn.count("events", len(check(place, turn.findings, allowed)))
        if turn.findings.problems:
            shutil.copytree(disk.folder, turn.folder / "files")
    finally:
        disk.unmount()
        disk.image.unlink()


def sectors(turn: Round) -> None:
    """End a process with threads of every kind at a random write or sync; any sectors not synced are lost."""
    run, after = turn.folder / "before", turn.folder / "after"
    run.mkdir()
    after.mkdir()
    record = turn.folder / "record"
    place = Place(str(run / "store.db"), turn.folder, f"sqlite:{run / 'rows.db'}")
    last = turn.dice.choice((turn.dice.randrange(40, 400), turn.dice.randrange(100, 3000)))
    pid = children.fork(turn.folder, _recorded, place, turn.seed, record, last, name="recorded")
    if children.wait([pid], 60.0):
        turn.findings.add("the process did not come to its power cut")
        return
    after_power_cut(record, after, turn.dice)
    lock = run / "store.db.lock"
    if lock.exists() and (left := turn.dice.choice(("all", "none", "part"))) != "none":
        note = lock.read_bytes()
        (after / lock.name).write_bytes(note if left == "all" else note[: turn.dice.randrange(len(note) + 1)])
    turn.count("power cuts")
    if not (after / "store.db").exists() or not (after / "store.db").stat().st_size:
        if clients.acknowledged(turn.folder):
            turn.findings.add("appends were acknowledged, and there is no file")
        return
    restored = Place(str(after / "store.db"), turn.folder, f"sqlite:{after / 'rows.db'}")
    turn.count("events", len(check(restored, turn.findings, Allowed(progress=True))))


def _recorded(place: Place, seed: str, record: Path, last: int) -> None:
    import threading

    layer = Layer(Recording(record, last))
    dice = random.Random(seed)
    seconds = 20.0
    work = [
        threading.Thread(target=clients.write, args=(place, "a", f"{seed}a", seconds, dice.choice((1, 3)))),
        threading.Thread(target=clients.follow, args=(place, "named-0", f"{seed}f", seconds), kwargs={"named": True}),
        threading.Thread(target=clients.run, args=(place, seconds)),
    ]
    for each in work:
        each.start()
    for each in work:
        each.join()
    layer.unregister()
    os._exit(3)


def postgres(turn: Round) -> None:
    """Run a PostgreSQL server on an ext4 file system that is shut down under it, and start it again afterwards."""
    disk = LoopDisk(turn.folder, 192)
    disk.folder.chmod(0o755)
    server = PostgresServer(within=str(disk.folder), max_wal_size="32MB", wal_recycle="off").start()
    place = Place(server.url(), turn.folder, "", {"patience": 2.0})
    machine.command("sync", "-f", str(disk.folder))  # initdb does not sync a new cluster here
    try:
        for cut in range(3):
            before = clients.acknowledged(turn.folder)
            started = crowd(turn, place, cut, copies=False)
            await_work(turn, before + turn.dice.randrange(5, 100))
            before_cut = history.now(turn.folder)
            disk.cut()
            children.kill(started)
            server.kill()
            history.forget_answers(turn.folder, before_cut)
            disk.unmount()
            disk.mount()
            server.start()
            turn.count("power cuts")
            check(place, turn.findings, models=False)
        turn.count("events", len(check(place, turn.findings)))
    finally:
        server.remove()
        disk.unmount()
        disk.image.unlink()
