"""A consumer in the store's own target: its record, its checkpoint, and the lease by which one server owns it.

The record's `code` is the consumer's definition, as JSON. All functions block.
Knows: the target, leases, the log as far as cursors. Does not know: deliveries, event loops, HTTP.
"""

from __future__ import annotations

import msgspec

from eventfold.concurrency import run
from eventfold.core.json_values import decode
from eventfold.core.query import Cursor, Query
from eventfold.errors import (
    CursorMismatch,
    InvalidInput,
    ProjectionChanged,
    UnknownProjection,
)
from eventfold.log.cursors import verify
from eventfold.ports.target import (
    Checkpoint,
    CheckpointUpdate,
    ParkedEvent,
    PartitionKey,
    ProjectionRecord,
    Target,
)
from eventfold.projections.admin import ProjectionAdmin
from eventfold.projections.failures import ahead_of_log_error, entries_of, paused_error
from eventfold.projections.generations import refuse_unknown_progress
from eventfold.projections.leases import is_dead_holder, new_holder_id
from eventfold.server.consumers.definition import KIND, ConsumerDefinition
from eventfold.server.consumers.errors import ConsumerElsewhere


class Owned(msgspec.Struct, frozen=True):
    """A consumer that this server owns: what was stored of it when its lease was claimed."""

    definition: ConsumerDefinition
    checkpoint: Checkpoint
    entries: list[ParkedEvent]
    epoch: int  # of the store, in which the checkpoint was verified


def create(admin: ProjectionAdmin, name: str, definition: ConsumerDefinition, start: Cursor, read_by: Query) -> bool:
    """Create a consumer, or change its limits. Returns whether it is new.

    `read_by`: the query by which its events are read, of which its filter leaves some out. Raises ProjectionChanged if
    it exists with another query, filter or key; InvalidInput if the name is in use.
    """
    target, log = admin.catalog.target_at(), admin.log
    code = msgspec.json.encode(definition).decode()
    if target.record(name) is None:
        run(refuse_unknown_progress(log, target, name, KIND))
    with target.control(name) as tx:
        record = tx.record()
        if record is None:
            tx.create(
                ProjectionRecord(name=name, kind=KIND, code=code, live=1),
                {},
                [
                    Checkpoint(
                        place=PartitionKey(name, 1),
                        store=log.engine.store_id,
                        epoch=start.epoch,
                        position=start.position,
                        event_id=start.event_id,
                        query=msgspec.json.encode(read_by).decode(),
                        fingerprint="",
                    )
                ],
            )
            return True
        existing = _definition_of(record)
        if (existing.query, existing.filter, existing.key) != (definition.query, definition.filter, definition.key):
            raise ProjectionChanged(
                f"The consumer {name} exists with another query, filter or key.",
                "Give the new one another name; or remove it first, with its progress.",
                projection=name,
            )
        if record.code != code:
            tx.save_record(msgspec.structs.replace(record, code=code))
        return False


def definition_of(admin: ProjectionAdmin, name: str) -> ConsumerDefinition:
    """Return the definition of a consumer. Raises UnknownProjection."""
    return _definition_of(_record(admin.catalog.target_at(), name))


def consumers(admin: ProjectionAdmin) -> list[tuple[ProjectionRecord, ConsumerDefinition]]:
    """Return all consumers of the store, by name."""
    own = admin.catalog.own_target()
    records = [] if own is None else own.records()
    return [(each, _definition_of(each)) for each in records if each.kind == KIND]


def claim(admin: ProjectionAdmin, name: str) -> Owned:
    """Claim the lease of a consumer. Raises ConsumerElsewhere, UnknownProjection, CursorMismatch.

    Raises ProjectionStopped if it is paused.
    """
    target = admin.catalog.target_at()
    record = _record(target, name)
    if record.paused:
        raise paused_error(name, record.paused)
    key, lease = PartitionKey(name, record.live), admin.catalog.lease
    holder = new_holder_id()
    checkpoint = target.claim(key, holder, lease)
    if checkpoint is None:
        current = target.checkpoint(key)
        other = "" if current is None else current.holder
        if is_dead_holder(other):
            checkpoint = target.claim(key, holder, lease, take_over_from=other)
        if checkpoint is None:
            raise ConsumerElsewhere(
                f"Another server delivers the events of {name}: {other}.",
                f"Call that server, or try again: its lease expires {lease:g} s after it stops.",
                name=name,
                holder=other,
            )
    try:
        epoch = admin.log.engine.epoch
        run(verify(admin.log, Cursor(checkpoint.store, checkpoint.epoch, checkpoint.position, checkpoint.event_id)))
        return Owned(_definition_of(_record(target, name)), checkpoint, entries_of(target, checkpoint), epoch)
    except CursorMismatch as error:
        target.release(checkpoint)
        raise ahead_of_log_error(name, KIND, error) from error
    except BaseException:
        target.release(checkpoint)
        raise


def commit(admin: ProjectionAdmin, checkpoint: Checkpoint, update: CheckpointUpdate) -> Checkpoint:
    """Store an update. Raises LeaseLost, CheckpointChanged (an operator changed something: `reload` it)."""
    with admin.catalog.target_at().transaction(checkpoint.place) as tx:
        return tx.advance(checkpoint, update)


def renew(admin: ProjectionAdmin, checkpoint: Checkpoint) -> bool:
    """Renew the lease. Returns False if an operator changed something since. Raises LeaseLost."""
    return admin.catalog.target_at().renew_lease(checkpoint, admin.catalog.lease) == checkpoint.revision


def reload(admin: ProjectionAdmin, checkpoint: Checkpoint) -> Owned | None:
    """Read again what operators may have changed. None if the lease is lost. Raises ProjectionStopped (paused)."""
    target = admin.catalog.target_at()
    record = _record(target, checkpoint.place.name)
    current = target.checkpoint(checkpoint.place)
    if current is None or current.token != checkpoint.token:
        return None
    if record.paused:
        raise paused_error(record.name, record.paused)
    return Owned(_definition_of(record), current, target.parked(checkpoint.place), admin.log.engine.epoch)


def release(admin: ProjectionAdmin, checkpoint: Checkpoint) -> None:
    """Release the lease, so that another server can claim it at once."""
    admin.catalog.target_at().release(checkpoint)


def _record(target: Target, name: str) -> ProjectionRecord:
    record = target.record(name)
    if record is None or record.kind != KIND:
        raise unknown(name)
    return record


def unknown(name: str) -> UnknownProjection:
    """The error for a consumer that does not exist."""
    return UnknownProjection(
        f"There is no consumer {name} here.", "Create it by PUT, or list the consumers.", projection=name
    )


def _definition_of(record: ProjectionRecord) -> ConsumerDefinition:
    if record.kind != KIND:
        raise InvalidInput(
            f"{record.name} is a read model, effect or follower of this store.",
            "Give the consumer another name.",
            name=record.name,
        )
    return decode(record.code, ConsumerDefinition)
