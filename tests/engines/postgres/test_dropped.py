"""Pooled connections are dropped by the server: the first call afterwards still answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import eventfold as ef
from eventfold.engines.postgres.connection import SyncConnection
from tests.engines.postgres.test_lost import end_all
from tests.projections.inline.bank import InlineBalance, InlineMoved

CALLS: dict[str, Callable[[ef.Store], Any]] = {
    "head": lambda store: store.head(),
    "read": lambda store: len(list(store.read())),
    "count": lambda store: store.count(ef.Query.of(types=InlineMoved)),
    "types": lambda store: len(store.types()),
    "rows": lambda store: len(list(store.rows(InlineBalance))),
    "the status of read models": lambda store: len(store.projections.status(InlineBalance)),
    "progress": lambda store: len(store.projections.checkpoints(InlineBalance)),
}


@pytest.mark.parametrize(
    ("call", "kept"),
    [*((call, "beside the log") for call in CALLS), ("rows", "by SQLAlchemy"), ("progress", "by SQLAlchemy")],
)
def test_the_first_call_after_connections_were_dropped_answers(
    url: str, schema: str, monkeypatch: pytest.MonkeyPatch, call: str, kept: str
) -> None:
    """This holds for each call, of the log or of rows; also where nothing shows that a pooled connection is dead."""
    alchemy = url.replace("postgresql://", "postgresql+psycopg://")
    target = {} if kept == "beside the log" else {"target": f"{alchemy}?options=-csearch_path%3D{schema}"}
    with ef.Store(url, schema=schema, **target) as store:
        store.append(InlineMoved("a", 1))
        store.project(InlineBalance)
        assert CALLS[call](store) == 1
        monkeypatch.setattr(SyncConnection, "is_usable", lambda link: link.is_idle())
        end_all(url)
        assert CALLS[call](store) == 1
