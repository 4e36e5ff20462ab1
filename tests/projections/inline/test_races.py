"""Inline read models under racing threads, tasks and processes: rows equal the plain fold in every race."""

# Private attributes are used on purpose.
# pyright: basic

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.errors import InlineFailed, InlineMissing
from eventfold.ports.messages import AppendRequest
from eventfold.projections import projection_definition
from tests.projections.inline.bank import (
    InlineBalance,
    InlineLedger,
    InlineMoved,
    InlineNoted,
    InlineTotal,
    balances,
    folded,
    ledger,
    proved,
)
from tests.support.repetitions import repetitions

ALL = [InlineBalance, InlineLedger, InlineTotal]
REFUSED = (13, 17, 19)  # each by another of them: in Python, in SQL, by the database itself


def amounts(seed: int, count: int) -> list[int]:
    """Return amounts, one in six of which is refused by one of the three read models."""
    chance = random.Random(seed)
    return [chance.choice((*range(20, 35), *REFUSED)) for _ in range(count)]


def right(store: ef.Store) -> bool:
    """Return whether all three read models equal the plain fold, and are proved."""
    totals = {row.account: row.total for row in store.rows(InlineTotal)}
    return balances(store) == folded(store) == ledger(store) == totals and proved(store)


def test_sixteen_threads(url: str) -> None:
    """Appends share commits: a refusal is raised in its own thread only, and all others are written and folded."""
    with ef.Store(url, inline=ALL) as store:
        written, refused = list[int](), list[int]()

        def work(seed: int) -> None:
            for amount in amounts(seed, 25):
                try:
                    store.append(InlineMoved(f"a{seed % 5}", amount), InlineNoted("x"))
                    written.append(amount)
                except InlineFailed:
                    refused.append(amount)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {*refused} == {*REFUSED}
        assert not {*written} & {*REFUSED}
        assert store.head() == 2 * len(written)
        assert right(store)


def test_hundreds_of_tasks(url: str) -> None:
    """Run the same with tasks on a loop."""

    async def race() -> int:
        async with ef.AsyncStore(url, inline=ALL) as store:
            asked = [InlineMoved(f"a{n % 5}", amount) for n, amount in enumerate(amounts(1, 300))]
            done = await asyncio.gather(*(store.append(each) for each in asked), return_exceptions=True)
            for each, outcome in zip(asked, done, strict=True):
                assert isinstance(outcome, InlineFailed) == (each.amount in REFUSED), outcome
            return sum(each.amount not in REFUSED for each in asked)

    count = asyncio.run(race())
    with ef.Store(url) as store:
        assert store.head() == count
        assert right(store)


def test_one_call_of_the_engine_refuses_each_for_its_own_sake(url: str) -> None:
    """Conditions that depend on a refused request are conflicts, as if that request had not been made."""
    with ef.Store(url, inline=[InlineBalance, InlineTotal]) as store:
        about = ef.Query.of(types=InlineMoved, tags="account:a")

        def request(amount: int, *unless: object) -> AppendRequest:
            return AppendRequest((store.registry.encode(InlineMoved("a", amount)),), tuple(unless))  # type: ignore[arg-type]

        from eventfold.concurrency import run
        from eventfold.core.query import ConditionClause

        bad, other_bad = request(13), request(19)
        built = request(1, ConditionClause(about, 0, bad.events[0].id))
        after_bad = request(5, ConditionClause(about, 0))
        again = request(7, ConditionClause(about, 0))
        outcomes = run(store.engine.append_many([bad, built, other_bad, after_bad, again]))
        codes = [getattr(outcome, "code", "written") for outcome in outcomes]
        assert codes == ["inline-failed", "append-conflict", "inline-failed", "written", "append-conflict"]
        assert balances(store) == {"a": 5}
        assert [row.total for row in store.rows(InlineTotal)] == [5]
        assert proved(store)


def test_decisions_that_are_built_on_each_other(url: str) -> None:
    """A decision whose events cannot be folded is refused; decisions based on it are made again."""

    class InlinePot(ef.State):
        account: str
        sum: int = 0

        def evolve(self, event: InlineMoved) -> None:
            self.sum += event.amount

    def move(pot: InlinePot, amount: int) -> list[InlineMoved]:
        return [InlineMoved(pot.account, amount)]

    with ef.Store(url, inline=ALL) as store:
        refused = list[int]()

        def work(seed: int) -> None:
            for amount in amounts(seed, 12):
                try:
                    store.using(attempts=200).decide(move, InlinePot("a"), amount)
                except InlineFailed:
                    refused.append(amount)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) + store.head() == 8 * 12
        assert {*refused} <= {*REFUSED}
        assert store.state(InlinePot("a")).sum == balances(store)["a"]
        assert right(store)


