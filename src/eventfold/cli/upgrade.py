"""`eventfold upgrade`: a store of an older layout, brought to this version's.

Knows: two flags, and what is said afterwards. Does not know: what any layout changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eventfold.cli.options import VARIABLE, Json, Url, without_password
from eventfold.cli.screen import Screen
from eventfold.concurrency.run import run
from eventfold.engines import open_engine, upgraded
from eventfold.errors import InvalidInput


def upgrade(
    url: Url = None,
    backup: Annotated[
        str | None,
        typer.Option(
            "--backup", metavar="FILE", help="Where the copy goes. Else beside the store.", show_default=False
        ),
    ] = None,
    no_backup: Annotated[bool, typer.Option("--no-backup", help="Write no copy of the file first.")] = False,
    as_json: Json = None,
) -> None:
    """Bring a store of an older layout to this version's.

    Stop every process that uses the store first. One transaction: whatever fails, or ends it, leaves the store as it
    was. No event is rewritten. A copy of a file is written first; a PostgreSQL store is yours to dump (pg_dump). A
    store that has the newest layout already is left as it is.
    """
    if not url:
        raise typer.BadParameter(f"name the store, or set {VARIABLE}.", param_hint="STORE")
    if backup is not None and no_backup:
        raise InvalidInput("--backup and --no-backup contradict each other.", "Give one of them.")
    if backup is not None and Path(backup).exists():
        raise InvalidInput(f"{backup} is there already.", "Name a path where nothing is, or move the old copy away.")
    screen = Screen(as_json)
    done = run(upgraded(open_engine(url, "sync", False, {}), backup, copies=not no_backup))
    shown = without_password(url)
    if screen.json:
        screen.value({"had": done.had, "layout": done.now, "backup": done.backup})
    elif done.had == done.now:
        screen.say(f"{shown} has layout {done.now} already, the newest: nothing was done.")
    else:
        screen.say(f"{shown} had layout {done.had}, and has {done.now} now. No event was rewritten.")
        if done.backup is not None:
            screen.say(f"A copy from before is at {done.backup}: remove it when all is well.")
