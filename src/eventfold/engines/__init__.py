"""Which address means which engine. Engines do not know each other; each is imported on first use.

Knows: URL schemes. Does not know: how an engine works.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any, Literal

from eventfold.engines.addresses import MEMORY, address_text, file_path
from eventfold.errors import InvalidInput, InvalidUrl, MissingExtra
from eventfold.ports.engine import Engine
from eventfold.ports.services import RestoreResult, UpgradeResult, require

Mode = Literal["sync", "async"]
SCHEMES = ("memory", "sqlite", "postgresql", "postgres", "file")


def open_engine(address: str | Engine, mode: Mode, create: bool, options: dict[str, Any]) -> Engine:
    """The engine behind an address: a path or sqlite: is a SQLite file; memory:, postgresql:// are the others.

    `:memory:` is memory: too, and sqlite:///PATH means the same as in SQLAlchemy. An engine is returned as it is.
    Raises InvalidUrl for an unknown scheme or an invalid address, MissingExtra if the driver is not installed.
    """
    if not isinstance(address, str) and hasattr(address, "append_many"):
        return address
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
    near = difflib.get_close_matches(known, SCHEMES, 1)
    raise InvalidUrl(
        f"{url!r} starts with the unknown scheme {scheme!r}{f' (did you mean {near[0]}:?)' if near else ''}.",
        "Use a path or sqlite:PATH for a file, memory: for none, postgresql://… for a server.",
        url=url,
        scheme=scheme,
    )


async def upgrade_layout(engine: Engine, copy: str | None, *, copies: bool) -> UpgradeResult:
    """Upgrade the store of an engine that is not open to the current layout. Raises NotSupported without a layout.

    `copy`: where a copy is written first; None: beside the store, unless `copies` is false.
    """
    return await require(engine, "maintenance").upgrade(copy, copies=copies)


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


def refuse_unknown_options(constructor: Callable[..., Any], options: dict[str, Any], engine: str) -> None:
    """Raises InvalidInput for an option that an engine does not have, and lists those it has."""
    known = [name for name, each in inspect.signature(constructor).parameters.items() if each.kind == each.KEYWORD_ONLY]
    known = sorted({*known, *({"clock"} if engine == "memory" else ())} - {"create"})
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise InvalidInput(
                f"The {engine} engine has no option {name!r}{f' (did you mean {near[0]}?)' if near else ''}.",
                f"Its options are {', '.join(known)}.",
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
