"""Where read models and progress are stored: in the engine's default target, or in the one passed to the store.

Knows: engines of other names, engines given as objects. Does not know: how rows are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import msgspec
import pytest
from psycopg.conninfo import make_conninfo

import eventfold as ef
from eventfold.concurrency import Offload
from eventfold.engines.memory import MemoryEngine
from eventfold.engines.postgres import PostgresEngine
from eventfold.engines.sqlite import SqliteEngine
from eventfold.errors import InvalidUrl, NotSupported
from eventfold.ports.engine import Engine
from eventfold.testing.faults import Faulty
from tests.cli.commands import run as eventfold
from tests.projections.flights import CarrierMonth, Departed, flights
from tests.support.servers.postgres import PostgresServer


class Foreign(Faulty):
    """A durable engine of another technology, whose log has no place for rows."""

    default_target: str | None = None

    def __init__(self, path: Path) -> None:
        super().__init__(SqliteEngine(str(path)))
        self.name = "elsewhere"


class Mail(ef.Subscription, start="beginning"):
    """A subscription."""

    def departed(self, event: Departed) -> None:
        """Do nothing."""


def foreign(folder: Path) -> Engine:
    """Return the engine wrapped as a store takes it."""
    return cast(Engine, Foreign(folder / "log.db"))


ASKED: dict[str, Callable[[ef.Store], Any]] = {
    "project": lambda store: store.project(CarrierMonth),
    "run": lambda store: store.run(CarrierMonth),
    "settle": lambda store: store.run_until_idle(CarrierMonth),
    "subscription": lambda store: store.run_until_idle(Mail()),
    "follow": lambda store: next(iter(store.follow(name="billing"))),
    "wait": lambda store: store.wait(CarrierMonth),
    "wait by name": lambda store: store.wait("carrier_month"),
    "rows": lambda store: store.rows(CarrierMonth),
    "status": lambda store: store.projections.status(CarrierMonth),
    "rebuild": lambda store: store.projections.rebuild(CarrierMonth),
    "verify": lambda store: store.projections.verify(CarrierMonth),
}


@pytest.mark.parametrize("asked", ASKED)
def test_an_engine_without_a_place_for_rows_refuses_read_models(asked: str, tmp_path: Path) -> None:
    """Anything that needs to store rows or progress is refused, and the error says what to write instead."""
    with ef.Store(foreign(tmp_path)) as store:
        store.append(*flights(3))
        with pytest.raises(NotSupported) as refused:
            ASKED[asked](store)
    assert refused.value.fields == {"engine": "elsewhere", "capability": "default target"}
    assert "target=" in refused.value.remedy


def test_an_async_store_refuses_them_as_well(tmp_path: Path) -> None:
    """The same in async mode, including followers."""

    async def ask() -> None:
        async with ef.AsyncStore(foreign(tmp_path)) as store:
            await store.append(*flights(3))
            with pytest.raises(NotSupported):
                await store.project(CarrierMonth)
            with pytest.raises(NotSupported):
                await store.run_until_idle(Mail())
            with pytest.raises(NotSupported):
                async with store.follow(name="billing") as follower:
                    await anext(aiter(follower))

    asyncio.run(ask())


def test_a_store_can_be_given_a_target(tmp_path: Path) -> None:
    """With Store(target=…) rows and progress are stored there, and another store on the log continues from them."""
    rows = str(tmp_path / "rows.db")
    with ef.Store(foreign(tmp_path), target=rows) as store:
        store.append(*flights(20))
        store.project(CarrierMonth)
        with store.follow(name="billing") as follower:
            first = next(iter(follower))
            follower.acknowledge()
        made = store.rows(CarrierMonth)
    with ef.Store(foreign(tmp_path), target=rows) as again:
        assert again.rows(CarrierMonth) == made != []
        assert [known.name for known in again.projections.list()] == ["billing", "carrier_month"]
        with again.follow(name="billing") as follower:
            assert next(iter(follower)).position == first.position + 1


def test_a_place_that_only_takes_rows_keeps_no_progress(tmp_path: Path) -> None:
    """A sink has no transactions: as the store's own target it is refused at the first use."""
    with ef.Store(foreign(tmp_path), target="https://127.0.0.1:1/") as store, pytest.raises(InvalidUrl):
        store.project(CarrierMonth)


