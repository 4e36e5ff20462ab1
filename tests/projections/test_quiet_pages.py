"""The size of pages on SQLite: larger while no one appends, so that a rebuild commits less often."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.ports.messages import Page
from eventfold.ports.target import Checkpoint, CheckpointUpdate
from eventfold.projections.page import DecodedEvent
from eventfold.projections.page_commit import PageCommit
from eventfold.projections.partition_lease import PAGE_EVENTS
from eventfold.targets.sql.transaction import SqlTransaction
from tests.projections.flights import CarrierMonth, Departed

EVENTS = 7 * PAGE_EVENTS


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ef.Store]:
    """A store with more events than several pages have."""
    with ef.Store(str(tmp_path / "log.db")) as opened:
        opened.extend((Departed("a", 1, number % 7) for number in range(EVENTS)), batch=100)
        yield opened


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of events in each page that was committed."""
    found: list[int] = []
    advance = SqlTransaction.advance

    def noting(self: SqlTransaction, checkpoint: Checkpoint, step: CheckpointUpdate) -> Checkpoint:
        found.append(step.seen.count - checkpoint.seen.count)
        return advance(self, checkpoint, step)

    monkeypatch.setattr(SqlTransaction, "advance", noting)
    return found


def test_pages_are_larger_while_no_one_appends(store: ef.Store, pages: list[int]) -> None:
    """A log whose head does not move between pages has no writer that would wait for them."""
    store.project(CarrierMonth)
    assert sum(pages) == EVENTS
    assert PAGE_EVENTS < max(pages) <= 4 * PAGE_EVENTS
    assert store.projections.verify(CarrierMonth)[0].proved


def test_pages_are_small_while_others_append(
    store: ef.Store, pages: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each page of a log whose head moves is as large as pages of other targets."""
    read = PageCommit.read

    async def reading(self: PageCommit) -> tuple[Page, Sequence[DecodedEvent] | None]:
        if sum(pages) < EVENTS - PAGE_EVENTS:
            store.append(Departed("b", 2, 1))
        return await read(self)

    monkeypatch.setattr(PageCommit, "read", reading)
    store.project(CarrierMonth)
    assert sum(pages) > EVENTS
    assert max(pages) <= PAGE_EVENTS
