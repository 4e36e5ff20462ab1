"""A connection to a source: a SQLite file in a process of its own, or PostgreSQL, MySQL or MariaDB by SQLAlchemy.

Statements are written in the source's own SQL, with `connection.mark` for each parameter. Values come as the driver
gives them; which expression reads a column exactly is in values.py. No error shows a password.

Knows: addresses, drivers, transactions. Does not know: tables, what is asked.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol, cast
from urllib.parse import parse_qsl

from eventfold.engines.addresses import file_path, without_secrets
from eventfold.errors import InvalidInput, MissingExtra, SourceUnavailable

Dialect = Literal["sqlite", "postgresql", "mysql", "mariadb"]
Row = tuple[Any, ...]
SHORTEST_SECRET = 4  # characters; to hide shorter ones would hide half of every text
DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "mysql": "mysql+pymysql"}
DRIVERS["mariadb"] = "mariadb+pymysql"
# What every session is set to, so that the text of a value does not depend on the server's or a role's settings.
# A trigger's function needs the same settings (CREATE FUNCTION … SET …), since it runs in the writer's session.
POSTGRES_SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "xmloption": "content",
}
MYSQL_SETTINGS = "SET time_zone = '+00:00', sql_mode = CONCAT(@@sql_mode, ',ANSI_QUOTES,PIPES_AS_CONCAT')"


class Connection(Protocol):
    """A connection to a source. It is used by one thread at a time.

    `mark` stands for a parameter in a statement: `?`, or `%s`; with the latter a per cent sign is always written `%%`.
    """

    dialect: Dialect
    mark: str
    address: str  # as it may be shown

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Run a statement and return all its rows. Raises SourceUnavailable, with the database's own message."""
        ...

    def pages(self, sql: str, parameters: Sequence[Any] = (), size: int = 2000) -> Iterator[list[Row]]:
        """Run a query and yield its rows in pages, without holding all of them."""
        ...

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement that returns no rows, and return how many rows it changed."""
        ...

    def run_many(self, sql: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each tuple of parameters."""
        ...

    def begin(self, snapshot: bool = False) -> None:
        """Begin a transaction; with `snapshot` one that only reads, and sees one state throughout."""
        ...

    def commit(self) -> None:
        """Commit the transaction."""
        ...

    def rollback(self) -> None:
        """Roll the transaction back; without one nothing is done."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


def connect(address: str, readonly: bool = True) -> Connection:
    """Open a source by its address: a path or sqlite:PATH, or a URL of SQLAlchemy for PostgreSQL, MySQL or MariaDB.

    Raises InvalidInput for other addresses, SourceUnavailable, MissingExtra.
    """
    scheme, colon, rest = address.partition(":")
    if not colon or scheme in ("sqlite", "file") or "/" in scheme:
        from eventfold.migrate.sqlite_connection import SqliteConnection

        path = file_path(rest, scheme, address) if colon and scheme in ("sqlite", "file") else address
        return SqliteConnection(path, readonly)
    if scheme.partition("+")[0] in DRIVERS:
        return ServerConnection(address, readonly)
    raise InvalidInput(
        f"{without_secrets(address)} is no source.",
        "Give the path of a SQLite file, or an address that begins with postgresql://, mysql:// or mariadb://.",
    )


@contextmanager
def opened(address: str, readonly: bool = True) -> Generator[Connection]:
    """Open a source for the block."""
    connection = connect(address, readonly)
    try:
        yield connection
    finally:
        connection.close()


def has_table(connection: Connection, name: str) -> bool:
    """Whether there is a table of this name where unqualified names are looked up."""
    match connection.dialect:
        case "sqlite":
            return bool(connection.rows("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?", [name]))
        case "postgresql":
            return connection.rows("SELECT to_regclass(%s) IS NOT NULL", [quoted(name)])[0][0] is True
        case _:
            statement = "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = %s"
            return bool(connection.rows(statement, [name]))


def quoted(name: str) -> str:
    """Return a name as an identifier of SQL; `schema.table` is two. Sessions on MySQL are set to ANSI_QUOTES."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


def shown(address: str) -> str:
    """Return an address as it may be shown: without a password, and without what follows a question mark."""
    path, mark, _ = without_secrets(address).partition("?")
    return f"{path}?…" if mark else path


