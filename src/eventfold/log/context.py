"""The log as its operations see it: an engine, a registry, how appends are submitted, how a caller waits.

Knows: options of a call and where its metadata comes from. Does not know: how submitting or pausing works.
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
    """A decision that someone asks for, before anything is read: what `authorise` is shown.

    `function` the decision, `arguments` and `named` what it was asked with (states are questions still),
    `metadata` who asks: the context's and the options', the latter winning.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    metadata: dict[str, Any]


class Options(msgspec.Struct, frozen=True):
    """What `store.using(…)` sets: how often to try, and what to write beside the events."""

    attempts: int = 10
    command_id: str | None = None
    metadata: tuple[tuple[str, Any], ...] = ()
    connection: Any = None  # the user's own, whose transaction appends join
    authorise: Callable[[Command], None] | None = None
    epoch: int | None = None  # the only one in which a decision may be made: what caused it may be lost in another


class Appender(Protocol):
    """Commits appends, several at a time where they come together."""

    def enqueue(self, request: AppendRequest, call: Call) -> Any:
        """Queue a request for `call`, without waiting. Returns its ticket.

        If `call` ends before its turn, the request is not written where the appender can still withdraw it.
        """
        ...

    async def outcome(self, ticket: Any) -> Outcome:
        """Wait for the outcome of a request. To be awaited by the call that it was queued for."""
        ...


class Runtime(Protocol):
    """How the callers of a log wait: threads, or tasks on an event loop."""

    async def sleep(self, seconds: float, *, jitter: bool = False) -> None:
        """Pause the caller. `jitter`: a random time, `seconds` on average, so that rivals do not wake together."""
        ...

    async def wait(self, promise: Any, /) -> None:
        """Wait for a promise that this runtime made, for a moment at most."""
        ...

    def promise(self) -> Promise:
        """Something to wait for."""
        ...

    def mutex(self) -> Exclusive:
        """A mutual exclusion of short sections."""
        ...


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an operation on the log needs."""

    engine: Engine
    registry: Registry
    cache: StateCache
    appender: Appender
    runtime: Runtime
    pipeline: DecisionPipeline
    holds: LockTable


class Context(msgspec.Struct, frozen=True):
    """Metadata set by `with store.context(…)`, encoded once."""

    metadata: dict[str, Any]
    encoded: bytes | None


MISSPELT_OPTIONS = {"retries": "attempts", "retry": "attempts", "tries": "attempts", "max_attempts": "attempts"}
WRITING: ContextVar[str] = ContextVar("eventfold_writing", default="")  # where this code has a transaction open
CONTEXT: ContextVar[Context | None] = ContextVar("eventfold_context", default=None)


def context_with(more: dict[str, Any]) -> Context:
    """The current context with more metadata in it."""
    current = CONTEXT.get()
    merged = (current.metadata if current else {}) | more
    return Context(merged, encode_metadata(merged))


def refuse_unauthorised(
    options: Options, function: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]
) -> None:
    """Show a command to whoever authorises. What that raises goes to the caller; nothing was read or written."""
    if options.authorise is not None:
        current = CONTEXT.get()
        metadata = (current.metadata if current else {}) | dict(options.metadata)
        options.authorise(Command(function, args, named, metadata))


def metadata_of(options: Options) -> bytes | None:
    """The metadata for an append made now: the context's, then the options', which win."""
    current = CONTEXT.get()
    if not options.metadata:
        return current.encoded if current else None
    return encode_metadata((current.metadata if current else {}) | dict(options.metadata))


def with_options(old: Options, attempts: int | None, command_id: str | None, metadata: dict[str, Any]) -> Options:
    """Options with some of them changed. Raises InvalidInput on metadata that must be a misspelt option."""
    for name in metadata:
        if (meant := _meant_option(name)) is not None:
            raise InvalidInput(
                f"using({name}=…) would write {name!r} beside every event, as metadata.",
                f"Write {meant}=… if you mean that; metadata of this name can be set by store.context({name}=…).",
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
    """The option that somebody who wrote this name must have had in mind."""
    import difflib  # here: nobody else needs it for an append

    return MISSPELT_OPTIONS.get(name) or next(
        iter(difflib.get_close_matches(name, ("attempts", "command_id"), 1, 0.8)), None
    )


@contextmanager
def context(metadata: dict[str, Any]) -> Generator[None, None, None]:
    """Metadata for everything written inside, by any store of any mode.

    Frameworks may leave it in another `contextvars.Context` than they entered it in (a thread pool runs each half of a
    generator in a copy of its own). Nothing is raised then: what is to be undone has gone with the first context.
    """
    before, mine = CONTEXT.get(), context_with(metadata)
    token = CONTEXT.set(mine)
    try:
        yield
    finally:
        try:
            CONTEXT.reset(token)
        except ValueError:  # another context: a copy of ours, or one that never had this metadata
            if CONTEXT.get() is mine:
                CONTEXT.set(before)


@contextmanager
def writing_to(address: str) -> Generator[None, None, None]:
    """Around handlers that are given an open transaction of a target."""
    token = WRITING.set(address)
    try:
        yield
    finally:
        WRITING.reset(token)


def refuse_nested_append(log: Log) -> None:
    """Refuse an append from a handler whose open transaction it would wait for, for ever."""
    if WRITING.get() and WRITING.get() == log.engine.default_target:
        raise InvalidInput(
            "A handler of a read model appends to the store in whose database its own transaction is open: each would "
            "wait for the other.",
            "Append from an ef.Subscription or an ef.Process, or keep the rows in a database of their own (target=…).",
            address=WRITING.get(),
        )
