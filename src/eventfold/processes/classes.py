"""The base class of processes: a State whose `react` returns commands, timers and events to record.

Knows: its class keywords. Does not know: what its annotations mean (definition.py does), the log, how it is run.
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
    """The class keywords of a process. See Process."""

    name: str | None = None
    start: Start | None = None
    attempts: int = 5
    max_chain: int = 100
    partitions: int = 1


def set_process_options(cls: type, keywords: dict[str, Any]) -> None:
    """Store the keywords of a class. Raises InvalidProcess if they are invalid."""
    options = read_options(cls, ProcessOptions, keywords, InvalidProcess)
    if min(options.attempts, options.max_chain, options.partitions) < 1:
        raise InvalidProcess(
            f"{cls.__qualname__} has attempts, max_chain or partitions below 1.", "Give 1 or more for each."
        )
    set_class_options(cls, options)


if TYPE_CHECKING:
    from typing_extensions import dataclass_transform

    @dataclass_transform(field_specifiers=(msgspec.field,))
    class ProcessMeta(StateMeta):
        """The metaclass as type checkers see it."""

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
        """Separates the keywords of a process from those of a State."""

        def __new__(mcls, _name, _bases, _namespace, **keywords):
            check_keywords("Process", keywords)
            options = take_options(keywords, ProcessOptions)
            cls = super().__new__(mcls, _name, _bases, _namespace, **keywords)
            remember_visible_names(cls, sys._getframe(1).f_locals)
            set_process_options(cls, options)
            return cls

    class _Struct(State, metaclass=ProcessMeta):
        pass


class Process(_Struct):
    """Work that takes days: a State, folded from the log, that reacts to events with actions.

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

    The tag fields of the question determine which instance an event belongs to. `react` is pure: it is called for every
    event that its annotation names, with the state right after that event, and returns or yields actions: `decide(…)`,
    `after(…)`, `at(…)`, `cancel(…)`, or an event to record. It may be called again for an event; each action is carried
    out once. Replaying events folds the state and never reacts.

    Class keywords:
    `start`       "beginning" or "now": whether it reacts to the events before its first run; there is no default.
    `name`        of the process; default: the class's name in snake_case.
    `attempts`    how often an event is tried before the instance counts as stuck.
    `max_chain`   how many reactions may cause each other without a timer between them.
    `partitions`  how many runners may share the work.
    """

    def react(self, event: Any) -> Any:
        """Return the actions for an event: None, one action, or several, carried out in order. Pure."""
        raise InvalidProcess(
            f"{type(self).__name__} has no react method.",
            "Write def react(self, event: …), and annotate it with the events it reacts to.",
        )

    def done(self) -> bool:
        """Whether the instance has ended: `eventfold processes` lists it as finished."""
        return False
