"""eventfold: one ordered log of immutable events; each state is a fold over it, now or at any past moment."""

import importlib
from typing import TYPE_CHECKING, Any

from eventfold.core.envelope import NewEvent, Receipt
from eventfold.core.event import Draft, Event, Recorded, event
from eventfold.core.query import Query
from eventfold.core.renamed import explain_name, refuse_old_imports
from eventfold.core.tags import Tag, tag
from eventfold.core.unknown_fields import UnknownFields
from eventfold.core.upcast import upcast
from eventfold.errors import (
    AppendConflict,
    AppendUnconfirmed,
    EventfoldError,
    InvalidDecision,
    InvalidInput,
    NotSupported,
)

if TYPE_CHECKING:
    from eventfold.aio import AsyncStore
    from eventfold.alerts.calendars import Calendar, office_hours
    from eventfold.alerts.classes import Alert
    from eventfold.alerts.detectors import (
        Absence,
        Detector,
        Drift,
        Outlier,
        Rate,
        Seasonal,
        absence,
        drift,
        outlier,
        rate,
        seasonal,
    )
    from eventfold.core.aggregate import Aggregate
    from eventfold.core.durations import days, hours, minutes, seconds
    from eventfold.core.state import State, diff
    from eventfold.log.decided import Decided
    from eventfold.ports.target import Transaction
    from eventfold.processes import Process
    from eventfold.projections import Projection, SqlProjection, Subscription
    from eventfold.selection import col
    from eventfold.store import Store

# Modules that are imported at the first access to one of their names, so that `import eventfold` is quick.
_MODULES = {
    "Absence": "alerts.detectors",
    "Aggregate": "core.aggregate",
    "Alert": "alerts.classes",
    "AsyncStore": "aio",
    "Calendar": "alerts.calendars",
    "Decided": "log.decided",
    "Detector": "alerts.detectors",
    "Drift": "alerts.detectors",
    "Outlier": "alerts.detectors",
    "Process": "processes",
    "Projection": "projections",
    "Rate": "alerts.detectors",
    "Seasonal": "alerts.detectors",
    "SqlProjection": "projections",
    "State": "core.state",
    "Store": "store",
    "Subscription": "projections",
    "Transaction": "ports.target",
    "absence": "alerts.detectors",
    "col": "selection",
    "days": "core.durations",
    "diff": "core.state",
    "drift": "alerts.detectors",
    "hours": "core.durations",
    "minutes": "core.durations",
    "office_hours": "alerts.calendars",
    "outlier": "alerts.detectors",
    "rate": "alerts.detectors",
    "seasonal": "alerts.detectors",
    "seconds": "core.durations",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(explain_name(name) or f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


refuse_old_imports()


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__"})


__version__ = "0.1.0"

__all__ = [
    "Absence",
    "Aggregate",
    "Alert",
    "AppendConflict",
    "AppendUnconfirmed",
    "AsyncStore",
    "Calendar",
    "Decided",
    "Detector",
    "Draft",
    "Drift",
    "Event",
    "EventfoldError",
    "InvalidDecision",
    "InvalidInput",
    "NewEvent",
    "NotSupported",
    "Outlier",
    "Process",
    "Projection",
    "Query",
    "Rate",
    "Receipt",
    "Recorded",
    "Seasonal",
    "SqlProjection",
    "State",
    "Store",
    "Subscription",
    "Tag",
    "Transaction",
    "UnknownFields",
    "absence",
    "col",
    "days",
    "diff",
    "drift",
    "event",
    "hours",
    "minutes",
    "office_hours",
    "outlier",
    "rate",
    "seasonal",
    "seconds",
    "tag",
    "upcast",
]
