"""The fixtures of the suite, all derived from one that the engine's author defines: `engine_under_test`.

Knows: pytest. Does not know: engines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from eventfold.ports.messages import Capabilities
from eventfold.store import Store
from eventfold.testing.clock import Clock
from eventfold.testing.conformance.engine_under_test import EngineUnderTest
from eventfold.testing.faults import Faulty

__all__ = ["capabilities", "clock", "faults", "open_again", "port", "reopen", "store"]


@pytest.fixture
def store(engine_under_test: EngineUnderTest, request: pytest.FixtureRequest) -> Store:
    """An empty store, synchronous in both modes, with the fixture `clock` if the test uses it."""
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
    """The declared capabilities of the engine."""
    return store.engine.capabilities


@pytest.fixture
def clock(engine_under_test: EngineUnderTest) -> Clock:
    """A clock that only moves when it is set; for engines that take one."""
    if not engine_under_test.clock:
        pytest.skip("this engine uses the clock of its server, which no test can set")
    return Clock()


@pytest.fixture
def faults(engine_under_test: EngineUnderTest) -> Callable[..., tuple[Store, Faulty]]:
    """Opens the store with planned faults: `store, faults = faults()`."""
    return engine_under_test.faulty
