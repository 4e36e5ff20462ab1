"""A store is copied into another of any engine, resumed where it stopped, and proven equal or shown to differ."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

import eventfold as ef
from eventfold.bridge import run
from eventfold.engine import Span
from eventfold.errors import CursorMismatch


class Noted(ef.Event, type="copy-noted"):
    """Something to copy."""

    topic: ef.Tag
    text: str


def filled(url: str, events: int = 2_500) -> ef.Store:
    """A store with some thousand events, in appends of five hundred."""
    store = ef.Store(url)
    for start in range(0, events, 500):
        store.append(*[Noted(f"t-{n % 7}", str(n)) for n in range(start, start + 500)], key=f"k-{start}")
    return store


@pytest.mark.parametrize("there", ["memory:", "file"])
@pytest.mark.parametrize("here", ["memory:", "file"])
def test_a_copy_is_the_same_log(here: str, there: str, tmp_path: Path) -> None:
    """Events, keys and order are equal afterwards, and the comparison says so."""
    source = filled(here if here == "memory:" else str(tmp_path / "here.db"))
    target = ef.Store(there if there == "memory:" else str(tmp_path / "there.db"))
    seen: list[tuple[int, int]] = []
    copied = source.copy_to(target, progress=lambda done, total: seen.append((done, total)))
    assert (copied.events, copied.written, copied.keys, copied.verified) == (2_500, 2_500, 5, True)
    assert [r.stored for r in source.read()] == [r.stored for r in target.read()]
    assert seen[-1] == (2_500, 2_500)


def test_an_interrupted_copy_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """What the target has is not copied again; what came to the source since is."""
    source, target = filled("memory:", 1_500), ef.Store(str(tmp_path / "there.db"))

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        source.copy_to(target, progress=interrupt)
    assert target.head() == 1_000
    source.append(Noted("t-1", "late"))
    copied = source.copy_to(target)
    assert (copied.events, copied.written) == (1_501, 501)


def test_a_store_with_another_history_is_refused(tmp_path: Path) -> None:
    """A target that holds anything but a beginning of the source is left as it is."""
    source, target = filled("memory:", 500), ef.Store(str(tmp_path / "there.db"))
    target.append(Noted("other", "history"))
    with pytest.raises(CursorMismatch, match="history of its own"):
        source.copy_to(target)
    assert target.head() == 1


def test_a_difference_is_named_by_its_position() -> None:
    """A copy that was tampered with fails the comparison at the first event that differs."""
    source, target = filled("memory:", 500), ef.Store("memory:")
    events = run(source.engine.read(ef.Query(), Span())).events
    events[76] = msgspec.structs.replace(events[76], data=b'{"topic":"t-6","text":"forged"}')
    run(target.engine.adopt(events))
    with pytest.raises(CursorMismatch, match="differ at position 77"):
        source.copy_to(target)


def test_followers_go_on_in_a_store_that_succeeds_the_old_one(tmp_path: Path) -> None:
    """A cursor kept against the source is honoured by its successor."""
    source, target = filled("memory:", 500), ef.Store(str(tmp_path / "there.db"))
    cursor = str(source.cursor(400))
    source.copy_to(target, succeed=True)
    with target.follow(after=cursor) as follower:
        assert next(iter(follower)).position == 401


def test_copying_works_for_async_callers(tmp_path: Path) -> None:
    """The same copy, awaited."""

    async def copied() -> bool:
        async with ef.AsyncStore("memory:") as here, ef.AsyncStore(str(tmp_path / "a.db")) as there:
            await here.extend([Noted("t", str(n)) for n in range(1_200)])
            return (await here.copy_to(there)).verified

    assert asyncio.run(copied())
