"""Each extra, alone in an empty environment: what it is for is used once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packaging.dependencies import direct
from tests.packaging.environments import new_environment, run
from tests.support.programs import Missing, needs_ability
from tests.support.servers import nats, redis
from tests.support.servers.http import ServerProcess
from tests.support.servers.postgres import shared
from tests.support.stores import new_stream

SEATS = """
import eventfold as ef

class Taken(ef.Event):
    seat: ef.Tag

class Seats(ef.Projection{options}):
    seat: str
    taken: int = 0
    def evolve(self, event: Taken) -> None:
        self.taken += 1

with ef.Store({store!r}) as store:
    store.append(Taken("a"), Taken("b"), Taken("a"))
    store.project(Seats)
    print(sorted((row.seat, row.taken) for row in store.rows(Seats)))
"""
SENT = SEATS.replace(
    "sorted((row.seat, row.taken) for row in store.rows(Seats))",
    "len(redis.Redis.from_url({url!r}).keys('*')) >= 2",
)
PROPERTIES = """
import eventfold as ef
from eventfold.testing import conformance, properties, strategies
from hypothesis import given

class Taken(ef.Event):
    seat: ef.Tag

@given(strategies.events_of(Taken))
def test_events_come_back(events: list[Taken]) -> None:
    properties.events_come_back(events)
"""


SERVED = """
import http.client, socket, threading
import eventfold as ef, uvicorn
from eventfold.server import Settings, application
from eventfold.server.settings import EventSettings

app = application(ef.AsyncStore("memory:"), settings=Settings(events=EventSettings(accept_unknown=True)))
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
server = uvicorn.Server(uvicorn.Config(app, log_level="error", http="httptools", loop="uvloop"))
thread = threading.Thread(target=server.run, args=([listener],))
thread.start()
while not server.started:
    assert thread.is_alive()
connection = http.client.HTTPConnection(*listener.getsockname())

def call(method, path, body=None, **headers):
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()

body = '{{"events": [{{"type": "Taken", "tags": ["seat:a"], "data": {{"seat": "a"}}}}]}}'
print(call("POST", "/v1/events", body, **{{"Content-Type": "application/json"}})[0])
print({print})
server.should_exit = True
thread.join()
"""


def program(python: Path, folder: Path, text: str) -> str:
    """The output of a program in the environment."""
    path = folder / "program.py"
    path.write_text(text, "utf-8")
    return run([python, path], folder)


def use_postgres(python: Path, folder: Path) -> None:
    """A store and its read model on a server."""
    try:
        url = f"{shared().url()}?schema=only_this_extra"
    except RuntimeError:
        raise Missing("a PostgreSQL server", "postgresql") from None
    assert program(python, folder, SEATS.format(options="", store=url)) == "[('a', 2), ('b', 1)]\n"


def use_sqlalchemy(python: Path, folder: Path) -> None:
    """Rows in a database that SQLAlchemy opens."""
    options = ", target='sqlite+pysqlite:///rows.db'"
    assert program(python, folder, SEATS.format(options=options, store="seats.db")) == "[('a', 2), ('b', 1)]\n"


def use_migrate(python: Path, folder: Path) -> None:
    """The tables of a server, which a migration would read."""
    try:
        url = shared().url()
    except RuntimeError:
        raise Missing("a PostgreSQL server", "postgresql") from None
    text = f"""
from eventfold.migrate.connection import opened
from eventfold.migrate.reflection import reflect

with opened({url!r}) as connection:
    print(reflect(connection).dialect)