class ServerConnection:
    """A connection by SQLAlchemy's driver layer: statements pass to the driver as they are."""

    mark = "%s"

    def __init__(self, address: str, readonly: bool) -> None:
        self.address = shown(address)
        self._secrets = _secrets_of(address)
        self._in_transaction = False
        scheme, _, rest = address.partition("://")
        try:
            import sqlalchemy
            import sqlalchemy.exc
        except ModuleNotFoundError as error:
            raise MissingExtra(
                "Sources need the package sqlalchemy, which is not installed.",
                "Install the extra: pip install 'eventfold[migrate]'",
                extra="migrate",
            ) from error
        self._sa = cast("Any", sqlalchemy)
        self._errors: Any = sqlalchemy.exc.SQLAlchemyError
        try:
            self._engine = self._sa.create_engine(
                f"{DRIVERS.get(scheme, scheme)}://{rest}", poolclass=self._sa.NullPool
            )
        except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError, ValueError):  # ValueError: of the port
            raise InvalidInput(
                f"SQLAlchemy does not know {self.address}.", "Write DIALECT+DRIVER://USER@HOST/DATABASE."
            ) from None
        except ModuleNotFoundError as error:
            raise MissingExtra(
                f"{self.address} needs the driver {error.name!r}, which is not installed.",
                "Install it.",
                extra="migrate",
            ) from None
        with self._translated():
            self._connection = self._engine.connect()
        self.dialect: Dialect = self._engine.dialect.name
        if getattr(self._engine.dialect, "is_mariadb", False):
            self.dialect = "mariadb"
        self._set_up(readonly)

    def _set_up(self, readonly: bool) -> None:
        with self._translated():
            self._connection = self._connection.execution_options(isolation_level="AUTOCOMMIT")
        if self.dialect == "postgresql":
            names = [f"set_config('{name}', '{value}', false)" for name, value in POSTGRES_SETTINGS.items()]
            self.rows(f"SELECT {', '.join(names)}")  # noqa: S608 - constants
            if readonly:
                self.run("SET default_transaction_read_only = on")
        else:
            self.run(MYSQL_SETTINGS)
            if readonly:
                self.run("SET SESSION TRANSACTION READ ONLY")

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Run a statement and return all its rows."""
        with self._translated():
            result = self._connection.exec_driver_sql(sql, tuple(parameters) or None)
            return [tuple(row) for row in result] if result.returns_rows else []

    def pages(self, sql: str, parameters: Sequence[Any] = (), size: int = 2000) -> Iterator[list[Row]]:
        """Run a query and yield its rows in pages, by a cursor of the server, which needs a transaction."""
        has_own = not self._in_transaction
        if has_own:
            self.begin(snapshot=True)
        try:
            with self._translated():
                streaming = {"stream_results": True, "max_row_buffer": size}
                result = self._connection.exec_driver_sql(sql, tuple(parameters) or None, execution_options=streaming)
                try:
                    while page := result.fetchmany(size):
                        yield [tuple(row) for row in page]
                finally:
                    result.close()
        finally:
            if has_own:
                self.rollback()

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement that returns no rows, and return how many rows it changed."""
        with self._translated():
            return self._connection.exec_driver_sql(sql, tuple(parameters) or None).rowcount

    def run_many(self, sql: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each tuple of parameters."""
        if parameters:
            with self._translated():
                self._connection.exec_driver_sql(sql, [tuple(each) for each in parameters])

    def begin(self, snapshot: bool = False) -> None:
        """Begin a transaction. The session is in autocommit mode, so that BEGIN is a statement."""
        self._in_transaction = True
        if self.dialect == "postgresql":
            self.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if snapshot else "BEGIN")
            return
        if snapshot:
            self.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        self.run("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY" if snapshot else "START TRANSACTION")

    def commit(self) -> None:
        """Commit the transaction."""
        self._in_transaction = False
        self.run("COMMIT")

    def rollback(self) -> None:
        """Roll the transaction back."""
        self._in_transaction = False
        self.run("ROLLBACK")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
        self._engine.dispose()

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except self._errors as error:
            raise unavailable(self.address, getattr(error, "orig", None) or error, self._secrets) from None


def _secrets_of(address: str) -> list[str]:
    """Return the password of an address and the values of its parameters, which no message may show."""
    from urllib.parse import unquote, urlsplit

    try:
        password = urlsplit(address).password
    except ValueError:
        password = None
    found = [value for _, value in parse_qsl(address.partition("?")[2])]
    return found + ([password, unquote(password)] if password else [])


def unavailable(where: str, error: object, secrets: Sequence[str] = ()) -> SourceUnavailable:
    """Return the error for a source that refused a statement. It shows none of the secrets."""
    arguments: tuple[Any, ...] = getattr(error, "args", ())
    numbered = len(arguments) == 2 and isinstance(arguments[0], int)  # MySQL's errors are a number and a text
    text = str(arguments[1] if numbered else error)
    why = without_secrets((text.strip().splitlines() or [type(error).__name__])[0]).rstrip(".")
    for secret in sorted({each for each in secrets if len(each) >= SHORTEST_SECRET}, key=len, reverse=True):
        why = why.replace(secret, "…")
    state = getattr(error, "sqlstate", None) or (arguments[0] if numbered else None)
    return SourceUnavailable(
        f"{where} cannot be read: {why}.",
        "Check the address and the rights, and try again.",
        source=where,
        state=state,
    )
