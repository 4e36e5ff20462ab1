"""Rows sent to sinks: after failures, repeats and losses they equal the plain fold."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

import eventfold as ef
from eventfold.concurrency import run
from eventfold.errors import InvalidProjection, InvalidUrl, MissingExtra, ProjectionBehind, TargetUnavailable
from eventfold.ports.sink import Sink
from eventfold.ports.target import PartitionKey
from eventfold.projections import projection_definition
from eventfold.projections.leases import is_dead_holder
from eventfold.projections.partition_lease import WorkerContext
from eventfold.projections.worker import PartitionWorker
from eventfold.targets.sinks.http import HttpSink
from tests.cli.commands import run as do
from tests.docs.pages import blocks, pages
from tests.projections.flights import Cancelled, CarrierMonth, Departed, flights, folded, proved, rows
from tests.support.repetitions import repetitions
from tests.support.servers import redis as redis_server
from tests.support.servers.postgres import shared
from tests.targets.killed import elsewhere, forking_process
from tests.targets.receiver import SECRET, MemorySink, receiving, shown


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ef.Store]:
    """An empty store."""
    with ef.Store(str(tmp_path / "store.db")) as store:
        yield store


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventfold.targets.sinks.http.RETRY_PAUSES_S", (0.0, 0.0))


def split(address: Any) -> type[CarrierMonth]:
    """The same in three partitions."""

    class SentSplit(CarrierMonth, name="carrier_month", target=address, partitions=3):
        def evolve(self, event: Departed | Cancelled) -> None:
            super().evolve(event)

    return SentSplit


# Any sink


def test_a_sink_may_be_any_object_with_five_methods(store: ef.Store) -> None:
    """It receives rows as JSON, with an increasing number; the rows are in the store's database as well."""
    sink = MemorySink()
    assert isinstance(sink, Sink)
    kept = elsewhere(sink)
    store.append(*flights(60))
    store.project(kept)
    assert sink.readers() == folded(flights(60)) == rows(store, kept)
    store.append(*flights(60, 60))
    store.project(kept)
    assert sink.readers() == folded(flights(120))
    numbers = [batch.number for batch in sink.batches]
    assert numbers == sorted(set(numbers)) and sink.batches[-1].position == 120
    assert [batch.after for batch in sink.batches] == [0, *numbers[:-1]]
    assert len({batch.id for batch in sink.batches}) == len(sink.batches)
    assert proved(store)
    with pytest.raises(InvalidProjection, match="neither an address nor a sink"):
        elsewhere(object())


def test_rows_that_are_not_kept_are_deleted_there_too(store: ef.Store) -> None:
    """They are deleted by their keys."""
    sink = MemorySink()

    class SentLate(ef.Projection, name="carrier_month", target=sink):
        carrier: str
        minutes: int = 0

        def evolve(self, event: Departed) -> None:
            self.minutes += event.delay

        def keep(self) -> bool:
            return self.minutes > 0

    store.append(Departed("a", 1, 5), Departed("b", 1, 5))
    store.project(SentLate)
    store.append(Departed("a", 1, -5))
    store.project(SentLate)
    assert sink.readers() == [("b", 5)]
    assert sink.batches[-1].deletes == [{"carrier": "a"}]


@settings(max_examples=repetitions(30, 60), deadline=None)
@given(
    turns=st.lists(
        st.tuples(
            st.integers(0, 12),  # events written
            st.lists(st.sampled_from(["", "before", "after", "lost", "lost, after", "crash"]), max_size=4),
            st.integers(0, 2),  # which partition is worked on
            st.integers(1, 15),  # events of a page
            st.integers(1, 3),  # steps
            st.booleans(),  # the lease is released
        ),
        max_size=10,
    ),
    several=st.booleans(),
    askable=st.booleans(),
)
def test_random_failures_end_in_the_plain_fold(turns: list[Any], several: bool, askable: bool) -> None:
    """Batches are refused, accepted without a reply, lost with all rows; workers vanish at each of these points."""
    sink = MemorySink(askable)
    kept = split(sink) if several else elsewhere(sink)
    with ef.Store("memory:") as store:
        store.project(kept)
        written, plan, target = 0, projection_definition(kept), store.projections.target(kept)
        for count, trouble, partition, page, steps, polite in turns:
            if count:
                store.append(*flights(count, written))
            written += count
            sink.trouble = list(trouble)
            means = WorkerContext(
                store.projections.log, target, time.perf_counter, is_dead_holder, lease=0.0, page=page
            )
            worker = PartitionWorker(
                plan, means, PartitionKey(plan.name, 1, partition if several else 0), f"w{written}"
            )
            try:
                for _ in range(steps):
                    run(worker.step())
                if polite:
                    worker.release()
            except (TargetUnavailable, KeyboardInterrupt):
                continue  # the worker vanished
        sink.trouble = []
        store.append(*flights(20, written))  # a sink that cannot be asked refuses the next batch if rows are missing
        store.project(kept)
        assert rows(store, kept) == folded(flights(written + 20))
        if askable or not several:
            assert sink.readers() == folded(flights(written + 20))
        assert all(proof.proved for proof in store.projections.verify(kept))


