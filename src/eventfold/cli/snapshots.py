"""`eventfold snapshots`: what is kept of folded states, dropped.

Knows: one question for the engine. Does not know: what is in a snapshot.
"""

from __future__ import annotations

from typing import Annotated

import typer

from eventfold.cli.command import Command, Group, paragraphs
from eventfold.cli.options import Json, Url, addressed, opened
from eventfold.cli.screen import Screen
from eventfold.cli.shown import counted
from eventfold.concurrency.run import run

snapshots = typer.Typer(
    name="snapshots", cls=Group, help="Folded states that are kept for speed.", no_args_is_help=True
)


def drop(
    url: Url = None,
    prefix: Annotated[
        str | None, typer.Argument(metavar="PREFIX", help="Only those whose key starts so.", show_default=False)
    ] = None,
    as_json: Json = None,
) -> None:
    """Drop the snapshots of folded states.

    This costs time and no event: states are folded from the log again. A key is the class and the question, as
    in `bank.Account ["a-1"]`.
    """
    url, others = addressed(url, [] if prefix is None else [prefix])
    screen = Screen(as_json)
    with opened(url) as store:
        dropped = run(store.engine.drop_snapshots(others[0] if others else ""))
    if screen.json:
        screen.value({"dropped": dropped})
    else:
        screen.say(f"Dropped {counted(dropped, 'snapshot')}. States are folded from the log again.")


snapshots.command("drop", cls=Command, help=paragraphs(drop.__doc__))(drop)
