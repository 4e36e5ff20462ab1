"""Room: what the shell offers after Tab: the types and tags that the store has.

Knows: that a completion must never speak, whatever is wrong. Does not know: any shell.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import typer

from eventfold.errors import EventfoldError
from eventfold.store import Store

MOST = 50


def stored_types(ctx: typer.Context, incomplete: str) -> list[str]:
    """Types of events in the store, that begin so."""

    def asked(store: Store) -> Iterable[str]:
        return (each.type for each in store.types() if each.type.startswith(incomplete))

    return _offered(ctx, asked)


def stored_tags(ctx: typer.Context, incomplete: str) -> list[str]:
    """Tags in the store, that begin so."""
    return _offered(ctx, lambda store: (each.tag for each in store.tags(incomplete, limit=MOST)))


def _offered(ctx: typer.Context, asked: Callable[[Store], Iterable[str]]) -> list[str]:
    words = [word for word in ctx.args if not word.startswith("-")]  # of a line that is not finished yet
    url = ctx.params.get("url") or next(iter(words), None) or os.environ.get("EVENTFOLD_URL")
    if not url:
        return []
    try:
        with Store(url, create=False) as store:
            return list(asked(store))[:MOST]
    except EventfoldError:
        return []
