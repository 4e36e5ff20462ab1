"""The index rebuilt from the events: also when pages of it are damaged, and without space."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.concurrency.run import run
from eventfold.engines.sqlite import SqliteEngine
from eventfold.errors import StoreDamaged, StoreFull, StoreUnavailable
from tests.cli.commands import run as eventfold
from tests.engines.sqlite.faulty import Disk, broken, faulty_disk, full
from tests.engines.sqlite.noted import assert_whole, engine_of, foreign, noted

PAGE = 4_096
TREES = ["posting", "run", "tag", "sqlite_autoindex_tag_1", "indexed"]


def pages_of(path: str, tree: str) -> list[int]:
    """The pages of a table or index, the first of which is its root."""
    connection = sqlite3.connect(path)
    found = [page for (page,) in connection.execute("SELECT pageno FROM dbstat WHERE name = ? ORDER BY path", (tree,))]
    connection.close()
    return found


def overwrite(path: str, page: int, content: bytes) -> None:
    """Overwrite a page of a file that no process has open."""
    with Path(path).open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(content)


@pytest.fixture
def filled(path: str) -> str:
    """A closed store of 2,000 events."""
    with ef.Store(path) as store:
        store.extend(noted(n, f"who-{n % 400}") for n in range(2_000))
    return path


def zeroes(_path: str) -> bytes:
    """A page that was never written."""
    return bytes(PAGE)


def noise(_path: str) -> bytes:
    """A page of other content."""
    return random.Random(7).randbytes(PAGE)


def another(path: str) -> bytes:
    """The root of the table of events: its pages then seem to belong to the index as well."""
    (root,) = foreign(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'event'")[0]
    with Path(path).open("rb") as file:
        file.seek((root - 1) * PAGE)
        return file.read(PAGE)


@pytest.mark.parametrize("content", [zeroes, noise, another])
@pytest.mark.parametrize("tree", TREES)
def test_an_index_with_a_damaged_page_is_found_and_rebuilt(
    filled: str, tree: str, content: Callable[[str], bytes]
) -> None:
    """Verify names the command, which writes the file without the pages of the damaged index. No event changes."""
    events = foreign(filled, "SELECT * FROM event")
    overwrite(filled, pages_of(filled, tree)[0], content(filled))
    with ef.Store(filled) as store:
        problems = list(engine_of(store).check())
        assert "eventfold reindex" in problems[-1].what
        assert len(list(store.read())) == 2_000
        for n in range(3):
            assert store.append(noted(n)).last == 2_001 + n
    assert run(SqliteEngine(filled).reindex()).events == 2_003
    assert foreign(filled, "SELECT * FROM event")[:2_000] == events
    with ef.Store(filled) as store:
        assert list(engine_of(store).check()) == []
        assert store.count(ef.Query.of(tags="who:who-7")) == 5
        store.append(noted(1))
    assert assert_whole(filled) == 2_004


def test_each_damaged_page_of_the_index_is_repaired(filled: str, tmp_path: Path) -> None:
    """A sample of all its pages."""
    dice = random.Random(3)
    whole = str(tmp_path / "whole.db")
    shutil.copy(filled, whole)
    pages = [page for tree in TREES for page in pages_of(filled, tree)]
    for page in dice.sample(pages, 12):
        shutil.copy(whole, filled)
        overwrite(filled, page, dice.randbytes(PAGE))
        assert run(SqliteEngine(filled).reindex()).events == 2_000
        assert assert_whole(filled) == 2_000


def test_a_question_that_meets_a_damaged_page_names_the_command(filled: str) -> None:
    """Other events are read."""
    overwrite(filled, pages_of(filled, "posting")[0], bytes(PAGE))
    with ef.Store(filled) as store:
        with pytest.raises(StoreDamaged, match="damaged") as caught:
            store.count(ef.Query.of(tags="who:who-7"))
        assert "eventfold verify" in caught.value.remedy and "eventfold reindex" in caught.value.remedy
        assert len(list(store.read())) == 2_000
    shown = eventfold("verify", filled)
    assert shown.code == 1
    assert eventfold("reindex", filled).code == 0
    assert eventfold("verify", filled).code == 0


def test_damage_of_the_events_refuses_a_rebuild(filled: str) -> None:
    """Nothing is changed: a backup has to be restored."""
    overwrite(filled, pages_of(filled, "event")[3], bytes(PAGE))
    overwrite(filled, pages_of(filled, "posting")[0], bytes(PAGE))
    before = Path(filled).read_bytes()
    with pytest.raises(StoreDamaged):
        run(SqliteEngine(filled).reindex())
    assert Path(filled).read_bytes() == before


@pytest.fixture
def disk() -> Iterator[Disk]:
    """A disk that fails on request."""
    with faulty_disk() as made:
        yield made


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_rebuild_without_space_changes_nothing(filled: str, disk: Disk, is_damaged: bool) -> None:
    """At each of its writes; the message names the command. Without space for the last step, the index is right."""
    if is_damaged:
        overwrite(filled, pages_of(filled, "posting")[0], bytes(PAGE))
    refused = 0
    for after in (*range(0, 40, 5), *range(40, 2_000, 40)):
        disk.refuse("write wal", full, after)
        try:
            run(SqliteEngine(filled).reindex())
        except StoreFull as error:
            refused += 1
            assert "eventfold reindex" in error.remedy
            disk.repair()
            with ef.Store(filled) as store:
                assert store.head() == 2_000
        else:
            break
    disk.repair()
    assert refused > 2
    assert run(SqliteEngine(filled).reindex()).events == 2_000
    assert assert_whole(filled) == 2_000


def test_a_rebuild_on_a_failing_disk_changes_nothing(filled: str, disk: Disk) -> None:
    """The next one succeeds."""
    disk.refuse("write wal", broken, 3)
    with pytest.raises(StoreUnavailable):
        run(SqliteEngine(filled).reindex())
    disk.repair()
    assert assert_whole(filled) == 2_000
    assert run(SqliteEngine(filled).reindex()).events == 2_000
