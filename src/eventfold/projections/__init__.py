"""Read models, subscriptions and followers: declared, folded from the log, run, and administered.

The modules in the order in which to read them. Declare: classes, definition. Fold: page, fold. Run: worker,
page_commit, partition_lease, failures, leases, runner, followers. Administer: catalog, generations, operations, admin.
Knows: which events a class handles, checkpoints, leases, generations. Does not know: how targets store rows, how
engines store events.
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
