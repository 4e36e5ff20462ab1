"""The fixtures of the shipped suites: a target of each kind, a sink of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

pytest.register_assert_rewrite("eventfold.testing.conformance")

from eventfold.targets.sinks.http import HttpSink
from eventfold.targets.sql.target import SqlTarget
from eventfold.targets.sqlite.driver import SqliteDriver
from eventfold.targets.sqlite.statements import SqliteStatements
from eventfold.testing.conformance.sink.fixtures import *
from eventfold.testing.conformance.sink.sink_under_test import SinkUnderTest
from eventfold.testing.conformance.target.fixtures import *
from eventfold.testing.conformance.target.target_under_test import TargetUnderTest
from tests.support.servers import mariadb, redis
from tests.support.servers.postgres import shared
from tests.targets.conftest import place
from tests.targets.receiver import SECRET, MemorySink, receiving

TARGETS = [
    "memory",
    "sqlite",
    "made by hand",
    "postgres",
    "postgresql",
    "duckdb",
    "parquet",
    "sqlite+pysqlite",
    "postgresql+psycopg",
    pytest.param("mysql+pymysql", marks=mariadb.needed),
]


@pytest.fixture(params=TARGETS)
def target_under_test(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TargetUnderTest]:
    """An empty target: the log's own database (memory, sqlite, postgres), or another one for a log in a file."""
    log = str(tmp_path / "store.db")

    def by_hand() -> SqlTarget:
        driver = SqliteDriver(str(tmp_path / "rows.db"))
        return SqlTarget(driver, SqliteStatements(driver))

    match request.param:
        case "memory":
            given = TargetUnderTest(None, f"memory:{uuid4().hex}", shared=False)
        case "sqlite":
            given = TargetUnderTest(None, log)
        case "postgres":
            given = TargetUnderTest(None, shared().url(schema=f"s{uuid4().hex[:12]}"))
        case "made by hand":
            given = TargetUnderTest(by_hand, log)
        case kind:
            given = TargetUnderTest(place(kind, tmp_path), log)
    yield given
    given.close()


@pytest.fixture(params=["small", "not asked", "http", pytest.param("redis", marks=redis.needed)])
def sink_under_test(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[SinkUnderTest]:
    """An empty sink: in memory, in memory without an answer to `held`, behind HTTP, in Redis."""
    monkeypatch.setattr("eventfold.targets.sinks.http.RETRY_PAUSES_S", (0.0, 0.0))
    if request.param == "http":
        with receiving() as receiver:
            yield SinkUnderTest(HttpSink(receiver.url, secret=SECRET), rows_of(receiver.sink), receiver.sink.lose)
    elif request.param == "redis":
        yield from redis_under_test(redis.shared().database())
    else:
        sink = MemorySink(askable=request.param == "small")
        yield SinkUnderTest(sink, rows_of(sink), sink.lose)


def rows_of(sink: MemorySink) -> Any:
    """The function that returns what readers of a sink in memory see."""
    return lambda name: list(sink.rows.get((name, sink.live[name]), {}).values())


def redis_under_test(address: str) -> Iterator[SinkUnderTest]:
    """A sink in an empty database of Redis."""
    import json

    from redis import Redis

    from eventfold.targets.sinks.redis import RedisSink

    reader, sink = Redis.from_url(address, decode_responses=True), RedisSink(address)
    yield SinkUnderTest(sink, lambda name: [json.loads(row) for row in reader.hvals(name)], lambda: reader.flushdb())
    sink.close()
    reader.close()
