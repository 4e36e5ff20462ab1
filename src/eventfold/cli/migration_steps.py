"""`eventfold migrate load`, `capture` and `status`: rows and changes of a source become events, and how far that is.

Knows: flags, what is printed, how often a capture looks. Does not know: sources, how events are made.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from eventfold.cli.exit_codes import print_error
from eventfold.cli.formatting import escape_control, format_size
from eventfold.cli.options import Json, Url, Wide, open_store, split_store_argument
from eventfold.cli.output import Output, progress_bar
from eventfold.core.counted import count_of
from eventfold.errors import InvalidInput, SourceUnavailable

if TYPE_CHECKING:
    from eventfold.migrate.load import Loaded, Progress
    from eventfold.migrate.moved import MovedTables
    from eventfold.migrate.progress import Migration
    from eventfold.migrate.session import Session

SOURCE_VARIABLE = "EVENTFOLD_SOURCE"
PAUSE_S = 0.25  # between two looks, unless more is waiting: each look costs the source something
RECONNECT_S = 5.0  # until a source that cannot be used is tried again
COMPARE_KEYS_S = 300.0

Source = Annotated[
    str | None,
    typer.Argument(
        metavar="SOURCE",
        help="A SQLite file, postgresql://…, mysql://… or mariadb://…",
        envvar=SOURCE_VARIABLE,
        show_default=False,
    ),
]
MappingFile = Annotated[Path, typer.Option("--mapping", metavar="FILE", help="What `inspect` wrote, and you edited.")]
Name = Annotated[str, typer.Option("--name", metavar="NAME", help="Of the migration, if a source has several.")]
Rate = Annotated[float | None, typer.Option("--max-rate", metavar="N", min=1, help="At most N rows a second.")]
Replica = Annotated[str | None, typer.Option("--replica", metavar="URL", help="Read rows from this replica.")]
Reread = Annotated[
    list[str] | None, typer.Option("--reread", metavar="TABLE", help="Make its events equal to it. Repeatable.")
]
Because = Annotated[str, typer.Option("--because", metavar="REASON", help="Why tables are read again.")]


def load(
    url: Url = None,
    source: Source = None,
    mapping: MappingFile = Path("migration.toml"),
    replica: Replica = None,
    max_rate: Rate = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Make every event, and append none.")] = False,
    no_capture: Annotated[
        bool, typer.Option("--no-capture", help="Changes are not recorded: no client writes to the source.")
    ] = False,
    reread: Reread = None,
    because: Because = "",
    name: Name = "migration",
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """Append the events of every row of a database: facts that columns prove, then one opening event a row.

    All rows are of one snapshot. A load that was killed goes on where it was: run the same command again. With --reread
    tables are read again after changes were missed, and events say what differed.
    """
    output = Output(as_json, wide)
    with (
        migration_session(url, source, mapping, name, replica, create=True, is_dry=dry_run) as session,
        session.alone(),
        progress_bar(output, "reading") as bar,
    ):

        def progress(done: Progress) -> None:
            bar(done.rows, done.total)

        if dry_run:
            done = session.dry_run(max_rate, progress)
        elif reread:
            done = session.reread(reread, because, max_rate=max_rate, progress=progress)
        else:
            done = session.load(recorded=not no_capture, max_rate=max_rate, progress=progress)
    _print_loaded(output, done, dry_run)


def _print_loaded(output: Output, done: Loaded, dry_run: bool) -> None:
    if output.is_json:
        output.write_value(
            {name: getattr(done, name) for name in ("rows", "events", "found", "seconds", "types")}
            | {"examples": [_example(each) for each in done.examples]}
        )
        return
    for label, count in done.rows.items():
        output.print(f"{escape_control(label)}: {count_of(count, 'row')}")
    for each in done.examples:
        output.print(escape_control(msgspec.json.encode(_example(each)).decode()))
    if dry_run:
        total = sum(done.types.values())
        output.print(f"{count_of(total, 'event')} of {count_of(len(done.types), 'type')} would be appended.")
        return
    rate = sum(done.rows.values()) / max(done.seconds, 1e-6)
    output.print(
        f"{count_of(done.events, 'event')} appended in {done.seconds:.1f} s ({rate:,.0f} rows/s); "
        f"{count_of(done.found, 'row')} had their events."
    )


def _example(event: Any) -> dict[str, Any]:
    return {"type": event.type, "tags": event.tags, "data": msgspec.json.decode(event.data)}


def capture(
    url: Url = None,
    source: Source = None,
    mapping: MappingFile = Path("migration.toml"),
    install: Annotated[bool, typer.Option("--install", help="Begin to record changes in the source.")] = False,
    by: Annotated[
        str | None, typer.Option("--by", metavar="WAY", help="triggers, or decoding (PostgreSQL's own log).")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove what --install made in the source.")] = False,
    once: Annotated[bool, typer.Option("--once", help="End when nothing is left.")] = False,
    compare_keys: Annotated[
        float | None,
        typer.Option("--compare-keys", metavar="SECONDS", help="How often keys are compared; 0: never."),
    ] = None,
    name: Name = "migration",
    as_json: Json = None,
) -> None:
    """Append the changes of a database as events, as they are committed, until it is ended.

    --install comes first, before load: from then on changes are recorded in the source. A change that was missed, or a
    definition that was changed, stops the capture with the reason: nothing is merged. After a cutover it also writes
    what is decided into the tables.
    """
    output = Output(as_json)
    if by not in (None, "triggers", "decoding"):
        raise InvalidInput(f"--by {by!r} is no way to record changes.", "Write triggers or decoding.")
    if remove or install:
        with migration_session(url, source, mapping, name, create=True) as session, session.alone():
            _change_source(output, session, by, remove)
        return
    while True:
        try:
            with migration_session(url, source, mapping, name) as session, session.alone():
                _follow(output, session, once, compare_keys)
            return
        except SourceUnavailable as error:
            if once:
                raise
            print_error(error, output.is_json)
            time.sleep(RECONNECT_S)


def _change_source(output: Output, session: Session, by: Any, remove: bool) -> None:
    if remove:
        session.remove()
        output.print("Nothing of the migration is left in the source.")
        return
    fact = session.install(by)
    tables = count_of(len(fact.definitions), "table")
    output.print(f"Changes of {tables} are recorded by {fact.way}. Next: eventfold migrate load.")


def _follow(output: Output, session: Session, once: bool, compare_keys: float | None) -> None:
    from eventfold.migrate.capture import CHANGES

    every = compare_keys
    if every is None:  # on PostgreSQL nothing escapes its triggers, nor its log
        every = 0.0 if session.plan.schema.dialect == "postgresql" else COMPARE_KEYS_S
    with session.capture() as capture, _moved(session) as moved:
        total, compared = 0, time.monotonic()
        while True:
            count = capture.once()
            total += count
            if moved is not None:
                moved.follow()
            if count >= CHANGES or (count and once):
                continue
            if not count and every and (once or time.monotonic() - compared > every):
                capture.compare_keys()
                compared = time.monotonic()
            if once:
                break
            time.sleep(PAUSE_S)
    if output.is_json:
        output.write_value({"changes": total})
    else:
        output.print(f"{count_of(total, 'change')} captured.")


@contextmanager
def _moved(session: Session) -> Generator[MovedTables | None]:
    """Open the tables that are cut over; None if there are none."""
    labels = session.state().moved
    if not labels:
        yield None
        return
    with session.recorder() as recorder, session.moved(labels, recorder) as moved:
        yield moved


def status(url: Url = None, source: Source = None, name: Name = "migration", as_json: Json = None) -> None:
    """Show how far a migration is: its steps, folded from the store, and with SOURCE what waits there.

    Exits 1 if it is stopped by an alarm.
    """
    from eventfold.migrate.progress import Ledger

    output = Output(as_json)
    url, others = split_store_argument(url, [source] if source else [])
    with open_store(url) as store:
        found = Ledger(store, name).read()
        if found.planned is None:
            raise InvalidInput(f"The store has no migration {name}.", "Begin one: eventfold migrate capture --install.")
        waiting = _backlog(found, others[0]) if others and found.capture is not None else None
    if output.is_json:
        output.write_value(_as_json(found, waiting))
    else:
        _print_status(output, found, waiting)
    if found.alarms:
        raise typer.Exit(1)


def _as_json(found: Migration, waiting: Any) -> dict[str, Any]:
    facts = ("planned", "capture", "load", "advanced", "loaded", "captured", "compared")
    return (
        {"phase": found.phase}
        | {each: msgspec.to_builtins(getattr(found, each)) for each in facts}
        | {"alarms": msgspec.to_builtins(found.alarms), "blocked": found.blocked, "moved": found.moved}
        | {"refused": [msgspec.to_builtins(last) | {"count": count} for last, count in found.refusals_by_origin]}
        | {"source": msgspec.to_builtins(waiting)}
    )


def _backlog(found: Migration, address: str) -> Any:
    from eventfold.migrate.connection import opened
    from eventfold.migrate.reflection import reflect
    from eventfold.migrate.session import recorder_of

    assert found.planned is not None and found.capture is not None
    with opened(address) as connection:
        tables = reflect(connection, found.planned.tables).tables
    recorder = recorder_of(address, found.planned.dialect, found.name, tables, found.capture.way)
    try:
        return recorder.backlog()
    finally:
        recorder.close()


def _print_status(output: Output, found: Migration, waiting: Any) -> None:
    assert found.planned is not None
    output.print(
        f"{found.name}: {found.phase}, {count_of(len(found.planned.tables), 'table')} of {found.planned.source}"
    )
    if found.capture is not None:
        output.print(f"recording: by {found.capture.way}")
    if found.is_loading and found.load is not None:
        done, total = found.advanced, found.load.rows
        shown = "it has just begun, or was ended while reading" if done is None else f"{done.rows:,} of {total:,} rows"
        output.print(f"load: run {found.load.run}, {shown}")
    elif found.loaded is not None:
        rows = sum(found.loaded.rows.values())
        output.print(f"load: {count_of(rows, 'row')}, {count_of(found.loaded.events, 'event')}")
    if found.captured is not None:
        output.print(f"capture: up to {found.captured.point}, {count_of(found.events_captured, 'event')}")
    if waiting is not None:
        limit = f" of {format_size(waiting.limit)}" if waiting.limit is not None else ", without a limit"
        kept = f"; the source keeps {format_size(waiting.retained)}{limit}" if waiting.retained else ""
        output.print(f"waiting: {count_of(waiting.waiting, 'change')}{kept}")
    if found.compared is not None:
        output.print(f"compare: {found.compared.verdict}")
    _print_switch(output, found)
    for each in found.alarms:
        output.print(f"ALARM: {escape_control(each.what)}", style="red")


def _print_switch(output: Output, found: Migration) -> None:
    """Print which tables are cut over or blocked, and which writers were refused."""
    waiting = [each for each in found.blocked if each not in found.moved]
    if found.moved and found.cut_over is not None:
        output.print(f"cut over at position {found.cut_over.position}: {escape_control(', '.join(found.moved))}")
    if waiting:
        output.print(
            f"blocked, by a cutover or a rollback that was ended: {escape_control(', '.join(waiting))}. Run "
            "eventfold migrate cutover again, or rollback, which lifts the block.",
            style="yellow",
        )
    for last, count in found.refusals_by_origin:
        origin = [
            f"{what} {value}"
            for what, value in (("application", last.application), ("user", last.user), ("from", last.address))
            if value
        ]
        what = f"{last.operation} of {last.table}" if last.table else "others, whose origin was not kept"
        output.print(escape_control(f"refused {count:,} times: {what}{': ' if origin else ''}{', '.join(origin)}"))


@contextmanager
def migration_session(
    url: str | None,
    source: str | None,
    mapping: Path,
    name: str,
    replica: str | None = None,
    *,
    create: bool = False,
    is_dry: bool = False,
) -> Generator[Session, None, None]:
    """Open store and source for the block. `is_dry`: a store in memory instead, which nothing outlives."""
    from eventfold.migrate.hidden import hide_with, read_key
    from eventfold.migrate.mapping import read_mapping
    from eventfold.migrate.session import open_session

    url, others = split_store_argument(url, [source] if source else [], needed=1)
    if len(others) != 1:
        raise InvalidInput(f"No source was named, nor is {SOURCE_VARIABLE} set.", "Name it after the store.")
    read = read_mapping(mapping)
    hides = any(each.hide for each in read.migrated.values())
    hide = hide_with(read_key(read.hide_key, mapping.parent)) if hides else None
    with (
        open_store("memory:" if is_dry else url, create=create) as store,
        open_session(store, read, others[0], name=name, hide=hide, replica=replica) as session,
    ):
        yield session