def test_a_late_batch_of_a_stalled_worker_changes_nothing(store: ef.Store) -> None:
    """Another worker has claimed the partition and sent more batches; the number of the late one is too small."""
    sink = MemorySink()
    kept = elsewhere(sink)
    store.append(*flights(30))
    store.project(kept)
    late = sink.batches[0]
    store.append(*flights(30, 30))
    store.project(kept)
    assert sink.write(late)
    assert sink.readers() == folded(flights(60))


def test_a_failing_sink_is_reported_and_waited_for(store: ef.Store) -> None:
    """`project` raises, the status has the reason, `wait` does not return; once the sink answers, no row is missing."""
    sink = MemorySink()
    kept = elsewhere(sink)
    store.project(kept)
    store.append(*flights(30))
    sink.trouble = ["before"] * 3
    with pytest.raises(TargetUnavailable, match="memory sink failed: OSError: no answer"):
        store.project(kept)
    (status,) = store.projections.status(kept)
    assert status.state == "behind" and "wait to be sent to memory sink: memory sink failed: OSError" in status.sentence
    with pytest.raises(ProjectionBehind, match="no answer"):
        store.wait(kept, timeout=0.1)
    sink.trouble = []
    store.project(kept)
    assert store.wait(kept) >= 30
    assert store.projections.status(kept)[0].sentence == "Current; no runner is working on it."
    assert sink.readers() == folded(flights(30))


def test_a_runner_retries_until_the_sink_accepts(store: ef.Store) -> None:
    """With back-off; the runner's trouble has the reason meanwhile."""
    sink = MemorySink()
    kept = elsewhere(sink)
    sink.trouble = ["before"] * 3
    with store.run(kept) as runner:
        store.append(*flights(30))
        store.wait(kept)
        assert not runner.failed
    assert not sink.trouble and sink.readers() == folded(flights(30))


def test_existing_rows_are_sent_when_a_sink_is_added(store: ef.Store) -> None:
    """The class gets a target, and no event is folded again; removing the target is refused with a remedy."""
    store.append(*flights(50))
    store.project(CarrierMonth)
    sink = MemorySink()

    class WithSink(CarrierMonth, name="carrier_month", indexes=["month"], target=sink):
        pass

    WithSink.__qualname__ = "CarrierMonth"
    WithSink.__module__ = CarrierMonth.__module__
    with pytest.raises(ef.EventfoldError, match="projections accept"):  # another class, by its code
        store.project(WithSink)
    store.projections.accept(WithSink)
    store.project(WithSink)
    assert sink.readers() == folded(flights(50))
    assert {batch.chunk for batch in sink.batches} == {1}
    with pytest.raises(InvalidProjection, match="sends to a sink"):
        store.project(CarrierMonth)


def test_projections_without_keyed_rows_cannot_have_a_sink(store: ef.Store) -> None:
    """Handlers with SQL and effects are refused."""
    sink = MemorySink()

    class SentSql(ef.SqlProjection, target=sink):
        tables = {"sent": "carrier TEXT"}

        def take(self, event: Departed, tx: ef.Transaction) -> None: ...

    class SentMail(ef.Subscription, start="now", target=sink):
        def take(self, event: Departed) -> None: ...

    for each in (SentSql, SentMail):
        with pytest.raises(InvalidProjection, match="has no rows by key"):
            store.project(each)


