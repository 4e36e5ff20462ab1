"""`eventfold projections …`: the status and the administration of read models.

Knows: names, tables, a progress bar. Does not know: how an operation is carried out (ProjectionAdmin does).
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
import typer

from eventfold.cli.command import Command, Group
from eventfold.cli.formatting import escape_control, format_second
from eventfold.cli.options import Json, Target, Url, Wide, open_store, split_store_argument
from eventfold.cli.output import Column, Output, progress_bar
from eventfold.cli.run import import_projections
from eventfold.cli.state import ImportPath
from eventfold.core.counted import count_of
from eventfold.core.moments import parse_position_or_time
from eventfold.projections.admin import ProjectionAdmin
from eventfold.projections.comparison import Comparison
from eventfold.projections.definition import projection_definition
from eventfold.projections.status import Status

projections = typer.Typer(
    cls=Group,
    help="Read models: status, rebuild, compare, switch, retry.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Name = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="The name of a projection, or MODULE:CLASS.", show_default=False),
]
Names = Annotated[
    list[str] | None, typer.Argument(metavar="NAME…", help="Names of projections. Default: all.", show_default=False)
]
Position = Annotated[int | None, typer.Argument(metavar="POSITION", help="The event's position.", show_default=False)]
Generation = Annotated[
    int | None, typer.Option("--generation", metavar="N", help="A generation other than the live one.")
]
Because = Annotated[str, typer.Option("--because", metavar="WHY", help="The reason, recorded in the log.")]


@contextmanager
def open_projection(
    url: str | None, name: str | None, import_path: str, target: str | None, *, creates_target: bool = False
) -> Generator[tuple[ProjectionAdmin, Any]]:
    """The administration of a store's projections, and the projection that is meant. See open_store."""
    store_url, others = split_store_argument(url, [name] if name else [], needed=1)
    if len(others) != 1:
        raise typer.BadParameter("name the projection.", param_hint="NAME")
    with open_store(store_url, target=target, creates_target=creates_target) as store:
        (named,) = import_projections(others, import_path)
        yield store.projections, named


def report(as_json: bool | None, named: Any, text: str, **facts: Any) -> None:
    """Print the result of an operation: facts as JSON, or a sentence for people."""
    output, name = Output(as_json), named if isinstance(named, str) else projection_definition(named).name
    if output.is_json:
        output.write_value({"name": name, **facts})
    else:
        output.print(f"{name} {escape_control(text)}")


@projections.command("list", cls=Command)
def list_projections(
    url: Url = None, import_path: ImportPath = ".", target: Target = None, as_json: Json = None, wide: Wide = False
) -> None:
    """List the read models, subscriptions and named followers of a store, also those in other targets."""
    output = Output(as_json, wide)
    import_projections([], import_path)
    with open_store(url, target=target) as store:
        records = store.projections.list()
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
    url: Url = None,
    names: Names = None,
    import_path: ImportPath = ".",
    target: Target = None,
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """Show the position of read models, and why they are behind."""
    output = Output(as_json, wide)
    store_url, others = split_store_argument(url, names or [])
    with open_store(store_url, target=target) as store:
        found = store.projections.status(*import_projections(others, import_path))
        address = store.projections.catalog.address
    found = [msgspec.structs.replace(each, sentence=address.in_text(each.sentence)) for each in found]
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
    """The slowest handler, and its time per event."""
    if not each.slowest:
        return ""
    needs = f"{each.micros / 1000:,.1f} ms" if each.micros >= 1000 else f"{each.micros:.1f} µs"
    return f" Slowest handler: {each.slowest}, {needs} per event."


def status_row(each: Status) -> tuple[str, ...]:
    """A row of the table."""
    return (
        *(each.name, each.state, f"{each.position:,}", f"{each.behind:,}"),
        *(f"{each.seconds:,.1f}", f"{each.rate:,}", each.trend, f"{each.parked:,}"),
    )


@projections.command("show", cls=Command)
def show(
    url: Url = None, name: Name = None, import_path: ImportPath = ".", target: Target = None, as_json: Json = None
) -> None:
    """Show a read model's checkpoints: query, cursor, ledger, lease.

    For every generation and partition: the position up to which the log was read, the numbers of events seen and
    handled, and their digests.
    """
    output = Output(as_json)
    with open_projection(url, name, import_path, target) as (admin, named):
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
            shown = each.query if key == "query" else each.stopped if key == "stopped" else value
            shown = "" if shown is None else str(shown)
            output.write_text(f"{key:<15} {escape_control(shown)}")
        output.write_text("")


