"""The typer application: every command under its name.

Knows: the commands and their order in the help. Does not know: what they do.
"""

from __future__ import annotations

from typing import Annotated

import typer

from eventfold.cli.alert import alert
from eventfold.cli.append import append
from eventfold.cli.cluster import cluster
from eventfold.cli.command import Command, Group, help_text, print_version
from eventfold.cli.copy import copy
from eventfold.cli.demo import demo
from eventfold.cli.dev import dev
from eventfold.cli.find import find
from eventfold.cli.history import history
from eventfold.cli.inspection import cursor, stats, tags, types
from eventfold.cli.key import key
from eventfold.cli.maintenance import backup, init, reindex, restored, snapshots, upgrade
from eventfold.cli.migrate import migrate
from eventfold.cli.migration_compare import compare
from eventfold.cli.migration_steps import capture, load, status
from eventfold.cli.monitoring import alert_rules, grafana
from eventfold.cli.processes import processes
from eventfold.cli.projections import projections
from eventfold.cli.read import read
from eventfold.cli.reconcile import reconcile
from eventfold.cli.rows import rows
from eventfold.cli.run import run
from eventfold.cli.schema import schema
from eventfold.cli.serve import serve
from eventfold.cli.state import state
from eventfold.cli.tail import tail
from eventfold.cli.verify import verify

HELP = """One ordered log of events; every state is a fold over it.

The first argument is the store: a path, sqlite:PATH, memory:NAME, postgresql://… or http://…. It may be left
out if EVENTFOLD_URL is set. Output is tables on a terminal, JSON lines in a pipe or with --json."""

EXIT_CODES = """Exit codes: 0 done, 1 failed, 2 invalid input, 3 conflict, 4 no such store, 5 store unavailable,
6 unconfirmed append, 7 cursor of another store, 8 `reconcile` found differences, 130 Ctrl-C."""

app = typer.Typer(
    name="eventfold",
    cls=Group,
    help=help_text(HELP),
    epilog=help_text(EXIT_CODES),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
)

EVENTS_PANEL, STATE_PANEL, WRITE_PANEL = "Events", "State", "Write"
MODELS_PANEL, PROCESSES_PANEL, MAINTENANCE_PANEL = "Read models", "Processes", "Maintenance"
SERVER_PANEL, CLUSTER_PANEL, MONITORING_PANEL, MIGRATION_PANEL = "Server", "Cluster", "Monitoring", "Migration"
for panel, command in (
    (EVENTS_PANEL, read),
    (EVENTS_PANEL, find),
    (EVENTS_PANEL, tail),
    (EVENTS_PANEL, types),
    (EVENTS_PANEL, tags),
    (EVENTS_PANEL, stats),
    (EVENTS_PANEL, cursor),
    (STATE_PANEL, state),
    (STATE_PANEL, history),
    (WRITE_PANEL, init),
    (WRITE_PANEL, append),
    (WRITE_PANEL, backup),
    (WRITE_PANEL, copy),
    (WRITE_PANEL, restored),
    (MAINTENANCE_PANEL, upgrade),
    (MAINTENANCE_PANEL, reindex),
    (MODELS_PANEL, run),
    (MODELS_PANEL, rows),
    (MODELS_PANEL, verify),
    (PROCESSES_PANEL, processes),
    (SERVER_PANEL, serve),
    (MONITORING_PANEL, reconcile),
    (MONITORING_PANEL, grafana),
    (MONITORING_PANEL, alert_rules),
):
    text = help_text(command.__doc__)
    app.command(command.__name__.replace("_", "-"), cls=Command, rich_help_panel=panel, help=text)(command)
app.add_typer(projections, name="projections", rich_help_panel=MODELS_PANEL)
app.add_typer(snapshots, name="snapshots", rich_help_panel=MAINTENANCE_PANEL)
app.add_typer(schema, name="schema", rich_help_panel=MAINTENANCE_PANEL)
app.add_typer(key, name="key", rich_help_panel=SERVER_PANEL)
app.add_typer(cluster, name="cluster", rich_help_panel=CLUSTER_PANEL)
app.add_typer(dev, name="dev", rich_help_panel=CLUSTER_PANEL)
app.add_typer(alert, name="alert", rich_help_panel=MONITORING_PANEL)
for step in (load, capture, compare, status):
    migrate.command(step.__name__, cls=Command, help=help_text(step.__doc__))(step)
app.add_typer(migrate, name="migrate", rich_help_panel=MIGRATION_PANEL)
app.add_typer(demo, name="demo", rich_help_panel="Demo")


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", help="Print the version.", callback=print_version, is_eager=True),
    ] = False,
) -> None:
    """The options of `eventfold` itself."""
