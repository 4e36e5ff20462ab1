"""The stores that tests look at: a small bank whose classes are not known in this process.

Knows: encoded events. Does not know: commands.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from eventfold.core.envelope import NewEvent, to_micros
from eventfold.core.event_json import build_event
from eventfold.store import Store

NOON = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def identity(number: int) -> UUID:
    """The id of event number so and so."""
    return UUID(int=(0x01920000 << 96) | (0x7000 << 64) | (0x8000 << 48) | number)


def given(
    number: int,
    kind: str,
    account: str,
    *,
    occurred: datetime | None = None,
    version: int = 1,
    tags: Iterable[str] = (),
    **data: Any,
) -> NewEvent:
    """An event of some account."""
    return build_event(
        kind,
        json.dumps({"account": account, **data}, separators=(",", ":")).encode(),
        tags=[f"account:{account}", *tags],
        event_id=identity(number),
        occurred=occurred,
        metadata=b'{"actor":"eve"}' if number % 2 else b"{}",
        version=version,
    )


APPENDS: tuple[tuple[NewEvent, ...], ...] = (
    (given(1, "Opened", "a-1", owner="Ann Example"),),
    (given(2, "Deposited", "a-1", amount="80"),),
    (given(3, "Opened", "a-2", owner="Bob"),),
    (given(4, "Withdrawn", "a-1", amount="30"), given(5, "Deposited", "a-2", amount="30", tags=("vip:yes",))),
    (given(6, "Closed", "a-2", reason="moved away", version=2, occurred=datetime(2026, 11, 20, tzinfo=UTC)),),
)


def fill(url: str, **options: Any) -> str:
    """A bank of six events in five appends, at an address; returns the address."""
    with Store(url, **options) as store:
        for events in APPENDS:
            store.append_encoded(*events)
    return url


class Clock:
    """A clock that starts at noon and goes on by a second whenever it is asked."""

    def __init__(self) -> None:
        self.now = to_micros(NOON)

    def __call__(self) -> int:
        self.now += 1_000_000
        return self.now


def bank_file(folder: Path) -> Path:
    """The bank, in a file."""
    path = folder / "bank.db"
    fill(str(path))
    return path
