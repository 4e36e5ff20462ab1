"""`eventfold run`: read models kept up to date by a process of their own.

Knows: MODULE:NAME, signals. Does not know: how a projection is run.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from eventfold.cli.options import Url, open_store, split_store_argument
from eventfold.cli.state import ImportPath
from eventfold.errors import EventfoldError
from eventfold.processes.code_address import load
from eventfold.store import Store

Codes = Annotated[
    list[str] | None,
    typer.Argument(metavar="MODULE:NAME…", help="Classes, lists of them, or whole modules.", show_default=False),
]


def import_projections(names: Sequence[str], import_path: str) -> list[Any]:
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
    finishes what it has in hand and exits with 0. Asked a second time, it ends at once, with 130 or 143; nothing is
    lost. With --once, Ctrl-C exits with 130.
    """
    stop = None if once else stop_on_signals()
    store_url, others = split_store_argument(url, codes or [], needed=1)
    if not others:
        raise typer.BadParameter("name what is to run.", param_hint="MODULE:NAME")
    import_projections([], import_path)
    found = [each for code in others for each in load(code)]
    warnings.showwarning = print_warning
    with open_store(store_url) as store:
        if stop is None:
            run_until_idle(store, found)
            return
        if stop.is_set():
            return
        with store.run(*found) as running:
            if sys.stderr.isatty():
                sys.stderr.write(f"Running {', '.join(others)}. Ctrl-C ends it.\n")
            while not stop.wait(0.5) and running.running:
                continue  # what there is to tell, the threads tell
        if running.failed:
            raise final_error(running.failed)


def stop_on_signals() -> threading.Event:
    """Set at the first Ctrl-C or SIGTERM, from now on; the second one ends the process, with 128 and its number."""
    stop = threading.Event()

    def on_signal(number: int, _frame: object) -> None:
        if stop.is_set():  # progress is kept with the rows, so there is nothing that would have to be finished
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    return stop


def print_warning(message: Warning | str, *_place: Any, **_more: Any) -> None:
    """A warning without its place, which is in our own code."""
    sys.stderr.write(f"{message}\n")


def run_until_idle(store: Store, found: Sequence[Any]) -> None:
    """All that can be done, and then what went wrong: the first of it ends the command, the rest is told before."""
    try:
        store.settle(*found)
    except EventfoldError as error:
        for other in getattr(error, "__notes__", ()):
            sys.stderr.write(f"{other}\n")
        raise


def final_error(failed: dict[str, EventfoldError]) -> EventfoldError:
    """What ended the run; the others were told when they ended."""
    return next(reversed(failed.values()))