@projections.command("rebuild", cls=Command)
def rebuild(
    url: Url = None,
    name: Name = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at", metavar="POSITION|TIME", help="Build it as of then, for inspection; it cannot become live."
        ),
    ] = None,
    switch: Annotated[bool, typer.Option("--switch", help="Make it live at once.")] = False,
    import_path: ImportPath = ".",
    target: Target = None,
    as_json: Json = None,
) -> None:
    """Rebuild a read model in a new generation beside the live one.

    Ctrl-C keeps the rows built so far; the next rebuild of the same code continues there. The new generation is then
    compared with the live one; `switch` makes it live.
    """
    output = Output(as_json)
    with open_projection(url, name, import_path, target, creates_target=True) as (admin, named):
        with progress_bar(output, "building") as bar:
            generation = admin.rebuild(named, at=None if at is None else parse_position_or_time(at), progress=bar)
        found = admin.compare(named, generation)
        if switch and at is None:
            admin.switch(named)
        print_comparison(output, found)
        if output.is_json:
            return
        in_text = admin.catalog.address.in_text
        apart = [each for each in admin.parked(named, generation) if each.state != "skipped"]
        if apart:
            see = f"eventfold projections parked STORE {found.name} --generation {generation}"
            output.print(
                f"{count_of(len(apart), 'event')} parked in generation {generation}: {in_text(see)}", style="bold"
            )
        if at is None:
            then = "It is live now. To go back" if switch else "The old generation is still live. To make this one live"
            command = f"eventfold projections {'rollback' if switch else 'switch'} STORE {found.name}"
            output.print(f"{then}: {in_text(command)}")
            return
        drop = in_text(f"eventfold projections discard STORE {found.name} --generation {generation}")
        output.print(f"Read it with store.rows(…, generation={generation}). To drop it: {drop}")


@projections.command("compare", cls=Command)
def compare(
    url: Url = None,
    name: Name = None,
    generation: Annotated[
        int | None,
        typer.Option(
            "--generation", metavar="N", help="The other generation. Default: the one being built, or the previous one."
        ),
    ] = None,
    import_path: ImportPath = ".",
    target: Target = None,
    as_json: Json = None,
) -> None:
    """Compare the live generation with another one, row by row. Exits 1 if they differ."""
    with open_projection(url, name, import_path, target) as (admin, named):
        found = admin.compare(named, generation)
    print_comparison(Output(as_json), found)
    if not found.equal:
        raise typer.Exit(1)


def print_comparison(output: Output, found: Comparison) -> None:
    """Print counts, digests and the first differences."""
    if output.is_json:
        output.write_value(found)
        return
    for side in (0, 1):
        output.print(
            f"generation {found.generations[side]}: {count_of(found.rows[side], 'row')}, digest "
            f"{found.digests[side][:16]}…, at position {found.positions[side]:,}"
        )
    if found.left_out:
        output.print(
            f"Not compared: {', '.join(found.left_out)}, since one of the two was folded by code without "
            f"{'it' if len(found.left_out) == 1 else 'them'}."
        )
    if found.equal:
        output.print("All rows are equal.")
        return
    output.print(
        f"{count_of(found.different, 'row')} differ{'s' if found.different == 1 else ''}"
        + (":" if found.differences else ".")
    )
    for each in found.differences:
        for sign, row in (("-", each.before), ("+", each.after)):
            if row is not None:
                output.write_text(f"  {sign} {escape_control(str(row))}")


@projections.command("switch", cls=Command)
def switch(
    url: Url = None, name: Name = None, import_path: ImportPath = ".", target: Target = None, as_json: Json = None
) -> None:
    """Make the generation that was built live; it is brought up to date first."""
    with open_projection(url, name, import_path, target) as (admin, named):
        record = admin.switch(named)
    text = f"was switched: generation {record.live} is live now. To go back: eventfold projections rollback STORE "
    text = admin.catalog.address.in_text(text + record.name)
    report(as_json, named, text, done="switched", live=record.live)


@projections.command("rollback", cls=Command)
def rollback(
    url: Url = None, name: Name = None, import_path: ImportPath = ".", target: Target = None, as_json: Json = None
) -> None:
    """Make the generation before the last switch live again."""
    with open_projection(url, name, import_path, target) as (admin, named):
        record = admin.rollback(named)
        (now,) = admin.status(named)
    text = f"was rolled back: generation {record.live} is live again, at position {now.position:,}. "
    text += admin.catalog.address.in_text(now.sentence) + " "
    text += "Only the code that built it keeps it up to date."
    report(as_json, named, text, done="rolled back", live=record.live, position=now.position)


@projections.command("discard", cls=Command)
def discard(
    url: Url = None,
    name: Name = None,
    generation: Annotated[
        int | None,
        typer.Option("--generation", metavar="N", help="One built by rebuild --at. Default: the one being built."),
    ] = None,
    import_path: ImportPath = ".",
    target: Target = None,
    as_json: Json = None,
) -> None:
    """Drop the generation that is being built, or one built by rebuild --at."""
    with open_projection(url, name, import_path, target) as (admin, named):
        admin.discard(named, generation)
    report(as_json, named, "has one generation fewer.", done="discarded")


