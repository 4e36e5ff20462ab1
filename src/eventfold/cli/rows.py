"""`eventfold rows`: the rows of a read model by filter, order and page; of its table, or as of a moment.

Knows: parameters, tables. Does not know: the filter language (search does), how rows are found.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Annotated, Any, cast

import msgspec
import typer

from eventfold.cli.formatting import format_value
from eventfold.cli.options import Json, OccurredUntil, Target, Url, Wide, parse_until
from eventfold.cli.output import COLUMN_GAP, Column, Output
from eventfold.cli.projections import Generation, Name, open_projection
from eventfold.cli.state import ImportPath
from eventfold.concurrency import run
from eventfold.core.json_values import to_json_value
from eventfold.core.moments import parse_position_or_time
from eventfold.errors import InvalidFilter
from eventfold.projections.classes import Projection
from eventfold.projections.fields import fields_of
from eventfold.projections.view import view
from eventfold.search import filter_of_text
from eventfold.selection import Rows
from eventfold.selection.check import TableFields
from eventfold.selection.source import Explanation

TABLE_ROWS = 50  # rows of a table, unless --limit is given

Wheres = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="FILTER",
        help="Such as 'total > 5 owner:ann,bob -has:closed'. Repeated: all of them.",
        rich_help_panel="Which",
    ),
]
Orders = Annotated[
    list[str] | None,
    typer.Option(
        "--order",
        metavar="COLUMN",
        help="Sort by it; -COLUMN: descending. Repeated: by several.",
        rich_help_panel="Which",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit",
        metavar="N",
        min=1,
        help="Rows at most. Default: all as JSON, 50 as a table.",
        rich_help_panel="Which",
    ),
]
AfterCursor = Annotated[
    str | None,
    typer.Option("--after", metavar="CURSOR", help="Continue after an earlier page.", rich_help_panel="Which"),
]
At = Annotated[
    str | None,
    typer.Option(
        "--at", metavar="POSITION|TIME", help="The rows at that point, folded from the log.", rich_help_panel="Which"
    ),
]


def rows(
    url: Url = None,
    name: Name = None,
    where: Wheres = None,
    order: Orders = None,
    limit: Limit = None,
    after: AfterCursor = None,
    count: Annotated[bool, typer.Option("--count", help="Print the number of rows only.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Print how the rows are found only.")] = False,
    at: At = None,
    occurred_until: OccurredUntil = None,
    generation: Generation = None,
    import_path: ImportPath = ".",
    target: Target = None,
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """Show rows of a read model, by filter, order and page.

    A filter compares columns: total>5, owner=ann, owner:ann,bob (any), owner:an* (a prefix), total:5..10 (inclusive),
    has:closed, closed=null. Blanks mean and; OR, NOT, - before one, and parentheses combine them. The cursor of the
    next page is printed after the rows (of JSON, to standard error).
    """
    output = Output(as_json, wide)
    is_folded = at is not None or occurred_until is not None
    if is_folded and generation is not None:
        option = "--occurred-until" if at is None else "--at"
        raise typer.BadParameter(f"{option} folds the rows from the log. Omit --generation.", param_hint=option)
    occurred_by = parse_until(occurred_until)
    with open_projection(url, name, import_path, target) as (admin, named):
        definition = admin.catalog.definition_of(named)
        model = cast("type[Projection]", definition.cls)
        fields = fields_of(definition)
        refuse_order(order or (), fields)
        filters = [filter_of_text(text, fields) for text in where or ()]
        if is_folded:
            place = None if at is None else parse_position_or_time(at)
            selection = run(view(admin.log, model, place, None, occurred_by)).select(*filters, order=order or ())
        else:
            selection = admin.select(model, filters, {}, order or (), generation)
        if count:
            print_count(output, selection.count())
        elif explain:
            print_explanation(output, None if is_folded else selection.explain())
        elif output.is_json and limit is None and after is None:
            for page in selection.pages():
                output.write_lines(map(row_as_json, page))
        else:
            size = limit or (None if output.is_json else TABLE_ROWS)
            with after_as_option():
                page = selection.rows(size, after)
            print_page(output, fields.table.fields, page)


def refuse_order(order: Sequence[str], fields: TableFields) -> None:
    """Raise InvalidFilter, in terms of the option, if a value of --order is no column."""
    for each in order:
        if each.removeprefix("-") in fields.columns:
            continue
        several = [name.strip() for name in each.split(",")]
        raise InvalidFilter(
            f"--order {each} names no column of {fields.name}.",
            f"Repeat the option: {' '.join(f'--order={name}' for name in several)}."
            if len(several) > 1
            else f"Its columns are {', '.join(fields.columns)}; descending: --order=-{fields.table.fields[0]}.",
        )


@contextmanager
def after_as_option() -> Generator[None]:
    """Let an error about a cursor name the option --after instead of the argument."""
    try:
        yield
    except InvalidFilter as error:
        what, remedy = error.what.replace("after=", "--after ", 1), error.remedy
        if "cursor" in what:
            remedy = "Give the cursor that is printed after a page of the same command; or omit --after."
        raise InvalidFilter(what, remedy, **error.fields) from None


def print_count(output: Output, number: int) -> None:
    """Print a number of rows."""
    if output.is_json:
        output.write_value({"count": number})
    else:
        output.write_text(f"{number:,}")


def row_as_json(row: Any) -> bytes:
    """A row as a line of JSON."""
    return msgspec.json.encode(to_json_value(row))


def print_explanation(output: Output, explanation: Explanation | None) -> None:
    """Print an explanation, as JSON or as lines. None: the rows are folded from the log, so no index is used."""
    if output.is_json:
        output.write_value(explanation or Explanation(None))
    else:
        output.write_text(
            f"{explanation or 'no index serves it: the rows are folded from the log and compared in memory'}"
        )


def print_page(output: Output, columns: Iterable[str], page: Rows[Any]) -> None:
    """Print a page of rows, and the cursor of the next one."""
    if output.is_json:
        output.write_lines(map(row_as_json, page))
        if page.next is not None:
            typer.echo(f"--after {page.next}", err=True)
        return
    names = list(columns)
    shown = [[_cell(getattr(row, each)) for each in names] for row in page]
    table = [Column(each, elastic=True) for each in names]
    least = sum(each.min_width for each in table) + COLUMN_GAP * (len(table) - 1)
    if least > output.console.width and not output.is_wide:
        print_records(output, names, shown)
    else:
        output.print_table(table, shown)
    if page.next is not None:
        output.write_text(f"--after {page.next}")


def _cell(value: Any) -> str:
    """A value of a table: nothing for a missing one, the value of an enum's member."""
    return "" if value is None else format_value(value.value if isinstance(value, Enum) else value)


def print_records(output: Output, names: list[str], rows: list[list[str]]) -> None:
    """Print rows of too many columns for a table: a line for each value, a blank line between rows."""
    width = max(map(len, names))
    for number, row in enumerate(rows):
        if number:
            output.write_text("")
        for name, value in zip(names, row, strict=True):
            output.write_text(f"{name:<{width}}  {value}".rstrip())
