"""Saved segments: a process that opens the store reads them instead of the events; damaged ones are ignored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

import eventfold as ef
from eventfold.concurrency.run import run
from eventfold.core.query import Query
from eventfold.engines.sqlite import SqliteEngine, saved_segments
from eventfold.engines.sqlite.read import RowDecoder
from eventfold.engines.sqlite.tail import Labels, Segment
from tests.cli.commands import run as eventfold
from tests.engines.sqlite.noted import engine_of, foreign, noted
from tests.engines.sqlite.test_flips import unguarded

WHO = [ef.Query.of(tags=f"who:w-{n}") for n in range(7)]
EVENTS = 50


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """A store with a tail of 50 events, of which segments of ten are saved and none is merged; it stays open."""
    name = str(tmp_path / "log.db")
    with ef.Store(name, merge_events=60) as store:
        for n in range(EVENTS):
            store.append(noted(n))
        assert store.stats()["indexed_through"] == 0
        yield name


def rows_read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The ranges of events that are read from their rows, from now on."""
    ranges: list[tuple[int, int]] = []
    whole = RowDecoder.between

    def noting(self: RowDecoder, connection: apsw.Connection, after: int, until: int) -> Any:
        ranges.append((after, until))
        return whole(self, connection, after, until)

    monkeypatch.setattr(RowDecoder, "between", noting)
    return ranges


def assert_complete(path: str) -> None:
    """A new process finds every event by its tag, and by its type."""
    with ef.Store(path, merge_events=60) as other:
        assert sum(other.count(query) for query in WHO) == EVENTS
        assert [each.position for each in other.read(WHO[3])] == [n + 1 for n in range(EVENTS) if n % 7 == 3]
        assert [(each.type, each.count) for each in other.types()] == [("Noted", EVENTS)]


def test_a_process_reads_saved_segments_instead_of_events(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the events after the last saved segment are read from their rows."""
    assert foreign(path, 'SELECT start, "end" FROM segment') == [(0, 10), (10, 20), (20, 30), (30, 40)]
    monkeypatch.setattr("eventfold.engines.sqlite.tail.CATCH_UP_ROWS", 5)
    ranges = rows_read(monkeypatch)
    with ef.Store(path, merge_events=60) as other:
        assert sum(other.count(query) for query in WHO) == EVENTS
    assert min(after for after, _ in ranges) == 40


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE segment SET crc = crc + 1 WHERE start = 20",
        "UPDATE segment SET labels = zeroblob(length(labels)) WHERE start = 0",
        "UPDATE segment SET labels = substr(labels, 2) WHERE start = 10",
        'UPDATE segment SET "end" = "end" + 1 WHERE start = 30',
    ],
)
def test_a_damaged_segment_is_read_from_its_events(path: str, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    """Every answer is the same; a check names the segment, and a rebuild of the index repairs it."""
    monkeypatch.setattr("eventfold.engines.sqlite.tail.CATCH_UP_ROWS", 5)
    unguarded(path, damage)
    assert_complete(path)
    with ef.Store(path) as other:
        found = [problem.what for problem in engine_of(other).check()]
    assert any("saved segment of the index" in what for what in found)
    assert any("eventfold reindex" in what for what in found)


def test_a_segment_that_is_missing_is_read_from_its_events(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The segments after it are not used: each begins where the one before ends."""
    monkeypatch.setattr("eventfold.engines.sqlite.tail.CATCH_UP_ROWS", 5)
    unguarded(path, "DELETE FROM segment WHERE start = 10")
    assert_complete(path)


def test_a_segment_with_other_labels_than_its_events_is_found_by_a_check(path: str) -> None:
    """Its checksum is right, as if a program had written it."""
    connection = apsw.Connection(path)
    (segment,) = [each for start, _, each in saved_segments.decode_all(connection) if start == 20]
    assert segment is not None
    segment.by_tag["who:w-9"] = segment.by_tag.pop("who:w-3")
    connection.execute("DELETE FROM segment WHERE start = 20")
    saved_segments.save(connection, [segment])
    connection.close()
    with ef.Store(path) as other:
        found = list(engine_of(other).check())
    assert [each.position for each in found if each.position] == [n + 1 for n in range(20, 30) if n % 7 == 3]


def test_a_segment_that_is_saved_during_a_check_is_no_damage(path: str) -> None:
    """It has events after those that the check compares: they are appended between its steps."""
    with ef.Store(path, merge_events=60) as other:

        def append(_done: int, _all: int) -> None:
            for n in range(25):
                other.append(noted(n))

        before = foreign(path, "SELECT count(*) FROM segment")
        assert list(engine_of(other).check(append)) == []
        assert foreign(path, 'SELECT max("end") FROM segment')[0][0] > EVENTS
        assert foreign(path, "SELECT count(*) FROM segment") != before


def test_a_rebuild_of_the_index_drops_them(tmp_path: Path) -> None:
    """So does a merge."""
    name = str(tmp_path / "log.db")
    engine = SqliteEngine(name, merge_events=60)
    run(engine.open())
    with ef.Store(name, merge_events=60) as store:
        for n in range(EVENTS):
            store.append(noted(n))
        assert foreign(name, "SELECT count(*) FROM segment") == [(4,)]
    run(engine.close())
    assert foreign(name, "SELECT count(*) FROM segment") == [(0,)]
    unguarded(name, "INSERT INTO segment VALUES (50, 60, x'00', 0)")
    assert eventfold("reindex", name).code == 0
    assert foreign(name, "SELECT count(*) FROM segment") == [(0,)]


def test_another_process_merges_what_is_saved(path: str) -> None:
    """Its own segments begin where the saved ones end."""
    with ef.Store(path, merge_events=60) as other:
        for n in range(200):
            other.append(noted(EVENTS + n))
        assert other.stats()["indexed_through"] >= 180
        assert sum(other.count(query) for query in WHO) == EVENTS + 200
        assert list(engine_of(other).check()) == []


def test_a_segment_is_the_same_after_it_was_saved() -> None:
    """Types, tags, spellings of moments and sizes."""
    segment = Segment(7, 100)
    tags = [("a:1", "b:2"), (), ("a:1", "at:2026-01-02T03:04:05+01:00"), ("c:ä 🂡",)]
    segment.add(Labels(["T0", "T1", "T0", "T2"], tags, [10, 20, 30, 40]))
    connection = apsw.Connection(":memory:")
    connection.execute('CREATE TABLE segment (start INTEGER PRIMARY KEY, "end", labels, crc)')
    saved_segments.save(connection, [segment])
    (read,) = saved_segments.read_from(connection, 7, 100)
    for name in ("start", "end", "size", "carried", "types", "by_tag", "by_type", "moments"):
        assert getattr(read, name) == getattr(segment, name), name
    assert [set(each) for each in read.tag_sets] == [set(each) for each in tags]
    assert Query.of(tags="a:1").items[0].tags and read.is_closed and read.is_saved
