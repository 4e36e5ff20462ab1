"""Kinds of columns as SQLAlchemy types: a value is read back exactly as it was written, or writing it is refused.

Text is compared byte by byte (a key "A" is not a key "a"), decimals keep every digit, moments are UTC.
Knows: how databases store values of each kind. Does not know: tables, statements.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, cast
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import mssql, mysql
from sqlalchemy.types import TypeDecorator, TypeEngine

from eventfold.core.table import ColumnKind
from eventfold.core.value_order import canonical
from eventfold.targets.sql.nul_escaping import escape, unescape

KEY_CHARS = 255  # maximum for a text in a key or an index, on databases that require a maximum
MYSQL_KEY_CHARS = 760  # maximum for all texts of one key together: InnoDB allows 3,072 bytes, a character needs up to 4
MSSQL_KEY_CHARS = 440
DECIMAL_PRECISION = {"mysql": (65, 30), "mariadb": (65, 30)}  # digits in all, digits after the point
DEFAULT_DECIMAL_PRECISION = (38, 12)
LONG_TEXT_BYTES = 1 << 24

Convert = Callable[[Any], Any]


class ExactType(TypeDecorator[Any]):
    """The type of a kind of column.

    `keyed`: the greatest number of text columns in a key or an index of its table; 0 if the column is in none.
    """

    impl = sa.Text
    cache_ok = True

    def __init__(self, kind: ColumnKind, keyed: int = 0) -> None:
        super().__init__()
        self.kind: ColumnKind = kind
        self.keyed = keyed

    def load_dialect_impl(self, dialect: sa.Dialect) -> TypeEngine[Any]:
        """Return the database's own type."""
        match dialect.name:
            case "sqlite":
                own_type = _sqlite(self.kind)
            case "postgresql":
                own_type = _postgres(self.kind)
            case "mysql" | "mariadb":
                own_type = _mysql(self.kind, self.keyed, _collation(dialect))
            case "mssql":
                own_type = _mssql(self.kind, self.keyed)
            case _:
                own_type = _other(self.kind, self.keyed)
        return dialect.type_descriptor(own_type)

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:
        """Convert a value for the database. Raises ValueError if it cannot be stored exactly."""
        if value is None:
            return None
        if isinstance(value, Enum):  # of an application's query: psycopg would send its name
            value = value.value
        match self.kind, dialect.name:
            case "text", "postgresql":
                return escape(value) if isinstance(value, str) else value
            case _, "postgresql":
                return value
            case "decimal", "sqlite":
                return str(canonical(value) if self.keyed else value)  # equal decimals are one key: 1.0 and 1.00
            case "decimal", name:
                return _check_decimal(value, *DECIMAL_PRECISION.get(name, DEFAULT_DECIMAL_PRECISION))
            case "moment", name:
                moment = _utc(value)
                return moment.isoformat() if name == "sqlite" else moment.replace(tzinfo=None)
            case "date", "sqlite":
                return value.isoformat()
            case "uuid", _:
                return str(value)
            case _:
                return value

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:
        """Convert a value of the database to Python's type."""
        if value is None:
            return "" if self.kind == "text" and self.keyed < 0 else None
        match self.kind:
            case "bool":
                return bool(value)
            case "text" if dialect.name == "postgresql":
                return unescape(value)
            case "decimal":
                if isinstance(value, str):
                    return Decimal(value)
                return value if dialect.name == "postgresql" else _strip_zeros(value)
            case "moment":
                return _utc(datetime.fromisoformat(value) if isinstance(value, str) else value)
            case "date":
                return date.fromisoformat(value) if isinstance(value, str) else value
            case "uuid":
                return value if isinstance(value, UUID) else UUID(value)
            case "bytes":
                return bytes(value)
            case _:
                return value


def non_null_text(keyed: int = -1) -> ExactType:
    """The type of text that is read as "" where the database has NULL: Oracle stores the empty text as NULL."""
    return ExactType("text", keyed)


