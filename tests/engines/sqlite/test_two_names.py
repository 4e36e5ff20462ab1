"""Two names of one file: each would have a write-ahead log of its own, so a second name is refused, and no acknowledged
event is lost. Links and mounts by which both names reach the same log go on working.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.engines.sqlite import file
from eventfold.engines.sqlite.file_guards import ENTRY_MARK_ATTRIBUTE
from eventfold.errors import StoreUnsafe, TargetUnavailable
from tests.engines.sqlite.noted import Noted, assert_whole, noted
from tests.engines.sqlite.other import Other
from tests.support.programs import Missing, needs_mounts


def marks_are_kept(folder: Path) -> bool:
    """Return whether files in the folder may have extended attributes."""
    probe = folder / "probe"
    probe.touch()
    try:
        os.setxattr(probe, ENTRY_MARK_ATTRIBUTE, b"x")
    except (OSError, AttributeError):
        return False
    finally:
        probe.unlink()
    return True


@pytest.fixture
def names(tmp_path: Path) -> tuple[str, str]:
    """The path of a store, and a second path for it in another folder."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    return str(tmp_path / "one" / "log.db"), str(tmp_path / "two" / "log.db")


def refusal(process: Other, code: str) -> str:
    """Return the text of another process's StoreUnsafe error."""
    process.start(code)
    outcome = process.outcome()
    assert outcome["error"] == "StoreUnsafe", outcome
    return outcome["text"]


@pytest.mark.parametrize("options", ["", ", readonly=True", ", create=False"])
def test_a_file_with_two_hard_links_is_not_opened(names: tuple[str, str], options: str) -> None:
    """Both names are refused until one is removed; no file is created next to the second."""
    one, two = names
    with ef.Store(one) as store:
        store.append(noted(1))
    os.link(one, two)
    for name in names:
        with pytest.raises(StoreUnsafe, match="hard links"):
            eval(f"ef.Store(name{options})", {"ef": ef, "name": name})  # noqa: S307
    assert os.listdir(os.path.dirname(two)) == ["log.db"]
    os.unlink(two)
    with ef.Store(one) as store:
        store.append(noted(2))
    assert assert_whole(one) == 2


def test_a_hard_link_made_while_a_store_is_open_stops_its_appends(
    names: tuple[str, str], process: Callable[..., Other]
) -> None:
    """They stop within about a second, before a process can open the second name; without it the store goes on."""
    one, two = names
    with ef.Store(one) as store:
        acknowledged = store.append(noted(0)).last
        os.link(one, two)
        assert "hard links" in refusal(process(), f"ef.Store({two!r})")
        until = time.monotonic() + 30
        with pytest.raises(StoreUnsafe):
            while time.monotonic() < until:
                acknowledged = store.append(noted(acknowledged)).last
        assert store.count() == acknowledged
        os.unlink(two)
        assert store.append(noted(99)).last == acknowledged + 1
    assert assert_whole(one) == acknowledged + 1


