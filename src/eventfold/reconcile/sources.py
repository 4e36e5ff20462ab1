"""Rows of a system outside: CSV, Parquet, a database by SQLAlchemy, or an HTTP endpoint (json_source.py).

Knows: formats and their packages. Does not know: what is compared.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl

from eventfold.engines.addresses import without_secrets
from eventfold.errors import InvalidInput, MissingExtra, SourceUnavailable
from eventfold.reconcile.measures import Theirs

Row = Mapping[str, Any]
SHORTEST_SECRET = 4  # characters; to hide shorter ones would hide half of every text
DELIMITERS = {".csv": ",", ".tsv": "\t"}


def rows_of(theirs: Theirs) -> Iterator[Row]:
    """Yield the rows. Raises InvalidInput, also for a column that they do not have, SourceUnavailable, MissingExtra."""
    columns = [each for each in (theirs.key, theirs.sum, theirs.count, theirs.time) if each is not None]
    for number, row in enumerate(_rows(theirs)):
        if not number:
            _check_columns(row, columns)
        yield row


def _rows(theirs: Theirs) -> Iterator[Row]:
    scheme, _, _ = theirs.address.partition("://")
    if scheme in ("http", "https"):
        from eventfold.reconcile.json_source import json_rows  # here: modules of HTTP take long to import

        return json_rows(theirs)
    if scheme != theirs.address:
        return _database_rows(theirs)
    if theirs.table or theirs.query:
        raise InvalidInput("A table or a query was given, and the source is a file.", "Leave it away.")
    path = Path(theirs.address)
    if path.suffix.lower() in DELIMITERS:
        return _csv_rows(path, [each for each in (theirs.key, theirs.sum, theirs.count, theirs.time) if each])
    if path.suffix.lower() in (".parquet", ".pq"):
        return _parquet_rows(path)
    raise InvalidInput(
        f"{theirs.address!r} is no source.",
        "Give a file that ends in .csv, .tsv or .parquet, an address that begins with http:// or https://, or a URL of "
        "SQLAlchemy, such as postgresql://….",
    )


def _check_columns(row: Row, columns: list[str]) -> None:
    missing = [each for each in columns if each not in row]
    if missing:
        raise InvalidInput(
            f"The rows outside have no {missing[0]}.", f"They have: {', '.join(map(str, list(row)[:20]))}."
        )


def _csv_rows(path: Path, columns: list[str]) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=DELIMITERS[path.suffix.lower()])
            names = list(reader.fieldnames or ())
            if not names:
                raise InvalidInput(f"{path} is empty: it has no line with names.", "Write it again.")
            _check_columns(dict.fromkeys(names), columns)
            if twice := [each for each in columns if names.count(each) > 1]:
                raise InvalidInput(f"{path} has two columns {twice[0]}.", "Rename one of them.")
            for row in reader:
                if None in row or None in row.values():
                    raise InvalidInput(
                        f"Line {reader.line_num} of {path} has more or fewer values than the first line.",
                        "Correct the file.",
                    )
                yield row
    except UnicodeDecodeError as error:
        raise SourceUnavailable(
            f"{path} is not UTF-8: {error.reason} at byte {error.start:,}.", "Save it as UTF-8.", source=str(path)
        ) from error
    except (OSError, csv.Error) as error:
        raise unreadable(str(path), error) from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs]
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "Parquet files need the package pyarrow, which is not installed.",
            "Install the extra: pip install 'eventfold[arrow]'",
            extra="arrow",
        ) from error
    try:
        with cast("Any", parquet).ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise unreadable(str(path), error) from error


def _database_rows(theirs: Theirs) -> Iterator[Row]:
    if (theirs.table is None) == (theirs.query is None):
        raise InvalidInput(
            "A database needs a table or a query.", "Give one of them: --source-table NAME, or --query 'SELECT …'."
        )
    try:
        import sqlalchemy
        import sqlalchemy.exc
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "Databases need the package sqlalchemy, which is not installed.",
            "Install the extra: pip install 'eventfold[sqlalchemy]'",
            extra="sqlalchemy",
        ) from error
    where, sa = shown(theirs.address), cast("Any", sqlalchemy)  # its types are of no use here
    try:
        engine = sa.create_engine(theirs.address, poolclass=sa.NullPool)
    except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError, ValueError):  # ValueError: of the port
        raise InvalidInput(f"SQLAlchemy does not know {where}.", "Write DIALECT+DRIVER://USER@HOST/DATABASE.") from None
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"{where} needs the driver {error.name!r}, which is not installed.", "Install it.", extra="sqlalchemy"
        ) from error
    names = [each for each in (theirs.key, theirs.sum, theirs.count, theirs.time) if each is not None]
    try:
        with engine.connect().execution_options(stream_results=True) as connection:
            if theirs.query is not None:
                asked: Any = sa.text(theirs.query)
            else:
                schema, _, name = (theirs.table or "").rpartition(".")
                columns = [sa.column(each) for each in dict.fromkeys(names)]
                asked = sa.select(*columns).select_from(sa.table(name, schema=schema or None))
            for row in connection.execute(asked).mappings():
                yield dict(row)
    except sqlalchemy.exc.SQLAlchemyError as error:
        secrets = [value for _, value in parse_qsl(theirs.address.partition("?")[2])]
        raise unreadable(where, getattr(error, "orig", None) or error, secrets) from None
    finally:
        engine.dispose()


def shown(address: str) -> str:
    """Return an address as it may be shown: without a password, and without what follows a question mark."""
    if "://" not in address:
        return address
    path, mark, _ = without_secrets(address).partition("?")
    return f"{path}?…" if mark else path


def unreadable(where: str, error: object, secrets: Iterable[str] = ()) -> SourceUnavailable:
    """Return the error for a source that cannot be read. It shows none of the secrets."""
    why = without_secrets((str(error).strip().splitlines() or [type(error).__name__])[0])
    for secret in sorted({each for each in secrets if len(each) >= SHORTEST_SECRET}, key=len, reverse=True):
        why = why.replace(secret, "…")
    return SourceUnavailable(
        f"{where} cannot be read: {why}.",
        "Check the address and the rights, and try again.",
        source=where,
    )
