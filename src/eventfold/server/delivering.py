"""A server that sends messages about alerts: the targets of its settings, run for each of its stores.

Knows: settings of targets, the life of a server. Does not know: rules (a runner has them), how a message is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from eventfold.aio import AsyncStore
from eventfold.server.settings import Settings

if TYPE_CHECKING:
    from eventfold.processes.runner import AsyncProcessRunner


class Delivering:
    """The deliveries of a server. Nothing is run if there are no targets, or if the server is read-only."""

    def __init__(self, stores: Mapping[str, AsyncStore], settings: Settings) -> None:
        self._stores = stores
        self._targets = {} if settings.read_only else settings.deliver
        self._running: list[AsyncProcessRunner] = []

    async def open(self) -> None:
        """Begin to deliver, for each store. Raises InvalidInput, InvalidProcess if a target cannot be used."""
        if not self._targets:
            return
        from eventfold.alerts.delivery.settings import delivery_of

        for name, store in self._stores.items():
            named = {
                target: each if each.store is not None else msgspec.structs.replace(each, store=name)
                for target, each in self._targets.items()
            }
            deliveries = [delivery_of(target, each) for target, each in named.items()]
            self._running.append(await store.run(*deliveries))

    async def close(self) -> None:
        """End the deliveries."""
        while self._running:
            await self._running.pop().stop()
