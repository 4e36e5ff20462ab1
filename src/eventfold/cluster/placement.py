"""Where streams are led, and how many copies they have, changed while they are in use.

Knows: leaders and copies. Does not know: requests, what is printed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from eventfold.cluster.control import POLL_S, ClusterControl, StreamPlace
from eventfold.errors import InvalidInput, StoreUnavailable

COPIES = (1, 3, 5)  # two copies survive the loss of no node, and four of no more than three do


class Move(NamedTuple):
    """A stream whose leader is to change."""

    stream: str
    source: str
    target: str


def plan_moves(streams: Sequence[StreamPlace]) -> list[Move]:
    """The fewest moves after which no node leads two streams more than another that has copies of them.

    Only copies that are current are chosen, so that the change takes no longer than an agreement of the nodes.
    """
    leaders = {stream.name: stream.leader for stream in streams if stream.leader}
    counts = Counter({name: 0 for stream in streams for name in stream.nodes})
    counts.update(leaders.values())
    moves: list[Move] = []
    while True:
        best: Move | None = None
        gain = 1
        for stream in streams:
            source = leaders.get(stream.name)
            if source is None or any(move.stream == stream.name for move in moves):
                continue
            for each in stream.replicas:
                difference = counts[source] - counts[each.name]
                if each.current and not each.offline and difference > gain:
                    best, gain = Move(stream.name, source, each.name), difference
        if best is None:
            return moves
        moves.append(best)
        leaders[best.stream] = best.target
        counts[best.source] -= 1
        counts[best.target] += 1


async def balance(control: ClusterControl, report: Callable[[Move], None] = lambda _: None) -> list[Move]:
    """Spread the leaders over the nodes: each stream's writes cost most on the node that leads it."""
    done: list[Move] = []
    for move in plan_moves(await control.streams()):
        leader = await control.move_leader(move.stream, move.target)
        done.append(move._replace(target=leader))
        report(done[-1])
    return done


async def set_replicas(control: ClusterControl, replicas: int, timeout: float) -> list[str]:
    """Give every stream of the address this number of copies, and wait until all are current.

    Returns the streams that were changed. Raises StoreUnavailable if the copies are not current in time: the nodes
    continue to fill them.
    """
    if replicas not in COPIES:
        raise InvalidInput(f"A stream cannot have {replicas} copies here.", "Choose 3, or 5; or 1 for development.")
    streams = await control.streams()
    if not streams:
        raise InvalidInput("There is no stream of a store in this cluster.", "Create a store by `eventfold init`.")
    changed = [stream.name for stream in streams if stream.wanted != replicas]
    for name in changed:
        await control.set_replicas(name, replicas)
    ends = asyncio.get_running_loop().time() + timeout
    while waiting := [each.name for each in await control.streams() if each.wanted != replicas or not each.is_whole]:
        if asyncio.get_running_loop().time() > ends:
            raise StoreUnavailable(
                f"The copies of {', '.join(waiting)} are not current after {timeout:.0f} s.",
                "The nodes go on; follow them by `eventfold cluster status`.",
                streams=waiting,
            )
        await asyncio.sleep(POLL_S)
    return changed
