"""Open the target that an address names. Targets know nothing of each other.

Knows: URL schemes, and where other distributions register theirs. Does not know: how a target works, where an engine
stores its log (`Engine.default_target` does).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import NoReturn

from eventfold.concurrency import run
from eventfold.engines import entry_points
from eventfold.engines.addresses import address_text, file_path
from eventfold.errors import InvalidUrl, MissingExtra, NotSupported
from eventfold.ports.engine import Engine
from eventfold.ports.sink import Sink
from eventfold.ports.target import Target

SCHEMES = (
    "sqlite",
    "file",
    "memory",
    "postgresql",
    "postgres",
    "duckdb",
    "parquet",
    "redis",
    "rediss",
    "http",
    "https",
)


def own_target(engine: Engine, given: str | Target | None = None) -> Target:
    """Return the target of a store's read models and progress: `given` (`Store(target=…)`), else its engine's default.

    A Target object is used as it is. Raises NotSupported if there is neither, InvalidUrl if the address is that of a
    sink, which stores no progress, and what `open_target` raises.
    """
    if given is not None and not isinstance(given, str):
        return given
    address = engine.default_target if given is None or given == "" else given
    if address is None:
        raise NotSupported(
            f"The {engine.name} engine has no database in which read models, followers and processes could store rows "
            "and progress.",
            "Name a database, the same in every process: Store(…, target=…), on the command line --target URL; or "
            "target=… of a read model's class.",
            engine=engine.name,
            capability="default target",
        )

    def refuse() -> NoReturn:
        raise InvalidUrl(
            f"{address} is a sink: it receives rows and stores no progress.",
            "Give Store(target=…) the address of a database; a read model's class may name the sink.",
            url=address,
        )

    return open_target(engine, address, refuse)


def file_of(address: str) -> str | None:
    """The path of the file in which a target keeps its rows; None for a target that is no single file."""
    scheme, colon, rest = address.partition(":")
    scheme = scheme.lower()
    if not colon or len(scheme) < 2 or "/" in scheme or "." in scheme:
        return address
    if scheme in ("sqlite", "file"):
        path = file_path(rest, scheme, address)
        return None if path == ":memory:" else path
    return rest.removeprefix("//") if scheme == "duckdb" else None


def open_target(engine: Engine, address: str | Sink, own: Callable[[], Target]) -> Target:
    """Open the target at an address. `own` returns the store's own target, from which rows are sent to a sink.

    A scheme that is not built in is looked up among the entry points of the group `eventfold.targets`.
    Raises TargetUnavailable, InvalidUrl on an unknown scheme or an unusable entry point, MissingExtra if a driver is
    not installed or an entry point cannot be imported.
    """
    if not isinstance(address, str) and isinstance(address, Sink):  # pyright: ignore[reportUnnecessaryIsInstance]
        return _open_outbox(address, own())
    address = address_text(address, "The address of the target")
    scheme, colon, rest = address.partition(":")
    scheme = scheme.lower()
    if not colon or len(scheme) < 2 or "/" in scheme or "." in scheme:
        return _open_sqlite(address)
    if scheme in ("sqlite", "file"):
        return _open_sqlite(_require_path(file_path(rest, scheme, address), address))
    if address == "memory:":
        return _open_sqlite(":memory:")
    if scheme in ("postgresql", "postgres"):
        return _open_postgres(engine, address)
    if "+" in scheme:
        return _open_sqlalchemy(address)
    if scheme == "duckdb":
        return _open_duckdb(_require_path_in(rest, address), (engine.default_target or "").removeprefix("sqlite:"))
    if scheme == "parquet":
        return _open_parquet(_require_path_in(rest, address), address)
    if (sink := _open_sink(scheme, address)) is not None:
        return _open_outbox(sink, own())
    near = ""
    if scheme not in SCHEMES:  # memory:NAME is no target, and no distribution can make it one
        plugin = entry_points.find_plugin(entry_points.TARGETS, scheme)
        if plugin is not None:
            return _open_plugin(plugin, address, own)
        near = entry_points.suggestion(entry_points.TARGETS, scheme, SCHEMES)
    raise InvalidUrl(
        f"No target is known by the scheme {scheme!r}{near}.",
        "Use a path or sqlite:PATH, memory:, postgresql://…, duckdb:PATH, parquet:FOLDER, redis://…, https://…, or "
        "DATABASE+DRIVER://… as in SQLAlchemy; or install the package that registers the scheme in the entry point "
        f"group {entry_points.TARGETS}. Without target= rows are stored in the store's own database.",
        url=address,
    )


def _open_plugin(plugin: entry_points.Plugin, address: str, own: Callable[[], Target]) -> Target:
    """The target, or the sink in front of the store's own target, that an entry point makes."""
    place = plugin.open(address)
    if isinstance(place, Sink):
        return _open_outbox(place, own())
    looks_like_a_sink = hasattr(place, "write")
    plugin.check(place, Sink if looks_like_a_sink else Target, "sink" if looks_like_a_sink else "target")
    return place


