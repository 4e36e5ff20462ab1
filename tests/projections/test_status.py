"""Why a read model is behind: each sentence of its status, in the situation that it reports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import msgspec
import psycopg
import pytest

import eventfold as ef
from eventfold.concurrency import run
from eventfold.ports.target import PartitionKey
from eventfold.projections import projection_definition
from eventfold.projections.catch_up import worker_context
from eventfold.projections.worker import PartitionWorker
from tests.projections.flights import CarrierMonth, Departed, edit, flights

Sentence = Callable[[], tuple[str, str]]


class Slow(ef.Projection, name="slow", on_error="park", attempts=1):
    """A handler that takes as many milliseconds as the event's month; it fails at a delay of 13."""

    carrier: str
    n: int = 0

    def evolve(self, event: Departed) -> None:
        """Wait that long."""
        time.sleep(event.month / 1_000)
        self.n += 1 // (event.delay - 13)


def said(store: ef.Store, name: str = "slow") -> tuple[str, str]:
    """Return its state and its sentence."""
    (status,) = store.projections.status(name)
    return status.state, status.sentence


@contextmanager
def working(store: ef.Store, steps: int, page: int = 10) -> Iterator[PartitionWorker]:
    """Return a worker that has done some steps and still holds its lease.

    Only `Slow` takes time by its clock: what a busy machine adds is not what these tests are about.
    """
    admin = store.projections
    passed, sleep, me = [0.0], time.sleep, threading.get_ident()

    def clock() -> float:
        passed[0] += 1e-5
        return passed[0]

    def sleeping(seconds: float) -> None:
        if threading.get_ident() == me:
            passed[0] += seconds
        else:
            sleep(seconds)

    context = msgspec.structs.replace(worker_context(admin.log, admin.target(Slow), 100), page=page, clock=clock)
    worker = PartitionWorker(projection_definition(Slow), context, PartitionKey("slow", 1), "worker")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(time, "sleep", sleeping)
        for _ in range(steps):
            run(worker.step())
    yield worker
    worker.release()


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a condition."""
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_never_run_and_not_running_since(store: ef.Store) -> None:
    """No runner works on it: the status has since when, how many events wait, and what to do."""
    store.project(Slow)
    assert said(store) == ("idle", "Current; no runner is working on it.")
    days = {time.strftime("%Y-%m-%d", time.gmtime())}
    store.append(Departed("a", 0, 1))
    state, sentence = said(store)
    days.add(time.strftime("%Y-%m-%d", time.gmtime()))
    assert state == "idle"
    since = re.fullmatch(
        r"Not running since (\S+ \S+)Z; 1 event waits: start a runner \(eventfold run STORE (\S+)\)\.", sentence
    )
    assert since is not None
    assert since[1][:10] in days


def test_catching_up_tells_the_rate_and_how_long(store: ef.Store) -> None:
    """It works and is faster than the log: the status has a rate, and the time left."""
    store.project(Slow)
    store.extend((Departed("a", 0, 1) for _ in range(400)), batch=10)
    with working(store, 3):
        (status,) = store.projections.status("slow")
    found = re.fullmatch(r"Catching up: (\S+) events behind at (\S+) events/s, about (\S+) s to go\.", status.sentence)
    assert found is not None, status.sentence
    assert (status.state, status.trend) == ("behind", "gaining")
    assert status.behind in (370, 360)  # after pages of 10, of which the last is larger where the log is quiet
    assert float(found[3]) == pytest.approx(status.behind / status.rate, abs=0.06)
    assert 0 < status.seconds < 60


def test_falling_behind_when_the_log_is_faster(store: ef.Store) -> None:
    """An event takes four milliseconds, and more than that were written in each of the last ten seconds."""
    store.project(Slow)
    store.extend((Departed("a", 4, 1) for _ in range(12_000)), batch=20)
    with working(store, 2):
        (status,) = store.projections.status("slow")
    assert status.trend == "losing"
    assert re.fullmatch(
        r"Falling behind: 11,960 events behind at \d+ events/s, and the log grows faster\.", status.sentence
    )


def test_a_slow_handler_is_named_with_its_time(store: ef.Store) -> None:
    """An event takes forty milliseconds: the status names the handler and the time."""
    store.project(Slow)
    store.extend((Departed("a", 40, 1) for _ in range(20)), batch=4)
    with working(store, 1, page=4):
        state, sentence = said(store)
    assert state == "behind"
    assert re.fullmatch(r"16 events behind: evolve takes 40 ms per event\.", sentence)


def test_parked_keys_are_reported_also_while_behind(store: ef.Store) -> None:
    """A parked event is never silent: its key is named, also while other keys catch up."""
    store.project(Slow)
    store.append(Departed("ill", 0, 13), Departed("well", 0, 1))
    with working(store, 4):
        state, sentence = said(store)
        assert state == "parked"
        assert sentence.startswith("Parked: 1 event of ill since event 1 (Departed): ZeroDivisionError: ")
        assert sentence.endswith(
            "; other keys are current. Fix the handler, then retry: eventfold projections retry STORE slow."
        )
        store.extend(Departed("well", 0, 1) for _ in range(400))
        state, sentence = said(store)
        assert state == "behind"
        assert sentence.endswith("; 1 more parked.")


def test_a_handler_that_does_not_return_is_reported(store: ef.Store) -> None:
    """Its runner lives but makes no progress, and no lock is held: the handler is the cause."""
    hanging, free = threading.Event(), threading.Event()

    class Hanging(ef.SqlProjection, name="hanging"):
        tables = {"hanging": "n INTEGER"}

        def take(self, event: Departed, tx: ef.Transaction) -> None:
            if store.engine.name == "memory":
                free.set()  # its rows share one connection, which could not be queried meanwhile
            hanging.set()
            free.wait(150)

    with store.run(Hanging):
        store.append(Departed("a", 1, 1))
        assert hanging.wait(60)
        if store.engine.name != "memory":
            until(lambda: said(store, "hanging")[1].endswith("a handler has not returned."))
            assert said(store, "hanging")[0] == "behind"
        free.set()
        store.wait(Hanging, timeout=60)


WRITER = {
    "turn": "import fcntl, os, sys; f = os.open(sys.argv[1] + '.lock', os.O_RDWR); fcntl.flock(f, fcntl.LOCK_EX)",
    "no turn": "import apsw, sys; c = apsw.Connection(sys.argv[1]); c.execute('BEGIN IMMEDIATE')",
}


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux tells who holds a lock")
@pytest.mark.parametrize("how", WRITER)
def test_a_process_that_blocks_a_runner_on_a_file_is_named(tmp_path: Path, how: str) -> None:
    """Another process holds the writer lock, or SQLite's own lock without the writer lock."""
    path = str(tmp_path / "store.db")
    with ef.Store(path) as store:
        store.project(CarrierMonth)
        store.extend(flights(100))
        code = f"import sys\nsys.stdin.readline()\n{WRITER[how]}\nprint(flush=True)\nsys.stdin.read()"
        writer = subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert writer.stdin is not None
        assert writer.stdout is not None
        try:
            admin = store.projections
            place = PartitionKey("carrier_month", 1)
            held = admin.target(CarrierMonth)  # a runner that has the lease already
            worker = PartitionWorker(
                projection_definition(CarrierMonth), worker_context(admin.log, held, 100), place, f"h:{os.getpid()}:1"
            )
            assert run(worker.claim())
            writer.stdin.write(b"\n")
            writer.stdin.flush()
            writer.stdout.readline()
            thread = threading.Thread(target=lambda: run(worker.step()))
            thread.start()
            wanted = f": it waits for a lock held by process {writer.pid} (python"
            until(lambda: wanted in said(store, "carrier_month")[1])
            assert said(store, "carrier_month")[0] == "behind"
        finally:
            writer.stdin.close()
            writer.wait(60)
            writer.stdout.close()
        thread.join()
        worker.release()
        store.project(CarrierMonth)
        assert said(store, "carrier_month") == ("idle", "Current; no runner is working on it.")


