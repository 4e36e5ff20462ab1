"""Merges of the tail into the index tables: killed, on a full disk, unconfirmed, damaged; and the rebuilt index."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import apsw
import pytest

import eventfold as ef
from eventfold.concurrency.run import run
from eventfold.core.query import ConditionClause, Query
from eventfold.engines.sqlite import SqliteEngine, checkpoint, index_merging, merge, merge_schedule, tail
from eventfold.errors import AppendConflict, AppendUnconfirmed, CorruptEvent, StoreBusy, StoreDamaged, StoreFull
from eventfold.ports.messages import Span
from tests.cli.commands import run as eventfold
from tests.engines.sqlite.faulty import Disk, Fault, broken, faulty_disk, full
from tests.engines.sqlite.noted import assert_whole, engine_of, entries_of_index, foreign, noted, raw, request, written
from tests.engines.sqlite.other import ROOT
from tests.engines.sqlite.test_flips import unguarded

WHO = [ef.Query.of(tags=f"who:w-{n}") for n in range(7)]


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge takes several commits."""
    monkeypatch.setattr(merge_schedule, "SLICE_POSTINGS", 4)
    monkeypatch.setattr(merge_schedule, "RETRY_S", 0.0)


@pytest.fixture
def disk() -> Iterator[Disk]:
    """A disk that fails on request. Stores opened in the test work on it."""
    with faulty_disk() as made:
        yield made


def assert_right(store: ef.Store) -> None:
    """Every answer by tag is what the rows say, and a check finds nothing."""
    every = [(each.position, each.tags) for each in store.read()]
    for query, n in zip(WHO, range(7), strict=True):
        expected = [position for position, tags in every if f"who:w-{n}" in tags]
        assert [each.position for each in store.read(query)] == expected
        assert store.count(query) == len(expected)
    assert list(engine_of(store).check()) == []


def draft(n: int) -> ef.Draft:
    """An event with an id, so that the append can be repeated."""
    return ef.Draft(noted(n), id=uuid4())


# ------------------------------------------------------------------------------------------ killed


@pytest.mark.parametrize(
    ("what", "stride"), [("merge", 23), ("idle", 41), ("reindex", 9), ("rescue", 13), ("upgrade", 13)]
)
def test_a_process_killed_in_a_merge_leaves_a_whole_log(memory_folder: Path, what: str, stride: int) -> None:
    """At about twenty of its steps; all of them in `make soak`."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.engines.sqlite.dying", what, str(memory_folder), str(stride)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stderr
    seen = json.loads(ran.stdout)
    assert seen["wrong"] == []
    assert seen["kills"] > 5


# ------------------------------------------------------------------------------------------ disks


@pytest.mark.parametrize("after", range(0, 24, 3))
def test_merges_and_appends_on_a_full_disk_go_on_later(path: str, disk: Disk, after: int) -> None:
    """Appends are refused while it is full; slices before and after it are merged."""
    with ef.Store(path, merge_events=3) as store:
        for n in range(5):
            store.append(noted(n))
        disk.refuse("write wal", full, after)
        refused = 0
        for n in range(8):
            try:
                store.append(noted(n))
            except StoreFull:
                refused += 1
        assert refused
        assert_right(store)
        disk.repair()
        for n in range(12):
            store.append(noted(n))
        assert_right(store)
        assert store.stats()["indexed_through"] > 0
    assert assert_whole(path) == 25 - refused


@pytest.mark.parametrize("fault", [full, broken])
def test_a_slice_that_fails_refuses_no_append(
    path: str, disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Fault
) -> None:
    """The append is acknowledged, the failure is logged and in the statistics, and a later append merges."""
    whole = merge.Merge.step

    def on_a_failing_disk(*args: Any) -> bool:
        disk.refuse("write wal", fault)
        return whole(*args)

    with ef.Store(path, merge_events=3) as store:
        monkeypatch.setattr(merge.Merge, "step", on_a_failing_disk)
        for n in range(9):
            assert store.append(noted(n)).last == n + 1
            assert_right(store)
            disk.repair()
        assert store.stats()["indexed_through"] == 0
        assert "merge_error" in store.stats()
        assert "could not be merged into the index" in caplog.text
        monkeypatch.setattr(merge.Merge, "step", whole)
        for n in range(9):
            store.append(noted(n))
        assert "merge_error" not in store.stats()
        assert store.stats()["indexed_through"] > 0
        assert_right(store)
    assert assert_whole(path) == 18


def test_every_append_is_synced_and_a_slice_is_not(path: str, disk: Disk) -> None:
    """A slice need not survive a power failure: the next sync of an append comes after it."""
    with ef.Store(path, merge_events=3) as store:
        store.append(noted(0))
        for n in range(30):
            disk.done.clear()
            store.append(noted(n))
            assert disk.done.count("sync wal") == 1
        assert store.stats()["indexed_through"] > 15


@pytest.mark.parametrize("damage", ["DELETE FROM indexed", "UPDATE indexed SET crc = crc + 1"])
def test_an_index_that_cannot_be_written_refuses_no_append(path: str, damage: str) -> None:
    """The process that appends has its tail in memory and asks the tables no more."""
    with ef.Store(path, merge_events=3) as store:
        for n in range(3):
            store.append(noted(n))
        unguarded(path, damage)
        for n in range(9):
            assert store.append(noted(n)).last == n + 4
        assert len(list(store.read())) == 12
    assert eventfold("reindex", path).code == 0
    assert assert_whole(path) == 12


def test_after_a_failed_slice_none_is_tried_for_longer_and_longer(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second, two, four, up to about a minute."""
    monkeypatch.setattr(merge_schedule, "RETRY_S", 1.0)
    assert [merge_schedule.retry_after(n) for n in (1, 2, 3, 7, 20)] == [1, 2, 4, 64, 64]
    tries = 0

    def fail(*_: Any) -> bool:
        nonlocal tries
        tries += 1
        raise apsw.IOError("planted")

    monkeypatch.setattr(merge.Merge, "step", fail)
    with ef.Store(path, merge_events=3) as store:
        for n in range(12):
            store.append(noted(n))
        assert tries == 1
        assert "planted" in store.stats()["merge_error"]


