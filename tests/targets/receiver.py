"""Two sinks for tests, in memory and behind HTTP, with planned failures, repeats and losses.

Knows: the sink port. Does not know: the store.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from eventfold.ports.sink import Batch, SinkState
from eventfold.webhooks import verify

SECRET = "whsec_" + "QUJD" * 8
Rows = dict[tuple[Any, ...], dict[str, Any]]


class MemorySink:
    """The smallest sink that fulfils the port."""

    def __init__(self, askable: bool = True) -> None:
        self.address = "memory sink"
        self.rows: dict[tuple[str, int], Rows] = {}
        self.numbers: dict[tuple[str, int, int], int] = {}
        self.chunks: dict[tuple[str, int, int], tuple[int, int]] = {}
        self.live: dict[str, int] = {}
        self.store = ""
        self.trouble: list[str] = []  # of the next calls: "before", "after" (accepted, reply lost), "lost"
        self.batches: list[Batch] = []
        self._askable = askable
        self._lock = threading.RLock()

    def readers(self, projection: str = "carrier_month") -> list[tuple[Any, ...]]:
        """The rows that readers see."""
        return sorted(tuple(row.values()) for row in self.rows.get((projection, self.live[projection]), {}).values())

    def lose(self) -> None:
        """Lose all rows and numbers."""
        with self._lock:
            self.rows.clear()
            self.numbers.clear()
            self.chunks.clear()
            self.live.clear()
            self.store = ""

    def held(self, projection: str, generation: int, partition: int) -> SinkState | None:
        """See the port."""
        if not self._askable:
            return None
        number = self.numbers.get((projection, generation, partition), 0)
        return SinkState(self.store, number, self.live.get(projection, 0))

    def write(self, batch: Batch) -> bool:
        """See the port."""
        with self._lock:
            trouble = self.trouble.pop(0) if self.trouble else ""
            if trouble == "before":
                raise OSError("no answer")
            if "lost" in trouble:
                self.lose()
            taken = self._write(batch)
            if "after" in trouble:
                raise OSError("the reply was lost")
            if trouble == "crash":
                raise KeyboardInterrupt
            return taken

    def _write(self, batch: Batch) -> bool:
        self.batches.append(batch)
        place = (batch.projection, batch.generation, batch.partition)
        last = self.numbers.get(place, 0)
        if batch.projection not in self.live:
            return False
        if not batch.chunk:
            if batch.number <= last:
                return True
            if last != batch.after:
                return False
        elif batch.number < last:
            return True
        elif batch.chunk > 1 and self.chunks.get(place) != (batch.number, batch.chunk - 1):
            return False
        self.store = batch.store
        rows = self.rows.setdefault(place[:2], {})
        for row in batch.puts:
            rows[tuple(row[name] for name in batch.key)] = row
        for key in batch.deletes:
            rows.pop(tuple(key[name] for name in batch.key), None)
        if batch.more:
            self.chunks[place] = (batch.number, batch.chunk)
        else:
            self.numbers[place] = batch.number
        return True

    def show(self, projection: str, generation: int, store: str) -> None:
        """See the port."""
        self.live[projection] = generation

    def drop(self, projection: str, generation: int | None, store: str) -> None:
        """See the port."""
        with self._lock:
            for of in (self.rows, self.numbers, self.chunks):
                for place in [p for p in of if p[0] == projection and generation in (None, p[1])]:
                    of.pop(place)  # type: ignore[attr-defined]
            if generation is None:
                self.live.pop(projection, None)

    def close(self) -> None:
        """See the port."""


class Receiver:
    """An HTTP server that passes signed requests to a MemorySink. `answers`: statuses to return first; 0: none."""

    def __init__(self) -> None:
        self.sink = MemorySink()
        self.answers: list[int] = []
        self.refused: list[str] = []
        self.keys: list[str] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                body = self.rfile.read(length)
                if len(body) < length:
                    return  # the sender was killed meanwhile
                self.send_response(receiver.take(dict(self.headers), body))
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()

    def take(self, headers: dict[str, str], body: bytes) -> int:
        """Handle a request; return the status of the answer."""
        if self.answers and (status := self.answers.pop(0)):
            return status
        try:
            message = verify(headers, body, SECRET)
        except Exception as error:  # noqa: BLE001 (shown by the test)
            self.refused.append(str(error))
            return 401
        low = {name.lower(): value for name, value in headers.items()}
        assert low["idempotency-key"] == low["webhook-id"]
        self.keys.append(low["idempotency-key"])
        data = message["data"]
        match message["type"].rpartition(".")[2]:
            case "rows":
                batch = Batch(**{**data, "time": message["timestamp"], "key": tuple(data["key"])})
                return 204 if self.sink.write(batch) else 409
            case "shown":
                self.sink.show(data["projection"], data["generation"], data["store"])
            case "dropped":
                self.sink.drop(data["projection"], data["generation"], data["store"])
            case kind:
                self.refused.append(kind)
        return 204

    def close(self) -> None:
        """Stop the server."""
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A running receiver."""
    receiver = Receiver()
    try:
        yield receiver
    finally:
        receiver.close()


def shown(row: str) -> tuple[Any, ...]:
    """A row's JSON as a tuple."""
    return tuple(json.loads(row).values())
