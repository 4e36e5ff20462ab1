"""The rows of README's table: which figure of a run each one shows, and beside what.

Knows: labels, groups, keys of figures. Does not know: values; a row has no number of its own.
"""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.floor import Prototype, RawApsw
from benchmarks.peers import Eventsourcing, EventsourcingMemory, Umadb

# The columns of contenders: the heading, and the names under which figures have them.
COLUMNS = (
    ("raw apsw", (RawApsw.name,)),
    ("prototype", (Prototype.name,)),
    ("eventsourcing", (Eventsourcing.name, EventsourcingMemory.name)),
    ("umadb", (Umadb.name,)),
)


class Row(NamedTuple):
    """A row of the table. `beside`: another contender of the figure, and what to write after its ratio."""

    label: str
    group: str
    key: str
    beside: tuple[tuple[str, str], ...] = ()
    p99: str = ""  # the key of the figure with the p99 of the same turns


RAW_PSYCOPG = (("raw psycopg", "raw psycopg"),)
ALONE = (("no reader", "without a reader"),)
ONE_WRITER = (("one writer", "one writer"),)
ONE_PROCESS = (("one process", "one process"),)


def _append(events: int, label: str) -> Row:
    return Row(label, "append", f"{events} an append", p99=f"{events} an append, p99")


ROWS = (
    _append(1, "one writer, one event an append"),
    _append(10, "10 events an append"),
    _append(100, "100 events an append"),
    _append(1000, "1,000 events an append"),
    Row("32 threads, one event each", "concurrent", "32 threads", ONE_WRITER),
    Row("32 tasks, one event each", "concurrent", "32 tasks", ONE_WRITER),
    Row("512 tasks, one event each", "concurrent", "512 tasks", ONE_WRITER),
    Row(
        "the same under a condition (DCB)",
        "concurrent",
        "512 tasks, conditional",
        (("unconditional", "without a condition"),),
    ),
    Row("whole log as typed objects", "read", "typed"),
    Row("whole log folded by a State", "read", "folded"),
    Row("an entity of 100 events, loaded and folded", "read", "entity, 100"),
    Row("an entity of 10,000 events, loaded and folded", "read", "entity, long"),
    Row("a decision on a warm entity", "read", "decide", (("one event appended", "an append"),)),
    Row("a decision over two warm entities", "decisions", "over two", (("bare append", "an append of two events"),)),
    Row(
        "32 tasks that decide over one entity",
        "hot",
        "one counter, tasks",
        (("under a lock", "under a lock"), ("every caller tries", "with a store for each")),
    ),
    Row("an entity of 1,000,000 events decides, warm", "decisions", "long, warm"),
    Row("the same, cold", "decisions", "long, cold"),
    Row("10,000 due timers fired", "decisions", "timers"),
    Row("append to receipt in one process, p50", "follow", "receipt in one process, p50"),
    Row("append to receipt across two processes, p50", "follow", "receipt across processes, p50"),
    Row("read model folded in memory", "projections", "fold"),
    Row("read model, a row for each event", "projections", "row an event", (("raw upsert", "a raw upsert"),)),
    Row("the same on PostgreSQL", "postgres", "row an event", (("raw upsert", "a raw upsert"),)),
    Row("read model on PostgreSQL, a row for ten events", "postgres", "row a parcel"),
    Row("a million flight events rebuilt into 192 rows", "projections", "flights"),
    Row(
        "four processes, a partition each, slow handler",
        "projections",
        "partitions, heavy",
        ONE_PROCESS,
    ),
    Row("the same, fast handler", "projections", "partitions, light", ONE_PROCESS),
    Row("one writer beside a read model of another process", "beside", "1 in the log's file", ALONE),
    Row("the same beside five", "beside", "5 in the log's file", ALONE),
    Row("PostgreSQL: one writer beside a read model", "beside", "1 on PostgreSQL", ALONE),
    Row("PostgreSQL: the same beside five", "beside", "5 on PostgreSQL", ALONE),
    Row("from an append to its row in a read model, p50", "beside", "idle p50"),
    Row("lag of a row beside a busy writer, p99", "beside", "lag p99"),
    Row("PostgreSQL: one event an append", "postgres", "1 event an append, one writer", RAW_PSYCOPG),
    Row("PostgreSQL: 1,000 events an append", "postgres", "1,000 events an append, one writer", RAW_PSYCOPG),
    Row("PostgreSQL: 32 tasks, one event each", "postgres", "32 tasks, one event each", ONE_WRITER),
    Row("bytes on disk for an event of 200", "footprint", "bytes"),
)
# What grows with the store: the label of a line, and the key of its figures before " at SIZE".
GROWTH = (
    ("one event an append", "append 1"),
    ("1,000 events an append", "append 1000"),
    ("read by a tag", "tag read"),
    ("a condition", "condition"),
)
