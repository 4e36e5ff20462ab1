"""eventfold: one ordered log of immutable events; all state is a fold over it, now or at any past moment."""

from eventfold.aggregate import Aggregate
from eventfold.aio import AsyncStore
from eventfold.errors import AppendConflict, AppendUnconfirmed, EventfoldError, InvalidDecision, NotSupported
from eventfold.event import Draft, Event, Recorded, Tag, event, tag
from eventfold.flow.decide import Decided
from eventfold.process import Process
from eventfold.projection import Projection, SqlProjection, Subscription
from eventfold.query import Query
from eventfold.state import State, diff
from eventfold.store import Store
from eventfold.target import Transaction
from eventfold.upcast import upcast

__version__ = "0.1.0"

__all__ = [
    "Aggregate",
    "AppendConflict",
    "AppendUnconfirmed",
    "AsyncStore",
    "Decided",
    "Draft",
    "Event",
    "EventfoldError",
    "InvalidDecision",
    "NotSupported",
    "Process",
    "Projection",
    "Query",
    "Recorded",
    "SqlProjection",
    "State",
    "Store",
    "Subscription",
    "Tag",
    "Transaction",
    "diff",
    "event",
    "tag",
    "upcast",
]
