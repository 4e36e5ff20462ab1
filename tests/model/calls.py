"""Random calls of an engine, and their outcomes without what differs between two stores.

Knows: requests, clauses, outcomes. Does not know: any engine.
"""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from eventfold.core.envelope import NewEvent, Receipt
from eventfold.core.query import ConditionClause, Item, Query
from eventfold.errors import EventfoldError
from eventfold.ports.messages import AppendRequest

TAGS = ("a:1", "a:2", "b:1")
TYPES = ("T", "U")
IDS = [bytes([n]) * 16 for n in range(24)]

items = st.builds(
    Item,
    st.lists(st.sampled_from(TYPES), max_size=2, unique=True).map(tuple),
    st.lists(st.sampled_from(TAGS), max_size=3, unique=True).map(lambda tags: tuple(sorted(tags))),
)
queries = st.lists(items, min_size=1, max_size=2).map(Query.any_of)
events = st.builds(
    NewEvent,
    id=st.sampled_from(IDS),
    type=st.sampled_from(TYPES),
    version=st.sampled_from([1, 1, 2]),
    data=st.sampled_from([b"{}", b"{}", b'{"x":1}']),
    tags=st.lists(st.sampled_from(TAGS), max_size=2, unique=True).map(lambda tags: tuple(sorted(tags))),
    occurred=st.sampled_from([None, None, 5]),
    metadata=st.sampled_from([None, None, b"{}"]),
    codec=st.sampled_from(["json", "json", "raw"]),
    key=st.sampled_from([None, None, "k"]),
)
requests = st.builds(
    AppendRequest,
    st.lists(events, min_size=1, max_size=3).map(tuple),
    st.lists(st.builds(ConditionClause, queries, st.integers(0, 12), st.none() | st.sampled_from(IDS)), max_size=2).map(
        tuple
    ),
    st.sampled_from([None, None, None, "k-1", "k-2"]),
)


def seen(outcome: Any) -> Any:
    """Return an outcome without what differs between two stores: ids of the store, and times."""
    if isinstance(outcome, Receipt):
        return msgspec.structs.replace(outcome, store="", epoch=0, time=0)
    assert isinstance(outcome, EventfoldError)
    return type(outcome), str(outcome), outcome.fields


def timeless(stored: list[Any]) -> list[Any]:
    """Return a log without its times."""
    return [msgspec.structs.replace(each, time=0) for each in stored]