def test_a_sink_follows_generations(store: ef.Store, tmp_path: Path) -> None:
    """Rebuild, switch, rollback, discard, remove, by class and by name: readers of the sink see the same."""
    sink = MemorySink()
    kept = elsewhere(sink)
    store.append(*flights(50))
    store.project(kept)
    store.projections.rebuild(kept)
    assert sink.live == {"carrier_month": 1} and len(sink.rows) == 2
    assert store.projections.compare(kept).equal
    store.projections.switch(kept)
    assert sink.live == {"carrier_month": 2}
    store.projections.rollback("carrier_month")
    assert sink.live == {"carrier_month": 1}
    store.append(*flights(50, 50))
    store.project(kept)
    assert sink.readers() == folded(flights(100))
    store.projections.rebuild(kept)
    store.projections.discard("carrier_month")
    assert {generation for _, generation in sink.rows} == {1, 2}
    assert proved(store)
    store.projections.remove("carrier_month")
    assert not sink.rows and not sink.live
    assert store.projections.list() == []
    store.project(kept)  # from the beginning
    assert sink.readers() == folded(flights(100))


@pytest.mark.parametrize("askable", [True, False])
def test_rows_of_a_restored_store_are_sent_again(askable: bool, tmp_path: Path) -> None:
    """After a power failure or a restore the store has fewer events than it sent: the sink gets its rows only."""
    sink, path = MemorySink(askable), tmp_path / "store.db"
    kept = elsewhere(sink)
    with ef.Store(str(path)) as store:
        store.append(*flights(20))
        store.project(kept)
    before = path.read_bytes()
    with ef.Store(str(path)) as store:
        for number in range(5):
            store.append(*flights(10, 20 + number * 10))
            store.project(kept)
    for file in tmp_path.glob("store.db*"):
        file.unlink()
    path.write_bytes(before)
    with ef.Store(str(path)) as store:
        store.append(*flights(3, 500))
        store.project(kept)
        assert sink.readers() == rows(store, kept) == folded([*flights(20), *flights(3, 500)])


def test_rows_of_another_store_are_refused_by_a_sink(tmp_path: Path) -> None:
    """One sink, two stores, one name: the second store is refused, and the rows of the first stay."""
    sink = MemorySink()
    for number in (1, 2):
        with ef.Store(str(tmp_path / f"{number}.db")) as store:
            store.append(*flights(10 * number))
            if number == 1:
                store.project(elsewhere(sink))
            else:
                with pytest.raises(TargetUnavailable, match="has rows of another store"):
                    store.project(elsewhere(sink))
    assert sink.readers() == folded(flights(10))


def test_the_store_may_be_in_postgresql(tmp_path: Path) -> None:
    """Rows, checkpoint and outbox are written in one transaction there, too."""
    sink = MemorySink()
    kept = split(sink)
    with ef.Store(shared().url(schema=f"s{uuid4().hex[:12]}")) as store:
        store.append(*flights(60))
        store.project(kept)
        sink.trouble = ["after", "before"]
        store.append(*flights(60, 60))
        for _ in range(2):
            with pytest.raises(TargetUnavailable):
                store.project(kept)
        assert "wait to be sent" in store.projections.status(kept)[0].sentence
        store.project(kept)
        assert sink.readers() == folded(flights(120)) == rows(store, kept)
        store.projections.rebuild(kept)
        store.projections.switch(kept)
        assert sink.readers() == folded(flights(120))
        assert all(proof.proved for proof in store.projections.verify(kept))
        store.projections.remove(kept)
        assert not sink.rows


APP = """
import eventfold as ef
from tests.projections.flights import *

class Kept(CarrierMonth, name="carrier_month", target={address!r}):
    def evolve(self, event: Departed | Cancelled) -> None:
        super().evolve(event)
"""


@pytest.mark.parametrize("kind", ["duckdb", "parquet", pytest.param("redis", marks=redis_server.needed)])
def test_commands_work_by_the_projections_name(kind: str, tmp_path: Path) -> None:
    """Run, status, rebuild, compare, switch, rollback, verify and remove, each by name."""
    place = {"duckdb": f"duckdb:{tmp_path}/rows.duckdb", "parquet": f"parquet:{tmp_path}/rows"}
    module, url = f"m{uuid4().hex[:8]}", str(tmp_path / "store.db")
    address = place.get(kind) or redis_server.shared().database()
    (tmp_path / f"{module}.py").write_text(APP.format(address=address))
    path = ("--import-path", str(tmp_path))
    with ef.Store(url) as store:
        store.extend(flights(50))
    assert do("run", url, module, "--once", *path).code == 0
    for words, says in (
        (("projections", "status"), "Current"),
        (("projections", "rebuild"), "2"),
        (("projections", "compare"), ""),
        (("projections", "switch"), "2"),
        (("projections", "rollback"), "1"),
        (("projections", "parked"), ""),
        (("projections", "show"), "carrier_month"),
        (("verify",), "exactly once"),
        (("projections", "remove"), "removed"),
    ):
        ran = do(*words, url, "carrier_month", *(path if words[0] == "projections" else ()))
        assert ran.code == 0 and says in ran.out, (words, ran)
        if words[-1] == "rebuild" and kind == "redis":
            assert in_redis(address) == folded(flights(50))
    with ef.Store(url) as store:
        assert store.projections.list() == []


