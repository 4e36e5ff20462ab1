"""Bit flips, table by table: later reads are right, or raise an error of the library.

Knows: how to change one bit of one cell, or of one page of a file. Does not know: which checksums there are.
"""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import psycopg
from psycopg import sql

import eventfold as ef
from eventfold.errors import EventfoldError
from soak.clients import Place
from soak.facts import Fragile, Greeting, Noted, PerSeat, PerWriter, Seat, SeatTaken, letter, take
from soak.rounds import Round

FLIPS = 12  # in one round
SNAPSHOTS = 20  # events after which a state is stored, so that snapshots exist
# A row whose name or key changed is not found by a look-up: no checksum of the row shows it, so `verify` must.
LOOKED_UP = (
    "type",
    "tag",
    "posting",
    "run",
    "request",
    "event.id",
    "event.type",
    "event_",
    "eventfold_entry",
    "snapshot.key",
    "bit",
)
NOT_BELIEVED = "soak_"  # rows of read models have no checksums: `verify --rows` compares them
Answers = dict[str, Any]


def prepare(place: Place) -> None:
    """Create a store with rows in every table."""
    failing = place.folder / "failing"
    with place.open() as store:
        for number in range(40):
            store.append(Noted(f"w{number % 3}", f"n.{number}", 0, 1), key=f"k-{number}" if number % 4 == 0 else None)
            store.decide(take, Seat(f"s{number % 2}"), f"t.{number}")
        store.append(*[Noted("w9", "n.40", index, 5) for index in range(5)])
        failing.touch()
        store.run_until_idle(PerWriter, PerSeat, Fragile, Greeting, letter)
        failing.unlink()
        with store.follow(name="named") as follower:
            next(iter(follower.pages()))
            follower.acknowledge()
        store.projections.pause(PerWriter, "soak")
        store.projections.resume(PerWriter)
        store.projections.rebuild(PerWriter)


def questions(place: Place) -> list[tuple[str, Callable[[ef.Store], Any]]]:
    """Return the reads of a store, none of which writes; each answer can be compared."""

    def follow(store: ef.Store) -> list[str]:
        with store.follow() as follower:
            return [recorded.id.hex for recorded in next(iter(follower.pages()))]

    def verified(store: ef.Store) -> bool:
        return store.projections.verify_log().proved and all(each.proved for each in store.projections.verify())

    return [
        ("read", lambda store: [(r.position, r.id.hex, r.time, repr(r.event)) for r in store.read()]),
        ("backwards", lambda store: [(r.position, r.id.hex) for r in store.read(backwards=True, limit=7)]),
        ("by tag", lambda store: [r.position for r in store.read(ef.Query.of(tags="seat:s1"))]),
        ("by type", lambda store: [r.position for r in store.read(ef.Query.of(types=[SeatTaken]))]),
        ("state", lambda store: [store.state(Seat(f"s{n}")).count for n in range(3)]),
        ("head", lambda store: store.head()),
        ("receipt", lambda store: [getattr(store.receipt(f"k-{n}"), "ids", None) for n in range(0, 40, 4)]),
        ("follow", follow),
        ("verify", verified),
        ("parked", lambda store: [(e.position, e.state) for e in store.projections.parked(Fragile)]),
    ]


def work(store: ef.Store) -> list[Any]:
    """Decide, append under a known key, and run everything. Returns what must be equal without damage."""
    decided = store.decide(take, Seat("s1"), "z.1")
    repeated = store.append(Noted("w0", "n.0", 0, 1), key="k-0")
    store.run_until_idle(PerWriter, PerSeat, Fragile, Greeting, letter)
    numbers = [recorded.event.number for recorded in store.read(ef.Query.of(tags="seat:s1", types=[SeatTaken]))]
    rows = sorted((row.seat, row.count, row.last) for row in store.rows(PerSeat))
    writers = sorted((row.writer, row.events, row.total) for row in store.rows(PerWriter))
    return [decided.receipt.first if decided.receipt else 0, repeated.ids, numbers, rows, writers]


def answers(place: Place, *, writing: bool) -> Answers:
    """Return each answer, or the library's error in its place; any other error is marked as FOREIGN."""
    found: Answers = {}
    try:
        with ef.Store(place.url, **place.options) as store:
            for name, question in questions(place):
                found[name] = _answer(question, store)
            if writing:
                found["work"] = _answer(work, store)
    except EventfoldError as error:
        found["open"] = error
    except Exception as error:  # noqa: BLE001 - such errors are what the round looks for
        found["open"] = f"FOREIGN {type(error).__name__}: {error}"
    return found


