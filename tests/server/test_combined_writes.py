"""Writes of one response: the head goes with the first part of the body, and never waits longer than the event loop."""

from __future__ import annotations

import asyncio

from eventfold.server.combined_writes import CombinedWrites


class Written(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = list[bytes]()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.writes.append(bytes(data))

    def close(self) -> None:
        """Note it."""
        self.closed = True

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed


async def written(*steps: bytes | None) -> list[bytes]:
    """What reaches the transport; None lets the event loop go on."""
    transport = Written()
    combined = CombinedWrites(transport, asyncio.get_running_loop())
    for step in steps:
        if step is None:
            await asyncio.sleep(0)
        else:
            combined.write(step)
    return transport.writes


def test_the_head_is_written_with_the_first_part_of_the_body() -> None:
    """Later parts are written at once, each by itself."""
    assert asyncio.run(written(b"head ", b"body ")) == [b"head body "]
    assert asyncio.run(written(b"head ", b"body ", b"more", b"last")) == [b"head body ", b"more", b"last"]


def test_a_head_whose_body_comes_later_does_not_wait_for_it() -> None:
    """As that of a stream that has no event yet."""
    assert asyncio.run(written(b"head", None)) == [b"head"]
    assert asyncio.run(written(b"head", None, b"event", b"event")) == [b"head", b"event", b"event"]


def test_a_response_without_a_body_is_written_before_the_connection_is_closed() -> None:
    """HEAD and 304."""

    async def scenario() -> None:
        transport = Written()
        combined = CombinedWrites(transport, asyncio.get_running_loop())
        combined.write(b"head")
        assert combined.is_closing() is False
        combined.close()
        assert (transport.writes, transport.closed) == ([b"head"], True)
        await asyncio.sleep(0)
        assert transport.writes == [b"head"]

    asyncio.run(scenario())


def test_what_is_written_after_the_client_has_left_is_dropped() -> None:
    """uvloop raises an error, and a line in the log for each request of such a client could fill a disk."""

    async def scenario() -> None:
        transport = Written()
        started, begun = (CombinedWrites(transport, asyncio.get_running_loop()) for _ in range(2))
        started.write(b"head ")
        started.write(b"body")
        begun.write(b"head")
        transport.close()
        started.write(b"more")
        begun.write(b"body")
        await asyncio.sleep(0)
        assert transport.writes == [b"head body"]

    asyncio.run(scenario())
