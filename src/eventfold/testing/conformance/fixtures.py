"""Room: the fixtures the suite runs on, all made from one that the engine's author gives: `place`.

Knows: pytest, places. Does not know: engines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from eventfold.ports.engine import Capabilities
from eventfold.store import Store
from eventfold.testing.clock import Clock
from eventfold.testing.conformance.engine_under_test import Place
from eventfold.testing.faults import Faulty

__all__ = ["capabilities", "clock", "faults", "open_again", "port", "reopen", "store"]


@pytest.fixture
def store(place: Place, request: pytest.FixtureRequest) -> Store:
    """An empty store, looking synchronous in either colour. Where a test asks for `clock`, it goes by that."""
    if "clock" in request.fixturenames:
        return place.open(clock=request.getfixturevalue("clock"))
    return place.open()


@pytest.fixture
def open_again(store: Store, place: Place) -> Callable[[], Store]:
    """Opens another handle on the same store, beside the first."""
    return place.open


@pytest.fixture
def reopen(store: Store, place: Place) -> Callable[[], Store]:
    """Closes the store and opens it again."""

    def again() -> Store:
        store.close()
        return place.open()

    return again


@pytest.fixture
def port(store: Store, place: Place) -> Any:
    """The engine under the store: the port, its coroutines run."""
    return place.port(store)


@pytest.fixture
def capabilities(store: Store) -> Capabilities:
    """What the engine declares."""
    return store.engine.capabilities


@pytest.fixture
def clock(place: Place) -> Clock:
    """A clock that stands still until it is moved; for engines that let it be set."""
    if not place.clock:
        pytest.skip("this engine goes by its server's clock, which no test can set")
    return Clock()


@pytest.fixture
def faults(place: Place) -> Callable[..., tuple[Store, Faulty]]:
    """Opens the store with faults to plan: `store, faults = faults()`."""
    return place.faulty
