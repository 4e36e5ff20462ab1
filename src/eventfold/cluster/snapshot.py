"""Publishing a copy of the local index, so that a new host need not read the whole log.

Knows: the steps: copy, verify, publish. Does not know: how a copy is stored.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable

from eventfold.concurrency.run import run
from eventfold.engines import open_engine
from eventfold.engines.jetstream.engine import JetStreamEngine
from eventfold.engines.jetstream.published_index import Description
from eventfold.errors import InvalidInput, NotSupported, StoreDamaged
from eventfold.ports.integrity import Problem
from eventfold.ports.messages import Head
from eventfold.ports.services import require

Progress = Callable[[int, int], None]


def publish_snapshot(url: str, *, to: str | None, keep: int, progress: Progress) -> Description:
    """Copy the index of this host, verify the copy, and publish it. `progress`: events verified so far, and all.

    `to`: a folder; None: the bucket of the store. Raises InvalidInput for an empty log, StoreDamaged if the copy does
    not agree with itself, and the errors of the store.
    """
    if keep < 1:
        raise InvalidInput(f"{keep} copies cannot be kept.", "Keep 1 or more.")
    engine = open_engine(url, "sync", False, {})
    if not isinstance(engine, JetStreamEngine):
        raise NotSupported(
            f"The {engine.name} engine has no index to publish.",
            "Give the address of a store in a NATS cluster: nats://HOST,HOST,HOST/STORE.",
            engine=engine.name,
            capability="index copies",
        )
    try:
        run(engine.open())
        with tempfile.TemporaryDirectory(prefix="publishing-", dir=engine.index_folder) as folder:
            path = os.path.join(folder, "index.db")
            run(engine.copy_index(path))
            head = verify_copy(path, progress)
            return run(engine.publish_index(path, head, to=to, keep=keep))
    finally:
        run(engine.close())


def verify_copy(path: str, progress: Progress) -> Head:
    """Compare all that is redundant in a copy, and return its head. Raises StoreDamaged, InvalidInput."""
    engine = open_engine(path, "sync", False, {"readonly": True})
    try:
        run(engine.open())
        head = run(engine.head())
        if not head.position:
            raise InvalidInput("The log has no events yet.", "Publish a copy of the index when it is long.")
        checking = require(engine, "maintenance").check(progress)
        assert isinstance(checking, Iterable)  # the engine of a file blocks
        problem: Problem | None = next(iter(checking), None)
    finally:
        run(engine.close())
    if problem is not None:
        raise StoreDamaged(
            f"The index of this host is damaged, and no copy was published: {problem.what}",
            "Close every process that uses it, rename its file, and open the store: the log is read into a new one.",
        )
    return head
