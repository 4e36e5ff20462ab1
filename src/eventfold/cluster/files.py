"""The folder with the configuration of a cluster: one file of accounts, and one for each node.

Every file has secrets or their hashes, so only its owner may read it. The password with which nodes connect to each
other is in the nodes' files, and is kept when they are written again.
Knows: the file system. Does not know: what a configuration says.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path

from eventfold.cluster.accounts import ACCOUNT_OF, Accounts, Issued
from eventfold.cluster.configuration import ROUTE_USER, Certificates, NodeAddress, check_nodes, node_configuration
from eventfold.errors import EventfoldError, InvalidInput

ACCOUNTS_FILE = "accounts.conf"
ROUTE_PASSWORD = re.compile(rf"nats-route://{ROUTE_USER}:([A-Za-z0-9_-]+)@")
PASSWORD_BYTES = 24


def create_or_extend_accounts(folder: Path, stores: Iterable[str]) -> tuple[list[Issued], list[str]]:
    """Write the file of accounts, or let its applications use further stores.

    Returns the passwords, which are made when the file is new, and the stores that applications may use now.
    """
    path = folder / ACCOUNTS_FILE
    is_new = not path.exists()
    accounts = Accounts() if is_new else read_accounts(folder)
    for store in stores:
        accounts.add_store(store)
    issued = [accounts.issue(role) for role in ACCOUNT_OF] if is_new else []
    save_accounts(folder, accounts)
    return issued, accounts.stores()


def read_accounts(folder: Path) -> Accounts:
    """The accounts in a folder. Raises InvalidInput if there are none."""
    path = folder / ACCOUNTS_FILE
    try:
        return Accounts.read(path.read_bytes())
    except FileNotFoundError:
        raise InvalidInput(
            f"There is no file {path}.", f"Write one: eventfold cluster accounts {folder} --store NAME."
        ) from None


def save_accounts(folder: Path, accounts: Accounts) -> None:
    """Replace the file of accounts."""
    _save(folder / ACCOUNTS_FILE, accounts.write())


def write_nodes(
    folder: Path,
    nodes: Sequence[NodeAddress],
    *,
    cluster: str,
    data: str,
    disk_limit: str | None = None,
    certificates: Certificates | None = None,
    listen: str | None = None,
) -> list[Path]:
    """Write the file of each node beside the accounts. Each node has its streams in a folder of its name below `data`.

    `{node}` in the paths of certificates stands for the node's name. Raises InvalidInput.
    """
    check_nodes(nodes)
    read_accounts(folder)
    password = _route_password(folder, nodes)
    written: list[Path] = []
    for node in nodes:
        own = None
        if certificates is not None:
            paths = (certificates.certificate, certificates.key, certificates.authority)
            own = Certificates(*(path.replace("{node}", node.name) for path in paths))
        own_data = f"{data.rstrip('/')}/{data_folder(node, nodes)}"
        text = node_configuration(
            node, nodes, cluster=cluster, data=own_data, route_password=password,
            disk_limit=disk_limit, certificates=own, accounts_file=ACCOUNTS_FILE, listen=listen,
        )  # fmt: skip
        path = folder / f"{node.name}.conf"
        _save(path, text.encode())
        written.append(path)
    return written


def data_folder(node: NodeAddress, nodes: Sequence[NodeAddress]) -> str:
    """The name of the folder of a node's streams: another one where it is alone.

    A server that is started as a node of a cluster does not show the streams that it stored while it was alone, and may
    delete them.
    """
    return node.name if len(nodes) > 1 else f"{node.name}-alone"


def _route_password(folder: Path, nodes: Sequence[NodeAddress]) -> str:
    for node in nodes:
        path = folder / f"{node.name}.conf"
        if path.exists() and (found := ROUTE_PASSWORD.search(path.read_text("utf-8", "replace"))):
            return found[1]
    return secrets.token_urlsafe(PASSWORD_BYTES)


def _save(path: Path, data: bytes) -> None:
    """Replace a file, readable for its owner only, so that a reader finds the old or the new content."""
    fresh = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise EventfoldError(
            f"{path} cannot be written: {error.strerror}.", "Name a folder that you may write to, with free space."
        ) from error
