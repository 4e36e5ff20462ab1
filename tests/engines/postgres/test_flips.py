"""One value of the store is changed on the server, column by column: every answer is right, or a clear error.

It is changed by SQL without the triggers, so that table and index agree: harder to notice than a flipped bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from eventfold.core.envelope import new_id
from eventfold.core.query import Query
from eventfold.core.snapshot import Snapshot
from eventfold.errors import CorruptEvent, EventfoldError, StoreDamaged
from eventfold.ports.inline import InlineRegistration
from eventfold.ports.integrity import Problem
from eventfold.ports.messages import Span
from tests.cli.commands import run as eventfold
from tests.engines.postgres.conftest import Open
from tests.engines.postgres.given import Opened, event, request, sql, tagged

NUMBERS = ("{c} # 1", "{c} # 64")
TEXTS = ("overlay({c} placing chr(ascii(left({c}, 1)) # 1) from 1 for 1)", "('\\xff41'::bytea)::text")
BYTES = ("set_bit({c}, 0, 1 - get_bit({c}, 0))",)
IDS = ("overlay({c}::text placing 'abc' from 1 for 3)::uuid",)
COLUMNS: dict[str, dict[str, tuple[str, ...]]] = {
    "event": {
        **dict.fromkeys(("position", "time", "occurred", "version", '"offset"', "size", "checksum"), NUMBERS),
        **dict.fromkeys(("type", "codec", "tags", "key"), TEXTS),
        **dict.fromkeys(("data", "metadata"), BYTES),
        "id": IDS,
    },
    "request": {"key": TEXTS, "first": NUMBERS, "size": NUMBERS, "crc": NUMBERS},
    "snapshot": {
        **dict.fromkeys(("key", "fingerprint"), TEXTS),
        **dict.fromkeys(("event", "state"), BYTES),
        **dict.fromkeys(("position", "crc"), NUMBERS),
    },
    "inlined": {
        **dict.fromkeys(("name", "code", "ticket"), TEXTS),
        "types": ("ARRAY['Unmentioned']",),
        "crc": NUMBERS,
    },
    "store": {"id": TEXTS, "place": TEXTS, **dict.fromkeys(("epoch", "layout", "unplaced", "crc"), NUMBERS)},
    "tag": {"position": ("position + 1",), "type": TEXTS},
}
CHANGES = [
    pytest.param(table, column, change, id=f"{table}.{column}-{number}")
    for table, columns in COLUMNS.items()
    for column, changes in columns.items()
    for number, change in enumerate(changes)
]
# A row that is found by a value is silently missing when that value has changed in table and index alike.
HIDDEN = {
    ("request", "key"): {"request k-2", "repeat k-2", "keys"},
    ("snapshot", "key"): {"snapshot"},
    ("tag", "position"): {"by tag", "by both"},
    ("tag", "type"): {"by both"},
    ("event", "type"): {"by type"},
    ("event", "position"): {"by type"},
    ("event", "occurred"): {"occurred"},
}
UNNOTICED = {
    ("snapshot", "key"),
    ("tag", "position"),
    ("tag", "type"),
}  # no read notices these: the entry leads nowhere


def fill(engine: Opened) -> None:
    """Append one event and several, with every field, a key, a snapshot and a registration."""
    engine.append(event("Opened", "account:a-1"), key="k-1")
    engine.append(
        event("Deposited", "account:a-1", occurred=7, metadata=b'{"a":1}', key="k", codec="raw"),
        event("Deposited", "account:a-2"),
        key="k-2",
    )
    for _ in range(3):
        engine.append(event("Deposited", "account:a-1"))
    last = engine.everything()[-1]
    engine.snapshots.put("app.Account", Snapshot("f", last.position, last.id, b'{"total":41}'))

    async def enrol(turn: Any) -> None:
        await turn.register(InlineRegistration("balance", "c0de", ("Archived",), "t1"))

    engine.inline.exclusive(enrol)


def questions(engine: Opened) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield every kind of read, with its name."""
    yield "all", lambda: engine.read(Query(), Span())
    yield "backwards", lambda: engine.read(Query(), Span(limit=2, backwards=True))
    yield "page", lambda: engine.read(Query(), Span(after=1, limit=1))
    yield "by tag", lambda: engine.read(tagged("account:a-1"), Span())
    yield "by type", lambda: engine.read(Query.of("Deposited"), Span(limit=1))
    yield "by both", lambda: engine.read(Query.of("Deposited", tags="account:a-1"), Span())
    yield "occurred", lambda: engine.read(Query(), Span(occurred_until=8))
    yield "head", engine.head
    for position in range(1, 8):
        yield f"id {position}", lambda position=position: engine.event_id(position)
        yield f"boundary {position}", lambda position=position: engine.boundary(position)
    for key in ("k-1", "k-2"):
        yield f"request {key}", lambda key=key: engine.receipt_of(key)
        yield f"repeat {key}", lambda key=key: engine.append_many([request(event("Opened"), key=key)])[0]
    yield "keys", engine.replication.keys
    yield "snapshot", lambda: engine.snapshots.get("app.Account")
    yield "inlined", engine.inline.registrations
    yield "check", lambda: checked(engine)


