"""TLS on real nodes: clients and nodes are encrypted, a node without a certificate does not join, files are renewed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import nats
import nats.errors
import pytest

from eventfold.cluster.configuration import Certificates
from tests.cli.commands import run
from tests.cluster.operations.certificates import Authority
from tests.cluster.operations.clients import connected, create_stream
from tests.cluster.operations.deployed import Deployed
from tests.support.memory import tmp_path
from tests.support.servers.nats import needed, wait_until

pytestmark = needed
__all__ = ["tmp_path"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority of the nodes, and their certificates."""
    made = Authority(tmp_path_factory.mktemp("certificates"))
    for name in ("n1", "n2", "n3"):
        made.issue(name)
    return made


@pytest.fixture(scope="module")
def encrypted(authority: Authority) -> Iterator[Deployed]:
    """Three nodes with certificates, and a store."""
    paths = Certificates(
        f"{authority.folder}/{{node}}.pem", f"{authority.folder}/{{node}}.key", f"{authority.folder}/ca.pem"
    )

    async def prepare(cluster: Deployed) -> None:
        async with connected(cluster, "operator", tls=trusting(authority)) as client:
            await create_stream(client, "bank")

    with Deployed(certificates=paths) as cluster:
        cluster.start()
        asyncio.run(prepare(cluster))
        yield cluster


def trusting(authority: Authority) -> ssl.SSLContext:
    """A client's settings: only this authority is trusted."""
    return ssl.create_default_context(cafile=f"{authority.folder}/ca.pem")


def test_a_client_that_trusts_the_authority_is_encrypted(encrypted: Deployed, authority: Authority) -> None:
    """By tls:// and tls_ca in the address."""
    ran = run("cluster", "status", encrypted.url(user="operator", tls_ca=f"{authority.folder}/ca.pem"), "--wait", "30")
    assert ran.code == 0, ran
    assert [stream["name"] for stream in ran.lines[0]["streams"]] == ["EF_bank"]


def test_a_client_that_does_not_trust_it_gets_a_clear_error(encrypted: Deployed, tmp_path: Path) -> None:
    """Without the authority, with another one, and with a file that is no certificate."""
    ran = run("cluster", "status", encrypted.url(user="operator", timeout="1"))
    assert ran.code == 5 and "certificate" in ran.err and encrypted.passwords["operator"] not in ran.err
    other = Authority(tmp_path / "other")
    ran = run("cluster", "status", encrypted.url(user="operator", tls_ca=f"{other.folder}/ca.pem", timeout="1"))
    assert ran.code == 5 and "certificate" in ran.err
    (tmp_path / "broken.pem").write_text("no certificate")
    ran = run("cluster", "status", encrypted.url(user="operator", tls_ca=str(tmp_path / "broken.pem")))
    assert ran.code == 2 and "tls_ca" in ran.err


def test_a_node_without_a_certificate_of_the_authority_does_not_join(encrypted: Deployed, tmp_path: Path) -> None:
    """It would see every event: the others refuse its connection."""
    stranger = Authority(tmp_path)
    stranger.issue("n3")
    node = encrypted.nodes[2]
    file = node.folder / "nats.conf"
    text = file.read_text()
    node.stop()
    for end in ("pem", "key"):
        found = next(part for part in text.split('"') if part.endswith(f"/n3.{end}"))
        file.write_text(file.read_text().replace(found, f"{tmp_path}/n3.{end}"))
    try:
        node.start()
        wait_until(lambda: "certificate signed by unknown authority" in encrypted.nodes[0].log(), "a refused node")
        assert [route["remote_name"] for route in node.get("routez").get("routes", [])] == []
    finally:
        node.kill()
        file.write_text(text)
        encrypted.start(node)


def test_renewed_certificates_are_used_after_a_signal(encrypted: Deployed, authority: Authority) -> None:
    """New files and SIGHUP: connections stay, and new ones get the new certificate."""
    node = encrypted.nodes[0]

    def serial() -> str:
        with socket.create_connection((node.host, node.ports.clients), timeout=10) as plain:
            while plain.recv(1) != b"\n":  # the server's first line is not encrypted
                pass
            with trusting(authority).wrap_socket(plain, server_hostname="127.0.0.1") as encrypted_socket:
                found = encrypted_socket.getpeercert()
                assert found is not None
                return str(found["serialNumber"])

    first = serial()
    authority.issue("n1")
    reloads = node.log().count("Reloaded server configuration")
    os.kill(node.pid, signal.SIGHUP)
    wait_until(lambda: node.log().count("Reloaded server configuration") > reloads, "a node that has reloaded")
    assert serial() != first


def test_an_unencrypted_client_is_refused(encrypted: Deployed) -> None:
    """A server that requires TLS sends nothing without it."""

    async def connect() -> None:
        hosts = [f"nats://{node.address}" for node in encrypted.nodes]
        context = ssl.create_default_context()
        with pytest.raises((nats.errors.Error, OSError)):
            await nats.connect(
                hosts, user="operator", password=encrypted.passwords["operator"], tls=context,
                max_reconnect_attempts=0, allow_reconnect=False, error_cb=_quiet,
            )  # fmt: skip

    asyncio.run(connect())


async def _quiet(error: Exception) -> None:
    """Let nats-py print nothing: connections are refused on purpose."""
