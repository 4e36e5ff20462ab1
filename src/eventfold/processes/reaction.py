"""One reaction: load the state right after the event, call `react`, carry out each of its actions once.

Knows: the order of these steps, the ids by which a repeated reaction writes nothing twice. Does not know: threads,
clocks, when a reaction is repeated.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import msgspec

from eventfold.core.envelope import NewEvent
from eventfold.core.event import Recorded, declaration_of, event_of, is_event_class
from eventfold.core.state import copy_state
from eventfold.core.trace_context import trace_in
from eventfold.errors import ProcessError, ProcessLoops
from eventfold.log.append import encode, write
from eventfold.log.context import CONTEXT, Log, Options
from eventfold.log.decide import decide, epoch_ended_error
from eventfold.log.read import load_cached
from eventfold.log.state_cache import StateCache
from eventfold.ports.messages import AppendRequest
from eventfold.processes.actions import Cancel, Decision, Timer, class_of, matches_refusal
from eventfold.processes.classes import Process
from eventfold.processes.definition import ProcessDefinition, key_text
from eventfold.processes.timer_events import command_id, derived_id, new_event_of, timer_cancelled, timer_set

Action = Any  # a Decision, a Timer, a Cancel, or an event
MAX_ATTEMPTS = 10  # of a decision that meets conflicts
MAX_ACTIONS = 50  # reactions between two checkpoints, to events that were read together: repeating them is harmless


class ProcessWorker:
    """Carries out the reactions of a process: `await react(recorded)` for each event, in order, repeated if unsure."""

    def __init__(self, definition: ProcessDefinition, log: Log, cached_states: int = 10_000) -> None:
        self.definition = definition
        # A cache of its own: these states end at the current event, which may be behind the head.
        self._log = msgspec.structs.replace(log, cache=StateCache(cached_states))
        self._decision_log = log
        self._epoch = -1  # in which the current event is in the log
        self._unverified = 0  # how many of the next events may have been read in an earlier epoch

    async def react(self, recorded: Recorded[Any], keys: Iterable[tuple[Any, ...]] | None = None) -> None:
        """React to one event, for every instance it belongs to. Raises ProcessError, which names the react method.

        The actions are written only in the epoch in which the event is in the log: nothing is written after a failover
        that lost the event. Raises CursorMismatch if the event is lost already.
        """
        engine, stored = self._log.engine, recorded.stored
        if (epoch := engine.epoch) != self._epoch:
            self._epoch, self._unverified = epoch, MAX_ACTIONS  # if one event is in the log, the next may still be lost
        if self._unverified:
            if await engine.event_id(stored.position) != stored.id or engine.epoch != epoch:
                raise epoch_ended_error(self._epoch, engine.epoch)
            self._unverified -= 1
        for key in self.definition.keys_of(recorded.event) if keys is None else keys:
            await Reaction(self.definition, self._log, self._decision_log, recorded, key, self._epoch).run()


class Reaction:
    """One reaction of one instance of a process to one event."""

    def __init__(
        self,
        definition: ProcessDefinition,
        log: Log,
        decision_log: Log,
        recorded: Recorded[Any],
        key: tuple[Any, ...],
        epoch: int,
    ) -> None:
        self._definition, self._log, self._decision_log, self._recorded = definition, log, decision_log, recorded
        self._epoch = epoch
        self._key, self._text = key, key_text(key)
        metadata = recorded.metadata
        hops = metadata.get("hops")
        self._hops = (hops if isinstance(hops, int) else 0) + 1
        self._correlation = metadata.correlation_id or str(recorded.id)
        self._cause = f"{recorded.id}/{declaration_of(class_of(recorded.event)).type}{_part(log, recorded)}"
        self._metadata: dict[str, Any] = {
            "causation_id": str(recorded.id),
            "correlation_id": self._correlation,
            "process": definition.name,
            "hops": self._hops,
        }
        current = CONTEXT.get()  # of a span around this reaction, if there is one; else that of the event is continued
        self._metadata |= trace_in(current.metadata if current else {}) or trace_in(metadata)

    async def run(self) -> None:
        """Call `react` and carry out its actions."""
        question = self._definition.cls(*self._key)
        state, position = await load_cached(self._log, question, self._recorded.position)
        if self._log.engine.epoch == self._epoch:
            self._log.cache.put((type(question), *self._key), state, position, self._epoch)
        actions = self._actions_for(copy_state(state))
        if actions and self._hops > self._definition.max_chain:
            raise self._error(
                ProcessLoops,
                f"and its own commands made it react {self._definition.max_chain} times in a row without a timer",
                "End the loop: return no action if there is nothing left to do. If it is no loop, raise max_chain=….",
                0,
                self._describe_action(actions[0]),
            )
        facts: list[tuple[int, Action]] = []
        for index, action in enumerate(actions):
            if not isinstance(action, Decision):
                facts.append((index, action))  # consecutive facts are written in one append
                continue
            await self._record(facts)
            facts = []
            await self._decide(index, action)
        await self._record(facts)

    def _actions_for(self, state: Process) -> list[Action]:
        try:
            result = state.react(self._recorded.event)
            actions: list[Action] = []
            if result is not None:
                several = isinstance(result, list | tuple) or hasattr(result, "__next__")
                actions = list(cast("Iterable[Action]", result)) if several else [result]
        except Exception as error:
            raise self._error(
                ProcessError, f"raised {_describe_error(error)}", "Fix react, then retry the event."
            ) from error
        for index, action in enumerate(actions):
            inner = event_of(action)
            if not isinstance(action, Decision | Timer | Cancel) and not is_event_class(class_of(inner)):
                raise self._error(
                    ProcessError,
                    f"asked for {action!r}, which is no action",
                    "Return or yield decide(…), after(…), at(…), cancel(…) or an event.",
                    index,
                )
        return actions

    async def _decide(self, index: int, action: Decision) -> None:
        options = Options(MAX_ATTEMPTS, self._id(index), tuple(self._metadata.items()), epoch=self._epoch)
        try:
            await decide(self._decision_log, options, action.function, action.args, action.kwargs)
        except Exception as error:
            for errors, then in action.refusals:
                if matches_refusal(errors, error):
                    await self._write(
                        index, self._handle_refusal(index, action, then, error, options), action.description
                    )
                    return
            raise self._error(
                ProcessError,
                f"asked for {action.description}, which failed: {_describe_error(error)}",
                "Fix the decision and retry the event, or handle this error with .on_refusal(…).",
                index,
                action.description,
            ) from error

    def _handle_refusal(
        self, index: int, action: Decision, then: Any, error: Exception, options: Options
    ) -> tuple[NewEvent, ...]:
        try:
            event = then if is_event_class(class_of(then)) else then(error)
            return encode(self._decision_log, options, [event])
        except Exception as failed:
            raise self._error(
                ProcessError,
                f"asked for {action.description}, which was refused ({_describe_error(error)}), "
                f"and on_refusal failed: {_describe_error(failed)}",
                "Give on_refusal an event, or a function of the error that returns one; then retry the event.",
                index,
                action.description,
            ) from failed

    async def _record(self, facts: list[tuple[int, Action]]) -> None:
        """Write timers, cancellations and events that `react` returned, in one append."""
        if not facts:
            return
        stored, registry, name = self._recorded.stored, self._log.registry, self._definition.name
        options = Options(metadata=tuple(self._metadata.items()))
        new: list[NewEvent] = []
        for index, action in facts:
            identity = derived_id(stored.time, name, self._cause, self._text, index)
            try:
                if isinstance(action, Timer):
                    timer = timer_set(registry, action, name, self._text, stored, self._correlation, self._hops)
                    new.append(new_event_of(timer, identity, self._metadata))
                elif isinstance(action, Cancel):
                    end = timer_cancelled(registry, action, name, self._text)
                    new.append(new_event_of(end, identity, self._metadata))
                else:
                    (event,) = encode(self._log, options, [action])
                    new.append(msgspec.structs.replace(event, id=identity.bytes))
            except Exception as error:
                raise self._error(
                    ProcessError,
                    f"asked for {self._describe_action(action)}, which cannot be recorded: {_describe_error(error)}",
                    "Fix this action in react, then retry the event.",
                    index,
                    self._describe_action(action),
                ) from error
        await self._write(facts[0][0], tuple(new), self._describe_action(facts[0][1]))

    async def _write(self, index: int, events: tuple[NewEvent, ...], description: str) -> None:
        try:
            await write(self._decision_log, Options(), AppendRequest(events, (), self._id(index), self._epoch))
        except Exception as error:
            raise self._error(
                ProcessError,
                f"asked for {description}, which could not be written: {_describe_error(error)}",
                "Retry the event when the store can be written to.",
                index,
                description,
            ) from error

    def _id(self, index: int) -> str:
        trigger = derived_id(0, self._cause)
        return command_id(self._definition.name, trigger, self._text, index)

    def _describe_action(self, action: Action) -> str:
        if isinstance(action, Decision):
            return action.description
        if isinstance(action, Timer):
            return f"{'after' if action.delay is not None else 'at'}({action.event!r}, {action.delay or action.moment})"
        if isinstance(action, Cancel):
            return f"cancel({getattr(action.what, '__name__', None) or repr(action.what)})"
        return repr(action)

    def _error(
        self, kind: type[ProcessError], what: str, remedy: str, index: int | None = None, command: str = ""
    ) -> ProcessError:
        recorded, definition = self._recorded, self._definition
        which = "" if index is None else f", command {index}"
        return kind(
            f"{definition.location} reacted to event {recorded.position} ({recorded.type}) "
            f"of {self._text or definition.name}{which} {what}.",
            remedy,
            process=definition.name,
            key=self._text,
            position=recorded.position,
            command=command,
            index=index,
        )


def _part(log: Log, recorded: Recorded[Any]) -> str:
    """Return which part of a stored event this is, if an upcaster splits it into several of one class; else ""."""
    kind, stored = class_of(recorded.event), recorded.stored
    if stored.type == declaration_of(kind).type and stored.version == declaration_of(kind).version:
        return ""
    parts = [part for part in log.registry.decode(stored) if type(part) is kind]
    at = parts.index(recorded.event) if recorded.event in parts else 0
    return f"/{at}" if at else ""


def _describe_error(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(". ")
