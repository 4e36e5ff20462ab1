"""Room: `eventfold tail`: events as they come, and progress that outlives the process.

Knows: that progress is kept after events were delivered, never before. Does not know: how events are found.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from eventfold.cli.ending import Signals, note
from eventfold.cli.events import Events
from eventfold.cli.files import write_whole
from eventfold.cli.filters import query_of
from eventfold.cli.lines import line_of
from eventfold.cli.moments import since, until
from eventfold.cli.nearest import tell_nearest
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
    opened,
    position_in,
    position_or_cursor,
)
from eventfold.cli.screen import Screen
from eventfold.cli.shown import counted
from eventfold.core.event import Recorded
from eventfold.core.query import Cursor, Query
from eventfold.errors import CursorMismatch
from eventfold.running.follower import Follower
from eventfold.store import Store

LAST = 10  # events shown before the live ones where nobody said from where
IDLE = 1.0  # seconds without an event after which progress past unasked-for events is kept

Page = list[Recorded[Any]]


def tail(
    url: Url = None,
    types: Types = None,
    tags: Tags = None,
    where: Where = None,
    after: After = None,
    since_: Since = None,
    occurred_since: OccurredSince = None,
    occurred_until: OccurredUntil = None,
    last: Annotated[
        int | None,
        typer.Option("--last", "-n", min=0, metavar="N", help="Begin with the last N (10).", show_default=False),
    ] = None,
    cursor: Annotated[
        Path | None,
        typer.Option(
            "--cursor",
            metavar="FILE",
            help="Keep progress in this file, and resume from it; without it there, begin at --after or the beginning.",
            dir_okay=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Keep progress in the store, under this name, and resume from it."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="End after N events.", show_default=False)
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End when all there is has been shown.")] = False,
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """Show events as they come, until Ctrl-C.

    First the last ten, then each as it is written, by anyone. With --cursor FILE or --name NAME nothing is missed
    between two runs: progress is kept after events were delivered, so a run that is killed may repeat some; tell them
    by their ids. A name is proved by `verify`, and shown by `projections status`.
    """
    screen = Screen(as_json, wide)
    if cursor and name:
        raise typer.BadParameter("progress is kept in one place: give --cursor or --name.", param_hint="--name")
    if last is not None and (after or since_ or cursor or name):
        raise typer.BadParameter("it says where to begin, and so does another option: give one.", param_hint="--last")
    query = query_of(types, tags, where)
    window = (since(occurred_since), until(occurred_until))
    signals = Signals()
    keep = cursor or name
    with signals.heeded(), opened(url) as store, Delivery(screen, store, keep, limit, window, signals) as delivery:
        tell_nearest(store, query)
        start = first_of(store, delivery, query, after, since_, LAST if last is None else last)
        with signals.held():  # it starts a thread that watches the store
            follower = store.follow(query, name=name, after=start, raw=True)
        with follower:
            delivery.run(follower, once)


def first_of(
    store: Store, delivery: Delivery, query: Query, after: str | None, since_: str | None, last: int
) -> int | Cursor:
    """Where to begin to follow. The last few, if they are asked for, are delivered here."""
    kept = read_cursor(delivery.keep) if isinstance(delivery.keep, Path) else None
    if kept is not None:
        return kept
    head = store.head()
    if since_ is not None:
        first = next(store.read(since=since(since_), limit=1, raw=True), None)
        return max(position_in(store, after), head if first is None else first.position - 1)
    if after is not None or delivery.keep is not None:
        return position_or_cursor(after)
    if last:
        newest = store.read(query, until=head, backwards=True, limit=last, raw=True)
        delivery.give(list(newest)[::-1], store.cursor(head))
    return head


class Delivery:
    """Hands events to the screen, and keeps how far its reader has come. When it ends, it tells how to go on."""

    def __init__(
        self,
        screen: Screen,
        store: Store,
        keep: Path | str | None,
        limit: int | None,
        window: tuple[datetime | None, datetime | None],
        signals: Signals,
    ) -> None:
        self.screen, self.store, self.keep, self.limit = screen, store, keep, limit
        self._follower: Follower | None = None
        self._signals = signals
        self.given = 0
        self._since, self._until = window
        self._table = Events(screen)
        self.reached = ""

    @property
    def full(self) -> bool:
        """Whether as many as were asked for were given."""
        return self.limit is not None and self.given >= self.limit

    def __enter__(self) -> Delivery:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None or issubclass(kind, (KeyboardInterrupt, SystemExit)):
            self._farewell()

    def run(self, follower: Follower, once: bool) -> None:
        """Deliver until enough were given, or (`once`) all there is, or for ever."""
        if self.full:
            return
        self._follower = follower
        for page in follower.pages(timeout=0.0 if once else IDLE):
            self.give(page, follower.cursor)
            if self.full or (once and not page):
                return

    def give(self, page: Page, end: Cursor) -> None:
        """Show what of a page is wanted, then keep the progress: `end` is how far the whole page reaches."""
        wanted = [each for each in page if self._in_window(each)]
        if self.limit is not None and len(wanted) > self.limit - self.given:
            wanted = wanted[: self.limit - self.given]
            end = self.store.cursor(wanted[-1].position)
        with self._signals.held():
            if self.screen.json:
                self.screen.lines(line_of(each.stored) for each in wanted)
            else:
                self._table.show(wanted)
            self.screen.flush()
            self.given += len(wanted)
            self._keep(end)

    def _in_window(self, recorded: Recorded[Any]) -> bool:
        moment = recorded.occurred or recorded.time
        return (self._since is None or moment >= self._since) and (self._until is None or moment <= self._until)

    def _keep(self, cursor: Cursor) -> None:
        text = str(cursor)
        if isinstance(self.keep, Path):
            if text != self.reached:
                write_cursor(self.keep, text)
        elif isinstance(self.keep, str) and self._follower is not None:
            self._follower.acknowledge(cursor)
        self.reached = text

    def _farewell(self) -> None:
        match self.keep:
            case Path():
                onward = f"--cursor {self.keep}"
            case str():
                onward = f"--name {self.keep}"
            case None:
                onward = f"--after {self.reached}"
        note(f"{counted(self.given, 'event')} shown. Go on with {onward}" if self.reached else "Nothing was shown.")


def read_cursor(file: Path) -> Cursor | None:
    """The cursor kept in a file; None if there is no file yet. Raises CursorMismatch on anything else in it."""
    if not file.exists():
        return None
    text = file.read_text("utf-8", errors="replace").strip()
    try:
        return Cursor.parse(text)
    except CursorMismatch as error:
        raise CursorMismatch(
            f"{file} holds no cursor.", "Name another file, or remove it to begin again.", path=str(file)
        ) from error


def write_cursor(file: Path, cursor: str) -> None:
    """Keep a cursor durably: whoever reads the file, at any moment, finds the old one or the new one, whole."""
    write_whole(file, f"{cursor}\n".encode(), "Progress")
