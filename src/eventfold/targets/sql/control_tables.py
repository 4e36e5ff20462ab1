"""Control tables of a SQL target: records, checkpoints, parked events, marks and commands, each row with a checksum.

Knows: SQL that SQLite and PostgreSQL both accept (`?` becomes the driver's own mark). Does not know: rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from zlib import crc32

import msgspec

from eventfold.core.tally import Tally
from eventfold.errors import ProjectionDamaged, TargetUnavailable
from eventfold.ports.target import (
    ELSEWHERE,
    Checkpoint,
    ParkedEvent,
    PartitionKey,
    PendingCommand,
    ProjectionRecord,
)

WHERE_PARTITION = "name = ? AND generation = ? AND part = ?"

CREATE_TABLES = (
    """CREATE TABLE IF NOT EXISTS eventfold_projection (
        name TEXT PRIMARY KEY, kind TEXT NOT NULL, code TEXT NOT NULL, live BIGINT NOT NULL, previous BIGINT,
        building BIGINT, paused TEXT NOT NULL, tables TEXT NOT NULL, checksum BIGINT)""",
    """CREATE TABLE IF NOT EXISTS eventfold_checkpoint (
        name TEXT NOT NULL, generation BIGINT NOT NULL, part BIGINT NOT NULL,
        store TEXT NOT NULL, epoch BIGINT NOT NULL, position BIGINT NOT NULL, event_id TEXT NOT NULL,
        seen BIGINT NOT NULL, seen_digest TEXT NOT NULL, handled BIGINT NOT NULL, handled_digest TEXT NOT NULL,
        query TEXT NOT NULL, fingerprint TEXT NOT NULL, partitions BIGINT NOT NULL, until BIGINT,
        revision BIGINT NOT NULL, token BIGINT NOT NULL, holder TEXT NOT NULL, expires_at BIGINT NOT NULL,
        stopped TEXT NOT NULL, stats TEXT NOT NULL, "at" BIGINT NOT NULL, renewed_at BIGINT NOT NULL,
        checksum BIGINT, lease_checksum BIGINT, PRIMARY KEY (name, generation, part))""",
    """CREATE TABLE IF NOT EXISTS eventfold_entry (
        name TEXT NOT NULL, generation BIGINT NOT NULL, part BIGINT NOT NULL, position BIGINT NOT NULL,
        event_id TEXT NOT NULL, type TEXT NOT NULL, key TEXT NOT NULL, state TEXT NOT NULL, error TEXT NOT NULL,
        attempts BIGINT NOT NULL, because TEXT NOT NULL, checksum BIGINT,
        PRIMARY KEY (name, generation, part, position))""",
    """CREATE TABLE IF NOT EXISTS eventfold_mark (
        name TEXT NOT NULL, generation BIGINT NOT NULL, part BIGINT NOT NULL, position BIGINT NOT NULL,
        seen BIGINT NOT NULL, seen_digest TEXT NOT NULL, checksum BIGINT,
        PRIMARY KEY (name, generation, part, position))""",
    """CREATE TABLE IF NOT EXISTS eventfold_command (
        id TEXT PRIMARY KEY, store TEXT NOT NULL, name TEXT NOT NULL, data TEXT NOT NULL, metadata TEXT NOT NULL,
        checksum BIGINT)""",
    "CREATE TABLE IF NOT EXISTS eventfold_layout (layout BIGINT NOT NULL)",
    "INSERT INTO eventfold_layout (layout) VALUES (2)",
)
LAYOUT = 2
# Columns are renamed so that a process of the previous release, which writes no checksums, fails to write anything.
UPGRADE_TABLES = (
    "ALTER TABLE eventfold_projection ADD COLUMN checksum BIGINT",
    "ALTER TABLE eventfold_checkpoint RENAME COLUMN expires TO expires_at",
    "ALTER TABLE eventfold_checkpoint RENAME COLUMN beat TO renewed_at",
    "ALTER TABLE eventfold_checkpoint ADD COLUMN checksum BIGINT",
    "ALTER TABLE eventfold_checkpoint ADD COLUMN lease_checksum BIGINT",
    "ALTER TABLE eventfold_entry ADD COLUMN checksum BIGINT",
    "ALTER TABLE eventfold_mark ADD COLUMN checksum BIGINT",
)
UPGRADE_OUTBOX = "ALTER TABLE eventfold_sending ADD COLUMN checksum BIGINT"
PARTITION_TABLES = ("eventfold_checkpoint", "eventfold_entry", "eventfold_mark")

COMMAND_COLUMNS = "id, store, name, data, metadata, checksum"
INSERT_COMMAND = f"INSERT INTO eventfold_command ({COMMAND_COLUMNS}) VALUES (?,?,?,?,?,?)"  # noqa: S608
SELECT_COMMANDS = f"SELECT {COMMAND_COLUMNS} FROM eventfold_command ORDER BY id"  # noqa: S608
DELETE_COMMAND = "DELETE FROM eventfold_command WHERE id = ?"

RECORD_COLUMNS = "name, kind, code, live, previous, building, paused, tables, checksum"
UPSERT_RECORD = f"""INSERT INTO eventfold_projection ({RECORD_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)
    ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, code = excluded.code, live = excluded.live,
    previous = excluded.previous, building = excluded.building, paused = excluded.paused, tables = excluded.tables,
    checksum = excluded.checksum"""  # noqa: S608

CHECKPOINT_COLUMNS = """name, generation, part, store, epoch, position, event_id, seen, seen_digest, handled,
    handled_digest, query, fingerprint, partitions, until, revision, token, holder, expires_at, stopped, stats, "at",
    renewed_at, checksum, lease_checksum"""
INSERT_CHECKPOINT = f"INSERT INTO eventfold_checkpoint ({CHECKPOINT_COLUMNS}) VALUES ({','.join('?' * 25)})"  # noqa: S608
UPDATE_CHECKPOINT = f"""UPDATE eventfold_checkpoint SET
    {", ".join(f"{name.strip()} = ?" for name in CHECKPOINT_COLUMNS.split(",")[3:])} WHERE {WHERE_PARTITION}"""  # noqa: S608
ADVANCE_CHECKPOINT = f"""UPDATE eventfold_checkpoint SET position = ?, event_id = ?, epoch = ?, seen = ?,
    seen_digest = ?, handled = ?, handled_digest = ?, stopped = ?, stats = ?, "at" = ?, checksum = ?,
    revision = revision + 1
    WHERE {WHERE_PARTITION} AND token = ? AND revision = ? RETURNING revision"""  # noqa: S608
SELECT_CHECKPOINT = f"SELECT {CHECKPOINT_COLUMNS} FROM eventfold_checkpoint WHERE {WHERE_PARTITION}"  # noqa: S608
SELECT_GENERATIONS = "SELECT DISTINCT generation FROM eventfold_checkpoint WHERE name = ?"
SELECT_CHECKPOINTS = f"SELECT {CHECKPOINT_COLUMNS} FROM eventfold_checkpoint WHERE name = ? ORDER BY generation, part"  # noqa: S608
SELECT_LIVE_CHECKPOINTS = f"""SELECT {CHECKPOINT_COLUMNS} FROM eventfold_checkpoint c WHERE EXISTS (
    SELECT 1 FROM eventfold_projection p WHERE p.name = c.name AND p.live = c.generation)
    ORDER BY name, generation, part"""  # noqa: S608

PARKED_COLUMNS = "position, event_id, type, key, state, error, attempts, because, checksum"
UPSERT_PARKED = f"""INSERT INTO eventfold_entry (name, generation, part, {PARKED_COLUMNS})
    VALUES (?,?,?,?,?,?,?,?,?,?,?,?)
    ON CONFLICT (name, generation, part, position) DO UPDATE SET state = excluded.state, error = excluded.error,
    attempts = excluded.attempts, because = excluded.because, key = excluded.key,
    checksum = excluded.checksum"""  # noqa: S608
SELECT_PARKED = f"SELECT {PARKED_COLUMNS} FROM eventfold_entry WHERE {WHERE_PARTITION} ORDER BY position"  # noqa: S608
SELECT_LIVE_PARKED = f"""SELECT name, generation, part, {PARKED_COLUMNS} FROM eventfold_entry e WHERE EXISTS (
    SELECT 1 FROM eventfold_projection p WHERE p.name = e.name AND p.live = e.generation)
    ORDER BY name, generation, part, position"""  # noqa: S608
DELETE_PARKED = f"DELETE FROM eventfold_entry WHERE {WHERE_PARTITION} AND position = ?"  # noqa: S608
MARK_COLUMNS = "position, seen, seen_digest, checksum"
INSERT_MARK = f"""INSERT INTO eventfold_mark (name, generation, part, {MARK_COLUMNS}) VALUES (?,?,?,?,?,?,?)
    ON CONFLICT (name, generation, part, position) DO NOTHING"""  # noqa: S608

SELECT_MARKS = f"SELECT {MARK_COLUMNS} FROM eventfold_mark WHERE {WHERE_PARTITION} ORDER BY position"  # noqa: S608


def key_columns(key: PartitionKey) -> tuple[str, int, int]:
    """The values of the columns `name`, `generation` and `part`, as in WHERE_PARTITION."""
    return key.name, key.generation, key.partition


def checksum(table: str, *values: Any) -> int:
    """CRC-32 of a row, over its values as text: any flipped bit changes it."""
    return crc32(
        "\x1f".join([table, *("" if value is None else f"{value}" for value in values)]).encode("utf-8", "replace")
    )


def damaged_row_error(table: str, name: Any, *at: Any) -> ProjectionDamaged:
    """The error for a row whose checksum does not match its values. `at`: the rest of the row's key."""
    row = " ".join(f"{each}" for each in (name, *at))
    return ProjectionDamaged(
        f"The record of {name} is damaged: the row {row} of {table} differs from what was written.",
        f"Restore that database from a backup; or remove the record (eventfold projections remove STORE {name}) and "
        "rebuild it from the log.",
        projection=f"{name}",
        table=table,
        row=row,
    )


def record_row(p: ProjectionRecord) -> tuple[Any, ...]:
    """A record as a row of `eventfold_projection`, with its checksum."""
    row = (p.name, p.kind, p.code, p.live, p.previous, p.building, p.paused, ",".join(p.tables))
    return (*row, checksum("eventfold_projection", *row))


def record_from_row(row: tuple[Any, ...]) -> ProjectionRecord:
    """The record in a row of `eventfold_projection`. Raises ProjectionDamaged."""
    name, kind, code, live, previous, building, paused, tables, stored = row
    if stored != checksum("eventfold_projection", *row[:-1]):
        raise damaged_row_error("eventfold_projection", name)
    names = tuple(name for name in (tables or "").split(",") if name)
    return ProjectionRecord(
        name=name, kind=kind, code=code, live=live, previous=previous, building=building, paused=paused, tables=names
    )


def checkpoint_from_row(row: tuple[Any, ...]) -> Checkpoint:
    """The checkpoint in a row of `eventfold_checkpoint`. Raises ProjectionDamaged.

    `beat` is the last sign of life: the later of the lease's renewal and the checkpoint's advance.
    """
    columns = row[:-2]
    if row[-2:] != checkpoint_checksums(columns):
        raise damaged_row_error("eventfold_checkpoint", *row[:3])
    key, (store, epoch, position, event_id, seen, seen_digest, handled, handled_digest, *rest) = row[:3], columns[3:]
    names = "query fingerprint partitions until revision token holder expires stopped stats at beat".split()
    fields = dict(zip(names, rest, strict=True))
    fields["beat"] = max(fields["beat"], fields["at"])
    return Checkpoint(
        place=PartitionKey(*key),
        store=store,
        epoch=epoch,
        position=position,
        event_id=event_id,
        seen=Tally.of(seen, seen_digest),
        handled=Tally.of(handled, handled_digest),
        **fields,
    )


def checkpoint_checksums(columns: tuple[Any, ...]) -> tuple[int, int]:
    """The two checksums of a row of `eventfold_checkpoint`: of what an advance writes and checks, and of the lease.

    There are two because a lease is renewed independently of an advance, and concurrently with it.
    """
    return (
        checksum("eventfold_checkpoint", *columns[:17], *columns[19:22]),
        checksum("lease", *columns[:3], *columns[16:19], columns[22]),
    )


def checkpoint_row(c: Checkpoint) -> tuple[Any, ...]:
    """A checkpoint as a row of `eventfold_checkpoint`, with its checksums."""
    columns = (
        *key_columns(c.place),
        *(c.store, c.epoch, c.position, c.event_id, c.seen.count, c.seen.hex, c.handled.count, c.handled.hex),
        *(c.query, c.fingerprint, c.partitions, c.until, c.revision, c.token, c.holder, c.expires),
        *(c.stopped, c.stats, c.at, c.beat),
    )
    return (*columns, *checkpoint_checksums(columns))


def claim_lease(
    checkpoint: Checkpoint, holder: str, now: int, seconds: float, take_over_from: str
) -> Checkpoint | None:
    """The checkpoint with its lease assigned to `holder` and a greater token; None while another holder has the lease.

    A last sign of life that is later than the end of the new lease shows that the clock was set back. The lease counts
    as free then, since a holder that is alive would have renewed it by the new clock.
    """
    expires = now + int(seconds * 1e6)
    if checkpoint.holder not in ("", take_over_from) and checkpoint.expires >= now and checkpoint.beat <= expires:
        return None
    return change_checkpoint(
        checkpoint, {"token": checkpoint.token + 1, "holder": holder, "expires": expires, "beat": now}
    )


def renew_lease(checkpoint: Checkpoint, now: int, seconds: float, progress: bool) -> Checkpoint:
    """The checkpoint with its lease extended to `seconds` after `now`; with `progress`, `now` is a sign of life."""
    beat = now if progress else checkpoint.beat
    return msgspec.structs.replace(checkpoint, expires=now + int(seconds * 1e6), beat=beat)


def release_lease(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint without a lease."""
    return msgspec.structs.replace(checkpoint, holder="", expires=0)


def parked_row(key: PartitionKey, entry: ParkedEvent) -> tuple[Any, ...]:
    """A parked event as a row of `eventfold_entry`, with its checksum."""
    row = (*key_columns(key), *msgspec.structs.astuple(entry))
    return (*row, checksum("eventfold_entry", *row))


def parked_from_row(key: PartitionKey, row: Sequence[Any]) -> ParkedEvent:
    """The parked event in a row of `eventfold_entry` (PARKED_COLUMNS). Raises ProjectionDamaged."""
    if row[-1] != checksum("eventfold_entry", *key_columns(key), *row[:-1]):
        raise damaged_row_error("eventfold_entry", *key_columns(key), row[0])
    return ParkedEvent(*row[:-1])


def mark_row(key: PartitionKey, position: int, seen: Tally) -> tuple[Any, ...]:
    """A ledger mark as a row of `eventfold_mark`, with its checksum."""
    row = (*key_columns(key), position, seen.count, seen.hex)
    return (*row, checksum("eventfold_mark", *row))


def mark_from_row(key: PartitionKey, row: Sequence[Any]) -> tuple[int, Tally]:
    """The (position, seen) in a row of `eventfold_mark` (MARK_COLUMNS). Raises ProjectionDamaged."""
    position, count, digest, stored = row
    if stored != checksum("eventfold_mark", *key_columns(key), position, count, digest):
        raise damaged_row_error("eventfold_mark", *key_columns(key), position)
    return position, Tally.of(count, digest)


def change_checkpoint(checkpoint: Checkpoint, fields: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint with these fields changed and the next revision."""
    return msgspec.structs.replace(checkpoint, **fields, revision=checkpoint.revision + 1)


def command_row(command: PendingCommand) -> tuple[Any, ...]:
    """A command that is not yet in the log as a row of `eventfold_command`, with its checksum."""
    row = (command.id, command.store, command.name, command.data, command.metadata)
    return (*row, checksum("eventfold_command", *row))


def command_from_row(row: Sequence[Any]) -> PendingCommand:
    """The command in a row of `eventfold_command`. Raises ProjectionDamaged."""
    if row[-1] != checksum("eventfold_command", *row[:-1]):
        raise ProjectionDamaged(
            f"A command on {row[2]} was carried out, but its event for the log is damaged (in eventfold_command).",
            "Delete that row by SQL, or restore that database from a backup; rows and checkpoints are not affected.",
            projection=f"{row[2]}",
            table="eventfold_command",
            row=f"{row[0]}",
        )
    return PendingCommand(*(each or "" for each in row[:-1]))


def complete_checkpoints(
    read: Callable[[str, int | None], list[Checkpoint]],
    record_of: Callable[[str], ProjectionRecord | None],
    name: str,
    generation: int | None,
) -> list[Checkpoint]:
    """Return the checkpoints of a projection: of a generation, or all. Raises ProjectionDamaged if some are missing.

    A generation without checkpoints that its record does not name was dropped meanwhile: an empty list.
    """
    checkpoints = read(name, generation)
    if not checkpoints and generation is not None:
        record = record_of(name)
        if record is not None and record.kind != ELSEWHERE and generation in record.generations:
            checkpoints = read(name, generation)  # the record was read later: both may have changed
            if not checkpoints:
                raise damaged_row_error("eventfold_checkpoint", name, generation)
    refuse_partial(checkpoints, name)
    return checkpoints


def refuse_partial(checkpoints: Sequence[Checkpoint], name: str) -> None:
    """Raise ProjectionDamaged if checkpoints of some partitions of a generation are missing."""
    by_generation: dict[int, list[Checkpoint]] = {}
    for each in checkpoints:
        by_generation.setdefault(each.place.generation, []).append(each)
    for generation, its in by_generation.items():
        if [each.place.partition for each in its] != list(range(its[0].partitions)):
            raise damaged_row_error("eventfold_checkpoint", name, generation)


def refuse_layout(address: str, layout: int) -> None:
    """Raise TargetUnavailable if the tables are of a later release."""
    if layout > LAYOUT:
        raise TargetUnavailable(
            f"The read models in {address} are of a newer eventfold (layout {layout}; this version writes {LAYOUT}).",
            "Use that version of eventfold, or another database (target=…).",
            address=address,
            layout=layout,
        )


def parse_table_names(tables: Any) -> list[str]:
    """The valid table names in the `tables` column of a record that may be damaged."""
    return [name for name in f"{tables}".split(",") if re.fullmatch(r"\w{1,200}", name)]
