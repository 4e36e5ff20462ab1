"""The typer application: every command under its name, in the order of the help.

Knows: in which module each command is. Does not know: what they do. A module is imported when its command is needed:
a run of one command imports that one only, and starts in two thirds of the time.
"""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer

from eventfold.cli.command import Command, Group, help_text, print_version

HELP = """One ordered log of events; every state is a fold over it.

The first argument is the store: a path, sqlite:PATH, memory:NAME, postgresql://… or http://…. It may be left
out if EVENTFOLD_URL is set. Output is tables on a terminal, JSON lines in a pipe or with --json."""

EXIT_CODES = """Exit codes: 0 done, 1 failed, 2 invalid input, 3 conflict, 4 no such store, 5 store unavailable,
6 unconfirmed append, 7 cursor of another store, 8 a comparison found differences, 130 Ctrl-C."""

EVENTS, STATE, WRITE, MODELS, PROCESSES, MAINTENANCE, SERVER, CLUSTER, MONITORING, MIGRATION, DEMO = (
    "Events", "State", "Write", "Read models", "Processes", "Maintenance", "Server", "Cluster", "Monitoring",
    "Migration", "Demo",
)  # fmt: skip
# Each command or group: its panel in the help, its module, and its name.
COMMANDS = (
    (EVENTS, "read", "read"),
    (EVENTS, "find", "find"),
    (EVENTS, "tail", "tail"),
    (EVENTS, "inspection", "types"),
    (EVENTS, "inspection", "tags"),
    (EVENTS, "inspection", "stats"),
    (EVENTS, "inspection", "cursor"),
    (STATE, "state", "state"),
    (STATE, "history", "history"),
    (WRITE, "maintenance", "init"),
    (WRITE, "append", "append"),
    (WRITE, "maintenance", "backup"),
    (WRITE, "copy", "copy"),
    (WRITE, "maintenance", "restored"),
    (MAINTENANCE, "maintenance", "upgrade"),
    (MAINTENANCE, "maintenance", "reindex"),
    (MODELS, "run", "run"),
    (MODELS, "rows", "rows"),
    (MODELS, "verify", "verify"),
    (PROCESSES, "processes", "processes"),
    (SERVER, "serve", "serve"),
    (MONITORING, "reconcile", "reconcile"),
    (MONITORING, "monitoring", "grafana"),
    (MONITORING, "monitoring", "alert-rules"),
    (MODELS, "projections", "projections"),
    (MAINTENANCE, "maintenance", "snapshots"),
    (MAINTENANCE, "schema", "schema"),
    (SERVER, "key", "key"),
    (CLUSTER, "cluster", "cluster"),
    (CLUSTER, "dev", "dev"),
    (MONITORING, "alert", "alert"),
    (MIGRATION, "migration", "migrate"),
    (DEMO, "demo", "demo"),
)


def application(only: str | None = None) -> typer.Typer:
    """The application. If `only` is the name of a command or group, it has this one and no other."""
    made = typer.Typer(
        name="eventfold",
        cls=Group,
        help=help_text(HELP),
        epilog=help_text(EXIT_CODES),
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    for panel, module, name in [each for each in COMMANDS if each[2] == only] or COMMANDS:
        found: Any = getattr(import_module(f"eventfold.cli.{module}"), name.replace("-", "_"))
        if isinstance(found, typer.Typer):
            made.add_typer(found, name=name, rich_help_panel=panel)
        else:
            made.command(name, cls=Command, rich_help_panel=panel, help=help_text(found.__doc__))(found)
    made.callback()(root)
    return made


def root(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", help="Print the version.", callback=print_version, is_eager=True),
    ] = False,
) -> None:
    """The options of `eventfold` itself."""
