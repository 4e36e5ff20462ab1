"""Operator commands: carried out in one transaction of a target, then recorded in the log as events.

The target's transaction decides whether a command took effect. Its event is appended to the log afterwards, with an id
that was stored in that transaction. The event's type begins with `$`, which is reserved for eventfold.
Knows: the metadata of the caller (options), how a command starts over after a conflict. Does not know: what a command
does.
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
    """An operator changed a projection: `act` is the command's name, `facts` are its arguments."""

    projection: str
    act: str
    generation: int
    facts: dict[str, Any]


def command_event(log: Log, options: Options, name: str, act: str, generation: int, **facts: Any) -> PendingCommand:
    """Return a command as the event that it becomes, with the tag `$projection:NAME`, an id and metadata."""
    data = msgspec.json.encode(ProjectionActed(name, act, generation, facts))
    metadata = metadata_of(options) or b""
    return PendingCommand(new_id().hex(), log.engine.store_id, name, data.decode(), metadata.decode())


async def record_pending(log: Log, target: Target) -> None:
    """Append the commands that a target has carried out and that are not in the log yet. Raises what an append raises.

    An event has the id of its command, so that one that was appended before a crash is not appended again.
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
MAX_DISTURBED = 20  # how often a command starts over because what it read changed meanwhile


class OperatorCommands:
    """The commands of one caller, whose metadata (`options`) is recorded with them."""

    def __init__(self, log: Log, options: Options) -> None:
        self._log, self._options = log, options

    def prepare(self, name: str, act: str, generation: int, **facts: Any) -> PendingCommand:
        """Return a command as the event that it becomes in the log."""
        return command_event(self._log, self._options, name, act, generation, **facts)

    def save(self, tx: ControlTransaction, name: str, act: str, generation: int, **facts: Any) -> None:
        """Save a command in the transaction that carries it out. It is appended to the log after the transaction."""
        tx.save_command(self.prepare(name, act, generation, **facts))

    def carry_out(self, target: Target, name: str, attempt: Callable[[], R]) -> R:
        """Carry out a command and return the result of `attempt`, its transaction.

        `attempt` raises CheckpointChanged to be called again. Commands saved earlier are appended to the log before it,
        and those that it saves after it. Raises TargetUnavailable after 20 conflicts with other commands.
        """
        run(record_pending(self._log, target))
        done = until_undisturbed(target, name, attempt)
        try:
            run(record_pending(self._log, target))
        except EventfoldError as error:
            error.add_note("The command was carried out. The next command records it in the log.")
            raise
        return done


def until_undisturbed(target: Target, name: str, attempt: Callable[[], R]) -> R:
    """Return the result of `attempt`, repeated while it raises CheckpointChanged. Raises TargetUnavailable after 20."""
    for _ in range(MAX_DISTURBED):
        with suppress(CheckpointChanged):
            return attempt()
    raise changed_too_often(target, name)


def changed_too_often(target: Target, name: str) -> TargetUnavailable:
    """Return the error for a command that met a conflicting change at each attempt."""
    return TargetUnavailable(
        f"Other commands or runners changed {name} during each of {MAX_DISTURBED} attempts to change it.",
        "Try again.",
        address=target.address,
        projection=name,
    )
