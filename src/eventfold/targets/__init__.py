"""Room: where rows may live: which address means which target. Targets know nothing of each other.

Knows: URL schemes, and that rows live beside the log unless something else is said. Does not know: how a target works.
"""

from __future__ import annotations

from eventfold.engine import Engine
from eventfold.errors import InvalidUrl, MissingExtra
from eventfold.target import Target


def open_target(engine: Engine, address: str | None, url: str = "") -> Target:
    """The target at an address; None: the store's own database, or memory where the store has none.

    Raises TargetUnavailable, InvalidUrl on an unknown scheme, MissingExtra where a driver is not installed.
    """
    if address is None:
        if engine.name == "sqlite":
            return _sqlite(getattr(engine, "path", ""))
        if engine.name == "postgres":
            return _postgres(url, getattr(engine, "options").schema)  # noqa: B009
        return _sqlite(":memory:")
    scheme, colon, rest = address.partition(":")
    scheme = scheme.lower()
    if not colon or len(scheme) < 2 or "/" in scheme or "." in scheme:
        return _sqlite(address)
    if scheme in ("sqlite", "file"):
        return _sqlite(rest[2:] if rest.startswith("//") else rest)
    if scheme in ("postgresql", "postgres"):
        return _postgres(address)
    if "+" in scheme:
        return _alchemy(address)
    raise InvalidUrl(
        f"No target is known by the scheme {scheme!r}.",
        "Use a path or sqlite:PATH, postgresql://…, or DATABASE+DRIVER://… as SQLAlchemy knows it; "
        "without target= rows live in the store's own database.",
        url=address,
    )


def _sqlite(path: str) -> Target:
    from eventfold.targets.sql import SqlTarget
    from eventfold.targets.sqlite import SqliteDriver

    return SqlTarget(SqliteDriver(path))


def _postgres(url: str, schema: str | None = None) -> Target:
    try:
        from eventfold.targets.postgres import PostgresDriver
        from eventfold.targets.sql import SqlTarget
    except ImportError as error:
        raise MissingExtra(
            f"PostgreSQL needs a package that is not installed ({error.name}).",
            'Install it: pip install "eventfold[postgres]".',
            extra="postgres",
        ) from error
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
