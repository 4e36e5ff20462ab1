"""Values of every type of column: read as JSON, and written back the same; what cannot be is refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventfold.errors import ValueNotExact
from eventfold.migrate.array_text import format_array, parse_array
from eventfold.migrate.connection import Connection
from eventfold.migrate.mapping import ColumnDetail, TableMapping, key_text
from eventfold.migrate.reflection import Column, reflect
from eventfold.migrate.table_codec import TableCodec
from eventfold.migrate.values import codec_of, same_json
from tests.migrate.sources import source
from tests.support.servers import mariadb

# type, the value as SQL, its JSON
POSTGRES: tuple[tuple[str, str, Any], ...] = (
    ("smallint", "-32768", -32768),
    ("bigint", "9007199254740993", 9007199254740993),  # 2^53 + 1
    ("bigint", "-9223372036854775808", -(1 << 63)),
    ("boolean", "true", True),
    ("real", "0.1", 0.1),
    ("real", "16777217", 16777216.0),  # what the column holds
    ("double precision", "'NaN'", "NaN"),
    ("double precision", "'-Infinity'", "-Infinity"),
    ("double precision", "'-0'", -0.0),
    ("double precision", "5e-324", 5e-324),
    ("numeric(10,2)", "1.5", "1.50"),
    ("numeric", "1.5", "1.5"),
    ("numeric", "1.50", "1.50"),
    ("numeric", "'NaN'", "NaN"),
    ("numeric", "12345678901234567890123456789.123456789", "12345678901234567890123456789.123456789"),
    ("char(5)", "'ab'", "ab"),
    ("varchar(10)", "''", ""),
    ("varchar(10)", "'🦊 é'", "🦊 é"),
    ("text", "E'a\\nb\\\\'", "a\nb\\"),
    ("bytea", "'\\x00ff10'", "AP8Q"),
    ("bytea", "''", ""),
    ("date", "'0001-01-01'", "0001-01-01"),
    ("time", "'23:59:59.5'", "23:59:59.500000"),
    ("timestamp", "'2026-03-29 02:30:00.123456'", "2026-03-29T02:30:00.123456"),
    ("timestamp(0)", "'2026-03-29 02:30:00'", "2026-03-29T02:30:00"),
    ("timestamptz", "'2026-03-29 02:30:00.000001+02'", "2026-03-29T00:30:00.000001Z"),
    ("timestamptz", "'9999-12-31 23:59:59.999999Z'", "9999-12-31T23:59:59.999999Z"),
    ("interval", "'1 year 2 months 3 days 04:05:06.5'", "P1Y2M3DT4H5M6.5S"),
    ("interval", "'-1 mon +30 days'", "P-1M30D"),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("mood", "'so so'", "so so"),
    ("inet", "'203.0.113.7/24'", "203.0.113.7/24"),
    ("cidr", "'203.0.113.0/24'", "203.0.113.0/24"),
    ("macaddr", "'08:00:2b:01:02:03'", "08:00:2b:01:02:03"),
    ("int4range", "'[1,5)'", "[1,5)"),
    ("bit(3)", "B'101'", "101"),
    ("xml", "'<a>1</a>'", "<a>1</a>"),
    ("tsvector", "'fat cat'::tsvector", "'cat' 'fat'"),
    ("positive", "7", 7),
    ("jsonb", """'{"a": 1.5, "b": [null, true, "x"], "n": 9007199254740993}'""",
     {"a": 1.5, "b": [None, True, "x"], "n": 9007199254740993}),
    ("json", "'[]'", []),
    ("int[]", "'{1,NULL,3}'", [1, None, 3]),
    ("int[]", "'{}'", []),
    ("int[][]", "'{{1,2},{3,4}}'", [[1, 2], [3, 4]]),
    ("text[]", """ARRAY['a b', '', 'NULL', NULL, 'c"d\\e', '{}', 'ä,🦊']""",
     ["a b", "", "NULL", None, 'c"d\\e', "{}", "ä,🦊"]),
    ("bytea[]", "ARRAY['\\x00ff'::bytea]", ["AP8="]),
    ("boolean[]", "'{t,f,NULL}'", [True, False, None]),
    ("float8[]", "'{1,NaN,-0}'", [1.0, "NaN", -0.0]),
    ("numeric(6,2)[]", "'{1.5}'", ["1.50"]),
    ("timestamptz[]", "ARRAY['2026-03-29 00:30:00+00'::timestamptz]", ["2026-03-29T00:30:00Z"]),
    ("mood[]", "ARRAY['so so'::mood]", ["so so"]),
)  # fmt: skip
MARIADB: tuple[tuple[str, str, Any], ...] = (
    ("bigint unsigned", "18446744073709551615", (1 << 64) - 1),
    ("tinyint(1)", "1", True),
    ("tinyint(4)", "-3", -3),
    ("bit(5)", "b'10101'", 21),
    ("year", "2026", 2026),
    ("decimal(10,2)", "1.5", "1.50"),
    ("decimal(40,10)", "123456789012345678901234567890.0123456789", "123456789012345678901234567890.0123456789"),
    ("double", "0.1", 0.1),
    ("float", "0.1", 0.10000000149011612),
    ("char(5)", "'ab  '", "ab"),
    ("varchar(20)", "'🦊  '", "🦊  "),
    ("varchar(20)", "''", ""),
    ("varbinary(4)", "x'00ff'", "AP8="),
    ("binary(3)", "x'01'", "AQAA"),
    ("date", "'2026-02-28'", "2026-02-28"),
    ("datetime(6)", "'2026-03-29 02:30:00.000001'", "2026-03-29T02:30:00.000001"),
    ("datetime", "'2026-03-29 02:30:00'", "2026-03-29T02:30:00"),
    ("timestamp(3)", "'2026-03-29 02:30:00.120'", "2026-03-29T02:30:00.120000Z"),
    ("time(6)", "'-838:59:59.5'", "-838:59:59.500000"),
    ("enum('a','it''s')", "'it''s'", "it's"),
    ("set('x','y')", "'x,y'", "x,y"),
    ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("inet6", "'::1'", "::1"),
    ("point", "ST_GeomFromText('POINT(1 2)')", "AAAAAAEBAAAAAAAAAAAA8D8AAAAAAAAAQA=="),
    ("longtext", "'a\\nb'", "a\nb"),
)
SQLITE: tuple[tuple[str, str, Any], ...] = (
    ("integer", "9007199254740993", 9007199254740993),
    ("bool", "0", False),
    ("real", "0.1", 0.1),
    ("real", "9e999", "Infinity"),
    ("real", "5", 5.0),
    ("decimal(8,2)", "1.5", "1.50"),
    ("decimal(8,2)", "2", "2.00"),
    ("decimal(8,2)", "1.005", "1.005"),
    ("numeric", "7", "7"),
    ("varchar(5)", "'longer than five'", "longer than five"),
    ("text", "''", ""),
    ("text", "'🦊' || char(0) || 'x'", "🦊\0x"),
    ("blob", "x'00ff'", {"base64": "AP8="}),
    ("", "1.5", 1.5),
    ("", "'1.5'", "1.5"),
    ("date", "'2026-02-28'", "2026-02-28"),
    ("time", "'10:15:00'", "10:15:00"),
    ("datetime", "'2026-03-29 02:30:00.120000'", "2026-03-29T02:30:00.120000"),
    ("datetime", "'2026-03-29 02:30:00'", "2026-03-29T02:30:00"),
)
TABLES = {"postgresql": POSTGRES, "mariadb": MARIADB, "sqlite": SQLITE}
PREPARE = {
    "postgresql": ("CREATE TYPE mood AS ENUM ('sad', 'so so')", "CREATE DOMAIN positive AS int CHECK (VALUE > 0)")
}


@pytest.fixture(params=["sqlite", "postgresql", pytest.param("mariadb", marks=mariadb.needed)])
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connection]:
    """Yield each source in turn."""
    with source(request.param, tmp_path, *PREPARE.get(request.param, ())) as found:
        yield found


def codec_for(connection: Connection, table: str, **columns: ColumnDetail) -> TableCodec:
    """Return the codec of all columns of a table whose key is its first column."""
    found = reflect(connection).table(table)
    names = tuple(each.name for each in found.columns if not each.is_generated)
    mapping = TableMapping(role="entity", key=names[:1], keep=names, columns=columns)
    return TableCodec(connection.dialect, found, mapping)


def test_every_type_is_read_as_its_json_and_written_back_the_same(connection: Connection) -> None:
    """A row with a column of every type, and one of NULLs; a copy that is written from the JSON has the same text."""
    cases = TABLES[connection.dialect]
    columns = ", ".join(f"c{n} {declared}" for n, (declared, _, _) in enumerate(cases))
    for name in ("first", "again"):
        connection.run(f"CREATE TABLE {name} (id int PRIMARY KEY, {columns})".replace("%", "%%"))
    connection.run(f"INSERT INTO first VALUES (1, {', '.join(sql for _, sql, _ in cases)})".replace("%", "%%"))
    connection.run("INSERT INTO first (id) VALUES (2)")
    codec = codec_for(connection, "first")
    rows = connection.rows(f"SELECT {codec.select_list()} FROM first ORDER BY id")
    found, empty = codec.read(rows[0]), codec.read(rows[1])
    read = [(declared, sql, found[f"c{n}"]) for n, (declared, sql, _) in enumerate(cases)]
    assert [(d, s, repr(v)) for d, s, v in read] == [(d, s, repr(v)) for d, s, v in cases]
    assert {empty[f"c{n}"] for n in range(len(cases))} == {None}, "NULL is None, and '' is not"
    assert msgspec.json.decode(msgspec.json.encode(found)) == found
    marks = ", ".join(codec.parameter(name, connection.mark) for name in codec.columns)
    for each in (found, empty):
        through_json = msgspec.json.decode(msgspec.json.encode(each))
        connection.run(f"INSERT INTO again VALUES ({marks})", codec.write(through_json, codec.columns))
    assert repr(connection.rows(f"SELECT {codec.select_list()} FROM again ORDER BY id")) == repr(rows)
    if connection.dialect == "postgresql":  # as its own equality of rows says, and byte for byte
        assert connection.rows("SELECT a::text FROM again a ORDER BY id") == connection.rows(
            "SELECT f::text FROM first f ORDER BY id"
        )
    if connection.dialect == "sqlite":
        kinds = ", ".join(f"typeof(c{n})" for n in range(len(cases)))
        assert connection.rows(f"SELECT {kinds} FROM again") == connection.rows(f"SELECT {kinds} FROM first")


REFUSED = {
    "postgresql": (
        ("timestamptz", "'infinity'", "no moment"),
        ("timestamp", "'0044-03-15 12:00 BC'", "no time"),
        ("date", "'-infinity'", "no date"),
        ("time", "'24:00:00'", "hour"),
        ("jsonb", "'null'", "null and NULL"),
        ("jsonb", "'1e400'", "digits"),
        ("jsonb", "'0.12345678901234567890'", "digits"),
        ("json", """'{"a": 1, "a": 2}'""", "twice"),
        ("int[]", "'[2:3]={1,2}'", "first index"),
    ),
    "mariadb": (
        ("date", "'0000-00-00'", ""),
        ("datetime", "'2026-00-01 00:00:00'", ""),
        ("tinyint(1)", "2", "neither"),
    ),
    "sqlite": (
        ("integer", "'abc'", "no whole number"),
        ("bool", "2", "neither"),
        ("varchar(9)", "x'00'", "no text"),
        ("datetime", "1700000000", "no text"),
        ("datetime", "'2026-03-29T02:30:00'", "form"),
        ("datetime", "'2026-03-29 02:30:00.12'", "form"),
        ("decimal(8,2)", "'n/a'", "no number"),
    ),
}


def test_what_a_kind_cannot_hold_is_refused_by_name_and_the_kind_that_the_message_names_holds_it(
    connection: Connection,
) -> None:
    """The error names table, column and key; as text, or on SQLite as any value, it is read and written back."""
    if connection.dialect == "mariadb":
        connection.run("SET sql_mode = 'ANSI_QUOTES'")  # so that it stores days that do not exist
    for number, (declared, sql, reason) in enumerate(REFUSED[connection.dialect]):
        name = f"t{number}"
        connection.run(f"CREATE TABLE {name} (id int PRIMARY KEY, c {declared})")
        connection.run(f"INSERT INTO {name} VALUES (7, {sql})")
        codec = codec_for(connection, name)
        (row,) = connection.rows(f"SELECT {codec.select_list()} FROM {name}")
        with pytest.raises(ValueNotExact, match=f"The column c of {name} .* in the row id=7: .*{reason}") as refused:
            codec.read(row)
        assert refused.value.fields == {"table": name, "column": "c", "key": "id=7"}
        fallback = ColumnDetail(kind="any" if connection.dialect == "sqlite" else "text")
        codec = codec_for(connection, name, c=fallback)
        (row,) = connection.rows(f"SELECT {codec.select_list()} FROM {name}")
        connection.run(f"DELETE FROM {name}")
        marks = ", ".join(codec.parameter(each, connection.mark) for each in codec.columns)
        connection.run(f"INSERT INTO {name} VALUES ({marks})", codec.write(codec.read(row), codec.columns))
        assert connection.rows(f"SELECT {codec.select_list()} FROM {name}") == [row]


FORMS = (
    ("YYYY-MM-DD hh:mm:ss.ffffff", "2026-03-29 02:30:00.000000", "2026-03-29T02:30:00"),
    ("YYYY-MM-DDThh:mm:ss[.ffffff]Z", "2026-03-29T02:30:00Z", "2026-03-29T02:30:00Z"),
    ("YYYY-MM-DD hh:mm:ss[.ffffff]+00:00", "2026-03-29 02:30:00.000120+00:00", "2026-03-29T02:30:00.000120Z"),
    ("YYYY-MM-DD hh:mm:ss.fff", "2026-03-29 02:30:00.120", "2026-03-29T02:30:00.120000"),
    ("YYYY-MM-DD.hh:mm:ss", "2026-03-29.02:30:00", None),
)


@pytest.mark.parametrize("form, text, moment", FORMS)
def test_times_in_sqlite_are_read_in_the_form_that_the_mapping_names(form: str, text: str, moment: str | None) -> None:
    """Each text is written back as it was; a separator other than a space or T is no form that is known."""
    codec = codec_of("sqlite", Column(name="at", type="datetime"), None, form)
    if moment is None:
        with pytest.raises(ValueError, match="not in the form"):
            codec.to_json(text)
        return
    assert codec.to_json(text) == moment
    assert codec.from_json(moment) == text
    with pytest.raises(ValueError, match="not in the form"):
        codec.to_json(text.replace("-29", "-29 "))


@given(st.lists(st.none() | st.text(), max_size=5))
def test_any_list_of_texts_is_an_array_and_back(values: list[str | None]) -> None:
    """Quotes, braces, commas, NULL as a text, and empty texts are kept apart."""
    assert parse_array(format_array(values, str), str) == values


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3))
def test_decimals_are_equal_by_value_and_scale(value: Decimal) -> None:
    """1.5 is not 1.50, since a column without a scale keeps both."""
    codec = codec_of("postgresql", Column(name="n", type="numeric"))
    text = format(value, "f")
    assert codec.equal(text, text)
    assert codec.equal(text, text + "0") is False


def test_json_is_equal_by_value() -> None:
    """Numbers by value, objects without order; true is not 1, and a missing key is not null."""
    assert same_json({"a": 1, "b": [1.0]}, {"b": [1], "a": 1.0})
    assert not same_json({"a": True}, {"a": 1})
    assert not same_json({"a": None}, {})
    assert not same_json([1, 2], [2, 1])
    assert not same_json(9007199254740993, 9007199254740992.0)


@given(st.lists(st.text() | st.integers() | st.booleans(), min_size=1, max_size=3),
       st.lists(st.text() | st.integers() | st.booleans(), min_size=1, max_size=3))  # fmt: skip
def test_two_keys_of_the_same_columns_have_the_same_text_only_if_they_are_equal(
    some: list[Any], other: list[Any]
) -> None:
    """A slash within a value is not taken for the one between two values, and every text fits into a tag."""
    same_types = list(map(type, some)) == list(map(type, other))
    if same_types:
        assert (key_text(some) == key_text(other)) == (some == other)
    assert len(f"some_rather_long_name_of_a_tag:{key_text(some)}".encode()) <= 255
    assert key_text(some).isprintable()
