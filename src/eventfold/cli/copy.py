"""`eventfold copy`: a whole log into another store of any engine, compared afterwards.

Knows: two addresses and a progress bar. Does not know: how a log is copied.
"""

from __future__ import annotations

from typing import Annotated

import typer

from eventfold.cli.options import Json, Url, open_store, split_store_argument
from eventfold.cli.output import Output, progress_bar
from eventfold.concurrency.run import run
from eventfold.core.counted import count_of
from eventfold.log.copy import verify as compared


def copy(
    url: Url = None,
    target: Annotated[
        str | None, typer.Argument(metavar="TO", help="The other store; created if there is none.", show_default=False)
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Read both logs afterwards, and compare every event.")
    ] = True,
    keep_identity: Annotated[
        bool,
        typer.Option("--keep-identity", help="Give an empty TO the store's identity, so that cursors stay valid."),
    ] = False,
    as_json: Json = None,
) -> None:
    """Copy a whole log into another store.

    Ids, positions, times, metadata, append boundaries and request keys are copied, between any engines. An interrupted
    copy continues when the command is repeated. No other process may write to TO during the copy.
    """
    url, others = split_store_argument(url, [] if target is None else [target], needed=1)
    if len(others) != 1:
        raise typer.BadParameter("name the other store.", param_hint="TO")
    output = Output(as_json)
    with open_store(url) as source, open_store(others[0], create=True) as other:
        with progress_bar(output, "copying") as bar:
            copied = source.copy_to(other, keep_identity=keep_identity, verify=False, progress=bar)
        proven = None
        if verify:
            with progress_bar(output, "comparing") as bar:
                proven = run(compared(source.engine, other.engine, bar)).digest
    if output.is_json:
        output.write_value(
            {
                "events": copied.events,
                "written": copied.written,
                "keys": copied.keys,
                "succeeded": copied.succeeded,
                "verified": verify,
                "digest": proven,
                "progress": copied.progress,
            }
        )
        return
    new = "" if copied.written == copied.events else f", {copied.written:,} of them in this run"
    output.print(f"Copied {count_of(copied.events, 'event')} to {others[0]}{new}.")
    if copied.succeeded:
        output.print(f"{others[0]} now has the identity of the store: cursors and receipts are valid there.")
    if copied.progress:
        output.print(f"The progress of {', '.join(copied.progress)} was copied.")
        if copied.succeeded:
            output.print("They continue there only: in the old store they are paused.")
    if proven:
        output.print(f"Both logs were read and are equal; their digest is {proven[:16]}….")
