"""What a runner in the background has to tell, to the logger "eventfold": to stderr, unless told otherwise.

Knows: what was told already, so that nothing is told every second. Does not know: threads, how an event is folded.
"""

from __future__ import annotations

from eventfold.errors import EventfoldError
from eventfold.projections.stop_reason import paused_error, stopped_error
from eventfold.projections.worker import PartitionWorker

MAX_REPEATS = 10  # parked events that are told one by one


class WorkerLog:
    """Of one projection."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._told = ""
        self._parked = 0

    def state(self, state: str, work: PartitionWorker) -> None:
        """What came of a step."""
        while work.set_aside:
            entry = work.set_aside.pop(0)
            self._parked += 1
            if self._parked <= MAX_REPEATS:
                self._warn(
                    f"{self._name} parked event {entry.position} ({entry.type}) of {entry.key}, after {entry.attempts} "
                    f"attempts: {entry.error}"
                )
            if self._parked == MAX_REPEATS:
                self._warn(
                    f"{self._name} parks more, which is told no longer: eventfold projections parked {self._name}"
                )
        if state == "stopped" and work.held is not None:
            self._once(str(stopped_error(self._name, work.held)))
        elif state == "paused":
            self._once(str(paused_error(self._name, work.paused_because)))
        elif state in ("worked", "idle"):
            self._told = ""

    def trouble(self, error: EventfoldError) -> None:
        """Something that is tried again."""
        self._once(f"{self._name}: {error}")

    def recovered(self) -> None:
        """It went well again."""
        if self._told:
            self._warn(f"{self._name} goes on.")
        self._told = ""

    def failed(self, error: EventfoldError) -> None:
        """Something that ended it."""
        self._once(f"{self._name} is run no longer: {error}")

    def _once(self, text: str) -> None:
        if self._told != text:
            self._told = text
            self._warn(text)

    @staticmethod
    def _warn(text: str) -> None:
        import logging  # here: most processes that open a store have nothing to tell

        logging.getLogger("eventfold").warning("%s", text)
