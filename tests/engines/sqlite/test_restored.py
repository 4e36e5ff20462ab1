"""Logs that lose history: older copies put in place, removed write-ahead logs, backups and their epochs."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.concurrency.run import run
from eventfold.engines.sqlite import SqliteEngine, file
from eventfold.errors import CursorMismatch, EventfoldError, NotAStore, StoreDamaged, StoreNotFound
from tests.cli.commands import run as eventfold
from tests.engines.sqlite.noted import assert_whole, engine_of, noted
from tests.engines.sqlite.other import Other


def numbers(store: ef.Store) -> list[int]:
    """Return the numbers of a store's events."""
    return [recorded.event.n for recorded in store.read()]


def put(source: str, path: str) -> None:
    """Replace a store's file by a closed store's, as an operator does: by a rename, without the old WAL."""
    shutil.copy(source, path + ".new")
    for end in ("-wal", "-shm"):
        Path(path + end).unlink(missing_ok=True)
    os.replace(path + ".new", path)


def put_in_place(source: str, path: str) -> None:
    """Overwrite the file's content through SQLite, as `.restore` does."""
    old, new = sqlite3.connect(source), sqlite3.connect(path, timeout=10)
    old.backup(new)
    old.close()
    new.close()


@pytest.mark.parametrize("way", [put, put_in_place])
def test_a_restored_backup_under_a_running_follower_is_noticed(path: str, way: Callable[[str, str], None]) -> None:
    """The follower, the writer and the reader of the running store raise; nothing is skipped or written."""
    with ef.Store(path) as store:
        for n in range(5):
            store.append(noted(n))
        store.backup(path + ".backup")
        for n in range(5, 9):
            store.append(noted(n))
        with store.follow() as follower:
            pages = follower.pages(timeout=40)
            assert len(next(pages)) == 9
            kept = str(follower.cursor)
            way(path + ".backup", path)
            with pytest.raises((StoreDamaged, CursorMismatch)):
                assert next(pages) == []
        for use in (lambda: store.append(noted(99)), lambda: numbers(store), store.head):
            with pytest.raises(StoreDamaged) as raised:
                use()
            assert raised.value.what and raised.value.remedy
    with ef.Store(path) as store:
        assert numbers(store) == [0, 1, 2, 3, 4]
        with pytest.raises(CursorMismatch), store.follow(after=kept) as follower:
            next(follower.pages(timeout=40))
        for n in range(10, 20):  # beyond the old cursor: the position exists, with another event
            store.append(noted(n))
        with pytest.raises(CursorMismatch), store.follow(after=kept) as follower:
            next(follower.pages(timeout=40))


