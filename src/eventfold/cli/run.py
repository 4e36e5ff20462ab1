"""`eventfold run`: a process that keeps read models up to date, and runs processes and effects.

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

from eventfold.cli.options import Target, Url, open_store, split_store_argument
from eventfold.cli.state import ImportPath
from eventfold.errors import EventfoldError
from eventfold.processes.runner import ProcessRunner
from eventfold.processes.work import load
from eventfold.projections.pace import MAX_PAUSE_S
from eventfold.store import Store

Codes = Annotated[
    list[str] | None,
    typer.Argument(metavar="MODULE:NAME…", help="Classes, lists of them, or whole modules.", show_default=False),
]


def import_projections(names: Sequence[str], import_path: str) -> list[Any]:
    """Import each MODULE:CLASS; a plain name is returned unchanged."""
    folder = str(Path(import_path).resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return [each for name in names for each in (load(name) if ":" in name else [name])]


def run(
    url: Url = None,
    codes: Codes = None,
    once: Annotated[bool, typer.Option("--once", help="Exit when there is nothing more to do.")] = False,
    max_pause: Annotated[
        float,
        typer.Option(
            "--max-pause",
            metavar="SECONDS",
            help="How long a read model may pause before its next page while others append, 0 to 1. Longer pauses "
            "leave more time to writers.",
        ),
    ] = MAX_PAUSE_S,
    wait_for_switch: Annotated[
        bool,
        typer.Option(
            "--wait-for-switch",
            help="Let a read model whose code has changed wait until a rebuild of it is switched to.",
        ),
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="A TOML file with targets for messages about alerts, in tables deliver.NAME.",
            show_default=False,
        ),
    ] = None,
    import_path: ImportPath = ".",
    target: Target = None,
) -> None:
    """Run read models, subscriptions, processes, effects, alerts and their delivery, until Ctrl-C.

    Start it any number of times, on any number of machines: the runners share the work. On Ctrl-C or SIGTERM it
    finishes the current page and exits with 0. On a second signal it exits at once, with 130 or 143; nothing is lost.
    With --once, Ctrl-C exits with 130.

    A read model whose code has changed is not run, and an error says what to do: rebuild it, then start this again. The
    others run, and the exit code is 1 at the end. With --wait-for-switch it waits, and begins within a second after
    `eventfold projections switch`: so start it before the switch, beside the runner with the old code.
    """
    stop = None if once else stop_on_signals()
    store_url, others = split_store_argument(url, codes or [], needed=1)
    if not others:
        raise typer.BadParameter("name what to run.", param_hint="MODULE:NAME")
    import_projections([], import_path)
    found = [each for code in others for each in load(code)]
    if config is not None or any(name.startswith("EVENTFOLD_DELIVER__") for name in os.environ):
        from eventfold.alerts.delivery.settings import deliveries_of

        found += deliveries_of(config)
    warnings.showwarning = print_warning
    with open_store(store_url, target=target, creates_target=True) as store:
        if stop is None:
            run_until_idle(store, found)
            return
        if stop.is_set():
            return
        run_until_stopped(store, found, others, stop, max_pause=max_pause, waits_for_switch=wait_for_switch)


def run_until_stopped(
    store: Store, found: Sequence[Any], names: Sequence[str], stop: threading.Event, **options: Any
) -> None:
    """Run until it is stopped or all of it has failed; then raise the last error, if there was one."""
    with ProcessRunner(store.projections, found, partially=True, **options) as running:
        if sys.stderr.isatty():
            sys.stderr.write(f"Running {', '.join(names)}. Press Ctrl-C to stop.\n")
        while not stop.wait(0.5) and running.running:
            continue  # the threads print their messages
    if running.failed:
        raise final_error(running.failed)


def stop_on_signals() -> threading.Event:
    """An event that the first Ctrl-C or SIGTERM sets; a second signal exits with 128 plus its number."""
    stop = threading.Event()

    def on_signal(number: int, _frame: object) -> None:
        if stop.is_set():  # progress is saved with the rows, so nothing has to be finished
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    return stop


def print_warning(message: Warning | str, *_place: Any, **_more: Any) -> None:
    """Print a warning without its source line, which is in the library."""
    sys.stderr.write(f"{message}\n")


def run_until_idle(store: Store, found: Sequence[Any]) -> None:
    """Do all work there is; print all errors but the first, which is raised."""
    try:
        store.run_until_idle(*found)
    except EventfoldError as error:
        for other in getattr(error, "__notes__", ()):
            sys.stderr.write(f"{other}\n")
        raise


def final_error(failed: dict[str, EventfoldError]) -> EventfoldError:
    """The error that ended the run; the others were printed when they occurred."""
    return next(reversed(failed.values()))
