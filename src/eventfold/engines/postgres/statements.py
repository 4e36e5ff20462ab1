"""The SQL of reads. Every statement scans a b-tree range: its cost depends on its result, not on the log's size.

Statements depend on the shape of a query, never on its values, so that the server plans each shape once. Knows: the
tables, queries, spans. Does not know: connections.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventfold.core.envelope import MAX_EVENT_BYTES
from eventfold.core.query import Item, Query
from eventfold.core.tags import next_key
from eventfold.engines.postgres.large_queries import LargeQuery, is_large
from eventfold.ports.messages import PAGE_BYTES, Span

MAX_POSITION = 2**63 - 1
COLUMNS = (
    "e.position, e.id, e.type, e.version, e.data, e.tags, e.time, e.occurred, e.metadata, "
    'e."offset", e.size, e.codec, e.key, e.checksum'
)
_PAGE_COLUMNS = COLUMNS.replace("e.position", "e.place", 1)
_MAX_COUNTED_TAGS = 1_000  # events of a tag are counted up to this number to find the rarest tag

Statement = tuple[str, list[Any]]
STATS_COLUMNS = (
    "events",
    "event_bytes",
    "event_index_bytes",
    "tag_bytes",
    "tag_index_bytes",
    "database_bytes",
    "server_version",
    "in_recovery",
    "fsync",
    "full_page_writes",
    "synchronous_commit",
    "isolation",
)


class ReadStatements:
    """The statements for the store in one schema."""

    def __init__(self, schema: str) -> None:
        self.schema = schema  # as a quoted identifier
        self._event, self._tag = f"{schema}.event", f"{schema}.tag"
        self.store_epoch = f"SELECT one, epoch FROM {schema}.store"
        epoch = f"(SELECT epoch FROM {schema}.store)"
        self.head = f"SELECT position FROM {self._event} ORDER BY position DESC LIMIT 1"
        self.last_event = f"SELECT e.position, {epoch}, {COLUMNS} FROM {self._event} e ORDER BY e.position DESC LIMIT 1"
        self.event_at = f"SELECT e.position, {epoch}, {COLUMNS} FROM {self._event} e WHERE e.position = %b"
        self.position_of = f"SELECT position, {epoch} FROM {self._event} WHERE id = encode(%b, 'hex')::uuid"
        # The head, the number of probed events and the position of the last; then each of them.
        self.position_at = (
            f"SELECT p.head, {epoch}, cardinality(p.probes), p.probes[cardinality(p.probes)], {COLUMNS}"
            f" FROM {schema}.position_at(%b) p LEFT JOIN {self._event} e ON e.position = ANY (p.probes)"
        )
        self._head_and_epoch = f"SELECT coalesce(max(position), 0) AS head, {epoch} AS epoch FROM {self._event}"
        self._head_epoch_and_id = (
            f"SELECT coalesce(l.position, 0) AS head, s.epoch, l.id FROM {schema}.store s"
            f" LEFT JOIN (SELECT position, id FROM {self._event} ORDER BY position DESC LIMIT 1) l ON true"
        )
        # Whether this server is a standby, and the id of the event at a position seen before.
        self.last_seen_event = f"SELECT pg_is_in_recovery(), (SELECT id FROM {self._event} WHERE position = %b)"
        self.request = f"SELECT key, first, size, crc FROM {schema}.request WHERE key = %b"
        # The whole append that an event was part of.
        self.events_of_append = (
            f'SELECT {COLUMNS} FROM {self._event} f JOIN {self._event} e ON e.position >= f.position - f."offset"'
            ' AND e.position < f.position - f."offset" + f.size WHERE f.position = %b ORDER BY e.position'
        )
        self.keys = f"SELECT key, first, size, crc FROM {schema}.request WHERE key > %b ORDER BY key LIMIT %b"
        self.snapshot = f"SELECT fingerprint, position, event, state, crc FROM {schema}.snapshot WHERE key = %b"
        # A snapshot that is lost in a power cut can be folded again: no wait for the disk.
        self.keep_snapshot = (
            f"INSERT INTO {schema}.snapshot (key, fingerprint, position, event, state, crc)"
            " SELECT %b, %b, %b, %b, %b, %b"
            " FROM (SELECT set_config('synchronous_commit', 'off', true) OFFSET 0) unhurried"
            " ON CONFLICT (key) DO UPDATE SET (fingerprint, position, event, state, crc)"
            " = (excluded.fingerprint, excluded.position, excluded.event, excluded.state, excluded.crc)"
        )
        dropped = f"DELETE FROM {schema}.snapshot WHERE starts_with(key, %b) RETURNING 1"
        self.drop_snapshots = f"WITH gone AS ({dropped}) SELECT count(*) FROM gone"
        self.stats = _stats_sql(self._event, self._tag)
        self.positions_of_ids = f"SELECT position, id FROM {self._event} WHERE id = ANY (%b)"

    def page(self, query: Query, span: Span, limit: int | None) -> Statement:
        """Rows of (head, epoch, head's id, place, event's other columns…) in order; one with NULLs if none match.

        With a limit they end one row behind the row that reaches PAGE_BYTES, so that no client is sent more. The head
        is read in the same snapshot, so that no event up to the head is missed. `place` is the position in the index:
        if there is no event at it, the other columns are NULL.
        """
        order = "DESC" if span.backwards else "ASC"
        rows, values = self._page_rows(query, span, order, limit)
        rows = rows if limit is None else _limit_bytes(rows, order, limit)
        return (
            f"WITH h AS MATERIALIZED ({self._head_epoch_and_id})"
            f" SELECT h.head, h.epoch, h.id, {_PAGE_COLUMNS} FROM h LEFT JOIN ({rows}) e ON true",
            values,
        )

    def _page_rows(self, query: Query, span: Span, order: str, limit: int | None) -> Statement:
        until = MAX_POSITION if span.until is None else span.until
        most = "" if limit is None else f" LIMIT {limit}"
        bounds, occurred = _occurred_bounds(span)
        if not query.items:
            return (
                f"SELECT e.position AS place, e.* FROM {self._event} e"
                f" WHERE e.position > %b AND e.position <= %b{bounds} ORDER BY e.position {order}{most}",
                [span.after, until, *occurred],
            )
        arms, values = self._positions(query, span.after, until, order, "" if bounds else most)
        return (
            f"SELECT p.position AS place, e.* FROM ({arms}) p LEFT JOIN {self._event} e ON e.position = p.position"
            f" WHERE e.position IS NULL OR (true{bounds})"
            f" ORDER BY p.position {order}{most}",
            [*values, *occurred],
        )

    def range_page(self, arms: LargeQuery, span: Span, limit: int, most: int) -> Statement:
        """Rows of (head, epoch, number, …) for a query with many items; the other columns as in `page`.

        `number`: how many positions match. If they are more than `most`, no events are returned.
        """
        bounds, occurred = _occurred_bounds(span)
        order = "DESC" if span.backwards else "ASC"
        rows = (
            "SELECT d.position AS place, e.*"
            " FROM (SELECT DISTINCT position FROM p WHERE (SELECT count(*) FROM p) <= %b) d"
            f" LEFT JOIN {self._event} e ON e.position = d.position WHERE e.position IS NULL OR (true{bounds})"
            f" ORDER BY d.position {order} LIMIT %b"
        )
        rows = _limit_bytes(rows, order, limit)
        return (
            f"WITH h AS MATERIALIZED ({self._head_epoch_and_id}),"
            f" p AS MATERIALIZED (SELECT position FROM ({arms.sql}) a LIMIT %b)"
            f" SELECT h.head, h.epoch, (SELECT count(*) FROM p), h.id, {_PAGE_COLUMNS}"
            f" FROM h LEFT JOIN ({rows}) e ON true",
            [
                *arms.values(span.after, MAX_POSITION if span.until is None else span.until),
                most + 1,
                most,
                *occurred,
                limit,
            ],
        )

    def count(self, query: Query, after: int, until: int) -> Statement:
        """The head, the epoch and the number of matching events."""
        if not query.items:
            return f"SELECT h.head, h.epoch, 0 FROM ({self._head_and_epoch}) h", []
        arms, values = self._positions(query, after, until, "", "")
        return f"SELECT h.head, h.epoch, (SELECT count(*) FROM ({arms}) p) FROM ({self._head_and_epoch}) h", values

    def counts(self, query: Query, bounds: Sequence[int]) -> Statement:
        """Rows of (head, epoch, number of a range from 1, number of matching events): ranges without any are absent.

        One row with NULLs if no event matches.
        """
        if not query.items:
            return f"SELECT h.head, h.epoch, 0, 0 FROM ({self._head_and_epoch}) h", []
        arms, values = self._positions(query, bounds[0], bounds[-1], "", "")
        counted = f"SELECT width_bucket(p.position, %b::int8[]) AS range, count(*) AS events FROM ({arms}) p GROUP BY 1"
        head = f"({self._head_and_epoch}) h"
        return (
            f"SELECT h.head, h.epoch, c.range, c.events FROM {head} LEFT JOIN ({counted}) c ON true",
            [[bound + 1 for bound in bounds], *values],
        )

    def _positions(self, query: Query, after: int, until: int, order: str, most: str) -> Statement:
        """The positions that match, each once, in order, up to the limit `most`."""
        if is_large(query):
            of_many = LargeQuery(self.schema, query)
            sql = f"SELECT DISTINCT position FROM ({of_many.sql}) u" + (
                f" ORDER BY position {order}{most}" if most else ""
            )
            return sql, of_many.values(after, until)
        arms: list[str] = []
        values: list[Any] = []
        for item in query.items:
            for arm, more in self._item_positions(item):
                arms.append(arm + (f" ORDER BY position {order}{most}" if most else ""))
                values += [*more[0], after, until, *more[1]]
        if len(arms) == 1:
            return arms[0], values
        union = " UNION ".join(f"({arm})" for arm in arms)
        return f"SELECT position FROM ({union}) u" + (f" ORDER BY position {order}{most}" if most else ""), values

    def _item_positions(self, item: Item) -> Sequence[tuple[str, tuple[list[Any], list[Any]]]]:
        """The index scans of one item; each with its values before and after those of the span."""
        span = "position > %b AND position <= %b"
        if not item.tags:
            return [
                (f"SELECT position FROM {self._event} WHERE type = %b AND {span}", ([name], [])) for name in item.types
            ]
        types = " AND type = ANY (%b::text[])" if item.types else ""
        names = [list(item.types)] if item.types else []
        if len(item.tags) == 1:
            return [(f"SELECT position FROM {self._tag} WHERE tag = %b AND {span}{types}", ([item.tags[0]], names))]
        # Several tags: scan the rarest (counted up to _MAX_COUNTED_TAGS) and probe for the others.
        rarest = (
            f"(SELECT g FROM unnest(%b::text[]) g ORDER BY (SELECT count(*) FROM"
            f" (SELECT FROM {self._tag} r WHERE r.tag = g LIMIT {_MAX_COUNTED_TAGS}) few) LIMIT 1)"
        )
        probes = (
            f" AND {len(item.tags)} = (SELECT count((SELECT o.position FROM {self._tag} o WHERE o.tag = g"
            " AND o.position = t.position)) FROM unnest(%b::text[]) g)"
        )
        tags = list(item.tags)
        return [
            (
                f"SELECT position FROM {self._tag} t WHERE tag = {rarest} AND {span}{types}{probes}",
                ([tags], [*names, tags]),
            )
        ]

    def types(self, after: int) -> Statement:
        """The head, and each type in order with the number of its events behind `after`. Skips along the index.

        One row without a type if there are no events.
        """
        named = f"SELECT e.position FROM {self._event} e WHERE e.type = n.type AND e.position <= h.head"
        return (
            f"WITH RECURSIVE h AS MATERIALIZED ({self._head_and_epoch}),"
            f" n(type) AS ((SELECT type FROM {self._event} ORDER BY type LIMIT 1) UNION ALL"
            f" SELECT (SELECT e.type FROM {self._event} e WHERE e.type > n.type ORDER BY e.type LIMIT 1) FROM n"
            " WHERE n.type IS NOT NULL) SELECT h.head, h.epoch, n.type,"
            f" (SELECT count(*) FROM ({named} AND e.position > %b) more),"
            f" ({named} ORDER BY e.position LIMIT 1), ({named} ORDER BY e.position DESC LIMIT 1)"
            " FROM h LEFT JOIN n ON n.type IS NOT NULL ORDER BY n.type",
            [after],
        )

    def tags(self, prefix: str, limit: int, after: str) -> Statement:
        """Tags in code point order. Skips along the index from one tag to the next."""
        start = "tag >= %b" if prefix > after else "tag > %b"
        return (
            f"WITH RECURSIVE n(tag, left_over) AS ((SELECT tag, %b::int4 FROM {self._tag} WHERE {start}"
            " ORDER BY tag LIMIT 1) UNION ALL"
            f" SELECT (SELECT t.tag FROM {self._tag} t WHERE t.tag > n.tag ORDER BY t.tag LIMIT 1), n.left_over - 1"
            " FROM n WHERE n.left_over > 1 AND n.tag IS NOT NULL AND starts_with(n.tag, %b))"
            f" SELECT n.tag, (SELECT count(*) FROM {self._tag} t WHERE t.tag = n.tag),"
            f" (SELECT t.position FROM {self._tag} t WHERE t.tag = n.tag ORDER BY t.position LIMIT 1),"
            f" (SELECT t.position FROM {self._tag} t WHERE t.tag = n.tag ORDER BY t.position DESC LIMIT 1) FROM n"
            " WHERE n.tag IS NOT NULL AND starts_with(n.tag, %b) ORDER BY n.tag",
            [limit, prefix if prefix > after else after, prefix, prefix],
        )

    def tag_names(self, prefix: str, limit: int, after: str) -> Statement:
        """Tags in code point order, as in `tags`, without counts."""
        tag, start = f"SELECT t.tag FROM {self._tag} t WHERE t.tag", ">= %b" if prefix > after else "> %b"
        return (
            f"WITH RECURSIVE n(tag, left_over) AS (SELECT ({tag} {start} ORDER BY t.tag LIMIT 1), %b::int4 UNION ALL"
            f" SELECT ({tag} > n.tag ORDER BY t.tag LIMIT 1), n.left_over - 1"
            " FROM n WHERE n.left_over > 1 AND n.tag IS NOT NULL AND starts_with(n.tag, %b))"
            " SELECT n.tag FROM n WHERE n.tag IS NOT NULL AND starts_with(n.tag, %b) ORDER BY n.tag",
            [max(prefix, after), limit, prefix, prefix],
        )

    def tag_keys(self, prefix: str, limit: int, after: str) -> Statement:
        """For each key of tags one of its tags, in order. Skips along the index from one key to the next."""
        tag, start = f"SELECT t.tag FROM {self._tag} t WHERE t.tag", max(prefix, next_key(after))
        beyond = "CASE WHEN strpos(n.tag, ':') = 0 THEN n.tag || chr(1) ELSE split_part(n.tag, ':', 1) || ';' END"
        return (
            f"WITH RECURSIVE n(tag, left_over) AS (SELECT ({tag} >= %b ORDER BY t.tag LIMIT 1), %b::int4 UNION ALL"
            f" SELECT ({tag} >= {beyond} ORDER BY t.tag LIMIT 1), n.left_over - 1"
            " FROM n WHERE n.left_over > 1 AND n.tag IS NOT NULL AND starts_with(n.tag, %b))"
            " SELECT n.tag FROM n WHERE n.tag IS NOT NULL AND starts_with(n.tag, %b) ORDER BY n.tag",
            [start, limit, prefix, prefix],
        )


def _limit_bytes(rows: str, order: str, limit: int) -> str:
    """The rows up to the one with which payloads and metadata reach PAGE_BYTES, and one more.

    Only the lengths of payloads are read for that.
    """
    if limit * MAX_EVENT_BYTES < PAGE_BYTES:
        return rows
    size = "coalesce(octet_length(r.data), 0) + coalesce(octet_length(r.metadata), 0)"
    before = f"sum({size}) OVER (ORDER BY r.place {order} ROWS BETWEEN UNBOUNDED PRECEDING AND 2 PRECEDING)"
    return (
        f"SELECT b.* FROM (SELECT r.*, {before} AS before FROM ({rows}) r) b"  # noqa: S608 (no values in it)
        f" WHERE coalesce(b.before, 0) < {PAGE_BYTES} ORDER BY b.place {order}"
    )


def _stats_sql(event: str, tag: str) -> str:
    sizes = [
        f"{size}('{table}')"
        for table in (_escape_literal(event), _escape_literal(tag))
        for size in ("pg_table_size", "pg_indexes_size")
    ]
    settings = ("server_version", "fsync", "full_page_writes", "synchronous_commit", "transaction_isolation")
    version, *others = [f"current_setting('{name}')" for name in settings]
    return (
        f"SELECT (SELECT coalesce(max(position), 0) FROM {event}), {', '.join(sizes)},"
        f" pg_database_size(current_database()), {version}, pg_is_in_recovery(), {', '.join(others)}"
    )


def _escape_literal(name: str) -> str:
    return name.replace("'", "''")


def _occurred_bounds(span: Span) -> tuple[str, list[int]]:
    """Bounds of the time an event occurred; for events without one, the time it was recorded."""
    parts: list[str] = []
    values: list[int] = []
    for bound, sign in ((span.occurred_since, ">="), (span.occurred_until, "<=")):
        if bound is not None:
            parts.append(f" AND coalesce(e.occurred, e.time) {sign} %b")
            values.append(bound)
    return "".join(parts), values
