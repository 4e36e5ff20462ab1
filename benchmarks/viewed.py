"""A read model as `eventsourcing` stores one on PostgreSQL: a view with its tracking table, and its runner.

Knows: the eventsourcing package, so it is imported only where that is installed. It follows that package's
documentation: a recorder writes its row and its position in one transaction, for each event.
"""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from eventsourcing.postgres import PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from psycopg.sql import SQL, Identifier

from benchmarks.parcels import Parcels


class Counts(PostgresTrackingRecorder):
    """Parcels by their id: the number of scans, and the weight."""

    def __init__(self, datastore: Any, **options: Any) -> None:
        super().__init__(datastore, **options)
        place = [Identifier(self.datastore.schema), Identifier(f"{options['tracking_table_name']}_rows")]
        self.sql_create_statements.append(
            SQL(
                "CREATE TABLE IF NOT EXISTS {}.{} "
                "(parcel uuid PRIMARY KEY, scans bigint NOT NULL, weight bigint NOT NULL)"
            ).format(*place)
        )
        self._upsert = SQL(
            "INSERT INTO {0}.{1} AS r VALUES (%s, 1, %s) "
            "ON CONFLICT (parcel) DO UPDATE SET scans = r.scans + 1, weight = r.weight + excluded.weight"
        ).format(*place)

    def count(self, parcel: Any, weight: int, tracking: Any) -> None:
        """Count one scan, and record the position."""
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(self._upsert, (parcel, weight), prepare=True)


class Counted(Projection[Counts]):
    """Passes each event to the view."""

    def process_event(self, domain_event: Any, tracking: Any) -> None:
        """Count one."""
        self.view.count(domain_event.originator_id, domain_event.weight, tracking)


def rate(environment: dict[str, str], events: int) -> float:
    """Return the events a second of a runner that begins with an empty view, for so many events."""
    kind = type("Counted", (Counted,), {"name": f"v{uuid4().hex[:10]}"})
    began = time.perf_counter()
    with ProjectionRunner(
        application_class=Parcels, projection_class=kind, view_class=Counts, env=environment
    ) as runner:
        runner.wait(events, timeout=600)
        return (runner.view.max_tracking_id(runner.app_name) or 0) / (time.perf_counter() - began)
