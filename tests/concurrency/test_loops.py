"""One AsyncStore on several event loops: it works, or raises at once that each loop needs its own; it never hangs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import eventfold as ef
from eventfold.errors import InvalidInput, NotSupported
from tests.support.servers.postgres import shared

DEADLINE_S = 60.0


class Noted(ef.Event, type="loops-noted"):
    """A note."""

    loop: ef.Tag


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store of each engine."""
    if request.param == "postgres":
        return shared().url(schema=f"s{uuid4().hex}")
    return "memory:" if request.param == "memory" else str(tmp_path / "store.db")


def on_loops(count: int, work: Callable[[int], Any]) -> list[object]:
    """Run a coroutine on `count` loops at once, each in a thread of its own. Returns the outcomes."""
    found: list[object] = [None] * count

    def run(number: int) -> None:
        try:
            found[number] = asyncio.run(asyncio.wait_for(work(number), DEADLINE_S))
        except Exception as error:  # noqa: BLE001 (returned to the test)
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S + 10)
    return found


def test_three_loops_at_once_work_or_are_refused(url: str) -> None:
    """On PostgreSQL the first loop owns the store, and the others raise: they need a store each."""
    store = ef.AsyncStore(url)
    ready = threading.Barrier(3)

    async def use(number: int) -> int:
        if number == 0:
            await store.open()
        await asyncio.to_thread(ready.wait, DEADLINE_S)
        try:
            for _ in range(5):
                await store.append(Noted(f"l{number}"))
            return await store.count()
        finally:
            await asyncio.to_thread(ready.wait, DEADLINE_S)  # the loop of the store lives until all have tried

    found = on_loops(3, use)
    if url.startswith("postgresql"):
        assert found[0] == 5
        for other in found[1:]:
            assert isinstance(other, InvalidInput), other
            assert "Open an AsyncStore for each event loop" in other.remedy
    else:
        assert all(isinstance(each, int) and each >= 5 for each in found), found
    asyncio.run(store.close())


def test_a_follower_on_another_loop_than_its_store_is_refused_or_works(url: str) -> None:
    """The store was opened on one loop, and its follower is used on another while the first one runs."""
    found: list[object] = []

    async def first(following: ef.AsyncStore) -> Any:
        async for page in following.follow().pages(timeout=DEADLINE_S):
            return len(page)

    def other(store: ef.AsyncStore) -> None:
        try:
            found.append(asyncio.run(asyncio.wait_for(first(store), DEADLINE_S)))
        except InvalidInput as refused:
            found.append(refused.remedy)

    async def main() -> None:
        async with ef.AsyncStore(url) as store:
            await store.append(Noted("a"))
            assert await store.count() == 1
            await asyncio.to_thread(other, store)

    asyncio.run(main())
    (outcome,) = found
    if url.startswith("postgresql"):
        assert "Open an AsyncStore for each event loop" in str(outcome)
    else:
        assert outcome == 1


def test_one_loop_after_the_other_may_use_a_store(url: str) -> None:
    """asyncio.run makes a new loop each time."""
    store = ef.AsyncStore(url)

    async def use(number: int) -> int:
        await store.append(Noted(f"l{number}"))
        return await store.count()

    assert [asyncio.run(use(number)) for number in range(3)] == [1, 2, 3]
    asyncio.run(store.close())


def test_without_asyncio_an_async_store_raises_not_supported(url: str) -> None:
    """On trio, or where a coroutine is driven without a loop, there is no loop to wait on."""
    for call in (lambda store: store.open(), lambda store: store.append(Noted("a")), lambda store: store.head()):
        with pytest.raises(NotSupported, match="asyncio") as refused:
            call(ef.AsyncStore(url)).send(None)
        assert "Store in threads" in refused.value.remedy
