"""An engine outside eventfold's tree: the log of one process as lines of JSON in a file, one line for each append.

A line is written and flushed to the disk (fsync) before its append is acknowledged. A last line without its newline was
cut off by a crash, was never acknowledged, and is removed when the file is opened. The whole log is in memory as well:
a `MemoryEngine` judges conditions and answers reads. For POSIX systems.
Knows: the file, the form of its lines. Does not know: how a condition is judged.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ClassVar, Literal, TypeVar, TypeVarTuple

import msgspec

from eventfold import errors
from eventfold.concurrency import run
from eventfold.concurrency.run import refuse_after_fork
from eventfold.concurrency.wakeup import call_all
from eventfold.core.envelope import Receipt, StoredEvent
from eventfold.core.mutex import Mutex
from eventfold.core.query import Query
from eventfold.engines.memory import MemoryEngine
from eventfold.ports.engine import Engine
from eventfold.ports.messages import AppendRequest, Capabilities, Head, Outcome, Page, Span, TagCount, TypeCount
from eventfold.ports.services import Services

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Clock = Callable[[], int]
FIRST_BYTES = b'{"store":"'  # of every file: its first line is the identity of the store


def open_engine(address: str, *, mode: Literal["sync", "async"], create: bool, clock: Clock | None = None) -> Engine:
    """The entry point: the engine at `jsonl:PATH`, not yet open. It blocks in either mode: AsyncStore uses threads."""
    path = address.partition(":")[2]
    if not path:
        raise errors.InvalidUrl(f"The address {address!r} names no file.", "Write jsonl:PATH.", url=address)
    return JsonLinesEngine(path, create=create, clock=clock)


class Line(msgspec.Struct, omit_defaults=True):
    """The store's identity; or the events of one append, with its request key; or a key of an append further up.

    Events that were imported from another store are in one line for each call of `import_events`.
    Ids, payloads and metadata are bytes, in base64, so that they come back byte for byte.
    """

    store: str | None = None
    epoch: int = 0
    events: list[StoredEvent] = []
    key: str | None = None
    first: int = 0  # the first position of the append that has the key


class LogFile:
    """The file, and the same log in memory: one object for all handles of this process on a path.

    If a change fails or is interrupted, memory and disk may differ. Then the next call cuts the file back to what was
    acknowledged, and reads it again.
    """

    _opened: ClassVar[dict[str, LogFile]] = {}
    _opening: ClassVar[Mutex] = Mutex()

    def __init__(self, path: str, clock: Clock | None) -> None:
        self.path, self._clock = path, clock
        self.handles = 0
        self.store_id, self.epoch = "", 0
        self.watchers: list[Callable[[], None]] = []
        self.unwritten = MemoryEngine().services  # locks and snapshots: this process is the only one on the file
        self._mutex = Mutex()
        self._memory: MemoryEngine | None = None  # None: to be read from the file
        self._file = -1
        self.size = 0  # bytes of the lines that are acknowledged

    @classmethod
    def acquire(cls, path: str, create: bool, clock: Clock | None) -> LogFile:
        """The LogFile of a path, for one more handle. The first handle opens and locks the file."""
        return cls._opening.run(cls._acquire, path, create, clock)

    @classmethod
    def _acquire(cls, path: str, create: bool, clock: Clock | None) -> LogFile:
        log = cls._opened.get(path)
        if log is None:
            log = cls(path, clock)
            try:
                log._open(create)
            except BaseException:
                log._close()
                raise
            cls._opened[path] = log
        log.handles += 1
        return log

    def release(self) -> None:
        """Close the file with its last handle."""
        self._opening.run(self._release)

    def _release(self) -> None:
        self.handles -= 1
        if not self.handles:
            del self._opened[self.path]
            self._mutex.run(self._close)

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)  # which releases its lock
            self._file = -1

    def _open(self, create: bool) -> None:
        if not create and not (os.path.exists(self.path) and os.path.getsize(self.path)):
            raise errors.StoreNotFound(
                f"There is no store at {self.path}.", "Check the path, or open it with create=True.", creatable=True
            )
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            content = self._content()
            if not content.startswith(FIRST_BYTES) and not FIRST_BYTES.startswith(content):
                raise errors.NotAStore(f"{self.path} is a file of something else.", "Choose another path.")
            self.size = content.rfind(b"\n") + 1
            memory = self._recover()
            if not self.size:
                self._write([Line(store=memory.store_id, epoch=memory.epoch)])
                directory = os.open(os.path.dirname(self.path), os.O_RDONLY)
                os.fsync(directory)  # the name of a new file
                os.close(directory)
        except BlockingIOError:
            raise errors.StoreBusy(f"Another process has {self.path} open.", "Close the store there.") from None
        except OSError as error:
            refuse_system_error(error, errors.StoreUnavailable, f"{self.path} cannot be opened", "Check the path.")
            raise

    def _content(self) -> bytes:
        with open(self._file, "rb", closefd=False) as file:
            file.seek(0)
            return file.read()

    def _recover(self) -> MemoryEngine:
        """Cut the file back to its acknowledged lines, and read these into memory."""
        os.ftruncate(self._file, self.size)
        os.fsync(self._file)  # a process that was killed may have left lines that are not on the disk yet
        memory = MemoryEngine() if self._clock is None else MemoryEngine(self._clock)
        for number, text in enumerate(self._content().splitlines(), 1):
            try:
                line = msgspec.json.decode(text, type=Line)
                if line.store is not None:
                    run(memory.take_identity(line.store, line.epoch))
                run(memory.import_events(line.events, [] if line.key is None else [(line.key, line.first)]))
            except (msgspec.DecodeError, UnicodeDecodeError, errors.AppendConflict, IndexError) as error:
                raise errors.StoreDamaged(
                    f"Line {number} of {self.path} is damaged: {error}.", "Restore a copy of the file.", line=number
                ) from error
        self._memory, self.store_id, self.epoch = memory, memory.store_id, memory.epoch
        return memory

    def _complete_memory(self) -> MemoryEngine:
        if self._file < 0:
            raise errors.StoreClosed(f"The store {self.path} is closed.", "Open it again.")
        try:
            return self._memory or self._recover()
        except OSError as error:
            refuse_system_error(error, errors.StoreUnavailable, f"{self.path} cannot be read", "Check the disk.")
            raise

    def call(self, method: Callable[[MemoryEngine, *Ts], Coroutine[Any, Any, T]], *args: *Ts) -> T:
        """Call a method of the log in memory that changes nothing. It sees what is on the disk."""
        return self._mutex.run(lambda: run(method(self._complete_memory(), *args)))

    def change(self, work: Callable[[MemoryEngine], tuple[T, list[Line]]]) -> T:
        """Change the log in memory by `work`, and write the lines that it returns. Durable when it returns."""
        result = self._mutex.run(self._change, work)
        call_all(tuple(self.watchers))
        return result

    def _change(self, work: Callable[[MemoryEngine], tuple[T, list[Line]]]) -> T:
        memory = self._complete_memory()
        self._memory = None  # until the disk has the same: after any exception the next call recovers
        result, lines = work(memory)
        if lines:
            self._write(lines)
        self._memory, self.store_id, self.epoch = memory, memory.store_id, memory.epoch
        return result

    def _write(self, lines: Sequence[Line]) -> None:
        content = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        size = self.size + len(content)
        try:
            if not os.fstat(self._file).st_nlink:
                raise errors.StoreDamaged(
                    f"{self.path} was removed or replaced while it was open.", "Close the store, and open it again."
                )
            while content:
                content = content[os.write(self._file, content) :]
            os.fsync(self._file)
        except OSError as error:
            remedy = "Check the disk, then repeat the identical append."
            refuse_system_error(error, errors.AppendUnconfirmed, f"{self.path} could not be written", remedy)
            raise
        self.size = size


def refuse_system_error(error: OSError, kind: type[errors.EventfoldError], what: str, remedy: str) -> None:
    """Raise an error of the system as one of eventfold's. Others are Python's: a signal handler's TimeoutError."""
    if error.errno is not None:
        raise kind(f"{what}: {error}.", remedy) from error


