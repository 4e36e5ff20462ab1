"""Whether a target knows how far effects, processes and followers have come; where it does not, they do not start.

A log that was copied or restored into another epoch has events about which everything has been done. A target that
was with it from the beginning, or was given the progress of the store before it, has a record that says so.
Knows: records, epochs. Does not know: how progress is kept, how it is copied.
"""

from __future__ import annotations

from eventfold.errors import ProgressUnknown
from eventfold.log.context import Log
from eventfold.ports.target import ProjectionRecord, Target

KNOWN = "$progress"  # the record of a target that knows all progress there is; no projection can be called so
keeps_progress = ("effects", "follower")  # the kinds of what cannot be built again from the log


def known_record() -> ProjectionRecord:
    """The record that says it."""
    return ProjectionRecord(name=KNOWN, kind="progress", code="", live=1)


async def refuse_unknown_progress(log: Log, target: Target, name: str, kind: str, code: str = "") -> None:
    """Refuse to let an effect, a process or a follower begin where it may have been at work before.

    Raises ProgressUnknown: the store is not in its first epoch, and the target knows nothing of before it.
    """
    if kind not in keeps_progress or target.registered(KNOWN) is not None:
        return
    if log.engine.epoch > 1 and (await log.engine.head()).position:
        if any(each.kind in keeps_progress for each in target.all()):
            return
        raise ProgressUnknown(
            f"{name} has no progress here, and the store is in epoch {log.engine.epoch}: it took over another store's "
            "history or was restored, so that all this may have been done already.",
            (
                f"Say behind which position it begins: eventfold projections begin {code or name} --at POSITION (0: "
                "all is done again)."
                if kind == "effects"
                else "Follow it after a cursor, which says where it begins: after=store.cursor(POSITION)."
            ),
            projection=name,
            epoch=log.engine.epoch,
        )
    with target.control(KNOWN) as tx:
        if tx.record() is None:
            tx.save_record(known_record())
