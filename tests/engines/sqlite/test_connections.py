"""Connections for reading have no mutex of SQLite: each is used by one thread at a time.

With a mutex apsw raises ThreadingViolationError if two threads use one connection; so these tests give the readers one.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from pathlib import Path
from typing import Any

import apsw
import pytest

import eventfold as ef
from eventfold.engines.sqlite import file
from eventfold.errors import EventfoldError
from tests.concurrency.crowd import fine, together

SECONDS = 1.5


class Used(ef.Event):
    by: ef.Tag
    number: int


class Uses(ef.State):
    by: ef.Tag
    count: int = 0

    def evolve(self, event: Used) -> None:
        self.count += 1


class UseRow(ef.Projection):
    by: str
    count: int = 0

    def evolve(self, event: Used) -> None:
        self.count += 1


class Interruption(Exception):
    pass


def interrupt(thread: threading.Thread) -> None:
    """Raise an exception in a thread, between any two of its bytecodes."""
    assert thread.ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Interruption))


def read(store: ef.Store) -> None:
    """Every kind of read, and reads that are left before their end."""
    assert store.state(Uses("first")).count == 100
    for each in store.read(ef.Query.of(types=Used), limit=30):
        if each.position > 20:
            break
    next(store.read(backwards=True))
    store.tags()
    store.tag_keys()
    store.types()
    store.rows(UseRow, by="first")
    assert store.view(UseRow)


@pytest.fixture
def with_mutex(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections for reading have SQLite's mutex, as apsw opens them by default."""
    monkeypatch.setattr(file, "READER_FLAGS", 0)


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is raised where no caller can catch it, for example when a cursor is freed."""
    found: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda given: found.append(given.exc_value))
    return found


@pytest.mark.usefixtures("with_mutex")
def test_no_two_threads_use_one_connection(tmp_path: Path, unraisable: list[Any]) -> None:
    """Eight threads that read, append and project at once, for a second and a half."""
    with ef.Store(str(tmp_path / "log.db")) as store:
        store.append(*[Used("first", n) for n in range(100)])
        store.project(UseRow)
        until = time.monotonic() + SECONDS

        def work(name: str) -> int:
            rounds = 0
            while time.monotonic() < until:
                store.append(Used(name, 1))
                read(store)
                rounds += 1
            return rounds

        rounds = fine(together([lambda n=n: work(f"t-{n}") for n in range(8)]))
        assert all(rounds)
    assert unraisable == []


@pytest.mark.usefixtures("with_mutex")
def test_no_interrupted_thread_leaves_its_connection_to_two(tmp_path: Path, unraisable: list[Any]) -> None:
    """Six threads that read while exceptions are raised in them, at any bytecode."""
    with ef.Store(str(tmp_path / "log.db")) as store:
        store.append(*[Used("first", n) for n in range(100)])
        store.project(UseRow)
        until = time.monotonic() + SECONDS
        failed: list[BaseException] = []
        interrupted = 0

        def work() -> None:
            nonlocal interrupted
            while time.monotonic() < until:
                try:
                    read(store)
                except Interruption:
                    interrupted += 1
                except (apsw.Error, EventfoldError) as error:
                    failed.append(error)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(6)]
        for thread in threads:
            thread.start()
        while time.monotonic() < until - 0.3:
            for thread in threads:
                interrupt(thread)
            time.sleep(0.005)
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
    assert interrupted > 20
    assert not [each for each in failed if isinstance(each.__cause__ or each, apsw.ThreadingViolationError)]
    assert not [each for each in unraisable if isinstance(each, apsw.ThreadingViolationError)]


def test_only_connections_for_reading_have_no_mutex(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection for writing has one, since its owner may be replaced after an exception."""
    opened: list[int] = []

    def connect(path: str, **options: Any) -> apsw.Connection:
        opened.append(options["flags"] & apsw.SQLITE_OPEN_NOMUTEX)
        return apsw.Connection(path, **options)

    monkeypatch.setattr(file, "connect", connect)
    with ef.Store(str(tmp_path / "log.db")) as store:
        assert all(opened)
        opened.clear()
        store.append(Used("x", 1))
        assert opened == [0]
