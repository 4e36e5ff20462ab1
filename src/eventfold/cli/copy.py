"""Room: `eventfold copy`: a whole log into another store, whatever the engines, and proven equal.

Knows: two addresses and a progress bar. Does not know: how a log is copied.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

import typer

from eventfold.cli.options import Json, Url, addressed, opened
from eventfold.cli.screen import Screen
from eventfold.cli.shown import counted
from eventfold.concurrency.run import run
from eventfold.log.copy import Progress
from eventfold.log.copy import verify as compared


def copy(
    url: Url = None,
    target: Annotated[
        str | None, typer.Argument(metavar="TO", help="The other store; made if nothing is there.", show_default=False)
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Read both afterwards, and compare every event.")
    ] = True,
    succeed: Annotated[
        bool,
        typer.Option("--succeed", help="Let an empty TO take over the store's identity, so that cursors hold."),
    ] = False,
    as_json: Json = None,
) -> None:
    """Copy a whole log into another store.

    Ids, positions, times, metadata, append boundaries and request keys are kept, whatever the engines. Stopped, it
    goes on where it was when it is called again. Nobody else may write to TO meanwhile.
    """
    url, others = addressed(url, [] if target is None else [target], needed=1)
    if len(others) != 1:
        raise typer.BadParameter("say where the copy goes.", param_hint="TO")
    screen = Screen(as_json)
    with opened(url) as source, opened(others[0], create=True) as other:
        with progress(screen, "copying") as bar:
            copied = source.copy_to(other, succeed=succeed, verify=False, progress=bar)
        proven = None
        if verify:
            with progress(screen, "comparing") as bar:
                proven = run(compared(source.engine, other.engine, bar)).digest
    if screen.json:
        screen.value(
            {
                "events": copied.events,
                "written": copied.written,
                "keys": copied.keys,
                "succeeded": copied.succeeded,
                "verified": verify,
                "digest": proven,
                "progress": copied.progress,
            }
        )
        return
    new = "" if copied.written == copied.events else f", {copied.written:,} of them now"
    screen.say(f"Copied {counted(copied.events, 'event')} to {others[0]}{new}.")
    if copied.succeeded:
        screen.say(f"{others[0]} has the identity of the store now: cursors and receipts hold there.")
    if copied.progress:
        screen.say(f"How far {', '.join(copied.progress)} had come is known there.")
        if copied.succeeded:
            screen.say("They go on there only: at the old place they are paused.")
    if proven:
        screen.say(f"Both logs were read and are equal; their digest is {proven[:16]}….")


@contextmanager
def progress(screen: Screen, what: str) -> Generator[Progress, None, None]:
    """A progress bar on a terminal, with events a second and the time left; nothing in a pipe."""
    if not screen.terminal or screen.json:
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]:>16}")
    columns = (TextColumn(f"{what:<9}"), BarColumn(None), MofNCompleteColumn(), rate, TimeRemainingColumn())
    with Progress(*columns, console=screen.console, transient=True) as bar:
        task = bar.add_task(what, total=None, rate="")

        def tell(done: int, total: int) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, completed=done, total=total, rate=f"{speed:,.0f} events/s" if speed else "")

        yield tell
