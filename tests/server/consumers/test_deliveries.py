"""The order of deliveries against a simple model in memory: a list of events and what became of each.

Knows: Deliveries, a checkpoint and entries in memory. Does not know: servers, stores.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Query
from eventfold.core.tally import tally
from eventfold.errors import InvalidInput
from eventfold.ports.target import Checkpoint, ParkedEvent, PartitionKey
from eventfold.projections.failures import is_complete, with_later_ones
from eventfold.server.consumers.definition import ConsumerDefinition
from eventfold.server.consumers.deliveries import Deliveries
from eventfold.server.consumers.item import Token

WINDOW = 6
LEASE, ATTEMPTS, MOST = 10.0, 3, 3


def new_checkpoint() -> Checkpoint:
    """The checkpoint of a new consumer."""
    return Checkpoint(
        place=PartitionKey("mail", 1),
        store="s",
        epoch=1,
        query=msgspec.json.encode(Query()).decode(),
        fingerprint="",
    )


def stored_event(position: int, *keys: str) -> StoredEvent:
    """An event with tags `k:…`."""
    tags = "\n".join(sorted(f"k:{key}" for key in keys))
    return StoredEvent(position, position.to_bytes(16, "big"), "T", 1, b"{}", tags, 0)


@dataclass
class Known:
    """What the model knows of an event that was added."""

    stored: StoredEvent
    keys: tuple[str, ...]
    state: str = "open"  # or delivered, parked, done, skipped
    attempts: int = 0
    allowed: int = ATTEMPTS
    deadline: float = 0.0
    not_before: float = 0.0


class Consuming(RuleBasedStateMachine):
    """Appends, deliveries, acknowledgements, time, operators and crashes, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.definition = ConsumerDefinition(key="k", max_in_flight=MOST, lease_seconds=LEASE, attempts=ATTEMPTS)
        self.now = 0.0
        self.log: list[StoredEvent] = []
        self.checkpoint, self.entries = new_checkpoint(), dict[int, ParkedEvent]()
        self.known: dict[int, Known] = {}
        self.tokens: dict[str, int] = {}  # the last token of each event that was not given back
        self.old_tokens: list[str] = []
        self.deliveries = Deliveries(self.definition, self.checkpoint, [], self.now)

    # Storage

    def commit(self) -> None:
        """Store everything, as the server does before it answers."""
        plan = self.deliveries.plan(self.checkpoint, self.now, WINDOW, 1)
        for position in plan.update.settled:
            self.entries.pop(position, None)
        self.entries.update({entry.position: entry for entry in plan.update.parked})
        self.checkpoint = msgspec.structs.replace(plan.update.applied_to(self.checkpoint, 0), stats=plan.update.stats)
        self.deliveries.stored(plan)

    def fill(self) -> None:
        """Add events of the log as far as the window allows, and read those that have entries."""
        for stored in self.log[self.deliveries.scanned :]:
            if self.deliveries.window >= WINDOW:
                break
            self.deliveries.add(stored, self.now)
            self.known.setdefault(stored.position, Known(stored, self.definition.keys_of(stored)))
        for position in self.deliveries.unread(100):
            self.deliveries.supply(self.log[position - 1])

    # The model

    def pass_time(self) -> None:
        """End the leases that have ended."""
        for known in self.known.values():
            if known.state == "delivered" and known.deadline <= self.now:
                self.fail(known, 0.0, park=False)

    def fail(self, known: Known, delay: float, park: bool) -> None:
        """Note a delivery without success."""
        known.state = "parked" if park or known.attempts >= known.allowed else "open"
        known.not_before = self.now + delay if delay else 0.0

    def unfinished(self) -> list[Known]:
        """All events that hold up later ones of their keys."""
        return [known for _, known in sorted(self.known.items()) if known.state in ("open", "delivered", "parked")]

    def deliverable(self, count: int) -> list[int]:
        """The positions that the next call is to deliver."""
        free = MOST - sum(known.state == "delivered" for known in self.known.values())
        found, held_up = list[int](), set[str]()
        for known in self.unfinished():
            ready = known.state == "open" and known.not_before <= self.now
            if ready and held_up.isdisjoint(known.keys):
                found.append(known.stored.position)
            held_up.update(known.keys)
        return found[: max(0, min(count, free))]

    # What happens

    @rule(keys=st.lists(st.sets(st.sampled_from("abc"), max_size=2), min_size=1, max_size=4))
    def append(self, keys: list[set[str]]) -> None:
        """Events are appended."""
        self.log += [stored_event(len(self.log) + 1 + at, *names) for at, names in enumerate(keys)]

    @rule(count=st.integers(1, 4))
    def receive(self, count: int) -> None:
        """A worker asks for events: it gets exactly those that the model names."""
        self.fill()
        self.pass_time()
        expected = self.deliverable(count)
        taken = self.deliveries.take(count, self.now)
        self.commit()
        assert [each.stored.position for each in taken] == expected
        for each in taken:
            known = self.known[each.stored.position]
            known.state, known.deadline = "delivered", self.now + LEASE
            known.attempts += 1
            assert each.attempt == known.attempts
            self.old_tokens += [old for old, at in self.tokens.items() if at == each.stored.position]
            self.tokens = {old: at for old, at in self.tokens.items() if at != each.stored.position}
            self.tokens[each.token] = each.stored.position

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        """The last token of an event finishes it, also after its lease."""
        token = data.draw(st.sampled_from(sorted(self.tokens)))
        known = self.known[self.tokens.pop(token)]
        assert self.deliveries.acknowledge(Token.parse(token))
        known.state = "done"
        self.commit()
        assert self.deliveries.acknowledge(Token.parse(token))  # again, without effect

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), delay=st.sampled_from([0.0, 5.0]), park=st.booleans())
    def reject(self, data: st.DataObject, delay: float, park: bool) -> None:
        """A worker gives an event back."""
        token = data.draw(st.sampled_from(sorted(self.tokens)))
        known = self.known[self.tokens[token]]
        done = self.deliveries.reject(Token.parse(token), self.now, delay=delay, park=park, reason="because")
        assert done == (known.state != "parked")
        if done:
            self.old_tokens.append(token)
            del self.tokens[token]
            self.fail(known, delay, park)
        self.commit()

    @precondition(lambda self: self.old_tokens)
    @rule(data=st.data())
    def use_an_old_token(self, data: st.DataObject) -> None:
        """A token of an earlier delivery finishes nothing."""
        token = data.draw(st.sampled_from(self.old_tokens))
        known = self.known[Token.parse(token).position]
        assert self.deliveries.acknowledge(Token.parse(token)) == (known.state in ("done", "skipped"))
        assert not self.deliveries.reject(Token.parse(token), self.now, delay=0.0, park=False, reason="")

    @rule(seconds=st.sampled_from([1.0, 4.0, LEASE]))
    def time_passes(self, seconds: float) -> None:
        """Leases and delays end."""
        self.now += seconds
        self.fill()
        self.pass_time()
        self.deliveries.pass_time(self.now)
        self.commit()

    @precondition(lambda self: any(each.state == "parked" for each in self.entries.values()))
    @rule(data=st.data(), skip=st.booleans())
    def operator(self, data: st.DataObject, skip: bool) -> None:
        """An operator retries or skips a parked event; those behind it are due."""
        parked = [each for each in self.entries.values() if each.state == "parked"]
        chosen = data.draw(st.sampled_from(sorted(parked, key=lambda each: each.position)))
        later = [each for each in self.entries.values() if each.position > chosen.position]
        behind = with_later_ones(later if skip else self.entries.values(), [chosen])
        for each in behind:
            self.entries[each.position] = msgspec.structs.replace(each, state="due")
        if skip:
            self.entries[chosen.position] = msgspec.structs.replace(chosen, state="skipped", because="wrong")
        for position, entry in self.entries.items():
            known = self.known[position]
            if entry.state == "skipped" and known.state not in ("skipped", "done"):
                known.state = "skipped"
                self.old_tokens += [old for old, at in self.tokens.items() if at == position]
                self.tokens = {old: at for old, at in self.tokens.items() if at != position}
            elif entry.state == "due" and known.state == "parked":
                known.state, known.not_before, known.allowed = "open", 0.0, known.attempts + ATTEMPTS
        self.deliveries.synchronise(self.entries.values())
        self.commit()

    @rule()
    def crash(self) -> None:
        """The server is killed: what was stored is read again. Delivered events keep their tokens, and a new lease."""
        self.deliveries = Deliveries(self.definition, self.checkpoint, list(self.entries.values()), self.now)
        self.known = {at: known for at, known in self.known.items() if at <= self.checkpoint.position or known}
        self.fill_all_known()
        for position, known in self.known.items():
            if known.state == "delivered":
                known.deadline = self.now + LEASE
            item = self.deliveries._items.get(position)
            if item is None:
                continue
            known.allowed = ATTEMPTS  # a retry's further attempts are not stored
            if not item.secret:  # nor is the token of an event that has an entry and is not delivered
                self.old_tokens += [old for old, at in self.tokens.items() if at == position]
                self.tokens = {old: at for old, at in self.tokens.items() if at != position}

    def fill_all_known(self) -> None:
        """Add the events that the killed server had added."""
        for stored in self.log[self.deliveries.scanned : max(self.known, default=0)]:
            self.deliveries.add(stored, self.now)
        for position in self.deliveries.unread(100):
            self.deliveries.supply(self.log[position - 1])

    # What always holds

    @invariant()
    def no_two_events_of_a_key_are_delivered(self) -> None:
        """The promise to workers."""
        delivered = [key for known in self.known.values() if known.state == "delivered" for key in known.keys]
        assert len(delivered) == len(set(delivered))
        assert self.deliveries.delivered == sum(known.state == "delivered" for known in self.known.values())

    @invariant()
    def the_ledger_accounts_for_every_event(self) -> None:
        """Seen are all events up to the checkpoint; each of them is handled or has an entry."""
        passed = self.log[: self.checkpoint.position]
        assert self.checkpoint.seen == tally(passed)
        assert self.checkpoint.handled == tally([e for e in passed if e.position not in self.entries])
        assert is_complete(self.checkpoint, list(self.entries.values()))
        for position, entry in self.entries.items():
            assert self.known[position].state != "done"
            assert (entry.state == "skipped") == (self.known[position].state == "skipped")
        for stored in passed:
            if stored.position not in self.entries:
                assert self.known[stored.position].state == "done"

    @invariant()
    def the_window_is_bounded(self) -> None:
        """However long one event is not finished."""
        assert self.deliveries.window <= WINDOW

    def teardown(self) -> None:
        """At the end everything that is not parked can be finished: nothing is lost."""
        for _ in range(10 * len(self.log) + 10):
            self.now += LEASE
            self.fill()
            for each in self.deliveries.take(10, self.now):
                assert self.deliveries.acknowledge(Token.parse(each.token))
                self.known[each.stored.position].state = "done"
            self.commit()
        left = [known.stored.position for known in self.unfinished()]
        assert {p for p in left if p not in self.entries} == set()
        assert self.checkpoint.position == len(self.log)
        super().teardown()


