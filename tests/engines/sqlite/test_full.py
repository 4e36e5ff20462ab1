"""Full and failing disks: nothing acknowledged is lost, and no error claims what is not true."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

import eventfold as ef
from eventfold.engines.sqlite import checkpoint
from eventfold.errors import AppendUnconfirmed, EventfoldError, StoreFull
from tests.engines.sqlite.faulty import Disk, Fault, broken, faulty_disk, full
from tests.engines.sqlite.noted import Noted, assert_whole, engine_of, noted
from tests.engines.sqlite.other import Other
from tests.support.programs import needs_mounts


@pytest.fixture
def disk() -> Iterator[Disk]:
    """A disk that fails on request. Stores opened in the test use it."""
    with faulty_disk() as made:
        yield made


def draft(n: int = 0) -> ef.Draft:
    """Return an event that can be appended again: it has a fixed id."""
    return ef.Draft(noted(n), id=uuid4())


@pytest.mark.parametrize("after", [0, 1, 2, 5])
@pytest.mark.parametrize("count", [1, 30])
def test_on_a_full_disk_nothing_is_written_and_it_raises(path: str, disk: Disk, count: int, after: int) -> None:
    """StoreFull is raised, whichever write fails; with free space the same store works, for repeats and new events."""
    with ef.Store(path) as store:
        store.append(noted(0))
        drafts = [draft(n) for n in range(count)]
        disk.refuse("write wal", full, after)
        with pytest.raises(StoreFull) as raised:
            for _ in range(3):  # the failing write is a later one of a commit, or the first one of the next commit
                store.append(*drafts)
                drafts = [draft(n) for n in range(count)]
        assert "Nothing" in raised.value.remedy and "space" in raised.value.remedy
        before = store.count()
        assert before % count == 1 % count
        disk.repair()
        assert store.append(*drafts).repeated is False
        assert store.count() == before + count
        assert not list(engine_of(store).check())
    assert assert_whole(path) == before + count


def test_a_batch_larger_than_the_cache_is_refused_as_a_whole(path: str, disk: Disk) -> None:
    """Its pages go to the disk before the commit, so the disk is full there."""
    with ef.Store(path) as store:
        store.append(noted(0))
        large = [ef.Draft(Noted("w", "p", n, "x" * 600_000), id=uuid4()) for n in range(40)]
        disk.refuse("write wal", full, after=300)
        with pytest.raises(StoreFull):
            store.append(*large)
        disk.repair()
        assert store.count() == 1
        assert store.append(*large).last == 41
    assert assert_whole(path) == 41


@pytest.mark.parametrize("operation", ["write wal", "sync wal"])
def test_a_failed_commit_is_unconfirmed(path: str, disk: Disk, operation: str) -> None:
    """AppendUnconfirmed is raised; no reader sees the event as committed; repeated, it is written once."""
    with ef.Store(path) as store:
        store.append(noted(0))
        mine = draft(1)
        disk.refuse(operation, broken)
        with pytest.raises(AppendUnconfirmed) as raised:
            store.using(attempts=1).append(mine)
        assert raised.value.fields["cause"] == "store-unavailable" and "Repeat" in raised.value.remedy
        disk.repair()
        assert store.count() == 1
        store.append(mine)
        assert store.append(mine).repeated
        assert [recorded.event.n for recorded in store.read()] == [0, 1]
    assert assert_whole(path) == 2


def test_a_commit_whose_sync_failed_may_survive_a_crash_and_is_still_written_once(path: str, disk: Disk) -> None:
    """The frames are in the file: opening it after a crash finds the commit, and a repeated append finds it too."""
    with ef.Store(path) as store:
        store.append(noted(0))
        mine = draft(1)
        disk.refuse("sync wal", broken)
        with pytest.raises(AppendUnconfirmed):
            store.using(attempts=1).append(mine)
        crashed = path + ".crashed"
        for end in ("", "-wal"):  # the disk's content at this moment
            shutil.copy(path + end, crashed + end)
        disk.repair()
    with ef.Store(crashed) as store:
        assert store.count() == 2
        assert store.append(mine).repeated
        store.append(noted(2))
        assert [recorded.event.n for recorded in store.read()] == [0, 1, 2]
    assert assert_whole(crashed) == 3


def test_the_log_repeats_an_unconfirmed_append_by_itself(path: str, disk: Disk) -> None:
    """The caller does not see a fault that passes: the log appends the identical events again."""
    with ef.Store(path) as store:
        disk.refuse("sync wal", Passing(broken, times=2))
        assert store.append(noted(1)).first == 1
        assert store.count() == 1


class Passing:
    """A fault that occurs only the first `times` times."""

    def __init__(self, fault: Fault, times: int) -> None:
        self.fault, self.left = fault, times

    def __call__(self) -> None:
        self.left -= 1
        if self.left >= 0:
            self.fault()


@pytest.mark.parametrize("fault", [full, broken])
@pytest.mark.parametrize("operation", ["write db", "sync db", "sync wal"])
def test_a_failing_checkpoint_does_not_fail_the_commit(
    path: str, disk: Disk, monkeypatch: pytest.MonkeyPatch, operation: str, fault: Fault
) -> None:
    """The commit before it holds and is acknowledged; the checkpoint is repeated later, or when the store closes."""
    monkeypatch.setattr(checkpoint, "CHECKPOINT_PAGES", 10**9)
    with ef.Store(path) as store:
        engine = engine_of(store)
        assert engine._writer is not None
        for n in range(9):
            store.append(noted(n))
        monkeypatch.setattr(checkpoint, "CHECKPOINT_PAGES", 8)
        # The first of the two WAL syncs is the commit's own.
        disk.refuse(operation, fault, after=1 if operation == "sync wal" else 0)
        assert store.append(noted(9)).first == 10
        assert not engine._writer.checkpoint.is_due()
        disk.repair()
        for n in range(10, 20):
            store.append(noted(n))
        assert [recorded.event.n for recorded in store.read()] == list(range(20))
        disk.refuse(operation, fault)  # the last checkpoint, at closing, fails as well
    disk.repair()
    with ef.Store(path) as store:
        assert store.count() == 20
        assert not list(engine_of(store).check())


def test_combined_appends_on_a_full_disk_are_all_refused_and_all_succeed_later(path: str, disk: Disk) -> None:
    """Every append that was in the commit raises StoreFull."""

    async def main() -> None:
        async with ef.AsyncStore(path) as store:
            await store.append(noted(0))
            drafts = [draft(n) for n in range(50)]
            disk.refuse("write wal", full)
            outcomes = await asyncio.gather(*[store.append(each) for each in drafts], return_exceptions=True)
            assert {type(each) for each in outcomes} == {StoreFull}
            disk.repair()
            await asyncio.gather(*[store.append(each) for each in drafts])
            assert await store.count() == 51

    asyncio.run(main())
    assert assert_whole(path) == 51


def test_a_new_store_on_a_full_disk_is_refused_and_made_later(path: str, disk: Disk) -> None:
    """A half-created store is not a store: the next one to open it creates it completely."""
    disk.refuse("write wal", full)
    with pytest.raises(StoreFull):
        ef.Store(path)
    disk.repair()
    with ef.Store(path) as store:
        store.append(noted(1))
    assert assert_whole(path) == 1


# ------------------------------------------------------------------------------------------ real limits

LIMITED = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
"""
UNTIL_FULL = """
refused = []
for n in range(2_000):
    try:
        store.append(*[noted(k) for k in range(n % 9 + 1)])
        acknowledged += n % 9 + 1
    except ef.EventfoldError as error:
        refused.append([type(error).__name__, error.what, error.remedy])
        if len(refused) == 5:
            break
"""


