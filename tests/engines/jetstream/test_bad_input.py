"""Wrong addresses, servers, streams and indexes: each raises one clear error, and nothing is lost."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.concurrency import run
from eventfold.core.envelope import NewEvent
from eventfold.engines import begin_epoch_after_restore, open_engine
from eventfold.errors import (
    CursorMismatch,
    EventfoldError,
    InvalidEvent,
    InvalidUrl,
    NotAStore,
    ReplicaMismatch,
    StoreDamaged,
    StoreNotFound,
    StoreUnavailable,
)
from tests.engines.jetstream.conftest import Open
from tests.support.servers.nats import PASSWORD, Cluster, shared
from tests.support.servers.postgres import free_port
from tests.support.stores import ask, new_stream, stream_of


def refused(address: str, kind: type[EventfoldError], *words: str, **options: Any) -> EventfoldError:
    """Check that opening raises this error, in two sentences that contain these words and not the password."""
    caught: list[EventfoldError] = []
    before = threads()
    for opened in (lambda: ef.Store(address, **options), lambda: asyncio.run(_open(address, options))):
        with pytest.raises(kind) as raised:
            opened()
        caught.append(raised.value)
        check(raised.value, *words)
    assert threads() == before
    return caught[0]


async def _open(address: str, options: dict[str, Any]) -> None:
    async with ef.AsyncStore(address, **options):
        pass


def check(error: EventfoldError, *words: str) -> None:
    """Check that an error has two sentences with these words, a code, and neither password nor traceback."""
    assert error.what.endswith(".") and error.remedy.endswith("."), str(error)
    assert all(word in str(error) for word in words), str(error)
    assert PASSWORD not in str(error) and error.code
    assert error.__cause__ is None, "no driver's traceback"


def threads() -> set[threading.Thread]:
    """The threads of stores in clusters that run."""
    return {each for each in threading.enumerate() if each.name == "eventfold-nats"}


def event(size: int = 10, **more: Any) -> NewEvent:
    """An encoded event with data of this size."""
    return NewEvent.of("Noted", b'"' + b"x" * (size - 2) + b'"', tags=["note:1"], **more)


@pytest.mark.parametrize(
    "address",
    [
        "nats://h",
        "nats://h/",
        "nats:///x",
        "nats://h/a/b",
        "nats://h/a.b",
        "nats://h:0/x",
        "nats://h:x/x",
        "nats://h,/x",
    ],
)
def test_an_address_that_is_not_valid_is_refused(address: str) -> None:
    """The error says how one is written."""
    with pytest.raises(InvalidUrl) as raised:
        ef.Store(address)
    assert raised.value.remedy


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    """In the query, and as a keyword; and a file that does not exist."""
    for address, options in (("nats://h/x?pool=3", {}), ("nats://h/x", {"pool": 3}), ("nats://h/x?timeout=0", {})):
        with pytest.raises(InvalidUrl, match=r"consistency, durability"):
            ef.Store(address, **options)
    with pytest.raises(InvalidUrl, match="credentials"):
        ef.Store("nats://h/x?credentials=/nowhere/a.creds")


def test_servers_that_do_not_run_are_unavailable() -> None:
    """No server listens: the error comes at once, without waiting for the timeout of a call."""
    refused(
        f"nats://127.0.0.1:{free_port()},127.0.0.1:{free_port()}/x", StoreUnavailable, "can be reached", "127.0.0.1"
    )


def test_wrong_credentials_are_refused() -> None:
    """A wrong password: the error names the cluster, and where to correct it."""
    refused(shared().url("x", password="wrong"), StoreUnavailable, "credentials", "password")


def test_a_store_that_was_not_created_is_not_found() -> None:
    """Opening creates no stream; `eventfold init` does, once."""
    url = shared().url("none-here")
    refused(url, StoreNotFound, "none-here", "eventfold init")


def test_a_stream_of_another_program_is_no_store() -> None:
    """It has the name, but not the metadata."""
    ask(shared(), "STREAM.CREATE.EF_other", {"name": "EF_other", "subjects": ["other.>"], "num_replicas": 1})
    try:
        refused(shared().url("other"), NotAStore, "metadata")
    finally:
        ask(shared(), "STREAM.DELETE.EF_other")


def test_an_event_that_fits_into_no_message_is_refused_alone(single: Cluster, tmp_path: Path) -> None:
    """Headers are counted; other appends of the call are written, and the connection stays."""
    from eventfold.ports.messages import AppendRequest

    store = ef.Store(new_stream(single), index=str(tmp_path / "i.db"))
    engine, reconnects = store.engine, store.engine._session.connection.connects  # pyright: ignore
    sizes = (100, 64 * 1024, 64 * 1024 - 1_000, 64 * 1024 - 300, 300)
    done = run(engine.append_many([AppendRequest((event(size),)) for size in sizes]))
    assert [type(each) for each in done] == [ef.Receipt, InvalidEvent, ef.Receipt, InvalidEvent, ef.Receipt]
    large = done[1]
    assert isinstance(large, InvalidEvent) and "65,536" in large.what and "max_payload" in large.remedy
    tagged = event(10, metadata={"note": "x" * 60_000})
    assert store.append_encoded(tagged).last == 4
    with pytest.raises(InvalidEvent, match="as a message"):
        store.append_encoded(event(10, metadata={"note": "x" * 65_000}))
    assert store.append_encoded(event(30_000), event(30_000), event(30_000)).last == 7
    assert next(iter(store.read(after=3, raw=True))).metadata == {"note": "x" * 60_000}
    assert store.engine._session.connection.connects == reconnects  # pyright: ignore
    store.close()


def test_the_largest_event_of_eventfold_fits_into_the_servers_default(opening: Open) -> None:
    """A million bytes, with as many and as long tags as an event may have beside it."""
    store = opening()
    tags = [f"t{i}:{'ä' * 120}" for i in range(64)]
    store.append_encoded(NewEvent.of("Noted", b'"' + b"x" * 970_000 + b'"', tags=tags))
    assert store.head() == 1
    assert [len(each.tags) for each in store.read(raw=True)] == [64]


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"max_msgs": 1}, "max_msgs is 1"),
    ({"max_age": 10**12}, "max_age"),
    ({"discard": "old"}, "discard is old"),
    ({"allow_direct": False}, "allow_direct"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_a_stream_that_was_changed_is_refused(
    change: dict[str, Any], words: str, opening: Open, url: str, tmp_path: Path
) -> None:
    """At open, and by a store that is open already: at its next read."""
    store = opening()
    store.append_encoded(event(), event())
    config = ask(shared(), f"STREAM.INFO.{stream_of(url)}")["config"]
    ask(shared(), f"STREAM.UPDATE.{stream_of(url)}", config | change)
    error = refused(url, StoreDamaged, words, "eventfold copy", index=str(tmp_path / "new.db"))
    assert error.code == "store-damaged"
    with pytest.raises(StoreDamaged, match=words):
        store.head()
    with pytest.raises(StoreDamaged, match=words):
        store.append_encoded(event())


def test_a_stream_that_lost_its_last_events_is_noticed_by_the_index(opening: Open, url: str, tmp_path: Path) -> None:
    """The index has events that the stream does not: nothing is read, and the file stays. A new epoch goes on."""
    store = opening()
    for _ in range(5):
        store.append_encoded(event())
    store.close()
    recreate(url, events=2, hides=True)
    index = tmp_path / "0.db"
    refused(url, StoreDamaged, str(index), "ends at 2", "eventfold restored", index=str(index))
    assert index.exists()
    run(begin_epoch_after_restore(open_engine(url, "sync", True, {})))
    again = ef.Store(url, index=str(index))
    assert (again.head(), again.engine.epoch) == (2, store.engine.epoch + 1)
    assert index.exists() and (tmp_path / f"0-{again.engine.epoch}.db").exists()
    again.close()


def test_a_cursor_of_a_stream_that_was_recreated_is_refused(opening: Open, url: str) -> None:
    """Its creation time says so: the epoch is a later one, also for a store that is open."""
    store, local = opening(), opening(consistency="local")
    for _ in range(5):
        store.append_encoded(event())
    cursor, epoch = store.cursor(), store.engine.epoch
    recreate(url, events=3)
    assert store.engine.epoch == epoch
    with pytest.raises(CursorMismatch):
        list(store.read(after=cursor, raw=True))
    assert store.engine.epoch > epoch and store.head() == 3
    assert store.append_encoded(event()).last == 4
    assert local.append_encoded(event()).epoch == store.engine.epoch


def test_an_index_of_another_store_is_refused(opening: Open, tmp_path: Path) -> None:
    """A file that another store's events are in; it is not changed."""
    store = opening(index=str(tmp_path / "shared.db"))
    store.append_encoded(event())
    other = new_stream(shared())
    refused(other, ReplicaMismatch, "shared.db", index=str(tmp_path / "shared.db"))
    assert store.append_encoded(event()).last == 2


def recreate(url: str, events: int, *, hides: bool = False) -> None:
    """Delete a stream, create it again with the same configuration, and write its first events again.

    `hides`: the metadata say that it was created now, as if it was the first one.
    """
    stream = stream_of(url)
    config = ask(shared(), f"STREAM.INFO.{stream}")["config"]
    kept = [ask(shared(), f"STREAM.MSG.GET.{stream}", {"seq": each})["message"] for each in range(1, events + 1)]
    ask(shared(), f"STREAM.DELETE.{stream}")
    metadata = {key: value for key, value in config["metadata"].items() if not key.startswith("_nats")}
    made = ask(shared(), f"STREAM.CREATE.{stream}", config | {"metadata": metadata})
    if hides:
        known = {"eventfold-created": made["created"]}
        ask(shared(), f"STREAM.UPDATE.{stream}", config | {"metadata": metadata | known})
    for each in kept:
        ask(shared(), each["subject"], each)
