"""What a user derives a process from: a State whose `react` asks for commands, timers and facts.

Knows: its class keywords. Does not know: what its annotations come to (plan.py does), the log, who runs it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from eventfold.core.annotations import read_options, set_class_options, take_options
from eventfold.core.class_data import remember_visible_names
from eventfold.core.renamed import check_keywords
from eventfold.core.state import State, StateMeta
from eventfold.errors import InvalidProcess

Start = Literal["beginning", "now"]


class ProcessOptions(msgspec.Struct, frozen=True):
    """What a process says about itself by class keywords. See Process."""

    name: str | None = None
    start: Start | None = None
    attempts: int = 5
    max_chain: int = 100
    partitions: int = 1


def set_process_options(cls: type, keywords: dict[str, Any]) -> None:
    """Keep a class's keywords. Raises InvalidProcess on those that mean nothing."""
    options = read_options(cls, ProcessOptions, keywords, InvalidProcess)
    if min(options.attempts, options.max_chain, options.partitions) < 1:
        raise InvalidProcess(f"{cls.__qualname__} has less than one attempt, reaction or partition.", "Give 1 or more.")
    set_class_options(cls, options)


if TYPE_CHECKING:
    from typing_extensions import dataclass_transform

    @dataclass_transform(field_specifiers=(msgspec.field,))
    class ProcessMeta(StateMeta):
        """What a type checker sees of the metaclass."""

        def __new__(
            mcls,
            class_name: str,
            bases: tuple[type, ...],
            namespace: dict[str, Any],
            /,
            *,
            name: str | None = None,
            start: Start | None = None,
            attempts: int = 5,
            max_chain: int = 100,
            partitions: int = 1,
            **keywords: Any,
        ) -> ProcessMeta: ...

    class _Struct(State, metaclass=ProcessMeta):
        pass

else:

    class ProcessMeta(StateMeta):
        """Takes a process's keywords off a State's."""

        def __new__(mcls, _name, _bases, _namespace, **keywords):
            check_keywords("Process", keywords)
            given = take_options(keywords, ProcessOptions)
            cls = super().__new__(mcls, _name, _bases, _namespace, **keywords)
            remember_visible_names(cls, sys._getframe(1).f_locals)
            set_process_options(cls, given)
            return cls

    class _Struct(State, metaclass=ProcessMeta):
        pass


class Process(_Struct):
    """Work that takes days: a State, folded from the log, that reacts to events by asking for more to be done.

        class Payment(ef.Process, start="beginning"):
            order: ef.Tag
            paid: bool = False

            def evolve(self, event: OrderPlaced | Paid) -> None:
                self.paid = self.paid or isinstance(event, Paid)

            def react(self, event: OrderPlaced | Paid | ReminderDue):
                match event:
                    case OrderPlaced():
                        yield after(ReminderDue(self.order), days=3)
                    case Paid():
                        yield cancel(ReminderDue)
                    case ReminderDue():
                        yield decide(remind, Order(self.order))

    The question's tag fields say which instance an event belongs to. `react` is pure: it is called with the state as it
    was right after the event, once for every event it names, and returns or yields what it wants: `decide(…)`,
    `after(…)`, `at(…)`, `cancel(…)`, or an event to be recorded. Replay folds and never reacts.

    Class keywords: `start` "beginning" or "now": which events it reacts to when it is first run; there is no default.
    `name` (the class's name in snake_case); `attempts` at an event before the instance counts as stuck; `max_chain` how
    many reactions may cause each other without a timer between them; `partitions` how many runners may share the work.
    """

    def react(self, event: Any) -> Any:
        """What is to be done about an event: nothing, one thing, or several, in their order. Pure."""
        raise InvalidProcess(
            f"{type(self).__name__} has no react method.",
            "Write def react(self, event: …), naming the events it reacts to.",
        )

    def done(self) -> bool:
        """Whether there is nothing more to come: what `eventfold processes` lists as finished."""
        return False
