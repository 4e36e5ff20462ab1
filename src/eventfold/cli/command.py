"""What every command has in common: how it ends, and the examples under its help. A test runs every example.

Knows: typer; a small bank in `bank.db`, with a State in `bank.py`, for the examples. Does not know: any command.
"""

from __future__ import annotations

import inspect
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

import eventfold.cli
from eventfold.cli.exit_codes import JSON_REQUESTED, run_command
from eventfold.core.renamed import COMMANDS, OPTIONS

Example = tuple[str, str]  # a title, and a line to type of at most 74 characters, so that it is not wrapped

EXAMPLES: dict[str, tuple[Example, ...]] = {
    "init": (("a store in a file", "eventfold init bank.db"),),
    "append": (
        (
            "one event",
            """eventfold append bank.db Deposited --tag account:a-1 -d '{"amount": 80}'""",
        ),
        (
            "only if no such account was opened",
            "eventfold append bank.db Opened --tag account:a-9 --unless-tag account:a-9",
        ),
        (
            "with the actor, and when it happened",
            "eventfold append bank.db Closed --meta actor=eve --occurred 2026-11-20",
        ),
        ("copy some events", "eventfold read bank.db --type Opened | eventfold append new.db --create"),
    ),
    "read": (
        ("all events", "eventfold read bank.db"),
        ("one account, the newest first", "eventfold read bank.db --tag account:a-1 --backwards --limit 10"),
        (
            "events that match either of two queries",
            "eventfold read bank.db --where type=Opened --where tag=account:a-1",
        ),
        ("the last two hours, as JSON lines", "eventfold read bank.db --since 2h --json"),
        ("the number of events", "eventfold read bank.db --type Opened --count"),
    ),
    "find": (
        ("words and clauses, the newest first", "eventfold find bank.db 'account:a-1 data.amount>50'"),
        ("either of two types, oldest first", "eventfold find bank.db type:Opened,Closed --forwards"),
        ("all but one type", "eventfold find bank.db NOT type:Deposited"),
        ("how it is found", "eventfold find bank.db 'type:D* data.amount>50' --explain"),
        ("how many", "eventfold find bank.db actor:eve --count"),
    ),
    "tail": (
        ("new events, as they are written", "eventfold tail bank.db"),
        ("each event once, across runs", "eventfold tail bank.db --json --cursor mailer.cursor --once"),
    ),
    "state": (
        ("a State class of your own", "eventfold state bank.db bank:Account a-1"),
        ("as it was at a position", "eventfold state bank.db bank:Account account=a-1 --at 3"),
        ("what has changed since", "eventfold state bank.db bank:Account a-1 --diff 3 now"),
        ("without a class: the last value of each field", "eventfold state bank.db --tag account:a-1"),
    ),
    "history": (
        ("every change of one account", "eventfold history bank.db bank:Account a-1"),
        ("without a class", "eventfold history bank.db --tag account:a-1 --until 2026-12-31"),
    ),
    "types": (("the types of events", "eventfold types bank.db"),),
    "tags": (
        ("the accounts", "eventfold tags bank.db account:"),
        ("the keys of tags", "eventfold tags bank.db --keys"),
        ("at once also where a tag has many events", "eventfold tags bank.db account: --no-counts"),
    ),
    "stats": (
        ("size and settings", "eventfold stats bank.db"),
        ("its state as metrics", "eventfold stats bank.db --metrics"),
    ),
    "reconcile": (
        (
            "payments in a file of another system",
            "eventfold reconcile bank.db paid.csv --filter type:Deposited --key account",
        ),
    ),
    "inspect": (
        ("how the tables of a database become events", "eventfold migrate inspect shop.db --out migration"),
        ("without a column, and with one hidden", "eventfold migrate inspect shop.db --hide customer.email"),
    ),
    "migrate load": (
        ("what would be appended", "eventfold migrate load events.db shop.db --dry-run"),
        ("no client writes to the source", "eventfold migrate load events.db shop.db --no-capture"),
        ("at most 2,000 rows a second", "eventfold migrate load events.db shop.db --max-rate 2000"),
    ),
    "migrate capture": (
        ("record changes, before the load", "eventfold migrate capture events.db shop.db --install"),
        ("append what was recorded", "eventfold migrate capture events.db shop.db --once"),
    ),
    "migrate compare": (
        ("every row and column, now", "eventfold migrate compare events.db shop.db"),
        ("one table, all differences", "eventfold migrate compare events.db shop.db --only customer --limit 999"),
        ("for days", "eventfold migrate compare events.db shop.db --watch --every 10m --for 2d"),
    ),
    "migrate cutover": (
        ("what would stop it", "eventfold migrate cutover events.db shop.db --check"),
        ("one entity with its parts", "eventfold migrate cutover events.db shop.db --only orders"),
        ("everything", "eventfold migrate cutover events.db shop.db"),
    ),
    "migrate rollback": (
        ("everything", "eventfold migrate rollback events.db shop.db"),
        ("one entity", "eventfold migrate rollback events.db shop.db --only orders"),
        (
            "with rows that differ, as they are",
            "eventfold migrate rollback events.db shop.db --because 'an import'",
        ),
    ),
    "migrate status": (
        ("how far it is", "eventfold migrate status events.db"),
        ("and what waits in the source", "eventfold migrate status events.db shop.db"),
    ),
    "grafana": (("a file to import", "eventfold grafana > dashboard.json"),),
    "alert-rules": (("a file for rule_files", "eventfold alert-rules > rules.yml"),),
    "cursor": (
        ("continue from here later", """eventfold read bank.db --after "$(eventfold cursor bank.db)\""""),
        ("the parts of a cursor", "eventfold cursor bank.db 3 --json"),
    ),
    "copy": (("into another store, on any engine", "eventfold copy bank.db other.db"),),
    "backup": (("a copy of a store in use", "eventfold backup bank.db bank-copy.db"),),
    "restored": (("after a file was copied back", "eventfold restored bank.db"),),
    "upgrade": (
        ("a file of an older version", "eventfold upgrade bank.db"),
        ("with the copy of the old file elsewhere", "eventfold upgrade bank.db --backup bank-before.db"),
    ),
    "reindex": (("an index that differs from the events", "eventfold reindex bank.db"),),
    "drop": (("all snapshots", "eventfold snapshots drop bank.db"),),
    "run": (("bring a read model up to date", "eventfold run bank.db bank:Balance --once"),),
    "rows": (
        (
            "as of a position, the largest first",
            "eventfold rows bank.db bank:Balance --at 4 --order=-balance --limit 9",
        ),
        ("by a filter", "eventfold rows bank.db bank:Balance --at 4 --where 'balance:1..90'"),
        ("how many", "eventfold rows bank.db bank:Balance --at 4 --where 'account:a*' --count"),
    ),
    "verify": (("prove that no event was skipped", "eventfold verify bank.db"),),
    "create": (("a key of the server", "eventfold key create teller --scope append --scope read"),),
    "flights": (
        ("a year of flights", "eventfold demo flights"),
        ("a small one, in seconds", "eventfold demo flights --limit 2000 --db first.db"),
    ),
    "exchange": (
        ("a book rewound to a millisecond", "eventfold demo exchange"),
        ("without the file of real trades, in seconds", "eventfold demo exchange --drawn --limit 2000 --db first.db"),
    ),
    "fetch": (
        ("one data set", "eventfold demo fetch online-retail"),
        ("which there are, and which are here", "eventfold demo fetch --list"),
    ),
    "shop": (
        ("two years of a shop", "eventfold demo shop"),
        ("its first weeks, in seconds", "eventfold demo shop --limit 60000 --db first.db"),
    ),
    "watch": (("kill a service and see the alert", "eventfold demo watch"),),
    "cluster": (("kill a node of three, and count what is lost", "eventfold demo cluster"),),
    "snapshot": (
        ("into the cluster", "eventfold cluster snapshot nats://operator:secret@a,b,c/bank"),
        ("into a folder that hosts can read", "eventfold cluster snapshot nats://a,b,c/bank --to /srv/copies"),
    ),
    "nats": (
        ("one server, at free ports", "eventfold dev nats --port 0"),
        ("a cluster of three on this machine", "eventfold dev nats nats-cluster --nodes 3 --port 0"),
    ),
    "accounts": (("for the applications of one store", "eventfold cluster accounts servers --store bank"),),
    "processes": (
        ("waiting and stuck instances", "eventfold processes bank.db"),
        ("as JSON lines", "eventfold processes bank.db --json"),
    ),
    "serve": (
        ("a store, at a free port of this machine", "eventfold serve bank.db --port 0"),
        ("which settings are used", "eventfold serve bank.db --read-only --print-config"),
    ),
}


