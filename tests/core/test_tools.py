"""Tests of the published test tools: the clock, the faults, the blocking wrapper of async objects."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import eventfold as ef
from eventfold.engines.memory import MemoryEngine
from eventfold.errors import InvalidInput, StoreFull
from eventfold.testing import Clock, Faulty, LoopRunner, Synchronous
from eventfold.testing.conformance import CHAPTERS, promises


class Noted(ef.Event, type="tools.noted"):
    """Anything."""

    text: str = ""


def test_the_clock_stands_still() -> None:
    """It shows the time that was set, and moves only by a call, forwards and back."""
    clock = Clock(datetime(2020, 1, 1, tzinfo=UTC))
    assert clock.now == datetime(2020, 1, 1, tzinfo=UTC)
    assert clock.advance(1.5) - clock.back(0.5) == timedelta(seconds=0.5)
    assert clock() == clock.micros == 1_577_836_801_000_000
    clock.set(datetime(1999, 1, 1, tzinfo=UTC))
    assert clock.now.year == 1999
    with pytest.raises(InvalidInput):
        clock.set(datetime(1999, 1, 1))


def test_faults_strike_once_and_in_order() -> None:
    """Each planned fault hits one commit, in the planned order; later commits succeed."""
    faults = Faulty(MemoryEngine())
    store = ef.Store(faults).using(attempts=1)
    faults.fail_before(StoreFull("Full.", "Free space.")).lose_reply().drop_request()
    for error, head in ((StoreFull, 0), (ef.AppendUnconfirmed, 1), (ef.AppendUnconfirmed, 1)):
        with pytest.raises(error):
            store.append(Noted())
        assert store.head() == head
    assert store.append(Noted()).first == 2
    assert faults.commits == [1, 1, 1, 1]
    assert repr(faults).startswith("Faulty(")


def test_a_fault_after_the_commit_has_written() -> None:
    """`fail_after` writes and then raises the given error."""
    faults = Faulty(MemoryEngine())
    store = ef.Store(faults)
    faults.fail_after(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        store.append(Noted())
    assert store.head() == 1


def test_a_commit_can_be_delayed_or_held() -> None:
    """A delayed commit waits that long; a blocked one waits for its gate."""
    faults = Faulty(MemoryEngine())
    store = ef.Store(faults)
    faults.delay(0.05)
    began = time.monotonic()
    store.append(Noted())
    assert time.monotonic() - began >= 0.05
    with faults.hold() as gate:
        thread = threading.Thread(target=store.append, args=(Noted(),))
        thread.start()
        assert gate.arrived()
        assert store.head() == 1
    thread.join(60)
    assert store.head() == 2


def test_async_looks_synchronous() -> None:
    """Coroutines are awaited, async iterators are plain ones, errors are themselves, everything else passes through."""
    said: contextvars.ContextVar[str] = contextvars.ContextVar("said", default="nothing")

    class Inner:
        value = 5

        async def double(self, n: int) -> int:
            await asyncio.sleep(0)
            return 2 * n

        async def hears(self) -> str:
            return said.get()

        async def fails(self) -> None:
            raise KeyError("x")

        async def count(self, n: int) -> AsyncIterator[int]:
            for each in range(n):
                yield each

        def __aiter__(self) -> Any:
            return self.count(2)

    loop = LoopRunner()
    inner: Any = Synchronous(Inner(), loop)
    said.set("something")
    assert (inner.double(4), inner.value, inner.hears()) == (8, 5, "something")
    assert (list(inner.count(3)), list(inner)) == ([0, 1, 2], [0, 1])
    half = inner.count(3)
    assert next(half) == 0
    half.close()
    with pytest.raises(KeyError):
        inner.fails()
    loop.close()
    loop.close()


def test_the_contract_can_be_read() -> None:
    """Every chapter of the suite has a sentence, and so has every test of it."""
    found = list(promises())
    assert [chapter for chapter, _, _ in found] == CHAPTERS
    for chapter, sentence, sentences in found:
        assert sentence.endswith("."), chapter
        assert len(sentences) >= 3, chapter
        assert all(each.endswith(".") for each in sentences), chapter


def test_the_tools_need_no_pytest() -> None:
    """`eventfold.testing` can be imported where pytest is not installed."""
    code = "import sys; sys.modules['pytest'] = None; sys.modules['hypothesis'] = None; import eventfold.testing"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
