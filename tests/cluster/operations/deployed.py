"""A cluster as an operator sets it up: its files written by `eventfold cluster accounts` and `nodes`, copied to nodes.

Knows: the commands' functions, the servers of tests. Does not know: what is tested.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from eventfold.cluster.configuration import Certificates, NodeAddress
from eventfold.cluster.files import (
    ACCOUNTS_FILE,
    create_or_extend_accounts,
    read_accounts,
    save_accounts,
    write_nodes,
)
from tests.support.servers.nats import Cluster, Node, wait_until


class Deployed(Cluster):
    """Three nodes with the configuration that eventfold writes. `stores` may be used by the user `application`.

    `data`: for each node the folder of its streams, if it is not below the cluster's folder.
    """

    def __init__(
        self,
        stores: Sequence[str] = ("bank",),
        *,
        number: int = 3,
        certificates: Certificates | None = None,
        data: dict[str, Path] | None = None,
        disk_limit: str | None = "1GB",
        folder: Path | None = None,
    ) -> None:
        super().__init__(number, folder=folder)
        self.written = self.folder / "written"
        issued, _ = create_or_extend_accounts(self.written, stores)
        self.passwords = {each.user: each.password for each in issued}
        self.is_encrypted = certificates is not None
        self._settings: dict[str, Any] = {"certificates": certificates, "disk_limit": disk_limit}
        addresses = [
            NodeAddress(node.name, node.host, node.ports.clients, node.ports.routes, node.ports.monitoring)
            for node in self.nodes
        ]
        write_nodes(self.written, addresses, cluster="test", data=str(self.folder / "data"), **self._settings)
        for node in self.nodes:
            node.store = self.folder / "data" / node.name
            configuration = (self.written / f"{node.name}.conf").read_text()
            if data and node.name in data:
                configuration = configuration.replace(str(node.store), str(data[node.name]))
                node.store = data[node.name]
            configuration = configuration.replace('lame_duck_grace_period: "3s"', 'lame_duck_grace_period: "0.2s"')
            (node.folder / "nats.conf").write_text(configuration)
        self.copy_accounts()

    def start(self, *nodes: Node) -> Deployed:
        """Start these nodes, or all that are stopped, from their files, and wait until they are ready."""
        chosen = nodes or [node for node in self.nodes if not node.is_running]
        for node in chosen:
            node.start()
        self.wait_until_ready(*chosen)
        return self

    def copy_accounts(self) -> None:
        """Copy the file of accounts to each node."""
        for node in self.nodes:
            shutil.copy(self.written / ACCOUNTS_FILE, node.folder / ACCOUNTS_FILE)

    def reload(self) -> None:
        """Copy the file of accounts to each node, and let it read it again."""
        before = {node.name: node.log().count("Reloaded server configuration") for node in self.nodes}
        self.copy_accounts()
        for node in self.nodes:
            os.kill(node.pid, signal.SIGHUP)
        wait_until(
            lambda: all(n.log().count("Reloaded server configuration") > before[n.name] for n in self.nodes),
            "nodes that have reloaded",
        )

    def add_store(self, store: str) -> None:
        """Let applications use another store."""
        create_or_extend_accounts(self.written, [store])
        self.reload()

    def rotate(self, user: str) -> str:
        """Add a user like this one, and return its name."""
        accounts = read_accounts(self.written)
        issued = accounts.rotate(user)
        save_accounts(self.written, accounts)
        self.passwords[issued.user] = issued.password
        self.reload()
        return issued.user

    def revoke(self, user: str) -> None:
        """Remove a user."""
        accounts = read_accounts(self.written)
        accounts.revoke(user)
        save_accounts(self.written, accounts)
        self.reload()

    def url(self, store: str = "", user: str = "application", password: str | None = None, **options: str) -> str:
        """Return the address of a store, or of the whole cluster, for a user."""
        login = f"{user}:{quote(password or self.passwords[user], safe='')}"
        hosts = ",".join(node.address for node in self.nodes)
        query = "&".join(f"{key}={quote(value, safe=':/,')}" for key, value in options.items())
        scheme = "tls" if self.is_encrypted else "nats"
        return f"{scheme}://{login}@{hosts}{f'/{store}' if store else ''}{'?' if query else ''}{query}"