# Redis


@pytest.fixture
def address() -> str:
    """An unused database of Redis."""
    return redis_server.shared().database()


def client(address: str) -> Any:
    """A client of Redis."""
    return redis.Redis.from_url(address, decode_responses=True)


def in_redis(address: str, key: str = "carrier_month") -> list[tuple[Any, ...]]:
    """The rows that readers see."""
    return sorted(map(shown, client(address).hvals(key)))


@redis_server.needed
def test_redis_has_a_hash_of_rows_by_key(store: ef.Store, address: str) -> None:
    """The hash has the projection's name; the field of a key of one text is that text, else a JSON array."""
    kept = elsewhere(f"{address}?prefix=air:")
    store.append(*flights(40))
    store.project(kept)
    (row,) = store.rows(kept, carrier="c0", month=1)
    found = client(address).hget("air:carrier_month", '["c0",1]')
    assert shown(found) == ("c0", 1, row.flights, row.delay, row.cancelled)
    assert in_redis(address, "air:carrier_month") == folded(flights(40))

    class SentCarrier(ef.Projection, target=address):
        carrier: str
        flights: int = 0

        def evolve(self, event: Departed) -> None:
            self.flights += 1

    store.project(SentCarrier)
    assert shown(client(address).hget("sent_carrier", "c0"))[0] == "c0"


@redis_server.needed
@pytest.mark.parametrize("loss", ["everything", "some rows", "older rows"])
def test_a_redis_that_lost_rows_is_filled_again(loss: str, store: ef.Store, address: str) -> None:
    """Flushed, one row deleted, or restored from an older backup: noticed without events, and at the next event."""
    kept = elsewhere(address)
    store.append(*flights(20))
    store.project(kept)
    raw = redis.Redis.from_url(address)
    older = {key: raw.dump(key) for key in ("carrier_month", "carrier_month:eventfold")}

    def lose() -> None:
        match loss:
            case "everything":
                raw.flushdb()
            case "some rows":
                raw.hdel("carrier_month", '["c0",1]')
            case _:
                for key, value in older.items():
                    raw.restore(key, 0, value, replace=True)

    store.append(*flights(80, 20))
    store.project(kept)
    lose()
    store.project(kept)  # without new events
    assert in_redis(address) == folded(flights(100))
    with store.run(kept):
        store.wait(kept)
        lose()
        ends = time.monotonic() + 60
        while in_redis(address) != folded(flights(100)) and time.monotonic() < ends:
            time.sleep(0.05)
        assert in_redis(address) == folded(flights(100))
        lose()
        store.append(*flights(10, 100))
        store.wait(kept)
    assert in_redis(address) == folded(flights(110))
    assert proved(store)


@redis_server.needed
def test_every_partition_fills_a_redis_that_lost_rows(store: ef.Store, address: str) -> None:
    """Each partition sends its own rows again, and removes none of another."""
    kept = split(address)
    store.append(*flights(200))
    store.project(kept)
    client(address).flushdb()
    store.append(*flights(50, 200))
    store.project(kept)
    assert in_redis(address) == folded(flights(250))
    client(address).hset("carrier_month:eventfold", "number:1:1", "7")  # as if one partition were older
    store.project(kept)
    assert in_redis(address) == folded(flights(250))


@redis_server.needed
def test_many_rows_are_sent_again_in_chunks(store: ef.Store, address: str) -> None:
    """The rows do not fit one message."""

    class SentDelay(ef.Projection, target=address, partitions=2):
        delay: int
        flights: int = 0

        @staticmethod
        def key(event: Departed) -> int:
            return event.delay

        def evolve(self, event: Departed) -> None:
            self.flights += 1

    store.extend((Departed("a", 1, n) for n in range(5_000)), batch=500)
    store.project(SentDelay)
    client(address).flushdb()
    store.project(SentDelay)
    assert in_redis(address, "sent_delay") == [(n, 1) for n in range(5_000)]


