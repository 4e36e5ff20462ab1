"""Room: where rows may live: which address means which target. Targets know nothing of each other.

Knows: URL schemes, and that rows live beside the log unless something else is said. Does not know: how a target works.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager

from eventfold.engine import Engine
from eventfold.errors import InvalidUrl, MissingExtra
from eventfold.sink import Sink
from eventfold.target import Target


def open_target(
    engine: Engine, address: str | Sink | None, url: str = "", beside: Callable[[], Target] | None = None
) -> Target:
    """The target at an address; None: the store's own database, or memory where the store has none.

    `beside` gives the store's own, for rows that are sent on from there. Raises TargetUnavailable, InvalidUrl on an
    unknown scheme, MissingExtra where a driver is not installed.
    """
    if address is None:
        if engine.name == "sqlite":
            return _sqlite(getattr(engine, "path", ""))
        if engine.name == "postgres":
            return _postgres(url, getattr(engine, "options").schema)  # noqa: B009
        return _sqlite(":memory:")
    if not isinstance(address, str):
        return _sending(address, beside() if beside else open_target(engine, None, url))
    scheme, colon, rest = address.partition(":")
    scheme = scheme.lower()
    if not colon or len(scheme) < 2 or "/" in scheme or "." in scheme:
        return _sqlite(address)
    if scheme in ("sqlite", "file"):
        return _sqlite(_path(rest, address))
    if scheme in ("postgresql", "postgres"):
        return _postgres(address)
    if "+" in scheme:
        return _alchemy(address)
    if scheme == "duckdb":
        return _duck(_path(rest, address), getattr(engine, "path", ""))
    if scheme == "parquet":
        return _parquet(_path(rest, address), address)
    if (sink := _sink(scheme, address)) is not None:
        return _sending(sink, beside() if beside else open_target(engine, None, url))
    raise InvalidUrl(
        f"No target is known by the scheme {scheme!r}.",
        "Use a path or sqlite:PATH, postgresql://…, duckdb:PATH, parquet:FOLDER, redis://…, https://…, or "
        "DATABASE+DRIVER://… as SQLAlchemy knows it; without target= rows live in the store's own database.",
        url=address,
    )


def _sink(scheme: str, address: str) -> Sink | None:
    if scheme in ("redis", "rediss"):
        with _extra("Redis", "redis"):
            from eventfold.targets.sinks.redis import RedisSink
        return RedisSink(address)
    if scheme in ("http", "https"):
        from eventfold.targets.sinks.http import HttpSink

        return HttpSink(address)
    return None


def _sending(sink: Sink, own: Target) -> Target:
    from eventfold.targets.beside import SinkTarget
    from eventfold.targets.sql import SqlTarget

    assert isinstance(own, SqlTarget)
    return SinkTarget(own, sink)


def _path(rest: str, address: str) -> str:
    path = rest.removeprefix("//")
    if not path:
        raise InvalidUrl(f"The address {address!r} names no path.", "Write one behind the colon.", url=address)
    return path


def _duck(path: str, log: str) -> Target:
    if log and os.path.exists(path) and os.path.exists(log) and os.path.samefile(path, log):
        raise InvalidUrl(f"{path} is the log itself.", "Give the rows a file of their own.", url=path)
    with _extra("DuckDB", "duckdb"):
        from eventfold.targets.duck.target import DuckTarget
    return DuckTarget(path)


def _parquet(path: str, address: str) -> Target:
    with _extra("Parquet", "duckdb"):
        from eventfold.targets.duck.parquet import EVERY, ParquetTarget
    folder, _, options = path.partition("?")
    name, _, given = options.partition("=")
    try:
        every = float(given) if options else EVERY
    except ValueError:
        every = -1.0
    if options and (name != "every" or not 0 <= every < 1e9):
        raise InvalidUrl(
            f"The folder's options {options!r} are not understood.",
            "Write parquet:FOLDER?every=SECONDS: how often a file is written anew while there is work.",
            url=address,
        )
    return ParquetTarget(folder, every)


@contextmanager
def _extra(what: str, extra: str) -> Generator[None]:
    """What is imported here comes with an extra."""
    try:
        yield
    except ImportError as error:
        raise MissingExtra(
            f"{what} needs a package that is not installed ({error.name}).",
            f'Install it: pip install "eventfold[{extra}]".',
            extra=extra,
        ) from error


def _sqlite(path: str) -> Target:
    from eventfold.targets.sql import SqlTarget
    from eventfold.targets.sqlite import SqliteDriver

    return SqlTarget(SqliteDriver(path))


def _postgres(url: str, schema: str | None = None) -> Target:
    with _extra("PostgreSQL", "postgres"):
        from eventfold.targets.postgres import PostgresDriver
        from eventfold.targets.sql import SqlTarget
    return SqlTarget(PostgresDriver(url, schema))


def _alchemy(url: str) -> Target:
    try:
        import sqlalchemy as sa
        from sqlalchemy import exc

        from eventfold.targets.alchemy.dialects import options
        from eventfold.targets.alchemy.target import AlchemyTarget

        try:
            parsed = sa.make_url(url)
            return AlchemyTarget(sa.create_engine(parsed, **options(parsed)))
        except (exc.ArgumentError, exc.NoSuchModuleError) as error:
            raise InvalidUrl(
                f"SQLAlchemy cannot use the address of the target: {error}.",
                "Write DIALECT+DRIVER://…, as in its pages.",
            ) from None
    except ImportError as error:
        raise MissingExtra(
            f"The target needs a package that is not installed ({error.name}).",
            'Install it: pip install "eventfold[sqlalchemy]", and the driver that the address names.',
            extra="sqlalchemy",
        ) from error
