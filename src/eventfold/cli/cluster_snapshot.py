"""`eventfold cluster snapshot`: a copy of this host's index, published for new hosts.

Knows: flags, what is printed. Does not know: how a copy is made and stored.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from eventfold.cli.formatting import format_size
from eventfold.cli.options import STORE_VARIABLE, Json, Url
from eventfold.cli.output import Output, progress_bar


def snapshot(
    url: Url = None,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="FOLDER", help="A folder, instead of the bucket in the cluster."),
    ] = None,
    keep: Annotated[int, typer.Option("--keep", help="How many copies are kept.")] = 2,
    as_json: Json = None,
) -> None:
    """Publish a copy of the index of a store, so that a new host need not read the whole log.

    The copy of this host's index is verified and compressed. A host without an index restores the newest copy, verifies
    it against the log, and follows from there. Needs an operator's account, unless --to is given.
    """
    from eventfold.cluster.snapshot import publish_snapshot

    if not url:
        raise typer.BadParameter(f"name the store, or set {STORE_VARIABLE}.", param_hint="STORE")
    output = Output(as_json)
    with progress_bar(output, "verifying") as bar:
        published = publish_snapshot(url, to=to, keep=keep, progress=bar)
    if output.is_json:
        output.write_value(msgspec.to_builtins(published))
        return
    output.print(
        f"Published {published.name}: {published.position:,} events, {format_size(published.packed)} compressed, "
        f"{format_size(published.bytes)} on each host."
    )
