"""The catalog of a store's projections: which target keeps which, and where the class of each is imported from.

Knows: addresses MODULE:NAME, the targets opened so far. Does not know: what is asked or done, how a target is opened.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from eventfold.concurrency import run
from eventfold.core.state import State
from eventfold.errors import InvalidProjection
from eventfold.log.context import Log
from eventfold.ports.sink import Sink
from eventfold.ports.target import ELSEWHERE, FORWARDED, ProjectionRecord, Target
from eventfold.projections.classes import Projection, SqlProjection, Subscription
from eventfold.projections.definition import (
    ProjectionDefinition,
    ProjectionLike,
    SubscriptionSpec,
    projection_definition,
)
from eventfold.projections.generations import register, require_record


def declaring_module(found: Any) -> str | None:
    """The module in which a projection or subscription was declared; None for anything else."""
    bases = (Projection, SqlProjection, Subscription)
    if isinstance(found, SubscriptionSpec):
        return found.code.partition(":")[0]
    if isinstance(found, type):
        return found.__module__ if issubclass(found, bases) and found not in bases else None
    return type(found).__module__ if isinstance(found, bases[1:]) else None


def load(
    address: str, home: Callable[[Any], str | None] = declaring_module, what: str = "a projection or subscription"
) -> list[Any]:
    """What is to be run at MODULE:NAME: a class, an instance, or a list of them; MODULE alone: all it declares.

    `home` tells in which module something was declared, None where it cannot be run. Raises InvalidProjection if there
    is nothing of the kind.
    """
    module_name, _, name = address.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
        found: Any = module
        for part in name.split(".") if name else ():
            found = getattr(found, part)
    except Exception as error:  # importing runs the user's module, which may raise anything
        raise InvalidProjection(
            f"There is nothing to run at {address!r}: {error}.",
            "Give MODULE:NAME, as in myapp.models:CarrierMonth, from a directory where that module can be imported.",
            code=address,
        ) from error
    if not name:
        declared: list[Any] = list(vars(module).values())
        found = [each for each in declared if home(each) == module_name]
    several: list[Any] = [*found] if isinstance(found, list | tuple) else [found]  # pyright: ignore[reportUnknownArgumentType]
    if not several or not all(map(home, several)):
        raise InvalidProjection(
            f"{address} is nothing that can be run.",
            f"Name {what}, a list of such, or a module that declares some.",
            code=address,
        )
    return several


class EffectLike(Protocol):
    """An effect, as far as this module needs to know it."""

    @property
    def name(self) -> str:
        """Under which name its progress is kept."""
        ...

    @property
    def code(self) -> str:
        """MODULE:NAME of its function."""
        ...


Named = str | ProjectionLike | type[State] | EffectLike  # a process is a State
Resolve = Callable[[Any, Log], list[ProjectionLike]]
OpenTarget = Callable[[str | Sink | None, Callable[[], Target]], Target]


def only_projections(found: Any, _log: Log) -> list[ProjectionLike]:
    """What a class, an instance or an address MODULE:NAME stands for on the read side. Raises InvalidProjection."""
    return load(found) if isinstance(found, str) else [found]


class ProjectionCatalog:
    """Which target keeps which projection.

    `open_target(address, own)` opens a target, by None the store's own one, which `own` gives too. `has_own_target`:
    whether there is one, since an engine may have no place for rows. `resolve` gives the read side's classes for
    processes and effects, which this layer does not know. `lease`: for how many seconds work is claimed at a time.
    """

    def __init__(
        self,
        log: Log,
        open_target: OpenTarget,
        *,
        has_own_target: bool = True,
        resolve: Resolve = only_projections,
        lease: float = 10.0,
    ) -> None:
        self.log = log
        self.lease = lease
        self._open_target, self._has_own_target = open_target, has_own_target
        self._resolve = resolve
        self._subscriptions: dict[Any, ProjectionLike] = {}
        self._targets: dict[str | int | None, Target] = {}
        self._homes: dict[str, Target] = {}  # of those whose class was seen here

    def target_at(self, address: str | Sink | None = None) -> Target:
        """The target at an address, opened at its first use; by default the store's own. Raises NotSupported."""
        at = address if address is None or isinstance(address, str) else id(address)
        target = self._targets.get(at)
        if target is None:
            target = self._targets[at] = self._open_target(address, partial(self.target_at, None))
        return target

    def own_target(self) -> Target | None:
        """The store's own target; None where its engine has no place for rows and none was given."""
        return self.target_at() if self._has_own_target else None

    def open_targets(self) -> list[Target]:
        """The targets that were opened so far."""
        return list(self._targets.values())

    def target_of(self, definition: ProjectionDefinition) -> Target:
        """Where the rows of a definition are kept. A sink gets the shape of its rows."""
        target = self.target_at(definition.target)
        if definition.rows is not None:
            target.bind(definition.name, definition.rows)
        self._homes[definition.name] = target
        return target

    def register(self, definition: ProjectionDefinition) -> tuple[Target, ProjectionRecord]:
        """Make a projection known: where its rows are kept, and where that is elsewhere, in the store's own too."""
        target, own = self.target_of(definition), self.own_target()
        if own is None:  # there is no place to note where the rows are: they are found by their class only
            return target, run(register(definition, self.log, target))
        noted = own.record(definition.name)
        here = definition.target is None or target.forwards  # its progress is in the store's own database
        if here and noted is not None and noted.kind == ELSEWHERE:
            with own.control(definition.name) as tx:
                if tx.record() == noted:
                    tx.forget(noted.tables)  # it has moved here
        if noted is not None and noted.kind == FORWARDED and not target.forwards:
            raise self._kept_here(definition, f"and its rows are sent on from there, by {noted.code}")
        record = run(register(definition, self.log, target))
        if target.forwards and noted is not None and noted.kind == "rows" and target is not own:
            with target.control(definition.name) as tx:  # its rows, which are here, are to be sent on from now on
                if (now := tx.record()) is not None:
                    tx.save_record(now)
        if not here and target.address != own.address and (noted is None or noted.code != definition.code):
            if noted is not None and noted.kind != ELSEWHERE:
                raise self._kept_here(definition, f"by {noted.code or 'a follower'}")
            with own.control(definition.name) as tx:
                if tx.record() == noted:
                    tx.save_record(ProjectionRecord(name=definition.name, kind=ELSEWHERE, code=definition.code, live=1))
        return target, record

    @staticmethod
    def _kept_here(definition: ProjectionDefinition, how: str) -> InvalidProjection:
        return InvalidProjection(
            f"{definition.name} is kept in the store's own database already, {how}.",
            f"Give one of them another name; or give that one up: eventfold projections remove {definition.name}.",
            projection=definition.name,
        )

    def compile(self, found: Any) -> ProjectionDefinition:
        """The definition of a class or of what stands at MODULE:NAME; a process or an effect is a subscription here."""
        if isinstance(found, str) or declaring_module(found) is None:
            if found not in self._subscriptions:
                self._subscriptions[found] = self._resolve(found, self.log)[0]
            found = self._subscriptions[found]
        return projection_definition(found)

    def find(self, projection: Named) -> tuple[str, Target]:
        """The name of a projection, and where it is kept."""
        if not isinstance(projection, str):
            definition = self.compile(projection)
            return definition.name, self.target_of(definition)
        own = self.own_target()
        noted = None if own is None else own.record(projection)
        if own is not None and noted is not None and noted.kind not in (ELSEWHERE, FORWARDED):
            return projection, own
        if projection in self._homes:
            return projection, self._homes[projection]
        for target in self._targets.values():
            if not target.forwards and target is not own and target.record(projection) is not None:
                return projection, target
        if noted is not None:
            return projection, self.target_of(self.compile(noted.code))
        return projection, own or self.target_at()  # which says what is missing

    def name_of(self, projection: Named) -> str:
        """The name of a projection, process or effect."""
        return projection if isinstance(projection, str) else self.compile(projection).name

    def definition_of(self, projection: Named) -> ProjectionDefinition:
        """The definition of a projection; by name, its class is imported from where it was recorded to be.

        Raises UnknownProjection, InvalidProjection.
        """
        if isinstance(projection, str):
            name, target = self.find(projection)
            record = require_record(target, name)
            if record.kind == "follower":
                raise InvalidProjection(
                    f"{name} is a follower: it has no code and no rows here.",
                    f"See eventfold projections status {name}; to begin anew: eventfold projections remove {name}.",
                    projection=name,
                )
            return self.compile(record.code)
        return self.compile(projection)

    def close(self) -> None:
        """Close every target."""
        for target in self._targets.values():
            target.close()
        self._targets.clear()
        self._homes.clear()