@redis_server.needed
def test_redis_follows_switches(store: ef.Store, address: str) -> None:
    """Readers see the generation with the plain name; other generations exist beside it until they are dropped."""
    kept, reader = elsewhere(address), client(address)
    store.append(*flights(50))
    store.project(kept)
    store.projections.rebuild(kept)
    store.append(*flights(50, 50))
    store.projections.switch(kept)
    assert in_redis(address) == folded(flights(100))
    store.projections.rollback(kept)
    store.project(kept)
    assert in_redis(address) == folded(flights(100))
    assert sorted(reader.keys()) == ["carrier_month", "carrier_month:2", "carrier_month:eventfold"]
    store.projections.remove(kept)
    assert reader.keys() == []


@redis_server.needed
def test_redis_keys_of_others_are_refused(store: ef.Store, address: str, tmp_path: Path) -> None:
    """A key of the application, or rows of another store: refused by name, and left unchanged."""
    client(address).set("carrier_month", "mine")
    store.append(*flights(10))
    with pytest.raises(TargetUnavailable, match=r"has a key of that name, 'carrier_month'.*another place \(\?prefix="):
        store.project(elsewhere(address))
    assert client(address).get("carrier_month") == "mine"
    client(address).delete("carrier_month")
    store.project(elsewhere(address))
    with ef.Store(str(tmp_path / "other.db")) as other:
        other.append(*flights(20))
        with pytest.raises(TargetUnavailable, match="has rows of another store"):
            other.project(elsewhere(address))
    assert in_redis(address) == folded(flights(10))


@redis_server.needed
def test_a_redis_that_is_unreachable_or_read_only(store: ef.Store) -> None:
    """Unreachable, a replica, or with a password: reported; once it is back, it gets the missing rows."""
    server = redis_server.RedisServer().start()
    try:
        kept = elsewhere(server.database())
        store.append(*flights(10))
        store.project(kept)
        port = server.port
        admin = client(f"redis://127.0.0.1:{port}")
        admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        store.append(*flights(10, 10))
        with pytest.raises(TargetUnavailable, match="it is a replica"):
            store.project(kept)
        admin.execute_command("REPLICAOF", "NO", "ONE")
        server.stop()
        with pytest.raises(TargetUnavailable, match="does not answer"):
            store.project(kept)
        assert "does not answer" in store.projections.status(kept)[0].sentence
        server.start()  # empty
        store.project(kept)
        assert in_redis(f"redis://127.0.0.1:{port}/0") == folded(flights(20))
        client(f"redis://127.0.0.1:{port}").execute_command("CONFIG", "SET", "requirepass", "not-a-secret")
        with pytest.raises(TargetUnavailable, match="Check the user and the password"):
            store.project(elsewhere(f"redis://127.0.0.1:{port}/0?prefix="))
    finally:
        server.remove()


