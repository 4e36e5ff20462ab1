"""Files with flipped bits or cut ends: reads return exactly what was written, or raise; a check finds hidden damage.

Reads do not notice an index entry that changed so that it no longer leads to its event. Queries by tag or type, counts,
listings of tags and conditions then miss that event, until a check finds the damage.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from eventfold.concurrency.run import run
from eventfold.core.envelope import NewEvent, new_id
from eventfold.core.query import Query
from eventfold.engines.sqlite import SqliteEngine, integrity
from eventfold.errors import EventfoldError, NotAStore, StoreDamaged
from eventfold.ports.messages import Span
from tests.engines.sqlite.noted import merge, request

EVENTS = 120
ENDS = ("", "-wal", ".lock")
# What is answered from an index alone, or found through one: only these answers may miss something.
BY_INDEX = {"by type", "by tag", "by both", "count", "types", "tags", "receipt"}

Content = dict[str, bytes]


def fill(engine: SqliteEngine) -> None:
    """Write events with every field an event can have, in appends of one and more, some with keys."""
    dice, n = random.Random(3), 0
    while n < EVENTS:
        events = tuple(
            NewEvent(
                new_id(),
                f"T{dice.randint(0, 3)}",
                dice.randint(1, 3),
                b'{"n":%d,"x":"%s"}' % (n + more, b"y" * dice.randint(0, 200)),
                tuple(sorted({f"a:{dice.randint(0, 8)}", f"b:{dice.randint(0, 30)}"})),
                dice.choice([None, 123_456 + n]),
                dice.choice([None, b'{"actor":"me"}']),
                dice.choice(["json", "cbor"]),
                dice.choice([None, "key-1"]),
            )
            for more in range(dice.choice([1, 1, 2, 3]))
        )
        run(engine.append_many([request(*events, key=dice.choice([None, f"k{n}"]))]))
        n += len(events)


def questions(engine: SqliteEngine) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield every kind of read, with its name."""
    everything = Query()
    yield "all", lambda: run(engine.read(everything, Span(limit=10_000)))
    yield "backwards", lambda: run(engine.read(everything, Span(limit=7, backwards=True)))
    yield "page", lambda: run(engine.read(everything, Span(after=EVENTS // 2, limit=5)))
    for n in range(4):
        yield "by type", lambda n=n: run(engine.read(Query.of(types=f"T{n}"), Span(limit=10_000)))
    for tag in [f"a:{n}" for n in range(9)] + [f"b:{n}" for n in range(0, 31, 2)]:
        yield "by tag", lambda tag=tag: run(engine.read(Query.of(tags=tag), Span(limit=10_000)))
    both = Query.of(types=["T0", "T1"], tags="a:1") | Query.of(tags=["a:2", "b:3"]) | Query.of(types="T3")
    yield "by both", lambda: run(engine.read(both, Span(limit=30)))
    yield "by both", lambda: run(engine.read(Query.of(tags="a:1"), Span(occurred_since=123_460)))
    yield "count", lambda: run(engine.count(both))
    yield "types", lambda: run(engine.types())
    yield "tags", lambda: run(engine.tags())
    yield "head", lambda: run(engine.head())
    yield "place", lambda: [run(engine.boundary(n)) for n in (1, 5, EVENTS // 2)]
    yield "ids", lambda: [run(engine.event_id(n)) for n in range(1, EVENTS, 9)]
    for key, _first in KEYS:
        yield "receipt", lambda key=key: run(engine.receipt_of(key))
    for moment in MOMENTS:
        yield "moment", lambda moment=moment: run(engine.position_at(moment))


KEYS: list[tuple[str, int]] = []
MOMENTS: list[int] = []


def answers(path: str) -> list[tuple[str, Any]]:
    """Return a store's answers. An EventfoldError counts as an answer; any other error fails the test."""
    engine = SqliteEngine(path, create=False, timeout=0.5)
    try:
        run(engine.open())
    except EventfoldError as error:
        return [("open", error)]
    found: list[tuple[str, Any]] = []
    for kind, ask in questions(engine):
        try:
            found.append((kind, ask()))
        except EventfoldError as error:
            found.append((kind, error))
    run(engine.close())
    return found


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> tuple[Content, Content, list[tuple[str, Any]]]:
    """The files of a store while it is open, its files after closing, and its answers."""
    path = str(tmp_path_factory.mktemp("damage") / "log.db")
    engine = SqliteEngine(path)
    run(engine.open())
    fill(engine)
    KEYS[:] = run(engine.services.replication.keys(limit=5))
    stored = run(engine.read(Query(), Span(limit=10_000))).events
    MOMENTS[:] = [stored[len(stored) // 3].time, stored[-1].time]
    opened = {end: Path(path + end).read_bytes() for end in ENDS}
    run(engine.close())
    closed = {end: Path(path + end).read_bytes() for end in ENDS}
    truth = answers(path)
    assert not any(isinstance(answer, Exception) for _, answer in truth)
    return opened, closed, truth


def lay_down(folder: Path, content: Content) -> str:
    """Write the files of a store, damaged as given, into a folder. Returns the path of the store."""
    path = folder / "log.db"
    for end in (*ENDS, "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    for end, data in content.items():
        Path(f"{path}{end}").write_bytes(data)
    return str(path)


def wrong(path: str, truth: list[tuple[str, Any]]) -> set[str]:
    """Return the kinds of reads that are answered neither correctly nor by an error with a remedy."""
    found = answers(path)
    for _, answer in found:
        if isinstance(answer, EventfoldError):
            assert answer.what.endswith(".") and answer.remedy.endswith("."), answer
    if found[0][0] == "open":
        return set()
    pairs = zip(truth, found, strict=True)
    return {kind for (kind, true), (_, answer) in pairs if answer != true and not isinstance(answer, EventfoldError)}


def flipped(data: bytes, offset: int, bit: int) -> bytes:
    """Return the data with one bit changed."""
    return data[:offset] + bytes([data[offset] ^ 1 << bit]) + data[offset + 1 :]


@pytest.mark.parametrize("part", range(4))
def test_a_flipped_bit_in_the_file_is_noticed_by_reads_or_by_a_check(
    memory_folder: Path, contents: tuple[Content, Content, list[tuple[str, Any]]], part: int
) -> None:
    """The bits are in every page: header, events, indexes, dictionaries. Only events found by an index may be missing,
    and a check reports that.
    """
    _, closed, truth = contents
    dice = random.Random(part)
    hidden = 0
    for offset in range(part * 127, len(closed[""]), 4 * 127):
        place = (offset, dice.randint(0, 7))
        path = lay_down(memory_folder, {**closed, "": flipped(closed[""], *place)})
        kinds = wrong(path, truth)
        assert kinds <= BY_INDEX, place
        if kinds:
            hidden += 1
            assert checked(path), place
    assert hidden < 12


def checked(path: str) -> list[Any]:
    """Return what a check finds."""
    engine = SqliteEngine(path, create=False)
    try:
        run(engine.open())
        return list(engine.check())
    except StoreDamaged as error:
        return [error]
    finally:
        run(engine.close())


def test_a_flipped_bit_in_the_header_is_noticed(
    memory_folder: Path, contents: tuple[Content, Content, list[tuple[str, Any]]]
) -> None:
    """Each of the first hundred bytes is tried, where SQLite keeps the file's format."""
    _, closed, truth = contents
    for offset in range(100):
        path = lay_down(memory_folder, {**closed, "": flipped(closed[""], offset, offset % 8)})
        assert not wrong(path, truth), offset


def test_a_flipped_bit_in_the_write_ahead_log_is_noticed(
    memory_folder: Path, contents: tuple[Content, Content, list[tuple[str, Any]]]
) -> None:
    """SQLite drops the frames after the flipped bit in recovery; the note beside the file says how far the log went."""
    opened, _, truth = contents
    log = opened["-wal"]
    for offset in [*range(32), *range(32, len(log), len(log) // 60)]:
        path = lay_down(memory_folder, {**opened, "-wal": flipped(log, offset, offset % 8)})
        assert not wrong(path, truth), offset


@pytest.mark.parametrize("end", ["", "-wal"])
def test_a_truncated_file_is_noticed(
    memory_folder: Path, contents: tuple[Content, Content, list[tuple[str, Any]]], end: str
) -> None:
    """It is cut at pages and between them, with and without the files beside it."""
    opened, closed, truth = contents
    content = opened if end else closed
    data = content[end]
    for cut in [*range(0, len(data), 4096 if not end else 4120 * 5), *range(1, len(data), len(data) // 30)]:
        path = lay_down(memory_folder, {**content, end: data[:cut]})
        assert not wrong(path, truth), cut
        if not end:
            path = lay_down(memory_folder, {end: data[:cut]})
            assert not wrong(path, truth), cut


def test_an_emptied_store_is_not_created_again(
    memory_folder: Path, contents: tuple[Content, Content, list[tuple[str, Any]]]
) -> None:
    """An empty file where a store was is not turned into a new store, unless the note beside it is removed."""
    _, closed, _ = contents
    path = lay_down(memory_folder, {**closed, "": b""})
    engine = SqliteEngine(path)
    with pytest.raises(StoreDamaged, match="empty"):
        run(engine.open())
    with pytest.raises(NotAStore, match="empty"):
        run(SqliteEngine(path, create=False).open())
    Path(path + ".lock").unlink()
    engine = SqliteEngine(path)
    run(engine.open())
    run(engine.close())


def test_the_checksum_of_a_row_never_changes() -> None:
    """A library or version that packed rows differently would make every stored event look corrupt."""
    from eventfold.engines.sqlite.schema import with_checksum

    row = (7, b"\0" * 16, 3, 1, b'{"n":1}', "a:1\nb:2", 1_795_000_000_000_000, None, b"{}", 0, 2, "cbor", "k", None)
    assert with_checksum(row[:-1])[-1] == CHECKSUM
    assert with_checksum((-1, 2**63 - 1, -(2**63), 128, 65_536, "ä" * 40, b"x" * 70_000))[-1] == CHECKSUM_OF_EXTREMES


CHECKSUM, CHECKSUM_OF_EXTREMES = 3_237_965_134, 463_263_380


def test_a_check_reports_its_progress_and_does_not_block_appends(path: str) -> None:
    """Appends go on between the steps of the check, and inside its progress callback."""
    engine = SqliteEngine(path)
    run(engine.open())
    run(engine.append_many([request(*[NewEvent(new_id(), "T", 1, b"{}", ("a:1",))] * 1) for _ in range(2_300)]))
    reported: list[tuple[int, int]] = []

    def progress(done: int, of: int) -> None:
        reported.append((done, of))
        run(engine.append_many([request(NewEvent(new_id(), "T", 1, b"{}", ("a:2",)))]))

    assert list(engine.check(progress)) == []
    assert reported == [(1_000, 2_300), (2_000, 2_300), (2_300, 2_300)]
    assert run(engine.head()).position == 2_303
    run(engine.close())


def test_a_check_names_what_is_wrong_and_where(path: str) -> None:
    """Each kind of damage, planted by SQL after dropping the triggers, is reported in one sentence with its place."""
    import sqlite3

    plants = {
        "DELETE FROM event WHERE position = 3": "no event",
        "UPDATE event SET data = x'7b7d' WHERE position = 3": "checksum",
        "UPDATE event SET time = 5 WHERE position = 3": "checksum",
        "DELETE FROM posting WHERE tag = 1": "lead to it",
        "DELETE FROM posting WHERE tag = -1": "index of types does not lead to it",
        "UPDATE posting SET positions = x'' WHERE tag = 1": "checksum",
        "INSERT INTO posting SELECT run, 77, last, type, positions, crc FROM posting WHERE tag = 1": "checksum",
        "UPDATE run SET state = 2": "row of run 1",
        "UPDATE tag SET name = 'other' WHERE id = 1": "dictionary",
        "UPDATE request SET first = 4": "checksum",
    }
    for plant, words in plants.items():
        for end in (*ENDS, "-shm"):
            Path(path + end).unlink(missing_ok=True)
        engine = SqliteEngine(path)
        run(engine.open())
        for n in range(6):
            run(engine.append_many([request(NewEvent(new_id(), "T", 1, b'{"n":1}', (f"a:{n % 2}",)), key=f"k{n}")]))
        merge(engine)
        connection = sqlite3.connect(path, isolation_level=None)
        triggers = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for (trigger,) in triggers:
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute(plant)
        connection.close()
        problems = list(engine.check())
        assert any(words in problem.what for problem in problems), (plant, problems)
        assert all(problem.what.endswith(".") for problem in problems)
        run(engine.close())


def test_a_check_whose_steps_are_repeated_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read is repeated when a checkpoint may have disturbed it; what the first attempt compared counts once."""
    monkeypatch.setattr(integrity, "EVENTS_PER_STEP", 50)
    engine = SqliteEngine(str(tmp_path / "log.db"))
    run(engine.open())
    fill(engine)
    whole = engine._run_read

    def twice(work: Callable[[apsw.Connection], Any]) -> Any:
        whole(work)
        return whole(work)

    monkeypatch.setattr(engine, "_run_read", twice)
    assert list(engine.check()) == []
    run(engine.close())
