"""Manual acts on a projection, as events of their own in the log: who skipped what, and why.

The target's transaction decides: a command is done there, and is written into the log afterwards, under an id that was
fixed in that transaction. Their types begin with `$`, which is kept for eventfold's own. Knows: how they are written.
Does not know: what they do.
"""

from __future__ import annotations

from typing import Any

import msgspec

from eventfold.core.envelope import NewEvent, Receipt, new_id
from eventfold.core.event import Event
from eventfold.log.context import Log, Options, metadata_of
from eventfold.ports.engine import AppendRequest
from eventfold.ports.target import PendingCommand, Target

TYPE = "$projection-acted"


class ProjectionActed(Event, type="$projection-acted"):
    """Somebody did something to a projection by hand: `act` is the command's name, `facts` what it was given."""

    projection: str
    act: str
    generation: int
    facts: dict[str, Any]


def command_event(log: Log, options: Options, name: str, act: str, generation: int, **facts: Any) -> PendingCommand:
    """An operator's command as the event it becomes, tagged `$projection:NAME`, its id and metadata fixed."""
    data = msgspec.json.encode(ProjectionActed(name, act, generation, facts))
    metadata = metadata_of(options) or b""
    return PendingCommand(new_id().hex(), log.engine.store_id, name, data.decode(), metadata.decode())


async def record_pending(log: Log, target: Target) -> None:
    """Write into the log what was done in a target and is not in the log yet. Raises what an append raises.

    An event's id is the command's, so that what was written before a crash is not written again.
    """
    for command in target.pending_commands(log.engine.store_id):
        metadata = command.metadata.encode() or None
        tags = (f"$projection:{command.name}",)
        event = NewEvent(bytes.fromhex(command.id), TYPE, 1, command.data.encode(), tags, None, metadata)
        outcome = await log.appender.submit(AppendRequest((event,)))
        if not isinstance(outcome, Receipt):
            raise outcome
        target.remove_command(command)
