"""SQLAlchemy-Continuum: tables …_version with a whole row after each change, and a table of transactions.

Knows: its columns. Does not know: events.
"""

from __future__ import annotations

from collections.abc import Iterator

from eventfold.migrate.connection import Connection
from eventfold.migrate.histories.change import Change, Operation, column_names, plain_reader, quote, text_of, when_of
from eventfold.migrate.mapping import History
from eventfold.migrate.reflection import Schema

NAME = "sqlalchemy-continuum"
OWN = {"transaction_id", "operation_type"}
TRANSACTION = {"id", "issued_at"}
OPERATIONS: dict[int, Operation] = {0: "insert", 1: "update", 2: "delete"}


def recognise(schema: Schema) -> dict[str, History]:
    """Return the tables of versions whose table exists, and the table of transactions."""
    labels = {table.label for table in schema.tables}
    found = {
        table.label: History(package=NAME, of=table.label.removesuffix("_version"))
        for table in schema.tables
        if column_names(table) >= OWN
        and table.label.endswith("_version")
        and table.label.removesuffix("_version") in labels
    }
    if found:
        found |= {
            each.label: History(package=NAME) for each in schema.tables if _is_of_transactions(schema, each.label)
        }
    return found


def _is_of_transactions(schema: Schema, label: str) -> bool:
    return label.rpartition(".")[2] == "transaction" and column_names(schema.table(label)) >= TRANSACTION


def read(connection: Connection, schema: Schema, label: str, history: History) -> Iterator[Change]:
    """Yield the changes; those of the table of transactions are none."""
    if not history.of:
        return
    table, own = schema.table(label), schema.table(history.of)
    names = [each.name for each in own.columns if each.name in column_names(table)]
    chosen, readers = plain_reader(connection.dialect, table, names)
    transactions = next((each for each in schema.tables if _is_of_transactions(schema, each.label)), None)
    user = transactions is not None and "user_id" in column_names(transactions)
    moment = text_of(connection.dialect, "t.issued_at") if transactions is not None else "NULL"
    joined = f"LEFT JOIN {transactions.sql} t ON t.id = h.transaction_id" if transactions is not None else ""
    statement = (
        f"SELECT h.transaction_id, {moment}, h.operation_type, {'t.user_id' if user else 'NULL'}, {chosen} "  # noqa: S608
        f"FROM {table.sql} h {joined} ORDER BY {', '.join(f'h.{quote(name)}' for name in own.key)}, h.transaction_id"
    )
    for page in connection.pages(statement):
        for transaction, when, kind, who, *row in page:
            values = {name: reader(value) for name, reader, value in zip(names, readers, row, strict=True)}
            key = tuple(values[name] for name in own.key)
            yield Change(
                table=history.of,
                key=key,
                operation=OPERATIONS[int(kind)],
                values=values,
                when=when_of(when),
                who=None if who is None else str(who),
                source=f"{label}/{'/'.join(map(str, key))}/{transaction}",
                is_whole=True,
            )
