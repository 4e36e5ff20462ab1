"""Importing events of another log unchanged, and taking over its identity: how a store is copied.

Knows: the writer's transaction. Does not know: where the events come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

from eventfold.core.envelope import StoredEvent
from eventfold.engines.sqlite import runs, schema
from eventfold.engines.sqlite.compaction import compact_more
from eventfold.engines.sqlite.inline import read_registrations
from eventfold.engines.sqlite.merge import merge_all
from eventfold.engines.sqlite.read import Names
from eventfold.engines.sqlite.schema import read_through, with_checksum, write_identity, write_through
from eventfold.engines.sqlite.tail import refuse_damage
from eventfold.ports.inline import import_refused
from eventfold.ports.refusals import import_gap


def import_events(
    connection: apsw.Connection,
    names: Names,
    events: Sequence[StoredEvent],
    keys: Sequence[tuple[str, int]],
) -> None:
    """Insert events and request keys, inside the writer's transaction. Raises AppendConflict on a gap.

    The events are indexed at once: so many of them come that a tail would not be short.
    """
    types, tags = names.types, names.tags
    refuse_inline_models(connection)
    row = connection.execute(schema.HEAD).fetchone()
    head = row[0] if row else 0
    if events and events[0].position != head + 1:
        raise import_gap(head, events[0].position)
    if events and read_through(connection) < head:
        segments = names.tail.covering(connection, head)
        refuse_damage(segments, 0, head)
        merge_all(connection, types, tags, segments)
    rows: list[tuple[Any, ...]] = []
    entries: list[tuple[int, int, int]] = []
    for event in events:
        type_id = types.ensure(connection, event.type)
        alone = event.size == 1
        rows.append(
            with_checksum(
                (
                    event.position,
                    event.id,
                    type_id,
                    event.version,
                    event.data,
                    event.tags,
                    event.time,
                    event.occurred,
                    event.metadata,
                    None if alone else event.offset,
                    None if alone else event.size,
                    None if event.codec == "json" else event.codec,
                    event.key,
                )
            )
        )
        entries.append((-type_id, event.position, type_id))
        entries += [(tags.ensure(connection, tag), event.position, type_id) for tag in event.tag_set]
    connection.executemany(schema.INSERT_EVENT, rows)
    if events:
        runs.write_run(connection, events[0].position - 1, events[-1].position, sorted(entries))
        write_through(connection, events[-1].position)
        compact_more(connection)
    connection.executemany(schema.INSERT_REQUEST, map(with_checksum, keys))


def take_identity(connection: apsw.Connection, store_id: str, epoch: int) -> None:
    """Take over the identity of another store, in the writer's transaction.

    Raises AppendConflict if there are events.
    """
    refuse_inline_models(connection)
    row = connection.execute(schema.HEAD).fetchone()
    if row:
        raise import_gap(row[0], 1)
    write_identity(connection, store_id, epoch)


def refuse_inline_models(connection: apsw.Connection) -> None:
    """Raises NotSupported if there are inline read models: imported events would be missing in them."""
    if inlined := read_registrations(connection):
        raise import_refused([each.name for each in inlined], "sqlite")