def test_an_append_does_not_check_for_a_second_name_each_time(
    names: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check runs once a second; appends in between do not run it."""
    one, two = names
    with ef.Store(one) as store:
        store.append(noted(1))
        # An interval longer than this machine can take from one append to the next.
        monkeypatch.setattr(file, "PRESENCE_CHECK_INTERVAL_S", 1_000.0)
        monkeypatch.setattr(file, "refuse_links", lambda path: pytest.fail("looked again at once"))
        os.link(one, two)
        store.append(noted(2))


@needs_mounts
def test_a_file_mounted_by_itself_elsewhere_is_refused_while_it_is_open(
    names: tuple[str, str], process: Callable[..., Other]
) -> None:
    """This holds in either order, for writers, readers and two stores of one process; a later store opens."""
    one, two = names
    ef.Store(one).close()
    Path(two).touch()
    other = process("unshare", "-rm")
    assert other(f"os.system('mount --bind {one} {two}')") == 0
    with ef.Store(one) as store:
        store.append(noted(1))
        for options in ("", ", readonly=True", ", create=False"):
            assert "another name or mount" in refusal(other, f"ef.Store({two!r}{options})")
        other(f"first = ef.Store({one!r}); first.append(noted(2))")  # the first name is the same file in there, too
        assert "another name or mount" in refusal(other, f"ef.Store({two!r})")
        other("first.close()")
    other(f"store = ef.Store({two!r}); store.append(noted(3))")
    with pytest.raises(StoreUnsafe, match="another name or mount"):
        ef.Store(one)
    other("store.close()")
    with ef.Store(one) as store:
        assert [recorded.event.n for recorded in store.read()] == [1, 2, 3]
        store.append(noted(4))
    assert assert_whole(one) == 4


@needs_mounts
def test_the_log_of_a_killed_process_beside_another_mount_is_not_overwritten(
    names: tuple[str, str], process: Callable[..., Other]
) -> None:
    """The mark on the file names the path that wrote the log: other names are refused until that path was opened."""
    one, two = names
    if not marks_are_kept(Path(two).parent):
        raise Missing("extended attributes in the folder of temporary files")
    ef.Store(one).close()
    Path(two).touch()
    other = process("unshare", "-rm")
    assert other(f"os.system('mount --bind {one} {two}')") == 0
    killed = process()
    killed(f"store = ef.Store({one!r}); store.append(noted(1))")
    killed.kill()
    for _ in range(2):
        assert f"as {one}" in refusal(other, f"ef.Store({two!r})")
    ef.Store(one).close()  # copies the log into the file
    other(f"store = ef.Store({two!r}); store.append(noted(2)); store.close()")
    assert assert_whole(one) == 2


@needs_mounts
def test_mounted_and_linked_folders_share_one_write_ahead_log(
    names: tuple[str, str], tmp_path: Path, process: Callable[..., Other]
) -> None:
    """All of these paths lead to the same write-ahead log: every process sees what the others append."""
    one, two = names
    (tmp_path / "link").symlink_to("one")
    (tmp_path / "file").symlink_to(one)
    other = process("unshare", "-rm")
    assert other(f"os.system('mount --bind {os.path.dirname(one)} {os.path.dirname(two)}')") == 0
    with ef.Store(one) as store:
        paths = (two, str(tmp_path / "link" / "log.db"), str(tmp_path / "file"))
        for n, path in enumerate(paths):
            store.append(noted(n))
            assert other(f"store = ef.Store({path!r}); store.append(noted(9))") is None
            assert other("store.count()") == store.count() == 2 * n + 2
        other("store.close()")
    assert assert_whole(one) == 6


def test_a_store_is_moved_with_all_of_its_files(names: tuple[str, str], process: Callable[..., Other]) -> None:
    """Its folder is renamed, its files are moved after a crash or after a clean close, or the file is copied."""
    one, two = names
    folder = os.path.dirname(one)
    killed = process()
    killed(f"store = ef.Store({one!r}); store.append(noted(1))")
    killed.kill()
    os.rename(folder, folder + "-renamed")
    renamed = f"{folder}-renamed/log.db"
    with ef.Store(renamed) as store:
        assert store.append(noted(2)).last == 2
    killed = process()
    killed(f"store = ef.Store({renamed!r}); store.append(noted(3))")
    killed.kill()
    for end in ("", "-wal", ".lock"):
        os.rename(renamed + end, two + end)
    os.remove(renamed + "-shm")
    with ef.Store(two) as store:
        assert store.append(noted(4)).last == 4
    os.rename(two, two + ".alone")  # closed: the file is whole without the other files
    assert assert_whole(two + ".alone") == 4
    with ef.Store(two + ".alone") as store:
        assert store.append(noted(5)).last == 5
        shutil.copy2(two + ".alone", two + ".copy")
    with ef.Store(two + ".copy") as store:
        store.append(noted(6))


def test_a_file_moved_away_from_the_log_of_a_killed_process_is_refused(
    names: tuple[str, str], process: Callable[..., Other]
) -> None:
    """Its last events are in the log that stayed at the old path; with the log moved as well, they are read."""
    one, two = names
    if not marks_are_kept(Path(two).parent):
        raise Missing("extended attributes in the folder of temporary files")
    killed = process()
    killed(f"store = ef.Store({one!r}); store.append(noted(1))")
    killed.kill()
    os.rename(one, two)
    with pytest.raises(StoreUnsafe, match="write-ahead log"):
        ef.Store(two)
    os.rename(one + "-wal", two + "-wal")
    with ef.Store(two) as store:
        assert store.count() == 1


def test_a_closed_store_has_no_mark_and_an_open_one_has_its_own(names: tuple[str, str]) -> None:
    """Two stores of one process share the mark: it stays until the second is closed."""
    one, _ = names
    if not marks_are_kept(Path(one).parent):
        raise Missing("extended attributes in the folder of temporary files")
    first, second = ef.Store(one), ef.Store(one)
    first.append(noted(1))
    assert one in os.getxattr(one, ENTRY_MARK_ATTRIBUTE).decode()
    first.close()
    second.append(noted(2))
    assert one in os.getxattr(one, ENTRY_MARK_ATTRIBUTE).decode()
    second.close()
    assert ENTRY_MARK_ATTRIBUTE not in os.listxattr(one)


def test_read_models_in_a_file_with_two_names_are_refused(names: tuple[str, str]) -> None:
    """They are refused as a log is: rows and checkpoints would be in two write-ahead logs."""
    one, two = names

    class Own(ef.Projection, name="own", target=f"sqlite:{two}"):
        """The number of events of each `who`."""

        who: str
        events: int = 0

        def evolve(self, event: Noted) -> None:
            """Add one."""
            self.events += 1

    with ef.Store(one) as store:
        store.append(noted(1))
        store.project(Own)
    os.link(two, two + ".second")
    with ef.Store(one) as store, pytest.raises(TargetUnavailable, match="hard links"):
        store.rows(Own)


def test_a_descriptor_that_is_only_locked_is_closed_after_the_last_use(names: tuple[str, str]) -> None:
    """Stores are opened and closed while one is in use: after the last close no descriptor of the file is left."""
    one, _ = names

    def descriptors() -> int:
        return sum(os.path.realpath(f"/proc/self/fd/{each}") == one for each in os.listdir("/proc/self/fd"))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("the system does not list descriptors")
    store_in_use = ef.Store(one)
    store_in_use.append(noted(0))
    before = descriptors()
    for n in range(5):
        with ef.Store(one) as store:
            store.append(noted(n))
        assert descriptors() <= before + 2  # SQLite itself keeps those it may not close yet
    store_in_use.close()
    assert descriptors() == 0
