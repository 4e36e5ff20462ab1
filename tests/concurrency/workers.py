"""The functions that the other processes of a race run, by `python -m tests.concurrency.workers FUNCTION ARGUMENTS`.

Knows: stores. Does not know: how many other processes there are.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import eventfold as ef
from tests.concurrency.events import Counter, Seat, SeatIsTaken, Taken, Written, count_up, seat, take

SOON = 40.0  # seconds


def take_seats(number: int, url: str, options: dict[str, Any], seats: int) -> list[int]:
    """Try to take every seat by a plain condition. Returns those that were won."""
    won: list[int] = []
    with ef.Store(url, **options) as store:
        for each in range(seats):
            try:
                store.append(Taken(each, f"p-{number}"), unless=seat(each))
                won.append(each)
            except ef.AppendConflict:
                continue
    return won


def decide_seats(number: int, url: str, options: dict[str, Any], seats: int) -> list[int]:
    """Try to take every seat by a decision. Returns those that were won."""
    won: list[int] = []
    with ef.Store(url, **options) as store:
        for each in range(seats):
            try:
                store.using(attempts=50).decide(take, Seat(each), f"p-{number}")
                won.append(each)
            except SeatIsTaken:
                continue
    return won


def count(number: int, url: str, options: dict[str, Any], times: int) -> list[int]:
    """Count one counter up so many times. Returns this process's values."""
    with ef.Store(url, **options) as store:
        view = store.using(attempts=10_000)
        return [view.decide(count_up, Counter("c"), f"p-{number}").events[0].event.value for _ in range(times)]


def write(number: int, url: str, options: dict[str, Any], count: int) -> list[list[int]]:
    """Append numbered events, one to three at a time. Returns the acknowledged positions."""
    positions: list[list[int]] = []
    with ef.Store(url, **options) as store:
        done = 0
        while done < count:
            size = min(1 + done % 3, count - done)
            receipt = store.append(*[Written(f"p-{number}", done + n) for n in range(size)])
            positions.append([receipt.first, receipt.last])
            done += size
    return positions


def write_in_tasks(number: int, url: str, options: dict[str, Any], count: int) -> list[int]:
    """Append numbered events from as many tasks at once. Returns the acknowledged positions, by number."""

    async def main() -> list[int]:
        async with ef.AsyncStore(url, **options) as store:
            receipts = await asyncio.gather(*[store.append(Written(f"p-{number}", n)) for n in range(count)])
            return [receipt.first for receipt in receipts]

    return asyncio.run(main())


def follow(number: int, url: str, options: dict[str, Any], until: int) -> list[int]:
    """Follow from the beginning to a position. Returns every position in the order of arrival."""
    found: list[int] = []
    end = time.monotonic() + SOON
    with ef.Store(url, **options) as store, store.follow() as follower:
        for page in follower.pages(timeout=0.1):
            found.extend(recorded.position for recorded in page)
            if page and page[-1].position != page[-1].last:
                raise AssertionError(f"half an append at {page[-1].position}")
            if (found and found[-1] >= until) or time.monotonic() > end:
                break
    return found


def reread(number: int, url: str, options: dict[str, Any], until: int) -> int:
    """Read the whole log repeatedly while it grows, and check that it never changes. Returns the number of reads."""
    earlier_ids: list[str] = []
    end, turns = time.monotonic() + SOON, 0
    with ef.Store(url, **options) as store:
        while len(earlier_ids) < until and time.monotonic() < end:
            turns += 1
            ids: list[str] = []
            for recorded in store.read():
                ids.append(recorded.id.hex)
                if recorded.position != len(ids):
                    raise AssertionError(f"position {recorded.position} came as number {len(ids)}")
            if ids[: len(earlier_ids)] != earlier_ids:
                raise AssertionError("what was read before has changed")
            earlier_ids = ids
            if turns == 1:
                print("ready", flush=True)  # it reads: now others may write
    return turns


if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    result = globals()[sys.argv[1]](*json.loads(sys.argv[2]))
    print(json.dumps(result))