TestConsuming = Consuming.TestCase
TestConsuming.settings = settings(stateful_step_count=30)


@pytest.mark.parametrize(
    "text", ["", "7", "7.1", "7.1.short", "x.1.0123456789abcdef", "7.y.0123456789abcdef", "٣.1.0123456789abcdef"]
)
def test_a_text_that_is_no_token_is_refused(text: str) -> None:
    """With what to do."""
    with pytest.raises(InvalidInput):
        Token.parse(text)


def test_events_without_the_key_wait_for_no_other() -> None:
    """Each has a key of its own; without a key in the definition, all have."""
    with_key = ConsumerDefinition(key="account")
    event = StoredEvent(7, bytes(16), "T", 1, b"{}", "account:a\naccount:b\nother:c", 0)
    assert with_key.keys_of(event) == ("account:a", "account:b")
    assert ConsumerDefinition().keys_of(event) == ("(event 7 alone)",) == ConsumerDefinition(key="none").keys_of(event)


def test_a_delay_survives_a_killed_server() -> None:
    """The rest of it, since another server has another clock."""
    definition, checkpoint = ConsumerDefinition(key="k"), new_checkpoint()
    before = Deliveries(definition, checkpoint, [], now=0.0)
    before.add(stored_event(1, "a"), 0.0)
    (taken,) = before.take(1, 0.0)
    assert before.reject(Token.parse(taken.token), 0.0, delay=5.0, park=False, reason="busy")
    plan = before.plan(checkpoint, 2.0, WINDOW, 1)
    checkpoint = msgspec.structs.replace(plan.update.applied_to(checkpoint, 0), stats=plan.update.stats)
    after = Deliveries(definition, checkpoint, [], now=1_000.0)
    after.add(stored_event(1, "a"), 1_000.0)
    assert after.take(1, 1_002.5) == []
    (again,) = after.take(1, 1_003.0)
    assert again.attempt == 2


def test_an_event_with_an_entry_may_be_finished_before_the_log_is_read_up_to_it() -> None:
    """It is not delivered again when the log is, and the ledger counts it once."""
    events = [stored_event(position, "a" if position == 3 else "b") for position in (1, 2, 3)]
    entry = ParkedEvent(3, events[2].id.hex(), "T", "k:a", "due", "failed", 5)
    deliveries = Deliveries(ConsumerDefinition(), new_checkpoint(), [entry], now=0.0)
    assert deliveries.unread(10) == [3]
    deliveries.supply(events[2])
    (taken,) = deliveries.take(10, 0.0)
    assert (taken.stored.position, taken.attempt) == (3, 6)
    assert deliveries.acknowledge(Token.parse(taken.token))
    assert deliveries.acknowledge(Token.parse(taken.token))
    for event in events:
        deliveries.add(event, 0.0)
    rest = deliveries.take(10, 0.0)
    assert [each.stored.position for each in rest] == [1, 2]
    for each in rest:
        assert deliveries.acknowledge(Token.parse(each.token))
    update = deliveries.plan(new_checkpoint(), 0.0, WINDOW, 1).update
    assert (update.position, update.seen, update.handled) == (3, tally(events), tally(events))
    assert list(update.settled) == [3]