WRITER = """
import os, sys, threading
import eventfold as ef
from eventfold.errors import InlineFailed
from tests.projections.inline.bank import InlineMoved
from tests.projections.inline.test_races import ALL, amounts

def write(store, seed, count):
    for amount in amounts(seed, count):
        try:
            store.append(InlineMoved(f"a{seed % 5}", amount), InlineMoved("b", 20))
        except InlineFailed:
            pass

def work(url, seed, count):
    with ef.Store(url, inline=ALL) as store:
        os.write(1, f"{os.getpid()}\\n".encode())
        threads = [threading.Thread(target=write, args=(store, seed + n, count)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

url, count = sys.argv[1], int(sys.argv[2])
if not count:  # a process that forks a writer for each line it reads
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            work(url, int(line), 1_000)
            os._exit(0)
        os.waitpid(child, 0)
else:
    work(url, int(sys.argv[3]), count)
"""


def process(*arguments: object) -> subprocess.Popen[str]:
    """Start a process that writes, or forks writers."""
    root = Path(__file__).parents[3]
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=root,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}"},
    )


def test_several_processes(url: str) -> None:
    """Each process caches rows that the others change: none folds into an outdated row."""
    with ef.Store(url, inline=ALL) as store:
        writers = [process(url, 20, seed) for seed in (0, 10, 20)]
        for amount in amounts(99, 40):
            try:
                store.append(InlineMoved("a0", amount))
            except InlineFailed:
                assert amount in REFUSED
        for writer in writers:
            writer.communicate(timeout=120)
            assert writer.returncode == 0
        assert right(store)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_killed_writers_leave_rows_and_events_that_agree(url: str) -> None:
    """Processes of four threads each are killed while they append (kill -9); rows then equal the fold."""
    chance = random.Random(8)
    with ef.Store(url, inline=ALL) as store:
        parent, heads, rounds = process(url, 0), set[int](), repetitions(16, 40)
        assert parent.stdin is not None
        assert parent.stdout is not None
        try:
            for round in range(rounds):
                parent.stdin.write(f"{round}\n")
                parent.stdin.flush()
                child = int(parent.stdout.readline())
                before = store.head()
                while store.head() == before:
                    time.sleep(0.001)
                time.sleep(chance.random() * 0.05)
                os.kill(child, signal.SIGKILL)
                store.append(InlineMoved("mine", 1))  # its unfinished transaction is committed or rolled back now
                heads.add(store.head())
                assert balances(store) == folded(store) == ledger(store)
        finally:
            parent.stdin.close()
            parent.wait(60)
            parent.stdout.close()
        assert len(heads) == rounds
        assert max(heads) > 2.5 * rounds  # they were killed at work: theirs are more than ours
        assert right(store)


def test_one_that_is_enrolled_while_others_append(url: str) -> None:
    """All events written before are in its rows; from the next append on, a process without its code is refused."""
    with ef.Store(url) as other:
        other.extend([InlineMoved(f"a{n % 7}", 20 + n % 5) for n in range(2_000)])
        refused, begun = threading.Event(), threading.Event()

        def work() -> None:
            for n in range(100_000):
                try:
                    other.append(InlineMoved(f"a{n % 7}", 30))
                except InlineMissing:
                    refused.set()
                    return
                begun.set()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert begun.wait(60)
        with ef.Store(url, inline=[InlineBalance]) as store:
            enrolled = store.head()
            for thread in threads:
                thread.join(60)
            assert refused.is_set()
            assert store.head() == enrolled > 2_000
            assert balances(store) == folded(store)
            store.append(InlineMoved("a1", 30))
            assert balances(store) == folded(store)
            assert proved(store)


def test_a_generation_is_exchanged_while_others_append(url: str) -> None:
    """The switch falls between two appends: the new rows have all events of the old ones, and the next event."""
    with ef.Store(url, inline=[InlineBalance]) as store, ef.Store(url, inline=[InlineBalance]) as second:
        ended = threading.Event()

        def work() -> None:
            while not ended.is_set():
                store.append(InlineMoved("a", 20), InlineMoved("b", 21))

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for generation in (2, 3, 4):
                assert second.projections.rebuild(InlineBalance) == generation
                second.projections.switch(InlineBalance)
                assert second.projections.status(InlineBalance)[0].behind == 0
        finally:
            ended.set()
            for thread in threads:
                thread.join()
        assert balances(store) == folded(store)
        assert store.projections.status(InlineBalance)[0].generation == 4
        assert proved(store)


def test_verify_finds_an_event_that_was_not_folded(tmp_path: Path) -> None:
    """An event inserted without the library is in the log, but no append has folded it."""
    import apsw

    from eventfold.engines.sqlite.schema import with_checksum

    url = str(tmp_path / "store.db")
    with ef.Store(url, inline=[InlineBalance]) as store:
        store.append(InlineMoved("a", 20))
        connection = apsw.Connection(url)
        (kept,) = connection.execute("SELECT name, code, types, ticket FROM inlined").fetchall()
        name, code, _, ticket = kept
        *_, checksum = with_checksum((name, code, "nothing", ticket))
        connection.execute("UPDATE inlined SET types = 'nothing', crc = ?", (checksum,))
        connection.close()
        with ef.Store(url) as other:
            other.append(InlineMoved("a", 20))
        (proof,) = store.projections.verify(InlineBalance)
        assert not proof.proved
        assert "no append has folded them" in proof.verdict
        assert store.projections.status(InlineBalance)[0].state == "stopped"
        assert projection_definition(InlineBalance).name == "inline_balance"