class Apart(ef.Projection, target="sqlite:apart.db"):
    """A read model whose class sets its target."""

    carrier: str
    count: int = 0

    def evolve(self, event: Departed) -> None:
        """Count."""
        self.count += 1


def test_a_read_model_may_say_itself_where_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a class has its own `target`, the engine's is not needed, neither to project it nor to run it."""
    monkeypatch.chdir(tmp_path)
    with ef.Store(foreign(tmp_path)) as store:
        store.append(*flights(20))
        store.project(Apart)
        made = store.rows(Apart)
        assert [known.name for known in store.projections.list()] == ["apart"]
        with store.run(Apart):
            last = store.append(*flights(20, 20)).last
            made = store.rows(Apart, wait=last)
        assert len(made) and not store.append(*flights(20, 40)).repeated
        store.run_until_idle(Apart)
        made = store.rows(Apart)
    with ef.Store(foreign(tmp_path)) as again:
        assert again.rows(Apart) == made != []


@pytest.mark.parametrize("mode", ["sync", "async", "offloaded"])
@pytest.mark.parametrize("form", ["url", "pairs"])
def test_a_postgres_engine_given_as_an_object_has_read_models(server: PostgresServer, mode: str, form: str) -> None:
    """Its address may have either form: rows and progress are in the schema of the log, as with an address."""
    schema = f"s{uuid4().hex[:12]}"
    address = server.url(schema=schema)
    given = server.url() if form == "url" else make_conninfo(server.url())
    engine = PostgresEngine(given, schema=schema, mode="async" if mode == "async" else "sync")
    if mode == "sync":
        with ef.Store(engine) as store:
            store.append(*flights(20))
            store.project(CarrierMonth)
            made = store.rows(CarrierMonth)
            with store.follow(name="billing") as follower:
                next(iter(follower))
                follower.acknowledge()
    else:

        async def use() -> list[CarrierMonth]:
            async with ef.AsyncStore(engine) as store:
                await store.append(*flights(20))
                await store.project(CarrierMonth)
                async with store.follow(name="billing") as follower:
                    await anext(aiter(follower))
                    await follower.acknowledge()
                return await store.rows(CarrierMonth)

        made = asyncio.run(use())
    with ef.Store(address, create=False) as again:
        assert again.rows(CarrierMonth) == made != []
        with again.follow(name="billing") as follower:
            assert next(iter(follower)).position == 2


def test_an_engine_that_only_works_on_a_loop_says_what_it_lacks(server: PostgresServer) -> None:
    """Threads run read models: an async engine passed as an object must offer a blocking one."""

    async def use() -> None:
        engine = PostgresEngine(server.url(schema=f"s{uuid4().hex[:12]}"), mode="async")
        engine.services = msgspec.structs.replace(engine.services, blocking=None)
        async with ef.AsyncStore(engine) as store:
            with pytest.raises(NotSupported) as refused:
                await store.project(CarrierMonth)
        assert refused.value.fields["capability"] == "blocking"

    asyncio.run(use())


def test_wrappers_say_what_the_engine_within_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine around an engine has the same target, and a file stays the same when the process changes folder."""
    monkeypatch.chdir(tmp_path)
    memory, file = MemoryEngine(), SqliteEngine("log.db")
    expected = f"sqlite:{tmp_path / 'log.db'}"
    monkeypatch.chdir("/")
    assert file.default_target == expected
    for wrapper in (Faulty, Offload):
        assert cast(Any, wrapper)(memory).default_target == "memory:"
        assert cast(Any, wrapper)(file).default_target == expected


@pytest.mark.parametrize("address", ["new.db", "sqlite:new.db", "sqlite:///new.db", "duckdb:new.db"])
@pytest.mark.parametrize("words", [["projections", "status"], ["projections", "list"]])
def test_a_command_that_only_looks_creates_no_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], address: str
) -> None:
    """The error names the file; `eventfold run` creates it, after which the command finds it."""
    monkeypatch.chdir(tmp_path)
    ef.Store("store.db").close()
    refused = eventfold(*words, "store.db", "--target", address)
    assert "There is no database of read models at new.db" in refused.err
    assert not (tmp_path / "new.db").exists()
    if "duckdb" not in address:
        with ef.Store("store.db", target=address) as store:
            store.project(CarrierMonth)
        assert eventfold(*words, "store.db", "--target", address).code == 0
