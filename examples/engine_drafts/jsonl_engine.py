"""An engine of one's own: the log of one process as lines of JSON in a file. Each line is one append.

A line is written and flushed to the disk (fsync) before its append is acknowledged; a last line that a crash cut off
was never acknowledged and is removed. Conditions are judged and reads are answered by `MemoryEngine`, around which this
engine is wrapped. Knows: the form of a line, the file. Does not know: how conditions are judged.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, ClassVar, ParamSpec, TypeVar

import msgspec

from eventfold.core.envelope import Receipt, StoredEvent
from eventfold.core.query import Query
from eventfold.engines.memory import MemoryEngine
from eventfold.errors import AppendUnconfirmed, StoreBusy, StoreClosed, StoreDamaged, StoreNotFound, StoreUnavailable
from eventfold.ports.messages import AppendRequest, Capabilities, Outcome, Span
from eventfold.ports.services import Services
from eventfold.ports.wrapping import Wrapping, wrap_services

P = ParamSpec("P")
T = TypeVar("T")


class Line(msgspec.Struct, omit_defaults=True):
    """What was written at once: an append with its request key, a key of an append before, or the store's identity."""

    events: list[StoredEvent] = []
    key: str | None = None
    first: int = 0  # position of the append that has the key
    store: str | None = None
    epoch: int = 0


