"""Read models of one process and target that commit their pages together: what is one transaction, and what is not."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

import eventfold as ef
from eventfold.core.table import stored_name
from eventfold.ports.target import Checkpoint, PartitionKey
from eventfold.projections.joint_commit import JointCommits, joint_commits
from eventfold.targets.duckdb.target import DuckDbTarget
from eventfold.targets.sql.target import SqlTarget
from eventfold.targets.sqlite.driver import SqliteDriver
from tests.support.servers.postgres import PostgresServer

pytestmark = pytest.mark.timeout(60)


class FakeTarget:
    """A target that records its transactions: the keys of each, in order. `fail`: the keys whose page fails."""

    commits_jointly = True

    def __init__(self) -> None:
        self.committed: list[list[str]] = []
        self.begun = 0
        self.refuses_commit = False

    @contextmanager
    def joint_transaction(self, several: bool) -> Generator[Callable[[PartitionKey], Any]]:
        keys: list[str] = []
        self.begun += 1

        def of(key: PartitionKey) -> Any:
            keys.append(key.name)
            return key

        yield of
        if self.refuses_commit and len(keys) > 1:
            raise OSError("the disk is full")
        self.committed.append(keys)


def key_of(name: str) -> PartitionKey:
    return PartitionKey(name, 1)


def write(tx: Any) -> Checkpoint:
    """Write nothing; return a checkpoint at a position that tells the page."""
    return Checkpoint(place=tx, store="s", epoch=1, position=ord(tx.name), query="", fingerprint="")


def commit_all(commits: JointCommits, pages: dict[str, Callable[[Any], Checkpoint]], events: int = 1) -> dict[str, Any]:
    """Commit a page of each name in a thread of its own; return the results or errors."""
    results: dict[str, Any] = {}
    for name in pages:
        commits.expect(key_of(name), 0.0)

    def run(name: str) -> None:
        try:
            results[name] = commits.commit(key_of(name), events, pages[name]).position
        except Exception as error:  # noqa: BLE001 (it is compared)
            results[name] = error

    threads = [threading.Thread(target=run, args=(name,)) for name in pages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_pages_of_read_models_at_work_are_one_transaction() -> None:
    """Five read models that are at work commit once, in the order of their names, and each gets its own checkpoint."""
    target = FakeTarget()
    commits = JointCommits(target, meet=5)
    results = commit_all(commits, dict.fromkeys("ecabd", write))
    assert target.committed == [["a", "b", "c", "d", "e"]]
    assert results == {name: ord(name) for name in "abcde"}


def test_a_page_that_fails_is_alone_and_the_others_are_committed() -> None:
    """The failure is raised to its own read model only; nothing of the joint transaction was written."""
    target = FakeTarget()

    def fail(tx: Any) -> Checkpoint:
        raise ValueError(tx.name)

    results = commit_all(JointCommits(target, meet=5), {"a": write, "b": fail, "c": write})
    assert sorted(target.committed) == [["a"], ["c"]]
    assert (results["a"], results["c"]) == (ord("a"), ord("c"))
    assert isinstance(results["b"], ValueError)
    assert str(results["b"]) == "b"


def test_a_joint_commit_that_fails_is_repeated_page_by_page() -> None:
    """Where the target refuses the joint commit, each page is committed by itself."""
    target = FakeTarget()
    target.refuses_commit = True
    results = commit_all(JointCommits(target, meet=5), {"a": write, "b": write})
    assert sorted(target.committed) == [["a"], ["b"]]
    assert results == {"a": ord("a"), "b": ord("b")}
    assert target.begun == 3


def test_a_read_model_that_does_nothing_is_not_waited_for() -> None:
    """A page does not wait for read models that have left, nor for those that begin later."""
    target = FakeTarget()
    commits = JointCommits(target, meet=30)
    commits.expect(key_of("idle"), 0.0)
    commits.leave(key_of("idle"))
    commits.expect(key_of("later"), time.monotonic() + 1000)
    began = time.monotonic()
    assert commits.commit(key_of("a"), 1, write).position == ord("a")
    assert time.monotonic() - began < 10


def test_a_slow_read_model_is_waited_for_only_for_a_moment() -> None:
    """A handler that takes long delays the commits of others by the bound at most."""
    target = FakeTarget()
    commits = JointCommits(target, meet=0.05)
    commits.expect(key_of("slow"), 0.0)
    began = time.monotonic()
    commits.commit(key_of("a"), 1, write)
    assert 0.04 < time.monotonic() - began < 5
    assert target.committed == [["a"]]


def test_a_transaction_has_a_bounded_number_of_events() -> None:
    """Large pages are not joined: the lock of the writers would be held for too long."""
    target = FakeTarget()
    results = commit_all(JointCommits(target, meet=5), dict.fromkeys("abc", write), events=1_500)
    assert sorted(target.committed) == [["a"], ["b"], ["c"]]
    assert results == {name: ord(name) for name in "abc"}


def test_pages_wait_for_a_leader_that_dies_no_longer_than_it_lives() -> None:
    """A thread that an exception ended while it was to commit leaves the others to commit without it."""
    target = FakeTarget()
    commits = JointCommits(target, meet=0.01)
    dead = threading.Thread(target=int)
    dead.start()
    dead.join()
    commits._leader = dead  # pyright: ignore[reportPrivateUsage]
    assert commits.commit(key_of("a"), 1, write).position == ord("a")


def test_only_targets_that_appends_wait_for_commit_jointly(tmp_path: Path) -> None:
    """A DuckDB file is committed for each read model by itself."""
    assert joint_commits(SqlTarget(SqliteDriver(str(tmp_path / "a.db")))) is not None
    assert joint_commits(DuckDbTarget(str(tmp_path / "a.duckdb"))) is None


class SoldTogether(ef.Event):
    shop: ef.Tag
    amount: int = 0


class First(ef.Projection):
    shop: str
    total: int = 0

    def evolve(self, event: SoldTogether) -> None:
        self.total += event.amount


class Second(ef.Projection):
    shop: str
    sales: int = 0

    def evolve(self, event: SoldTogether) -> None:
        self.sales += 1


class Refused(ef.Projection, on_error="park"):
    """Its row of shop "bad" is refused by a trigger of the database, within the transaction."""

    shop: str
    total: int = 0

    def evolve(self, event: SoldTogether) -> None:
        self.total += 1


class Stops(ef.Projection):
    shop: str
    total: int = 0

    def evolve(self, event: SoldTogether) -> None:
        if event.shop == "bad":
            raise ValueError("no such shop")
        self.total += 1


def count_commits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the transactions that SQLite drivers commit from now on."""
    commits = [0]
    commit = SqliteDriver.commit

    def counted(self: SqliteDriver, connection: Any) -> None:
        commits[0] += 1
        commit(self, connection)

    monkeypatch.setattr(SqliteDriver, "commit", counted)
    return commits


