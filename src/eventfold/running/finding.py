"""Room: which target keeps which projection, by its class or by its name; and how an act by hand gets into the log.

Knows: targets opened so far, where code is imported from. Does not know: what is asked or done.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, Self, TypeVar
from weakref import WeakSet

from eventfold.concurrency import run
from eventfold.core.state import State
from eventfold.errors import EventfoldError, InvalidProjection, TargetUnavailable
from eventfold.flow.acts import prepared, record_pending
from eventfold.flow.generations import known_in, register
from eventfold.log.context import Log, Options
from eventfold.ports.sink import Sink
from eventfold.ports.target import ELSEWHERE, ControlTransaction, Disturbed, Registered, Target
from eventfold.projection.plan import Kept, Plan, plan_of
from eventfold.running.code import kept, load
from eventfold.running.keeping import Keeping
from eventfold.running.runner import Runner
from eventfold.targets import default_target, open_target, own_target
from eventfold.targets.outbox import SINK, SinkTarget

R = TypeVar("R")


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


Named = str | Kept | type[State] | EffectLike  # a process is a State
Resolve = Callable[[Any, Log], list[Kept]]


def only_projections(found: Any, _log: Log) -> list[Kept]:
    """What a class, an instance or an address MODULE:NAME stands for on the read side. Raises InvalidProjection."""
    return load(found) if isinstance(found, str) else [found]


DISTURBED = 20  # times an act by hand is begun again because somebody else acted meanwhile


class Finding:
    """What every question and every act begins with."""

    def __init__(
        self, log: Log, target: str | None = None, lease: float = 10.0, resolve: Resolve = only_projections
    ) -> None:
        self.log = log  # for tools: the log as this desk sees it, whose calls block
        self._resolve = resolve  # processes and effects are known above this layer only
        self._subscriptions: dict[Any, Kept] = {}
        self._default, self._lease = target, lease
        self._options = Options()
        self._targets: dict[str | int | None, Target] = {}
        self._homes: dict[str, Target] = {}  # of those whose class was seen here
        self._runners: list[Runner] = []
        self._keepings: WeakSet[Keeping] = WeakSet()

    def using(self, options: Options) -> Self:
        """The same desk, writing its acts with these options."""
        desk = object.__new__(type(self))
        desk.__dict__.update(self.__dict__, _options=options)
        return desk

    def target(self, projection: Named) -> Target:
        """Where a projection's rows are kept: for tools."""
        return self._find(projection)[1]

    def _command(self, tx: ControlTransaction, name: str, act: str, generation: int, **facts: Any) -> None:
        """Note within a command's transaction what the log is to be told of it afterwards."""
        tx.save_command(prepared(self.log, self._options, name, act, generation, **facts))

    def _carried_out(self, target: Target, name: str, attempt: Callable[[], R]) -> R:
        """Do an operator's command: `attempt` makes its transaction, and raises Disturbed to be called again.

        What earlier commands left for the log is written first, what this one leaves afterwards. Raises
        TargetUnavailable where others change the same for too long.
        """
        run(record_pending(self.log, target))
        done = until_undisturbed(target, name, attempt)
        try:
            run(record_pending(self.log, target))
        except EventfoldError as error:
            error.add_note("The command was carried out. It is written into the log by the next command.")
            raise
        return done

    def _target(self, address: str | Sink | None) -> Target:
        at = address if address is None or isinstance(address, str) else id(address)
        target = self._targets.get(at)
        if target is None:
            engine = self.log.engine
            if address is None:
                target = own_target(engine, self._default)
            else:
                target = open_target(engine, address, partial(self._target, None))
            self._targets[at] = target
        return target

    def _own(self) -> Target | None:
        """The store's own target, where there is one: its engine may have no place for rows."""
        return self._target(None) if self._default or default_target(self.log.engine) else None

    def _of(self, plan: Plan) -> Target:
        """Where the rows of a plan are kept; a sink is told what they look like."""
        target = self._target(plan.target)
        if isinstance(target, SinkTarget) and plan.rows is not None:
            target.rows[plan.name] = plan.rows
        self._homes[plan.name] = target
        return target

    def _register(self, plan: Plan) -> tuple[Target, Registered]:
        """Make a projection known: where its rows are kept, and where that is elsewhere, in the store's own too."""
        target, own = self._of(plan), self._own()
        if own is None:  # there is no place to note where the rows are: they are found by their class only
            return target, run(register(plan, self.log, target))
        noted = own.registered(plan.name)
        here = plan.target is None or isinstance(target, SinkTarget)  # its progress is in the store's own database
        if here and noted is not None and noted.kind == ELSEWHERE:
            with own.control(plan.name) as tx:
                if tx.record() == noted:
                    tx.forget(noted.tables)  # it has moved here
        if noted is not None and noted.kind == SINK and not isinstance(target, SinkTarget):
            raise self._kept_here(plan, f"and its rows are sent on from there, by {noted.code}")
        known = run(register(plan, self.log, target))
        if isinstance(target, SinkTarget) and noted is not None and noted.kind == "rows" and target is not own:
            with target.control(plan.name) as tx:  # its rows, which are here, are to be sent on from now on
                if (now := tx.record()) is not None:
                    tx.save_record(now)
        if not here and target.address != own.address and (noted is None or noted.code != plan.code):
            if noted is not None and noted.kind != ELSEWHERE:
                raise self._kept_here(plan, f"by {noted.code or 'a follower'}")
            with own.control(plan.name) as tx:
                if tx.record() == noted:
                    tx.save_record(Registered(name=plan.name, kind=ELSEWHERE, code=plan.code, live=1))
        return target, known

    @staticmethod
    def _kept_here(plan: Plan, how: str) -> InvalidProjection:
        return InvalidProjection(
            f"{plan.name} is kept in the store's own database already, {how}.",
            f"Give one of them another name; or give that one up: eventfold projections forget {plan.name}.",
            projection=plan.name,
        )

    def _definition(self, found: Any) -> Plan:
        """The definition of a class or of what stands at MODULE:NAME; a process or an effect is a subscription here."""
        if isinstance(found, str) or kept(found) is None:
            if found not in self._subscriptions:
                self._subscriptions[found] = self._resolve(found, self.log)[0]
            found = self._subscriptions[found]
        return plan_of(found)

    def _find(self, projection: Named) -> tuple[str, Target]:
        if not isinstance(projection, str):
            plan = self._definition(projection)
            return plan.name, self._of(plan)
        own = self._own()
        noted = None if own is None else own.registered(projection)
        if own is not None and noted is not None and noted.kind not in (ELSEWHERE, SINK):
            return projection, own
        if projection in self._homes:
            return projection, self._homes[projection]
        for target in self._targets.values():
            if not isinstance(target, SinkTarget) and target is not own and target.registered(projection) is not None:
                return projection, target
        if noted is not None:
            return projection, self._of(self._definition(noted.code))
        return projection, own or self._target(None)  # which says what is missing

    def _plan(self, projection: Named) -> Plan:
        if isinstance(projection, str):
            name, target = self._find(projection)
            known = known_in(target, name)
            if known.kind == "follower":
                raise InvalidProjection(
                    f"{name} is a follower: it has no code and no rows here.",
                    f"See eventfold projections status {name}; to begin anew: eventfold projections forget {name}.",
                    projection=name,
                )
            return self._definition(known.code)
        return self._definition(projection)

    def close(self) -> None:
        """Stop what runs, and let go of every target."""
        for keeping in tuple(self._keepings):
            keeping.release()
        while self._runners:
            self._runners.pop().stop()
        for target in self._targets.values():
            target.close()
        self._targets.clear()
        self._homes.clear()


def own_target_of(desk: Finding) -> Target | None:
    """Where a store keeps progress; None where its engine has no place for it."""
    return desk._own()  # pyright: ignore[reportPrivateUsage]


def name_of(desk: Finding, projection: Named) -> str:
    """Under which name a read model, process or effect is kept."""
    return projection if isinstance(projection, str) else desk._definition(projection).name  # pyright: ignore[reportPrivateUsage]


def until_undisturbed(target: Target, name: str, attempt: Callable[[], R]) -> R:
    """What `attempt` returns, called again while it raises Disturbed. Raises TargetUnavailable after twenty times."""
    for _ in range(DISTURBED):
        with suppress(Disturbed):
            return attempt()
    raise changed_too_often(target, name)


def changed_too_often(target: Target, name: str) -> TargetUnavailable:
    """The error for a command that found something else each time it began."""
    return TargetUnavailable(
        f"What is known about {name} was changed {DISTURBED} times while it was to be changed.",
        "Try again.",
        address=target.address,
        projection=name,
    )
