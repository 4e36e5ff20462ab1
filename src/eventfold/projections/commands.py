"""Operator commands: done in one transaction of a target, then recorded in the log as events.

The target's transaction decides. The event is written into the log afterwards, under an id that was fixed in that
transaction. Its type begins with `$`, which is reserved for eventfold. Knows: who gives the command (the options of a
call), that a command begins again where another came first. Does not know: what a command does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from eventfold.concurrency import run
from eventfold.core.envelope import NewEvent, Receipt, new_id
from eventfold.core.event import Event
from eventfold.errors import EventfoldError, TargetUnavailable
from eventfold.log.append import submit
from eventfold.log.context import Log, Options, metadata_of
from eventfold.ports.messages import AppendRequest
from eventfold.ports.target import CheckpointChanged, ControlTransaction, PendingCommand, Target

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
        outcome = await submit(log.appender, AppendRequest((event,)))
        if not isinstance(outcome, Receipt):
            raise outcome
        target.remove_command(command)


R = TypeVar("R")
MAX_DISTURBED = 20  # how often a command begins again because what it read was changed meanwhile


class OperatorCommands:
    """The commands of one caller, whose metadata (`options`) is recorded with them."""

    def __init__(self, log: Log, options: Options) -> None:
        self._log, self._options = log, options

    def prepare(self, name: str, act: str, generation: int, **facts: Any) -> PendingCommand:
        """A command as the event that it becomes in the log."""
        return command_event(self._log, self._options, name, act, generation, **facts)

    def save(self, tx: ControlTransaction, name: str, act: str, generation: int, **facts: Any) -> None:
        """Save a command in the transaction that does it. It is written into the log after the transaction."""
        tx.save_command(self.prepare(name, act, generation, **facts))

    def carry_out(self, target: Target, name: str, attempt: Callable[[], R]) -> R:
        """Do a command: `attempt` makes its transaction, and raises CheckpointChanged to be called again.

        Commands saved earlier are written into the log before it, those that it saves after it. Raises
        TargetUnavailable where others change the same projection for too long.
        """
        run(record_pending(self._log, target))
        done = until_undisturbed(target, name, attempt)
        try:
            run(record_pending(self._log, target))
        except EventfoldError as error:
            error.add_note("The command was carried out. It is written into the log by the next command.")
            raise
        return done


def until_undisturbed(target: Target, name: str, attempt: Callable[[], R]) -> R:
    """Result of `attempt`, repeated while it raises CheckpointChanged. Raises TargetUnavailable after twenty times."""
    for _ in range(MAX_DISTURBED):
        with suppress(CheckpointChanged):
            return attempt()
    raise changed_too_often(target, name)


def changed_too_often(target: Target, name: str) -> TargetUnavailable:
    """The error for a command that found something else each time it began."""
    return TargetUnavailable(
        f"What is known about {name} was changed {MAX_DISTURBED} times while it was to be changed.",
        "Try again.",
        address=target.address,
        projection=name,
    )
