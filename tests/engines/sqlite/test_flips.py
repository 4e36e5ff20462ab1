"""One value of the store is changed, column by column: every answer is right, or a clear error; a check finds it.

It is changed by SQL without the triggers, so that table and index agree: harder to notice than a flipped bit
(see test_damage.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.concurrency.run import run
from eventfold.core.envelope import NewEvent, new_id
from eventfold.core.query import Query
from eventfold.core.snapshot import Snapshot
from eventfold.engines.sqlite import SqliteEngine
from eventfold.errors import CorruptEvent, EventfoldError, StoreDamaged
from eventfold.ports.inline import InlineRegistration
from eventfold.ports.messages import Span
from tests.cli.commands import run as eventfold
from tests.engines.sqlite.noted import request

NUMBERS = ("{c} + 64 - 2 * ({c} & 64)",)
TEXTS = (
    "CAST(CAST(char(unicode({c}) + 1 - 2 * (unicode({c}) & 1)) || substr({c}, 2) AS BLOB) AS TEXT)",
    "CAST(x'ff' || substr(CAST({c} AS BLOB), 2) AS TEXT)",  # invalid UTF-8
)
BYTES = ("CAST(substr({c}, 1, length({c}) - 1) || x'07' AS BLOB)",)
COLUMNS: dict[str, dict[str, tuple[str, ...]]] = {
    "event": {
        **dict.fromkeys(("type", "version", "time", "occurred", '"offset"', "size", "crc"), NUMBERS),
        "position": ("{c} + 100",),
        **dict.fromkeys(("tags", "format", "key"), TEXTS),
        **dict.fromkeys(("id", "data", "metadata"), BYTES),
    },
    "type": {"name": TEXTS[1:]},  # a different valid name: see test_damage.py
    "tag": {"name": TEXTS},
    "posting": {"last": ("{c} + 100",), "positions": BYTES, **dict.fromkeys(("run", "tag", "type", "crc"), NUMBERS)},
    "run": dict.fromkeys(("start", "id", '"end"', "state", "crc"), NUMBERS),
    "request": {"key": TEXTS, "first": NUMBERS, "crc": NUMBERS},
    "snapshot": {
        **dict.fromkeys(("key", "fingerprint"), TEXTS),
        **dict.fromkeys(("event", "state"), BYTES),
        **dict.fromkeys(("position", "crc"), NUMBERS),
    },
    "indexed": dict.fromkeys(("through", "crc"), NUMBERS),
    "inlined": {**dict.fromkeys(("name", "code", "types", "ticket"), TEXTS), "crc": NUMBERS},
    "store": {"id": TEXTS, **dict.fromkeys(("epoch", "created", "crc"), NUMBERS)},
}
CHANGES = [
    pytest.param(table, column, change, id=f"{table}.{column}-{number}")
    for table, columns in COLUMNS.items()
    for column, changes in columns.items()
    for number, change in enumerate(changes)
]
# A row that is found by a value is silently missing when that value has changed in table and index alike.
HIDDEN = {
    ("event", "position"): {"by type", "types"},
    ("event", "type"): {"by type", "types"},
    ("event", "occurred"): {"occurred"},
    ("tag", "name"): {"by tag", "by both", "tags"},
    ("posting", "run"): {"by tag", "by both", "by type", "tags", "types"},
    ("posting", "tag"): {"by tag", "by both", "by type", "tags", "types"},
    ("request", "key"): {"request k-2"},
    ("snapshot", "key"): {"snapshot"},
}
ROW = {"event": "position = 2", "posting": "tag = 1", "run": "1", "request": "key = 'k-2'"}


def event(type: str, *tags: str, **more: Any) -> NewEvent:
    """Return a new event."""
    return NewEvent(new_id(), type, 1, b'{"amount":1}', tuple(sorted(tags)), **more)


def fill(engine: SqliteEngine) -> None:
    """Append one event and several, with every field, a key, a snapshot and a registration."""
    run(engine.append_many([request(event("Opened", "account:a-1"), key="k-1")]))
    full = event("Deposited", "account:a-1", occurred=7, metadata=b'{"a":1}', key="k", codec="raw")
    run(engine.append_many([request(full, event("Deposited", "account:a-2"), key="k-2")]))
    run(engine.append_many([request(event("Deposited", "account:a-1")) for _ in range(3)]))
    head = run(engine.head())
    run(engine.services.snapshots.put("app.Account", Snapshot("fff", head.position, head.id, b'{"total":41}')))

    async def enrol(turn: Any) -> None:
        await turn.register(InlineRegistration("balance", "c0de", ("Archived",), "t1"))

    run(engine.services.inline.exclusive(enrol))


def questions(engine: SqliteEngine) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield every kind of read, with its name."""
    yield "all", lambda: run(engine.read(Query(), Span()))
    yield "backwards", lambda: run(engine.read(Query(), Span(limit=2, backwards=True)))
    yield "page", lambda: run(engine.read(Query(), Span(after=1, limit=1)))
    yield "by tag", lambda: run(engine.read(Query.of(tags="account:a-1"), Span()))
    yield "by type", lambda: run(engine.read(Query.of("Deposited"), Span(limit=1)))
    yield "by both", lambda: run(engine.read(Query.of("Deposited", tags="account:a-1"), Span()))
    yield "occurred", lambda: run(engine.read(Query(), Span(occurred_until=8)))
    yield "head", lambda: run(engine.head())
    for position in range(1, 8):
        yield f"id {position}", lambda position=position: run(engine.event_id(position))
        yield f"boundary {position}", lambda position=position: run(engine.boundary(position))
    for key in ("k-1", "k-2"):
        yield f"request {key}", lambda key=key: run(engine.receipt_of(key))
    yield "keys", lambda: run(engine.services.replication.keys())
    yield "types", lambda: run(engine.types())
    yield "tags", lambda: run(engine.tags())
    yield "time", lambda: run(engine.position_at(2**60))
    yield "snapshot", lambda: run(engine.services.snapshots.get("app.Account"))
    yield "inlined", lambda: run(engine.services.inline.registrations())


