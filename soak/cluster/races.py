"""Races: many writers in several processes, connected to different nodes, append under one condition; one may win.

Knows: how racers start at the same time. Does not know: what else is done to the cluster.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path

from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Query
from soak.cluster.clients import Crowd, Place, opened
from soak.cluster.facts import TYPES, fact
from soak.cluster.leaders import step_down
from soak.cluster.record import Recorder
from soak.cluster.rounds import OUTAGE_S, STREAM, check, create, wait
from soak.cluster.stores import AsyncLog
from soak.cluster.workload import Step, Writer
from soak.rounds import Round
from tests.support.servers.nats import own

RACERS, RACES = 50, 12
LOOK_S = 0.002  # how often a racer looks for the start


def start_file(folder: Path, race: int) -> Path:
    """Return the file that starts a race."""
    return folder / f"race-{race}"


def racer_step(race: int, racer: int, size: int) -> Step:
    """Return the append of one racer: events of the race's tag, if there are none."""
    op = f"race{race}.{racer}"
    events = tuple(fact(TYPES[0], f"race{race}", f"i{racer}", op, index) for index in range(size))
    return Step(op, events, (Query.of(tags=f"group:race{race}"),))


def run_races(place: Place, name: str, host: str, races: int, racers: Sequence[int]) -> None:
    """Take part in races with some racers, each when its file is there, and write `NAME-done-RACE` after each."""

    async def main() -> None:
        recorder, over = Recorder(place.folder, name), place.is_over()
        async with opened(place, host) as store:
            writer = Writer(AsyncLog(store), recorder, random.Random(name))
            for race in range(races):
                while not start_file(place.folder, race).exists():
                    if over():
                        return
                    await asyncio.sleep(LOOK_S)
                size = 1 if race % 3 else 4
                await asyncio.gather(*(writer.perform(racer_step(race, racer, size), 0) for racer in racers))
                (place.folder / f"{name}-done-{race}").touch()

    asyncio.run(main())


def await_end(place: Place, names: Sequence[str], race: int, seconds: float) -> bool:
    """Wait until all processes have ended a race. Returns whether they have, within the time."""
    ends = time.monotonic() + seconds
    while not all((place.folder / f"{name}-done-{race}").exists() for name in names):
        if time.monotonic() > ends:
            return False
        time.sleep(LOOK_S)
    return True


def without_one_winner(log: Sequence[StoredEvent], races: int) -> list[str]:
    """Return a problem for each race that has not exactly one winner in the log."""
    found: list[str] = []
    for race in range(races):
        winners = {event.first for event in log if f"group:race{race}" in event.tag_set}
        if len(winners) != 1:
            found.append(f"race {race} has {len(winners)} winners")
    return found


def spread(url: str, addresses: Sequence[str], at: int) -> str:
    """Return the address of a store with the hosts in another order, so that clients begin at different nodes."""
    ordered = [*addresses[at:], *addresses[:at]]
    return url.replace(",".join(addresses), ",".join(ordered))


def racing(turn: Round, races: int = RACES) -> None:
    """Let 50 racers in four processes, each at another node, race; step the leader down in the middle of a race."""
    names = [f"racer{number}" for number in range(4)]
    with own(3) as cluster:
        place = create(cluster, turn.folder)
        crowd = Crowd(place)
        addresses = [node.address for node in cluster.nodes]
        for number, name in enumerate(names):
            racers = range(RACERS)[number :: len(names)]
            there = Place(spread(place.url, addresses, number % 3), place.folder, place.options)
            host = f"h{number % 2 + 1}"
            crowd.add(lambda _, *rest, there=there: run_races(there, *rest), name, host, races, racers, name=name)
        for race in range(races):
            start_file(turn.folder, race).touch()
            if race % 2:
                wait(turn.dice.uniform(0.0, 0.02))
                step_down(cluster, STREAM)
                turn.count("step-downs")
            if not await_end(place, names, race, OUTAGE_S):
                turn.findings.add(f"race {race} did not end within {OUTAGE_S:.0f} s")
                break
            turn.count("races")
            turn.count("cluster faults")
        if failed := crowd.end():
            turn.findings.add(f"{failed} racers failed, or did not end")
        log = check(turn, cluster, place)
        turn.findings.problems += without_one_winner(log, races)
        turn.count("events", len(log))