def _open_sink(scheme: str, address: str) -> Sink | None:
    if scheme in ("redis", "rediss"):
        with _require_extra("Redis", "redis"):
            from eventfold.targets.sinks.redis import RedisSink
        return RedisSink(address)
    if scheme in ("http", "https"):
        from eventfold.targets.sinks.http import HttpSink

        return HttpSink(address)
    return None


def _open_outbox(sink: Sink, own: Target) -> Target:
    from eventfold.targets.outbox.target import OutboxTarget
    from eventfold.targets.sql.target import SqlTarget

    if not isinstance(own, SqlTarget):
        raise InvalidUrl(
            f"Rows cannot be sent to a sink from {own.address}.",
            "Give Store(target=…) a SQLite file or a PostgreSQL database, or omit it.",
            url=own.address,
        )
    return OutboxTarget(own, sink)


def _require_path_in(rest: str, address: str) -> str:
    return _require_path(rest.removeprefix("//"), address)


def _require_path(path: str, address: str) -> str:
    if not path:
        raise InvalidUrl(f"The address {address!r} names no path.", "Write a path after the colon.", url=address)
    return path


def _open_duckdb(path: str, log: str) -> Target:
    if log and os.path.exists(path) and os.path.exists(log) and os.path.samefile(path, log):
        raise InvalidUrl(f"{path} is the log itself.", "Name a separate file for the rows.", url=path)
    with _require_extra("DuckDB", "duckdb"):
        from eventfold.targets.duckdb.target import DuckDbTarget
    return DuckDbTarget(path)


def _open_parquet(path: str, address: str) -> Target:
    with _require_extra("Parquet", "duckdb"):
        from eventfold.targets.duckdb.parquet import DEFAULT_INTERVAL_S, ParquetTarget
    folder, _, options = path.partition("?")
    name, _, seconds = options.partition("=")
    try:
        every = float(seconds) if options else DEFAULT_INTERVAL_S
    except ValueError:
        every = -1.0
    if options and (name != "every" or not 0 <= every < 1e9):
        raise InvalidUrl(
            f"The folder's options {options!r} are invalid.",
            "Write parquet:FOLDER?every=SECONDS, the interval at which a file is replaced while events are handled.",
            url=address,
        )
    return ParquetTarget(folder, every)


@contextmanager
def _require_extra(what: str, extra: str) -> Generator[None]:
    """Raise MissingExtra if an import in the block fails; `extra` installs what it needs."""
    try:
        yield
    except ImportError as error:
        raise MissingExtra(
            f"{what} needs a package that is not installed ({error.name}).",
            f'Install it: pip install "eventfold[{extra}]".',
            extra=extra,
        ) from error


def _open_sqlite(path: str) -> Target:
    from eventfold.targets.sql.target import SqlTarget
    from eventfold.targets.sqlite.driver import SqliteDriver
    from eventfold.targets.sqlite.statements import SqliteStatements

    driver = SqliteDriver(path)
    return SqlTarget(driver, SqliteStatements(driver))


def _open_postgres(engine: Engine, url: str) -> Target:
    with _require_extra("PostgreSQL", "postgres"):
        from eventfold.targets.postgres import PostgresDriver, PostgresStatements
        from eventfold.targets.sql.target import SqlTarget
    lend = engine.services.lend
    driver = PostgresDriver(url, None if lend is None else lambda at: run(lend(at)))
    return SqlTarget(driver, PostgresStatements(driver))


def _open_sqlalchemy(url: str) -> Target:
    try:
        import sqlalchemy as sa
        from sqlalchemy import exc

        from eventfold.targets.sqlalchemy.target import SqlAlchemyTarget

        try:
            parsed = sa.make_url(url)
            return SqlAlchemyTarget(parsed)
        except (exc.ArgumentError, exc.NoSuchModuleError, ValueError) as error:  # ValueError: a scheme of three parts
            raise InvalidUrl(
                f"SQLAlchemy cannot use the address of the target: {error}.",
                "Write DIALECT+DRIVER://…, as SQLAlchemy's documentation describes it.",
            ) from None
    except ImportError as error:
        raise MissingExtra(
            f"The target needs a package that is not installed ({error.name}).",
            'Install it: pip install "eventfold[sqlalchemy]", and the driver that the address names.',
            extra="sqlalchemy",
        ) from error
