"""Stores where nothing can be written: with and without the files of the write-ahead log."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import eventfold as ef
from tests.cli.commands import COMMAND
from tests.engines.sqlite.noted import Noted, foreign, noted
from tests.engines.sqlite.other import Other
from tests.support.programs import needs_mounts

OPTIONS = ({}, {"readonly": True}, {"create": False})
BESIDE = ("-wal", "-shm", ".lock")


class Count(ef.Projection):
    """The number of events of each `who`."""

    who: str
    n: int = 0

    def evolve(self, event: Noted) -> None:
        """Add one."""
        self.n += 1


COUNT = """
class Count(ef.Projection):
    who: str
    n: int = 0
    def evolve(self, event: Noted) -> None:
        self.n += 1
"""


def closed(path: str) -> None:
    """Create a store and close it."""
    with ef.Store(path) as store:
        store.append(noted(1, "a"), noted(2, "a"))
        store.project(Count)


def copied(path: str) -> None:
    """Create a store as `backup` copies one: a single file."""
    closed(path)
    with ef.Store(path) as store:
        store.backup(f"{path}.copy")
    for end in ("", *BESIDE):
        Path(path + end).unlink()
    os.rename(f"{path}.copy", path)


def alone(path: str) -> None:
    """Create a store of which only the file itself was copied."""
    closed(path)
    for end in BESIDE:
        Path(path + end).unlink()


def mounted(path: str, process: Callable[..., Other]) -> Other:
    """Start a process that sees the folder of a path as a read-only mount."""
    folder = os.path.dirname(path)
    other = process("unshare", "-rm")
    assert other(f"os.system('mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}')") == 0
    other(COUNT)
    return other


@needs_mounts
@pytest.mark.parametrize("left", [closed, copied, alone])
def test_a_closed_store_is_read_on_a_read_only_mount(
    left: Callable[[str], None], path: str, process: Callable[..., Other]
) -> None:
    """All events, states and rows are read, with any option; appends raise StoreReadOnly."""
    left(path)
    other = mounted(path, process)
    for options in OPTIONS:
        other(f"store = ef.Store({path!r}, **{options!r})")
        assert other("[recorded.event.n for recorded in store.read()]") == [1, 2]
        assert other("[store.head(), store.count(), store.rows(Count)[0].n]") == [2, 2, 2]
        other.start("store.append(noted(3))")
        assert other.outcome()["error"] == "StoreReadOnly"
        other("store.close()")


@needs_mounts
def test_read_models_in_a_closed_separate_file_are_read_there(path: str, process: Callable[..., Other]) -> None:
    """The read model's target is a second file, of which only the file itself was copied."""
    rows = os.path.join(os.path.dirname(path), "rows.db")
    with ef.Store(path, target=f"sqlite:{rows}") as store:
        store.append(noted(1, "a"))
        store.project(Count)
    foreign(rows, "PRAGMA wal_checkpoint(truncate)")
    for end in BESIDE:
        for each in (path, rows):
            Path(each + end).unlink(missing_ok=True)
    other = mounted(path, process)
    other(f"store = ef.Store({path!r}, target='sqlite:{rows}', readonly=True)")
    assert other("store.rows(Count)[0].n") == 1


READING = ["read", "verify", "projections status"]


@needs_mounts
def test_commands_that_read_work_on_a_read_only_mount(path: str, process: Callable[..., Other]) -> None:
    """Each exits with 0."""
    copied(path)
    other = mounted(path, process)
    other("import subprocess")
    for words in READING:
        verb, *rest = words.split()
        group = [rest.pop(0)] if verb == "projections" else []
        command = [*COMMAND, verb, *group, path, *rest]
        code, stderr = other(
            f"(lambda r: [r.returncode, r.stderr])(subprocess.run({command!r}, capture_output=True, text=True))"
        )
        assert code == 0, (words, stderr)


@needs_mounts
def test_events_written_through_another_mount_are_read(path: str, process: Callable[..., Other]) -> None:
    """The folder is writable elsewhere: a reader without locks takes locks as soon as there is a write-ahead log."""
    alone(path)
    other = mounted(path, process)
    other(f"store = ef.Store({path!r})")
    assert other("store.count()") == 2
    with ef.Store(path) as store:
        store.append(noted(3, "a"))
        assert other("[recorded.event.n for recorded in store.read()]") == [1, 2, 3]
        store.append(noted(4, "a"))
        assert other("store.count()") == 4


@needs_mounts
def test_an_unreadable_write_ahead_log_is_named_as_the_reason(path: str, process: Callable[..., Other]) -> None:
    """Events are in the log, whose index is missing: opening raises instead of leaving them out."""
    killed = process()
    killed(f"store = ef.Store({path!r}); store.append(noted(1))")
    killed.kill()
    Path(path + "-shm").unlink()
    other = mounted(path, process)
    for options in OPTIONS:
        other.start(f"ef.Store({path!r}, **{options!r})")
        found = other.outcome()
        assert found["error"] == "StoreReadOnly" and "write-ahead log" in found["text"]
    elsewhere = path + ".d"
    os.mkdir(elsewhere)
    for end in ("", "-wal"):
        shutil.copy(path + end, f"{elsewhere}/store.db{end}")
    with ef.Store(f"{elsewhere}/store.db") as store:
        assert store.count() == 1
