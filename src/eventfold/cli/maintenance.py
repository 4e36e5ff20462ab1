"""`eventfold init`, `backup`, `upgrade`, `reindex`, `restored` and `snapshots drop`: what is done to a whole store.

Knows: addresses, flags, what is printed afterwards. Does not know: how any engine does it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from eventfold.cli.command import Command, Group, help_text
from eventfold.cli.formatting import format_size
from eventfold.cli.options import STORE_VARIABLE, Json, Url, hide_password, open_store, split_store_argument
from eventfold.cli.output import Output
from eventfold.concurrency.run import run
from eventfold.core.counted import count_of
from eventfold.engines import begin_epoch_after_restore, create_store, open_engine, rebuild_index, upgrade_layout
from eventfold.errors import InvalidInput, StoreNotFound
from eventfold.ports.services import require
from eventfold.projections.backed_up import TAG, TYPE, BackedUp
from eventfold.store import Store


def init(url: Url = None, as_json: Json = None) -> None:
    """Create a store, if there is none.

    If there is a store already, nothing is changed.
    """
    output = Output(as_json)
    shown, made = hide_password(url or ""), False
    try:
        with open_store(url) as store:
            facts = store_identity(store)
    except StoreNotFound:
        made = True
        run(create_store(open_engine(url or "", "sync", True, {})))  # a cluster's: opening creates none
        with open_store(url, create=True) as store:
            facts = store_identity(store)
    if output.is_json:
        output.write_value({"created": made, **facts})
    elif made:
        output.print(f"Created {shown}, an empty store. Its id is {facts['store']}.")
    else:
        output.print(
            f"{shown} is a store already, with {count_of(facts['head'], 'event')}. Its id is {facts['store']}."
        )


def store_identity(store: Store) -> dict[str, Any]:
    """The identity of a store, and its head."""
    return {"store": store.engine.store_id, "epoch": store.engine.epoch, "head": store.head()}


def backup(
    url: Url = None,
    path: Annotated[str | None, typer.Argument(metavar="PATH", help="Path of the copy.", show_default=False)] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Note it in the log, as an event $backed-up: for the metric of its age.")
    ] = False,
    as_json: Json = None,
) -> None:
    """Copy a store, while it is in use.

    The copy is consistent and begins a new epoch, so that followers of the original notice if the copy replaces it. It
    is written to a hidden file beside PATH and renamed to PATH when it is complete.
    """
    url, others = split_store_argument(url, [] if path is None else [path], needed=1)
    if len(others) != 1:
        raise typer.BadParameter("name the path of the copy.", param_hint="PATH")
    output = Output(as_json)
    target = others[0]
    if Path(target).exists():
        raise InvalidInput(f"{target} exists already.", "Name another path, or move the old file away.")
    with open_store(url) as store:
        store.backup(target)
    with open_store(f"sqlite:{target}") as copy:
        facts = store_identity(copy)
    size = Path(target).stat().st_size
    if record:
        with open_store(url) as store:
            store.projections.append_fact(TYPE, TAG, BackedUp(facts["head"], size))
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
            "--backup", metavar="FILE", help="Path of the copy. Default: beside the store.", show_default=False
        ),
    ] = None,
    no_backup: Annotated[
        bool, typer.Option("--no-backup", help="Do not copy the file first; on PostgreSQL: a backup exists.")
    ] = False,
    as_json: Json = None,
) -> None:
    """Upgrade a store of an older layout to the layout of this version.

    Stop every process that uses the store first: a store in use is not upgraded. The upgrade is one transaction: if it
    fails or is interrupted, the store is unchanged, and you run the command again. No event is rewritten. A file is
    copied first. Of a PostgreSQL store make a backup yourself (pg_dump), and say so by --no-backup. A store that has
    the newest layout is not changed.
    """
    if not url:
        raise typer.BadParameter(f"name the store, or set {STORE_VARIABLE}.", param_hint="STORE")
    if backup is not None and no_backup:
        raise InvalidInput("--backup and --no-backup contradict each other.", "Give one of them.")
    if backup is not None and Path(backup).exists():
        raise InvalidInput(f"{backup} exists already.", "Name another path, or move the old file away.")
    output = Output(as_json)
    done = run(upgrade_layout(open_engine(url, "sync", False, {}), backup, copies=not no_backup))
    shown = hide_password(url)
    if output.is_json:
        output.write_value({"had": done.had, "layout": done.now, "backup": done.backup})
    elif done.had == done.now:
        output.print(f"{shown} has layout {done.now} already, the newest. Nothing was changed.")
    else:
        output.print(f"{shown} was upgraded from layout {done.had} to {done.now}. No event was rewritten.")
        if done.backup is not None:
            output.print(f"The copy from before is {done.backup}. Remove it when the upgraded store works.")


def reindex(url: Url = None, as_json: Json = None) -> None:
    """Rebuild the index of tags and types of a file from its events.

    Run it if `eventfold verify` names it. Stop every process that uses the store first. It is one transaction: if it
    fails or is interrupted, the store is unchanged. Every event is verified, and none is rewritten.
    """
    if not url:
        raise typer.BadParameter(f"name the store, or set {STORE_VARIABLE}.", param_hint="STORE")
    output = Output(as_json)
    done = run(rebuild_index(open_engine(url, "sync", False, {})))
    if output.is_json:
        output.write_value({"events": done.events, "tags": done.tags, "entries": done.entries})
    else:
        output.print(
            f"The index of {hide_password(url)} was rebuilt from {count_of(done.events, 'event')}: "
            f"{count_of(done.tags, 'tag')}, {done.entries:,} entries."
        )


def restored(url: Url = None, as_json: Json = None) -> None:
    """Begin a new epoch after a restore by other tools.

    Run it after a file was copied back, a volume was rolled back, or a PostgreSQL server was recovered to a point in
    time, and before anything uses the store. Progress past events that are lost is then refused, and not mistaken for
    progress in the events written afterwards. A restored dump, a failover and a copy by `eventfold backup` begin a new
    epoch by themselves.
    """
    if not url:
        raise typer.BadParameter(f"name the store, or set {STORE_VARIABLE}.", param_hint="STORE")
    output = Output(as_json)
    done = run(begin_epoch_after_restore(open_engine(url, "sync", False, {})))
    if output.is_json:
        output.write_value({"store": done.store, "ended": done.ended, "epoch": done.epoch})
    else:
        output.print(f"{hide_password(url)} is now in epoch {done.epoch}; it was in {done.ended}.")


snapshots = typer.Typer(name="snapshots", cls=Group, help="Snapshots: stored states, for speed.", no_args_is_help=True)


def drop(
    url: Url = None,
    prefix: Annotated[
        str | None,
        typer.Argument(metavar="PREFIX", help="Only snapshots whose key has this prefix.", show_default=False),
    ] = None,
    as_json: Json = None,
) -> None:
    """Drop the snapshots of folded states.

    No event is lost: states are folded from the log again, which takes longer. A key is the class and the values that
    identify the state, as in `bank.Account ["a-1"]`.
    """
    url, others = split_store_argument(url, [] if prefix is None else [prefix])
    output = Output(as_json)
    with open_store(url) as store:
        dropped = run(require(store.engine, "snapshots").delete_prefix(others[0] if others else ""))
    if output.is_json:
        output.write_value({"dropped": dropped})
    else:
        output.print(f"Dropped {count_of(dropped, 'snapshot')}. States are folded from the log again.")


snapshots.command("drop", cls=Command, help=help_text(drop.__doc__))(drop)
