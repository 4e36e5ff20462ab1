"""`eventfold init`, `backup`, `upgrade`, `restored` and `snapshots drop`: what is done to a whole store.

Knows: addresses, flags, what is printed afterwards. Does not know: how any engine does it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from eventfold.cli.command import Command, Group, help_text
from eventfold.cli.formatting import count_of, format_size
from eventfold.cli.options import STORE_VARIABLE, Json, Url, hide_password, open_store, split_store_argument
from eventfold.cli.output import Output
from eventfold.concurrency.run import run
from eventfold.engines import begin_epoch_after_restore, open_engine, upgrade_layout
from eventfold.errors import InvalidInput, StoreNotFound
from eventfold.store import Store


def init(url: Url = None, as_json: Json = None) -> None:
    """Make a store, if there is none yet.

    Making one that is there already changes nothing.
    """
    output = Output(as_json)
    shown, made = hide_password(url or ""), False
    try:
        with open_store(url) as store:
            facts = store_identity(store)
    except StoreNotFound:
        made = True
        with open_store(url, create=True) as store:
            facts = store_identity(store)
    if output.is_json:
        output.write_value({"created": made, **facts})
    elif made:
        output.print(f"Made {shown}, an empty store. Its id is {facts['store']}.")
    else:
        output.print(
            f"{shown} is a store already, with {count_of(facts['head'], 'event')}. Its id is {facts['store']}."
        )


def store_identity(store: Store) -> dict[str, Any]:
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
    url, others = split_store_argument(url, [] if path is None else [path], needed=1)
    if len(others) != 1:
        raise typer.BadParameter("say where the copy goes.", param_hint="PATH")
    output = Output(as_json)
    target = others[0]
    if Path(target).exists():
        raise InvalidInput(f"{target} is there already.", "Name a path where nothing is, or move the old copy away.")
    with open_store(url) as store:
        store.backup(target)
    with open_store(f"sqlite:{target}") as copy:
        facts = store_identity(copy)
    size = Path(target).stat().st_size
    if output.is_json:
        output.write_value({"path": target, "bytes": size, **facts})
    else:
        output.print(
            f"Copied {count_of(facts['head'], 'event')} to {target} ({format_size(size)}). "
            f"The copy is in epoch {facts['epoch']}."
        )


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
        raise typer.BadParameter(f"name the store, or set {STORE_VARIABLE}.", param_hint="STORE")
    if backup is not None and no_backup:
        raise InvalidInput("--backup and --no-backup contradict each other.", "Give one of them.")
    if backup is not None and Path(backup).exists():
        raise InvalidInput(f"{backup} is there already.", "Name a path where nothing is, or move the old copy away.")
    output = Output(as_json)
    done = run(upgrade_layout(open_engine(url, "sync", False, {}), backup, copies=not no_backup))
    shown = hide_password(url)
    if output.is_json:
        output.write_value({"had": done.had, "layout": done.now, "backup": done.backup})
    elif done.had == done.now:
        output.print(f"{shown} has layout {done.now} already, the newest: nothing was done.")
    else:
        output.print(f"{shown} had layout {done.had}, and has {done.now} now. No event was rewritten.")
        if done.backup is not None:
            output.print(f"A copy from before is at {done.backup}: remove it when all is well.")


def restored(url: Url = None, as_json: Json = None) -> None:
    """Let a new epoch begin, after a restore by other tools.

    For a file that was copied back, a volume that was rolled back, a PostgreSQL server recovered to a point in time:
    call it before anything uses the store. Progress that was kept against events which are gone is then refused, and
    not taken for progress in the history that takes their place. A restored dump, a failover and a copy by `eventfold
    backup` begin a new epoch by themselves.
    """
    if not url:
        raise typer.BadParameter(f"name the store, or set {STORE_VARIABLE}.", param_hint="STORE")
    output = Output(as_json)
    done = run(begin_epoch_after_restore(open_engine(url, "sync", False, {})))
    if output.is_json:
        output.write_value({"store": done.store, "ended": done.ended, "epoch": done.epoch})
    else:
        output.print(f"{hide_password(url)} is in epoch {done.epoch} now; it was in {done.ended}.")


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
    url, others = split_store_argument(url, [] if prefix is None else [prefix])
    output = Output(as_json)
    with open_store(url) as store:
        dropped = run(store.engine.drop_snapshots(others[0] if others else ""))
    if output.is_json:
        output.write_value({"dropped": dropped})
    else:
        output.print(f"Dropped {count_of(dropped, 'snapshot')}. States are folded from the log again.")


snapshots.command("drop", cls=Command, help=help_text(drop.__doc__))(drop)
