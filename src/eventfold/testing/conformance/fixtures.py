"""The fixtures the suite runs on, all made from one that the engine's author gives: `place`.

Knows: pytest, places. Does not know: engines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from eventfold.ports.engine import Capabilities
from eventfold.store import Store
from eventfold.testing.clock import Clock
from eventfold.testing.conformance.engine_under_test import EngineUnderTest
from eventfold.testing.faults import Faulty

__all__ = ["capabilities", "clock", "faults", "open_again", "port", "reopen", "store"]


@pytest.fixture
def store(engine_under_test: EngineUnderTest, request: pytest.FixtureRequest) -> Store:
    """An empty store, looking synchronous in either mode. Where a test asks for `clock`, it goes by that."""
    if "clock" in request.fixturenames:
        return engine_under_test.open(clock=request.getfixturevalue("clock"))
    return engine_under_test.open()


@pytest.fixture
def open_again(store: Store, engine_under_test: EngineUnderTest) -> Callable[[], Store]:
    """Opens another handle on the same store, beside the first."""
    return engine_under_test.open


@pytest.fixture
def reopen(store: Store, engine_under_test: EngineUnderTest) -> Callable[[], Store]:
    """Closes the store and opens it again."""

    def again() -> Store:
        store.close()
        return engine_under_test.open()

    return again


@pytest.fixture
def port(store: Store, engine_under_test: EngineUnderTest) -> Any:
    """The engine under the store: the port, its coroutines run."""
    return engine_under_test.port(store)


@pytest.fixture
def capabilities(store: Store) -> Capabilities:
    """What the engine declares."""
    return store.engine.capabilities


@pytest.fixture
def clock(engine_under_test: EngineUnderTest) -> Clock:
    """A clock that stands still until it is moved; for engines that let it be set."""
    if not engine_under_test.clock:
        pytest.skip("this engine goes by its server's clock, which no test can set")
    return Clock()


@pytest.fixture
def faults(engine_under_test: EngineUnderTest) -> Callable[..., tuple[Store, Faulty]]:
    """Opens the store with faults to plan: `store, faults = faults()`."""
    return engine_under_test.faulty
