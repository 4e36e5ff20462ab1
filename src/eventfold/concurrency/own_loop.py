"""The event loop that an engine which suspends belongs to: its connections can be awaited on no other.

Knows: asyncio's loops. Does not know: engines.
"""

from __future__ import annotations

import asyncio
import sys

from eventfold.errors import InvalidInput, NotSupported


def current_loop() -> asyncio.AbstractEventLoop:
    """The running loop. Raises NotSupported where none is: on trio, say."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        where = "trio's" if "trio" in sys.modules else "another library's"
        raise NotSupported(
            f"AsyncStore waits on an event loop of asyncio, and none is running here (perhaps {where} is).",
            "Use asyncio (asyncio.run(main())); elsewhere use Store in threads, as in "
            "`await trio.to_thread.run_sync(store.append, event)`.",
            capability="other event loops",
        ) from None


class OwnLoop:
    """The loop that something belongs to. When that one runs no more, it belongs to the next that uses it."""

    def __init__(self) -> None:
        self._loop = current_loop()

    def refuse_others(self) -> None:
        """Raises InvalidInput on another loop while the own one runs."""
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        if self._loop.is_running():
            raise InvalidInput(
                "This AsyncStore is in use on another event loop, and its connections can only be awaited there.",
                "Open an AsyncStore for each event loop: `async with AsyncStore(url) as store` in what each one runs.",
            )
        self._loop = loop
