"""Random appends, reads, follows and reopenings on every engine, each answer compared with a list of events.

HYPOTHESIS_PROFILE=long runs ten times as many histories.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import eventfold as ef
from eventfold.core.envelope import from_micros
from eventfold.core.query import Item, Query
from eventfold.errors import PositionBeyondHead
from eventfold.testing import Clock
from eventfold.testing.conformance.engine_under_test import EngineUnderTest
from eventfold.testing.conformance.events import Account, Deposited, Noted, Withdrawn
from eventfold.testing.conformance.follow import until_caught_up
from tests.conformance.engines import ENGINES, MEMORY, MODES
from tests.model.oracle import Oracle, Outcome, Written

ACCOUNTS = ["a", "b", "c"]
NAMES = {Deposited: "conformance.deposited", Withdrawn: "conformance.withdrawn", Noted: "conformance.noted"}

events = st.lists(
    st.builds(
        Written,
        st.sampled_from(list(NAMES)),
        st.sampled_from(ACCOUNTS),
        st.integers(1, 3),
        st.one_of(st.none(), st.none(), st.integers(1, 30)),
        st.one_of(st.none(), st.integers(0, 5)),
    ),
    min_size=1,
    max_size=4,
)
items = st.builds(
    lambda types, tags: Item(tuple(types), tuple(sorted(f"account:{tag}" for tag in tags))),
    st.lists(st.sampled_from([*NAMES.values(), "conformance.never"]), max_size=2, unique=True),
    st.lists(st.sampled_from([*ACCOUNTS, "unknown"]), max_size=2, unique=True),
)
queries = st.lists(items, min_size=1, max_size=3).map(Query.any_of)
back = st.integers(-1, 8)  # a distance back from the head: -1 is in the future
keys = st.one_of(st.none(), st.none(), st.none(), st.sampled_from(["k-1", "k-2", "k-3"]))
handles = st.integers(0, 1)


class Histories(RuleBasedStateMachine):
    """Two stores on one log, three followers, and a list of events as the oracle."""

    engine: ClassVar[str]
    mode: ClassVar[Any]

    @initialize()
    def begin(self) -> None:
        """Create an empty store."""
        self.folder = Path(mkdtemp(prefix="eventfold-", dir=MEMORY if MEMORY.is_dir() else None))
        self.clock = Clock()
        self.engine_under_test = EngineUnderTest(mode=self.mode, **ENGINES[self.engine](self.folder))
        self.options: dict[str, Any] = {"clock": self.clock} if self.engine_under_test.clock else {}
        self.stores = [self.engine_under_test.open(**self.options), self.engine_under_test.open(**self.options)]
        self.oracle = Oracle(self.clock)
        self.followers: list[tuple[Any, Query, int]] = []
        self.requests: list[tuple[list[Written], int]] = []

    def teardown(self) -> None:
        """Close and remove everything."""
        if hasattr(self, "engine_under_test"):
            for follower, _, _ in self.followers:
                follower.close()
            self.engine_under_test.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def position(self, back: int) -> int:
        """Return the position `back` events before the head."""
        return max(0, self.oracle.head - back)

    # Writing

    @rule(handle=handles, events=events, unless=st.lists(st.tuples(queries, back), max_size=2), key=keys)
    def append(self, handle: int, events: list[Written], unless: list[tuple[Query, int]], key: str | None) -> None:
        """Append under conditions, perhaps under a key."""
        self._append(handle, events, [(query, self.position(b)) for query, b in unless], key)

    @precondition(lambda self: getattr(self, "requests", None))
    @rule(
        handle=handles,
        which=st.integers(0, 99),
        change=st.sampled_from(["", "", "one less", "turned", "one more"]),
        key=keys,
    )
    def repeat(self, handle: int, which: int, change: str, key: str | None) -> None:
        """Repeat an earlier append, unchanged or slightly changed."""
        events, _ = self.requests[which % len(self.requests)]
        changed = {
            "one less": events[:-1] or events,
            "turned": events[::-1],
            "one more": [*events, Written(Noted, "a", 1)],
        }.get(change, events)
        self._append(handle, changed, [], key)

    def _append(self, handle: int, events: list[Written], unless: list[tuple[Query, int]], key: str | None) -> None:
        expected = self.oracle.append(events, unless, key)
        try:
            receipt = self.stores[handle].append(*[event.draft() for event in events], unless=unless or None, key=key)
            found = Outcome(None, receipt.first, receipt.last, receipt.repeated)
        except ef.EventfoldError as error:
            found = Outcome(type(error))
        assert found == expected
        if expected.error is None and not expected.repeated and all(event.number for event in events):
            self.requests.append((events, expected.first))

    @rule(
        handle=handles,
        requests=st.lists(st.tuples(events, st.one_of(st.none(), queries), keys), min_size=2, max_size=4),
    )
    def append_together(self, handle: int, requests: list[tuple[list[Written], Query | None, str | None]]) -> None:
        """Append several requests in one commit."""
        from eventfold.core.envelope import Receipt
        from eventfold.core.query import ConditionClause
        from eventfold.ports.messages import AppendRequest

        store, head = self.stores[handle], self.oracle.head
        encoded = [
            AppendRequest(
                tuple(store.registry.encode(event.draft()) for event in events),
                () if query is None else (ConditionClause(query, head),),
                key,
            )
            for events, query, key in requests
        ]
        outcomes = self.engine_under_test.port(store).append_many(encoded)
        for outcome, (events, query, key) in zip(outcomes, requests, strict=True):
            expected = self.oracle.append(events, [] if query is None else [(query, head)], key)
            found = (
                Outcome(None, outcome.first, outcome.last, outcome.repeated)
                if isinstance(outcome, Receipt)
                else Outcome(type(outcome))
            )
            assert found == expected

    @rule(seconds=st.integers(-3, 3))
    def pass_time(self, seconds: int) -> None:
        """Advance the clock, or set it back."""
        self.clock.advance(seconds)

    # Reading

    @rule(
        handle=handles,
        query=queries,
        after=st.integers(0, 9),
        until=st.one_of(st.none(), back),
        limit=st.one_of(st.none(), st.integers(0, 5)),
        backwards=st.booleans(),
    )
    def read(
        self, handle: int, query: Query, after: int, until: int | None, limit: int | None, backwards: bool
    ) -> None:
        """Read a range of the log, in either direction."""
        after = min(after, self.oracle.head)
        end = None if until is None else self.oracle.whole(self.position(until))
        expected = self.oracle.select(query, after, end)
        bounds = {"after": after, "until": None if until is None else self.position(until)}
        if end is not None and end > self.oracle.head:
            with pytest.raises(PositionBeyondHead):
                list(self.stores[handle].read(query, **bounds, backwards=backwards))
            with pytest.raises(PositionBeyondHead):
                self.stores[handle].count(query, **bounds)
            return
        assert self.stores[handle].count(query, **bounds) == len(expected)
        if backwards:
            expected = expected[::-1]
        found = list(self.stores[handle].read(query, **bounds, limit=limit, backwards=backwards))
        assert [(r.position, r.first, r.last) for r in found] == [e[:3] for e in expected[:limit]]
        assert [r.event for r in found] == [e.event.draft().event for e in expected[:limit]]
        assert [r.tags for r in found] == [e.event.tags for e in expected[:limit]]

    @rule(handle=handles, query=queries, since=st.integers(-2, 9), until=st.integers(-2, 9))
    def read_by_time(self, handle: int, query: Query, since: int, until: int) -> None:
        """Read a range by recorded time, in seconds around the clock's time."""
        low, high = self.clock.micros - since * 1_000_000, self.clock.micros - until * 1_000_000
        found = self.stores[handle].read(query, since=from_micros(low), until=from_micros(high))
        expected = [e.position for e in self.oracle.select(query) if low <= e.time <= high]
        assert [r.position for r in found] == (expected if self.options else [r.position for r in found])

    @rule(handle=handles, query=queries, low=st.integers(0, 5), high=st.integers(0, 5), backwards=st.booleans())
    def read_by_the_business(self, handle: int, query: Query, low: int, high: int, backwards: bool) -> None:
        """Read what occurred between two times; an event without that time does not count."""
        found = self.stores[handle].read(
            query, occurred_since=from_micros(low), occurred_until=from_micros(high), backwards=backwards
        )
        expected = [
            e.position
            for e in self.oracle.select(query)
            if e.event.occurred is not None and low <= e.event.occurred <= high
        ]
        assert [r.position for r in found] == (expected[::-1] if backwards else expected)

    @rule(handle=handles, account=st.sampled_from(ACCOUNTS), at=st.one_of(st.none(), st.integers(0, 9)))
    def fold(self, handle: int, account: str, at: int | None) -> None:
        """Fold a state, now or at a position."""
        at = None if at is None else self.position(at)
        end = self.oracle.head if at is None else self.oracle.whole(at)
        assert self.stores[handle].state(Account(account), at=at).balance == self.oracle.balance(account, end)

    @rule(handle=handles, account=st.sampled_from(ACCOUNTS), seconds=st.integers(-1, 9))
    def fold_at_a_time(self, handle: int, account: str, seconds: int) -> None:
        """Fold a state as of a time."""
        if self.options:
            moment = self.clock.micros - seconds * 1_000_000
            found = self.stores[handle].state(Account(account), at=from_micros(moment)).balance
            assert found == self.oracle.balance(account, self.oracle.at(moment))

    @rule(handle=handles)
    def list_names(self, handle: int) -> None:
        """List types and tags with their counts."""
        entries = [e.event for e in self.oracle.log]
        types = sorted({e.type for e in entries})
        assert [(t.type, t.count) for t in self.stores[handle].types()] == [
            (name, sum(e.type == name for e in entries)) for name in types
        ]
        tags = sorted({tag for e in entries for tag in e.tags})
        assert [(t.tag, t.count) for t in self.stores[handle].tags("account:")] == [
            (tag, sum(tag in e.tags for e in entries)) for tag in tags
        ]

    @rule(handle=handles, key=st.sampled_from(["k-1", "k-2", "k-3"]))
    def ask_for_a_receipt(self, handle: int, key: str) -> None:
        """Read the receipt of a key."""
        receipt = self.stores[handle].receipt(key)
        assert (None if receipt is None else (receipt.first, receipt.last)) == self.oracle.keys.get(key)

    # Following

    @precondition(lambda self: len(getattr(self, "followers", (1, 2, 3))) < 3)
    @rule(handle=handles, query=queries, back=back)
    def follow(self, handle: int, query: Query, back: int) -> None:
        """Open a new follower at some position."""
        after = self.position(back)
        follower = self.stores[handle].follow(query, after=after)
        if after > self.oracle.head:
            with pytest.raises(PositionBeyondHead):
                until_caught_up(follower)
            follower.close()
        else:
            self.followers.append((follower, query, after))

    @precondition(lambda self: getattr(self, "followers", None))
    @rule(which=st.integers(0, 2))
    def catch_up(self, which: int) -> None:
        """Read everything new with a follower, whose cursor then reaches the head."""
        which %= len(self.followers)
        follower, query, after = self.followers[which]
        found = until_caught_up(follower)
        assert [r.position for r in found] == [e.position for e in self.oracle.select(query, after)]
        assert follower.cursor.position == self.oracle.head
        self.followers[which] = (follower, query, self.oracle.head)

    @rule(handle=handles)
    def reopen(self, handle: int) -> None:
        """Close a store and open it again; followers resume from their cursors as texts."""
        saved: list[tuple[str | int, Query, int]] = []
        for follower, query, after in self.followers:
            saved.append((str(follower.cursor) if follower.cursor.store else after, query, after))
            follower.close()
        self.stores[handle].close()
        self.stores[handle] = self.engine_under_test.open(**self.options)
        self.followers = [(self.stores[handle].follow(query, after=text), query, after) for text, query, after in saved]

    @invariant()
    def agree_on_the_head(self) -> None:
        """Check that both stores see every event at once."""
        if hasattr(self, "stores"):
            assert [store.head() for store in self.stores] == [self.oracle.head] * 2


EMBEDDED = ("memory", "sqlite")  # the others have a server, and each history costs round trips
MAX_EXAMPLES = settings.default.max_examples if settings.default is not None else 50


def machine(engine: str, mode: str) -> Any:
    """Return the test of one engine in one mode."""
    histories = type(f"Histories_{engine}_{mode}", (Histories,), {"engine": engine, "mode": mode})
    test = histories.TestCase
    examples = MAX_EXAMPLES // ((1 if mode == "sync" else 3) * (1 if engine in EMBEDDED else 6))
    test.settings = settings(max_examples=examples, stateful_step_count=30, report_multiple_bugs=False)
    return test


for _engine in ENGINES:
    for _mode in MODES:
        globals()[f"Test_{_engine}_{_mode}"] = machine(_engine, _mode)
