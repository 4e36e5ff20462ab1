"""Report: the results of the run, on a terminal of 80 columns.

Knows: rich, texts, the figures. Does not know: how a figure is computed.
"""

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from eventfold.demo.flights.figures import HOUR, Figures, total
from eventfold.demo.flights.figures import Progress as Report
from eventfold.demo.flights.models import NEW_YORK, Line

WIDTH = 80
LINES = 16  # of the board
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
HEAT = (  # the largest mean in minutes, and its style
    (3, "#c9f2d3 on #14532d"),
    (8, "#dcf0b0 on #3f6212"),
    (14, "#fdeeb0 on #7c5a0a"),
    (22, "#ffdcb8 on #93400e"),
    (10_000, "#ffd2d2 on #8b1a1a"),
)
BLOCKS = " ▁▂▃▄▅▆▇█"


@contextmanager
def counting() -> Generator[Report]:
    """Show a progress bar on standard error while the block runs, if that is a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("  [bold]{task.description:<8}[/]"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TextColumn("[dim]{task.fields[rate]}[/]"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}

        def report(what: str, there: int, wanted: int) -> None:
            if what not in tasks:
                for done in tasks.values():
                    bar.update(done, visible=False)
                tasks[what] = bar.add_task(what, total=wanted, rate="")
            speed = bar.tasks[-1].speed
            bar.update(tasks[what], completed=there, total=wanted, rate=f"{speed:,.0f}/s" if speed else "")

        yield report


def show(figures: Figures) -> None:
    """Print the report on standard output."""
    console = Console(highlight=False)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    for part in parts(figures):
        console.print(part)
    console.print(commands(figures), soft_wrap=True)  # without line breaks, so that they can be copied
    console.print()


def parts(figures: Figures) -> Iterator[RenderableType]:
    """Yield the report, chapter by chapter."""
    seconds = figures.seconds
    yield from (Text(), title(figures), Text(), counts(figures))
    yield heading("Departure delays by carrier and month", "mean minutes", seconds["tables"])
    yield delays(figures)
    yield heading("The rule changes", "late from 15 minutes on, and no longer from 1", seconds["rule"])
    yield rule(figures)
    yield heading("The hours of the day", "departures, by the clock in New York")
    yield hours(figures)
    yield heading(
        f"The departure board of {figures.board.origin}, and an hour earlier",
        f"{local(figures.board.moment):%a %d %b %Y}",
        seconds["board"],
    )
    yield board(figures)
    yield heading(f"A day of {figures.aircraft.aircraft}", "times of New York", seconds["aircraft"])
    yield aircraft(figures)
    yield heading("One gate for each flight", f"{figures.gates.contest.tasks} tasks at once", seconds["gates"])
    yield contest(figures)
    yield heading("The same figures from the source", "DuckDB reading the file itself", seconds["check"])
    yield verdict(figures)
    yield heading("Explore the store", "")


def heading(words: str, note: str, seconds: float | None = None) -> RenderableType:
    """A chapter's heading: its title on the left, its duration on the right."""
    grid = Table.grid(expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    left = Text.assemble((words, "bold cyan"), ("  " + note if note else "", "dim"))
    grid.add_row(left, Text("" if seconds is None else f"{seconds:.1f} s", "dim"))
    return Padding(grid, (1, 1, 0, 1))


def title(figures: Figures) -> RenderableType:
    """The title: what was loaded, and how fast."""
    loaded, seconds = figures.loaded, figures.seconds["load"]
    how = (
        f"{loaded.appended:,} events written in {seconds:.1f} s, {loaded.appended / seconds:,.0f} a second"
        if loaded.appended
        else "every event was in the log already: nothing was written"
    )
    if loaded.appended and loaded.found:
        how = f"found {loaded.found:,} events of an earlier load, {how}"
    span = "A year of flights" if figures.limit is None else f"The first {figures.flights:,} flights of 2013"
    size = f" · {figures.size / 1e6:,.0f} MB" if figures.size else ""
    memory = f" · {figures.memory / 1e6:,.0f} MB of memory at most" if figures.memory else ""
    return Padding(
        Group(
            Text.assemble((f"{span} out of New York, as ", "bold"), (f"{loaded.events:,} events", "bold cyan")),
            Text(f"{figures.database}{size}{memory} · {figures.seconds['total']:.0f} s in all", "dim"),
            Text(how, "dim"),
        ),
        (0, 1),
    )


def counts(figures: Figures) -> RenderableType:
    """The number of events of each kind."""
    order = ("FlightScheduled", "FlightDeparted", "FlightArrived", "FlightDiverted", "FlightCancelled")
    return numbers({kind.removeprefix("Flight").lower(): figures.counts.get(kind, 0) for kind in order})


def numbers(given: dict[str, int]) -> RenderableType:
    """Numbers side by side, each above its name."""
    table = Table(box=None, padding=(0, 1), show_header=False, expand=True, show_edge=False)
    for _ in given:
        table.add_column(ratio=1, no_wrap=True)
    table.add_row(*[Text(f"{number:,}", "bold") for number in given.values()])
    table.add_row(*[Text(name, "dim") for name in given])
    return table


def delays(figures: Figures) -> RenderableType:
    """A heat map: carriers down, months across."""
    months = sorted({each.month for each in figures.months})
    table = Table(box=None, padding=(0, 0), collapse_padding=True, show_edge=False)
    table.add_column("", width=23, no_wrap=True)
    for month in months:
        table.add_column(MONTHS[int(month[5:]) - 1], justify="right", width=4, header_style="dim")
    table.add_column("all", justify="right", width=5, header_style="dim")
    cells = {(each.carrier, each.month): each for each in figures.months}
    for carrier in sorted({each.carrier for each in figures.months}):
        own = [each for each in figures.months if each.carrier == carrier]
        name = figures.airlines.get(carrier, "").removesuffix(" Inc.").removesuffix(" Co.").removesuffix(" Corporation")
        row = [Text.assemble((f"{carrier} ", "bold"), (name[:19], ""))]
        for month in months:
            cell = cells.get((carrier, month))
            row.append(heat(cell.departure_delay, cell.departed) if cell else Text(" ·  ", "dim"))
        row.append(Text(mean(total(own, "departure_delay"), total(own, "departed")) + " ", "bold"))
        table.add_row(*row)
    return Padding(table, (0, 1))


def mean(minutes: int, flights: int) -> str:
    """The mean minutes of a flight, rounded; a dash if no flight left."""
    return f"{minutes / flights:.0f}" if flights else "–"


def heat(minutes: int, flights: int) -> Text:
    """A mean, with a background by its size."""
    if not flights:
        return Text(" –  ", "dim")
    style = next(style for limit, style in HEAT if minutes / flights <= limit)
    return Text(f"{mean(minutes, flights):>3} ", style)


def rule(figures: Figures) -> RenderableType:
    """The table that was rebuilt beside the live one, the differences, and the verdicts of `verify`."""
    change, table = figures.rule, Table(box=None, padding=(0, 1), collapse_padding=True, show_edge=False)
    table.add_column("late departures", style="dim", no_wrap=True)
    most = sorted(change.late, key=lambda carrier: -change.late[carrier][0])[:9]
    for carrier in most:
        table.add_column(carrier, justify="right", min_width=6)
    for name, side in (("by the old rule", 0), ("by the new one", 1)):
        table.add_row(name, *[f"{change.late[carrier][side]:,}" for carrier in most])
    speed = f", {change.events / change.seconds:,.0f} events a second" if change.seconds else ""
    words = Text(
        f"carrier_month was rebuilt from the log beside the live table, in {change.seconds:.1f} s{speed}. "
        f"Then the two were compared, the new one went live, was verified, and was rolled back.",
        "dim",
    )
    compared = Text.assemble(
        (f"{change.different:,} of {change.rows[0]:,} rows differ", "bold"),
        (f", as they should: digests {change.digests[0][:12]} and {change.digests[1][:12]}", "dim"),
    )
    mark = ("✓ ", "bold green") if change.proved else ("✗ ", "bold red")
    proofs = [Text.assemble(mark, f"{name}: {verdict}") for name, verdict in change.proofs.items()]
    return Group(Padding(words, (0, 1)), Padding(table, (1, 0, 1, 0)), Padding(Group(compared, *proofs), (0, 1)))


def hours(figures: Figures) -> RenderableType:
    """Departures by hour of the day as bars, and the busiest and the worst hour in words."""
    most, height = max(figures.day_hours) or 1, 4
    rows: list[Text] = []
    for level in range(height - 1, -1, -1):
        row = Text()
        for count in figures.day_hours:
            eighths = min(8, max(0, round(count / most * height * 8) - level * 8))
            row.append(BLOCKS[eighths] * 2 + " ", "cyan")
        rows.append(row)
    rows.append(Text("".join(f"{hour:02d} " for hour in range(24)), "dim"))
    busy, late = figures.busiest, figures.worst
    return Padding(
        Group(
            *rows,
            Text.assemble(
                ("busiest  ", "dim"), (busy.origin, "bold"), f", {hour_of(busy.hour)}: {busy.departures} flights left"
            ),
            Text.assemble(
                ("worst    ", "dim"),
                (late.origin, "bold"),
                f", {hour_of(late.hour)}: {late.departures} left, {late.waited:,} minutes late together",
            ),
        ),
        (0, 1, 0, 4),
    )


def hour_of(moment: datetime) -> str:
    """An hour as a date and two clock times."""
    return f"{local(moment):%d %b %H:00} to {local(moment + HOUR):%H:00}"


def board(figures: Figures) -> RenderableType:
    """The lines that changed within the hour, and those of flights that still wait, at both times."""
    now, before = figures.board, figures.earlier
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False, header_style="dim", expand=True)
    table.add_column("due", width=5)
    table.add_column("flight", width=7)
    table.add_column("to", ratio=1, no_wrap=True)
    table.add_column(f"board at {local(before.moment):%H:%M}", width=17, no_wrap=True)
    table.add_column(f"board at {local(now.moment):%H:%M}", width=17, no_wrap=True)
    earlier = {line.flight: line for line in before.lines}
    late = [line for line in now.lines if line.flight in figures.changed or waiting(line, now.moment)]
    for line in late[:LINES]:
        table.add_row(
            f"{local(line.departs):%H:%M}",
            Text(line.flight.split("-")[0], "bold"),
            Text.assemble((line.dest + " ", ""), (place(figures, line.dest), "dim")),
            status(earlier.get(line.flight), before.moment),
            status(line, now.moment),
        )
    more = f"{len(late) - LINES} more such lines. " if len(late) > LINES else ""
    summary = Text(
        f"{more}In that hour {len(figures.changed)} lines changed; waiting past their time: "
        f"{before.waiting} at {local(before.moment):%H:%M}, {now.waiting} at {local(now.moment):%H:%M}.",
        "dim",
    )
    return Group(table, Padding(summary, (0, 1)))


