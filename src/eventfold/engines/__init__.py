"""Which address means which engine. Engines do not know each other; each is imported on first use.

Knows: URL schemes, and where other distributions register theirs. Does not know: how an engine works.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

from eventfold.engines import entry_points
from eventfold.engines.addresses import MEMORY, address_text, file_path
from eventfold.errors import InvalidInput, InvalidUrl, MissingExtra, NotSupported
from eventfold.ports.engine import Engine
from eventfold.ports.services import ReindexResult, RestoreResult, UpgradeResult, require

Mode = Literal["sync", "async"]
SCHEMES = ("memory", "sqlite", "postgresql", "postgres", "file", "http", "https", "nats", "tls")


def open_engine(address: str | Engine, mode: Mode, create: bool, options: dict[str, Any]) -> Engine:
    """The engine behind an address: a path or sqlite: is a SQLite file.

    The others are memory:, postgresql://, http:// and nats://. `:memory:` is memory: too, and sqlite:///PATH means the
    same as in SQLAlchemy. Any other scheme is looked up among the entry points of the group `eventfold.engines`. An
    engine is returned as it is.
    `mode` sync: the engine's calls may block, and do not suspend.
    Raises InvalidUrl for an unknown scheme, an invalid address or an unusable entry point, MissingExtra if the driver
    is not installed or an entry point cannot be imported, NotSupported for an engine that suspends in sync mode.
    """
    if not isinstance(address, str) and hasattr(address, "append_many"):
        return _for_threads(address) if mode == "sync" else address
    url = address_text(address, "The address of the store")
    if url == MEMORY:
        return _open_memory("", create, options)
    scheme, colon, rest = url.partition(":")
    known = scheme.lower()
    if not colon or len(scheme) < 2 or "/" in scheme or "." in scheme:
        return _open_sqlite(url, create, options)
    if known == "memory":
        return _open_memory(rest, create, options)
    if known in ("sqlite", "file"):
        path = file_path(rest, known, url)
        return _open_memory("", create, options) if path == MEMORY else _open_sqlite(path, create, options)
    if known in ("postgresql", "postgres"):
        try:
            from eventfold.engines.postgres import PostgresEngine
        except ImportError as error:
            if not _is_missing(error, "psycopg"):
                raise
            raise missing_extra_error("postgres", "PostgreSQL", error) from error
        return PostgresEngine(url, mode=mode, create=create, **options)
    if known in ("http", "https"):
        return _open_remote(url, mode, create, options)
    if known in ("nats", "tls"):
        return _open_jetstream(url, mode, options)
    plugin = entry_points.find_plugin(entry_points.ENGINES, known)
    if plugin is not None:
        return _open_plugin(plugin, url, mode, create, options)
    raise InvalidUrl(
        f"{url!r} starts with the unknown scheme {scheme!r}"
        f"{entry_points.suggestion(entry_points.ENGINES, known, SCHEMES)}.",
        "Use a path or sqlite:PATH for a file, memory: for none, postgresql://… or http://… for a server; or install "
        f"the package that registers the scheme in the entry point group {entry_points.ENGINES}.",
        url=url,
        scheme=scheme,
    )


async def create_store(engine: Engine) -> bool:
    """Create the store of an engine that is not open, if opening it does not. Returns whether this was needed."""
    creation = engine.services.creation
    return creation is not None and await creation()


async def upgrade_layout(engine: Engine, copy: str | None, *, copies: bool) -> UpgradeResult:
    """Upgrade the store of an engine that is not open to the current layout. Raises NotSupported without a layout.

    `copy`: where a copy is written first; None: beside the store, unless `copies` is false.
    """
    return await require(engine, "maintenance").upgrade(copy, copies=copies)


async def rebuild_index(engine: Engine) -> ReindexResult:
    """Rebuild the index of the store of an engine that is not open. Raises NotSupported without one of its own."""
    return await require(engine, "maintenance").reindex()


async def begin_epoch_after_restore(engine: Engine) -> RestoreResult:
    """Begin a new epoch in the store of an engine that is not open. Raises NotSupported without storage."""
    return await require(engine, "maintenance").restored()


def _open_memory(name: str, create: bool, options: dict[str, Any]) -> Engine:
    from eventfold.engines.memory import MemoryEngine

    refuse_unknown_options(MemoryEngine.__init__, options, "memory")
    return MemoryEngine.named(name, create=create, **options)


def _open_sqlite(path: str, create: bool, options: dict[str, Any]) -> Engine:
    try:
        from eventfold.engines.sqlite import SqliteEngine
    except ImportError as error:
        if not _is_missing(error, "apsw"):
            raise
        raise MissingExtra(
            f"SQLite files need the package apsw, which cannot be imported: {error}.",
            "Install it: pip install eventfold (it is a core dependency).",
            extra="apsw",
        ) from error
    refuse_unknown_options(SqliteEngine.__init__, options, "sqlite")
    return SqliteEngine(path, create=create, **options)


def _open_remote(url: str, mode: Mode, create: bool, options: dict[str, Any]) -> Engine:
    try:
        from eventfold.engines.remote import RemoteEngine
    except ImportError as error:
        if not _is_missing(error, "aiohttp"):
            raise
        raise missing_extra_error("remote", "A store of a server", error) from error
    return RemoteEngine(url, mode=mode, create=create, **options)


def _open_jetstream(url: str, mode: Mode, options: dict[str, Any]) -> Engine:
    try:
        from eventfold.engines.jetstream.engine import JetStreamEngine
    except ImportError as error:
        if not _is_missing(error, "nats"):
            raise
        raise missing_extra_error("jetstream", "A store in a NATS cluster", error) from error
    from eventfold.engines.sqlite.replica_engine import SqliteReplica

    return JetStreamEngine(url, open_replica=SqliteReplica, mode=mode, **options)


def _open_plugin(plugin: entry_points.Plugin, url: str, mode: Mode, create: bool, options: dict[str, Any]) -> Engine:
    with suppress(ValueError):  # some callables written in C have no signature
        refuse_unknown_options(plugin.opener, options, plugin.scheme)
    engine = plugin.open(url, mode=mode, create=create, **options)
    plugin.check(engine, Engine, "engine", optional=("store_id", "epoch"))
    return _for_threads(engine) if mode == "sync" else engine


def _for_threads(engine: Engine) -> Engine:
    """The engine. Raises NotSupported if its calls suspend: a thread has no event loop to run them on."""
    if engine.capabilities.suspends:
        raise NotSupported(
            f"The {engine.name} engine only works on an event loop, and its caller here is a thread.",
            "Use AsyncStore; read models and processes need its service `blocking`, for engines whose calls block.",
            engine=engine.name,
            capability="blocking",
        )
    return engine


def refuse_unknown_options(constructor: Callable[..., Any], options: dict[str, Any], engine: str) -> None:
    """Raise InvalidInput for an option that an engine does not have, and list those it has.

    Options are the keyword-only parameters; a constructor with `**options` takes any.
    """
    parameters = inspect.signature(constructor).parameters
    if any(each.kind == each.VAR_KEYWORD for each in parameters.values()):
        return
    known = [name for name, each in parameters.items() if each.kind == each.KEYWORD_ONLY]
    known = sorted({*known, *({"clock"} if engine == "memory" else ())} - {"create", "mode"})
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise InvalidInput(
                f"The {engine} engine has no option {name!r}{f' (did you mean {near[0]}?)' if near else ''}.",
                f"Its options are {', '.join(known)}." if known else "It has no options.",
                option=name,
                engine=engine,
            )


def _is_missing(error: ImportError, package: str) -> bool:
    """Whether this package is missing, rather than an import within eventfold failing."""
    return (error.name or package).partition(".")[0].startswith(package)


def missing_extra_error(extra: str, what: str, error: ImportError) -> MissingExtra:
    """The error that names the extra to install."""
    return MissingExtra(
        f"{what} needs a package that is not installed ({error.name or error}).",
        f'Install it: pip install "eventfold[{extra}]".',
        extra=extra,
    )
