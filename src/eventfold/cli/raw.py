"""Room: the one place where events without classes go into a store.

Knows: that the flow writes encoded events. Does not know: where they come from.
"""

from __future__ import annotations

from collections.abc import Sequence

from eventfold.bridge import run
from eventfold.engine import AppendRequest
from eventfold.flow.append import write
from eventfold.query import Clause, Query
from eventfold.record import NewEvent, Receipt
from eventfold.store import Store


def append_raw(store: Store, events: Sequence[NewEvent], unless: Query | None, after: int, key: str | None) -> Receipt:
    """Append 1 to 1,000 encoded events, as `Store.append` does with objects, and raise what it raises.

    The store's façade encodes what it is given, so this goes to the flow beneath it.
    """
    clauses = () if unless is None else (Clause(unless, after),)
    log, options = store._log, store._options  # pyright: ignore[reportPrivateUsage]
    return run(write(log, options, AppendRequest(tuple(events), clauses, key)))
