"""Another file is copied over a store that is open (`cp old.db live.db`): the inode stays, the content changes."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

import eventfold as ef
from eventfold.engines.sqlite import byte_range_locks, writer
from eventfold.engines.sqlite import engine as engine_module
from eventfold.engines.sqlite.overwrite_detection import OverwriteDetector
from eventfold.errors import AppendUnconfirmed, EventfoldError, StoreBusy, StoreDamaged
from tests.engines.sqlite.noted import engine_of, noted
from tests.engines.sqlite.other import Other

pytestmark = pytest.mark.skipif(not byte_range_locks.AVAILABLE, reason="the index is held by locks of Linux's")


@pytest.fixture
def old(path: str, tmp_path: Path) -> Path:
    """A copy of a store with one event, made while no process had the store open."""
    with ef.Store(path) as store:
        store.append(noted(1))
    copy = tmp_path / "old"
    shutil.copyfile(path, copy)
    return copy


def checkpoint(store: ef.Store) -> None:
    """Copy the write-ahead log into the file, as every checkpoint does."""
    wrote = engine_of(store)._writer
    assert wrote is not None
    wrote._run_alone(wrote._final_checkpoint)


ASKING: tuple[Callable[[ef.Store], Any], ...] = (
    lambda store: store.append(noted(9)),
    lambda store: store.head(),
    lambda store: list(store.read()),
    lambda store: store.count(ef.Query.of(tags="who:a")),
    lambda store: engine_of(store).backup(engine_of(store)._file.path + ".never"),
)


@pytest.mark.parametrize("ask", ASKING, ids=["append", "head", "read", "count", "backup"])
@pytest.mark.parametrize("checkpointed", [False, True], ids=["in the log", "in the file"])
def test_the_first_call_after_the_overwrite_raises(
    path: str, old: Path, ask: Callable[[ef.Store], Any], checkpointed: bool
) -> None:
    """This holds for every call, with the events in the log or in the file: it acknowledges and returns nothing."""
    with ef.Store(path) as store:
        for n in range(2, 30):
            store.append(noted(n))
        if checkpointed:
            checkpoint(store)
            store.append(noted(30))
        shutil.copyfile(old, path)
        with pytest.raises(StoreDamaged, match="overwritten") as refused:
            ask(store)
        assert "eventfold restored" in refused.value.remedy
        for again in ASKING:
            with pytest.raises(StoreDamaged):
                again(store)
    assert not os.path.exists(path + ".never")


def test_a_backup_under_way_leaves_no_copy(path: str, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is overwritten after its last page was copied: the copy may contain pages of two files."""
    with ef.Store(path) as store:
        store.append(noted(2))
        copy = engine_module.backup

        def overwritten(connection: Any, to: str, **options: Any) -> None:
            copy(connection, to, **options)
            shutil.copyfile(old, path)

        monkeypatch.setattr(engine_module, "backup", overwritten)
        with pytest.raises(StoreDamaged, match="overwritten"):
            store.backup(path + ".copy")
    assert not os.path.exists(path + ".copy")