def _answer(question: Callable[[ef.Store], Any], store: ef.Store) -> Any:
    try:
        return question(store)
    except EventfoldError as error:
        return error
    except Exception as error:  # noqa: BLE001
        return f"FOREIGN {type(error).__name__}: {error}"


def judge(turn: Round, what: str, right: Answers, found: Answers) -> str:
    """Compare the answers with the right ones. Returns how the flip ended."""
    wrong = list[str]()
    has_error = any(isinstance(answer, EventfoldError) for answer in found.values())
    for name, answer in found.items():
        if isinstance(answer, EventfoldError):
            continue
        if isinstance(answer, str) and answer.startswith("FOREIGN"):
            turn.findings.add(f"{what}: {name} ended with {answer[8:300]}")
        elif answer != right.get(name) and name != "verify":
            wrong.append(f"{what}: {name} answers wrongly: {_difference(right.get(name), answer)}")
    if not wrong:
        return "errors" if has_error else "right"
    if what.startswith(LOOKED_UP) and found.get("verify") is not True:
        return "wrong answers that verify finds"
    turn.findings.problems += wrong
    return "wrong answers"


def _difference(right: Any, found: Any) -> str:
    if isinstance(right, list) and isinstance(found, list):
        pairs = [(a, b) for a, b in zip(right, found, strict=False) if a != b]
        return f"{len(right)} and {len(found)} items, first {str(pairs[:1])[:200]}"
    return f"{str(right)[:100]} and {str(found)[:100]}"


def sqlite(turn: Round) -> None:
    """Change one bit of one cell, or of one page that belongs to a table; the file is copied for each flip."""
    folder = turn.folder / "whole"
    folder.mkdir()
    place = Place(str(folder / "store.db"), turn.folder, "", {"snapshots": SNAPSHOTS})
    prepare(place)
    with contextlib.closing(apsw.Connection(str(folder / "store.db"))) as connection:
        connection.pragma("wal_checkpoint", "truncate")
        tables = _tables(connection)
    right = _right(turn, place, folder)
    for number in range(FLIPS):
        damaged = turn.folder / f"flip-{number}"
        shutil.copytree(folder, damaged)
        (damaged / "store.db.lock").unlink(missing_ok=True)
        table = tables[(turn.index * FLIPS + number) % len(tables)]
        raw = turn.dice.random() < 0.4
        what = (
            _flip_page(damaged / "store.db", table, turn.dice)
            if raw
            else _flip_cell(damaged / "store.db", table, turn.dice)
        )
        if what:
            place = Place(str(damaged / "store.db"), turn.folder, "", {"snapshots": SNAPSHOTS})
            before = len(turn.findings.problems)
            how = judge(turn, what, right, answers(place, writing=True))
            turn.count("flips")
            turn.count(f"flips that ended in {how}")
            if len(turn.findings.problems) > before:
                continue
        shutil.rmtree(damaged)


def _right(turn: Round, place: Place, folder: Path) -> Answers:
    copied = turn.folder / "right"
    shutil.copytree(folder, copied)
    (copied / "store.db.lock").unlink(missing_ok=True)
    found = answers(Place(str(copied / "store.db"), turn.folder, "", place.options), writing=True)
    turn.findings.problems += [f"undamaged, {name} fails: {a}" for name, a in found.items() if isinstance(a, Exception)]
    return found


def _tables(connection: apsw.Connection) -> list[str]:
    rows = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    return [name for (name,) in rows if not str(name).startswith(NOT_BELIEVED)]


def flip(value: Any, dice: random.Random) -> Any:
    """Return a value with one bit changed."""
    match value:
        case None:
            return None
        case int():
            return value ^ (1 << dice.randrange(max(8, value.bit_length())))
        case float():
            return value + 1.0
        case str():
            text = bytearray(value.encode())
            if text:
                text[dice.randrange(len(text))] ^= 1 << dice.randrange(7)
            return text.decode("utf-8", errors="replace")
        case _:
            content = bytearray(value)
            if content:
                content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
            return bytes(content)


