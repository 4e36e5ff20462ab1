"""Room: `eventfold run`: read models kept up to date by a process of their own.

Knows: MODULE:NAME, signals. Does not know: how a projection is run.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from eventfold.cli.options import Url, addressed, opened
from eventfold.cli.state import ImportPath
from eventfold.errors import EventfoldError
from eventfold.process.code import load as everything
from eventfold.running.code import load

Codes = Annotated[
    list[str] | None,
    typer.Argument(metavar="MODULE:NAME…", help="Classes, lists of them, or whole modules.", show_default=False),
]


def imported(names: Sequence[str], import_path: str) -> list[Any]:
    """Projections as they are named: MODULE:CLASS is imported, a plain name stays one."""
    folder = str(Path(import_path).resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return [each for name in names for each in (load(name) if ":" in name else [name])]


def run(
    url: Url = None,
    codes: Codes = None,
    once: Annotated[bool, typer.Option("--once", help="End when all there is to do now is done.")] = False,
    import_path: ImportPath = ".",
) -> None:
    """Keep read models, subscriptions, processes and effects going, until Ctrl-C.

    Start it as often as you like, on as many machines: they share the work. Asked to end (Ctrl-C, SIGTERM), it
    finishes what it has in hand.
    """
    store_url, others = addressed(url, codes or [], needed=1)
    if not others:
        raise typer.BadParameter("name what is to run.", param_hint="MODULE:NAME")
    imported([], import_path)
    found = [each for code in others for each in everything(code)]
    with opened(store_url) as store:
        if once:
            store.settle(*found)
            return
        ended = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda _number, _frame: ended.set())
        with store.run(*found) as running:
            told: dict[str, EventfoldError] = {}
            while not ended.wait(0.5) and running.running:
                for name, error in running.trouble.items():
                    if told.get(name) is not error:
                        sys.stderr.write(f"{name}: {error}\n")
                told = running.trouble
        if running.failed:
            raise first_of(running.failed)


def first_of(failed: dict[str, EventfoldError]) -> EventfoldError:
    """What ended the run; the others are told before it."""
    *others, last = failed.values()
    for error in others:
        sys.stderr.write(f"{error}\n")
    return last