@projections.command("accept", cls=Command)
def accept(
    url: Url = None, name: Name = None, import_path: ImportPath = ".", target: Target = None, as_json: Json = None
) -> None:
    """Declare that the rows are right although the code has changed."""
    with open_projection(url, name, import_path, target) as (admin, named):
        admin.accept(named)
    report(as_json, named, "continues from its position, with its present code.", done="accepted")


@projections.command("pause", cls=Command)
def pause(
    because: Because,
    url: Url = None,
    name: Name = None,
    import_path: ImportPath = ".",
    target: Target = None,
    as_json: Json = None,
) -> None:
    """Stop all work on a read model until it is resumed."""
    with open_projection(url, name, import_path, target) as (admin, named):
        admin.pause(named, because)
    name = named if isinstance(named, str) else projection_definition(named).name
    then = admin.catalog.address.in_text(f"eventfold projections resume STORE {name}")
    report(as_json, named, f"is paused: {because.rstrip('.')}. To continue: {then}", done="paused")


@projections.command("resume", cls=Command)
def resume(
    url: Url = None, name: Name = None, import_path: ImportPath = ".", target: Target = None, as_json: Json = None
) -> None:
    """Continue after a pause, or retry the event at which it stopped."""
    with open_projection(url, name, import_path, target) as (admin, named):
        admin.resume(named)
        (now,) = admin.status(named)
    report(as_json, named, f"is resumed. {admin.catalog.address.in_text(now.sentence)}", done="resumed")


@projections.command("parked", cls=Command)
def parked(
    url: Url = None,
    name: Name = None,
    generation: Generation = None,
    all_: Annotated[bool, typer.Option("--all", help="Also events that only wait for an earlier one.")] = False,
    import_path: ImportPath = ".",
    target: Target = None,
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """List the events that were not handled: parked, due for a retry, skipped.

    Events that only wait for an earlier one of their key are counted; `--all` or JSON lists them.
    """
    output = Output(as_json, wide)
    with open_projection(url, name, import_path, target) as (admin, named):
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
        output.print_hint(
            f"{count_of(len(waiting), 'later event')} of these keys only wait for these; --all lists them."
        )


@projections.command("retry", cls=Command)
def retry(
    url: Url = None,
    name: Name = None,
    position: Position = None,
    import_path: ImportPath = ".",
    target: Target = None,
    as_json: Json = None,
) -> None:
    """Mark parked events for a retry by their runner: one and the later ones of its key, or all."""
    with open_projection(url, name, import_path, target) as (admin, named):
        count = admin.retry(named, position)
    text = f"has {count_of(count, 'event')} due: its runner retries within about a second."
    if not count:
        text = "has no parked events to retry."
    report(as_json, named, text, due=count, done="due to be tried again")


@projections.command("skip", cls=Command)
def skip(
    because: Because,
    url: Url = None,
    name: Name = None,
    position: Position = None,
    import_path: ImportPath = ".",
    target: Target = None,
    as_json: Json = None,
) -> None:
    """Skip an event for good: a parked one, or the one at which it stopped."""
    if position is None:
        raise typer.BadParameter("name the event by its position.", param_hint="POSITION")
    with open_projection(url, name, import_path, target) as (admin, named):
        admin.skip(named, position, because)
    report(as_json, named, f"skips event {position:,}: {because.rstrip('.')}.", position=position, done="skipped")


@projections.command("begin", cls=Command)
def begin(
    url: Url = None,
    name: Name = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="POSITION|TIME", help="The last event that is done; 0: none.")
    ] = None,
    import_path: ImportPath = ".",
    target: Target = None,
    as_json: Json = None,
) -> None:
    """Set the event after which an effect, a process or a subscription continues.

    For copied or restored stores in which its progress is unknown. Later events are handled, also those that were
    handled before; parked events are dropped.
    """
    if at is None:
        raise typer.BadParameter("name the last event that is done.", param_hint="--at")
    with open_projection(url, name, import_path, target, creates_target=True) as (admin, named):
        position = admin.begin(named, parse_position_or_time(at))
    known_as = admin.catalog.name_of(named)
    report(as_json, known_as, f"continues after position {position:,}.", done="begun", position=position)


@projections.command("remove", cls=Command)
def remove(
    url: Url = None, name: Name = None, import_path: ImportPath = ".", target: Target = None, as_json: Json = None
) -> None:
    """Remove a follower's progress, or a read model with all its rows."""
    with open_projection(url, name, import_path, target) as (admin, named):
        position = admin.remove(named)
    text = f"is removed; it was at position {position:,}."
    report(as_json, named, text, done="removed", position=position)
