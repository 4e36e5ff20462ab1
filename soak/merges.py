"""kill -9 of processes that merge the index of tags and types, and what merges meet besides: full disks, bit flips.

Half of the rounds kill one process at each step of its merges; the others kill several processes on one file at random
moments. These check each other: every conditional event carries how many events of its tag its process had counted.
Knows: the settings that make merges frequent. Does not know: how the index is merged.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from eventfold.concurrency.run import run
from eventfold.core.envelope import NewEvent, Receipt, StoredEvent, new_id
from eventfold.core.query import ConditionClause, Query
from eventfold.engines.sqlite import SqliteEngine, checkpoint, idle_merge, merge_schedule
from eventfold.errors import AppendConflict, EventfoldError, StoreBusy
from eventfold.ports.messages import AppendRequest, Span
from soak import children
from soak.rounds import Round
from tests.engines.sqlite.faulty import faulty_disk, full

WAVES = 6
PROCESSES = 4
ENTITIES = 24
STEPS = ("merge", "idle", "reindex", "rescue", "upgrade")
LONG_S = 600.0
FLIPS = 6  # after each wave
PAGE_BYTES = 4_096


def merges(turn: Round) -> None:
    """Kill at each step of a merge, or at random."""
    if turn.index % 2:
        crowd(turn)
    else:
        steps(turn)


def steps(turn: Round) -> None:
    """Kill a process at the steps of appends with slices, merges while idle, rebuilds of the index, or upgrades."""
    what = STEPS[turn.index // 2 % len(STEPS)]
    ran = subprocess.run(
        [sys.executable, "-m", "tests.engines.sqlite.dying", what, str(turn.folder), str(turn.dice.randrange(3, 9))],
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        turn.findings.add(f"the program that dies did not end well: {ran.stderr[-500:]}")
        return
    seen = json.loads(ran.stdout)
    turn.count("kills", seen["kills"])
    for each in seen["wrong"]:
        turn.findings.add(each)


def crowd(turn: Round) -> None:
    """Kill waves of processes that append, decide and read by tag across merges; rebuild the index between waves."""
    path = str(turn.folder / "store.db")
    for wave in range(WAVES):
        started = [
            children.fork(turn.folder, work, path, turn.folder, f"{turn.seed}/{wave}/{number}", name="work")
            for number in range(PROCESSES)
        ]
        time.sleep(turn.dice.uniform(0.3, 1.5))
        killed = 0
        for pid in started:  # one by one, while the others go on
            killed += children.kill([pid])
            time.sleep(turn.dice.uniform(0.0, 0.1))
        turn.count("kills", killed)
        if killed < len(started):
            turn.findings.add(f"{len(started) - killed} of the processes ended by themselves")
        if turn.dice.random() < 0.5:
            rebuilding = children.fork(turn.folder, rebuild, path, name="rebuild")
            time.sleep(turn.dice.uniform(0.0, 0.3))
            turn.count("kills", children.kill([rebuilding]))
        flip(turn, path)
    compare(turn, path)


def configure(dice: random.Random) -> None:
    """Set sizes so small that merges and checkpoints are frequent."""
    merge_schedule.SLICE_POSTINGS = dice.choice([6, 30, 192])
    merge_schedule.IDLE_POSTINGS = dice.choice([10, 60, 512])
    merge_schedule.RETRY_S = 0.01
    idle_merge.IDLE_S, idle_merge.MIN_EVENTS = dice.choice([0.002, 0.02]), 16
    checkpoint.CHECKPOINT_PAGES = dice.choice([20, 200, 4_000])


def work(path: str, folder: Path, seed: str) -> None:
    """Append, decide and read by tag until killed."""
    dice = random.Random(seed)
    configure(dice)
    log = os.open(folder / f"acknowledged-{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    ends = time.monotonic() + LONG_S
    with faulty_disk() as disk:
        while time.monotonic() < ends:
            engine = SqliteEngine(path, merge_events=dice.choice([10, 40, 150]), timeout=20.0)
            run(engine.open())
            for _ in range(dice.randrange(20, 200)):
                if dice.random() < 0.05:
                    disk.refuse("write wal", full, dice.randrange(0, 12))
                try:
                    act(engine, dice, log)
                except (AppendConflict, StoreBusy):
                    continue
                except EventfoldError as error:
                    if not disk._faults:
                        raise
                    os.write(log, f"refused {error.code}\n".encode())
                if dice.random() < 0.3:
                    disk.repair()
            disk.repair()
            if dice.random() < 0.5:
                run(engine.close())


def act(engine: SqliteEngine, dice: random.Random, log: int) -> None:
    """One append, decision, comparison or pause."""
    tag = f"entity:{dice.randrange(ENTITIES)}"
    way = dice.random()
    if way < 0.4:
        write(
            engine, [event({}, tag, f"one:{dice.getrandbits(40)}") for _ in range(dice.choice([1, 1, 1, 7, 40]))], log
        )
    elif way < 0.7:
        query = Query.of(tags=tag)
        head = run(engine.head()).position
        known = run(engine.count(query, 0, head))
        clause = ConditionClause(query, head)
        write(engine, [event({"known": known, "of": tag}, tag)], log, clause)
    elif way < 0.9:
        head = run(engine.head()).position
        after = max(0, head - 400)
        found = [each.position for each in whole(engine, Query.of(tags=tag), after, head)]
        scanned = [each.position for each in whole(engine, Query(), after, head) if tag in each.tag_set]
        if found != scanned:
            raise AssertionError(f"{tag}: {found} by tag, {scanned} by a scan")
    else:
        time.sleep(dice.choice([0.0, 0.01, 0.06]))


def event(data: dict[str, object], *tags: str) -> NewEvent:
    """An event of two types, in turns."""
    return NewEvent(new_id(), f"soak.{len(tags)}", 1, json.dumps(data).encode(), tuple(sorted(tags)))


def write(engine: SqliteEngine, events: list[NewEvent], log: int, clause: ConditionClause | None = None) -> None:
    """Append; note what was acknowledged."""
    (outcome,) = run(engine.append_many([AppendRequest(tuple(events), unless=(clause,) if clause else ())]))
    if not isinstance(outcome, Receipt):
        raise outcome
    os.write(log, f"written {outcome.first} {outcome.last} {events[0].id.hex()}\n".encode())


def whole(engine: SqliteEngine, query: Query, after: int, until: int) -> list[StoredEvent]:
    """All events of a range that match."""
    found: list[StoredEvent] = []
    while True:
        page = run(engine.read(query, Span(after=after, until=until, limit=200)))
        found += page.events
        if not page.more:
            return found
        after = page.events[-1].position


def rebuild(path: str) -> None:
    """Rebuild the index again and again."""
    while True:
        run(SqliteEngine(path).reindex())


def compare(turn: Round, path: str) -> None:
    """Everything acknowledged is there, each condition held, and tags and types lead to what a scan finds."""
    engine = SqliteEngine(path)
    run(engine.open())
    head = run(engine.head()).position
    events = whole(engine, Query(), 0, head)
    turn.count("events", len(events))
    by_id = {each.id.hex(): each.position for each in events}
    for log in turn.folder.glob("acknowledged-*"):
        for line in log.read_text().splitlines():
            word, *rest = line.split()
            if word == "written" and len(rest) == 3 and by_id.get(rest[2]) != int(rest[0]):
                turn.findings.add(f"{line!r} was acknowledged, and its event is at {by_id.get(rest[2])}")
    counted: Counter[str] = Counter()
    for each in events:
        data = json.loads(each.data)
        if "known" in data and counted[data["of"]] != data["known"]:
            turn.findings.add(f"event {each.position} was decided on {data['known']} of {counted[data['of']]} events")
        counted.update(each.tag_set)
    for number in range(ENTITIES):
        tag = f"entity:{number}"
        found = [each.position for each in whole(engine, Query.of(tags=tag), 0, head)]
        if found != [each.position for each in events if tag in each.tag_set]:
            turn.findings.add(f"{tag} leads to {len(found)} events, and {counted[tag]} carry it")
    for type in ("soak.1", "soak.2"):
        if run(engine.count(Query.of(types=type))) != sum(each.type == type for each in events):
            turn.findings.add(f"{type} leads to other events than those of that type")
    for problem in engine.check():
        turn.findings.add(f"verify: {problem}")
    run(engine.close())


def flip(turn: Round, path: str) -> None:
    """Change single bits of copies: an answer by tag is right or an error; a rebuilt index is right or refused."""
    source = SqliteEngine(path)
    run(source.open())
    head = run(source.head()).position
    right = {each.position: each.tag_set for each in whole(source, Query(), 0, head)}
    copy = turn.folder / "flipped.db"
    for _ in range(FLIPS):
        for end in ("", "-wal", "-shm", ".lock"):
            Path(f"{copy}{end}").unlink(missing_ok=True)
        source.backup(str(copy))
        place = _place(turn, copy, head)
        with copy.open("r+b") as file:
            file.seek(place)
            (byte,) = file.read(1)
            file.seek(place)
            file.write(bytes([byte ^ 1 << turn.dice.randrange(8)]))
        turn.count("flips")
        _ask(turn, str(copy), right, f"bit of byte {place}")
        try:
            run(SqliteEngine(str(copy)).reindex())
        except EventfoldError:
            continue
        _ask(turn, str(copy), right, f"bit of byte {place}, after a reindex", is_rebuilt=True)
    run(source.close())


def _place(turn: Round, copy: Path, head: int) -> int:
    """A byte of the index, or of the rows of the newest events."""
    connection = sqlite3.connect(copy)
    names = ("posting", "run", "tag", "indexed", "sqlite_autoindex_tag_1", "event")
    pages = {name: list[int]() for name in names}
    for name, page in connection.execute("SELECT name, pageno FROM dbstat WHERE name IN (?,?,?,?,?,?)", names):
        pages[name].append(page)
    connection.close()
    chosen = turn.dice.choice([each for each in pages.values() if each])
    return (turn.dice.choice(chosen[-8:]) - 1) * PAGE_BYTES + turn.dice.randrange(PAGE_BYTES)


def _ask(turn: Round, path: str, right: dict[int, list[str]], what: str, *, is_rebuilt: bool = False) -> None:
    """Compare answers by tag with the events before the flip."""
    engine = SqliteEngine(path)
    wrong = ""
    try:
        run(engine.open())
        for number in range(ENTITIES):
            tag = f"entity:{number}"
            expected = [position for position, tags in right.items() if tag in tags]
            found = [each.position for each in whole(engine, Query.of(tags=tag), 0, max(right, default=0))]
            if found != expected:
                wrong = f"{what}: {tag} leads to {len(found)} events instead of {len(expected)}"
                break
        # A flipped position or tag of an index entry hides an event until a check, as documented: it must find it.
        if (wrong or is_rebuilt) and (bool(wrong) != bool(list(engine.check()))):
            turn.findings.add(wrong or f"{what}: verify finds a problem of a rebuilt index")
    except EventfoldError:
        if is_rebuilt:
            turn.findings.add(f"{what}: not readable")
    finally:
        try:
            run(engine.close())
        except EventfoldError as error:
            turn.count(f"close: {error.code}")
