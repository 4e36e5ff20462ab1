"""`eventfold projections …`: read models looked at, and what may be done to them by hand.

Knows: names, tables, a progress bar. Does not know: how any of it is done (the administration of projections does).
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
import typer

from eventfold.cli.command import Command, Group
from eventfold.cli.formatting import count_of, escape_control, format_second
from eventfold.cli.options import Json, Url, Wide, open_store, parse_position_or_time, split_store_argument
from eventfold.cli.output import Column, Output, progress_bar
from eventfold.cli.run import import_projections
from eventfold.cli.state import ImportPath
from eventfold.projections.admin import ProjectionAdmin
from eventfold.projections.definition import projection_definition
from eventfold.projections.generations import Comparison
from eventfold.projections.status import Status

projections = typer.Typer(
    cls=Group,
    help="Read models: where they stand, rebuild, compare, switch, mend.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Name = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="Its name, or MODULE:CLASS.", show_default=False),
]
Names = Annotated[list[str] | None, typer.Argument(metavar="NAME…", help="Their names; else all.", show_default=False)]
Position = Annotated[int | None, typer.Argument(metavar="POSITION", help="The event's position.", show_default=False)]
Generation = Annotated[
    int | None, typer.Option("--generation", metavar="N", help="Another than the one that readers see.")
]
Because = Annotated[str, typer.Option("--because", metavar="WHY", help="The reason, kept in the log.")]


@contextmanager
def open_projection(url: str | None, name: str | None, import_path: str) -> Generator[tuple[ProjectionAdmin, Any]]:
    """The administration of a store's projections, and the projection that is meant."""
    store_url, others = split_store_argument(url, [name] if name else [], needed=1)
    if len(others) != 1:
        raise typer.BadParameter("name the projection.", param_hint="NAME")
    with open_store(store_url) as store:
        (named,) = import_projections(others, import_path)
        yield store.projections, named


def report(as_json: bool | None, named: Any, text: str, **facts: Any) -> None:
    """Tell what was done: the facts to programs, a sentence to people."""
    output, name = Output(as_json), named if isinstance(named, str) else projection_definition(named).name
    if output.is_json:
        output.write_value({"name": name, **facts})
    else:
        output.print(f"{name} {escape_control(text)}")


@projections.command("list", cls=Command)
def list_projections(url: Url = None, import_path: ImportPath = ".", as_json: Json = None, wide: Wide = False) -> None:
    """List the read models, subscriptions and followers by name that a store keeps, or knows to be kept elsewhere."""
    output = Output(as_json, wide)
    import_projections([], import_path)
    with open_store(url) as store:
        records = store.projections.known()
    if output.is_json:
        output.write_lines(msgspec.json.encode(each) for each in records)
        return
    columns = (Column("name", style="bold", elastic=True, min_width=12), Column("kind"), Column("live", True))
    columns += (Column("before", True), Column("building", True), Column("code", elastic=True, min_width=10))
    rows = [
        (e.name, e.kind, str(e.live), str(e.previous or ""), str(e.building or ""), escape_control(e.code))
        for e in records
    ]
    output.print_table(columns, rows)


@projections.command("status", cls=Command)
def status(
    url: Url = None, names: Names = None, import_path: ImportPath = ".", as_json: Json = None, wide: Wide = False
) -> None:
    """Tell where read models stand, and why they are behind if they are."""
    output = Output(as_json, wide)
    store_url, others = split_store_argument(url, names or [])
    with open_store(store_url) as store:
        found = store.projections.status(*import_projections(others, import_path))
    if output.is_json:
        output.write_lines(msgspec.json.encode(each) for each in found)
        return
    output.print_table(STATUS_COLUMNS, [status_row(each) for each in found])
    for each in found:
        if names or each.state not in ("current", "idle") or each.behind:
            output.print(f"{each.name}: {escape_control(each.sentence)}{describe_slowest_handler(each)}")


