"""The little that differs between SQL databases, as one protocol.

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
    """One database, by its driver. Control SQL has `?` for parameters; users' SQL has the driver's own marks."""

    address: str
    column_types: Mapping[ColumnKind, str]
    encoders: Mapping[ColumnKind, Convert]
    decoders: Mapping[ColumnKind, Convert]
    errors: tuple[type[BaseException], ...]
    row_errors: tuple[type[BaseException], ...]  # of errors, those that are a row's fault
    value_errors: tuple[type[BaseException], ...]  # of errors, those that a value is to blame for, in a key or a filter
    table_suffix: str
    max_name_bytes: int | None  # bytes of a table's or an index's name; None: any number
    row_lock_clause: str  # behind a SELECT: lock the rows until the end of the transaction, where it has not locked all

    def acquire(self, write: bool, runs_user_code: bool) -> Any:
        """Something that holds a connection for the calling thread alone: see `connection`.

        To write by or to read by; `runs_user_code`: a user's code runs meanwhile, perhaps for long.
        """
        ...

    def connection(self, lent: Any) -> Any:
        """The connection of what `take` gave."""
        ...

    def release(self, lent: Any, write: bool, broken: bool) -> None:
        """Give back what `take` gave; `broken`: its connection is not to be used again."""
        ...

    def close(self) -> None:
        """Close everything."""
        ...

    def quote_relation(self, name: str) -> str:
        """A table or view by its name, as SQL names it: whatever that name is."""
        ...

    def quote_column(self, name: str) -> str:
        """A column of rows by its field, as SQL names it."""
        ...

    def adapt_sql(self, text: str) -> str:
        """Control SQL in the driver's own parameter style."""
        ...

    def execute(self, connection: Any, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """One statement; its rows."""
        ...

    def executemany(self, connection: Any, sql: str, parameters: Iterable[Parameters]) -> None:
        """One statement, many times."""
        ...

    def upsert(self, connection: Any, statement: str, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """Write packed rows by a statement that writes one, or by a faster way that does the same."""
        ...

    def begin(self, connection: Any) -> None:
        """Begin a transaction that will write."""
        ...

    def prepare_foreign_connection(self, connection: Any) -> None:
        """Make a connection of the log's engine read what it finds as one of ours does."""
        ...

    def lock_schema_changes(self, connection: Any) -> None:
        """In a transaction: be the only one who makes or exchanges tables, until its end."""
        ...

    def commit(self, connection: Any) -> None:
        """Commit it."""
        ...

    def rollback(self, connection: Any) -> None:
        """Roll it back; harmless where there is none."""
        ...

    def allow_full_scan(self, connection: Any) -> AbstractContextManager[object]:
        """For a question that neither a key nor an index answers: the block in which it is asked."""
        ...

    def now(self, connection: Any) -> int:
        """The target's clock, in µs since 1970 UTC: all runners of a target share it."""
        ...

    def is_disconnect(self, connection: Any, error: BaseException) -> bool:
        """Whether an error means that this connection is gone, and a new one may do."""
        ...

    def should_yield(self) -> bool:
        """Whether others have waited for this thread's transaction long enough."""
        ...

    def key_condition(self, columns: Sequence[tuple[str, ColumnKind]], count: int) -> str:
        """The condition for `count` keys of these columns, with a `?` for every value."""
        ...

    def has_relation(self, connection: Any, name: str) -> bool:
        """Whether there is a table or view of this name."""
        ...

    def view_columns(self, connection: Any, name: str) -> str:
        """The columns of a table that readers are to see, as SQL."""
        ...

    def count_columns(self, connection: Any, name: str) -> int:
        """How many columns a table has."""
        ...

    def translate_error(self, error: BaseException) -> EventfoldError:
        """The library's error for one of the driver's."""
        ...

    def lock_holder(self) -> str:
        """See Target.lock_holder."""
        ...


Translate = Callable[[BaseException], EventfoldError]


def damaged_text_error(address: str, error: UnicodeDecodeError) -> ProjectionDamaged:
    """The error for text in a database that is no text any more."""
    return ProjectionDamaged(
        f"{address} is damaged: a text of a read model, or of what is kept about it, is no UTF-8 ({error.reason}).",
        "Restore that database from a backup; or give up the read model (eventfold projections remove NAME) and have "
        "it built again from the log.",
        address=address,
    )
