"""Followers of a plain sequence skip events, because sequence order is not commit order. The store's do not.

This well-known defect is shown next to the store, in which it cannot happen: 16 writers, one in a hundred
transactions rolled back, every fourth one slow to commit.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from eventfold.ports.messages import Span
from tests.engines.postgres.conftest import Open
from tests.engines.postgres.given import EVERYTHING, Opened, event, request, soon, sql, together

WRITERS = 16
TURNS = 40  # of each writer
SLOW_COMMIT_S = 0.002  # seconds that every fourth transaction stays open after its insert


def under_load(write: Callable[[int], None], look: Callable[[], None]) -> None:
    """Run sixteen writers, and a follower that reads all the time, and once more at the end."""
    done = threading.Event()

    def follow() -> None:
        while not done.is_set():
            look()

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    raised = together(*[lambda number=n: write(number) for n in range(WRITERS)])
    done.set()
    follower.join(60)
    assert not follower.is_alive()
    look()
    assert raised == []


def test_a_naive_follower_of_a_sequence_skips_events(url: str, schema: str) -> None:
    """`WHERE id > last seen` over a bigserial misses what commits late: the reason for positions in commit order."""
    sql(url, f"CREATE SCHEMA {schema}", f"CREATE TABLE {schema}.naive (id bigserial PRIMARY KEY, body text)")
    insert = f"INSERT INTO {schema}.naive (body) VALUES ('x')".encode()
    seen: list[int] = []

    def look() -> None:
        found = sql(url, f"SELECT id FROM {schema}.naive WHERE id > %s ORDER BY id", values=[max(seen, default=0)])
        seen.extend(row[0] for row in found)

    with psycopg.connect(url) as slow, psycopg.connect(url) as quick, psycopg.connect(url) as given_up:
        for each in (slow, given_up, quick):
            each.execute(insert)
        quick.commit()
        look()
        slow.commit()
        given_up.rollback()
        look()
    stored = {row[0] for row in sql(url, f"SELECT id FROM {schema}.naive")}
    assert (seen, stored) == ([3], {1, 3}), "the first is never seen"
    assert len(stored) < max(stored), "rollbacks leave gaps, so that waiting for the missing number never ends"


@pytest.mark.parametrize("joined", [False, True], ids=["appends", "joined transactions"])
def test_a_follower_of_the_store_skips_nothing(url: str, opening: Open, joined: bool) -> None:
    """The same load, with plain appends and in users' transactions: every position once, in order, without a gap."""
    reader = opening()
    seen: list[int] = []
    writers = [opening() for _ in range(WRITERS)]
    acknowledged: list[int] = []

    def write(number: int) -> None:
        chance = random.Random(number)
        engine = writers[number]
        with psycopg.connect(url) as connection:
            for turn in range(TURNS):
                if joined:
                    engine.transactions.stage(connection, [request(event("Deposited", f"writer:{number}"))])
                    if turn % 4 == 0:
                        time.sleep(SLOW_COMMIT_S)
                    if chance.random() < 0.01:
                        connection.rollback()
                        continue
                    connection.commit()
                else:
                    engine.append(event("Deposited", f"writer:{number}"))
                acknowledged.append(1)

    def look() -> None:
        page = reader.read(EVERYTHING, Span(after=seen[-1] if seen else 0))
        seen.extend(stored.position for stored in page.events)

    under_load(write, look)
    while len(seen) < reader.head().position:
        look()
    assert len(acknowledged) > WRITERS * TURNS * 0.9
    assert seen == list(range(1, len(acknowledged) + 1))


def test_recorded_time_never_decreases(opening: Open) -> None:
    """This holds for any number of writers at once."""
    engines = [opening() for _ in range(4)]
    assert together(*[lambda e=e: [e.append(event()) for _ in range(20)] for e in engines]) == []
    times = [stored.time for stored in engines[0].everything()]
    assert times == sorted(times)
    assert len(times) == 80


def test_positions_become_visible_in_order_on_every_connection(opening: Open) -> None:
    """After a reader has seen a position, no event appears at or below it, on any connection."""
    writers, readers = [opening() for _ in range(4)], [opening() for _ in range(2)]
    done = threading.Event()

    def read(engine: Opened) -> None:
        while not done.is_set():
            head = engine.head().position
            assert len(engine.read(EVERYTHING, Span(until=head, limit=10_000)).events) == head

    def write() -> None:
        raised = together(*[lambda e=e: [e.append(event()) for _ in range(100)] for e in writers])
        done.set()
        assert raised == []

    assert together(write, *[lambda e=e: read(e) for e in readers]) == []
    assert soon(lambda: readers[0].head().position == 400)


SCRIPT = """
import sys
from tests.engines.postgres.given import Opened, event
engine = Opened(sys.argv[1], schema=sys.argv[2])
engine.open()
for _ in range(int(sys.argv[3])):
    print(engine.append(event("Deposited", "process:" + sys.argv[4])).first)
engine.end()
"""


def test_processes_take_turns(url: str, schema: str, engine: Opened) -> None:
    """Four processes at once: every position is acknowledged to exactly one of them, and none starves."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, url, schema, "40", str(number)],
            cwd=Path(__file__).parents[3],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    answers = [process.communicate(timeout=150)[0].split() for process in processes]
    assert [len(answer) for answer in answers] == [40] * 4
    assert sorted(int(position) for answer in answers for position in answer) == list(range(1, 161))
    assert [t.count for t in engine.tags("process:")] == [40] * 4
