"""The fixtures of the target suite, all derived from one that the target's author defines: `target_under_test`.

Knows: pytest. Does not know: targets.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from eventfold.ports.target import Target
from eventfold.store import Store
from eventfold.testing.conformance.target.target_under_test import TargetUnderTest

__all__ = ["open_store", "store", "target"]


@pytest.fixture
def store(target_under_test: TargetUnderTest) -> Store:
    """An empty store whose read models are stored in the target."""
    return target_under_test.open_store()


@pytest.fixture
def open_store(target_under_test: TargetUnderTest) -> Callable[[], Store]:
    """Opens a store on the log and the target, any number of times."""
    if not target_under_test.shared:
        pytest.skip("one store at a time: its log or its target is in this process's memory")
    return target_under_test.open_store


@pytest.fixture
def target(store: Store) -> Target:
    """The target of `store`."""
    return store.projections.catalog.target_at()
