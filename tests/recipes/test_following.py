"""A follower knows, event by event, whether it has caught up."""

from __future__ import annotations

import asyncio

import eventfold as ef


class Rung(ef.Event, type="following-rung"):
    """A phone call came in."""

    number: int


def test_a_follower_has_caught_up_at_the_last_event() -> None:
    """It is not caught up while events of a page are left; so `if follower.caught_up: break` yields every event."""
    store = ef.Store("memory:")
    store.append(*[Rung(n) for n in range(5)])
    with store.follow() as follower:
        given: list[tuple[int, bool]] = []
        for recorded in follower:
            given.append((recorded.event.number, follower.caught_up))
            if follower.caught_up:
                break
    assert given == [(0, False), (1, False), (2, False), (3, False), (4, True)]


def test_a_follower_of_pages_has_caught_up_after_the_last() -> None:
    """With pages, the last page sets it; events appended meanwhile reset it."""
    store = ef.Store("memory:")
    store.append(*[Rung(n) for n in range(5)])
    with store.follow() as follower:
        pages = follower.pages(timeout=0)
        assert (len(next(pages)), follower.caught_up) == (5, True)
        assert (next(pages), follower.caught_up) == ([], True)
        store.append(Rung(5), Rung(6))
        assert next(iter(follower)).event.number == 5
        assert not follower.caught_up


def test_the_async_follower_is_its_twin() -> None:
    """Test the same with `async for`."""

    async def main() -> list[int]:
        async with ef.AsyncStore("memory:") as store:
            await store.append(*[Rung(n) for n in range(5)])
            given: list[int] = []
            async with store.follow() as follower:
                async for recorded in follower:
                    given.append(recorded.event.number)
                    if follower.caught_up:
                        break
            return given

    assert asyncio.run(main()) == [0, 1, 2, 3, 4]
