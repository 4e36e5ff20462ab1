"""Optional services of an engine.

Knows: what each service answers. Does not know: which engine has it.
"""

from __future__ import annotations

import msgspec


class UpgradeResult(msgspec.Struct, frozen=True):
    """What an upgrade of a store's layout did: the layout it had, the one it has, where its copy from before lies."""

    had: int
    now: int
    backup: str | None = None


class RestoreResult(msgspec.Struct, frozen=True):
    """Which store was restored by other tools: its id, the epoch that ended with it and the one that begins."""

    store: str
    ended: int
    epoch: int