def _utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _check_decimal(value: Any, digits: int, scale: int) -> Any:
    if not isinstance(value, Decimal):
        raise ValueError(f"{value!r} is not a Decimal")
    if not value.is_finite():
        raise ValueError(f"{value} cannot be stored in a decimal column")
    shortest = value.normalize() if len(value.as_tuple().digits) <= 28 else value
    exponent = cast("int", shortest.as_tuple().exponent)
    if value and (-exponent > scale or shortest.adjusted() >= digits - scale):
        raise ValueError(f"{value} has more than {digits - scale} digits before or {scale} after the point")
    return value


def _strip_zeros(value: Decimal) -> Decimal:
    """Remove the trailing zeros that the column's fixed scale added."""
    text = f"{value:f}"
    return Decimal(text.rstrip("0").rstrip(".") if "." in text else text)


def _sqlite(kind: ColumnKind) -> TypeEngine[Any]:
    match kind:
        case "int" | "bool":
            return sa.INTEGER()
        case "float":
            return sa.REAL()
        case "bytes":
            return sa.BLOB()
        case _:
            return sa.TEXT()


def _postgres(kind: ColumnKind) -> TypeEngine[Any]:
    match kind:
        case "bytes":
            return sa.LargeBinary()
        case "decimal":
            return sa.Numeric()
        case "moment":
            return sa.TIMESTAMP(timezone=True)
        case "uuid":
            return sa.Uuid()
        case "text":
            return sa.Text(collation="C")  # sorted by code point
        case "json":
            return sa.Text()
        case _:
            return _common(kind)


def _common(kind: ColumnKind) -> TypeEngine[Any]:
    match kind:
        case "int":
            return sa.BigInteger()
        case "float":
            return sa.Double()
        case "bool":
            return sa.Boolean()
        case "date":
            return sa.Date()
        case "uuid":
            return sa.CHAR(36)
        case _:
            return sa.Text(LONG_TEXT_BYTES)


def _collation(dialect: sa.Dialect) -> str:
    """The collation in which different texts are never equal, not even if only trailing blanks differ."""
    return "utf8mb4_nopad_bin" if getattr(dialect, "is_mariadb", False) else "utf8mb4_0900_bin"


def _mysql(kind: ColumnKind, keyed: int, collation: str) -> TypeEngine[Any]:
    size = min(KEY_CHARS, MYSQL_KEY_CHARS // keyed) if keyed > 0 else 0
    match kind:
        case "text" if size:
            return mysql.VARCHAR(size, charset="utf8mb4", collation=collation)
        case "text" | "json":
            return mysql.LONGTEXT(charset="utf8mb4", collation=collation)
        case "bytes":
            return mysql.VARBINARY(size) if size else mysql.LONGBLOB()
        case "decimal":
            return mysql.DECIMAL(*DECIMAL_PRECISION["mysql"])
        case "moment":
            return mysql.DATETIME(fsp=6)
        case "float":
            return mysql.DOUBLE(asdecimal=False)
        case _:
            return _common(kind)


def _mssql(kind: ColumnKind, keyed: int) -> TypeEngine[Any]:
    size = min(KEY_CHARS, MSSQL_KEY_CHARS // keyed) if keyed > 0 else None
    match kind:
        case "text" | "json":
            return mssql.NVARCHAR(size, collation="Latin1_General_100_BIN2")
        case "bytes":
            return mssql.VARBINARY(size or "max")
        case "decimal":
            return mssql.DECIMAL(*DEFAULT_DECIMAL_PRECISION)
        case "moment":
            return mssql.DATETIME2(6)
        case _:
            return _common(kind)


def _other(kind: ColumnKind, keyed: int) -> TypeEngine[Any]:
    match kind:
        case "text" if keyed > 0:
            return sa.String(KEY_CHARS)
        case "bytes":
            return sa.LargeBinary(LONG_TEXT_BYTES)
        case "decimal":
            return sa.Numeric(*DEFAULT_DECIMAL_PRECISION)
        case "moment":
            return sa.TIMESTAMP()
        case _:
            return _common(kind)
