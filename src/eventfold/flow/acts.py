"""Room: manual acts on a projection, as events of their own in the log: who skipped what, and why.

Their types begin with `$`, which is kept for eventfold's own. Knows: how they are written. Does not know: what they do.
"""

from __future__ import annotations

from typing import Any

import msgspec

from eventfold.engine import AppendRequest
from eventfold.event import Event
from eventfold.flow.log import Log, Options, metadata_of
from eventfold.record import NewEvent, Receipt, new_id


class ProjectionActed(Event, type="$projection-acted"):
    """Somebody did something to a projection by hand: `act` is the command's name, `facts` what it was given."""

    projection: str
    act: str
    generation: int
    facts: dict[str, Any]


async def record(log: Log, options: Options, name: str, act: str, generation: int, **facts: Any) -> Receipt:
    """Write an act into the log, tagged `$projection:NAME`. Raises what an append raises."""
    data = msgspec.json.encode(ProjectionActed(name, act, generation, facts))
    event = NewEvent(new_id(), "$projection-acted", 1, data, (f"$projection:{name}",), None, metadata_of(options))
    outcome = await log.submit(AppendRequest((event,)))
    if isinstance(outcome, Receipt):
        return outcome
    raise outcome
