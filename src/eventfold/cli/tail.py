"""`eventfold tail`: new events as they are written, with progress that is saved between runs.

Knows: that progress is saved after delivery, never before. Does not know: how events are found.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from eventfold.cli.event_table import EventTable
from eventfold.cli.exit_codes import Signals, print_note
from eventfold.cli.options import (
    After,
    Json,
    OccurredSince,
    OccurredUntil,
    Since,
    Tags,
    Types,
    Url,
    Where,
    Wide,
    build_query,
    open_store,
    parse_position_or_cursor,
    parse_since,
    parse_until,
    resolve_after,
)
from eventfold.cli.output import Output, write_file_atomically
from eventfold.cli.suggestions import print_suggestions
from eventfold.core.counted import count_of
from eventfold.core.event import Recorded
from eventfold.core.event_json import encode_line
from eventfold.core.query import Cursor, Query
from eventfold.errors import CursorMismatch
from eventfold.projections.followers import Follower
from eventfold.store import Store

DEFAULT_LAST = 10  # events shown before live ones, unless another start is given
IDLE_TIMEOUT_S = 1.0  # seconds without a matching event after which progress past other events is saved

Page = list[Recorded[Any]]


def tail(
    url: Url = None,
    types: Types = None,
    tags: Tags = None,
    where: Where = None,
    after: After = None,
    since: Since = None,
    occurred_since: OccurredSince = None,
    occurred_until: OccurredUntil = None,
    last: Annotated[
        int | None,
        typer.Option("--last", "-n", min=0, metavar="N", help="Start with the last N events (10).", show_default=False),
    ] = None,
    cursor: Annotated[
        Path | None,
        typer.Option(
            "--cursor",
            metavar="FILE",
            help="Save progress in FILE and resume from it. A new FILE starts at --after, or at 0.",
            dir_okay=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Save progress in the store under this name, and resume from it."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="Exit after N events.", show_default=False)
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Exit when all events so far were shown.")] = False,
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """Show new events as they are written, until Ctrl-C.

    First the last ten, then each new event, from any writer. With --cursor FILE or --name NAME no event is missed
    between two runs. Progress is saved after delivery, so a run that is killed may repeat some events; recognise them
    by their ids. `verify` checks a name, and `projections status` shows it.
    """
    output = Output(as_json, wide)
    if cursor and name:
        raise typer.BadParameter("progress is saved in one place. Give --cursor or --name.", param_hint="--name")
    if last is not None and (after or since or cursor or name):
        raise typer.BadParameter("another option sets the start as well. Give one of them.", param_hint="--last")
    query = build_query(types, tags, where)
    window = (parse_since(occurred_since), parse_until(occurred_until))
    signals = Signals()
    keep = cursor or name
    with (
        signals.installed(),
        open_store(url) as store,
        Delivery(output, store, keep, limit, window, signals) as delivery,
    ):
        print_suggestions(store, query)
        start = find_start(store, delivery, query, after, since, DEFAULT_LAST if last is None else last)
        with signals.deferred():  # it starts a thread that watches the store, which must not be interrupted
            follower = store.follow(query, name=name, after=start, raw=True)
        with follower:
            delivery.run(follower, once)


def find_start(
    store: Store, delivery: Delivery, query: Query, after: str | None, since: str | None, last: int
) -> int | Cursor:
    """Where to start following. Delivers the last events, if they are requested."""
    kept = read_cursor(delivery.progress_place) if isinstance(delivery.progress_place, Path) else None
    if kept is not None:
        return kept
    head = store.head()
    if since is not None:
        first = next(store.read(since=parse_since(since), limit=1, raw=True), None)
        return max(resolve_after(store, after), head if first is None else first.position - 1)
    if after is not None or delivery.progress_place is not None:
        return parse_position_or_cursor(after)
    if last:
        newest = store.read(query, until=head, backwards=True, limit=last, raw=True)
        delivery.deliver(list(newest)[::-1], store.cursor(head))
    return head


class Delivery:
    """Prints events, then saves progress. On exit it prints how to resume."""

    def __init__(
        self,
        output: Output,
        store: Store,
        keep: Path | str | None,
        limit: int | None,
        window: tuple[datetime | None, datetime | None],
        signals: Signals,
    ) -> None:
        self.output, self.store, self.progress_place, self.limit = output, store, keep, limit
        self._follower: Follower | None = None
        self._signals = signals
        self.delivered = 0
        self._since, self._until = window
        self._table = EventTable(output)
        self.reached_cursor = ""

    @property
    def is_complete(self) -> bool:
        """Whether --limit is reached."""
        return self.limit is not None and self.delivered >= self.limit

    def __enter__(self) -> Delivery:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None or issubclass(kind, (KeyboardInterrupt, SystemExit)):
            self._print_how_to_resume()

    def run(self, follower: Follower, once: bool) -> None:
        """Deliver until --limit is reached, or (`once`) the end of the log, or forever."""
        if self.is_complete:
            return
        self._follower = follower
        for page in follower.pages(timeout=0.0 if once else IDLE_TIMEOUT_S):
            self.deliver(page, follower.cursor)
            if self.is_complete or (once and not page):
                return

    def deliver(self, page: Page, end: Cursor) -> None:
        """Print the matching events of a page, then save progress; `end` is the cursor after the whole page."""
        wanted = [each for each in page if self._in_window(each)]
        if self.limit is not None and len(wanted) > self.limit - self.delivered:
            wanted = wanted[: self.limit - self.delivered]
            end = self.store.cursor(wanted[-1].position)
        with self._signals.deferred():
            if self.output.is_json:
                self.output.write_lines(encode_line(each.stored) for each in wanted)
            else:
                self._table.print_page(wanted)
            self.output.flush()
            self.delivered += len(wanted)
            self._save_progress(end)

    def _in_window(self, recorded: Recorded[Any]) -> bool:
        moment = recorded.occurred or recorded.time
        return (self._since is None or moment >= self._since) and (self._until is None or moment <= self._until)

    def _save_progress(self, cursor: Cursor) -> None:
        text = str(cursor)
        if isinstance(self.progress_place, Path):
            if text != self.reached_cursor:
                write_cursor(self.progress_place, text)
        elif isinstance(self.progress_place, str) and self._follower is not None:
            self._follower.acknowledge(cursor)
        self.reached_cursor = text

    def _print_how_to_resume(self) -> None:
        match self.progress_place:
            case Path():
                onward = f"--cursor {self.progress_place}"
            case str():
                onward = f"--name {self.progress_place}"
            case None:
                onward = f"--after {self.reached_cursor}"
        print_note(
            f"{count_of(self.delivered, 'event')} shown. Resume with {onward}"
            if self.reached_cursor
            else "No events were shown."
        )


def read_cursor(file: Path) -> Cursor | None:
    """The cursor saved in a file; None if there is no file. Raises CursorMismatch on other content."""
    if not file.exists():
        return None
    text = file.read_text("utf-8", errors="replace").strip()
    try:
        return Cursor.parse(text)
    except CursorMismatch as error:
        raise CursorMismatch(
            f"{file} does not contain a cursor.", "Name another file, or remove it to start again.", path=str(file)
        ) from error


def write_cursor(file: Path, cursor: str) -> None:
    """Save a cursor durably and atomically."""
    write_file_atomically(file, f"{cursor}\n".encode(), "Progress")
