"""The runs of the index: the bytes of postings, which runs are joined, and compactions that several processes do."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventfold as ef
from eventfold.engines.sqlite import compaction, index_merging, merge, merge_schedule, postings, runs, schema, tail
from eventfold.engines.sqlite.compaction import FANOUT, SMALL_EVENTS, compact, runs_to_join
from eventfold.engines.sqlite.dictionary import NameDictionary
from eventfold.engines.sqlite.runs import COMPLETE, Occurrences, Run
from eventfold.errors import StoreDamaged
from tests.engines.sqlite.noted import assert_whole, engine_of, foreign, noted

UPPER = 1 << 32
Entries = list[tuple[int, int, int]]  # tag, position, type


@pytest.fixture
def connection() -> apsw.Connection:
    """A database in memory with the tables of a store."""
    made = apsw.Connection(":memory:")
    made.execute(schema.CREATE)
    return made


def asked(found: Sequence[Occurrences]) -> list[tuple[int, int]]:
    """Position and type of each occurrence."""
    pairs: list[tuple[int, int]] = []
    for positions, types in found:
        kinds = [types] * len(positions) if isinstance(types, int) else types
        pairs += zip(positions, kinds, strict=True)
    return pairs


# ------------------------------------------------------------------------------------------ postings

positions_and_types = st.lists(
    st.tuples(
        st.one_of(st.integers(1, 400), st.integers(UPPER - 5, UPPER + 5), st.integers(5 * UPPER, 5 * UPPER + 300)),
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=400,
    unique_by=lambda each: each[0],
).map(sorted)


@given(positions_and_types, st.integers(-3, 3), st.lists(st.integers(1, 399)))
def test_postings_keep_positions_and_types_however_they_are_joined(
    events: list[tuple[int, int]], tag: int, cuts: list[int]
) -> None:
    """Of any positions below 2⁶³, with one type or several: packed in parts and joined, they are as they were."""
    bounds = sorted({0, len(events), *[cut for cut in cuts if cut < len(events)]})
    rows: list[postings.Columns] = []
    for low, high in pairwise(bounds):
        part = events[low:high]
        rows += postings.pack(tag, [position for position, _ in part], [type for _, type in part])
    joined = postings.join(rows)
    for stored in (rows, joined):
        found: list[tuple[int, int]] = []
        for row in stored:
            postings.verify(row)
            positions, types = postings.unpack(*row[1:4])
            assert postings.count(row[2], row[3]) == len(positions) <= postings.MAX_EVENTS
            assert positions[-1] == row[1]
            found += asked([Occurrences(positions, types)])
        assert found == events
    assert len(joined) <= len(rows)


def test_a_posting_that_was_changed_is_refused_by_reads_and_compactions(connection: apsw.Connection) -> None:
    """Before it could hide an event."""
    runs.write_run(connection, 0, 3, [(1, 1, 1), (1, 3, 1)])
    runs.write_run(connection, 3, 5, [(1, 4, 1), (1, 5, 1)])
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    connection.execute("UPDATE posting SET positions = x'0200000003000000' WHERE last = 3")
    with pytest.raises(StoreDamaged, match="posting of the index"):
        list(runs.occurrences(connection, 1, 0, 5))
    with pytest.raises(StoreDamaged, match="posting of the index"):
        compact(connection, 100)


# ------------------------------------------------------------------------------------------ reads


@given(st.integers(0, 2**31), st.integers(0, 60), st.integers(0, 60))
def test_runs_are_asked_as_one_index(seed: int, after: int, until: int) -> None:
    """In both directions, for one tag, for many, and for one position, while compactions are half done."""
    dice = random.Random(seed)
    connection = apsw.Connection(":memory:")
    connection.execute(schema.CREATE)
    everything: Entries = []
    end = 0
    while end < 60:
        start, end = end, min(60, end + dice.randrange(1, 20))
        own = [
            (tag, p, dice.randrange(1, 3)) for p in range(start + 1, end + 1) for tag in (1, 2) if dice.random() < 0.6
        ]
        runs.write_run(connection, start, end, sorted(own))
        everything += own
    for _ in range(6):
        for tag in (1, 2, 3):
            right = sorted((p, type) for each, p, type in everything if each == tag and after < p <= until)
            assert asked(list(runs.occurrences(connection, tag, after, until))) == right
            backwards = list(runs.occurrences(connection, tag, after, until, backwards=True))
            assert asked(backwards[::-1]) == right
            stretch = runs.stretch(connection, tag, after, until)
            assert (stretch and (stretch.events, stretch.first, stretch.last)) == (
                (len(right), right[0][0], right[-1][0]) if right else None
            )
            member = runs.Membership(connection, tag, 60)
            looked = [dice.randrange(1, 61) for _ in range(30)]
            inside = {p for each, p, _ in everything if each == tag}
            assert [p in member for p in looked] == [p in inside for p in looked]
        each = list(runs.occurrences_of_each(connection, "[2,3,1]", after, until))
        for tag in (1, 2):
            mine = [found for number, found in each if number == tag]
            assert asked(mine) == sorted((p, type) for t, p, type in everything if t == tag and after < p <= until)
        compact(connection, dice.randrange(1, 30))


def test_the_mark_and_the_runs_are_read_in_one_state(path: str) -> None:
    """Merges of other processes end before each statement of the read: the runs seemed not to end at the mark."""
    ef.Store(path).close()
    connection, other = apsw.Connection(path), apsw.Connection(path)

    def end_a_merge(_cursor: apsw.Cursor, _sql: str, _bindings: object) -> bool:
        through = schema.read_through(other)
        with other:
            runs.write_run(other, through, through + 5, [])
            schema.write_through(other, through + 5)
        return True

    connection.exec_trace = end_a_merge
    for times in range(1, 4):
        assert runs.indexed_through(connection) == 5 * times
    connection.close()
    other.close()


# ------------------------------------------------------------------------------------------ compaction


def complete(*sizes: int) -> list[Run]:
    """Complete runs of so many events each."""
    found, end = list[Run](), 0
    for number, size in enumerate(sizes):
        found.append(Run(number, end, end + size, COMPLETE))
        end += size
    return found


def test_small_runs_are_joined_in_pairs_and_larger_ones_eight_at_a_time() -> None:
    """Each with the smaller ones that are newer."""
    large = 4 * SMALL_EVENTS
    for sizes, joined in (
        ((), 0),
        ((1,), 0),
        ((1, 1), 2),
        ((2, 1), 0),
        ((2, 1, 1), 2),
        ((large, 3, 2), 2),
        ((large, large, 5), 0),
        ([large] * 7, 0),
        ([large] * 8, 8),
        ([8 * large, *[large] * 8], 8),
        ([8 * large] * 8, 8),
        ([large, 5, large], 2),
        ([large, 5, 300, 2, 20], 2),
        ([large, 5, 300, 2, large], 4),
    ):
        assert len(runs_to_join(complete(*sizes))) == joined, sizes


def test_the_number_of_runs_grows_with_the_logarithm_of_the_log() -> None:
    """And each event is copied a few times: whatever the sizes of the runs that are added."""
    for dice, size in ((random.Random(1), 18_432), (random.Random(2), 300), (random.Random(3), 1)):
        sizes, copied, added = list[int](), 0, 0
        for _ in range(3_000):
            sizes.append(dice.randrange(1, 2 * size + 1))
            added += sizes[-1]
            while joined := runs_to_join(complete(*sizes)):
                total = sum(run.events for run in joined)
                sizes[-len(joined) :] = [total]
                copied += total
            assert len(sizes) <= 12 + 3 * FANOUT
        assert copied < 14 * added


def test_compactions_by_processes_in_turns_end_as_one(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each goes on where the other ended, a posting at a time, and both read on."""
    monkeypatch.setattr(merge_schedule, "SLICE_POSTINGS", 3)
    monkeypatch.setattr(merge_schedule, "COMPACTS", 0.1)
    with ef.Store(path, merge_events=3) as one, ef.Store(path, merge_events=4) as other:
        for n in range(150):
            (one if n % 3 else other).append(noted(n))
            if n % 10 == 0:
                assert assert_whole(path) == n + 1
        assert sum(one.count(ef.Query.of(tags=f"who:w-{n}")) for n in range(7)) == 150
    assert assert_whole(path) == 150
    assert foreign(path, "SELECT count(*) FROM run WHERE state <> 1") == [(0,)]
    assert foreign(path, "SELECT count(*) FROM posting WHERE run NOT IN (SELECT id FROM run)") == [(0,)]
    assert list(engine_of(ef.Store(path)).check()) == []


