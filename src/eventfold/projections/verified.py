"""The results of verifications as events of the log: what was checked, up to which head, with which verdict.

Each subject (the log, the ledger of a projection, its rows) is an event `$verified` of its own, with the tag
`$verified:log` or `$verified:NAME`, so that the last verification of one is found by an index.
Knows: proofs, how an event of eventfold is appended. Does not know: how something is proved.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Literal

import msgspec

from eventfold.core.envelope import NewEvent, Receipt, new_id
from eventfold.core.event import Event
from eventfold.log.append import submit
from eventfold.log.context import Log, Options, metadata_of
from eventfold.ports.messages import AppendRequest
from eventfold.projections.comparison import RowProof
from eventfold.projections.verify import LogProof, Proof

TYPE = "$verified"
LOG = "log"
MAX_VERDICT = 1_000  # characters


class Verified(Event, type="$verified"):
    """Something was verified. `subject`: "log", or the name of a projection; `kind`: what of it was checked.

    `head`: the position up to which it was checked. `events`: how many, or how many rows if `kind` is "rows". `proved`:
    whether everything is as it should be; `verdict`: one sentence.
    """

    subject: str
    kind: Literal["log", "ledger", "rows"]
    head: int
    events: int
    proved: bool
    verdict: str


def results_of(proofs: Iterable[LogProof | Proof | RowProof]) -> list[Verified]:
    """Return the results of proofs, one for each subject and kind: several partitions are one result."""
    found: list[Verified] = []
    ledgers: list[Proof] = []
    for proof in proofs:
        if isinstance(proof, LogProof):
            found.append(Verified(LOG, "log", proof.events, proof.events, proof.proved, _of_log(proof)))
        elif isinstance(proof, RowProof):
            found.append(
                Verified(proof.name, "rows", proof.position, proof.rows, proof.proved, proof.verdict[:MAX_VERDICT])
            )
        else:
            ledgers.append(proof)
    for name, group in groupby(sorted(ledgers, key=lambda each: each.name), key=lambda each: each.name):
        of_one = list(group)
        failed = next((each for each in of_one if each.failed), None)
        counted = sum(each.counted for each in of_one)
        verdict = f"{_counted(counted, 'event')}, each exactly once." if failed is None else failed.verdict
        head = max(each.position for each in of_one)
        found.append(Verified(name, "ledger", head, counted, failed is None, verdict[:MAX_VERDICT]))
    return found


def _of_log(proof: LogProof) -> str:
    if not proof.checked:
        return f"The engine {proof.engine} has no check of its own."
    if proof.proved:
        return f"The log is unchanged: {_counted(proof.events, 'event')}."
    flaws = _counted(len(proof.flaws), "flaw")
    return f"The log is damaged: {flaws}, the first: {proof.flaws[0].what}"[:MAX_VERDICT]


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" + "s" * (number != 1)


async def append_facts(log: Log, options: Options, facts: Iterable[tuple[Event, str, str]]) -> Receipt | None:
    """Append events of eventfold, each with its type and tag; None if there are none. Raises what an append raises."""
    metadata = metadata_of(options) or None
    events = tuple(
        NewEvent(new_id(), type, 1, msgspec.json.encode(event), (tag,), None, metadata) for event, type, tag in facts
    )
    if not events:
        return None
    outcome = await submit(log.appender, AppendRequest(events))
    if not isinstance(outcome, Receipt):
        raise outcome
    return outcome
