"""Read models, the user's half: classes whose rows are folded from events, and what they mean.

Knows: event classes, columns, keys, handlers, the ledger's arithmetic. Pure: no clock, no thread, no database,
no order of steps. Does not know: where rows are kept (targets), who runs it (running), how far it has come.
"""

from eventfold.core.table import Column, Table
from eventfold.core.tally import EMPTY_TALLY, Tally, event_hash
from eventfold.projections.classes import Projection, SqlProjection, Subscription
from eventfold.projections.definition import ProjectionDefinition, ProjectionLike, projection_definition

__all__ = [
    "EMPTY_TALLY",
    "Column",
    "Projection",
    "ProjectionDefinition",
    "ProjectionLike",
    "SqlProjection",
    "Subscription",
    "Table",
    "Tally",
    "event_hash",
    "projection_definition",
]