def test_many_short_lived_processes_leave_few_runs(path: str) -> None:
    """Each closes the store with a run of its own event, which is joined with those before it."""
    for n in range(70):
        with ef.Store(path) as store:
            store.append(noted(n))
            assert store.stats()["index_runs"] <= 8
    assert assert_whole(path) == 70


def test_a_large_compaction_is_left_to_processes_that_go_on(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing a store takes a bounded time; the thread of an idle process ends what is left."""
    monkeypatch.setattr(index_merging, "COMPACTED_AT_CLOSE", 100)
    monkeypatch.setattr(compaction, "SMALL_EVENTS", 8)
    monkeypatch.setattr(compaction, "_SMALL", 3)
    for _ in range(2 * FANOUT):
        with ef.Store(path) as store:
            store.extend(noted(n) for n in range(20))
    assert len(foreign(path, "SELECT id FROM run WHERE state = 1")) >= FANOUT
    with ef.Store(path) as store:
        store.extend(noted(n) for n in range(2_000))
        merged = threading.Event()
        for _ in range(400):
            if store.stats()["tail_events"] == 0 and not foreign(path, "SELECT 1 FROM run WHERE state <> 1"):
                break
            merged.wait(0.05)
        assert store.stats()["index_runs"] < FANOUT
    assert assert_whole(path) == 40 * FANOUT + 2_000


def test_positions_beyond_32_bits_are_found(path: str) -> None:
    """The index of a log of more than four thousand million events: the file is made to begin there."""
    start = UPPER - 3
    with ef.Store(path) as store:
        store.append(noted(1))
    connection = apsw.Connection(path)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    connection.execute("DELETE FROM posting; DELETE FROM run")
    (tag,) = connection.execute("SELECT id FROM tag WHERE name = 'who:w-1'").fetchone()
    runs.write_run(connection, 0, start + 8, [(tag, start + n, 1) for n in range(1, 9)])
    for after in range(start - 1, start + 9):
        right = [start + n for n in range(1, 9) if start + n > after]
        assert [p for p, _ in asked(list(runs.occurrences(connection, tag, after, 1 << 62)))] == right
    connection.close()


# ------------------------------------------------------------------------------------------ unfinished runs


def segment_of(*types: str) -> tail.Segment:
    """A segment of one event of each type, with a tag of its own."""
    made = tail.Segment(0, 100)
    made.add(tail.Labels(list(types), [(f"who:{n}",) for n in range(len(types))], [2] * len(types)))
    return made


def indexed(connection: apsw.Connection) -> list[tuple[int, int, int]]:
    """Tag, last position and type of the postings of complete runs, each of one event."""
    rows: list[tuple[int, int, int]] = connection.execute(  # pyright: ignore
        "SELECT tag, last, type FROM posting WHERE run IN (SELECT id FROM run WHERE state = 1) ORDER BY tag, last"
    ).fetchall()
    return rows


@pytest.fixture
def names(connection: apsw.Connection) -> tuple[NameDictionary, NameDictionary]:
    """The dictionaries of types and of tags of a new store."""
    schema.create_identity(connection)
    return NameDictionary("type"), NameDictionary("tag")


def test_a_merge_goes_on_after_a_new_type_is_appended(
    connection: apsw.Connection, names: tuple[NameDictionary, NameDictionary]
) -> None:
    """It ends within the segment to which the event of the new type is added, as one that another process began may."""
    segment = segment_of("A", "B", "A", "B")
    begun = merge.Merge((segment,), 0, 4)
    begun.step(connection, *names, 10)
    segment.add(tail.Labels(["C"], [("who:c",)], [2]))
    while not begun.is_done:
        begun.step(connection, *names, 1)
    a, b = (names[0].ensure(connection, name) for name in "AB")
    assert indexed(connection) == [*sorted([(-a, 3, a), (-b, 4, b)]), (1, 1, a), (2, 2, b), (3, 3, a), (4, 4, b)]


def test_a_merge_that_was_changed_on_disk_is_begun_again(
    connection: apsw.Connection, names: tuple[NameDictionary, NameDictionary]
) -> None:
    """Behind a last posting with another tag, those between would be missing: so they are written again."""
    segment = segment_of("A", "A", "A", "A")
    begun = merge.Merge((segment,), 0, 4)
    begun.step(connection, *names, 10)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    connection.execute("UPDATE posting SET tag = 3 WHERE tag = (SELECT max(tag) FROM posting)")
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 1)
    while not begun.is_done:
        begun.step(connection, *names, 1)
    assert [row[0] for row in indexed(connection)] == [-1, 1, 2, 3, 4]
    while compact(connection, 1):
        pass
    assert [run.state for run in runs.read_runs(connection)] == [COMPLETE]


def test_a_compaction_that_was_changed_on_disk_is_begun_again(connection: apsw.Connection) -> None:
    """It would pass over the postings between the last one and the one that it seems to be: two events were lost."""
    for start in (0, 5):
        runs.write_run(connection, start, start + 5, [(tag, start + tag, 1) for tag in range(1, 6)])
    compact(connection, 2)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    connection.execute("UPDATE posting SET tag = 3 WHERE run = 3")
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 1)
    while compact(connection, 2):
        pass
    for tag in range(1, 6):
        assert [p for p, _ in asked(list(runs.occurrences(connection, tag, 0, 10)))] == [tag, 5 + tag]
    assert [run.state for run in runs.read_runs(connection)] == [COMPLETE]


def test_closing_deletes_a_bounded_part_of_the_runs_that_were_replaced(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are: the next processes go on."""
    monkeypatch.setattr(compaction, "POSTINGS_IN_MEMORY", 2)
    monkeypatch.setattr(compaction, "SLICES_TOGETHER", 3)
    with ef.Store(path) as store:
        store.append(noted(0))
    connection = apsw.Connection(path)
    replaced = runs.add_run(connection, 1, 1_001)
    runs.insert_postings(connection, replaced, postings.pack(1_000, range(1, 120 * 100 + 1), 1))
    runs.set_state(connection, replaced, runs.REPLACED)
    connection.close()
    count = "SELECT count(*) FROM posting WHERE run = 2"
    for expected in (100 - 3 * 8, 100 - 6 * 8):
        with ef.Store(path) as store:
            store.append(noted(1))
        assert foreign(path, count) == [(expected,)]
    assert assert_whole(path) == 3


def test_an_import_compacts_in_bounded_parts(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large compaction would otherwise have all postings in memory, and in one transaction."""
    most = list[int]()
    join = compaction.join

    def counted(rows: Sequence[postings.Columns]) -> list[postings.Columns]:
        most.append(len(rows))
        return join(rows)

    monkeypatch.setattr(compaction, "join", counted)
    monkeypatch.setattr(compaction, "POSTINGS_IN_MEMORY", 16)
    monkeypatch.setattr(compaction, "FANOUT", 2)
    with ef.Store(path) as source, ef.Store(str(tmp_path / "copy.db")) as target:
        source.extend(noted(n, f"w-{n}") for n in range(3_000))
        source.copy_to(target)
        assert [each.position for each in target.read(ef.Query.of(tags="who:w-2999"))] == [3_000]
    assert 0 < max(most) <= 16
    assert assert_whole(str(tmp_path / "copy.db")) == 3_000


def test_a_segment_ends_with_a_number_of_tags() -> None:
    """Events with 64 tags each make smaller merges: what is sorted at once is bounded."""
    segment = tail.Segment(0, 3_072)
    labels = tail.Labels(["A"] * 1_000, [tuple(f"{k}:{n}" for k in range(64)) for n in range(1_000)], [2] * 1_000)
    assert segment.add(labels) == segment.end == tail.SEGMENT_TAGS // 64
    assert segment.is_full
