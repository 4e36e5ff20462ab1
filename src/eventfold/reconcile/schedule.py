"""A comparison that is recorded: its result, or why there is none, becomes a fact of the log.

Knows: facts. Does not know: when it is made again.
"""

from __future__ import annotations

from collections.abc import Callable

from eventfold.core.tags import check_name
from eventfold.errors import EventfoldError, InvalidInput, MissingExtra, SourceUnavailable
from eventfold.reconcile.facts import MAX_VERDICT, TYPE, Reconciled
from eventfold.reconcile.result import Result
from eventfold.store import Store


def recorded(store: Store, subject: str, compare: Callable[[], Result]) -> Result:
    """Call `compare`, record what came of it under a name, and return its result.

    Also an error is recorded, with the outcome "failed", and raised: so the alert NotReconciled tells of a comparison
    that is not made any more. Raises what `compare` raises, InvalidInput for a name that cannot be one.
    """
    check_name("name of a comparison", subject, error=InvalidInput)
    try:
        result = compare()
    except (SourceUnavailable, InvalidInput, MissingExtra) as error:
        _record(store, Reconciled(subject, "failed", _why(error)))
        raise
    outcome = "equal" if result.equal else "different"
    _record(
        store,
        Reconciled(
            subject,
            outcome,
            result.verdict[:MAX_VERDICT],
            result.head,
            result.events,
            result.rows,
            result.keys,
            result.differing,
        ),
    )
    return result


def _why(error: EventfoldError) -> str:
    return f"Nothing was compared: {error.what}"[:MAX_VERDICT]


def _record(store: Store, fact: Reconciled) -> None:
    store.projections.append_fact(TYPE, f"{TYPE}:{fact.subject}", fact)
