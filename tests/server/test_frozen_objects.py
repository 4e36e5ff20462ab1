"""What a server has opened is excluded from garbage collection, also after its stores were opened again."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.errors import EventfoldError
from eventfold.server import application
from eventfold.server.reopening import Reopening
from eventfold.server.serve import freeze_objects


class Node:
    """An object that refers to itself: only the collector frees it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    """Leave nothing excluded for other tests."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def test_what_is_freeze_objects_is_not_looked_through_and_garbage_before_and_after_is_freed() -> None:
    """Garbage of an application that was replaced would otherwise stay for ever."""
    kept, before = Node(), weakref.ref(Node())
    freeze_objects()
    assert gc.get_freeze_count() > 1_000
    assert before() is None
    after, of_kept = weakref.ref(Node()), weakref.ref(kept)
    gc.collect()
    assert after() is None
    del kept
    gc.collect()
    assert of_kept() is not None, "it was frozen"
    freeze_objects()
    assert of_kept() is None, "what was frozen is looked through once more when the next application is"


def test_it_is_done_whenever_the_stores_were_opened(tmp_path: Path) -> None:
    """At the start, and when a file was replaced."""
    path, other = tmp_path / "log.db", tmp_path / "other.db"
    ef.Store(str(path)).close()
    ef.Store(str(other)).close()

    async def main() -> None:
        opened = asyncio.Semaphore(0)
        reopening = Reopening(lambda: application(str(path)), opened.release)
        async with reopening.lifespan():
            assert not opened.locked(), "it was called"
            await opened.acquire()
            first = reopening.app
            os.replace(other, path)
            with pytest.raises(EventfoldError) as refused:
                await first.server.stores["default"].append_encoded(ef.NewEvent.of("Scanned", b"{}"))
            first.server.running.note(refused.value)
            async with asyncio.timeout(60):
                await opened.acquire()
            assert reopening.app is not first

    asyncio.run(main())
