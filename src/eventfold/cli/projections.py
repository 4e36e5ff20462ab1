"""Room: `eventfold projections …`: read models looked at, and what may be done to them by hand.

Knows: names, tables, a progress bar. Does not know: how any of it is done (the desk does).
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
import typer

from eventfold.cli.command import Command, Group
from eventfold.cli.copy import progress
from eventfold.cli.moments import place_of
from eventfold.cli.options import Json, Url, Wide, addressed, opened
from eventfold.cli.running import imported
from eventfold.cli.screen import Column, Screen
from eventfold.cli.shown import counted, printable, second_text
from eventfold.cli.state import ImportPath
from eventfold.flow.generations import Comparison
from eventfold.flow.status import Status
from eventfold.projection.plan import plan_of
from eventfold.running.desk import Desk
from eventfold.running.finding import name_of

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
def at_desk(url: str | None, name: str | None, import_path: str) -> Generator[tuple[Desk, Any]]:
    """The desk of a store, and the projection that is meant."""
    store_url, others = addressed(url, [name] if name else [], needed=1)
    if len(others) != 1:
        raise typer.BadParameter("name the projection.", param_hint="NAME")
    with opened(store_url) as store:
        (named,) = imported(others, import_path)
        yield store.projections, named


def acted(as_json: bool | None, named: Any, text: str, **facts: Any) -> None:
    """Tell what was done: the facts to programs, a sentence to people."""
    screen, name = Screen(as_json), named if isinstance(named, str) else plan_of(named).name
    if screen.json:
        screen.value({"name": name, **facts})
    else:
        screen.say(f"{name} {printable(text)}")


@projections.command("list", cls=Command)
def listed(url: Url = None, import_path: ImportPath = ".", as_json: Json = None, wide: Wide = False) -> None:
    """List the read models, subscriptions and followers by name that a store keeps, or knows to be kept elsewhere."""
    screen = Screen(as_json, wide)
    imported([], import_path)
    with opened(url) as store:
        known = store.projections.known()
    if screen.json:
        screen.lines(msgspec.json.encode(each) for each in known)
        return
    columns = (Column("name", style="bold", elastic=True, least=12), Column("kind"), Column("live", True))
    columns += (Column("before", True), Column("building", True), Column("code", elastic=True, least=10))
    rows = [
        (e.name, e.kind, str(e.live), str(e.previous or ""), str(e.building or ""), printable(e.code)) for e in known
    ]
    screen.table(columns, rows)


@projections.command("status", cls=Command)
def status(
    url: Url = None, names: Names = None, import_path: ImportPath = ".", as_json: Json = None, wide: Wide = False
) -> None:
    """Tell where read models stand, and why they are behind if they are."""
    screen = Screen(as_json, wide)
    store_url, others = addressed(url, names or [])
    with opened(store_url) as store:
        found = store.projections.status(*imported(others, import_path))
    if screen.json:
        screen.lines(msgspec.json.encode(each) for each in found)
        return
    screen.table(STATUS, [status_row(each) for each in found])
    for each in found:
        if names or each.state not in ("current", "idle") or each.behind:
            screen.say(f"{each.name}: {printable(each.sentence)}{slowest(each)}")


STATUS = (
    Column("name", style="bold", elastic=True, least=12),
    Column("state"),
    Column("position", True),
    Column("behind", True),
    Column("seconds", True),
    Column("events/s", True),
    Column("trend"),
    Column("parked", True),
)


def slowest(each: Status) -> str:
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
    screen = Screen(as_json)
    with at_desk(url, name, import_path) as (desk, named):
        held = desk.checkpoints(named)
    for each in held:
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
            "advanced": second_text(each.at) if each.at else None,
        }
        if screen.json:
            screen.value(facts)
            continue
        for key, value in facts.items():
            shown = each.query if key == "query" else "" if value is None else str(value)
            screen.text(f"{key:<15} {printable(shown)}")
        screen.text("")


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
    screen = Screen(as_json)
    with at_desk(url, name, import_path) as (desk, named):
        with progress(screen, "building") as bar:
            generation = desk.rebuild(named, at=None if at is None else place_of(at), progress=bar)
        found = desk.compare(named, generation)
        if switch and at is None:
            desk.switch(named)
        tell_comparison(screen, found)
        if screen.json:
            return
        apart = [each for each in desk.parked(named, generation) if each.state != "skipped"]
        if apart:
            see = f"eventfold projections parked … {found.name} --generation {generation}"
            screen.say(f"{counted(len(apart), 'event')} parked in generation {generation}: {see}", style="bold")
        if at is None:
            then = "Readers see it now. To go back" if switch else "Readers still see the old one. To let them see it"
            screen.say(f"{then}: eventfold projections {'rollback' if switch else 'switch'} … {found.name}")
            return
        drop = f"eventfold projections discard … {found.name} --generation {generation}"
        screen.say(f"It is there to look at: store.rows(…, generation={generation}). To drop it: {drop}")


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
    with at_desk(url, name, import_path) as (desk, named):
        found = desk.compare(named, generation)
    tell_comparison(Screen(as_json), found)
    if not found.equal:
        raise typer.Exit(1)


def tell_comparison(screen: Screen, found: Comparison) -> None:
    """Counts, digests, the first differences."""
    if screen.json:
        screen.value(found)
        return
    for side in (0, 1):
        screen.say(
            f"generation {found.generations[side]}: {counted(found.rows[side], 'row')}, digest "
            f"{found.digests[side][:16]}…, at position {found.positions[side]:,}"
        )
    if found.equal:
        screen.say("Every row is the same.")
        return
    screen.say(f"{counted(found.different, 'row')} not the same" + (":" if found.differences else "."))
    for each in found.differences:
        for sign, row in (("-", each.before), ("+", each.after)):
            if row is not None:
                screen.text(f"  {sign} {printable(str(row))}")


@projections.command("switch", cls=Command)
def switch(url: Url = None, name: Name = None, import_path: ImportPath = ".", as_json: Json = None) -> None:
    """Let readers see what was built; it is brought up to date first."""
    with at_desk(url, name, import_path) as (desk, named):
        known = desk.switch(named)
    text = f"was switched: readers see generation {known.live} now. To go back: eventfold projections rollback … "
    acted(as_json, named, text + known.name, done="switched", live=known.live)


@projections.command("rollback", cls=Command)
def rollback(url: Url = None, name: Name = None, import_path: ImportPath = ".", as_json: Json = None) -> None:
    """Let readers see the generation before the last switch."""
    with at_desk(url, name, import_path) as (desk, named):
        known = desk.rollback(named)
        (now,) = desk.status(named)
    text = f"was rolled back: readers see generation {known.live} again, at position {now.position:,}. {now.sentence} "
    text += "The code it was made by keeps it up to date."
    acted(as_json, named, text, done="rolled back", live=known.live, position=now.position)


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
    with at_desk(url, name, import_path) as (desk, named):
        desk.discard(named, generation)
    acted(as_json, named, "has one generation less.", done="discarded")


@projections.command("accept", cls=Command)
def accept(url: Url = None, name: Name = None, import_path: ImportPath = ".", as_json: Json = None) -> None:
    """Say that the rows are right as they are, though the code has changed."""
    with at_desk(url, name, import_path) as (desk, named):
        desk.accept(named)
    acted(as_json, named, "goes on from where it is, by its code as it is now.", done="accepted")


@projections.command("pause", cls=Command)
def pause(
    because: Because, url: Url = None, name: Name = None, import_path: ImportPath = ".", as_json: Json = None
) -> None:
    """Let nobody work on a read model, until it is resumed."""
    with at_desk(url, name, import_path) as (desk, named):
        desk.pause(named, because)
    text = f"is paused: {because.rstrip('.')}. To let it go on: eventfold projections resume … "
    acted(as_json, named, text + (named if isinstance(named, str) else plan_of(named).name), done="paused")


@projections.command("resume", cls=Command)
def resume(url: Url = None, name: Name = None, import_path: ImportPath = ".", as_json: Json = None) -> None:
    """Let it go on: after a pause, or once more with the event at which it stopped."""
    with at_desk(url, name, import_path) as (desk, named):
        desk.resume(named)
        (now,) = desk.status(named)
    acted(as_json, named, f"may go on. {now.sentence}", done="resumed")


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
    screen = Screen(as_json, wide)
    with at_desk(url, name, import_path) as (desk, named):
        found = desk.parked(named, generation)
    if screen.json:
        screen.lines(msgspec.json.encode(each) for each in found)
        return
    waiting = [each for each in found if each.state == "parked" and not each.attempts and not all_]
    columns = (Column("position", True), Column("type", elastic=True), Column("key", elastic=True), Column("state"))
    columns += (Column("tried", True), Column("why", elastic=True, least=20))
    rows = [
        (f"{e.position:,}", e.type, printable(e.key), e.state, f"{e.attempts}", printable(e.because or e.error))
        for e in found
        if all_ or e.attempts or e.state != "parked"
    ]
    screen.table(columns, rows)
    if waiting:
        screen.hint(f"{counted(len(waiting), 'later event')} of these keys only wait; --all lists them.")


@projections.command("retry", cls=Command)
def retry(
    url: Url = None,
    name: Name = None,
    position: Position = None,
    import_path: ImportPath = ".",
    as_json: Json = None,
) -> None:
    """Have parked events tried again by their runner: one with its key's later ones, or all."""
    with at_desk(url, name, import_path) as (desk, named):
        count = desk.retry(named, position)
    text = f"has {counted(count, 'event')} due: its runner tries them again within about a second."
    acted(as_json, named, text, due=count, done="due to be tried again")


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
    with at_desk(url, name, import_path) as (desk, named):
        desk.skip(named, position, because)
    acted(as_json, named, f"leaves event {position:,} out: {because.rstrip('.')}.", position=position, done="skipped")


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
    with at_desk(url, name, import_path) as (desk, named):
        position = desk.begin(named, place_of(at))
    known_as = named if isinstance(named, str) else name_of(desk, named)
    acted(as_json, known_as, f"goes on behind position {position:,}.", done="begun", position=position)


@projections.command("forget", cls=Command)
def forget(url: Url = None, name: Name = None, import_path: ImportPath = ".", as_json: Json = None) -> None:
    """Give up what is kept: a follower's progress, or a read model with all its rows."""
    with at_desk(url, name, import_path) as (desk, named):
        position = desk.forget(named)
    text = f"is forgotten; it had come to position {position:,}."
    acted(as_json, named, text, done="forgotten", position=position)