def _flip_cell(path: Path, table: str, dice: random.Random) -> str:
    """Change a cell with the triggers dropped, as damage of a page would that SQLite does not notice."""
    dropped: list[str] = []
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.pragma("synchronous", "off")
        for (trigger,) in list(connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'")):
            definition = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (trigger,)).get
            connection.execute(f'DROP TRIGGER "{trigger}"')
            dropped.append(str(definition))
        columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
        keys = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")') if row[5]]
        where = " AND ".join(f'"{key}" IS ?' for key in keys) or "rowid IS ?"
        chosen = ", ".join(f'"{key}"' for key in keys) or "rowid"
        rows = list(connection.execute(f'SELECT {chosen} FROM "{table}"'))
        what = ""
        if rows:
            row, column = dice.choice(rows), dice.choice(columns)
            value = connection.execute(f'SELECT "{column}" FROM "{table}" WHERE {where}', row).get
            changed = flip(value, dice)
            if changed != value:
                try:
                    connection.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE {where}', (changed, *row))
                    what = f"{table}.{column} of {row}: {str(value)[:60]!r} became {str(changed)[:60]!r}"
                except apsw.ConstraintError:
                    what = ""
        for definition in dropped:
            connection.execute(definition)
        return what


def _flip_page(path: Path, table: str, dice: random.Random) -> str:
    """Change one bit of the used part of one page of a table or of its indexes."""
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        size = connection.pragma("page_size")
        names = [
            name
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_schema WHERE tbl_name = ? AND rootpage", (table,)
            )
        ]
        marks = ",".join("?" * len(names))
        pages = list(connection.execute(f"SELECT pageno, unused FROM dbstat WHERE name IN ({marks})", names))
    if not pages:
        return ""
    page, _unused = dice.choice(pages)
    with path.open("r+b") as file:
        at, byte = 0, 0
        for _ in range(50):  # a bit of free space would change nothing
            at = (page - 1) * size + dice.randrange(size)
            file.seek(at)
            byte = file.read(1)[0]
            if byte:
                break
        bit = dice.randrange(8)
        file.seek(at)
        file.write(bytes([byte ^ (1 << bit)]))
    return f"bit {bit} of byte {at % size} of page {page} ({table})"


def postgres(turn: Round) -> None:
    """Change one bit of one cell, as the owner and without triggers, and change it back after the reads."""
    place = Place(turn.schema(), turn.folder, "", {"snapshots": SNAPSHOTS})
    prepare(place)
    schema = place.url.rpartition("schema=")[2]
    right = answers(place, writing=False)
    turn.findings.problems += [f"undamaged, {name} fails: {a}" for name, a in right.items() if isinstance(a, Exception)]
    with psycopg.connect(turn.server, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        rows = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1", (schema,)
        ).fetchall()
        tables = [name for (name,) in rows if not name.startswith(NOT_BELIEVED)]
        for number in range(FLIPS):
            table = tables[(turn.index * FLIPS + number) % len(tables)]
            done = _flip_row(connection, schema, table, turn.dice)
            if done is None:
                continue
            what, back = done
            try:
                how = judge(turn, what, right, answers(place, writing=False))
                turn.count("flips")
                turn.count(f"flips that ended in {how}")
            finally:
                back()


def _flip_row(
    connection: psycopg.Connection[Any], schema: str, table: str, dice: random.Random
) -> tuple[str, Callable[[], None]] | None:
    name = sql.Identifier(schema, table)
    rows = connection.execute(sql.SQL("SELECT ctid, * FROM {}").format(name))
    columns = [column.name for column in rows.description or ()][1:]
    found = rows.fetchall()
    if not found:
        return None
    row = dice.choice(found)
    at = dice.randrange(len(columns))
    column, value = columns[at], row[at + 1]
    changed = [flip(value[0], dice), *value[1:]] if isinstance(value, list) and value else flip_any(value, dice)
    if changed == value or changed is None:
        return None
    update = sql.SQL("UPDATE {} SET {} = %s WHERE ctid = %s RETURNING ctid").format(name, sql.Identifier(column))
    try:
        moved = connection.execute(update, (changed, row[0])).fetchone()
    except psycopg.Error:
        return None
    if moved is None:
        return None
    what = f"{table}.{column}: {str(value)[:60]!r} became {str(changed)[:60]!r}"

    def back() -> None:
        with contextlib.suppress(psycopg.errors.UniqueViolation):  # a snapshot was written in its place meanwhile
            connection.execute(update, (value, moved[0]))

    return what, back


def flip_any(value: Any, dice: random.Random) -> Any:
    """Do what `flip` does, also for the types that only PostgreSQL has; None where nothing can be changed."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | str | bytes | float):
        return flip(value, dice)
    return None