class JsonLinesFile:
    """The file, and the log in memory that has the same events. Every handle of this process shares it."""

    _opened: ClassVar[dict[str, JsonLinesFile]] = {}
    _opening = threading.Lock()

    def __init__(self, path: str, clock: Callable[[], int] | None) -> None:
        self.path, self.handles = path, 0
        self.lock = threading.RLock()  # held by each call: what is in memory is seen once it is on the disk
        self.memory = MemoryEngine() if clock is None else MemoryEngine(clock)
        self.keys: set[str] = set()
        self._file: int | None = None

    @classmethod
    async def acquire(cls, path: str, create: bool, clock: Callable[[], int] | None) -> JsonLinesFile:
        """The file at a path, read into memory by the first handle."""
        with cls._opening:
            found = cls._opened.get(path)
            if found is None:
                found = cls(path, clock)
                await found._load(create)
                cls._opened[path] = found
            found.handles += 1
            return found

    def release(self) -> None:
        """Close the file with its last handle."""
        with self._opening, self.lock:
            self.handles -= 1
            if not self.handles:
                self._close()

    async def _load(self, create: bool) -> None:
        if not create and not os.path.exists(self.path):
            raise StoreNotFound(f"There is no store at {self.path}.", "Check the path, or open it with create=True.")
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            await self._read(Path(self.path).read_bytes())
        except BaseException as error:
            self._close()
            if isinstance(error, BlockingIOError):
                raise StoreBusy(f"Another process has {self.path} open.", "Close it there.") from None
            if isinstance(error, OSError):
                raise StoreUnavailable(f"{self.path} cannot be opened: {error}.", "Check its directory.") from error
            raise

    async def _read(self, content: bytes) -> None:
        assert self._file is not None
        whole = content[: content.rfind(b"\n") + 1]
        os.ftruncate(self._file, len(whole))  # a line that a crash cut off
        log = self.memory.services.replication
        assert log is not None
        for number, text in enumerate(whole.splitlines(), 1):
            try:
                line = msgspec.json.decode(text, type=Line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise StoreDamaged(f"Line {number} of {self.path} is damaged: {error}.", "Restore a copy.") from error
            if line.store is not None:
                await log.take_identity(line.store, line.epoch)
            await log.import_events(line.events, [] if line.key is None else [(line.key, line.first)])
            self.keys.update([] if line.key is None else [line.key])
        if not whole:
            self.write([self.identity()])
            directory = os.open(os.path.dirname(self.path), os.O_RDONLY)
            os.fsync(directory)  # the file's name
            os.close(directory)

    def identity(self) -> Line:
        """The line that says which store this is."""
        return Line(store=self.memory.store_id, epoch=self.memory.epoch)

    def write(self, lines: Sequence[Line]) -> None:
        """Write lines durably. If that fails the file is closed: what is on the disk is known when it is read again."""
        if self._file is None:
            raise StoreClosed(f"{self.path} was closed after an error.", "Open it again.")
        content = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        try:
            while content:
                content = content[os.write(self._file, content) :]
            os.fsync(self._file)
        except OSError as error:
            self._close()
            raise AppendUnconfirmed(
                f"{self.path} could not be written: {error}.", "Open it again, then repeat the identical append."
            ) from error
        self.keys.update(line.key for line in lines if line.key is not None)

    @property
    def is_closed(self) -> bool:
        """Whether the file is closed."""
        return self._file is None

    def _close(self) -> None:
        if self._opened.get(self.path) is self:
            del self._opened[self.path]
        if self._file is not None:
            os.close(self._file)
            self._file = None


class JsonLinesEngine(Wrapping):
    """A handle on the log in a file: `ef.Store(JsonLinesEngine("log.jsonl"))`, or `ef.Store("jsonl:log.jsonl")`."""

    def __init__(
        self, path: str, *, mode: str = "sync", create: bool = True, clock: Callable[[], int] | None = None
    ) -> None:
        super().__init__(MemoryEngine())  # replaced by that of the file when it is opened
        self.name = "jsonl"
        self.capabilities = Capabilities(shared=False, immutable=False)
        self.path = os.path.realpath(path.removeprefix("jsonl:"))
        self._create, self._clock = create, clock
        self._shared: JsonLinesFile | None = None
        self._watchers: list[Callable[[], None]] = []

    @property
    def default_target(self) -> str:
        """See the port: a SQLite file beside the log."""
        return f"sqlite:{self.path}.models.db"

    @property
    def services(self) -> Services:
        """See the port. Locks and snapshots are those of the process; there is no backup but a copy of the file."""
        found = wrap_services(self.inner.services, self.call)
        return Services(lookups=found.lookups, locks=found.locks, snapshots=found.snapshots, replication=self)

    def _file(self) -> JsonLinesFile:
        if self._shared is None or self._shared.is_closed:
            raise StoreClosed(f"The store {self.path} is closed.", "Open it again.")
        return self._shared

    async def call(self, method: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **named: P.kwargs) -> T:
        """Every call but an append: what an append has not made durable yet is not seen."""
        with self._file().lock:
            return await method(*args, **named)

    async def open(self) -> None:
        """See the port."""
        self._shared = await JsonLinesFile.acquire(self.path, self._create, self._clock)
        self.inner = self._shared.memory

    async def close(self) -> None:
        """See the port."""
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.release()
        for notify in self._watchers:  # so that followers learn of it
            notify()

    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """See the port."""
        file = self._file()
        with file.lock:
            file = self._file()
            outcomes = await self.inner.append_many(requests)
            lines = [await self._line(request, done) for request, done in zip(requests, outcomes, strict=True)]
            if any(line is not None for line in lines):
                file.write([line for line in lines if line is not None])
        return outcomes

    async def _line(self, request: AppendRequest, outcome: Outcome) -> Line | None:
        """What is written of a request: its events; only its key, if the events were there; nothing of a refusal."""
        if not isinstance(outcome, Receipt):
            return None
        if outcome.repeated:
            is_new = request.key is not None and request.key not in self._file().keys
            return Line(key=request.key, first=outcome.first) if is_new else None
        page = await self.inner.read(Query(), Span(after=outcome.first - 1, until=outcome.last))
        return Line(events=page.events, key=request.key, first=outcome.first if request.key is not None else 0)

    def watch(self, notify: Callable[[], None]) -> Callable[[], None]:
        """See the port."""
        self._file()
        stop = self.inner.watch(notify)
        self._watchers.append(notify)

        def end() -> None:
            stop()
            if notify in self._watchers:
                self._watchers.remove(notify)

        return end

    async def stats(self) -> dict[str, Any]:
        """See the port."""
        facts = await super().stats()
        return facts | {"engine": self.name, "path": self.path, "bytes": os.stat(self.path).st_size}

    # The service `replication`

    async def keys(self, after: str = "", limit: int = 1000) -> list[tuple[str, int]]:
        """See services.Replication."""
        return await self.call(self._replication().keys, after, limit)

    async def import_events(self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]] = ()) -> None:
        """See services.Replication."""
        file = self._file()
        with file.lock:
            await self._replication().import_events(events, keys)
            file.write([Line(events=list(events)), *(Line(key=key, first=first) for key, first in keys)])

    async def take_identity(self, store_id: str, epoch: int) -> None:
        """See services.Replication."""
        file = self._file()
        with file.lock:
            await self._replication().take_identity(store_id, epoch)
            file.write([file.identity()])

    def _replication(self) -> Any:
        return self.inner.services.replication