def checked(engine: Opened, reported: list[tuple[int, int]] | None = None) -> list[Problem]:
    """Return what the engine's check finds; its progress goes to `reported`."""

    async def collect() -> list[Problem]:
        say: list[tuple[int, int]] = [] if reported is None else reported
        return [problem async for problem in engine.inner.check(lambda done, whole: say.append((done, whole)))]

    return engine.runner.run(collect())


def answers(open_: Callable[[], Opened]) -> dict[str, Any]:
    """Return each answer, or its EventfoldError; any other error fails the test."""
    found: dict[str, Any] = {}
    try:
        engine = open_()
    except EventfoldError as error:
        return {"open": error}
    for name, ask in questions(engine):
        try:
            found[name] = ask()
        except EventfoldError as error:
            assert error.what.endswith(".") and error.remedy.endswith(".")
            found[name] = error
    return found


def changed(url: str, schema: str, table: str, column: str, change: str) -> None:
    """Change one value, with every trigger off; the cast lets bytes that are not text pass as text."""
    row = {"event": "position = 2", "request": "key = 'k-2'", "tag": "tag = 'account:a-1' AND position = 2"}
    where = f"WHERE {row[table]}" if table in row else ""
    with psycopg.connect(url) as connection:
        connection.execute("CREATE CAST (bytea AS text) WITHOUT FUNCTION")
        connection.execute(f"ALTER TABLE {schema}.{table} DISABLE TRIGGER ALL".encode())
        connection.execute(
            f"UPDATE {schema}.{table} SET {column} = {change.format(c=column)} {where}".encode(), prepare=False
        )
        connection.execute(f"ALTER TABLE {schema}.{table} ENABLE TRIGGER ALL".encode())
        connection.execute("DROP CAST (bytea AS text)")


@pytest.mark.parametrize(("table", "column", "change"), CHANGES)
def test_a_changed_value_gives_the_right_answer_or_an_error(
    url: str, schema: str, opening: Open, table: str, column: str, change: str
) -> None:
    """This holds for every column of every table; errors have two sentences, and none is the driver's."""
    engine = opening()
    fill(engine)
    before = answers(opening)
    if (table, column) == ("event", "position"):
        change = "{c} + 100"  # a position without an event
    changed(url, schema, table, column, change)
    after = answers(opening)
    if "open" in after:
        assert table == "store"
        return
    assert before.pop("check") == [] and after.pop("check"), "the check finds nothing"
    wrong = {name for name in before if not isinstance(after[name], Exception) and after[name] != before[name]}
    assert wrong <= HIDDEN.get((table, column), set())
    met = {name for name, answer in after.items() if isinstance(answer, Exception)}
    assert met or (table, column) in UNNOTICED


def unguarded(url: str, schema: str, *statements: str) -> None:
    """Run statements as a superuser who switched the triggers off."""
    guards = [f"ALTER TABLE {schema}.{table} {{}} TRIGGER ALL" for table in ("event", "tag", "request")]
    on, off = ([guard.format(word) for guard in guards] for word in ("ENABLE", "DISABLE"))
    sql(url, *off, *(statement.format(s=schema) for statement in statements), *on)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_check_names_what_is_wrong_and_where(url: str, schema: str, opening: Open, mode: str) -> None:
    """It covers every event and index entry, over several pages, and reports its progress."""
    engine = opening(mode=mode)
    reported: list[tuple[int, int]] = []
    assert checked(engine, reported) == [] and reported == []
    for _ in range(3):
        engine.append(*[event("Deposited", f"account:a-{n}", "all:1") for n in range(700)], key=f"k-{new_id().hex()}")
    assert checked(engine, reported) == []
    assert reported == [(1_000, 2_100), (2_000, 2_100), (2_100, 2_100)]
    unguarded(
        url,
        schema,
        "DELETE FROM {s}.event WHERE position BETWEEN 50 AND 60 OR position = 1500",
        "UPDATE {s}.event SET data = 'x' WHERE position = 70",
        "UPDATE {s}.event SET data = 'x' WHERE position = 1501",
        "DELETE FROM {s}.tag WHERE position = 2000 AND tag = 'all:1'",
        "UPDATE {s}.tag SET tag = 'account:a-9999' WHERE tag = 'account:a-2'",
        "INSERT INTO {s}.request VALUES ('forged', 3, 1)",
    )
    found = checked(engine)
    assert {(problem.position, problem.what) for problem in found} >= {
        (50, "There is no event at the positions 50 to 60."),
        (1500, "There is no event at this position."),
        (2000, "The tag index does not lead to it by 'all:1'."),
        (3, "The tag index does not lead to it by 'account:a-2'."),
        (3, "The request key 'forged' leads to no beginning of an append."),
        (None, "The tag index has 4,199 entries, and the events carry 4,172 tags."),
    }
    assert [problem.position for problem in found if "checksum" in problem.what] == [70, 1501]