STATUS_COLUMNS = (
    Column("name", style="bold", elastic=True, min_width=12),
    Column("state"),
    Column("position", True),
    Column("behind", True),
    Column("seconds", True),
    Column("events/s", True),
    Column("trend"),
    Column("parked", True),
)


def describe_slowest_handler(each: Status) -> str:
    """Its slowest handler, and how long that needs for an event."""
    if not each.slowest:
        return ""
    needs = f"{each.micros / 1000:,.1f} ms" if each.micros >= 1000 else f"{each.micros:.1f} µs"
    return f" Slowest handler: {each.slowest}, {needs} an event."


def status_row(each: Status) -> tuple[str, ...]:
    """One line of the table."""
    return (
        *(each.name, each.state, f"{each.position:,}", f"{each.behind:,}"),
        *(f"{each.seconds:,.1f}", f"{each.rate:,}", each.trend, f"{each.parked:,}"),
    )


@projections.command("show", cls=Command)
def show(url: Url = None, name: Name = None, import_path: ImportPath = ".", as_json: Json = None) -> None:
    """Show a read model's checkpoints: query, cursor, ledger, lease.

    For every generation and partition: how far it was scanned, how many events were seen and handled, their digests.
    """
    output = Output(as_json)
    with open_projection(url, name, import_path) as (admin, named):
        checkpoints = admin.checkpoints(named)
        if not checkpoints:
            admin.status(named)  # raises UnknownProjection where there is no projection of this name
    for each in checkpoints:
        facts = {
            "name": each.place.name,
            "generation": each.place.generation,
            "partition": each.place.partition,
            "position": each.position,
            "event_id": each.event_id,
            "seen": each.seen.count,
            "seen_digest": each.seen.hex,
            "handled": each.handled.count,
            "handled_digest": each.handled.hex,
            "query": msgspec.Raw(each.query.encode()),
            "fingerprint": each.fingerprint,
            "token": each.token,
            "holder": each.holder,
            "stopped": msgspec.json.decode(each.stopped) if each.stopped else None,
            "advanced": format_second(each.at) if each.at else None,
        }
        if output.is_json:
            output.write_value(facts)
            continue
        for key, value in facts.items():
            shown = each.query if key == "query" else "" if value is None else str(value)
            output.write_text(f"{key:<15} {escape_control(shown)}")
        output.write_text("")


@projections.command("rebuild", cls=Command)
def rebuild(
    url: Url = None,
    name: Name = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="POSITION|TIME", help="As of then, to look at; it never goes live.")
    ] = None,
    switch: Annotated[bool, typer.Option("--switch", help="Switch to it at once, without a look.")] = False,
    import_path: ImportPath = ".",
    as_json: Json = None,
) -> None:
    """Build a read model anew beside what readers see.

    Ctrl-C keeps what is done; the next rebuild of the same code goes on there. Then it is compared with what
    readers see; `switch` lets them see it.
    """
    output = Output(as_json)
    with open_projection(url, name, import_path) as (admin, named):
        with progress_bar(output, "building") as bar:
            generation = admin.rebuild(named, at=None if at is None else parse_position_or_time(at), progress=bar)
        found = admin.compare(named, generation)
        if switch and at is None:
            admin.switch(named)
        print_comparison(output, found)
        if output.is_json:
            return
        apart = [each for each in admin.parked(named, generation) if each.state != "skipped"]
        if apart:
            see = f"eventfold projections parked … {found.name} --generation {generation}"
            output.print(f"{count_of(len(apart), 'event')} parked in generation {generation}: {see}", style="bold")
        if at is None:
            then = "Readers see it now. To go back" if switch else "Readers still see the old one. To let them see it"
            output.print(f"{then}: eventfold projections {'rollback' if switch else 'switch'} … {found.name}")
            return
        drop = f"eventfold projections discard … {found.name} --generation {generation}"
        output.print(f"It is there to look at: store.rows(…, generation={generation}). To drop it: {drop}")