"""
    assert program(python, folder, text) == "postgresql\n"


def use_jetstream(python: Path, folder: Path) -> None:
    """A store on a cluster, whose read model is in a file here."""
    url = new_stream(nats.shared())
    text = SEATS.format(options=", target='sqlite:rows.db'", store=f"{url}&index=index.db")
    assert program(python, folder, text) == "[('a', 2), ('b', 1)]\n"


def use_duckdb(python: Path, folder: Path) -> None:
    """Rows in a DuckDB file."""
    options = ", target='duckdb:rows.duckdb'"
    assert program(python, folder, SEATS.format(options=options, store="seats.db")) == "[('a', 2), ('b', 1)]\n"
    assert (folder / "rows.duckdb").exists()


def use_redis(python: Path, folder: Path) -> None:
    """Rows sent to a Redis server."""
    if redis.PROGRAM is None:
        raise Missing("redis-server", "redis-server")
    url = redis.shared().database()
    text = "import redis\n" + SENT.format(options=f", target={url!r}", store="seats.db", url=url)
    assert program(python, folder, text) == "True\n"


def use_cli(python: Path, folder: Path) -> None:
    """The command on a new store."""
    command = python.with_name("eventfold")
    run([command, "init", "seats.db"], folder)
    assert "0" in run([command, "stats", "seats.db"], folder)


def use_server(python: Path, folder: Path) -> None:
    """A store over HTTP, by the server that production runs."""
    read = "call('GET', '/v1/events?filter=seat:a', Accept='application/x-ndjson')[1].count(b'Taken')"
    assert program(python, folder, SERVED.format(print=read)) == "201\n1\n"


def use_arrow(python: Path, folder: Path) -> None:
    """Events of a server as an Arrow stream."""
    stream = "call('GET', '/v1/events', Accept='application/vnd.apache.arrow.stream')[1]"
    read = f"__import__('pyarrow').ipc.open_stream({stream}).read_all()['type'].to_pylist()"
    assert program(python, folder, SERVED.format(print=read)) == "201\n['Taken']\n"


def use_remote(python: Path, folder: Path) -> None:
    """A store of a server, whose read model is in a file here."""
    with ServerProcess(str(folder / "served.db")) as server:
        options = ", target='rows.db'"
        assert program(python, folder, SEATS.format(options=options, store=server.url)) == "[('a', 2), ('b', 1)]\n"
    assert (folder / "rows.db").exists()


def use_metrics(python: Path, folder: Path) -> None:
    """The metrics of a store, in the format of Prometheus."""
    text = """
import eventfold as ef, prometheus_client
from eventfold import monitoring

class Taken(ef.Event):
    seat: ef.Tag

registry = prometheus_client.CollectorRegistry()
with monitoring.measured(ef.Store("seats.db")) as store:
    registry.register(monitoring.collector(store))
    store.append(Taken("a"))
    print(b"eventfold_" in prometheus_client.generate_latest(registry))
"""
    assert program(python, folder, text) == "True\n"


def use_telemetry(python: Path, folder: Path) -> None:
    """The trace context of a caller in the metadata of an event."""
    text = """
import eventfold as ef
from eventfold import telemetry
from opentelemetry import trace

class Taken(ef.Event):
    seat: ef.Tag

context = trace.SpanContext(1, 2, is_remote=False, trace_flags=trace.TraceFlags(1))
with telemetry.traced(ef.Store("seats.db")) as store, trace.use_span(trace.NonRecordingSpan(context)):
    store.append(Taken("a"))
    print([recorded.metadata["traceparent"] for recorded in store.read()])
"""
    assert program(python, folder, text) == f"['00-{1:032x}-{2:016x}-01']\n"


def use_demo(python: Path, folder: Path) -> None:
    """The demo on a few flights; it checks its answers itself."""
    run([python.with_name("eventfold"), "demo", "flights", "--limit", "200", "--db", "first.db"], folder)
    assert (folder / "first.db").exists()


def use_testing(python: Path, folder: Path) -> None:
    """A property of events that Hypothesis makes, by the environment's own pytest."""
    (folder / "test_seats.py").write_text(PROPERTIES, "utf-8")
    assert "1 passed" in run([python, "-m", "pytest", "-q", "test_seats.py"], folder)


USES: dict[str, Callable[[Path, Path], None]] = {
    name.removeprefix("use_"): use for name, use in list(globals().items()) if name.startswith("use_")
}


def test_every_extra_is_used_here() -> None:
    """An extra that is added to pyproject.toml is tried here too."""
    assert set(USES) == set(direct()) - {""}


# The data of `demo` is built from source, and pandas is large: under a minute, but more than all others together.
SLOW = needs_ability("time for slow tests (EVENTFOLD_SLOW=1)", lambda: "EVENTFOLD_SLOW" in os.environ)


@pytest.mark.parametrize("extra", [pytest.param(extra, marks=[SLOW] * (extra == "demo")) for extra in USES])
def test_an_extra_is_enough_for_what_it_is_for(extra: str, wheel: Path, tmp_path: Path) -> None:
    """Installed alone, from the wheel: no extra relies on what another one installs."""
    USES[extra](new_environment(tmp_path / "env", f"{wheel}[{extra}]"), tmp_path)
