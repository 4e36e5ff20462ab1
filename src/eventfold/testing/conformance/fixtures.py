"""The fixtures of the suite, all derived from one that the engine's author defines: `engine_under_test`.

Knows: pytest. Does not know: engines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from eventfold.core.query import Query
from eventfold.errors import NotSupported
from eventfold.ports.messages import Capabilities
from eventfold.ports.services import require
from eventfold.store import Store
from eventfold.testing.clock import Clock
from eventfold.testing.conformance.engine_under_test import EngineUnderTest
from eventfold.testing.faults import Faulty

__all__ = [
    "capabilities",
    "clock",
    "faults",
    "locks",
    "lookups",
    "open_again",
    "port",
    "reopen",
    "replica",
    "replication",
    "snapshots",
    "store",
]


def with_a_remedy(call: Callable[[], Any]) -> None:
    """Assert that the call raises NotSupported, with the engine, the capability and a remedy."""
    with pytest.raises(NotSupported) as refused:
        call()
    assert refused.value.fields["engine"]
    assert refused.value.fields["capability"]
    assert len(refused.value.remedy) > 10


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


def service(engine_under_test: EngineUnderTest, store: Store, name: str, call: Callable[[], Any]) -> Any:
    """A service, with its coroutines run. An engine without it refuses `call`, and the test is skipped."""
    found = engine_under_test.service(store, name)
    if found is None:
        with_a_remedy(call)
        pytest.skip(f"the engine has no {name}, and refuses its use with a remedy")
    return found


@pytest.fixture
def lookups(engine_under_test: EngineUnderTest, store: Store) -> Any:
    """The look-ups of the engine under the store."""
    return service(engine_under_test, store, "lookups", lambda: store.event(UUID(int=1)))


@pytest.fixture
def snapshots(engine_under_test: EngineUnderTest, store: Store) -> Any:
    """The snapshots of the engine under the store."""
    return service(engine_under_test, store, "snapshots", lambda: require(store.engine, "snapshots"))


@pytest.fixture
def locks(engine_under_test: EngineUnderTest, store: Store) -> Any:
    """The named locks of the engine under the store."""
    return service(engine_under_test, store, "locks", lambda: store.lock(Query.of(tags=["account:a-1"])).__enter__())


@pytest.fixture
def replication(engine_under_test: EngineUnderTest, store: Store) -> Any:
    """The replication of the engine under the store."""
    return service(engine_under_test, store, "replication", lambda: require(store.engine, "replication"))


@pytest.fixture
def replica(engine_under_test: EngineUnderTest, store: Store) -> Any:
    """The service of the engine under the store that keeps a copy of another log."""
    return service(engine_under_test, store, "replica", lambda: require(store.engine, "replica"))


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
