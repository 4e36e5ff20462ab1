"""Stores of a server for the tests of the remote engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.servers.cutting_proxy import CuttingProxy
from tests.support.servers.many_stores import shared


@pytest.fixture
def address() -> Iterator[str]:
    """The address of a new store in memory, served by the server of this process."""
    url = shared().add("memory:")
    yield url
    shared().remove(url)


@pytest.fixture
def proxy(address: str) -> Iterator[CuttingProxy]:
    """A proxy in front of the server."""
    with CuttingProxy(int(shared().url.rpartition(":")[2])) as proxy:
        yield proxy


@pytest.fixture
def proxied(address: str, proxy: CuttingProxy) -> str:
    """The address of the store behind the proxy."""
    return f"{proxy.url}/{address.rpartition('/')[2]}"
