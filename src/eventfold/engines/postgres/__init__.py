"""Room: PostgreSQL, for many processes: the port over one schema of a database, by psycopg 3.

    options.py       where the server is, and the engine's options
    connection.py    connections in both colours, and the pool that keeps them
    servers.py       which server is asked, and what each session must be like
    schema.py        the store's tables: made, recognised, checked, upgraded; sql/ holds their text
    append.py        requests as the one call that writes them; arrays.py packs its arguments
    statements.py    questions as SQL
    listen.py        waking followers
    replication.py   another log's events, taken over as they stand
    named_locks.py   locks by name
    transactions.py  appends within the user's own transaction
    roles.py         least-privilege roles, as SQL
    errors.py        what the server and the driver say, in our words
    ports/engine.py        the port itself

Knows: nothing of the other engines.
"""

from eventfold.engines.postgres.engine import PostgresEngine
from eventfold.engines.postgres.errors import refusal
from eventfold.engines.postgres.roles import roles_sql

__all__ = ["PostgresEngine", "refusal", "roles_sql"]
