"""`eventfold reconcile`: counts and sums of events, compared with a system outside.

Knows: parameters, the table of differences, exit codes, how often it is repeated. Does not know: how a side is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import msgspec
import typer

from eventfold.cli.exit_codes import DIFFERENT, print_error, print_note
from eventfold.cli.formatting import escape_control
from eventfold.cli.options import Json, Url, Wide, open_store, parse_since, split_store_argument
from eventfold.cli.output import Column, Output
from eventfold.core.moments import AGO_PATTERN, AGO_UNITS
from eventfold.errors import InvalidInput, SourceUnavailable, StoreUnavailable
from eventfold.reconcile import Difference, Ours, Result, Theirs, recorded
from eventfold.reconcile import reconcile as compare
from eventfold.reconcile.measures import FORMATS
from eventfold.reconcile.sources import shown

HERE, OUTSIDE = "Events", "Outside"


Source = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SOURCE",
        help="A file (.csv, .tsv, .parquet), http://… or https://… with JSON, or a URL of SQLAlchemy.",
        show_default=False,
    ),
]
Key = Annotated[
    str, typer.Option("--key", metavar="KEY", help="The key of a tag, or data.FIELD.", rich_help_panel=HERE)
]
Filter = Annotated[
    str, typer.Option("--filter", metavar="FILTER", help="Which events, as for find.", rich_help_panel=HERE)
]
Sum = Annotated[
    str | None, typer.Option("--sum", metavar="data.FIELD", help="A number to add up.", rich_help_panel=HERE)
]
By = Annotated[str | None, typer.Option("--by", metavar="PERIOD", help="hour, day or month.", rich_help_panel=HERE)]
Zone = Annotated[str, typer.Option("--zone", metavar="ZONE", help="Time zone of periods.", rich_help_panel=HERE)]
ByRecorded = Annotated[bool, typer.Option("--recorded", help="Go by the time of recording.", rich_help_panel=HERE)]
Since = Annotated[str | None, typer.Option("--since", metavar="TIME", help="This time or later.", rich_help_panel=HERE)]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before this time.", rich_help_panel=HERE)]
TheirKey = Annotated[
    str | None,
    typer.Option("--source-key", metavar="COLUMN", help="Default: that of --key.", rich_help_panel=OUTSIDE),
]
TheirSum = Annotated[
    str | None,
    typer.Option("--source-sum", metavar="COLUMN", help="Default: that of --sum.", rich_help_panel=OUTSIDE),
]
TheirCount = Annotated[
    str | None,
    typer.Option(
        "--source-count", metavar="COLUMN", help="How many a row stands for. Default: 1.", rich_help_panel=OUTSIDE
    ),
]
TheirTime = Annotated[
    str | None, typer.Option("--source-time", metavar="COLUMN", help="Its time.", rich_help_panel=OUTSIDE)
]
Table = Annotated[
    str | None, typer.Option("--source-table", metavar="NAME", help="Of a database.", rich_help_panel=OUTSIDE)
]
Query = Annotated[str | None, typer.Option("--query", metavar="SELECT", help="Of a database.", rich_help_panel=OUTSIDE)]
Items = Annotated[
    str, typer.Option("--items", metavar="PATH", help="Where the list is in JSON.", rich_help_panel=OUTSIDE)
]
Header = Annotated[
    list[str] | None,
    typer.Option("--header", metavar="NAME:VALUE", help="Of the request. Repeatable.", rich_help_panel=OUTSIDE),
]
Limit = Annotated[int, typer.Option("--limit", min=0, metavar="N", help="Show at most N differences.")]
Record = Annotated[
    str | None,
    typer.Option("--record", metavar="NAME", help="Keep the result in the log, for the alert not_reconciled."),
]
Every = Annotated[str | None, typer.Option("--every", metavar="TIME", help="Repeat, such as 10m, until it is ended.")]


def reconcile(
    url: Url = None,
    source: Source = None,
    key: Key = "",
    filter: Filter = "",
    sum: Sum = None,
    by: By = None,
    zone: Zone = "UTC",
    by_recorded: ByRecorded = False,
    since: Since = None,
    until: Until = None,
    their_key: TheirKey = None,
    their_sum: TheirSum = None,
    their_count: TheirCount = None,
    their_time: TheirTime = None,
    table: Table = None,
    query: Query = None,
    items: Items = "",
    header: Header = None,
    limit: Limit = 20,
    record: Record = None,
    every: Every = None,
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """Compare events with a system outside, by key and perhaps by period: counts, and sums.

    Exits 8 if they differ, and names the keys that differ, the largest difference first, with both values and the
    positions of the events. Values are compared exactly. Events that are not outside yet can be left out: --until 5m
    --source-time COLUMN compares what happened until five minutes ago.
    """
    output = Output(as_json, wide)
    url, address = _sides(url, source or [], key)
    theirs = Theirs(
        address=address,
        key=their_key or key.rpartition(".")[2],
        sum=their_sum or (sum.rpartition(".")[2] if sum is not None else None),
        count=their_count,
        time=their_time,
        table=table,
        query=query,
        items=items,
        headers=dict(map(_header, header or ())),
    )
    clock: Literal["recorded", "occurred"] = "recorded" if by_recorded else "occurred"
    ours = Ours(filter=filter, key=key, sum=sum, by=_period(by), zone=_zone(zone), time=clock)
    pause = None if every is None else _seconds(every)
    with open_store(url) as store:

        def once() -> Result:  # bounds such as 5m are counted from now, each time
            now = msgspec.structs.replace(ours, since=parse_since(since), until=parse_since(until))
            return compare(store, now, theirs, limit=limit)

        _compare(output, theirs, once if record is None else lambda: recorded(store, record, once), pause)


def _compare(output: Output, theirs: Theirs, step: Callable[[], Result], pause: float | None) -> None:
    if pause is not None:
        _repeat(output, step, pause)
    result = step()
    _print(output, result, theirs)
    if not result.equal:
        raise typer.Exit(DIFFERENT)


def _sides(url: str | None, source: list[str], key: str) -> tuple[str | None, str]:
    url, others = split_store_argument(url, source, needed=1)
    if len(others) != 1:
        raise InvalidInput("Name one source after the store.", "Such as payments.csv, or postgresql://….")
    if not key:
        raise InvalidInput("No key was named.", "Add --key account for the tags account:…, or --key data.account.")
    return url, others[0]


def _repeat(output: Output, step: Callable[[], Result], seconds: float) -> None:
    """Compare again and again. What fails is printed, and tried again at the next time: also a file that is bad now."""
    compared = False
    while True:
        try:
            result = step()
            compared = True
            if output.is_json:
                output.write_value(result)
            else:
                print_note(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {result.verdict}")
            output.flush()
        except (SourceUnavailable, StoreUnavailable, InvalidInput) as error:
            if isinstance(error, InvalidInput) and not compared:
                raise
            print_error(error, output.is_json)
        time.sleep(seconds)


def _print(output: Output, result: Result, theirs: Theirs) -> None:
    if output.is_json:
        output.write_value(result)
        return
    if result.differences:
        has_periods, has_sums = any(each.period for each in result.differences), theirs.sum is not None
        columns = [
            Column("key", elastic=True),
            *([Column("period")] if has_periods else []),
            Column("events", align_right=True),
            Column("outside", align_right=True),
            *([Column("sum", align_right=True), Column("outside", align_right=True)] if has_sums else []),
            Column("positions", elastic=True),
        ]
        output.print_table(columns, [_row(each, has_periods, has_sums) for each in result.differences])
        if result.differing > len(result.differences):
            output.print_hint(f"{result.differing - len(result.differences):,} more: --limit {result.differing}")
    output.print(escape_control(result.verdict), style="green" if result.equal else "red")
    output.print_hint(f"Compared up to position {result.head:,} with {shown(theirs.address)}")


def _row(each: Difference, has_periods: bool, has_sums: bool) -> list[str]:
    return [
        escape_control(each.key) or "(none)",
        *([each.period] if has_periods else []),
        f"{each.events:,}",
        f"{each.rows:,}",
        *([f"{each.sum:,f}", f"{each.sum_outside:,f}"] if has_sums else []),
        " ".join(map(str, each.positions)),
    ]


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise InvalidInput("A --header is not NAME:VALUE.", "Write --header 'Authorization: Bearer …'.")
    return name.strip(), value.strip()


def _period(text: str | None) -> Any:
    if text is not None and text not in FORMATS:
        raise InvalidInput(f"--by {text!r} is no period.", f"Write one of {', '.join(FORMATS)}.")
    return text


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError) as error:  # ZoneInfoNotFoundError is a KeyError of the same message
        raise _no_zone(name) from error
    except KeyError:
        raise _no_zone(name) from None


def _no_zone(name: str) -> InvalidInput:
    return InvalidInput(f"{name!r} is no time zone.", "Write a name such as Europe/Berlin.")


def _seconds(text: str) -> float:
    found = AGO_PATTERN.fullmatch(text.strip())
    if found is None or not int(found[1]):
        raise InvalidInput(f"--every {text!r} is no time between comparisons.", "Write 30s, 10m, 2h or 1d.")
    return timedelta(**{AGO_UNITS[found[2]]: int(found[1])}).total_seconds()
