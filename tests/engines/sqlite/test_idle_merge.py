"""Merging while a process appends nothing: a thread that ends by itself, gives way, and keeps nothing open."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import apsw
import pytest

import eventfold as ef
from eventfold.engines.sqlite import idle_merge, merge, merge_schedule
from tests.engines.sqlite.noted import assert_whole, engine_of, noted
from tests.engines.sqlite.other import ROOT, Other

DEADLINE_S = 20.0


def running() -> list[threading.Thread]:
    """The threads that merge."""
    return [thread for thread in threading.enumerate() if thread.name == "eventfold-merge"]


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> None:
    """Threads of other tests' stores have ended."""
    gc.collect()
    until(lambda: not running())


def test_a_tail_is_merged_while_the_process_is_idle(path: str) -> None:
    """Slice by slice; then the thread ends, and the next long tail starts another."""
    with ef.Store(path) as store:
        for turn in (1, 2):
            store.extend(noted(n) for n in range(2_000))
            until(lambda turn=turn: store.stats()["indexed_through"] == 2_000 * turn)
            assert store.stats()["tail_events"] == 0
            until(lambda: not running())
        assert sum(store.count(ef.Query.of(tags=f"who:w-{n}")) for n in range(7)) == 4_000
    assert assert_whole(path) == 4_000


def test_a_short_tail_starts_no_thread(path: str) -> None:
    """It would be written again and again, a few entries at a time."""
    with ef.Store(path) as store:
        store.extend(noted(n) for n in range(idle_merge.MIN_EVENTS - 1))
        assert not running()
        store.append(noted(1))
        assert running()


def test_appends_go_first(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the process appends, the thread merges nothing; an append waits for one slice at most."""
    monkeypatch.setattr(merge_schedule, "IDLE_POSTINGS", 16)
    slices: list[int] = []
    whole = merge.Merge.step

    def noting(*args: Any) -> int:
        if threading.current_thread().name == "eventfold-merge":
            slices.append(1)
        return whole(*args)

    monkeypatch.setattr(merge.Merge, "step", noting)
    with ef.Store(path) as store:
        store.extend(noted(n, f"w-{n}") for n in range(1_000))
        end = time.monotonic() + 4 * idle_merge.IDLE_S
        while time.monotonic() < end:
            store.append(noted(1))
        assert not slices
        until(lambda: slices)
        done = len(slices)
        store.append(noted(2))
        assert len(slices) <= done + 2
        assert store.stats()["tail_events"] > 1_000


def test_closing_a_store_ends_its_thread_and_merges_the_rest(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the middle of a merge."""
    monkeypatch.setattr(merge_schedule, "IDLE_POSTINGS", 8)
    store = ef.Store(path)
    store.extend(noted(n, f"w-{n}") for n in range(1_000))
    merging = engine_of(store)._writer.merging  # type: ignore[union-attr]
    # On a loaded machine the merge may have ended before it is looked at.
    until(lambda: merging._merge is not None or store.stats()["tail_events"] == 0)
    store.close()
    assert not running()
    assert assert_whole(path) == 1_000
    with ef.Store(path) as again:
        assert again.stats()["tail_events"] == 0


def test_a_dropped_store_is_not_kept_open_by_the_thread(path: str) -> None:
    """The thread has a weak reference and ends."""
    store = ef.Store(path)
    store.extend(noted(n) for n in range(1_000))
    assert running()
    del store
    gc.collect()
    until(lambda: not running())
    assert assert_whole(path) == 1_000


def test_a_process_ends_while_its_thread_merges(path: str) -> None:
    """At once, without closing the store."""
    program = f"""
import time, eventfold as ef
from eventfold.engines.sqlite import idle_merge, merge_schedule
from tests.engines.sqlite.noted import noted
idle_merge.IDLE_S, merge_schedule.IDLE_POSTINGS = 0.001, 8
store = ef.Store({path!r})
store.extend(noted(n) for n in range(2_000))
time.sleep(0.05)
"""
    for _ in range(3):
        begun = time.monotonic()
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=DEADLINE_S)
        assert time.monotonic() - begun < 10
    assert assert_whole(path) == 6_000