@projections.command("compare", cls=Command)
def compare(
    url: Url = None,
    name: Name = None,
    generation: Annotated[
        int | None, typer.Option("--generation", metavar="N", help="Which one; else what is built, or was before.")
    ] = None,
    import_path: ImportPath = ".",
    as_json: Json = None,
) -> None:
    """Compare what readers see with another generation, row by row. Exits 1 if they differ."""
    with open_projection(url, name, import_path) as (admin, named):
        found = admin.compare(named, generation)
    print_comparison(Output(as_json), found)
    if not found.equal:
        raise typer.Exit(1)


def print_comparison(output: Output, found: Comparison) -> None:
    """Counts, digests, the first differences."""
    if output.is_json:
        output.write_value(found)
        return
    for side in (0, 1):
        output.print(
            f"generation {found.generations[side]}: {count_of(found.rows[side], 'row')}, digest "
            f"{found.digests[side][:16]}…, at position {found.positions[side]:,}"
        )
    if found.equal:
        output.print("Every row is the same.")
        return
    output.print(f"{count_of(found.different, 'row')} not the same" + (":" if found.differences else "."))
    for each in found.differences:
        for sign, row in (("-", each.before), ("+", each.after)):
            if row is not None:
                output.write_text(f"  {sign} {escape_control(str(row))}")


@projections.command("switch", cls=Command)
def switch(url: Url = None, name: Name = None, import_path: ImportPath = ".", as_json: Json = None) -> None:
    """Let readers see what was built; it is brought up to date first."""
    with open_projection(url, name, import_path) as (admin, named):
        record = admin.switch(named)
    text = f"was switched: readers see generation {record.live} now. To go back: eventfold projections rollback … "
    report(as_json, named, text + record.name, done="switched", live=record.live)


@projections.command("rollback", cls=Command)
def rollback(url: Url = None, name: Name = None, import_path: ImportPath = ".", as_json: Json = None) -> None:
    """Let readers see the generation before the last switch."""
    with open_projection(url, name, import_path) as (admin, named):
        record = admin.rollback(named)
        (now,) = admin.status(named)
    text = f"was rolled back: readers see generation {record.live} again, at position {now.position:,}. {now.sentence} "
    text += "The code it was made by keeps it up to date."
    report(as_json, named, text, done="rolled back", live=record.live, position=now.position)


@projections.command("discard", cls=Command)
def discard(
    url: Url = None,
    name: Name = None,
    generation: Annotated[
        int | None, typer.Option("--generation", metavar="N", help="One built by rebuild --at; else what is built.")
    ] = None,
    import_path: ImportPath = ".",
    as_json: Json = None,
) -> None:
    """Give up what is being built, or drop a generation of the past."""
    with open_projection(url, name, import_path) as (admin, named):
        admin.discard(named, generation)
    report(as_json, named, "has one generation less.", done="discarded")


@projections.command("accept", cls=Command)
def accept(url: Url = None, name: Name = None, import_path: ImportPath = ".", as_json: Json = None) -> None:
    """Say that the rows are right as they are, though the code has changed."""
    with open_projection(url, name, import_path) as (admin, named):
        admin.accept(named)
    report(as_json, named, "goes on from where it is, by its code as it is now.", done="accepted")


@projections.command("pause", cls=Command)
def pause(
    because: Because, url: Url = None, name: Name = None, import_path: ImportPath = ".", as_json: Json = None
) -> None:
    """Let nobody work on a read model, until it is resumed."""
    with open_projection(url, name, import_path) as (admin, named):
        admin.pause(named, because)
    text = f"is paused: {because.rstrip('.')}. To let it go on: eventfold projections resume … "
    report(
        as_json, named, text + (named if isinstance(named, str) else projection_definition(named).name), done="paused"
    )