def hide_flag_metavars(parameters: list[Any]) -> list[Any]:
    """Show no value name for flags: typer would write <bool> beside each."""
    for each in parameters:
        if getattr(each, "is_flag", False) and each.metavar is None:
            each.metavar = ""
    return parameters


class Group(TyperGroup):
    """A group of commands; the outermost one turns errors into messages and exit codes."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, as the help shows them."""
        return hide_flag_metavars(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was given."""
        if ctx.parent is not None:
            return super().invoke(ctx)
        return run_command(lambda: super(Group, self).invoke(ctx), lambda: bool(ctx.meta.get(JSON_REQUESTED)))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that a word names. Refuses an old word with the new one, and exit code 2."""
        words = " ".join([*ctx.command_path.split()[1:], *args[:1]])
        if words in COMMANDS:
            ctx.fail(f"The command {words} was renamed. Write: eventfold {COMMANDS[words]}.")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands in the order of their declaration."""
        return list(self.commands)


class Command(TyperCommand):
    """A command whose help ends with examples."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.help = help_text(self.help)

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, as the help shows them."""
        return hide_flag_metavars(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse what stands after the command. Refuses an old option with the new one, and exit code 2."""
        for old, new in OPTIONS.get(self.name or "", {}).items():
            if old in args:
                ctx.fail(f"The option {old} was renamed. Write {new}.")
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, then the examples; each can be typed as shown."""
        super().format_help(ctx, formatter)
        examples = examples_of(ctx.command_path)
        if examples:
            print_examples(examples)


def examples_of(path: str) -> tuple[Example, ...]:
    """The examples of a command: under its last two words, if others have the same last one, or under its last word."""
    words = path.split()
    return EXAMPLES.get(" ".join(words[-2:])) or EXAMPLES.get(words[-1], ())


def print_examples(examples: tuple[tuple[str, str], ...]) -> None:
    """Print examples under a help text."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    console.print(" Examples", style="bold")
    for what, line in examples:
        console.print(Text(f"   {what}:", style="dim"))
        console.print(Text(f"     {line}"), soft_wrap=True)
    console.print()


def help_text(docstring: str | None) -> str:
    """A docstring as help text: each paragraph is one line, wrapped by the terminal."""
    return "\n\n".join(" ".join(each.split()) for each in inspect.cleandoc(docstring or "").split("\n\n"))


def print_version(wanted: bool) -> None:
    """Handle `--version`."""
    if wanted:
        typer.echo(eventfold.cli.version_text())
        raise typer.Exit
