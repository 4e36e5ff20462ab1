"""Keys for the tests of the server: a log of keys in a file, made once for a folder.

Knows: the keyring. Does not know: routes.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec

from eventfold.server.access.key_facts import Grant
from eventfold.server.access.key_files import open_keyring
from eventfold.server.access.keyring import Issued
from eventfold.server.access.settings import AccessSettings
from eventfold.server.scopes import Scope
from eventfold.server.settings import Settings

ALL = tuple(Scope)


def access(folder: Path, **more: Any) -> AccessSettings:
    """The settings of a server whose keys are in this folder."""
    return AccessSettings(keys=str(folder / "keys.db"), **more)


def with_keys(folder: Path, settings: Settings | None = None, **more: Any) -> Settings:
    """Settings of a server that authenticates by the keys of this folder."""
    return msgspec.structs.replace(settings or Settings(), access=access(folder, **more))


def issue(folder: Path, name: str = "teller", scopes: tuple[Scope, ...] = ALL, **narrowing: Any) -> Issued:
    """Create a key in the log of keys of this folder."""

    async def create() -> Issued:
        keyring = open_keyring(access(folder), create=True)
        await keyring.open()
        try:
            return await keyring.create(name, Grant(scopes=scopes, **narrowing), actor="operator", duplicate=True)
        finally:
            await keyring.close()

    return asyncio.run(create())


def bearer(issued: Issued) -> dict[str, str]:
    """The header that sends a key."""
    return {"Authorization": f"Bearer {issued.key}"}