def answers(path: str) -> dict[str, Any]:
    """Return each answer, or its EventfoldError; any other error fails the test."""
    found: dict[str, Any] = {}
    engine = SqliteEngine(path)
    try:
        run(engine.open())
    except EventfoldError as error:
        return {"open": error}
    for name, ask in questions(engine):
        try:
            found[name] = ask()
        except EventfoldError as error:
            assert error.what.endswith(".") and error.remedy.endswith(".")
            found[name] = error
    found["check"] = [problem.what for problem in engine.check()]
    try:
        (found["append"],) = (type(each).__name__ for each in run(engine.append_many([request(event("Archived"))])))
    except EventfoldError as error:
        found["append"] = error
    run(engine.close())
    return found


def unguarded(path: str, *statements: str) -> None:
    """Run statements with every trigger dropped, and create the triggers again."""
    connection = sqlite3.connect(path, isolation_level=None)
    guards = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    for statement in (*(f"DROP TRIGGER {name}" for name, _ in guards), *statements, *(text for _, text in guards)):
        connection.execute(statement)
    connection.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, Any]]:
    """A store file with rows in every table, and the right answers."""
    path = str(tmp_path_factory.mktemp("whole") / "log.db")
    engine = SqliteEngine(path)
    run(engine.open())
    fill(engine)
    run(engine.close())
    content = Path(path).read_bytes()
    return content, answers(path)


@pytest.mark.parametrize(("table", "column", "change"), CHANGES)
def test_a_changed_value_gives_the_right_answer_or_an_error(
    path: str, whole: tuple[bytes, dict[str, Any]], table: str, column: str, change: str
) -> None:
    """This holds for every column of every table; errors have two sentences, none is apsw's; a check finds each."""
    content, before = whole
    Path(path).write_bytes(content)
    where = f"WHERE {ROW[table]}" if table in ROW else f"WHERE rowid = (SELECT max(rowid) FROM {table})"
    if table in ("snapshot", "inlined", "store", "indexed"):
        where = ""
    unguarded(path, f"UPDATE {table} SET {column} = {change.format(c=column)} {where}")
    after = answers(path)
    if "open" in after:
        assert table in ("store", "type")  # opening verifies the last event
        return
    assert after["check"], "the check finds nothing"
    wrong = {name for name in before if not isinstance(after[name], Exception) and after[name] != before[name]}
    assert wrong - {"check", "append"} <= HIDDEN.get((table, column), set())
    assert table != "inlined" or isinstance(after["append"], StoreDamaged)


