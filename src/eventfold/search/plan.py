"""How a filter is answered: which events are read by the index, what is tested on each of them, and that as a sentence.

Knows: conditions, covers. Does not know: clocks, how much is read at a time (find.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Item, Matcher, Query
from eventfold.ports.engine import Engine
from eventfold.search.condition import Condition, Test, indexed, matcher
from eventfold.search.conditions import Binding
from eventfold.search.cover import EVERYTHING, LAST_POSITION, MAX_ALTERNATIVES, Segment, both, of_query, segments_of
from eventfold.search.grammar import parse, print_tree
from eventfold.search.names import EngineNames, Names
from eventfold.search.subject import Subject

MAX_SHOWN = 3  # alternatives and names of each kind in the sentence of a plan


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A filter that can be answered.

    `text`      the filter, in its shortest form.
    `segments`  what is read: parts of the log, ascending, each by a query.
    `test`      what each of these events must still satisfy; None: all of them match.
    `full_test` what any event must satisfy to match, however it was read.
    `index`, `scan`
                what the index is asked for, and what is tested, as text; "" if nothing is.
    `reads_payloads`
                whether payloads or metadata decide which events match.
    `unindexed` keys of the filter that no index answers and for which one might be expected: correlation, cause.
    `depends_on_now`
                whether a moment of it is relative, as 2h, so that the same text means other events later.
    """

    text: str
    segments: tuple[Segment, ...]
    test: Test | None
    full_test: Test
    index: str
    scan: str
    reads_payloads: bool
    unindexed: tuple[str, ...] = ()
    depends_on_now: bool = False

    @property
    def query(self) -> Query | None:
        """A query for every event that matches, and perhaps others; None: no event can match.

        With `matches`, for a reader of events that are not written yet, if the plan was made `live`.
        """
        found = Query()
        for number, segment in enumerate(self.segments):
            found = segment.query if number == 0 else found | segment.query
        return found if self.segments else None

    @property
    def matches(self) -> Callable[[StoredEvent], bool]:
        """A test of one event, of any query."""
        return matcher(self.full_test)

    def sentence(self, counted: str = "") -> str:
        """How the filter is answered: `index: carrier:UA · 175,309 → scan: data.delay>600`.

        `counted`: how many events the index returns, as text.
        """
        if not self.segments:
            return "index: no event can match"
        counted = counted and f" · {counted}"
        found = f"index: {self.index}{counted}" if self.index else f"every event{counted}"
        if self.scan:
            found = f"{found} → scan: {self.scan}"
        return found if not self.unindexed else f"{found} (no index has {' or '.join(self.unindexed)})"


async def make_plan(
    engine: Engine,
    text: str,
    *,
    now: datetime,
    names: Names | None = None,
    within: Query | None = None,
    live: bool = False,
    is_blind: bool = False,
) -> Plan:
    """Return the plan of a filter for the log of an engine; a blank text is every event. Raises InvalidFilter.

    `now`: the moment before which 2h means two hours. `names`: those that the filter may mean; None: all of the log.
    `within`: only events that match it, too. `live`: the plan is for events that are written later: read them by
    `plan.query`, and test each by `plan.matches`. `is_blind`: nothing is looked up in the log, so that neither the
    plan nor an error depends on it; a plan is then live, and every key is taken for a key of tags.
    """
    found = None if is_blind else names or EngineNames(engine)
    binding = Binding(engine, found, now, live or is_blind)
    condition, shown = indexed(lambda _: True, EVERYTHING), ""
    if text.strip():
        tree = parse(text, words=True)
        condition, shown = await binding.condition(tree), print_tree(tree)
    if within is not None:
        condition = _within(condition, within)
    segments, is_exact = segments_of(condition.cover)
    left = condition.left if is_exact else ((shown, condition.test),)
    return Plan(
        text=shown,
        segments=segments,
        test=_all_of([test for _, test in left]),
        full_test=condition.test,
        index=_describe(segments),
        scan=" ".join(part for part, _ in left),
        reads_payloads=binding.reads_payloads,
        unindexed=tuple(binding.unindexed),
        depends_on_now=binding.depends_on_now,
    )


def restricted(plan: Plan, restrict: Callable[[Query], Query]) -> Plan:
    """Return the plan with another query for each segment, which has no events that the first one has not."""
    segments = [segment._replace(query=restrict(segment.query)) for segment in plan.segments]
    return msgspec.structs.replace(plan, segments=tuple(segments))


def _within(condition: Condition, query: Query) -> Condition:
    matches, inner = Matcher(query).matches, condition.test

    def is_within(subject: Subject) -> bool:
        return matches(subject.stored.type, subject.tags)

    def test(subject: Subject) -> bool:
        return is_within(subject) and inner(subject)

    cover = both(condition.cover, of_query(query)) if len(query.items) <= MAX_ALTERNATIVES else None
    if cover is None:
        return Condition(test, condition.cover, False, (("what you may see", is_within), *condition.left))
    return Condition(test, cover, condition.is_exact, condition.left)


def _all_of(tests: Sequence[Test]) -> Test | None:
    if len(tests) < 2:
        return tests[0] if tests else None
    return lambda subject: all(test(subject) for test in tests)


def _describe(segments: Sequence[Segment]) -> str:
    """What the index is asked for, as clauses."""
    shown = [_describe_segment(segment) for segment in segments[:MAX_SHOWN]]
    if len(segments) > MAX_SHOWN:
        shown.append(f"{len(segments) - MAX_SHOWN} more spans")
    return " OR ".join(filter(None, shown))


def _describe_segment(segment: Segment) -> str:
    after, until, query = segment
    if after == until - 1:
        span = f"pos:{until}"
    elif until == LAST_POSITION:
        span = f"pos>{after}" if after else ""
    else:
        span = f"pos:{after + 1}..{until}"
    items = _describe_items(query.items)
    if " OR " in items and span:
        items = f"({items})"
    return " ".join(filter(None, (items, span)))


def _describe_items(items: Sequence[Item]) -> str:
    shown: list[str] = []
    for item in items[:MAX_SHOWN]:
        types = ",".join(item.types[:MAX_SHOWN]) + (f",… ({len(item.types)})" if len(item.types) > MAX_SHOWN else "")
        shown.append(" ".join([*([f"type:{types}"] if types else []), *item.tags]))
    if len(items) > MAX_SHOWN:
        shown.append(f"… ({len(items)})")
    return " OR ".join(shown)