def test_a_process_beside_another_that_appends_leaves_the_tail_to_it(path: str, process: Callable[..., Other]) -> None:
    """It has seen commits of another connection since its last look."""
    other = process()
    other(f"store = ef.Store({path!r})")
    with ef.Store(path) as store:
        store.extend(noted(n) for n in range(600))
        other.start("[(store.append(noted(n)), time.sleep(0.02)) for n in range(25)] and 0")
        time.sleep(0.4)
        assert store.stats()["indexed_through"] == 0
        other.answer()
        until(lambda: store.stats()["tail_events"] == 0)
    other("store.close()")
    assert assert_whole(path) == 625


def test_an_idle_file_is_closed_although_its_tail_waits_for_another_process(
    path: str, process: Callable[..., Other]
) -> None:
    """To look whether the other process is still active is no use of the file."""
    other = process()
    other(f"store = ef.Store({path!r})")
    with ef.Store(path, max_idle=0.3) as store:
        store.append(noted(0))
        other.start("[(store.append(noted(n)), time.sleep(0.02)) for n in range(100)] and 0")
        time.sleep(0.1)
        store.extend(noted(n) for n in range(600))
        time.sleep(1.2)
        assert engine_of(store)._file.is_idle
        other.answer()
    other("store.close()")
    assert assert_whole(path) == 701


def test_two_idle_processes_merge_one_tail(path: str, process: Callable[..., Other]) -> None:
    """Each has written half of it; one of them merges, and neither hinders the other for long."""
    other = process()
    other(f"store = ef.Store({path!r})")
    with ef.Store(path) as store:
        for _ in range(6):
            store.extend(noted(n) for n in range(300))
            other("store.extend(noted(n) for n in range(300)) and 0")
        until(lambda: store.stats()["tail_events"] < idle_merge.MIN_EVENTS)
        assert sum(store.count(ef.Query.of(tags=f"who:w-{n}")) for n in range(7)) == 3_600
        other("store.close()")
    assert assert_whole(path) == 3_600


def test_a_slice_that_fails_while_idle_is_logged_and_tried_again(
    path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread ends; a later append starts it again."""
    whole = merge.Merge.step

    def fail(*_: Any) -> int:
        raise apsw.IOError("planted")

    with ef.Store(path) as store:
        monkeypatch.setattr(merge.Merge, "step", fail)
        store.extend(noted(n) for n in range(1_000))
        until(lambda: "could not be merged" in caplog.text)
        until(lambda: not running())
        monkeypatch.setattr(merge.Merge, "step", whole)
        store.append(noted(1))
        assert not running()  # too soon
        engine_of(store)._writer.merging._retry_at = 0.0  # type: ignore[union-attr]
        store.append(noted(1))
        until(lambda: store.stats()["tail_events"] == 0)
        assert "merge_error" not in store.stats()
    assert assert_whole(path) == 1_002


def test_after_a_fork_the_parent_goes_on_merging_and_the_child_opens_its_own_store(path: str) -> None:
    """The child has no thread of the parent."""
    with ef.Store(path) as store:
        store.extend(noted(n) for n in range(1_000))
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                if not running():
                    with ef.Store(path) as mine:
                        mine.extend(noted(n) for n in range(500))
                        code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        store.extend(noted(n) for n in range(1_000))
        until(lambda: store.stats()["tail_events"] == 0)
    assert assert_whole(path) == 2_500


def test_a_file_closed_while_idle_is_not_opened_to_merge(path: str) -> None:
    """The next append opens it and starts the thread again."""
    with ef.Store(path, max_idle=60.0) as store:
        engine = engine_of(store)
        store.extend(noted(n) for n in range(1_000))
        assert engine._file.close_while_idle()
        until(lambda: not running())
        assert engine._file.is_idle
        store.append(noted(1))
        until(lambda: store.stats()["tail_events"] == 0)
    assert assert_whole(path) == 1_001