@pytest.mark.parametrize(
    "lock", ["UPDATE eventfold_checkpoint SET at = at", "LOCK TABLE carrier_month__1 IN SHARE MODE"]
)
def test_a_session_that_blocks_a_runner_on_a_server_is_named(
    server: object, request: pytest.FixtureRequest, lock: str
) -> None:
    """Another session has locked the checkpoint's row, or the table of the rows: named by backend, name and state."""
    schema = f"blocked_{uuid4().hex[:12]}"
    url: str = request.getfixturevalue("server").url(schema=schema)
    with ef.Store(url) as store:
        store.project(CarrierMonth)
        store.extend(flights(20))
        plain = url.partition("?")[0]
        with psycopg.connect(plain, application_name="monthly report") as other, store.run(CarrierMonth) as runner:
            store.wait(CarrierMonth)
            other.execute(f"SET search_path = {schema}".encode())
            other.execute(lock.encode())
            store.extend(flights(100, 20))
            wanted = f": it waits for a lock held by backend {other.info.backend_pid} (monthly report, user "
            until(lambda: wanted in said(store, "carrier_month")[1])
            assert said(store, "carrier_month")[0] == "behind"
            assert "idle in transaction for " in said(store, "carrier_month")[1]
            other.rollback()
            store.wait(CarrierMonth, timeout=60)
            assert not runner.failed
        store.projections.remove(CarrierMonth)


def test_a_follower_that_acknowledges_nothing_is_reported(store: ef.Store) -> None:
    """The status names the follower, and that it has acknowledged nothing, or nothing for a while."""
    store.extend(flights(10))
    with store.follow(name="billing") as follower:
        events = iter(follower)
        next(events)
        state, sentence = said(store, "billing")
        assert state == "behind"
        assert sentence.endswith(" follows it and has acknowledged nothing yet; 10 events wait.")
        follower.acknowledge()
        assert said(store, "billing")[0] == "behind"
        target = store.projections.target("billing")
        edit(
            target, PartitionKey("billing", 1), at=(time.time_ns() // 1_000) - 60_000_000, stats="{}"
        )  # a minute later
        assert re.search(r"has acknowledged nothing for (59|60|61) s; 9 events wait\.$", said(store, "billing")[1])
