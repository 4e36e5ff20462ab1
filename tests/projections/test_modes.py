"""Rebuilds and failures of the published target suite, through stores of both modes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import eventfold as ef
from eventfold.testing.conformance.target.failures import *
from eventfold.testing.conformance.target.generations import *


@pytest.fixture
def store(either: ef.Store) -> ef.Store:
    """Return an empty store of either mode."""
    return either


@pytest.fixture
def open_store(shared_url: str) -> Callable[[], ef.Store]:
    """Return a function that opens the sync store, any number of times."""
    return lambda: ef.Store(shared_url)