def test_a_reader_that_follows_nothing_notices_within_a_second(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that only reads checks periodically whether the path still leads to its file."""
    monkeypatch.setattr(file, "PRESENCE_CHECK_INTERVAL_S", 0.0)
    with ef.Store(path) as store:
        store.append(noted(1))
        store.backup(path + ".backup")
        with ef.Store(path) as reader:
            assert numbers(reader) == [1]
            put(path + ".backup", path)
            with pytest.raises(StoreDamaged, match="replaced"):
                numbers(reader)


def test_a_log_that_went_back_is_noticed_by_the_other_processes(path: str, process: Callable[..., Other]) -> None:
    """They also notice where the file was overwritten through SQLite and another process has appended since."""
    with ef.Store(path) as store:
        store.append(noted(0))
        store.backup(path + ".backup")
        for n in range(1, 4):
            store.append(noted(n))
        put_in_place(path + ".backup", path)
        other = process()
        other(f"store = ef.Store({path!r})")
        for n in range(6):
            other(f"store.append(noted({10 + n}))")
        for use in (lambda: store.append(noted(99)), lambda: numbers(store)):
            with pytest.raises(StoreDamaged):
                use()
        assert other("store.count()") == 7


def test_a_plain_copy_of_the_file_put_back_is_refused_until_it_is_confirmed(path: str) -> None:
    """A copy has the same epoch, so only the note beside the file shows that acknowledged events are missing."""
    with ef.Store(path) as store:
        store.append(noted(0))
    shutil.copy(path, path + ".copy")
    with ef.Store(path) as store:
        store.append(noted(1), noted(2))
        cursor = store.cursor()
    put(path + ".copy", path)
    for _ in range(2):
        with pytest.raises(StoreDamaged, match="position 3") as raised:
            ef.Store(path)
        assert raised.value.fields["head"] == 1 and raised.value.fields["acknowledged"] == 3
        assert f"eventfold restored {path}" in raised.value.remedy
    done = run(SqliteEngine(path).restored())
    with ef.Store(path) as store:
        assert (done.store, done.ended, done.epoch) == (store.engine.store_id, 1, 2)
        assert store.engine.epoch == 2
        assert numbers(store) == [0]
        with pytest.raises(CursorMismatch):
            store.verify(cursor)
        store.append(noted(7), noted(8))
        with pytest.raises(CursorMismatch):
            store.verify(cursor)


def test_an_epoch_is_never_given_twice(path: str) -> None:
    """A copy from before the lost epoch is put back again: the next epoch is greater than both."""
    with ef.Store(path) as store:
        store.append(noted(0))
    shutil.copy(path, path + ".copy")
    for epoch in (2, 3):
        put(path + ".copy", path)
        assert run(SqliteEngine(path).restored()).epoch == epoch
        with ef.Store(path) as store:
            store.append(noted(epoch))


def test_the_command_restored_says_what_it_did(path: str) -> None:
    """It creates no store where none exists."""
    ef.Store(path).close()
    (line,) = eventfold("restored", path, "--json").lines
    assert (line["ended"], line["epoch"]) == (1, 2)
    assert "is now in epoch 3; it was in 2" in " ".join(eventfold("restored", path, "--table").out.split())
    assert eventfold("restored", path + ".none").code == 4
    assert not os.path.exists(path + ".none")


@pytest.mark.parametrize("way", range(4))
def test_an_older_copy_written_over_the_very_file_never_gives_wrong_events(path: str, way: int) -> None:
    """No program may do this to an open database. Reads still return what was written, or raise."""
    with ef.Store(path) as store:
        for n in range(20 + 37 * way):
            store.append(noted(n))
    shutil.copyfile(path, path + ".copy")
    store = ef.Store(path)
    for n in range(10 + 61 * way):
        store.append(noted(1_000 + n))
    if way % 2:  # the write-ahead log is empty, so the file is everything
        engine_of(store)._run_read(lambda connection: connection.wal_checkpoint(mode=3))
    everything, some = numbers(store), ef.Query.of(tags="who:w-3")
    selected = [recorded.event.n for recorded in store.read(some)]
    shutil.copyfile(path + ".copy", path)
    seen: list[list[int]] = []
    for look in (
        lambda: seen.append(numbers(store)),
        lambda: seen.append([recorded.event.n for recorded in store.read(some)]),
        lambda: store.using(attempts=1).append(noted(7, "someone")),
        lambda: seen.append(numbers(store)),
        store.close,
        lambda: seen.append(numbers(ef.Store(path))),
    ):
        try:
            look()
        except EventfoldError as error:
            assert error.what and error.remedy
    for found in seen:
        assert found in (everything, selected, [*everything, 7])


@pytest.mark.parametrize("gap", [0, 150])
def test_an_older_copy_beside_a_newer_write_ahead_log_gives_no_wrong_events(path: str, gap: int) -> None:
    """The copy is put back without removing the write-ahead log, which SQLite then uses with the copy.

    If events are missing between the copy and that log, a tag's index may lack events, until a check reports it.
    """
    with ef.Store(path) as store:
        for n in range(60):
            store.append(noted(n))
    shutil.copyfile(path, path + ".copy")
    store = ef.Store(path)
    for n in range(gap):
        store.append(noted(1_000 + n))
    engine_of(store)._run_read(lambda connection: connection.wal_checkpoint(mode=3))
    for n in range(90):
        store.append(noted(2_000 + n))
    everything, queries = numbers(store), [ef.Query.of(tags=f"who:w-{n}") for n in range(7)]
    selected = [[recorded.event.n for recorded in store.read(query)] for query in queries]
    for end in ("-wal", ".lock"):
        shutil.copyfile(path + end, path + end + ".kept")
    store.close()
    shutil.copyfile(path + ".copy", path)
    for end in ("-wal", ".lock"):
        shutil.copyfile(path + end + ".kept", path + end)
    os.remove(path + "-shm")
    try:
        with ef.Store(path) as store:
            missed = False
            for query, expected in zip(queries, selected, strict=True):
                try:
                    missed |= [recorded.event.n for recorded in store.read(query)] != expected
                except EventfoldError:
                    continue
            assert not missed or list(engine_of(store).check())
            assert numbers(store) == everything
            assert not missed or gap
    except EventfoldError as error:
        assert gap and error.what and error.remedy


def killed_writer(path: str, process: Callable[..., Other]) -> None:
    """Create a store of five events, all in the write-ahead log, whose writer was killed."""
    writer = process()
    writer(f"store = ef.Store({path!r})")
    for n in range(5):
        writer(f"store.append(noted({n}))")
    writer.kill()


def test_a_removed_write_ahead_log_is_missed(path: str, process: Callable[..., Other]) -> None:
    """Someone removed the log after a crash: opening reports the loss, and works once the log is back."""
    killed_writer(path, process)
    shutil.move(path + "-wal", path + ".kept")
    with pytest.raises(EventfoldError) as raised:
        ef.Store(path, create=False)
    assert isinstance(raised.value, (StoreDamaged, NotAStore))
    for end in ("-wal", "-shm"):
        Path(path + end).unlink(missing_ok=True)
    shutil.move(path + ".kept", path + "-wal")
    with ef.Store(path) as store:
        assert numbers(store) == [0, 1, 2, 3, 4]


def test_a_write_ahead_log_cut_by_a_flipped_bit_is_missed(path: str, process: Callable[..., Other]) -> None:
    """SQLite drops every commit from the first frame with a wrong checksum, silently; the note shows the loss."""
    with ef.Store(path) as store:
        store.append(noted(100))
    killed_writer(path, process)
    wal = Path(path + "-wal")
    content = bytearray(wal.read_bytes())
    content[len(content) // 2] ^= 4
    wal.write_bytes(content)
    Path(path + "-shm").unlink()
    with pytest.raises(StoreDamaged) as raised:
        ef.Store(path)
    assert raised.value.fields["acknowledged"] == 6
    assert 1 <= raised.value.fields["head"] < 6


@pytest.mark.parametrize("note", [b"", b"\0" * 90, b"what?\n", b"\xff\xfe 1 2 3 4\n", b"a b c d e f g\n"])
def test_an_unreadable_note_is_ignored(path: str, note: bytes) -> None:
    """A note damaged by a power cut, or overwritten by another program, does not prevent opening."""
    with ef.Store(path) as store:
        store.append(noted(1))
    Path(path + ".lock").write_bytes(note)
    with ef.Store(path) as store:
        store.append(noted(2))
        assert numbers(store) == [1, 2]
    Path(path + ".lock").unlink()
    with ef.Store(path) as store:
        assert numbers(store) == [1, 2]


def test_a_prefix_of_a_note_is_ignored(path: str) -> None:
    """A power cut may leave any prefix of the note: half an id is not taken for the id of a lost event."""
    with ef.Store(path) as store:
        store.append(noted(1))
    note = Path(path + ".lock").read_bytes()
    for length in range(0, len(note), 5):
        Path(path + ".lock").write_bytes(note[:length])
        with ef.Store(path) as store:
            assert numbers(store) == [1]


def test_the_weaker_mode_leaves_no_note(path: str) -> None:
    """With durability="normal" a power cut may lose the last commits: the store opens without an error."""
    with ef.Store(path, durability="normal") as store:
        store.append(noted(1))
    assert Path(path + ".lock").read_bytes() == b""


# ------------------------------------------------------------------------------------------ backups


def test_a_backup_made_under_load_is_a_whole_prefix_of_the_log(path: str) -> None:
    """The backup ends although commits go on, contains whole appends only, and begins an epoch of its own."""
    with ef.Store(path) as store:
        store.extend(noted(n) for n in range(8_000))
        stop = threading.Event()

        def write() -> None:
            n = 0
            while not stop.is_set():
                store.append(*[noted(n + more) for more in range(7)])
                n += 7

        writer = threading.Thread(target=write)
        writer.start()
        store.backup(path + ".backup")
        stop.set()
        writer.join()
        with ef.Store(path + ".backup") as copy:
            assert copy.engine.epoch == store.engine.epoch + 1
            assert copy.engine.store_id == store.engine.store_id
            count = copy.count()
            assert 8_000 <= count < store.count()
            original = [(each.id, each.tags) for each in store.read(until=count)]
            assert [(each.id, each.tags) for each in copy.read()] == original
            assert copy.verify(store.cursor(count)) == count
            with pytest.raises(CursorMismatch):
                copy.verify(store.cursor())
            assert not list(engine_of(copy).check())
    assert assert_whole(path + ".backup") == count


def test_a_backup_never_overwrites_and_leaves_no_half(path: str, tmp_path: Path) -> None:
    """An existing file stays as it is; where the copy cannot be finished, nothing is left of it."""
    with ef.Store(path) as store:
        store.append(noted(1))
        with pytest.raises(NotAStore, match="exists"):
            store.backup(path)
        with pytest.raises(StoreNotFound):
            store.backup(str(tmp_path / "nowhere" / "copy.db"))
        with pytest.MonkeyPatch.context() as broken:
            broken.setattr("eventfold.engines.sqlite.backup.PAGES_PER_STEP", "many")
            with pytest.raises(TypeError):
                store.backup(path + ".half")
        assert sorted(each.name for each in tmp_path.iterdir()) == ["log.db", "log.db-shm", "log.db-wal", "log.db.lock"]
        assert numbers(store) == [1]
        store.backup(path + ".whole")
    assert assert_whole(path + ".whole") == 1
