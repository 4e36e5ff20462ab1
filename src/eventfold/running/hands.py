"""Room: what is done to projections by hand: paused, resumed, retried, skipped, accepted, forgotten.

Every act is written into the log before it is done. Knows: entries, who waits for whom. Does not know: how an event is
folded.
"""

from __future__ import annotations

import time

import msgspec

from eventfold.bridge import run
from eventfold.errors import InvalidProjection, LeaseHeld, UnknownProjection
from eventfold.flow.generations import known_in, refuse_other_tables, refuse_unknown
from eventfold.flow.parked import with_later_ones
from eventfold.running import inlining
from eventfold.running.finding import Finding, Named
from eventfold.running.runner import dead
from eventfold.target import Checkpoint, Entry, Target


class Hands(Finding):
    """The acts of the desk."""

    def pause(self, projection: Named, because: str) -> None:
        """Stop working on it, everywhere, until it is resumed."""
        name, target = self._find(projection)
        if not because.strip():
            raise InvalidProjection("A pause was given no reason.", "Say why: --because, for whoever wonders later.")
        known = known_in(target, name)
        inlining.refuse_act("paused", known, target.checkpoints(name, known.live))
        self._act(name, "pause", known.live, because=because)
        self._change(target, name, lambda known: msgspec.structs.replace(known, paused=because))

    def resume(self, projection: Named) -> None:
        """Go on: after a pause, or once more with the event at which it stopped."""
        name, target = self._find(projection)
        known = known_in(target, name)
        self._act(name, "resume", known.live)
        for held in target.checkpoints(name, known.live):
            if held.stopped:
                target.edit(held.place, stopped="")
        self._change(target, name, lambda known: msgspec.structs.replace(known, paused=""))

    def parked(self, projection: Named, generation: int | None = None) -> list[Entry]:
        """The events that were not handled: parked, due to be tried again, or skipped; by default what readers see."""
        name, target = self._find(projection)
        known = known_in(target, name)
        if generation is not None:
            refuse_unknown(target, name, generation)
        held = target.checkpoints(name, generation or known.live)
        return sorted((e for each in held for e in target.entries(each.place)), key=lambda e: e.position)

    def retry(self, projection: Named, position: int | None = None) -> int:
        """Have parked events tried again by the runner: one, or all; returns how many. Later ones of a key follow."""
        name, target = self._find(projection)
        known, count = known_in(target, name), 0
        found = [(c.place, e) for c in target.checkpoints(name, known.live) for e in target.entries(c.place)]
        chosen = [(place, e) for place, e in found if e.state == "parked" and position in (None, e.position)]
        if not chosen and position is not None:
            raise UnknownProjection(f"{name} has no parked event {position}.", "See eventfold projections parked.")
        self._act(name, "retry", known.live, positions=[e.position for _, e in chosen])
        for place in {place for place, _ in chosen}:
            own = [entry for each, entry in found if each == place]
            due = with_later_ones(own, [entry for each, entry in chosen if each == place])
            target.enter(place, [msgspec.structs.replace(entry, state="due") for entry in due])
            count += len(due)
        return count

    def skip(self, projection: Named, position: int, because: str) -> None:
        """Leave one event out for good, and say why: one that is parked, or the one it stopped at.

        In what is being built as well as in what readers see.
        """
        name, target = self._find(projection)
        known = known_in(target, name)
        if not because.strip():
            raise InvalidProjection("A skip was given no reason.", "Say why: --because, for whoever wonders later.")
        generations = [known.live] if known.building is None else [known.live, known.building]
        places = [
            held
            for generation in generations
            for held in target.checkpoints(name, generation)
            if self._concerns(target, held, position)
        ]
        identity = (run(self.log.engine.event_id(position)) or b"").hex()
        if places:
            self._act(name, "skip", known.live, position=position, because=because, event_id=identity)
        for held in places:  # of a split projection several, where the event could not be read
            entries = {entry.position: entry for entry in target.entries(held.place)}
            entry = entries.get(position) or Entry(
                position, identity, msgspec.json.decode(held.stopped)["type"], "", "skipped"
            )
            later = [each for each in entries.values() if each.position > position]
            behind = [each for each in with_later_ones(later, [entry]) if each.position > position]
            skipped = msgspec.structs.replace(entry, state="skipped", because=because)
            target.enter(held.place, [skipped, *(msgspec.structs.replace(e, state="due") for e in behind)])
            if _stops(held, position):
                target.edit(held.place, stopped="")
        if places:
            return
        raise UnknownProjection(
            f"{name} has not parked event {position}, and did not stop at it.",
            "See eventfold projections parked.",
            projection=name,
        )

    @staticmethod
    def _concerns(target: Target, held: Checkpoint, position: int) -> bool:
        return _stops(held, position) or any(
            each.position == position and each.state != "skipped" for each in target.entries(held.place)
        )

    def accept(self, projection: Named) -> None:
        """Say that the rows are right as they are, though the code has changed.

        Refused where they cannot be: other columns, another number of partitions, or events in the log that the old
        code was not given, or the new one is not. Raises ProjectionChanged.
        """
        plan = self._plan(projection)
        target = self._of(plan)
        known = known_in(target, plan.name)
        run(refuse_other_tables(plan, self.log, target, target.checkpoints(plan.name, known.live)))
        self._act(plan.name, "accept", known.live, fingerprint=plan.fingerprint)
        for held in target.checkpoints(plan.name, known.live):
            target.edit(held.place, fingerprint=plan.fingerprint, query=msgspec.json.encode(plan.query).decode())
        inlining.accept(self.log, plan)

    def forget(self, projection: Named) -> int:
        """Give up what is kept: of a follower its progress, of a read model every generation and its rows.

        Returns the position it had come to. Nothing may be at work on it: raises LeaseHeld.
        """
        name, target = self._find(projection)
        inlining.let_go(self.log, target, known_in(target, name))
        known, held = known_in(target, name), target.checkpoints(name)
        busy = next((each for each in held if each.holder and each.expires > time.time_ns() // 1000), None)
        if busy is not None and not dead(busy.holder):
            raise LeaseHeld(
                f"{name} is being worked on by {busy.holder}.",
                "End that one first; a lease ends by itself some seconds after its holder was killed.",
                projection=name,
                holder=busy.holder,
            )
        position = min((each.position for each in held if each.place.generation == known.live), default=0)
        self._act(name, "forget", known.live, position=position)
        target.forget(known)
        own = self._own()
        noted = None if own is None else own.registered(name)
        if own is not None and noted is not None:
            own.forget(noted)
        return position


def _stops(held: Checkpoint, position: int) -> bool:
    return bool(held.stopped) and msgspec.json.decode(held.stopped)["position"] == position
