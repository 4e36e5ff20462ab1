"""PostgreSQL, for many processes: the engine port over one schema of a database, by psycopg 3.

    engine.py          the port: each call to the part that answers it
    reader.py          pages, single events and counts        statements.py, large_queries.py   their SQL
    writer.py          appends: retries, outcomes             batch.py    requests that one call can judge
    append.py          one batch as one call, and its reply
    inline.py          appends in which read models are folded
    transactions.py    appends within the user's transaction
    replication.py     another log's events, as they are there
    servers.py         primary and replica: which is asked, what a session must be like
    pool.py, idle.py   connections kept open and checked out  connection.py   one of them, blocking or asyncio
    listen.py          notification of commits                named_locks.py  advisory locks by name
    schema.py          the store's tables (sql/): created, recognised      layouts.py   older ones upgraded
    integrity.py       a store compared with itself           checksums.py    of events, keys and snapshots
    options.py         addresses and options                  roles.py        least-privilege roles
    errors.py          the server's errors translated         arrays.py       binary arrays
    moment_variants.py moments in tags that older versions stored in other time zones

Knows: nothing of the other engines.
"""

from eventfold.engines.postgres.engine import PostgresEngine
from eventfold.engines.postgres.errors import refusal
from eventfold.engines.postgres.roles import roles_sql

__all__ = ["PostgresEngine", "refusal", "roles_sql"]
