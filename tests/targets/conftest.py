"""Stores with read models in other targets: tests of tests/projections run with each of these targets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import msgspec
import psycopg
import pytest

import eventfold as ef
from eventfold.ports.engine import Engine
from eventfold.ports.target import Target
from eventfold.projections.catalog import ProjectionCatalog
from eventfold.projections.definition import ProjectionDefinition
from eventfold.targets import own_target
from tests.support.memory import disk_path as disk_path
from tests.support.memory import tmp_path as tmp_path
from tests.support.servers import mariadb, redis
from tests.support.servers.postgres import shared


def postgres_database() -> str:
    """The address of a new database of this process's server, without a scheme."""
    name = f"d{uuid4().hex[:12]}"
    with psycopg.connect(shared().url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return shared().url(database=name).removeprefix("postgresql")


PLACES = [
    "sqlite+pysqlite",
    "postgresql+psycopg",
    "postgresql",
    "duckdb",
    "parquet",
    pytest.param("mysql+pymysql", marks=mariadb.needed),
    pytest.param("redis", marks=redis.needed),
]


def place(kind: str, folder: Path) -> str:
    """The address of a new target."""
    match kind:
        case "sqlite+pysqlite":
            return f"{kind}:///{folder}/rows.db"
        case "duckdb":
            return f"duckdb:{folder}/rows.duckdb"
        case "parquet":
            return f"parquet:{folder}/rows?every=0"
        case "mysql+pymysql":
            return mariadb.shared().database()
        case "redis":
            return redis.shared().database()
        case _:
            return f"{kind}{postgres_database()}"


@pytest.fixture(params=PLACES)
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The default target of this test."""
    address = place(request.param, tmp_path)

    def opened(engine: Engine, wanted: str | None = None) -> Target:
        return own_target(engine, wanted or address)

    def of(catalog: ProjectionCatalog, plan: ProjectionDefinition) -> Target:
        sent = plan.kind == "rows" and plan.target is None
        return own(catalog, msgspec.structs.replace(plan, target=address) if sent else plan)

    if request.param == "redis":  # rows are sent there from the store's own database
        own = ProjectionCatalog.target_of
        monkeypatch.setattr(ProjectionCatalog, "target_of", of)
    else:
        monkeypatch.setattr("eventfold.wiring.own_target", opened)
    return address


@pytest.fixture
def url(elsewhere: str, tmp_path: Path) -> str:
    """The address of a log, in a file."""
    return str(tmp_path / "store.db")


@pytest.fixture
def shared_url(url: str) -> str:
    """The address of a log, which several stores may open."""
    return url


@pytest.fixture
def either(store: ef.Store) -> ef.Store:
    """The store: a target does not depend on the mode."""
    return store


@pytest.fixture
def store(url: str) -> Iterator[ef.Store]:
    """An empty store whose rows are in another target."""
    with ef.Store(url) as store:
        yield store
