"""`eventfold restored`: a new epoch after a restore by other tools.

Knows: one address, and what is said afterwards. Does not know: what an epoch is good for.
"""

from __future__ import annotations

import typer

from eventfold.cli.options import VARIABLE, Json, Url, without_password
from eventfold.cli.screen import Screen
from eventfold.concurrency.run import run
from eventfold.engines import open_engine
from eventfold.engines import restored as begun


def restored(url: Url = None, as_json: Json = None) -> None:
    """Let a new epoch begin, after a restore by other tools.

    For a file that was copied back, a volume that was rolled back, a PostgreSQL server recovered to a point in time:
    call it before anything uses the store. Progress that was kept against events which are gone is then refused, and
    not taken for progress in the history that takes their place. A restored dump, a failover and a copy by `eventfold
    backup` begin a new epoch by themselves.
    """
    if not url:
        raise typer.BadParameter(f"name the store, or set {VARIABLE}.", param_hint="STORE")
    screen = Screen(as_json)
    done = run(begun(open_engine(url, "sync", False, {})))
    if screen.json:
        screen.value({"store": done.store, "ended": done.ended, "epoch": done.epoch})
    else:
        screen.say(f"{without_password(url)} is in epoch {done.epoch} now; it was in {done.ended}.")
