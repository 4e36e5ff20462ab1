"""Retiring an alert: ends the open episodes of a rule that is run no more, so that no reminder is sent.

The facts are appended on the condition that no runner wrote one since the episodes were read.
Knows: facts, conditions. Does not know: who retires, whether the rule is run.
"""

from __future__ import annotations

import time

from eventfold.alerts.episode_log import MAX_FACTS, WrittenEpisodes
from eventfold.alerts.facts import MAX_REASON, AlertCleared, new_event_of
from eventfold.core.query import ConditionClause
from eventfold.errors import AppendConflict, EventIdReused
from eventfold.log.append import write
from eventfold.log.context import Log, Options
from eventfold.log.read import load
from eventfold.ports.messages import AppendRequest

MAX_ATTEMPTS = 20  # a rule that is run no more writes nothing


async def end_episodes(log: Log, options: Options, alert: str, because: str, metadata: bytes) -> list[str]:
    """Append a cleared fact for every open episode of an alert. Returns their keys, in the order they were raised.

    Raises AppendConflict where runners go on writing facts of the alert.
    """
    ended: list[str] = []
    attempt = 0
    while True:
        epoch = log.engine.epoch
        written, position = await load(log, WrittenEpisodes(alert))
        raised = list(written.open.values())[:MAX_FACTS]
        if not raised:
            return ended
        now = time.time_ns() // 1_000
        reason = f"The rule was retired: {because}"[:MAX_REASON]
        facts = [AlertCleared(alert, each.key, each.episode, reason, max(now, each.at)) for each in raised]
        events = tuple(new_event_of(fact, metadata) for fact in facts)
        condition = (ConditionClause(written.query(), position),)
        try:
            await write(log, options, AppendRequest(events, condition, None, epoch))
        except (AppendConflict, EventIdReused):  # a runner wrote a fact, perhaps the end of the same episode
            attempt += 1
            if attempt == MAX_ATTEMPTS:
                raise
            continue
        ended += [each.key for each in raised]
