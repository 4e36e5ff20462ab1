"""A tracer provider with an exporter in memory, and stores that are traced by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import eventfold as ef
from eventfold import telemetry
from tests.telemetry.collected import Collected


@pytest.fixture
def spans() -> Collected:
    """Return the spans that were ended, and the provider that collects them."""
    return Collected()


@pytest.fixture(params=["memory", "sqlite"])
def plain(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ef.Store]:
    """Return a store without traces."""
    with ef.Store("memory:" if request.param == "memory" else str(tmp_path / "shop.db")) as store:
        yield store


@pytest.fixture
def store(plain: ef.Store, spans: Collected) -> ef.Store:
    """Return the same store with traces."""
    return telemetry.traced(plain, name="shop", tracer_provider=spans.provider)