class JsonLinesEngine:
    """One handle on the log in a file: `ef.Store("jsonl:log.jsonl")`, or `ef.Store(JsonLinesEngine("log.jsonl"))`."""

    name = "jsonl"
    capabilities = Capabilities(shared=False, immutable=False)

    def __init__(self, path: str, *, create: bool = True, clock: Clock | None = None) -> None:
        self.path, self._create = os.path.realpath(path), create
        self._shared, self._is_open = LogFile(self.path, clock), False
        self._clock, self._process = clock, os.getpid()
        self._watching: list[Callable[[], None]] = []

    @property
    def store_id(self) -> str:
        return self._shared.store_id

    @property
    def epoch(self) -> int:
        return self._shared.epoch

    @property
    def default_target(self) -> str:
        """A SQLite file beside the log."""
        return f"sqlite:{self.path}.models.db"

    @property
    def services(self) -> Services:
        """The others are None: using one raises NotSupported with a remedy (`ports.services.require`)."""
        unwritten = self._shared.unwritten
        return Services(lookups=self, locks=unwritten.locks, snapshots=unwritten.snapshots, replication=self)

    def _log(self) -> LogFile:
        refuse_after_fork(self._process)
        if not self._is_open:
            raise errors.StoreClosed(f"The store {self.path} is closed.", "Open it again.")
        return self._shared

    async def open(self) -> None:
        self._shared, self._is_open = LogFile.acquire(self.path, self._create, self._clock), True

    async def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._shared.release()
        call_all(tuple(self._watching))  # a follower that waits reads again, and gets StoreClosed

    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        def append(memory: MemoryEngine) -> tuple[list[Outcome], list[Line]]:
            keys = [request.key for request in requests if request.key is not None]
            written = {None, *(key for key in keys if run(memory.receipt_of(key)) is not None)}
            outcomes, lines = run(memory.append_many(requests)), list[Line]()
            for request, done in zip(requests, outcomes, strict=True):
                if not isinstance(done, Receipt) or (done.repeated and request.key in written):
                    continue  # refused, or in the file already
                span = Span(after=done.first - 1, until=done.last)
                events = [] if done.repeated else list(run(memory.read(Query(), span)).events)
                lines.append(Line(events=events, key=request.key, first=done.first))
            return outcomes, lines

        return self._log().change(append)

    async def read(self, query: Query, span: Span) -> Page:
        return self._log().call(MemoryEngine.read, query, span)

    async def head(self) -> Head:
        return self._log().call(MemoryEngine.head)

    async def count(self, query: Query, after: int = 0, until: int | None = None) -> int:
        return self._log().call(MemoryEngine.count, query, after, until)

    async def position_at(self, time: int) -> int:
        return self._log().call(MemoryEngine.position_at, time)

    async def event_id(self, position: int) -> bytes | None:
        return self._log().call(MemoryEngine.event_id, position)

    async def boundary(self, position: int) -> int:
        return self._log().call(MemoryEngine.boundary, position)

    async def receipt_of(self, key: str) -> Receipt | None:
        return self._log().call(MemoryEngine.receipt_of, key)

    async def types(self) -> list[TypeCount]:
        return self._log().call(MemoryEngine.types)

    async def tags(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[TagCount]:
        return self._log().call(MemoryEngine.tags, prefix, limit, after)

    async def stats(self) -> dict[str, Any]:
        log = self._log()
        return log.call(MemoryEngine.stats) | {"engine": self.name, "path": self.path, "bytes": log.size}

    def watch(self, notify: Callable[[], None]) -> Callable[[], None]:
        watchers = self._log().watchers
        watchers.append(notify)
        self._watching.append(notify)

        def stop() -> None:
            for each in (watchers, self._watching):
                if notify in each:
                    each.remove(notify)

        return stop

    # The services `lookups` and `replication`

    async def position_of(self, id: bytes) -> int | None:
        return self._log().call(MemoryEngine.position_of, id)

    async def tag_keys(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[str]:
        return self._log().call(MemoryEngine.tag_keys, prefix, limit, after)

    async def tag_names(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[str]:
        return self._log().call(MemoryEngine.tag_names, prefix, limit, after)

    async def counts(self, query: Query, bounds: Sequence[int]) -> list[int]:
        return self._log().call(MemoryEngine.counts, query, bounds)

    async def keys(self, after: str = "", limit: int = 1000) -> list[tuple[str, int]]:
        return self._log().call(MemoryEngine.keys, after, limit)

    async def import_events(self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]] = ()) -> None:
        def take(memory: MemoryEngine) -> tuple[None, list[Line]]:
            run(memory.import_events(events, keys))
            return None, [Line(events=list(events)), *(Line(key=key, first=first) for key, first in keys)]

        self._log().change(take)

    async def take_identity(self, store_id: str, epoch: int) -> None:
        def take(memory: MemoryEngine) -> tuple[None, list[Line]]:
            run(memory.take_identity(store_id, epoch))
            return None, [Line(store=store_id, epoch=epoch)]

        self._log().change(take)
