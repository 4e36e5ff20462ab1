"""A store is copied into another of any engine, resumed after an interruption, and verified to be equal."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

import eventfold as ef
from eventfold.concurrency import run
from eventfold.errors import CursorMismatch, InvalidInput
from eventfold.ports.messages import Span
from tests.cli.commands import run as run_command


class Noted(ef.Event, type="copy-noted"):
    """Something to copy."""

    topic: ef.Tag
    text: str


def filled(url: str, events: int = 2_500) -> ef.Store:
    """Return a store with some thousand events, in appends of five hundred."""
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
    """Events in the target are not copied again; the source's new events are."""
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
    """A target whose log is not a prefix of the source's is left as it is."""
    source, target = filled("memory:", 500), ef.Store(str(tmp_path / "there.db"))
    target.append(Noted("other", "history"))
    with pytest.raises(CursorMismatch, match="history of its own"):
        source.copy_to(target)
    assert target.head() == 1


def test_a_difference_is_named_by_its_position() -> None:
    """The comparison of a changed copy fails at the first event that differs."""
    source, target = filled("memory:", 500), ef.Store("memory:")
    events = run(source.engine.read(ef.Query(), Span())).events
    events[76] = msgspec.structs.replace(events[76], data=b'{"topic":"t-6","text":"forged"}')
    run(target.engine.services.replication.import_events(events))
    with pytest.raises(CursorMismatch, match="differ at position 77"):
        source.copy_to(target)


def test_followers_go_on_in_a_store_that_succeeds_the_old_one(tmp_path: Path) -> None:
    """A cursor saved for the source is valid in its successor."""
    source, target = filled("memory:", 500), ef.Store(str(tmp_path / "there.db"))
    cursor = str(source.cursor(400))
    source.copy_to(target, keep_identity=True)
    with target.follow(after=cursor) as follower:
        assert next(iter(follower)).position == 401


def test_copying_works_for_async_callers(tmp_path: Path) -> None:
    """The same holds for AsyncStore."""

    async def copied() -> bool:
        async with ef.AsyncStore("memory:") as here, ef.AsyncStore(str(tmp_path / "a.db")) as there:
            await here.extend([Noted("t", str(n)) for n in range(1_200)])
            return (await here.copy_to(there)).verified

    assert asyncio.run(copied())


def test_a_store_with_events_of_its_own_does_not_take_an_identity(tmp_path: Path) -> None:
    """With keep_identity after a copy without it, the target refuses, and nothing in it is changed."""
    source, target = filled("memory:", 500), ef.Store(str(tmp_path / "there.db"))
    assert not source.copy_to(target).succeeded
    source.append(Noted("t-1", "late"))
    with pytest.raises(InvalidInput, match="identity of its own"):
        source.copy_to(target, keep_identity=True)
    assert target.head() == 500
    assert target.engine.store_id != source.engine.store_id
    assert source.copy_to(target).events == 501


def test_a_copy_with_the_identity_goes_on_after_an_interruption(tmp_path: Path) -> None:
    """The identity taken when the copy began stays when the copy goes on, with or without keep_identity."""
    source, target = filled("memory:", 1_500), ef.Store(str(tmp_path / "there.db"))

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        source.copy_to(target, keep_identity=True, progress=interrupt)
    for keep_identity in (True, False, True):
        copied = source.copy_to(target, keep_identity=keep_identity)
        assert (copied.events, copied.succeeded, copied.verified) == (1_500, True, True)
    assert (target.engine.store_id, target.engine.epoch) == (source.engine.store_id, source.engine.epoch + 1)
    assert target.verify(source.cursor(400)) == 400


def test_the_command_says_whether_the_identity_was_taken(tmp_path: Path) -> None:
    """`eventfold copy --keep-identity` reports it, or ends with an error."""
    here, there = str(tmp_path / "here.db"), str(tmp_path / "there.db")
    filled(here, 500).close()
    for _ in range(2):
        assert run_command("copy", here, there, "--keep-identity").lines[0]["succeeded"] is True
    other = str(tmp_path / "other.db")
    assert run_command("copy", here, other).lines[0]["succeeded"] is False
    refused = run_command("copy", here, other, "--keep-identity")
    assert refused.code != 0
    assert "identity of its own" in refused.err


def test_a_copy_to_a_value_that_is_no_store_is_refused() -> None:
    """A path, or a store of the other mode, raises an error that says what to pass, and no AttributeError."""
    with ef.Store("memory:") as store:
        for target in ("copy.db", None, ef.AsyncStore("memory:")):
            with pytest.raises(InvalidInput, match=r"copy_to\(ef\.Store"):
                store.copy_to(target)  # type: ignore[arg-type]

    async def awaited() -> None:
        async with ef.AsyncStore("memory:") as store:
            with pytest.raises(InvalidInput, match=r"copy_to\(ef\.AsyncStore"):
                await store.copy_to("copy.db")  # type: ignore[arg-type]

    asyncio.run(awaited())
