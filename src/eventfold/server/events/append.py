"""POST /events: append events under a condition, all or none; repeating it is safe by ids or by a key.

Knows: the JSON of appends, what each caller may write. Does not know: how an engine judges a condition.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import Response

from eventfold.aio import opened_log
from eventfold.core.envelope import NewEvent, Receipt
from eventfold.core.query import ConditionClause, Cursor
from eventfold.core.wire import AppendJson, ReceiptJson, from_receipt, to_clauses, to_events, to_position
from eventfold.errors import EventIdReused, InvalidInput
from eventfold.log.append import write
from eventfold.log.context import Options
from eventfold.log.cursors import LAST_POSITION, known_position
from eventfold.log.first_trace import first_trace
from eventfold.ports.messages import AppendRequest
from eventfold.server.call import Call, json_response
from eventfold.server.content import only_header
from eventfold.server.events.repeats import check_repeat
from eventfold.server.events.rules import writable
from eventfold.server.route import Parameter, Route
from eventfold.server.scopes import Scope
from eventfold.server.tracing import carrying, request_trace
from eventfold.server.visibility import check_condition, request_key
from eventfold.server.visible_positions import verified_position

KEY_HEADER = "idempotency-key"


async def append(call: Call) -> Response:
    """Append the events of the body. 201 with the receipt; 200 if they are in the log already; 409 on a conflict."""
    given = await call.body(AppendJson)
    return await appended(call, to_events(given.events), given)


async def appended(call: Call, events: Sequence[NewEvent], given: AppendJson) -> Response:
    """Append events under the condition and the key of `given` (its events are not used), and answer."""
    key = key_of(call, given.key)
    log = await opened_log(call.store)
    epoch, after = given.epoch, to_position(given.after)
    if isinstance(after, Cursor):
        epoch = log.engine.epoch if epoch is None else epoch
        after = await verified_position(call.caller, log, after)
    clauses = to_clauses(given.unless, after)
    for clause in clauses:
        if clause.after > LAST_POSITION:
            await known_position(log, clause.after)
    checked = await writable_for(call, events, clauses)

    async def write_with(trace: dict[str, str]) -> Receipt:
        request = AppendRequest(tuple(carrying(checked, trace)), clauses, request_key(call.caller, key), epoch)
        return await write(log, Options(), request)

    trace = request_trace()
    try:
        receipt = await write_with(trace)
    except EventIdReused as refusal:
        first = await first_trace(log, refusal) if trace else None
        if first is None or first == trace:
            raise
        receipt = await write_with(first)  # a repeat, in another trace
    if receipt.repeated and key is not None:
        await check_repeat(log, receipt, checked)
    headers = {"location": f"{call.path}/{receipt.first}"}
    return json_response(from_receipt(receipt), 200 if receipt.repeated else 201, headers)


async def writable_for(
    call: Call, events: Sequence[NewEvent], clauses: Sequence[ConditionClause]
) -> Sequence[NewEvent]:
    """Return the events as this caller writes them: as its scope and their types allow, with its name as actor.

    Raises OutsideScope, also for the condition, Forbidden, InvalidEvent.
    """
    for clause in clauses:
        check_condition(call.caller, clause.query)
    return await writable(call, events)


def key_of(call: Call, key: str | None) -> str | None:
    """Return the request key of the body or of the header Idempotency-Key. Raises InvalidInput if they differ."""
    header = only_header(call.request, KEY_HEADER)
    if header is None or key == header:
        return key
    if key is not None:
        raise InvalidInput("The header Idempotency-Key and `key` in the body differ.", "Send one of them.", field="key")
    return header


KEY_PARAMETER = Parameter(
    name="Idempotency-Key", type=str, summary="A request key, as `key` of an append", place="header"
)
ROUTES = (
    Route(
        method="POST",
        path="/events",
        handler=append,
        scope=Scope.APPEND,
        summary="Append events, all or none, unless events that match a query exist after a position",
        parameters=(KEY_PARAMETER,),
        request=AppendJson,
        response=ReceiptJson,
        status=201,
        errors=(200, 409),
    ),
)