def fill(process: Other, path: str) -> None:
    """Append until the disk is full, and check that only whole, acknowledged appends exist."""
    process(f"store = ef.Store({path!r}); acknowledged = 0")
    process(UNTIL_FULL)
    refused = process("refused")
    assert len(refused) == 5
    assert {each[0] for each in refused} == {"StoreFull"}
    assert all(what and remedy for _, what, remedy in refused)
    assert process("store.count()") == process("acknowledged") > 10


def go_on(process: Other, path: str) -> None:
    """Check that with free space the same store object works, and that the file is whole."""
    process("store.append(noted(1), noted(2)); acknowledged += 2")
    assert process("store.count()") == process("acknowledged")
    process("store.close()")
    assert process(f"assert_whole({path!r})") == process("acknowledged")
    assert process(f"[str(each) for each in engine_of(ef.Store({path!r})).check()]") == []


def test_a_limit_on_the_size_of_files_is_a_full_disk(path: str, process: Callable[..., Other]) -> None:
    """A quota has another error number (EFBIG here), and the same meaning."""
    limited = process()
    limited(LIMITED.format(limit=400_000))
    fill(limited, path)
    limited(LIMITED.format(limit="resource.RLIM_INFINITY"))
    go_on(limited, path)


@needs_mounts
def test_a_small_file_system_fills_up_and_is_made_larger(tmp_path: Path, process: Callable[..., Other]) -> None:
    """A real file system without a free block; the mount disappears with the process that made it."""
    place = tmp_path / "small"
    place.mkdir()
    small = process("unshare", "-rm")
    assert small(f"os.system('mount -t tmpfs -o size=600k tmpfs {place}')") == 0
    fill(small, f"{place}/log.db")
    assert small(f"os.system('mount -o remount,size=4m {place}')") == 0
    go_on(small, f"{place}/log.db")


@needs_mounts
def test_a_store_on_a_mount_that_is_read_only_can_be_read(tmp_path: Path, process: Callable[..., Other]) -> None:
    """Reads work with and without readonly=True; an append raises an error that says that nothing was written."""
    place = tmp_path / "fixed"
    place.mkdir()
    other = process("unshare", "-rm")
    assert other(f"os.system('mount -t tmpfs -o size=4m tmpfs {place}')") == 0
    other(f"path = '{place}/log.db'; store = ef.Store(path); store.append(noted(1)); store.close()")
    assert other(f"os.system('mount -o remount,ro {place}')") == 0
    for options in ("", ", readonly=True", ", create=False"):
        other(f"store = ef.Store(path{options})")
        assert other("store.count()") == 1
        other.start("store.append(noted(2))")
        outcome = other.outcome()
        assert outcome["error"] == "StoreReadOnly" and "Nothing was written" in outcome["text"], outcome
        other("store.close()")


def test_errors_of_the_disk_have_two_sentences(path: str, disk: Disk) -> None:
    """Every failure while opening is raised as an error of the library."""
    ef.Store(path).close()
    for operation in ("write db", "sync db", "write wal", "sync wal", "truncate wal"):
        for fault in (full, broken):
            disk.refuse(operation, fault)
            try:
                with ef.Store(path) as store:
                    store.using(attempts=1).append(noted(1))
            except EventfoldError as error:
                assert error.what.endswith(".") and error.remedy.endswith(".")
            disk.repair()
