"""Which event is delivered next: the order of each key, what is delivered, what is parked, and what was finished.

It has the events after the checkpoint, in the order of the log, and those that the target has entries of. An event may
be delivered if it is the first unfinished one of each of its keys. The state is changed by calls only, and `plan`
returns what is to be stored of it.
Knows: events, keys, time as a parameter. Does not know: storage, the log, threads, HTTP.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from itertools import islice

from eventfold.core.envelope import StoredEvent
from eventfold.ports.target import Checkpoint, ParkedEvent
from eventfold.projections.failures import keys_of as keys_of_entry
from eventfold.server.consumers.definition import ConsumerDefinition
from eventfold.server.consumers.item import Delivery, Item, Token
from eventfold.server.consumers.plan import ConsumerProgress, Plan, Unfinished, progress_of


class Deliveries:
    """The events of one consumer that are not finished, in memory.

    `now` is in seconds of any clock, the same in all calls.
    """

    def __init__(
        self, definition: ConsumerDefinition, checkpoint: Checkpoint, entries: Sequence[ParkedEvent], now: float
    ) -> None:
        self.definition = definition
        self.scanned = checkpoint.position  # the events up to it, inclusive, were added
        self._items: dict[int, Item] = {}
        self._order: deque[tuple[int, bytes]] = deque()  # the events after the checkpoint, finished ones too
        self._queues: dict[str, deque[int]] = {}  # by key: the unfinished events, in order
        self._ready: list[int] = []  # a heap of positions that may be deliverable
        self._timers: list[tuple[float, int]] = []  # a heap: when to look at a position again
        self._parked_keys: Counter[str] = Counter()
        self._skipped: set[int] = set()  # after the checkpoint, by an operator: their entries stay
        self._settled: dict[int, bytes] = {}  # entries to remove from the target, with the ids of their events
        self._changed: set[int] = set()  # entries to write into the target
        self._attempted: set[int] = set()  # delivered once at least, and not parked
        self._unread: set[int] = set()  # deliverable, and to be read from the log first
        self.delivered = self.parked = 0
        self.has_ended_leases = False  # since the last plan was made
        self.bytes = 0  # of the events in memory
        stored = progress_of(checkpoint)
        self._finished_before = set(stored.done)
        self._unfinished_before = {each.position: each for each in stored.unfinished}
        for entry in sorted(entries, key=lambda each: each.position):
            self._add_entry(entry, checkpoint.position, now)

    # What is there

    @property
    def window(self) -> int:
        """How many events after the checkpoint were added."""
        return len(self._order)

    @property
    def is_restoring(self) -> bool:
        """Whether events are to be added of which it is known already what became of them."""
        return bool(self._finished_before or self._unfinished_before)

    @property
    def is_idle(self) -> bool:
        """Whether every event that was added is finished, parked, or waits behind a parked one."""
        return not any(not self._is_held_up(item) for item in self._items.values())

    def unread(self, limit: int) -> list[int]:
        """Positions of deliverable events that must be read from the log first, by `supply`."""
        return sorted(self._unread)[:limit]

    def supply(self, stored: StoredEvent) -> None:
        """Add the event itself to an entry of the target."""
        item = self._items.get(stored.position)
        self._unread.discard(stored.position)
        if item is not None and item.stored is None and item.state != "parked":
            item.stored = stored
            self.bytes += _size(stored)
            self._offer(item)

    def next_time(self) -> float | None:
        """When an event may become deliverable without a call: the end of a lease or of a delay. None: never."""
        return self._timers[0][0] if self._timers else None

    # Events come in

    def add(self, stored: StoredEvent, now: float, *, is_selected: bool = True) -> None:
        """Add the next event of the log that the query matches. `is_selected` False: the filter leaves it out."""
        position = stored.position
        self.scanned = position
        self._order.append((position, stored.id))
        item = self._items.get(position)
        if item is not None:  # it has an entry already
            self.supply(stored)
            return
        before = self._unfinished_before.pop(position, None)
        if position in self._finished_before or not is_selected or position in self._skipped:
            self._finished_before.discard(position)
            return
        keys = self.definition.keys_of(stored)
        item = Item(
            position=position,
            event_id=stored.id,
            type=stored.type,
            keys=keys,
            allowed=self.definition.attempts,
            stored=stored,
        )
        self.bytes += _size(stored)
        self._enqueue(item, before, now)

    def _add_entry(self, entry: ParkedEvent, checkpoint: int, now: float) -> None:
        if entry.state == "skipped":
            if entry.position > checkpoint:
                self._skipped.add(entry.position)
            return
        item = Item(
            position=entry.position,
            event_id=bytes.fromhex(entry.event_id),
            type=entry.type,
            keys=tuple(keys_of_entry(entry)),
            allowed=self.definition.attempts,
            attempts=entry.attempts,
            error=entry.error,
            has_entry=True,
        )
        before = self._unfinished_before.pop(entry.position, None)
        if entry.state == "parked":
            self._park(item)
            before = None
        self._enqueue(item, before, now)

    def _enqueue(self, item: Item, before: Unfinished | None, now: float) -> None:
        self._items[item.position] = item
        for key in item.keys:
            self._queues.setdefault(key, deque()).append(item.position)
        if before is not None:
            item.attempts, item.secret, item.error = before.attempts, before.secret, before.error or item.error
            self._attempted.add(item.position)
            if before.delivered:  # its worker may be at work: give it a whole lease
                item.state, item.deadline = "delivered", now + self.definition.lease_seconds
                self.delivered += 1
                heapq.heappush(self._timers, (item.deadline, item.position))
            elif before.delay_seconds:
                item.not_before = now + before.delay_seconds
                heapq.heappush(self._timers, (item.not_before, item.position))
        self._offer(item)

    # Events go out

    def take(self, count: int, now: float) -> list[Delivery]:
        """Deliver up to `count` events. Leases that have ended by now end first."""
        self.pass_time(now)
        taken: list[Delivery] = []
        while self._ready and len(taken) < count and self.delivered < self.definition.max_in_flight:
            item = self._items.get(heapq.heappop(self._ready))
            if item is None or item.stored is None or not self._is_deliverable(item, now):
                continue
            item.deliver(now + self.definition.lease_seconds)
            self.delivered += 1
            self._attempted.add(item.position)
            heapq.heappush(self._timers, (item.deadline, item.position))
            taken.append(Delivery(item.stored, item.attempts, item.token))
        return taken

    def acknowledge(self, token: Token) -> bool:
        """Finish an event. False if the token is not of its last delivery; True also if it is finished already."""
        item = self._items.get(token.position)
        if item is None:
            return token.position <= self.scanned or token.position in self._finished_before
        if (item.attempts, item.secret) != (token.attempt, token.secret):
            return False
        self._leave(item)
        self._remove(item)
        if item.has_entry:
            self._settled[item.position] = item.event_id
            if item.position > self.scanned:
                self._finished_before.add(item.position)
            self._changed.discard(item.position)
        return True

    def reject(self, token: Token, now: float, *, delay: float, park: bool, reason: str) -> bool:
        """Give an event back: to be delivered again after `delay` seconds, or to be parked.

        False if the token is not of its last delivery, or the event is finished or parked already.
        """
        item = self._items.get(token.position)
        if item is None or item.state == "parked" or (item.attempts, item.secret) != (token.attempt, token.secret):
            return False
        self._leave(item)
        item.secret, item.error = "", reason
        self._fail(item, now, delay, park)
        return True

    def pass_time(self, now: float) -> None:
        """End the leases and delays that have ended by now."""
        while self._timers and self._timers[0][0] <= now:
            item = self._items.get(heapq.heappop(self._timers)[1])
            if item is None:
                continue
            if item.state == "delivered" and item.deadline <= now:
                self.has_ended_leases = True
                self._leave(item)  # it keeps its token: a late acknowledgement counts until it is delivered again
                item.error = f"not acknowledged within {self.definition.lease_seconds:g} s"
                self._fail(item, now, 0.0, park=False)
            elif item.state == "waiting":
                self._offer(item)

    def _fail(self, item: Item, now: float, delay: float, park: bool) -> None:
        item.state = "waiting"
        if park or item.attempts >= item.allowed:
            self._park(item)
        elif delay > 0:
            item.not_before = now + delay
            heapq.heappush(self._timers, (item.not_before, item.position))
        else:
            item.not_before = 0.0
        if item.has_entry:
            self._changed.add(item.position)
        self._offer(item)

    def _leave(self, item: Item) -> None:
        """Take an event out of the state that it is in."""
        if item.state == "delivered":
            self.delivered -= 1
        elif item.state == "parked":
            self._unpark(item)
        item.state = "waiting"

    def _park(self, item: Item) -> None:
        item.state, item.has_entry = "parked", True
        self._release(item)
        self.parked += 1
        self._parked_keys.update(item.keys)
        self._attempted.discard(item.position)

    def _release(self, item: Item) -> None:
        """Keep the event itself in memory no longer."""
        if item.stored is not None:
            self.bytes -= _size(item.stored)
            item.stored = None

    def _unpark(self, item: Item) -> None:
        self.parked -= 1
        self._parked_keys.subtract(item.keys)
        for key in item.keys:
            if not self._parked_keys[key]:
                del self._parked_keys[key]

    def _remove(self, item: Item) -> None:
        del self._items[item.position]
        self._release(item)
        self._attempted.discard(item.position)
        self._unread.discard(item.position)
        for key in item.keys:
            queue = self._queues[key]
            queue.remove(item.position)  # it is the first, except for one that an operator skips
            if not queue:
                del self._queues[key]
            else:
                self._offer(self._items[queue[0]])

    def _offer(self, item: Item) -> None:
        if item.state == "waiting" and self._is_first(item):
            if item.stored is None:
                self._unread.add(item.position)
            else:
                heapq.heappush(self._ready, item.position)

    def _is_first(self, item: Item) -> bool:
        return all(self._queues[key][0] == item.position for key in item.keys)

    def _is_deliverable(self, item: Item, now: float) -> bool:
        return item.state == "waiting" and item.not_before <= now and self._is_first(item)

    def _is_held_up(self, item: Item) -> bool:
        return item.state == "parked" or any(key in self._parked_keys for key in item.keys)

    # What operators change

    def synchronise(self, entries: Iterable[ParkedEvent]) -> None:
        """Take over what operators changed of the entries: due for a retry, or skipped."""
        for entry in entries:
            item = self._items.get(entry.position)
            if item is None or not item.has_entry:
                continue
            if entry.state == "skipped":
                self._leave(item)
                self._remove(item)
                self._changed.discard(item.position)
                self._skipped.add(item.position)
            elif entry.state == "due" and item.state == "parked" and item.position not in self._changed:
                self._unpark(item)
                item.state, item.not_before = "waiting", 0.0
                item.allowed = item.attempts + self.definition.attempts
                self._offer(item)

    # What is stored

    def plan(
        self, checkpoint: Checkpoint, now: float, window: int, epoch: int, through: tuple[int, str] | None = None
    ) -> Plan:
        """Return what is to be stored now.

        `window`: if so many events are after the checkpoint, and half of them are finished, those that hold it back
        get entries, so that it advances. `through`: a position, and the id of the event there in hex: no event up to
        it was left out.
        """
        self.has_ended_leases = False
        spill = len(self._order) >= window and self._count_unfinished() * 2 <= len(self._order)
        passed: list[tuple[int, bytes]] = []
        for position, identity in self._order:
            item = self._items.get(position)
            if item is not None and not item.has_entry:
                if self._is_held_up(item):
                    self._hold_back(item)
                elif spill and len(passed) * 2 < len(self._order):
                    item.has_entry = True
                    self._changed.add(position)
                else:
                    break
            passed.append((position, identity))
        kept = {p for p, _ in passed if p in self._items or p in self._skipped}
        rest = [p for p, _ in islice(self._order, len(passed), None) if p not in self._items and p not in self._skipped]
        before = list(self._unfinished_before.values())
        after = [Unfinished.of(self._items[p], now) for p in sorted(self._attempted)]
        return Plan.of(
            checkpoint,
            epoch=epoch,
            passed=passed,
            kept=kept,
            entries=[self._items[position].entry() for position in sorted(self._changed)],
            settled=dict(self._settled),
            progress=ConsumerProgress(done=[*rest, *sorted(self._finished_before)], unfinished=[*after, *before]),
            through=through if len(passed) == len(self._order) else None,
        )

    def stored(self, plan: Plan) -> None:
        """Note that a plan was stored. What changed since it was made is in the next one."""
        for _ in range(plan.passed):
            self._skipped.discard(self._order.popleft()[0])
        for position in plan.update.settled:
            del self._settled[position]
        for entry in plan.update.parked:
            item = self._items.get(entry.position)
            if item is None or item.entry() == entry:
                self._changed.discard(entry.position)

    def _hold_back(self, item: Item) -> None:
        """Park an event because an earlier one of its keys is parked."""
        key = next(key for key in item.keys if key in self._parked_keys)
        item.error = f"waits for an earlier event of {key}"
        self._park(item)
        self._changed.add(item.position)

    def _count_unfinished(self) -> int:
        return sum(position in self._items for position, _ in self._order)


def _size(stored: StoredEvent) -> int:
    return len(stored.data) + len(stored.metadata or b"")
