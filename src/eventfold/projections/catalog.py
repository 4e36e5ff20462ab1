"""The catalog of a store's projections: which target each is in, and from where its class is imported.

Knows: addresses MODULE:NAME, the targets opened so far. Does not know: operations, how a target is opened.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from eventfold.concurrency import run
from eventfold.core.state import State
from eventfold.core.store_address import StoreAddress
from eventfold.errors import EventfoldError, InvalidProjection, ProgressUnknown, ProjectionChanged
from eventfold.log.context import Log
from eventfold.ports.refusals import closed_error
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


def declaring_module(projection: Any) -> str | None:
    """Return the module in which a projection or subscription was declared; None for any other object."""
    bases = (Projection, SqlProjection, Subscription)
    if isinstance(projection, SubscriptionSpec):
        return projection.code.partition(":")[0]
    if isinstance(projection, type):
        return projection.__module__ if issubclass(projection, bases) and projection not in bases else None
    return type(projection).__module__ if isinstance(projection, bases[1:]) else None


def load(
    address: str, home: Callable[[Any], str | None] = declaring_module, what: str = "a projection or subscription"
) -> list[Any]:
    """Import the objects at MODULE:NAME: a class, an instance, or a list of them; for MODULE alone, all it declares.

    `home(object)` returns the module that declares an object, None for one of another kind than `what`. Raises
    InvalidProjection if there is none.
    """
    module_name, _, name = address.partition(":")
    directory = str(Path.cwd())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        module = importlib.import_module(module_name)
        loaded: Any = module
        for part in name.split(".") if name else ():
            loaded = getattr(loaded, part)
    except Exception as error:  # importing runs the user's module, which may raise anything
        raise InvalidProjection(
            f"{address!r} cannot be imported: {error}.",
            "Give MODULE:NAME, as in myapp.models:CarrierMonth, and run it where that module can be imported.",
            code=address,
        ) from error
    if not name:
        declared: list[Any] = list(vars(module).values())
        loaded = [each for each in declared if home(each) == module_name]
    several: list[Any] = [*loaded] if isinstance(loaded, list | tuple) else [loaded]  # pyright: ignore[reportUnknownArgumentType]
    if not several or not all(map(home, several)):
        raise InvalidProjection(
            f"{address} cannot be run.",
            f"Name {what}, a list of them, or a module that declares them.",
            code=address,
        )
    return several


class EffectLike(Protocol):
    """The part of an effect that this module uses."""

    @property
    def name(self) -> str:
        """The name of its progress."""
        ...

    @property
    def code(self) -> str:
        """MODULE:NAME of its function."""
        ...


Named = str | ProjectionLike | type[State] | EffectLike  # a process is a State
Resolve = Callable[[Any, Log], list[ProjectionLike]]
OpenTarget = Callable[[str | Sink | None, Callable[[], Target]], Target]


def only_projections(projection: Any, _log: Log) -> list[ProjectionLike]:
    """Return the projections for a class, an instance or an address MODULE:NAME. Raises InvalidProjection."""
    return load(projection) if isinstance(projection, str) else [projection]


class ProjectionCatalog:
    """Which target each projection of a store is in.

    `open_target(address, own)` opens a target; the address None is the store's own target, which `own()` returns too.
    `has_own_target`: False for an engine that cannot store rows. `resolve` returns the subscriptions for processes and
    effects, which this layer does not know. `lease`: the length of leases in seconds. `address`: the store's, for
    messages.
    """

    def __init__(
        self,
        log: Log,
        open_target: OpenTarget,
        *,
        has_own_target: bool = True,
        resolve: Resolve = only_projections,
        lease: float = 10.0,
        address: StoreAddress = StoreAddress(),  # noqa: B008 (it is frozen)
    ) -> None:
        self.log = log
        self.lease, self.address = lease, address
        self._open_target, self._has_own_target = open_target, has_own_target
        self._resolve = resolve
        self._subscriptions: dict[Any, ProjectionLike] = {}
        self._targets: dict[str | int | None, Target] = {}
        self._closed = set[str]()  # empty until it is closed; shared by copies, as the targets are
        self._homes: dict[str, Target] = {}  # by name, of projections whose class this process has used

    def target_at(self, address: str | Sink | None = None) -> Target:
        """Return the target at an address, opened at first use; by default the store's own.

        Raises NotSupported, StoreClosed.
        """
        if self._closed:  # otherwise it would be opened again, and stay open
            raise closed_error()
        at = address if address is None or isinstance(address, str) else id(address)
        target = self._targets.get(at)
        if target is None:
            target = self._targets[at] = self._open_target(address, partial(self.target_at, None))
        return target

    def own_target(self) -> Target | None:
        """Return the store's own target; None where its engine cannot store rows and no other was configured."""
        return self.target_at() if self._has_own_target else None

    def open_targets(self) -> list[Target]:
        """Return the targets that were opened so far."""
        return list(self._targets.values())

    def target_of(self, definition: ProjectionDefinition) -> Target:
        """Return the target of a definition, which is passed the columns of its rows (a sink needs them)."""
        target = self.target_at(definition.target)
        if definition.rows is not None:
            target.bind(definition.name, definition.rows)
        self._homes[definition.name] = target
        return target

    def register_each(
        self,
        definitions: Iterable[ProjectionDefinition],
        refused: dict[str, EventfoldError] | None,
        waits_for_switch: bool = False,
    ) -> list[tuple[ProjectionDefinition, Target]]:
        """Register projections; return each with its target, those that can be run.

        One whose code has changed, or whose progress is unknown, is added to `refused`, by name; without a dict, the
        error is raised. With `waits_for_switch` one whose code has changed can be run: its runner waits.
        """
        found: list[tuple[ProjectionDefinition, Target]] = []
        for definition in definitions:
            try:
                found.append((definition, self.register(definition)[0]))
            except (ProjectionChanged, ProgressUnknown) as error:
                if waits_for_switch and isinstance(error, ProjectionChanged):
                    found.append((definition, self.target_of(definition)))
                    continue
                if refused is None:
                    raise
                refused[definition.name] = error
        return found

    def register(self, definition: ProjectionDefinition) -> tuple[Target, ProjectionRecord]:
        """Register a projection in its target; return both. The store's own database notes one in another database.

        Raises InvalidProjection, ProjectionChanged, ProgressUnknown, TargetUnavailable.
        """
        target, own = self.target_of(definition), self.own_target()
        if own is None:  # the location of the rows cannot be noted: they are found by their class only
            return target, run(register(definition, self.log, target))
        own_record = own.record(definition.name)
        in_own_database = definition.target is None or target.forwards  # its progress is in the store's own database
        if in_own_database and own_record is not None and own_record.kind == ELSEWHERE:
            with own.control(definition.name) as tx:
                if tx.record() == own_record:
                    tx.forget(own_record.tables)  # it has moved to the store's own database
        if own_record is not None and own_record.kind == FORWARDED and not target.forwards:
            raise self._kept_here(definition, f"with rows that {own_record.code} sends to a sink")
        record = run(register(definition, self.log, target))
        if target.forwards and own_record is not None and own_record.kind == "rows" and target is not own:
            with target.control(definition.name) as tx:  # its rows are here, and are sent to the sink from now on
                if (current := tx.record()) is not None:
                    tx.save_record(current)
        if (
            not in_own_database
            and target.address != own.address
            and (own_record is None or own_record.code != definition.code)
        ):
            if own_record is not None and own_record.kind != ELSEWHERE:
                raise self._kept_here(definition, f"as {own_record.code or 'a follower'}")
            with own.control(definition.name) as tx:
                if tx.record() == own_record:
                    tx.save_record(ProjectionRecord(name=definition.name, kind=ELSEWHERE, code=definition.code, live=1))
        return target, record

    @staticmethod
    def _kept_here(definition: ProjectionDefinition, how: str) -> InvalidProjection:
        return InvalidProjection(
            f"A projection {definition.name} is in the store's own database already, {how}.",
            f"Give one of them another name; or remove that one: eventfold projections remove STORE {definition.name}.",
            projection=definition.name,
        )

    def compile(self, projection: Any) -> ProjectionDefinition:
        """Return the definition of a class or an address MODULE:NAME; for a process or effect, of its subscription."""
        if isinstance(projection, str) or declaring_module(projection) is None:
            if projection not in self._subscriptions:
                self._subscriptions[projection] = self._resolve(projection, self.log)[0]
            projection = self._subscriptions[projection]
        return projection_definition(projection)

    def find(self, projection: Named) -> tuple[str, Target]:
        """Return the name of a projection and its target."""
        if not isinstance(projection, str):
            definition = self.compile(projection)
            return definition.name, self.target_of(definition)
        own = self.own_target()
        return self.find_recorded(projection, None if own is None else own.record(projection))

    def find_recorded(self, projection: str, record: ProjectionRecord | None) -> tuple[str, Target]:
        """Return the name and the target of a projection whose record in the store's own target is already read."""
        own = self.own_target()
        if own is not None and record is not None and record.kind not in (ELSEWHERE, FORWARDED):
            return projection, own
        if projection in self._homes:
            return projection, self._homes[projection]
        for target in self._targets.values():
            if not target.forwards and target is not own and target.record(projection) is not None:
                return projection, target
        if record is not None:
            return projection, self.target_of(self.compile(record.code))
        return projection, own or self.target_at()  # raises NotSupported where there is no own target

    def name_of(self, projection: Named) -> str:
        """Return the name of a projection, process or effect."""
        return projection if isinstance(projection, str) else self.compile(projection).name

    def definition_of(self, projection: Named) -> ProjectionDefinition:
        """Return the definition of a projection; for a name, its class is imported from the recorded MODULE:NAME.

        Raises UnknownProjection, InvalidProjection.
        """
        if isinstance(projection, str):
            name, target = self.find(projection)
            record = require_record(target, name)
            if record.kind in ("follower", "consumer"):
                raise InvalidProjection(
                    f"{name} is a {record.kind}, which has no class and no rows.",
                    f"See eventfold projections status STORE {name}; to start over: "
                    f"eventfold projections remove STORE {name}.",
                    projection=name,
                )
            return self.compile(record.code)
        return self.compile(projection)

    def close(self) -> None:
        """Close every target. None is opened afterwards."""
        self._closed.add("closed")
        for target in self._targets.values():
            target.close()
        self._targets.clear()
        self._homes.clear()
