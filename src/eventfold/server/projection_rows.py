"""The rows of a registered read model over HTTP: by filter, order and page, now or as of a moment.

Knows: parameters and bodies. Does not know: the filter language (search does), how rows are found.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta
from starlette.responses import Response, StreamingResponse

from eventfold.concurrency import in_thread
from eventfold.core.json_values import to_json_value
from eventfold.core.wire import to_position_or_moment
from eventfold.errors import InvalidFilter
from eventfold.ports.refusals import beyond_head
from eventfold.projections.classes import Projection
from eventfold.projections.definition import projection_definition
from eventfold.projections.fields import fields_of
from eventfold.projections.rows_async import AsyncSelection
from eventfold.search import filter_of_text
from eventfold.selection import Rows, Selection
from eventfold.selection.check import TableFields
from eventfold.server.call import Call, json_response
from eventfold.server.content import compressed, negotiate
from eventfold.server.parameters import declare, parse
from eventfold.server.projections import NAME, registered
from eventfold.server.route import JSON, NDJSON, Route
from eventfold.server.scopes import Scope
from eventfold.server.visibility import check_payload, check_whole_store

WAIT_S = 10.0  # how long a read waits for the read model to reach a position
PAGE = 100


class RowsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which rows: filters that all hold, the order, and the page; `count` for their number only."""

    where: Annotated[
        list[str], Meta(max_length=20, description="A filter such as `total>5 owner:ann,bob`. Repeated: all of them.")
    ] = []
    order: Annotated[
        list[str], Meta(max_length=20, description="A column to sort by; -COLUMN: descending. Repeated: by several.")
    ] = []
    limit: Annotated[int, Meta(ge=1, le=10_000, description="Rows at most. Default: 100; as NDJSON: all.")] | None = (
        None
    )
    after: Annotated[str, Meta(max_length=10_000, description="The `next` of an earlier page.")] | None = None
    count: Annotated[bool, Meta(description="Answer with the number of rows only.")] = False
    at: (
        Annotated[str, Meta(max_length=64, description="The rows as of a position or a time, folded from the log.")]
        | None
    ) = None
    wait: (
        Annotated[
            int, Meta(ge=0, description="A position that the read model must reach first: `last` of a receipt. 10 s.")
        ]
        | None
    ) = None
    generation: Annotated[int, Meta(ge=1, description="Another generation than the live one.")] | None = None


class RowsPage(msgspec.Struct, omit_defaults=True):
    """Rows, sorted as asked, then by key. `next` continues after the last one; absent on the last page.

    For a question for the number of rows only `count` is there.
    """

    rows: list[dict[str, Any]] | None = None
    next: str | None = None
    count: int | None = None


async def get_rows(call: Call) -> Response:
    """Answer with rows; the question is in the URL."""
    return await _answer(call, parse(call, RowsQuery))


async def query_rows(call: Call) -> Response:
    """Answer with rows; the question is in the body."""
    return await _answer(call, await call.body(RowsQuery))


async def _answer(call: Call, asked: RowsQuery) -> Response:
    check_whole_store(call.caller)
    check_payload(call.caller)
    media = negotiate(call.request, (JSON, NDJSON))
    selection = await _selection(call, asked)
    if asked.count:
        return json_response(RowsPage(count=await selection.count()))
    if media == NDJSON:
        return await _stream(selection, asked)
    page = await selection.rows(asked.limit or PAGE, asked.after)
    rows, following = await in_thread(lambda: ([_row(each) for each in page], page.next))
    return await compressed(call.request, json_response(RowsPage(rows, following)))


async def _selection(call: Call, asked: RowsQuery) -> AsyncSelection[Any]:
    cls = registered(call, call.request.path_params["name"])
    definition = projection_definition(cls)
    fields = fields_of(definition)
    _check_order(asked.order, fields)
    filters = [filter_of_text(text, fields) for text in asked.where]
    model = cast("type[Projection]", cls)
    if asked.at is None:
        if asked.wait is not None:
            if asked.wait > (head := await call.store.head()):
                raise beyond_head(asked.wait, head)
            await call.store.wait(model, asked.wait, WAIT_S)
        return call.store.select(model, *filters, order=asked.order, generation=asked.generation)
    if asked.generation is not None or asked.wait is not None:
        raise InvalidFilter(
            "`at` folds the rows from the log, so there is no generation and nothing to wait for.",
            "Omit at, or generation and wait.",
        )
    folded = await call.store.view(model, at=to_position_or_moment(asked.at, "at"))

    async def select() -> Selection[Any]:
        return folded.select(*filters, order=asked.order)

    return AsyncSelection(select)


def _check_order(order: list[str], fields: TableFields) -> None:
    for each in order:
        if each.removeprefix("-") not in fields.columns:
            raise InvalidFilter(
                f"The order names {each[:60]!r}, which is no column of {fields.name}.",
                f"Its columns are {', '.join(fields.columns)}; -{fields.table.fields[0]} is descending.",
                parameter="order",
            )


async def _stream(selection: AsyncSelection[Any], asked: RowsQuery) -> Response:
    if asked.limit is not None or asked.after is not None:
        page: Rows[Any] = await selection.rows(asked.limit, asked.after)
        body = await in_thread(lambda: b"".join(_line(each) for each in page))
        return Response(body, media_type=NDJSON)
    pages = aiter(selection.pages())
    first = await anext(pages, None)  # its errors have a status of their own

    async def lines() -> AsyncIterator[bytes]:
        page = first
        while page is not None:
            yield b"".join(map(_line, page))
            page = await anext(pages, None)

    return StreamingResponse(lines(), media_type=NDJSON)


def _row(row: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", to_json_value(row))


def _line(row: Any) -> bytes:
    return msgspec.json.encode(_row(row)) + b"\n"


ROUTES = (
    Route(
        method="GET",
        path="/projections/{name}/rows",
        handler=get_rows,
        scope=Scope.READ,
        summary="Rows of a registered read model",
        parameters=(NAME, *declare(RowsQuery)),
        response=RowsPage,
        media=(JSON, NDJSON),
        errors=(404,),
    ),
    Route(
        method="QUERY",
        path="/projections/{name}/rows",
        handler=query_rows,
        scope=Scope.READ,
        summary="The same, with the question in the body",
        parameters=(NAME,),
        request=RowsQuery,
        response=RowsPage,
        media=(JSON, NDJSON),
        errors=(404,),
    ),
)
