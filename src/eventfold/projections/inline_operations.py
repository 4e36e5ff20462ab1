"""Room: read models that every append keeps up, as the desk handles them: named at the store, exchanged, let go of.

Knows: where they are enrolled, what may not be done to them. Does not know: how they are folded, how a turn is taken.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import cast

from eventfold.concurrency import run
from eventfold.errors import InvalidProjection
from eventfold.log.context import Log
from eventfold.ports.inline import InlineRegistration
from eventfold.ports.target import Checkpoint, Host, PendingCommand, Place, Registered, Target
from eventfold.projections import inline_admin
from eventfold.projections.definition import Plan
from eventfold.projections.inline import Inlining
from eventfold.projections.lease_holders import new_holder_id
from eventfold.projections.runner import catch_up, means_of
from eventfold.projections.worker import Work

NAP = 0.01  # seconds between looks at a backfill that somebody else does


def folder_of(log: Log, target: Target, plans: Sequence[Plan]) -> Inlining:
    """What an engine folds these with. Raises NotSupported, InvalidProjection."""
    inline_admin.refuse_engine(log.engine)
    folder = Inlining(log.engine, log.registry, _host(target))
    for plan in plans:
        inline_admin.refuse_plan(plan)
        folder.add(plan)
    return folder


def enrolled(log: Log) -> dict[str, InlineRegistration]:
    """Those that every append keeps up, by name."""
    return {each.name: each for each in run(log.engine.inlined())}


def strangers(log: Log, plans: Sequence[Plan]) -> list[Plan]:
    """Those that are not enrolled yet, or with other code than this."""
    entries = enrolled(log)
    return [plan for plan in plans if not inline_admin.same(entries.get(plan.name), plan)]


def take_in(log: Log, target: Target, plan: Plan, known: Registered, lease: float) -> bool:
    """Fold what is there already, then have every append keep it up. False where it stopped or is paused.

    The long part is done while others append, by whoever holds the lease; only the rest in a turn of the writer.
    """
    work = Work(plan, means_of(log, target, lease), Place(plan.name, known.live), new_holder_id())
    while (state := catch_up(work, 0.0)) == "held":
        if inline_admin.same(enrolled(log).get(plan.name), plan):
            return True
        (held,) = target.checkpoints(plan.name, known.live)
        if held.position >= run(log.engine.head()).position or inline_admin.inline([held]):
            break
        time.sleep(NAP)
    if state in ("stopped", "paused"):
        return False
    run(inline_admin.enrol(log, _host(target), plan, known))
    return True


def switch(log: Log, target: Target, plan: Plan, new: Registered, command: PendingCommand) -> None:
    """Let readers and appends go over to what was built, between two appends. Raises Disturbed."""
    run(inline_admin.switch(log, _host(target), plan, new, command))


def let_go(log: Log, target: Target, known: Registered) -> None:
    """Have appends keep it up no longer, if they do."""
    if known.name in enrolled(log) or inline_admin.inline(target.checkpoints(known.name, known.live)):
        run(inline_admin.let_go(log, _host(target), known))


def accept(log: Log, plan: Plan) -> None:
    """Let appends go on with this code."""
    if plan.name in enrolled(log):
        run(inline_admin.accept(log, plan))


def refuse_act(act: str, known: Registered, held: Sequence[Checkpoint]) -> None:
    """Raises InvalidProjection on what makes no sense where every append keeps a read model up."""
    if inline_admin.inline(held):
        now = {
            "paused": "let go of it instead: eventfold projections forget {0}.",
            "rolled back": "build it with the code of before, and switch: eventfold projections rebuild {0} --switch.",
        }[act]
        raise InvalidProjection(
            f"{known.name} is kept within every append, so it cannot be {act}.",
            now[0].upper() + now[1:].format(known.name),
            projection=known.name,
        )


def _host(target: Target) -> Host:
    return cast("Host", target)
