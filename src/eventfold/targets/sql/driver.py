"""The protocol of a driver: what differs between SQL databases.

Knows: what the SQL target needs of a driver. Does not know: any driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from eventfold.core.table import ColumnKind, Convert, Table
from eventfold.errors import EventfoldError, ProjectionDamaged

Parameters = Sequence[Any] | Mapping[str, Any]


class Driver(Protocol):
    """One database, through its Python driver.

    Control SQL, of the library, has `?` for parameters; SQL of users has the driver's own marks.
    """

    address: str
    column_types: Mapping[ColumnKind, str]
    encoders: Mapping[ColumnKind, Convert]
    decoders: Mapping[ColumnKind, Convert]
    errors: tuple[type[BaseException], ...]
    row_errors: tuple[type[BaseException], ...]  # the errors that a written row causes
    value_errors: tuple[type[BaseException], ...]  # the errors that a value in a key or a filter causes
    table_suffix: str
    max_name_bytes: int | None  # bytes of a table's or an index's name; None: no limit
    row_lock_clause: str  # after a SELECT: locks its rows until the transaction ends; "" if a transaction locks all
    quiet_page_events: int  # events of one transaction while no one appends; 0: as many as at other times
    inserts_new_rows: bool  # it has a statement that fails if a row exists, which costs less than to look rows up
    releases_interpreter: bool  # other threads run for most of the time of a statement

    def acquire(self, write: bool, runs_user_code: bool) -> Any:
        """Reserve a connection for the calling thread; `connection` returns it.

        `write`: for a transaction that writes. `runs_user_code`: a user's code runs meanwhile, perhaps for long.
        """
        ...

    def connection(self, lent: Any) -> Any:
        """The connection of what `acquire` returned."""
        ...

    def release(self, lent: Any, write: bool, broken: bool) -> None:
        """Release what `acquire` returned; a `broken` connection is not used again."""
        ...

    def close(self) -> None:
        """Close everything."""
        ...

    def quote_relation(self, name: str) -> str:
        """The name of a table or view as a SQL identifier, whatever characters it has."""
        ...

    def quote_column(self, name: str) -> str:
        """The SQL identifier of the column for a field of a row."""
        ...

    def adapt_sql(self, text: str) -> str:
        """Control SQL in the driver's own parameter style."""
        ...

    def execute(self, connection: Any, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """Run one statement; return its rows."""
        ...

    def update_row(self, connection: Any, sql: str, parameters: Parameters) -> bool:
        """Run an UPDATE … RETURNING of one row; return whether there was such a row.

        If the connection does not read results at once (a pipeline): True, and the statement fails without such a row.
        """
        ...

    def executemany(self, connection: Any, sql: str, parameters: Iterable[Parameters]) -> None:
        """Run one statement for each set of parameters."""
        ...

    def upsert(self, connection: Any, statement: str, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """Write encoded rows. `statement` writes one row; a driver may use a faster way that has the same effect."""
        ...

    def begin(self, connection: Any) -> None:
        """Begin a transaction that will write."""
        ...

    def prepare_foreign_connection(self, connection: Any) -> None:
        """Configure a connection of the log's engine so that it reads values as a connection of this driver does."""
        ...

    def lock_schema_changes(self, connection: Any) -> None:
        """Lock, until the transaction ends, against other transactions that create or replace tables."""
        ...

    def begin_rows(self, connection: Any, several: bool) -> None:
        """Let the commit of this transaction not wait for the disk: a crash of the database may undo it as a whole.

        `several`: it writes rows of several read models. A statement that waits long for a lock on rows or tables then
        fails, since only one of them may need that lock.
        """
        ...

    def commit(self, connection: Any) -> None:
        """Commit the transaction."""
        ...

    def rollback(self, connection: Any) -> None:
        """Roll back the transaction; do nothing if there is none."""
        ...

    def allow_full_scan(self, connection: Any) -> AbstractContextManager[object]:
        """The block in which a query may run that neither a key nor an index answers."""
        ...

    def now(self, connection: Any) -> int:
        """The target's clock, in µs since 1970 UTC: all runners of a target share it."""
        ...

    def is_disconnect(self, connection: Any, error: BaseException) -> bool:
        """Whether an error means that this connection is closed, and that a new one may work."""
        ...

    def should_yield(self) -> bool:
        """Whether other writers have waited long enough for this thread's transaction to end."""
        ...

    def key_condition(self, columns: Sequence[tuple[str, ColumnKind]], count: int) -> str:
        """The SQL condition for `count` keys of these columns, with a `?` for every value."""
        ...

    def has_relation(self, connection: Any, name: str) -> bool:
        """Whether there is a table or view of this name."""
        ...

    def view_columns(self, connection: Any, name: str) -> str:
        """The columns of a table that readers see, as SQL for a SELECT."""
        ...

    def count_columns(self, connection: Any, name: str) -> int:
        """The number of columns of a table."""
        ...

    def translate_error(self, error: BaseException) -> EventfoldError:
        """The library's error for an error of the driver."""
        ...

    def lock_holder(self) -> str:
        """See Target.lock_holder."""
        ...


Translate = Callable[[BaseException], EventfoldError]
# A class has a field that its rows were not folded with.
MISSING_COLUMN_REMEDY = (
    "If a read model has a new field, rebuild it and switch: eventfold projections rebuild STORE NAME --switch. "
    "Otherwise check the SQL."
)


def damaged_text_error(address: str, error: UnicodeDecodeError) -> ProjectionDamaged:
    """The error for damaged text in a database: bytes that are not UTF-8."""
    return ProjectionDamaged(
        f"{address} is damaged: a text of a read model, or of its record, is not UTF-8 ({error.reason}).",
        "Restore that database from a backup; or remove the read model (eventfold projections remove STORE NAME) and "
        "rebuild it from the log.",
        address=address,
    )