def test_the_command_checks_a_log_on_postgresql(url: str, schema: str, opening: Open) -> None:
    """`eventfold verify` exits 1, and names a snapshot and a request key that no read would find."""
    fill(opening())
    address = f"{url}?schema={schema}"
    assert eventfold("verify", address).code == 0
    changed(url, schema, "snapshot", "key", "'app.Bccount'")
    changed(url, schema, "request", "key", "'k-3'")
    ran = eventfold("verify", address, "--json")
    assert ran.code == 1
    assert (ran.lines[0]["log"], ran.lines[0]["checked"], ran.lines[0]["proved"]) == ("postgres", True, False)
    assert {flaw["what"] for flaw in ran.lines[0]["flaws"]} == {
        "The snapshot of app.Bccount does not have its checksum.",
        "The request key 'k-3' does not have its checksum.",
    }


def test_a_changed_registration_stops_appends(url: str, schema: str, opening: Open) -> None:
    """Otherwise a process without a read model's code could write events that it never folds."""
    engine = opening()
    fill(engine)
    changed(url, schema, "inlined", "types", "ARRAY['Brchived']")
    with pytest.raises(StoreDamaged, match="registration"):
        engine.append(event("Archived"))
    assert engine.head().position == 6


def test_an_index_entry_whose_event_is_gone_is_an_error(url: str, schema: str, opening: Open) -> None:
    """Reads by tag raise, and so do followers and states, which read by tag; the position is named."""
    engine = opening()
    fill(engine)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE {schema}.event DISABLE TRIGGER ALL".encode())
        connection.execute(f"DELETE FROM {schema}.event WHERE position = 4".encode())
    for span in (Span(), Span(backwards=True), Span(occurred_since=0)):
        with pytest.raises(CorruptEvent) as caught:
            engine.read(tagged("account:a-1"), span)
        assert caught.value.fields["position"] == 4
    for ask in (lambda: engine.event_id(4), lambda: engine.boundary(4), lambda: engine.read(Query(), Span(after=3))):
        with pytest.raises(CorruptEvent) as caught:
            ask()
        assert caught.value.fields["position"] == 4
    assert (engine.event_id(5) is not None, engine.event_id(7), engine.boundary(7)) == (True, None, 7)


def test_a_search_by_time_does_not_use_a_changed_time(url: str, schema: str, opening: Open) -> None:
    """It raises for a missing event as well: it verifies the events that it reads."""
    engine = opening()
    for _ in range(9):
        engine.append(event())
    moment = engine.everything()[6].time
    assert engine.position_at(moment) >= 7
    assert (engine.position_at(0), engine.position_at(2**60)) == (0, 9)
    changed(url, schema, "event", "time", "time # 64")  # at position 2, which this search does not read
    assert engine.position_at(moment) >= 7
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE {schema}.event DISABLE TRIGGER ALL".encode())
        connection.execute(f"UPDATE {schema}.event SET time = 1 WHERE position = 5".encode())
        with pytest.raises(CorruptEvent) as caught:
            engine.position_at(moment)
        assert caught.value.fields["position"] == 5
        connection.execute(f"DELETE FROM {schema}.event WHERE position = 5".encode())
        with pytest.raises(CorruptEvent) as caught:
            engine.position_at(moment)
        assert caught.value.fields["position"] == 5


@pytest.mark.parametrize("column", ["position", "time", '"offset"', "size"])
@pytest.mark.parametrize("bit", [0, 7, 20, 30])
def test_a_checksum_covers_the_position_of_an_event(
    url: str, schema: str, opening: Open, column: str, bit: int
) -> None:
    """It covers each bit of position, time and append boundary, which the writer's own CRC-32 cannot cover."""
    engine = opening()
    engine.append(event(), event())
    columns = 'position, time, "offset", size'
    (row,) = sql(url, f"SELECT {columns}, checksum FROM {schema}.event WHERE position = 1")
    flipped = columns.replace(column, f"({column}::bigint # {1 << bit})::bigint")
    question = "SELECT (checksum # {s}.placed({one})) = (checksum # {s}.placed({other})) FROM {s}.event"
    one, other = (text.replace('"offset"', '"offset"::integer') for text in (columns, flipped))
    other = ", ".join(f"({part})::{'bigint' if n < 2 else 'integer'}" for n, part in enumerate(other.split(", ")))
    assert row and sql(url, question.format(s=schema, one=one, other=other)) == [(False,), (False,)]
