"""The order in which callers acquire the writer lock: appends before read models, and no read model waits forever."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from eventfold.engines.sqlite.writer_lock import WriterLock
from eventfold.errors import StoreBusy

pytestmark = pytest.mark.timeout(60)


def lock_at(path: Path) -> WriterLock:
    path.touch()
    return WriterLock(str(path), 30.0)


def test_a_free_lock_is_acquired_at_once(tmp_path: Path) -> None:
    """A read model does not wait if no append waits."""
    lock = lock_at(tmp_path / "log.db")
    began = time.monotonic()
    for _ in range(100):
        lock.acquire_after_others()
        lock.release()
    assert time.monotonic() - began < 1


def test_waiting_appends_come_first(tmp_path: Path) -> None:
    """Of two callers that wait, the append is nearly always first, although the read model has waited for longer.

    The read model tries again every 2 ms and wins if such a moment falls between the release and the wake-up of the
    append; a loaded machine makes that gap longer.
    """
    rounds = 10
    firsts = [first_of_two_waiting(tmp_path / f"{number}.db") for number in range(rounds)]
    assert firsts.count("append") > rounds // 2, firsts


def first_of_two_waiting(path: Path) -> str:
    """Hold the lock until a read model and an append wait for it, and return which of them acquired it first."""
    holder, append, follow = (lock_at(path) for _ in range(3))
    order: list[str] = []
    both = threading.Barrier(3)

    def as_read_model() -> None:
        both.wait()
        follow.acquire_after_others(20)
        order.append("read model")
        follow.release()

    def as_append() -> None:
        both.wait()
        time.sleep(0.05)
        append.acquire()
        time.sleep(0.05)  # the read model tries meanwhile
        order.append("append")
        append.release()

    holder.acquire()
    threads = [threading.Thread(target=each) for each in (as_read_model, as_append)]
    for thread in threads:
        thread.start()
    both.wait()
    time.sleep(0.15)
    holder.release()
    for thread in threads:
        thread.join()
    assert len(order) == 2
    return order[0]


def test_a_read_model_is_not_starved(tmp_path: Path) -> None:
    """Beside appends that pass the lock on without a gap, a read model queues with them after its patience."""
    path, stop = tmp_path / "log.db", threading.Event()

    def append_again_and_again() -> None:
        lock = lock_at(path)
        while not stop.is_set():
            lock.acquire()
            time.sleep(0.001)
            lock.release()

    writers = [threading.Thread(target=append_again_and_again) for _ in range(4)]
    for writer in writers:
        writer.start()
    try:
        follow = lock_at(path)
        began = time.monotonic()
        for _ in range(5):
            follow.acquire_after_others(0.02)
            follow.release()
        assert time.monotonic() - began < 5
    finally:
        stop.set()
        for writer in writers:
            writer.join()


def test_a_caller_that_timed_out_before_queues_again(tmp_path: Path) -> None:
    """A thread of an earlier caller still waits in the kernel's queue: the next caller gets the lock by it."""
    holder, follow = lock_at(tmp_path / "log.db"), lock_at(tmp_path / "log.db")
    holder.acquire()
    with pytest.raises(StoreBusy):
        follow.acquire(0.05)
    threading.Timer(0.1, holder.release).start()
    follow.acquire_after_others(0.001)
    assert holder.is_held()
    follow.release()
    assert not holder.is_held()