def place(figures: Figures, airport: str) -> str:
    """An airport's name without the words that most of them have."""
    return " ".join(
        word for word in figures.airports.get(airport, "").split() if word not in {"Intl", "Airport", "Arpt"}
    )


def waiting(line: Line, moment: datetime) -> bool:
    """Whether a flight was scheduled to leave by this time and has not left."""
    return line.status == "scheduled" and line.departs <= moment


def status(line: Line | None, moment: datetime) -> Text:
    """The text of a line's status at a moment."""
    if line is None:
        return Text("not announced", "dim")
    if line.status == "cancelled":
        return Text("cancelled", "red")
    if line.delay is not None:
        left = line.departs + timedelta(minutes=line.delay)
        return Text(f"left {local(left):%H:%M} {late(line.delay)}", "green" if line.delay < 15 else "")
    if waiting(line, moment):
        minutes = int((moment - line.departs).total_seconds()) // 60
        return Text(f"waiting {late(minutes)}", "yellow")
    return Text("on time", "dim")


def late(minutes: int) -> str:
    """Minutes of delay as hours and minutes, with a sign."""
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60}:{abs(minutes) % 60:02d}"


def aircraft(figures: Figures) -> RenderableType:
    """The legs of a day, in order."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False, header_style="dim", expand=True)
    for name, width in (("left", 12), ("flight", 7), ("from", 4), ("to", 4), ("landed", 12), ("in the air", 10)):
        table.add_column(name, min_width=width, no_wrap=True)
    for leg in figures.aircraft.legs:
        landed = Text("diverted", "red") if leg.diverted else Text("not yet", "dim")
        if leg.arrived is not None and leg.arrival_delay is not None:
            landed = Text(f"{local(leg.arrived):%H:%M}  {late(leg.arrival_delay)}")
        air = "" if leg.air_time is None else f"{leg.air_time // 60}:{leg.air_time % 60:02d}"
        left = f"{local(leg.departed):%H:%M}  {late(leg.departure_delay)}"
        table.add_row(left, Text(leg.flight.split("-")[0], "bold"), leg.origin, leg.dest, landed, air)
    return table


def contest(figures: Figures) -> RenderableType:
    """The result of the contest for gates, and what the log proves about it."""
    gates, result = figures.gates, figures.gates.contest
    words = Text(
        f"{result.flights} flights left {gates.airport} on {gates.day}. Two agents request a gate for each of them, "
        f"all at once. Concurrent decisions about one gate or flight are chained, so few have to be repeated.",
        "dim",
    )
    row = numbers(
        {
            "requests": result.requests,
            "decisions": result.decisions,
            "repeated": result.conflicts,
            "got a gate": result.assigned,
            "came second": result.second,
        }
        | ({"found none": result.unplaced} if result.unplaced else {})
    )
    if gates.breaches:
        proof = Text("\n".join(f"✗ {breach}" for breach in gates.breaches[:5]), "bold red")
    else:
        proof = Text.assemble(
            ("✓ ", "bold green"),
            f"In the log, {gates.given} flights have one gate each, and no gate has two at a time.",
        )
    return Group(Padding(words, (0, 1)), row, Padding(proof, (0, 1)))


def verdict(figures: Figures) -> RenderableType:
    """Whether all figures agree, or which differ."""
    if not figures.mismatches:
        words = Text.assemble(
            ("✓ ", "bold green"),
            (f"{figures.compared:,} figures", "bold"),
            " were computed again in plain SQL: all of them agree.",
        )
        return Padding(words, (0, 1))
    lines = [Text(f"✗ {len(figures.mismatches):,} of {figures.compared:,} figures differ.", "bold red")]
    lines += [
        Text(f"  {each.figure}: {each.events} in the events, {each.source} in the source", "red")
        for each in figures.mismatches[:10]
    ]
    return Padding(Group(*lines), (0, 1))


def explore(figures: Figures) -> list[tuple[str, str]]:
    """Commands to explore the log with, each after what it shows; their tags are in this log."""
    store, demo = shlex.quote(figures.database), "eventfold.demo.flights"
    flight = next((line.flight for line in figures.board.lines if line.flight in figures.changed), "")
    origin, craft, gates = figures.board.origin, figures.aircraft, figures.gates
    days = sorted({line.day for line in figures.board.lines if line.flight in figures.changed})
    asked = days[0] if len(days) == 1 else " ".join(f"days={day}" for day in days)
    moment = local(figures.earlier.moment).isoformat(timespec="minutes")
    return [
        ("all events of one flight", f"eventfold read {store} --tag flight:{flight}"),
        (
            "one aircraft's day, step by step",
            f"eventfold history {store} {demo}:AircraftDay {craft.aircraft} {craft.day}",
        ),
        ("a board, at any minute", f"eventfold state {store} {demo}:Board {origin} {asked} --occurred-until {moment}"),
        ("the status of the tables", f"eventfold projections status {store}"),
        ("the flights at a gate", f"eventfold read {store} --tag plan:{gates.contest.plan} --tag gate:{origin}-01"),
        ("the keys of all tags", f"eventfold tags {store} --keys"),
    ]


def commands(figures: Figures) -> RenderableType:
    """The commands, each below what it shows; long ones continue on a second line, in the shell's syntax."""
    lines: list[Text] = []
    for shows, command in explore(figures):
        if len(command) > WIDTH - 4:
            head, mark, tail = command.rpartition(" --" if " --" in command else " eventfold.")
            command = f"{head} \\\n     {mark}{tail}" if head else command
        lines += [Text(f" {shows}", "dim"), Text(f"   {command}", "bold")]
    return Text("\n").join(lines)


def local(moment: datetime) -> datetime:
    """A time in the time zone of New York."""
    return moment.astimezone(NEW_YORK)