def test_a_read_under_way_returns_nothing(path: str, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is overwritten between the first row and the answer."""
    with ef.Store(path) as store:
        store.append(noted(2))
        read_page = engine_module.read_page

        def overwritten(*arguments: Any) -> Any:
            answer = read_page(*arguments)
            shutil.copyfile(old, path)
            return answer

        monkeypatch.setattr(engine_module, "read_page", overwritten)
        with pytest.raises(StoreDamaged, match="overwritten"):
            list(store.read())


def test_an_append_under_way_is_not_acknowledged(path: str, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is overwritten between BEGIN and COMMIT: the append's outcome is unknown, and the error says so."""
    with ef.Store(path) as store:
        store.append(noted(2))
        insert = writer.Batch.insert

        def overwritten(self: Any) -> Any:
            head = insert(self)
            shutil.copyfile(old, path)
            return head

        monkeypatch.setattr(writer.Batch, "insert", overwritten)
        with pytest.raises(EventfoldError, match="overwritten"):
            store.using(attempts=1).append(noted(3))


def test_checkpoints_of_other_processes_are_not_taken_for_an_overwrite(
    path: str, process: Callable[..., Other]
) -> None:
    """Two processes read, write and checkpoint at once: neither mistakes the other's pages for foreign ones."""
    other = process()
    other("from eventfold.engines.sqlite import checkpoint; checkpoint.CHECKPOINT_PAGES = 10")
    other(f"store = ef.Store({path!r}, durability='normal')")
    with ef.Store(path, durability="normal") as store:
        for turn in range(5):
            other.start("[store.append(noted(n)).last for n in range(40)]")
            for _ in range(20):
                store.append(noted(1))
                positions = [recorded.position for recorded in store.read()]
                assert positions == list(range(1, len(positions) + 1))
                with suppress(StoreBusy, apsw.BusyError):  # the other process writes, or reads the WAL
                    checkpoint(store)
            assert len(other.answer()) == 40
            assert store.count() == 60 * (turn + 1) == other("store.count()")


def test_events_of_another_process_are_missed_in_a_file_that_was_put_back(
    path: str, old: Path, process: Callable[..., Other]
) -> None:
    """It has not read since the copy was made, and a checkpoint hides the change; the last acknowledged event shows."""
    with ef.Store(path) as store:
        assert store.count() == 1
        other = process()
        other(f"store = ef.Store({path!r}); [store.append(noted(n)).last for n in range(2, 9)]")
        other("writer = store.engine._writer; writer._run_alone(writer._final_checkpoint)")
        shutil.copyfile(old, path)
        with pytest.raises(StoreDamaged):
            store.append(noted(9))


CUT: dict[str, Callable[[Path, Path], Any]] = {
    "emptied": lambda log, _: os.truncate(log, 0),
    "cut in half": lambda log, _: os.truncate(log, log.stat().st_size // 2),
    "overwritten by a database": lambda log, old: shutil.copyfile(old, log),
}


@pytest.mark.parametrize("cut", CUT)
def test_an_append_after_the_log_was_overwritten_or_cut_is_not_acknowledged(path: str, old: Path, cut: str) -> None:
    """SQLite writes on where its index points, where no process can read it: this append and later calls raise."""
    with ef.Store(path) as store:
        for n in range(2, 30):
            store.append(noted(n))
        CUT[cut](Path(path + "-wal"), old)
        with pytest.raises((AppendUnconfirmed, StoreDamaged), match=r"overwritten or cut|damaged"):
            store.append(noted(30))
        with pytest.raises(StoreDamaged):
            store.append(noted(31))


def test_a_restarted_write_ahead_log_is_not_taken_for_another_log(path: str) -> None:
    """The log restarts after a checkpoint by this process, by a second SQLite library, and by another store."""
    with ef.Store(path) as store, ef.Store(path) as second:
        for n in range(1, 40):
            store.append(noted(n))
            if n % 3 == 0:
                checkpoint(second if n % 2 else store)
            second.append(noted(n))
        assert store.head() == 78


def test_a_file_that_grew_is_not_taken_for_an_overwrite_by_a_thread_that_is_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread reads the size, another accepts a larger one of a later checkpoint, and only then the first compares."""
    path = tmp_path / "grows.db"
    path.write_bytes(b"1")
    with path.open("rb") as file:
        detector = OverwriteDetector(file.fileno(), None, f"{path}-wal", lambda: False)
        path.write_bytes(b"12")
        read_size = OverwriteDetector._stat_file  # pyright: ignore[reportPrivateUsage]
        has_read, may_compare = threading.Event(), threading.Event()

        def slow(self: OverwriteDetector) -> tuple[int, int]:
            found = read_size(self)
            if not has_read.is_set():
                has_read.set()
                may_compare.wait(0.5)  # the other thread has to wait meanwhile
            return found

        monkeypatch.setattr(OverwriteDetector, "_stat_file", slow)
        accepted: list[bool] = []
        first = threading.Thread(target=lambda: accepted.append(detector.accept_checkpoint()))
        first.start()
        assert has_read.wait(60)
        path.write_bytes(b"123")
        accepted.append(detector.accept_checkpoint())
        may_compare.set()
        first.join(60)
        assert accepted == [True, True]
