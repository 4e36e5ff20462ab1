"""Writes the stored examples of one layout: run once, with the eventfold version that writes this layout.

    python make.py sqlite:/tmp/1.store  or  python make.py postgresql://…?schema=eventfold_kept

Prints the store's identity, and then every event of the store as a line of JSON. Knows: the engines' port as it was at
layouts 1 and 2. Does not know: later changes.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import eventfold as ef
from eventfold.concurrency.run import run
from eventfold.core.envelope import NewEvent, new_id
from eventfold.core.query import Query
from eventfold.core.snapshot import Snapshot
from eventfold.ports.inline import InlineRegistration
from eventfold.ports.messages import AppendRequest, Span

SPECIAL = '{"text":"ä \\u0000 🂡"}'.encode()


def event(type: str, *tags: str, data: bytes = b'{"amount":1}', **more: Any) -> NewEvent:
    """Return a new event."""
    return NewEvent(new_id(), type, more.pop("version", 1), data, tuple(sorted(tags)), **more)


def described(stored: Any) -> dict[str, Any]:
    """Return every field of a stored event, as JSON has it."""
    plain = {name: getattr(stored, name) for name in stored.__struct_fields__}
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in plain.items()}


def main(url: str) -> None:
    """Write appends of one and of several events, request keys, a snapshot and a registration."""
    with ef.Store(url, create=True) as store:
        engine = store.engine
        services: Any = getattr(engine, "services", engine)  # of layout 1: the engine itself

        def append(*events: NewEvent, key: str | None = None) -> None:
            run(engine.append_many([AppendRequest(events, (), key)]))

        append(event("Opened", "account:a-1"), key="open a-1")
        append(event("Deposited", "account:a-1", data=b'{"amount":40}'))
        append(
            event("Withdrawn", "account:a-1", "transfer:t-1"),
            event("Deposited", "account:a-2", "transfer:t-1"),
            event("Noted", version=3, occurred=1_700_000_000_000_000, metadata=b'{"actor":"eve"}'),
            key="transfer t-1",
        )
        append(event("Noted", "text:ä ✓", data=SPECIAL))
        append(event("Sealed", "account:a-1", data=b"\x00\xff\x01", codec="aes", key="k-1"))
        for number in range(5):
            append(event("Deposited", f"account:a-{number % 3}"))
        last = run(engine.read(Query(), Span())).events[-1]
        run(services.snapshots.put("app.Account [1]", Snapshot("f" * 8, last.position, last.id, b'{"total":46}')))

        async def enrol(turn: Any) -> None:
            await turn.register(InlineRegistration("balance", "c0de", ("Archived", "Restored"), "t1"))

        run(services.inline.exclusive(enrol))
        print(json.dumps({"store": engine.store_id, "epoch": engine.epoch}))
        for stored in run(engine.read(Query(), Span())).events:
            print(json.dumps(described(stored)))


if __name__ == "__main__":
    main(sys.argv[1])
