"""One cluster for the tests of accounts, status and maintenance: as an operator sets it up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.cluster.operations.clients import connected, create_bucket, create_stream
from tests.cluster.operations.deployed import Deployed


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployed]:
    """Three nodes; the store `bank` and the bucket of its locks are there."""
    with Deployed() as cluster:
        cluster.start()

        async def prepare() -> None:
            async with connected(cluster, "operator") as client:
                await create_stream(client, "bank")
                await create_bucket(client, "EF_bank_locks")

        asyncio.run(prepare())
        yield cluster