def test_read_models_of_one_file_commit_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two read models that follow a writer need little more than half as many transactions as checkpoints."""
    path = tmp_path / "log.db"
    with ef.Store(path) as store:
        with store.run(First, Second):
            store.append(SoldTogether("warm", 1))
            store.wait(First)
            store.wait(Second)
            began = sum(each.revision for name in (First, Second) for each in store.projections.checkpoints(name))
            commits = count_commits(monkeypatch)
            ends = time.monotonic() + 2
            count = 0
            while time.monotonic() < ends:
                store.append(SoldTogether(f"s-{count % 7}", 1))
                count += 1
                time.sleep(0.001)
            receipt = store.append(SoldTogether("last", 1))
            store.wait(First, receipt.last)
            store.wait(Second, receipt.last)
            made = commits[0]
            advances = sum(each.revision for name in (First, Second) for each in store.projections.checkpoints(name))
        assert sum(row.total for row in store.rows(First)) == count + 2
        assert sum(row.sales for row in store.rows(Second)) == count + 2
        assert all(proof.proved for proof in store.projections.verify())
    assert made < 0.75 * (advances - began)


def test_failures_stay_with_their_own_read_model(tmp_path: Path) -> None:
    """Beside one that parks events and one that stops, the others have every event; the ledgers prove each of them."""
    with ef.Store(tmp_path / "log.db") as store:
        store.project(Refused)
        with closing(sqlite3.connect(tmp_path / "log.db")) as other:
            other.execute(
                f"CREATE TRIGGER no_bad BEFORE INSERT ON {stored_name('refused', 1)} WHEN NEW.shop = 'bad' "
                "BEGIN SELECT RAISE(ABORT, 'bad is refused'); END"
            )
        with store.run(First, Second, Refused, Stops):
            for count in range(400):
                receipt = store.append(SoldTogether("bad" if count % 40 == 39 else f"s-{count % 7}", 1))
                time.sleep(0.001)
            store.wait(First, receipt.last)
            store.wait(Second, receipt.last)
            store.wait(Refused, receipt.last)
        assert sum(row.total for row in store.rows(First)) == 400
        assert sum(row.sales for row in store.rows(Second)) == 400
        assert len(store.projections.parked(Refused)) == 10
        assert sum(row.total for row in store.rows(Refused)) == 390
        (stopped,) = store.projections.checkpoints(Stops)
        assert stopped.stopped
        assert stopped.position == 39
        assert sum(row.total for row in store.rows(Stops)) == 39
        proofs = store.projections.verify(First, Second)
        assert [proof.proved for proof in proofs] == [True, True]
        assert [proof.different for proof in store.projections.verify_rows(First, Second)] == [0, 0]


def test_a_rebuild_beside_joint_commits_is_of_its_own(tmp_path: Path) -> None:
    """A generation that is rebuilt and made live while the read models follow: every row is right afterwards."""
    with ef.Store(tmp_path / "log.db") as store:
        with store.run(First, Second):
            for count in range(200):
                store.append(SoldTogether(f"s-{count % 7}", 1))
            store.wait(First)
            stop = threading.Event()

            def write() -> None:
                while not stop.is_set():
                    store.append(SoldTogether("s-1", 1))
                    time.sleep(0.001)

            writer = threading.Thread(target=write)
            writer.start()
            try:
                store.projections.rebuild(First)
                store.projections.switch(First)
                time.sleep(0.5)
            finally:
                stop.set()
                writer.join()
            head = store.append(SoldTogether("s-2", 1)).last
            store.wait(First, head)
            store.wait(Second, head)
        sold = next(each.count for each in store.types() if each.type == "SoldTogether")
        assert sum(row.total for row in store.rows(First)) == sold
        assert sum(row.sales for row in store.rows(Second)) == sold
        assert all(proof.proved for proof in store.projections.verify())
        assert [proof.different for proof in store.projections.verify_rows(First, Second)] == [0, 0]


def test_a_killed_runner_has_committed_all_pages_of_a_transaction_or_none(tmp_path: Path) -> None:
    """After kill -9 at any moment each read model continues at its own checkpoint; none skips or repeats an event."""
    code = f"""
