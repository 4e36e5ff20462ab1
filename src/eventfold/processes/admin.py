"""The processes and effects of a store for operators: which instances wait or are stuck, and retry and skip.

Knows: names and classes of processes. Does not know: how an instance is found (inspection.py), runners.
"""

from __future__ import annotations

import builtins
from itertools import islice

from eventfold.concurrency import run
from eventfold.errors import UnknownProjection
from eventfold.log.read import load
from eventfold.processes import inspection
from eventfold.processes.classes import Process
from eventfold.processes.definition import process_definition
from eventfold.processes.inspection import Instance
from eventfold.projections.admin import ProjectionAdmin

LISTED = 1_000  # instances of a class that are examined by default


class ProcessAdmin:
    """The processes and effects of a store: `store.processes`. A process is named, or given as its class.

    With the class its instances that run or are finished are known too; a name shows those that wait or are stuck.
    """

    def __init__(self, admin: ProjectionAdmin) -> None:
        self._admin = admin

    def names(self) -> builtins.list[str]:
        """Return the names of all processes and effects that the store has timers or records of, sorted."""
        return inspection.names(self._admin)

    def list(self, process: str | type[Process] | None = None, *, limit: int = LISTED) -> builtins.list[Instance]:
        """Return up to `limit` instances of a process or an effect, by default of all: stuck ones first.

        Of a class, at most `limit` instances are examined. Raises UnknownProjection for a name that the store does not
        know.
        """
        if process is None:
            found = (each for name in self.names() for each in inspection.list_instances(self._admin, name))
            return [*islice(found, limit)]
        if isinstance(process, str):
            self._require(process)
            return inspection.list_instances(self._admin, process)[:limit]
        questions = islice(inspection.possible_questions(self._admin, process), limit)
        return inspection.list_all_instances(self._admin, process, questions)[:limit]

    def instance(self, process: str | type[Process], key: str) -> Instance | None:
        """Return the instance with this key, as `list` shows it; None if there is none, or none that waits or is stuck.

        Raises UnknownProjection for a name that the store does not know.
        """
        if isinstance(process, str):
            self._require(process)
            return next((each for each in inspection.list_instances(self._admin, process) if each.key == key), None)
        questions = inspection.questions_with(process, key)
        found = inspection.list_all_instances(self._admin, process, questions)
        return next((each for each in found if each.key == key), None)

    def state(self, process: type[Process], key: str) -> Process | None:
        """Return the folded state of the instance with this key; None if the class is asked by several fields."""
        question = next(iter(inspection.questions_with(process, key)), None)
        return None if question is None else run(load(self._admin.log, question))[0]

    def retry(self, process: str | type[Process], position: int | None = None) -> int:
        """Try stuck events again: one, or all. Returns how many. Raises EventNotParked."""
        return self._admin.retry(self._name(process), position)

    def skip(self, process: str | type[Process], position: int, because: str) -> None:
        """Skip one stuck event for good. `because`: the reason, which the log keeps. Raises EventNotParked."""
        self._admin.skip(self._name(process), position, because)

    @staticmethod
    def _name(process: str | type[Process]) -> str:
        return process if isinstance(process, str) else process_definition(process).name

    def _require(self, name: str) -> None:
        if name not in (known := self.names()):
            raise UnknownProjection(
                f"The store has no process or effect {name!r}.",
                f"It has {', '.join(known)}." if known else "Run one: eventfold run STORE MODULE:NAME.",
                projection=name,
            )