def test_unusable_sink_addresses_are_refused(store: ef.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are refused before anything is sent; the error for a missing package names the extra."""
    store.append(*flights(5))
    monkeypatch.delenv("EVENTFOLD_SINK_SECRET", raising=False)
    for wrong, words in {
        "https://127.0.0.1/hook": "EVENTFOLD_SINK_SECRET=whsec_",
        "https:///hook": "no address to post rows to",
        "redis://127.0.0.1/none?socket_timeout=soon": "Redis address is invalid",
        "carrier-pigeon://loft": "redis://…, https://…",
    }.items():
        with pytest.raises(InvalidUrl, match=words):
            store.project(elsewhere(wrong))
    monkeypatch.setenv("EVENTFOLD_SINK_SECRET", "whsec_short")
    with pytest.raises(InvalidUrl, match="not valid base64"):
        store.project(elsewhere("https://127.0.0.1/hook"))
    monkeypatch.delitem(sys.modules, "eventfold.targets.sinks.redis", raising=False)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingExtra, match=r'pip install "eventfold\[redis\]"'):
        store.project(elsewhere("redis://127.0.0.1:1/0"))


# HTTP


def test_batches_are_posted_signed_under_an_idempotency_key(store: ef.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """By address, with the secret from the environment; a receiver that lost all rows answers 409 and gets them."""
    monkeypatch.setenv("EVENTFOLD_SINK_SECRET", SECRET)
    with receiving() as receiver:
        kept = elsewhere(receiver.url)
        store.append(*flights(40))
        store.project(kept)
        assert receiver.sink.readers() == folded(flights(40))
        receiver.answers = [503, 302, 0]
        store.append(*flights(40, 40))
        store.project(kept)
        assert receiver.sink.readers() == folded(flights(80))
        receiver.answers = [503] * 3
        store.append(*flights(40, 80))
        with pytest.raises(TargetUnavailable, match=r"127\.0\.0\.1 answered 503"):
            store.project(kept)
        store.project(kept)
        assert receiver.sink.readers() == folded(flights(120))
        receiver.sink.lose()
        store.append(*flights(40, 120))
        store.project(kept)
        assert receiver.sink.readers() == folded(flights(160))
        store.projections.rebuild(kept)
        store.projections.switch(kept)
        assert receiver.sink.live == {"carrier_month": 2}
        assert receiver.sink.readers() == folded(flights(160))
        store.projections.remove(kept)
        assert not receiver.sink.rows
        assert not receiver.refused and len(receiver.keys) == len(set(receiver.keys))


def test_the_receiver_of_the_documentation_works(store: ef.Store) -> None:
    """It applies each batch once, follows a switch, and gets all rows again after a loss."""
    (page,) = [p for p in pages() if p.name == "read-models-elsewhere.md"]
    (code,) = ["\n".join(b.lines) for b in blocks(page) if any("def receive(" in line for line in b.lines)]
    names: dict[str, Any] = {"secret": SECRET}
    exec(code, names)  # the code of the page
    with receiving() as receiver:
        statuses: list[int] = []

        def take(headers: dict[str, str], body: bytes) -> int:
            status = names["receive"](headers, body)
            assert status == 409 or names["receive"](headers, body) == status  # sent twice
            statuses.append(status)
            return 503 if len(statuses) == 3 and status == 204 else status  # a lost reply

        receiver.take = take  # type: ignore[method-assign]
        kept = elsewhere(HttpSink(receiver.url, secret=SECRET))

        def seen() -> list[tuple[Any, ...]]:
            found = names["rows"]["carrier_month", names["live"]["carrier_month"]]
            return sorted(tuple(row.values()) for row in found.values())

        for number in range(4):
            store.append(*flights(50, 50 * number))
            store.project(kept)
            assert seen() == folded(flights(50 * number + 50))
            if number == 2:
                for lost in ("rows", "last", "live"):
                    names[lost].clear()
        assert 409 in statuses
        store.projections.rebuild(kept)
        store.projections.switch(kept)
        assert names["live"] == {"carrier_month": 2} and seen() == folded(flights(200))
        store.projections.remove(kept)
        assert not names["rows"]


# Killed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("kind", [pytest.param("redis", marks=redis_server.needed), "http"])
def test_killed_runners_skip_and_repeat_nothing(kind: str, store: ef.Store, tmp_path: Path) -> None:
    """Killed before a batch is sent, or between its arrival and the removal of its body: readers see the plain fold."""
    with receiving() as receiver:
        address = receiver.url if kind == "http" else redis_server.shared().database()
        parent = forking_process(str(tmp_path / "store.db"), address)
        assert parent.stdin is not None and parent.stdout is not None
        kept, chance, written, caught = elsewhere(address), random.Random(4), 0, 0
        if kind == "http":
            kept = elsewhere(HttpSink(address, secret=SECRET))
        store.project(kept)
        target = store.projections.target(kept)
        positions: set[int] = set()
        try:
            ends = time.monotonic() + 120
            for number in range(60):
                store.extend(flights(60, written), batch=8)
                written += 60
                parent.stdin.write("\n")
                parent.stdin.flush()
                child = int(parent.stdout.readline())
                if number % 2:  # once a batch is being sent, however long that takes
                    before, at = max(positions, default=0), 0
                    while at < written and time.monotonic() < ends:
                        at = max(held.position for held in store.projections.checkpoints(kept))
                        if at > before and target.delivery_lag("carrier_month", 1):
                            break
                        time.sleep(0.001)
                time.sleep(chance.random() * (0.005 if number % 2 else 0.05))
                os.kill(child, signal.SIGKILL)
                positions.update(held.position for held in store.projections.checkpoints(kept))
                caught += bool(target.delivery_lag("carrier_month", 1))
        finally:
            parent.stdin.close()
            parent.wait(60)
            parent.stdout.close()
        assert len(positions) > 10  # they were killed while working, not before
        assert caught > 10  # and while a batch was being sent
        store.project(kept)
        assert rows(store, kept) == folded(flights(written))
        assert (receiver.sink.readers() if kind == "http" else in_redis(address)) == folded(flights(written))
        assert not receiver.refused
        assert proved(store)
