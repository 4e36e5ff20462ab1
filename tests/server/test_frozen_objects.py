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
from tests.server.connections import connections
from tests.server.test_short_path import ANY_TYPE, event, request


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
    """Garbage of an application that was replaced would otherwise stay forever."""
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


def test_an_application_that_was_replaced_is_freed_though_its_heads_do_not_come_again(tmp_path: Path) -> None:
    """Each of its requests had another head, as with a key of its own, and the short path had kept their routes."""
    path, other = tmp_path / "log.db", tmp_path / "other.db"
    ef.Store(str(path)).close()
    ef.Store(str(other)).close()

    async def main() -> None:
        replaced = asyncio.Event()
        async with connections(lambda: application(str(path), settings=ANY_TYPE), short=True) as running:
            running.app.at_replacement(replaced.set)
            client, old = running.connect(), weakref.ref(running.app.app)
            for number in range(3):
                client.send(request(event(), f"Idempotency-Key: {number}"))
                await client.answers()
            os.replace(other, path)
            client.send(request(event(), "Idempotency-Key: 3"))
            assert (await client.answers())[0][9:12] == b"503"
            async with asyncio.timeout(60):
                await replaced.wait()
            for _ in range(500):
                gc.collect()
                if old() is None:
                    break
                await asyncio.sleep(0.01)
            assert old() is None
            assert running.short == 4

    asyncio.run(main())
