"""The nth call of the file system fails, for every n: the error is correct, what was acknowledged exists, and the store
works afterwards.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.engines.sqlite.backup import _create_partial, partial_path
from eventfold.errors import (
    AppendUnconfirmed,
    EventfoldError,
    NotAStore,
    StoreFull,
    StoreNotFound,
    StoreReadOnly,
    StoreUnavailable,
    TargetUnavailable,
)
from tests.engines.sqlite.faulty import Disk, faulty_disk, full
from tests.engines.sqlite.noted import Noted, assert_whole, noted
from tests.engines.sqlite.other import ROOT, Other
from tests.support.programs import needs_mounts

MAX_OPERATIONS = 300  # operations of one call; more would be an endless loop
EVENTS = 8
STRIDE = {"project": 6, "backup": 3, "open": 3}  # calls with many or slow steps: only every so many steps are tried


@pytest.fixture
def disk() -> Iterator[Disk]:
    """A disk that fails on request. Stores opened in the test use it."""
    with faulty_disk() as made:
        yield made


class PerWho(ef.Projection):
    """The number of events of each `who`."""

    who: str
    events: int = 0

    def evolve(self, event: Noted) -> None:
        """Add one."""
        self.events += 1


def append(store: ef.Store) -> None:
    """Append without automatic retries."""
    store.using(attempts=1).append(ef.Draft(noted(99)))


CALLS: dict[str, Callable[[ef.Store], object]] = {
    "append": append,
    "read": lambda store: list(store.read()),
    "stats": lambda store: store.stats(),
    "backup": lambda store: store.backup(f"{store.engine.path}.copy"),  # type: ignore[attr-defined]
    "project": lambda store: store.project(PerWho),
    "rows": lambda store: store.rows(PerWho),
}


def filled(folder: Path, n: int) -> str:
    """Create a store with events and rows. Returns its path."""
    path = str(folder / f"{n}.db")
    with ef.Store(path) as store:
        store.project(PerWho)
        for each in range(EVENTS):
            store.append(noted(each))
    return path


def assert_fits(error: EventfoldError, operation: str) -> None:
    """Check that a fault of the disk is not reported as damage, as a foreign file or as a missing path."""
    assert type(error) in (StoreUnavailable, TargetUnavailable, AppendUnconfirmed), (operation, error)
    assert "backup" not in error.remedy, (operation, error)
    assert error.what.endswith(".") and error.remedy.endswith("."), error


@pytest.mark.parametrize("call", list(CALLS))
def test_an_error_of_the_disk_at_any_step_is_no_damage(memory_folder: Path, disk: Disk, call: str) -> None:
    """After one EIO the same store object works; an append that needed confirmation is written once, or not written."""
    for n in range(1, MAX_OPERATIONS, STRIDE.get(call, 1)):
        path = filled(memory_folder, n)
        with ef.Store(path) as store:
            acknowledged = EVENTS
            disk.refuse_nth(n)
            try:
                CALLS[call](store)
                acknowledged += call == "append"
            except EventfoldError as error:
                assert_fits(error, disk.done[n - 1])
            met = len(disk.done) >= n
            disk.repair()
            assert store.head() in {acknowledged, EVENTS + (call == "append")}
            after = store.append(noted(100)).last
            store.project(PerWho)
            assert sum(row.events for row in store.rows(PerWho)) == after
        assert assert_whole(path) == after
        if not met:
            return
    raise AssertionError("more operations than one call may need")


def test_an_error_of_the_disk_while_a_store_is_opened_is_no_damage(memory_folder: Path, disk: Disk) -> None:
    """An existing store and a new one are tried; opened again, both are whole."""
    for n in range(1, MAX_OPERATIONS, STRIDE["open"]):
        path, new = filled(memory_folder, n), str(memory_folder / f"{n}.new.db")
        met = False
        for each in (path, new):
            disk.refuse_nth(n)
            try:
                ef.Store(each).close()
            except EventfoldError as error:
                assert_fits(error, disk.done[n - 1])
            met |= len(disk.done) >= n
            disk.repair()
            with ef.Store(each) as store:
                store.append(noted(1))
        assert (assert_whole(path), assert_whole(new)) == (EVENTS + 1, 1)
        if not met:
            return
    raise AssertionError("more operations than opening may need")


def test_read_models_in_a_file_of_their_own_survive_an_error_at_any_step(memory_folder: Path, disk: Disk) -> None:
    """TargetUnavailable is raised; projected again, every event is counted once."""
    for n in range(1, MAX_OPERATIONS, STRIDE["project"]):
        path, rows = filled(memory_folder, n), f"sqlite:{memory_folder / f'{n}.rows.db'}"
        with ef.Store(path) as store:
            disk.refuse_nth(n)
            try:
                store.project(_own(rows))
            except EventfoldError as error:
                assert_fits(error, disk.done[n - 1])
            met = len(disk.done) >= n
            disk.repair()
            store.project(_own(rows))
            assert sum(row.events for row in store.rows(_own(rows))) == EVENTS
        if not met:
            return
    raise AssertionError("more operations than one call may need")


def _own(rows: str) -> type[ef.Projection]:
    class Own(ef.Projection, name="own", target=rows):
        """The number of events of each `who`, in a separate file."""

        who: str
        events: int = 0

        def evolve(self, event: Noted) -> None:
            """Add one."""
            self.events += 1

    return Own


def test_a_full_disk_during_a_backup_is_reported_for_the_copy(path: str, disk: Disk, tmp_path: Path) -> None:
    """StoreFull names the copy, nothing is left of the copy, and the store goes on."""
    with ef.Store(path) as store:
        store.append(noted(1))
        before = sorted(os.listdir(tmp_path))
        for after in (0, 3):
            disk.refuse("write db", full, after)
            with pytest.raises(StoreFull) as raised:
                store.backup(path + ".copy")
            assert "copy at" in raised.value.what and "append" not in raised.value.remedy
            disk.repair()
        assert sorted(os.listdir(tmp_path)) == before
        store.backup(path + ".copy")
    assert assert_whole(path + ".copy") == 1


# ------------------------------------------------------------------------------------------ killed


@pytest.mark.parametrize("what", ["backup", "create"])
def test_a_process_killed_at_any_step_leaves_a_whole_file_or_none(memory_folder: Path, what: str) -> None:
    """A backup leaves nothing at the path, or the copy in its new epoch. A new store is whole when opened again."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.engines.sqlite.dying", what, str(memory_folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    seen = json.loads(ran.stdout)
    assert seen["wrong"] == []
    assert seen["steps"] > 40


def test_the_partial_file_of_a_killed_backup_is_removed_by_the_next_backup(path: str, tmp_path: Path) -> None:
    """It has a hidden name of its own, and the next backup to the same path removes it."""
    copy = str(tmp_path / "copy.db")
    left = Path(partial_path(copy))
    left.write_bytes(b"half of something")
    Path(f"{left}-wal").write_bytes(b"and more")
    with ef.Store(path) as store:
        store.append(noted(1))
        store.backup(copy)
    assert assert_whole(copy) == 1
    assert not [each for each in tmp_path.iterdir() if "partial" in each.name]


def test_a_backup_is_refused_beside_the_write_ahead_log_of_another_database(path: str, tmp_path: Path) -> None:
    """SQLite would treat a write-ahead log with the copy's name as a part of the copy."""
    with ef.Store(path) as store:
        store.append(noted(1))
        (tmp_path / "copy.db-wal").write_bytes(b"another program's last commits")
        with pytest.raises(NotAStore, match=r"copy\.db-wal"):
            store.backup(str(tmp_path / "copy.db"))
        assert (tmp_path / "copy.db-wal").read_bytes() == b"another program's last commits"


def test_of_two_backups_to_one_path_at_once_one_is_refused(path: str, process: Callable[..., Other]) -> None:
    """The backup that was first goes on undisturbed."""
    with ef.Store(path) as store:
        store.append(noted(1))
        claimed = _create_partial(path + ".copy", partial_path(path + ".copy"))
        other = process()
        other.start(f"ef.Store({path!r}).backup({path + '.copy'!r})")
        outcome = other.outcome()
        assert outcome["error"] == "StoreBusy" and "Another backup" in outcome["text"], outcome
        os.close(claimed)
        other(f"ef.Store({path!r}).backup({path + '.copy'!r})")
    assert assert_whole(path + ".copy") == 1


# ------------------------------------------------------------------------------------------ error numbers

NUMBERS: list[tuple[int, type[EventfoldError], str]] = [
    (errno.ENOSPC, StoreFull, "space"),
    (errno.EDQUOT, StoreFull, "space"),
    (errno.EFBIG, StoreFull, "space"),
    (errno.EMFILE, StoreUnavailable, "this process has no file descriptor left (its limit is"),
    (errno.ENFILE, StoreUnavailable, "the system has no file descriptor left"),
    (errno.EACCES, StoreReadOnly, "rights"),
    (errno.EPERM, StoreReadOnly, "rights"),
    (errno.EROFS, StoreReadOnly, "mounted"),
    (errno.ENOTDIR, StoreNotFound, "path"),
    (errno.ENAMETOOLONG, StoreNotFound, "path"),
    (errno.ELOOP, StoreNotFound, "path"),
    (errno.EISDIR, NotAStore, "folder"),
    (errno.ESTALE, StoreUnavailable, "network"),
    (errno.EIO, StoreUnavailable, "dmesg"),
    (errno.ENOMEM, StoreUnavailable, "try again"),
]


@pytest.mark.parametrize(("number", "kind", "word"), NUMBERS, ids=[errno.errorcode[n] for n, _, _ in NUMBERS])
def test_a_file_that_the_system_does_not_open_raises_the_reason(
    path: str, disk: Disk, number: int, kind: type[EventfoldError], word: str
) -> None:
    """The error at opening has two sentences, and never reports damage."""
    ef.Store(path).close()
    disk.number = number
    disk.refuse("open wal", disk.fail)
    with pytest.raises(EventfoldError) as raised:
        ef.Store(path)
    assert type(raised.value) is kind
    assert word in str(raised.value) and "backup" not in raised.value.remedy
    disk.repair()
    ef.Store(path).close()


@needs_mounts
def test_a_new_store_on_a_full_file_system_raises_store_full(tmp_path: Path, process: Callable[..., Other]) -> None:
    """No block for the content, or no inode for the file, its lock or its log: StoreFull, and never "not found"."""
    place = tmp_path / "small"
    place.mkdir()
    other = process("unshare", "-rm")
    for limit in ("size=4k", "nr_inodes=1", "nr_inodes=2", "nr_inodes=3", "nr_inodes=4"):
        assert other(f"os.system('mount -t tmpfs -o {limit} tmpfs {place}')") == 0
        other.start(f"ef.Store('{place}/log.db')")
        outcome = other.outcome()
        assert outcome["error"] == "StoreFull" and "space" in outcome["text"], (limit, outcome)
        assert other(f"os.system('mount -o remount,size=8m,nr_inodes=100 {place}')") == 0
        other(f"store = ef.Store('{place}/log.db'); store.append(noted(1)); store.close()")
        assert other(f"assert_whole('{place}/log.db')") == 1
        assert other(f"os.system('umount -l {place}')") == 0


def test_an_unreadable_note_is_not_taken_for_a_missing_note(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the note, a log that lost its end would look whole: the store opens only when the note is readable."""
    with ef.Store(path) as store:
        store.append(noted(1))

    def broken(file: int, size: int, offset: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", broken)
        with pytest.raises(StoreUnavailable, match="could not read") as raised:
            ef.Store(path)
        assert type(raised.value) is StoreUnavailable
    with ef.Store(path) as store:
        assert store.count() == 1


def test_a_process_without_descriptors_raises_its_limit(path: str, process: Callable[..., Other]) -> None:
    """Whichever descriptor is missing: opening, reading and appending report it, and work once descriptors are free."""
    with ef.Store(path) as store:
        store.append(noted(1))
    other = process()
    other("import resource; held = []; seen = []")
    other("resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))")
    other(
        f"""
def use():
    with ef.Store({path!r}) as store:
        store.append(noted(2))
        list(store.read())
        store.backup({path + ".copy"!r})

def run():
    use()  # imports at first use would need descriptors themselves
    os.remove({path + ".copy"!r})
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    for n in range(40):
        try:
            use()
            break
        except ef.EventfoldError as error:
            seen.append([type(error).__name__, str(error)])
        os.close(held.pop())
"""
    )
    other("run()")
    seen = other("seen")
    assert len(seen) >= 4, seen
    for name, text in seen:
        assert (name, "file descriptor left (its limit is 64)" in text) == ("StoreUnavailable", True), (name, text)
    other("[os.close(held.pop()) for _ in list(held)]")
    assert other(f"ef.Store({path!r}).head()") >= 2
