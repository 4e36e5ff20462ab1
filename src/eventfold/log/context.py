"""What every operation on a log needs: the engine, the registry, how appends are submitted, how a caller waits.

Knows: the options of a call, where its metadata comes from. Does not know: how submitting and waiting work.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Protocol

import msgspec

from eventfold.concurrency.calls import Call
from eventfold.core.codec import encode_metadata
from eventfold.core.registry import Registry
from eventfold.errors import InvalidInput
from eventfold.log.lock_holders import LockTable
from eventfold.log.pipeline import DecisionPipeline, Exclusive, Promise
from eventfold.log.state_cache import StateCache
from eventfold.ports.engine import Engine
from eventfold.ports.messages import AppendRequest, Outcome


class Command(msgspec.Struct, frozen=True):
    """A decision before anything is read for it, as it is passed to `authorise`.

    `function` is the decision; `arguments` and `named` are its arguments, in which states are still questions.
    `metadata` is the context's, replaced by the options' where both have a key.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    metadata: dict[str, Any]


class Options(msgspec.Struct, frozen=True):
    """What `store.using(…)` sets: the number of attempts, and what is written with the events."""

    attempts: int = 10
    command_id: str | None = None
    metadata: tuple[tuple[str, Any], ...] = ()
    connection: Any = None  # the user's, whose transaction appends join
    authorise: Callable[[Command], None] | None = None
    epoch: int | None = None  # the only epoch in which a decision may be made: in another its cause may be lost


class Appender(Protocol):
    """Commits appends; those that arrive at the same time share a commit."""

    def append_alone(self, request: AppendRequest) -> Outcome | None:
        """Append a request within this call if no other is queued or being committed; None: it must be queued."""
        ...

    def enqueue(self, request: AppendRequest, call: Call) -> Any:
        """Queue a request for `call`, without waiting. Returns its ticket.

        If `call` ends while the request is still queued, the request is not written.
        """
        ...

    async def outcome(self, ticket: Any) -> Outcome:
        """Wait for the outcome of a request. To be awaited by the call that queued it."""
        ...


class Runtime(Protocol):
    """How the callers of a log wait: as threads, or as tasks on an event loop."""

    async def sleep(self, seconds: float, *, jitter: bool = False) -> None:
        """Pause the caller. `jitter`: for a random time, `seconds` on average, so that callers do not wake together."""
        ...

    async def wait(self, promise: Any, /) -> None:
        """Wait for a promise of this runtime, for a short time at most: then check again."""
        ...

    def promise(self) -> Promise:
        """Return a new promise."""
        ...

    def mutex(self) -> Exclusive:
        """Return a new mutex for short sections."""
        ...


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an operation on the log needs."""

    engine: Engine
    registry: Registry
    cache: StateCache
    appender: Appender
    runtime: Runtime
    pipeline: DecisionPipeline
    lock_table: LockTable


class Context(msgspec.Struct, frozen=True):
    """Metadata set by `with store.context(…)`, encoded once."""

    metadata: dict[str, Any]
    encoded: bytes | None


MISSPELT_OPTIONS = {"retries": "attempts", "retry": "attempts", "tries": "attempts", "max_attempts": "attempts"}
WRITING: ContextVar[str] = ContextVar("eventfold_writing", default="")  # address of the handler's open transaction
CONTEXT: ContextVar[Context | None] = ContextVar("eventfold_context", default=None)


def context_with(more: dict[str, Any]) -> Context:
    """Return the current context with more metadata."""
    current = CONTEXT.get()
    merged = (current.metadata if current else {}) | more
    return Context(merged, encode_metadata(merged))


def refuse_unauthorised(
    options: Options, function: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]
) -> None:
    """Pass a command to `authorise`, before anything is read or written. Raises what that raises."""
    if options.authorise is not None:
        current = CONTEXT.get()
        metadata = (current.metadata if current else {}) | dict(options.metadata)
        options.authorise(Command(function, args, named, metadata))


def metadata_now(options: Options) -> dict[str, Any]:
    """Return the metadata for an append: the context's, replaced by the options' where both have a key."""
    current = CONTEXT.get()
    return (dict(current.metadata) if current else {}) | dict(options.metadata)


def metadata_of(options: Options) -> bytes | None:
    """Return the encoded metadata for an append: the context's, replaced by the options' where both have a key."""
    current = CONTEXT.get()
    if not options.metadata:
        return current.encoded if current else None
    return encode_metadata((current.metadata if current else {}) | dict(options.metadata))


def with_options(old: Options, attempts: int | None, command_id: str | None, metadata: dict[str, Any]) -> Options:
    """Return options with some of them changed. Raises InvalidInput if a metadata key looks like a misspelt option."""
    for name in metadata:
        if (meant := _meant_option(name)) is not None:
            raise InvalidInput(
                f"using({name}=…) would write {name!r} with every event, as metadata.",
                f"Write {meant}=… if you mean that option; to set metadata of this name use store.context({name}=…).",
                option=name,
            )
    return msgspec.structs.replace(
        old,
        attempts=attempts if attempts is not None else old.attempts,
        command_id=command_id if command_id is not None else old.command_id,
        metadata=tuple((dict(old.metadata) | metadata).items()),
    )


@cache
def _meant_option(name: str) -> str | None:
    """Return the option that a caller who wrote this name probably meant; None if there is none."""
    import difflib  # here, because no other append needs it

    return MISSPELT_OPTIONS.get(name) or next(
        iter(difflib.get_close_matches(name, ("attempts", "command_id"), 1, 0.8)), None
    )


@contextmanager
def context(metadata: dict[str, Any]) -> Generator[None, None, None]:
    """Set metadata for everything that is written inside the block, by any store, sync or async.

    A framework may leave the block in another `contextvars.Context` than it entered it in (a thread pool may run each
    half of a generator in its own copy). Nothing is raised then: the value to reset ended with the first context.
    """
    before, merged = CONTEXT.get(), context_with(metadata)
    token = CONTEXT.set(merged)
    try:
        yield
    finally:
        try:
            CONTEXT.reset(token)
        except ValueError:  # another context: a copy of ours, or one that never had this metadata
            if CONTEXT.get() is merged:
                CONTEXT.set(before)


@contextmanager
def writing_to(address: str) -> Generator[None, None, None]:
    """Record that the handlers called inside the block have an open transaction of the target at `address`."""
    token = WRITING.set(address)
    try:
        yield
    finally:
        WRITING.reset(token)


def refuse_nested_append(log: Log) -> None:
    """Raise InvalidInput if a handler appends to the log whose database its own transaction has locked: a deadlock."""
    if WRITING.get() and WRITING.get() == log.engine.default_target:
        raise InvalidInput(
            "A handler of a read model appends to the store in whose database its own transaction is open: each would "
            "wait for the other.",
            "Append from an ef.Subscription or an ef.Process, or keep the rows in a database of their own (target=…).",
            address=WRITING.get(),
        )
