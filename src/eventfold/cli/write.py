"""Room: `eventfold init` and `backup`: a store where there was none.

Knows: what tells a store from others. Does not know: how any engine makes one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from eventfold.cli.options import Json, Url, addressed, opened, without_password
from eventfold.cli.screen import Screen
from eventfold.cli.shown import counted, size_text
from eventfold.errors import InvalidInput, StoreNotFound
from eventfold.store import Store


def init(url: Url = None, as_json: Json = None) -> None:
    """Make a store, if there is none yet.

    Making one that is there already changes nothing.
    """
    screen = Screen(as_json)
    shown, made = without_password(url or ""), False
    try:
        with opened(url) as store:
            facts = facts_of(store)
    except StoreNotFound:
        made = True
        with opened(url, create=True) as store:
            facts = facts_of(store)
    if screen.json:
        screen.value({"created": made, **facts})
    elif made:
        screen.say(f"Made {shown}, an empty store. Its id is {facts['store']}.")
    else:
        screen.say(f"{shown} is a store already, with {counted(facts['head'], 'event')}. Its id is {facts['store']}.")


def facts_of(store: Store) -> dict[str, Any]:
    """What tells a store from others."""
    return {"store": store.engine.store_id, "epoch": store.engine.epoch, "head": store.head()}


def backup(
    url: Url = None,
    path: Annotated[str | None, typer.Argument(metavar="PATH", help="Where the copy goes.", show_default=False)] = None,
    as_json: Json = None,
) -> None:
    """Copy a store, while it is in use.

    The copy is consistent, and begins a new epoch: followers of the original notice it if it takes its place. It is
    written to a hidden file beside PATH and renamed once it is whole: until then nothing is at PATH.
    """
    url, others = addressed(url, [] if path is None else [path], needed=1)
    if len(others) != 1:
        raise typer.BadParameter("say where the copy goes.", param_hint="PATH")
    screen = Screen(as_json)
    target = others[0]
    if Path(target).exists():
        raise InvalidInput(f"{target} is there already.", "Name a path where nothing is, or move the old copy away.")
    with opened(url) as store:
        store.backup(target)
    with opened(f"sqlite:{target}") as copy:
        facts = facts_of(copy)
    size = Path(target).stat().st_size
    if screen.json:
        screen.value({"path": target, "bytes": size, **facts})
    else:
        screen.say(
            f"Copied {counted(facts['head'], 'event')} to {target} ({size_text(size)}). "
            f"The copy is in epoch {facts['epoch']}."
        )