def test_a_changed_snapshot_is_an_error_that_names_the_command(path: str) -> None:
    """It is never used, for a state or a decision; the command drops it, and the log answers."""

    class Moved(ef.Event, type="flips.moved"):
        """Something to count."""

        account: ef.Tag

    class Moves(ef.State):
        """The number of moves of an account."""

        account: ef.Tag
        n: int = 0

        def evolve(self, event: Moved) -> None:
            """Add one."""
            self.n += 1

    def move(moves: Moves) -> Moved:
        return Moved(account=moves.account)

    with ef.Store(path, snapshots=5) as store:
        for _ in range(12):
            store.append(Moved(account="a-1"))
        assert store.state(Moves("a-1")).n == 12
    unguarded(path, "UPDATE snapshot SET state = CAST(replace(CAST(state AS TEXT), '12', '13') AS BLOB)")
    with ef.Store(path, snapshots=5) as store:
        for use in (lambda: store.state(Moves("a-1")), lambda: store.decide(move, Moves("a-1"))):
            with pytest.raises(StoreDamaged, match="does not have the checksum") as refused:
                use()
            assert f"eventfold snapshots drop {path}" in refused.value.remedy
        assert store.count() == 12
    assert eventfold("verify", path).code != 0
    (line,) = eventfold("snapshots", "drop", path, "--json").lines
    assert line == {"dropped": 1}
    with ef.Store(path, snapshots=5) as store:
        assert store.state(Moves("a-1")).n == 12


def test_a_snapshot_of_another_store_is_refused(path: str, tmp_path: Path) -> None:
    """A snapshot's checksum includes the store's id."""
    other = str(tmp_path / "other.db")
    for each in (path, other):
        engine = SqliteEngine(each)
        run(engine.open())
        fill(engine)
        run(engine.close())
    unguarded(
        path,
        f"ATTACH '{other}' AS other",
        "DELETE FROM snapshot",
        "INSERT INTO snapshot SELECT * FROM other.snapshot",
        "DETACH other",
    )
    engine = SqliteEngine(path)
    run(engine.open())
    with pytest.raises(StoreDamaged):
        run(engine.services.snapshots.get("app.Account"))
    run(engine.close())


def test_nothing_can_be_sealed_so_nothing_can_be_deleted(path: str) -> None:
    """Two plain statements cannot delete events, as long as events cannot be archived elsewhere."""
    engine = SqliteEngine(path)
    run(engine.open())
    fill(engine)
    run(engine.close())
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in (
        "INSERT INTO sealed VALUES (1, 3, 'x')",
        "INSERT OR REPLACE INTO sealed VALUES (1, 3, 'x')",
        "DELETE FROM event WHERE position = 1",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="eventfold"):
            connection.execute(statement)
    connection.close()
    unguarded(path, "INSERT INTO sealed VALUES (1, 3, 'x')")
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in ("DELETE FROM event WHERE position = 1", "UPDATE sealed SET last = 9", "DELETE FROM sealed"):
        with pytest.raises(sqlite3.IntegrityError, match="eventfold"):
            connection.execute(statement)
    connection.close()


def test_a_missing_position_is_an_error_on_every_read(path: str) -> None:
    """This holds for all events, by tag and by type, in both directions, for states and followers; it is named."""
    engine = SqliteEngine(path)
    run(engine.open())
    fill(engine)
    run(engine.close())
    unguarded(path, "DELETE FROM event WHERE position = 4")
    run((engine := SqliteEngine(path)).open())
    for query in (Query(), Query.of(tags="account:a-1")):
        for span in (Span(), Span(backwards=True), Span(after=3, limit=1)):
            with pytest.raises(CorruptEvent) as caught:
                run(engine.read(query, span))
            assert caught.value.fields["position"] == 4
    for ask in (engine.event_id, engine.boundary):
        with pytest.raises(CorruptEvent) as caught:
            run(ask(4))
        assert caught.value.fields["position"] == 4
    run(engine.close())
