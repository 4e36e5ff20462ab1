"""Room: the tables in which a SQL target keeps what is known about projections.

Knows: SQL that SQLite and PostgreSQL read alike (`?` becomes the driver's own mark). Does not know: rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from eventfold.projection.ledger import Tally
from eventfold.target import Checkpoint, PendingCommand, Place, Registered

PLACE = "name = ? AND generation = ? AND part = ?"

CREATE = (
    """CREATE TABLE IF NOT EXISTS eventfold_projection (
        name TEXT PRIMARY KEY, kind TEXT NOT NULL, code TEXT NOT NULL, live BIGINT NOT NULL, previous BIGINT,
        building BIGINT, paused TEXT NOT NULL, tables TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS eventfold_checkpoint (
        name TEXT NOT NULL, generation BIGINT NOT NULL, part BIGINT NOT NULL,
        store TEXT NOT NULL, epoch BIGINT NOT NULL, position BIGINT NOT NULL, event_id TEXT NOT NULL,
        seen BIGINT NOT NULL, seen_digest TEXT NOT NULL, handled BIGINT NOT NULL, handled_digest TEXT NOT NULL,
        query TEXT NOT NULL, fingerprint TEXT NOT NULL, partitions BIGINT NOT NULL, until BIGINT,
        revision BIGINT NOT NULL, token BIGINT NOT NULL, holder TEXT NOT NULL, expires BIGINT NOT NULL,
        stopped TEXT NOT NULL, stats TEXT NOT NULL, "at" BIGINT NOT NULL, beat BIGINT NOT NULL,
        PRIMARY KEY (name, generation, part))""",
    """CREATE TABLE IF NOT EXISTS eventfold_entry (
        name TEXT NOT NULL, generation BIGINT NOT NULL, part BIGINT NOT NULL, position BIGINT NOT NULL,
        event_id TEXT NOT NULL, type TEXT NOT NULL, key TEXT NOT NULL, state TEXT NOT NULL, error TEXT NOT NULL,
        attempts BIGINT NOT NULL, because TEXT NOT NULL, PRIMARY KEY (name, generation, part, position))""",
    """CREATE TABLE IF NOT EXISTS eventfold_mark (
        name TEXT NOT NULL, generation BIGINT NOT NULL, part BIGINT NOT NULL, position BIGINT NOT NULL,
        seen BIGINT NOT NULL, seen_digest TEXT NOT NULL, PRIMARY KEY (name, generation, part, position))""",
    """CREATE TABLE IF NOT EXISTS eventfold_command (
        id TEXT PRIMARY KEY, store TEXT NOT NULL, name TEXT NOT NULL, data TEXT NOT NULL, metadata TEXT NOT NULL)""",
)
TABLES = ("eventfold_checkpoint", "eventfold_entry", "eventfold_mark")

COMMAND = "id, store, name, data, metadata"
SAVE_COMMAND = f"INSERT INTO eventfold_command ({COMMAND}) VALUES (?,?,?,?,?)"  # noqa: S608
COMMANDS = f"SELECT {COMMAND} FROM eventfold_command WHERE store = ? ORDER BY id"  # noqa: S608
REMOVE_COMMAND = "DELETE FROM eventfold_command WHERE id = ?"

PROJECTION = "name, kind, code, live, previous, building, paused, tables"
SAVE_PROJECTION = f"""INSERT INTO eventfold_projection ({PROJECTION}) VALUES (?,?,?,?,?,?,?,?)
    ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, code = excluded.code, live = excluded.live,
    previous = excluded.previous, building = excluded.building, paused = excluded.paused, tables = excluded.tables"""  # noqa: S608

CHECKPOINT = """name, generation, part, store, epoch, position, event_id, seen, seen_digest, handled, handled_digest,
    query, fingerprint, partitions, until, revision, token, holder, expires, stopped, stats, "at", beat"""
NEW_CHECKPOINT = f"INSERT INTO eventfold_checkpoint ({CHECKPOINT}) VALUES ({','.join('?' * 23)})"  # noqa: S608
SAVE_CHECKPOINT = f"""UPDATE eventfold_checkpoint SET
    {", ".join(f"{name.strip()} = ?" for name in CHECKPOINT.split(",")[3:])} WHERE {PLACE}"""  # noqa: S608
ADVANCE = f"""UPDATE eventfold_checkpoint SET position = ?, event_id = ?, epoch = ?, seen = ?, seen_digest = ?,
    handled = ?, handled_digest = ?, stopped = ?, stats = ?, "at" = ?, beat = ?, revision = revision + 1
    WHERE {PLACE} AND token = ? AND revision = ? RETURNING revision"""  # noqa: S608
CLAIM = f"""UPDATE eventfold_checkpoint SET token = token + 1, revision = revision + 1, holder = ?, expires = ?,
    beat = ? WHERE {PLACE} AND (holder IN ('', ?) OR expires < ? OR beat > ?) RETURNING {CHECKPOINT}"""  # noqa: S608
BEAT = f"""UPDATE eventfold_checkpoint SET expires = ?, beat = coalesce(nullif(?, 0), beat)
    WHERE {PLACE} AND token = ? RETURNING revision"""  # noqa: S608
RELEASE = f"UPDATE eventfold_checkpoint SET holder = '', expires = 0 WHERE {PLACE} AND token = ?"  # noqa: S608
SEIZE = f"""UPDATE eventfold_checkpoint SET token = token + 1, revision = revision + 1, holder = ?, expires = ?,
    stopped = '' WHERE {PLACE} RETURNING {CHECKPOINT}"""  # noqa: S608
LOOK = f"SELECT {CHECKPOINT} FROM eventfold_checkpoint WHERE {PLACE}"  # noqa: S608
LET_GO = f"""UPDATE eventfold_checkpoint SET token = token + 1, revision = revision + 1, holder = '', expires = 0
    WHERE {PLACE}"""  # noqa: S608
GENERATIONS = "SELECT DISTINCT generation FROM eventfold_checkpoint WHERE name = ?"
NOTICE = "UPDATE eventfold_checkpoint SET revision = revision + 1 WHERE name = ?"

ENTRY = "position, event_id, type, key, state, error, attempts, because"
SAVE_ENTRY = f"""INSERT INTO eventfold_entry (name, generation, part, {ENTRY}) VALUES (?,?,?,?,?,?,?,?,?,?,?)
    ON CONFLICT (name, generation, part, position) DO UPDATE SET state = excluded.state, error = excluded.error,
    attempts = excluded.attempts, because = excluded.because, key = excluded.key"""  # noqa: S608
NEW_MARK = """INSERT INTO eventfold_mark (name, generation, part, position, seen, seen_digest) VALUES (?,?,?,?,?,?)
    ON CONFLICT (name, generation, part, position) DO NOTHING"""


def place_of(place: Place) -> tuple[str, int, int]:
    """A place as the three columns of PLACE."""
    return place.name, place.generation, place.partition


def registered_of(row: tuple[Any, ...]) -> Registered:
    """A row of PROJECTION."""
    name, kind, code, live, previous, building, paused, tables = row
    names = tuple(name for name in str(tables).split(",") if name)
    return Registered(
        name=name, kind=kind, code=code, live=live, previous=previous, building=building, paused=paused, tables=names
    )


def checkpoint_of(row: tuple[Any, ...]) -> Checkpoint:
    """A row of CHECKPOINT."""
    place, (store, epoch, position, event_id, seen, seen_digest, handled, handled_digest, *rest) = row[:3], row[3:]
    names = "query fingerprint partitions until revision token holder expires stopped stats at beat".split()
    return Checkpoint(
        place=Place(*place),
        store=store,
        epoch=epoch,
        position=position,
        event_id=event_id,
        seen=Tally.of(seen, seen_digest),
        handled=Tally.of(handled, handled_digest),
        **dict(zip(names, rest, strict=True)),
    )


def row_of(c: Checkpoint) -> tuple[Any, ...]:
    """The row of a new checkpoint."""
    return (
        *place_of(c.place),
        *(c.store, c.epoch, c.position, c.event_id, c.seen.count, c.seen.hex, c.handled.count, c.handled.hex),
        *(c.query, c.fingerprint, c.partitions, c.until, c.revision, c.token, c.holder, c.expires),
        *(c.stopped, c.stats, c.at, c.beat),
    )


def changed(held: Checkpoint, fields: Mapping[str, Any]) -> Checkpoint:
    """A checkpoint with other fields and the next revision."""
    return msgspec.structs.replace(held, **fields, revision=held.revision + 1)


def command_row(command: PendingCommand) -> tuple[str, ...]:
    """The row of a command that the log has not been told of."""
    return command.id, command.store, command.name, command.data, command.metadata
