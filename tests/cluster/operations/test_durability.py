"""Durability is verified on real nodes: one that confirms before it writes is found, what is not seen is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client

from eventfold.engines.jetstream.durability import verify_durability
from eventfold.errors import StoreUnsafe
from tests.cluster.operations.clients import api, connected, create_stream
from tests.cluster.operations.deployed import Deployed
from tests.support.servers.nats import Cluster, needed, own

pytestmark = needed


def verify(cluster: Deployed, stream: str = "EF_bank", user: str = "application") -> frozenset[str]:
    """Verify a stream over a connection of a user."""

    async def verifying() -> frozenset[str]:
        async with connected(cluster, user) as client:
            return await verify_durability(client, await api(client, f"STREAM.INFO.{stream}"))

    return asyncio.run(verifying())


def test_an_application_verifies_all_nodes_over_its_own_connection(deployed: Deployed) -> None:
    """Its account may ask every node; no other address or password is needed."""
    assert verify(deployed) == frozenset()


def test_a_stream_with_one_copy_in_a_cluster_is_refused(deployed: Deployed) -> None:
    """The loss of its node would lose its events."""

    async def create() -> None:
        async with connected(deployed, "operator") as client:
            await create_stream(client, "lonely", replicas=1)

    asyncio.run(create())
    with pytest.raises(StoreUnsafe, match=r"EF_lonely has 1 of 3 replicas .* `eventfold cluster replicas 3`"):
        verify(deployed, "EF_lonely", "operator")


@pytest.mark.parametrize("changed", [{"storage": "memory"}, {"persist_mode": "async"}], ids=str)
def test_a_stream_that_confirms_what_it_has_not_stored_is_refused(deployed: Deployed, changed: dict[str, Any]) -> None:
    """One in memory, and one that stores later."""

    async def check() -> None:
        async with connected(deployed, "application") as client:
            info = await api(client, "STREAM.INFO.EF_bank")
            await verify_durability(client, info | {"config": info["config"] | changed})

    with pytest.raises(StoreUnsafe):
        asyncio.run(check())


def test_a_node_that_is_down_does_not_refuse_the_store_and_one_that_comes_back_lazy_does(deployed: Deployed) -> None:
    """A dead node confirms nothing; when it is back with other settings, it is named."""
    node = deployed.followers("EF_bank")[0]
    file = node.folder / "nats.conf"
    safe = file.read_text()
    node.kill()
    try:
        assert verify(deployed) == {node.name}
        file.write_text(safe.replace('sync_interval: "always"', 'sync_interval: "2m"'))
        deployed.start(node)
        with pytest.raises(StoreUnsafe, match=f"The node {node.name} confirms events before") as raised:
            verify(deployed)
        assert raised.value.fields["nodes"] == [node.name]
    finally:
        node.kill()
        file.write_text(safe)
        deployed.start(node)
    assert verify(deployed) == frozenset()


@pytest.fixture(scope="module")
def plain() -> Iterator[Cluster]:
    """Three nodes whose application may not ask them, with a stream."""

    async def create(cluster: Cluster) -> None:
        client = await nats.connect(cluster.servers())
        await create_stream(client, "bank")
        await client.close()

    with own(3) as cluster:
        asyncio.run(create(cluster))
        yield cluster


def verify_plain(cluster: Cluster, *monitoring: str, system: str = "") -> frozenset[str]:
    """Verify the stream, by monitoring addresses or a password of the system account."""

    async def connect_system() -> Any:
        user, _, password = system.partition(":")
        client = Client()
        try:
            await client.connect(cluster.servers(user, password), allow_reconnect=False, error_cb=_quiet)
        except nats.errors.Error:
            await client.close()
            raise
        return client

    async def verifying() -> frozenset[str]:
        servers = [f"nats://{node.address}" for node in cluster.nodes if node.is_running]
        client = await nats.connect(servers, user="app", password="not-a-secret")
        try:
            return await verify_durability(
                client, await api(client, "STREAM.INFO.EF_bank"), monitoring=monitoring,
                connect_system=connect_system if system else None,
            )  # fmt: skip
        finally:
            await client.close()

    return asyncio.run(verifying())


async def _quiet(error: Exception) -> None:
    """Let nats-py print nothing: a password is wrong on purpose."""


def test_what_no_node_says_is_refused(plain: Cluster) -> None:
    """Without a right to ask, a password of the system account or a monitoring address nothing is assumed."""
    with pytest.raises(StoreUnsafe, match=r"cannot be verified .* `eventfold cluster accounts`") as raised:
        verify_plain(plain)
    assert raised.value.fields["nodes"] == ["n1", "n2", "n3"]


def test_the_system_account_and_the_monitoring_of_all_nodes_verify_it_too(plain: Cluster) -> None:
    """Each is enough; a wrong password is named with the reason and not shown, and so is a node that was left out."""
    urls = [node.monitoring for node in plain.nodes]
    assert verify_plain(plain, *urls) == frozenset()
    assert verify_plain(plain, system="sys:not-a-secret-either") == frozenset()
    with pytest.raises(StoreUnsafe, match=r"the node n3 writes .*system account could not be used: ") as raised:
        verify_plain(plain, *urls[:2], system="sys:wrong-secret")
    assert "wrong-secret" not in str(raised.value)


def test_a_dead_node_is_distinguished_from_one_that_no_address_names(plain: Cluster) -> None:
    """Its monitoring address refuses connections; without that address it might run, and is refused."""
    node = plain.followers("EF_bank")[0]
    urls = [each.monitoring for each in plain.nodes]
    node.kill()
    try:
        assert verify_plain(plain, *urls) == {node.name}
        with pytest.raises(StoreUnsafe, match=f"the node {node.name} writes"):
            verify_plain(plain, *(url for url in urls if url != node.monitoring))
    finally:
        plain.start(node)
