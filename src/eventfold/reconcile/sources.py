"""Rows of a system outside: CSV, Parquet, a database by SQLAlchemy, or an HTTP endpoint (json_source.py).

Knows: formats and their packages. Does not know: what is compared.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from eventfold.engines.addresses import without_secrets
from eventfold.errors import InvalidInput, MissingExtra, SourceUnavailable
from eventfold.reconcile.measures import Theirs

Row = Mapping[str, Any]
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
        return _csv_rows(path)
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


def _csv_rows(path: Path) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=DELIMITERS[path.suffix.lower()])
            for row in reader:
                if None in row or None in row.values():
                    raise InvalidInput(
                        f"Line {reader.line_num} of {path} has more or fewer values than the first line.",
                        "Correct the file.",
                    )
                yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
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
        raise InvalidInput("A database needs a table or a query.", "Give one of them: table=…, or query='SELECT …'.")
    try:
        import sqlalchemy
        import sqlalchemy.exc
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "Databases need the package sqlalchemy, which is not installed.",
            "Install the extra: pip install 'eventfold[sqlalchemy]'",
            extra="sqlalchemy",
        ) from error
    where, sa = without_secrets(theirs.address), cast("Any", sqlalchemy)  # its types are of no use here
    try:
        engine = sa.create_engine(theirs.address, poolclass=sa.NullPool)
    except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError) as error:
        raise InvalidInput(
            f"SQLAlchemy does not know {where}.", "Write DIALECT+DRIVER://USER@HOST/DATABASE."
        ) from error
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
        raise unreadable(where, getattr(error, "orig", None) or error) from None
    finally:
        engine.dispose()


def unreadable(where: str, error: object) -> SourceUnavailable:
    """Return the error for a source that cannot be read."""
    why = str(error).strip().splitlines()
    return SourceUnavailable(
        f"{where} cannot be read: {without_secrets(why[0]) if why else type(error).__name__}.",
        "Check the address and the rights, and try again.",
        source=where,
    )