@projections.command("resume", cls=Command)
def resume(url: Url = None, name: Name = None, import_path: ImportPath = ".", as_json: Json = None) -> None:
    """Let it go on: after a pause, or once more with the event at which it stopped."""
    with open_projection(url, name, import_path) as (admin, named):
        admin.resume(named)
        (now,) = admin.status(named)
    report(as_json, named, f"may go on. {now.sentence}", done="resumed")


@projections.command("parked", cls=Command)
def parked(
    url: Url = None,
    name: Name = None,
    generation: Generation = None,
    all_: Annotated[bool, typer.Option("--all", help="Those, too, that only wait for an earlier one.")] = False,
    import_path: ImportPath = ".",
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """List the events that were not handled: parked, due to be tried again, skipped.

    Events that only wait for an earlier one of their key are counted; `--all`, or JSON, lists them.
    """
    output = Output(as_json, wide)
    with open_projection(url, name, import_path) as (admin, named):
        found = admin.parked(named, generation)
    if output.is_json:
        output.write_lines(msgspec.json.encode(each) for each in found)
        return
    waiting = [each for each in found if each.state == "parked" and not each.attempts and not all_]
    columns = (Column("position", True), Column("type", elastic=True), Column("key", elastic=True), Column("state"))
    columns += (Column("tried", True), Column("why", elastic=True, min_width=20))
    rows = [
        (
            f"{e.position:,}",
            e.type,
            escape_control(e.key),
            e.state,
            f"{e.attempts}",
            escape_control(e.because or e.error),
        )
        for e in found
        if all_ or e.attempts or e.state != "parked"
    ]
    output.print_table(columns, rows)
    if waiting:
        output.print_hint(f"{count_of(len(waiting), 'later event')} of these keys only wait; --all lists them.")


@projections.command("retry", cls=Command)
def retry(
    url: Url = None,
    name: Name = None,
    position: Position = None,
    import_path: ImportPath = ".",
    as_json: Json = None,
) -> None:
    """Have parked events tried again by their runner: one with its key's later ones, or all."""
    with open_projection(url, name, import_path) as (admin, named):
        count = admin.retry(named, position)
    text = f"has {count_of(count, 'event')} due: its runner tries them again within about a second."
    report(as_json, named, text, due=count, done="due to be tried again")


@projections.command("skip", cls=Command)
def skip(
    because: Because,
    url: Url = None,
    name: Name = None,
    position: Position = None,
    import_path: ImportPath = ".",
    as_json: Json = None,
) -> None:
    """Leave one event out for good: one that is parked, or the one it stopped at."""
    if position is None:
        raise typer.BadParameter("say which event.", param_hint="POSITION")
    with open_projection(url, name, import_path) as (admin, named):
        admin.skip(named, position, because)
    report(as_json, named, f"leaves event {position:,} out: {because.rstrip('.')}.", position=position, done="skipped")


@projections.command("begin", cls=Command)
def begin(
    url: Url = None,
    name: Name = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="POSITION|TIME", help="The last event that is done with; 0: none.")
    ] = None,
    import_path: ImportPath = ".",
    as_json: Json = None,
) -> None:
    """Say behind which event an effect, a process or a subscription goes on.

    For stores that were copied or restored where it is not known how far it had come. What comes after is done, again
    if it was done before; what was parked is given up.
    """
    if at is None:
        raise typer.BadParameter("say behind which event.", param_hint="--at")
    with open_projection(url, name, import_path) as (admin, named):
        position = admin.begin(named, parse_position_or_time(at))
    known_as = admin.catalog.name_of(named)
    report(as_json, known_as, f"goes on behind position {position:,}.", done="begun", position=position)


@projections.command("forget", cls=Command)
def forget(url: Url = None, name: Name = None, import_path: ImportPath = ".", as_json: Json = None) -> None:
    """Give up what is kept: a follower's progress, or a read model with all its rows."""
    with open_projection(url, name, import_path) as (admin, named):
        position = admin.forget(named)
    text = f"is forgotten; it had come to position {position:,}."
    report(as_json, named, text, done="forgotten", position=position)