def test_saving_segments_does_not_end_the_pause_after_failed_merges(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each append closes a segment and saves it, while every merge fails: the failures in a row are counted on."""

    def fail(*_: Any) -> bool:
        raise apsw.IOError("planted")

    monkeypatch.setattr(merge.Merge, "step", fail)
    with ef.Store(path, merge_events=3) as store:
        for n in range(20):
            store.append(noted(n))
        engine = engine_of(store)
        assert engine._writer is not None
        assert engine._writer.merging._failures > 10
        assert "planted" in store.stats()["merge_error"]


def test_a_segment_that_others_have_merged_is_passed_over(path: str) -> None:
    """Two processes merge in turns, each what the other has begun."""
    with ef.Store(path, merge_events=3) as store, ef.Store(path, merge_events=5) as other:
        engine, reported = engine_of(store), list[int]()
        for n in range(120):
            (other if n % 13 < 6 else store).append(noted(n))
            reported.append(store.stats()["indexed_through"])
        assert reported == sorted(reported)
        assert reported[-1] > 100
        assert engine._writer is not None
        assert engine._writer.merging.error is None
        assert_right(store)
        assert_right(other)


def test_no_append_carries_a_slice_and_a_checkpoint(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either follows a commit; so the longest append is as long as the longer of them."""
    monkeypatch.setattr(checkpoint, "CHECKPOINT_PAGES", 20)
    done: list[str] = []
    with ef.Store(path, merge_events=5) as store:
        for holder, name in ((merge.Merge, "step"), (checkpoint.Checkpoint, "run")):
            whole = getattr(holder, name)

            def noting(*args: Any, whole: Any = whole, name: str = name) -> Any:
                done.append(name)
                return whole(*args)

            monkeypatch.setattr(holder, name, noting)
        carried = set[tuple[str, ...]]()
        for n in range(60):
            store.append(noted(n))
            carried.add(tuple(done))
            done.clear()
        assert {name for each in carried for name in each} == {"step", "run"}
        assert not any(len(set(each)) > 1 for each in carried)


def test_a_slice_is_bounded_by_its_append_however_long_the_tail_is() -> None:
    """A longer tail takes more appends, not longer ones."""
    assert merge_schedule.slice_postings(1, 1.0, 1) == merge_schedule.slice_postings(1, 1.0, 1_000) == 4
    assert merge_schedule.slice_postings(1_000, 5.0, 1) == 6_500
    assert merge_schedule.slice_postings(1_000, 5.0, 10) == merge_schedule.slice_postings(1_000, 5.0, 1_000) == 8_000
    assert merge_schedule.compaction_postings(1, 1.0) == 4
    assert merge_schedule.compaction_postings(1_000, 1.5) == 6_000


@pytest.mark.parametrize("operation", ["write wal", "sync wal"])
def test_an_unconfirmed_commit_with_a_slice_in_it_is_repeated(path: str, disk: Disk, operation: str) -> None:
    """Whether it was written or not: the slice is merged again, and nothing is there twice."""
    with ef.Store(path, merge_events=3) as store:
        for n in range(20):
            again = draft(n)
            if n > 4 and n % 3 == 0:
                disk.refuse(operation, broken)
                with pytest.raises((AppendUnconfirmed, ef.EventfoldError)):
                    store.using(attempts=1).append(again)
                disk.repair()
            store.append(again)
        assert store.head() == 20
        assert_right(store)
    assert assert_whole(path) == 20


def test_an_exception_at_any_point_of_a_merge_is_no_damage(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a slice, between the commit and what follows, and while the tail is extended."""
    places = [
        (merge.Merge, "step"),
        (tail.Tail, "drop_through"),
        (merge.Merge, "_columns"),
        (index_merging.IndexMerging, "extend"),
        (merge, "write_through"),
    ]
    count = 0
    with ef.Store(path, merge_events=3) as store:
        for n in range(40):
            holder, name = places[n % len(places)]
            whole = getattr(holder, name)

            def interrupted(*args: object, whole: object = whole) -> object:
                nonlocal count
                count += 1
                if count % 2:
                    whole(*args)  # type: ignore[operator]
                raise KeyboardInterrupt

            with monkeypatch.context() as patch:
                patch.setattr(holder, name, interrupted)
                try:
                    store.append(noted(n))
                except KeyboardInterrupt:
                    pass
            store.append(noted(n))
        assert count > 8
        assert_right(store)
    assert_whole(path)


# ------------------------------------------------------------------------------------------ processes


def test_a_reader_beside_merges_sees_every_event_once(path: str) -> None:
    """Its tail is one of its own, and begins where the tables end for it."""
    with ef.Store(path, merge_events=4) as store, ef.Store(path, merge_events=7) as other:
        for n in range(80):
            (store if n % 3 else other).append(noted(n))
            for each in (store, other):
                assert sum(each.count(query) for query in WHO) == n + 1
                assert len(list(each.read(WHO[n % 7]))) == n // 7 + 1
        assert_right(store)
        assert_right(other)


def test_a_short_lived_process_leaves_a_long_tail_to_others(path: str) -> None:
    """It neither reads it at its append nor merges it at its close; the last to close, who wrote it, merges all."""
    with ef.Store(path) as store:
        store.extend(noted(n) for n in range(3_000))
        with ef.Store(path) as other:
            other.append(noted(0))
            assert engine_of(other)._names.tail.segments == ()
        assert store.stats()["indexed_through"] == 0
        assert store.stats()["tail_events"] == 3_001
        assert 100_000 < store.stats()["tail_bytes"] < 5_000_000 or store.count(WHO[0])
    assert foreign(path, "SELECT through FROM indexed") == [(3_001,)]


def test_an_index_rebuilt_while_a_process_has_the_file_closed_is_read_again(path: str) -> None:
    """Its names have other ids then, and its tail may begin too late."""
    engine = SqliteEngine(path, max_idle=1.0)
    run(engine.open())
    for n in range(9):
        run(engine.append_many([request(raw(n, f"z:{9 - n}", "a:1"))]))
    assert run(engine.count(Query.of(tags="z:3"))) == 1
    assert engine._file.close_while_idle()
    run(SqliteEngine(path).reindex())
    for n in range(9):
        assert [e.position for e in run(engine.read(Query.of(tags=f"z:{9 - n}"), Span())).events] == [n + 1]
    run(engine.append_many([request(raw(0, "z:1"))]))
    assert list(engine.check()) == []
    run(engine.close())
    assert assert_whole(path) == 10


def test_an_older_copy_whose_mark_is_earlier_is_not_trusted_with_a_later_tail(path: str, tmp_path: Path) -> None:
    """The same events, copied before they were merged, and restored while the file was closed for idleness."""
    first = SqliteEngine(path)
    run(first.open())
    for n in range(6):
        run(first.append_many([request(raw(n, f"z:{n}"))]))
    copy = Path(path).read_bytes(), Path(f"{path}-wal").read_bytes()
    run(first.close())
    engine = SqliteEngine(path, max_idle=1.0)
    run(engine.open())
    assert run(engine.count(Query.of(tags="z:1"))) == 1
    assert engine._file.close_while_idle()
    Path(path).write_bytes(copy[0])
    Path(f"{path}-wal").write_bytes(copy[1])
    Path(f"{path}-shm").unlink(missing_ok=True)
    try:
        found = [run(engine.count(Query.of(tags=f"z:{n}"))) for n in range(6)]
    except ef.EventfoldError:
        return  # refused: as good
    assert found == [1] * 6
    run(engine.close())


# ------------------------------------------------------------------------------------------ damage


def filled(path: str, events: int = 12) -> None:
    """A store whose tail was merged."""
    with ef.Store(path) as store:
        for n in range(events):
            store.append(noted(n))


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM posting WHERE tag = 3",
        "UPDATE posting SET last = last + 100 WHERE tag = 3",
        "UPDATE posting SET type = 77 WHERE tag = 3",
        "UPDATE posting SET tag = 77 WHERE tag = 3",
        "UPDATE posting SET positions = x'01000000' WHERE tag = -1",
        "DELETE FROM posting",
        "UPDATE run SET crc = crc + 1",
        'UPDATE run SET "end" = "end" - 1',
        "UPDATE run SET state = 2",
        "DELETE FROM run",
        "UPDATE tag SET name = 'other' WHERE id = 2",
        "DELETE FROM tag WHERE id = 2",
        "UPDATE indexed SET crc = crc + 1",
        "UPDATE indexed SET through = through + 1",
        "DELETE FROM indexed",
    ],
)
def test_a_damaged_index_is_found_and_rebuilt(path: str, damage: str) -> None:
    """Verify names the command; afterwards everything is there."""
    filled(path)
    unguarded(path, damage)
    shown = eventfold("verify", path)
    assert shown.code == 1
    assert f"eventfold reindex {path}" in "".join(shown.out.split("\n")).replace("  ", " "), shown.out
    (line,) = eventfold("reindex", path, "--json").lines
    assert line == {"events": 12, "tags": 10, "entries": 36}
    assert eventfold("verify", path).code == 0
    with ef.Store(path) as store:
        assert_right(store)
        store.append(noted(1))
        assert_right(store)
    assert assert_whole(path) == 13


def test_a_damaged_mark_is_an_error_that_acts(path: str) -> None:
    """Reads by tag and conditions are refused; the log itself reads on."""
    filled(path)
    unguarded(path, "UPDATE indexed SET through = through - 3")
    engine = SqliteEngine(path)
    run(engine.open())
    with pytest.raises(StoreDamaged, match="mark of the index"):
        run(engine.read(Query.of(tags="who:w-1"), Span()))
    assert len(run(engine.read(Query(), Span())).events) == 12
    assert written(run(engine.append_many([request(raw(1, "a:1"))]))[0]).first == 13
    run(engine.close())


def test_a_damaged_event_of_the_tail_is_an_error_and_is_not_skipped(path: str) -> None:
    """Whatever is asked by tag: it may be among the answers. A reindex refuses as well, and changes nothing."""
    with ef.Store(path) as store:
        for n in range(5):
            store.append(noted(n))
        unguarded(path, "UPDATE event SET tags = 'who:w-9' WHERE position = 2")
        with ef.Store(path) as other:
            with pytest.raises(CorruptEvent) as caught:
                other.count(WHO[0])
            assert caught.value.fields["position"] == 2
            assert other.append(noted(1)).first == 6  # without a condition
            outcome = run(
                engine_of(other).append_many([request(raw(0), unless=[ConditionClause(Query.of(tags="who:w-1"), 0)])])
            )
            assert isinstance(outcome[0], (CorruptEvent, AppendConflict))
            assert other.stats()["events"] == 6
    with pytest.raises(CorruptEvent):
        run(SqliteEngine(path).reindex())
    assert len(foreign(path, "SELECT * FROM event")) == 6


def test_a_rebuild_is_refused_while_the_store_is_open(path: str) -> None:
    """Its names would change under the other process."""
    filled(path)
    before = foreign(path, "SELECT * FROM posting")
    with ef.Store(path) as store:
        store.head()
        with pytest.raises(StoreBusy, match="open in another process") as refused:
            run(SqliteEngine(path, timeout=0.1).reindex())
        assert "eventfold reindex" in refused.value.remedy
    assert foreign(path, "SELECT * FROM posting") == before
    shown = eventfold("reindex", path, "--table")
    assert shown.code == 0 and "12 events" in shown.out
    assert eventfold("reindex", f"{path}.none").code == 4
    assert eventfold("reindex", "memory:").code == 1


def test_an_empty_store_has_an_empty_index(path: str) -> None:
    """And takes events afterwards."""
    ef.Store(path).close()
    assert run(SqliteEngine(path).reindex()).events == 0
    filled(path, 3)
    assert assert_whole(path) == 3


@pytest.mark.parametrize("name", ["posting", "run", "tag", "sqlite_autoindex_tag_1", "indexed"])
def test_flipped_bits_of_the_index_are_an_error_or_repaired(path: str, name: str) -> None:
    """Wherever they are in its page: no event is lost, and a rebuild either works or changes nothing."""
    filled(path)
    ((page,),) = foreign(path, "SELECT rootpage FROM sqlite_schema WHERE name = ?", name)
    content = Path(path).read_bytes()
    repaired = 0
    for offset in (0, 4, 6, 9, 4_000, 4_040, 4_070, 4_085, 4_092):
        changed = bytearray(content)
        changed[(page - 1) * 4_096 + offset] ^= 1 << (offset % 7)
        for end in ("-wal", "-shm"):
            Path(path + end).unlink(missing_ok=True)
        Path(path).write_bytes(changed)
        try:
            done = run(SqliteEngine(path).reindex())
        except ef.EventfoldError as error:
            assert isinstance(error, ef.EventfoldError)
        else:
            repaired += 1
            assert (done.events, done.entries) == (12, 36)
            with ef.Store(path) as store:
                assert_right(store)
        with ef.Store(path) as store:
            assert len(list(store.read())) == 12
    assert repaired


# ------------------------------------------------------------------------------------------ several writers


@pytest.mark.parametrize("unless", [(), (Query.of(tags="who:none"),)])
def test_a_writer_reads_the_events_of_others_before_it_takes_the_lock(path: str, unless: tuple[Query, ...]) -> None:
    """Under the lock it reads only the events that were committed while it waited: none here."""
    with ef.Store(path) as one, ef.Store(path) as other:
        engine = engine_of(one)
        assert engine._writer is not None
        read, was_held = engine._names.tail._read, list[bool]()

        def observed(connection: Any, after: int, until: int) -> Any:
            was_held.append(engine._file.lock.is_held())
            return read(connection, after, until)

        engine._names.tail._read = observed
        for n in range(4):
            other.append(noted(n))
            mine = request(raw(n, "who:me"), unless=[ConditionClause(query, 0) for query in unless])
            written(run(engine.append_many([mine]))[0])
        assert was_held[-2:] == [False, False]
        assert one.count(Query.of(tags="who:me")) == 4


def test_events_added_while_the_last_segment_is_merged_are_not_merged_with_it(path: str) -> None:
    """A reader's thread may read more into the last segment: the merge ends where the segment ended at its start."""
    segment = tail.Segment(0, 10)
    for n in range(1, 4):
        segment.add(tail.Labels([f"T{n % 2}"], [("a", f"b:{n}")], [2]))
    started = merge.Merge((segment,), 0, 3)
    segment.add(tail.Labels(["T0"], [("a", "b:1")], [2]))
    with ef.Store(path) as store:
        store.append(noted(1), noted(2), noted(3), noted(4))
        engine = engine_of(store)
        assert engine._writer is not None

        def work(connection: apsw.Connection) -> None:
            while not started.is_done:
                started.step(connection, engine._names.types, engine._names.tags, 5)

        engine._writer.transact(work)
        tags, types = engine._names.tags._ids_by_name, engine._names.types._ids_by_name
    connection = sqlite3.connect(path)
    found = set(entries_of_index(connection))
    connection.close()
    entries = [(n, f"T{n % 2}", tag) for n in range(1, 4) for tag in ("a", f"b:{n}")]
    assert {(tags[tag], n, types[type]) for n, type, tag in entries} <= found
    assert {(-types[f"T{n % 2}"], n, types[f"T{n % 2}"]) for n in range(1, 4)} <= found
    assert not {each for each in found if each[1] == 4 and each[0] in {tags["a"], tags["b:1"], -types["T0"]}}