import eventfold as ef
from tests.projections.test_joint_commits import First, Second
with ef.Store({str(tmp_path / "log.db")!r}) as store, store.run(First, Second) as runner:
    print("ready", flush=True)
    runner.wait()
"""
    chance = random.Random(7)
    with ef.Store(tmp_path / "log.db") as store:
        count = 0
        for _ in range(8):
            runner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
            try:
                assert runner.stdout is not None
                assert runner.stdout.readline() == "ready\n"
                ends = time.monotonic() + 0.1 + chance.random() / 5
                while time.monotonic() < ends:
                    store.append(SoldTogether(f"s-{count % 7}", 1))
                    count += 1
            finally:
                runner.kill()
                runner.wait()
                assert runner.stdout is not None
                runner.stdout.close()
        store.project(First, Second)
        assert sum(row.total for row in store.rows(First)) == count
        assert sum(row.sales for row in store.rows(Second)) == count
        assert all(proof.proved for proof in store.projections.verify())
        assert [proof.different for proof in store.projections.verify_rows(First, Second)] == [0, 0]


def test_a_lock_on_the_rows_of_one_read_model_does_not_delay_the_others(server: PostgresServer) -> None:
    """Another session locks the table of one, as CREATE INDEX does: that one waits, and the others continue."""
    schema = f"s{uuid4().hex[:12]}"
    with ef.Store(server.url(schema=schema)) as store, store.run(First, Second):
        receipt = store.append(SoldTogether("s-0", 1))
        store.wait(First, receipt.last)
        store.wait(Second, receipt.last)
        with psycopg.connect(server.url()) as other:
            other.execute(f'LOCK TABLE "{schema}".{stored_name("second", 1)} IN SHARE MODE'.encode())
            for count in range(50):
                receipt = store.append(SoldTogether(f"s-{count % 7}", 1))
                time.sleep(0.002)
            store.wait(First, receipt.last, timeout=20)
            assert store.projections.checkpoints("second")[0].position < receipt.last
        store.wait(Second, receipt.last, timeout=20)
        assert all(proof.proved for proof in store.projections.verify())
        assert [proof.different for proof in store.projections.verify_rows(First, Second)] == [0, 0]


def test_read_models_that_wait_for_locks_leave_connections_to_readers(server: PostgresServer) -> None:
    """Where two connections serve reads and rows, one that waits for a lock does not keep the log from being read."""
    schema = f"s{uuid4().hex[:12]}"
    with ef.Store(server.url(schema=schema), pool=2, patience=2) as store, store.run(First):
        receipt = store.append(SoldTogether("s-0", 1))
        store.wait(First, receipt.last)
        with psycopg.connect(server.url()) as other:
            other.execute(f'LOCK TABLE "{schema}".{stored_name("first", 1)} IN SHARE MODE'.encode())
            receipt = store.append(SoldTogether("s-0", 1))
            waiting = "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE NOT granted"
            own = f"{waiting} AND c.relnamespace = '{schema}'::regnamespace"
            ends = time.monotonic() + 20
            while other.execute(own.encode()).fetchone() == (0,) and time.monotonic() < ends:
                time.sleep(0.01)
            assert len(list(store.read())) == 2
        store.wait(First, receipt.last, timeout=20)


@pytest.mark.timeout(240)  # it starts a server twice
def test_a_crash_of_postgresql_undoes_rows_and_checkpoint_together() -> None:
    """Commits of a runner do not wait for the disk of the server: what a crash undoes is folded again, exactly once."""
    server = PostgresServer().start()
    try:
        url = server.url(schema="crashed")
        with ef.Store(url) as store:
            target = store.projections.target(First)
            store.project(First, Second)
            with target.joint_transaction(several=False) as of:  # type: ignore[attr-defined]
                deferred = of(PartitionKey("first", 1)).connection.execute("SHOW synchronous_commit").fetchone()
            with target.transaction(PartitionKey("first", 1)) as tx:
                durable = tx.connection.execute("SHOW synchronous_commit").fetchone()
            assert (deferred[0], durable[0]) == ("off", "on")
            with store.run(First, Second):
                for count in range(200):
                    receipt = store.append(SoldTogether(f"s-{count % 7}", 1))
                store.wait(First, receipt.last)
                server.kill()
        server.start()
        with ef.Store(url) as store:
            assert store.head() == receipt.last
            store.project(First, Second)
            assert sum(row.total for row in store.rows(First)) == 200
            assert sum(row.sales for row in store.rows(Second)) == 200
            assert all(proof.proved for proof in store.projections.verify())
            assert [proof.different for proof in store.projections.verify_rows(First, Second)] == [0, 0]
    finally:
        server.remove()
