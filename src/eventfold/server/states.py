"""Registered States over HTTP: as of now, as of a moment, and step by step.

The fields of a State's question are query parameters, `/states/Account?account=a-1`, or a JSON object in `question=`.
Knows: registered States. Does not know: how a state is folded.
"""

from __future__ import annotations

import typing
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.responses import Response, StreamingResponse

from eventfold.aio import opened_log
from eventfold.core.envelope import StoredEvent, new_id
from eventfold.core.event import Recorded
from eventfold.core.event_json import format_id, format_time
from eventfold.core.fingerprint import fingerprint
from eventfold.core.json_values import to_json_value
from eventfold.core.query import Query
from eventfold.core.questions import question_of, takes_several
from eventfold.core.state import ABSENT, Change, State, diff, state_definition_of
from eventfold.core.wire import to_moment, to_position_or_moment
from eventfold.errors import InvalidState
from eventfold.server.call import Call, json_response
from eventfold.server.content import compressed
from eventfold.server.etags import entity_tag, is_known, not_modified, tag_headers
from eventfold.server.parameters import declare, parse_known
from eventfold.server.refusals import NotFound
from eventfold.server.registered import Registered
from eventfold.server.route import JSON, NDJSON, Parameter, Route
from eventfold.server.scopes import Scope
from eventfold.server.visibility import check_condition, check_payload
from eventfold.store import EVERYTHING

At = Annotated[
    str, Meta(max_length=64, description="A position or a time, inclusive: 41, 2026-11-23T10:15Z, 2h. Default: now.")
]
Question = Annotated[
    str, Meta(description="The question as a JSON object, instead of a parameter for each of its fields.")
]


_PROCESS = new_id().hex()


class AskedState(msgspec.Struct):
    """Parameters of a state, besides the fields of its question."""

    at: At | None = None
    occurred_until: (
        Annotated[str, Meta(max_length=64, description="Leave out events that occurred later than this time.")] | None
    ) = None
    question: Question | None = None


class AskedHistory(msgspec.Struct):
    """Parameters of a history, besides the fields of its question."""

    after: Annotated[int, Meta(ge=0, description="A position, exclusive: `next` of a page.")] = 0
    until: At | None = None
    limit: Annotated[int, Meta(ge=1, le=1_000, description="Steps at most.")] = 100
    question: Question | None = None


class StateField(msgspec.Struct):
    """A field of a State: its schema (JSON Schema), and whether it belongs to the question."""

    name: str
    schema: dict[str, Any]
    is_key: bool


class StateType(msgspec.Struct):
    """A registered State: its fields, and the types of the events that it is folded from."""

    name: str
    doc: str
    fields: list[StateField]
    types: list[str]
    source: str


class StateTypes(msgspec.Struct):
    """The registered States, by name."""

    states: list[StateType]


class StateAnswer(msgspec.Struct):
    """A folded State: `answer` are its folded fields, `position` is where it was folded up to, inclusive."""

    state: str
    question: dict[str, Any]
    position: int
    answer: dict[str, Any]


class FieldChange(msgspec.Struct, omit_defaults=True):
    """The value of a field before and after an event; absent where there was none."""

    before: Any | msgspec.UnsetType = msgspec.UNSET
    after: Any | msgspec.UnsetType = msgspec.UNSET


class HistoryStep(msgspec.Struct, omit_defaults=True):
    """An event, and the fields of the state that it changed, by name; a key of a dict field is `field[key]`."""

    position: int
    id: str
    type: str
    time: str
    changes: dict[str, FieldChange]
    occurred: str | None = None
    metadata: dict[str, Any] = {}


class History(msgspec.Struct, omit_defaults=True):
    """Steps of a state in the order of the log; `next` is the `after` of the next page, absent on the last one."""

    state: str
    question: dict[str, Any]
    steps: list[HistoryStep]
    next: int | None = None


async def listed(call: Call) -> Response:
    """Answer with the registered States."""
    return json_response(StateTypes([_type_of(cls) for _, cls in sorted(call.server.registered.states.items())]))


async def state(call: Call) -> Response:
    """Answer with a state, as of now or of a moment."""
    cls = _state_class(call.server.registered, call.request.path_params["name"])
    asked, others = parse_known(call, AskedState)
    question = _question(call, cls, asked.question, others, AskedState)
    until = asked.occurred_until and to_moment(asked.occurred_until, "occurred_until", end_of_day=True)
    if asked.at is None:
        at = await call.store.head()
    else:
        moment = to_position_or_moment(asked.at, "at")
        at = moment if isinstance(moment, int) else await last_position(call, moment)
        if isinstance(moment, int) and call.caller.is_narrowed:  # it does not learn by an error where the log ends
            at = min(moment, await last_position(call, None, question.query()))
    # A narrowed caller learns of the positions that it sees only.
    shown = await last_position(call, at, question.query()) if call.caller.is_narrowed else at
    tag = await _tag(call, question, shown, asked.occurred_until)
    if is_known(call.request, tag):
        return not_modified(tag)
    if asked.at is None and until is None:
        await call.store.state(question)  # brings the cached state to the head, from where the next fold continues
    found = await call.store.state(question, at=at, occurred_until=until or None)
    keys = state_definition_of(cls).question
    answer = {name: to_json_value(getattr(found, name)) for name in found.__struct_fields__ if name not in keys}
    answered = StateAnswer(cls.__name__, question_json(question), shown, answer)
    return await compressed(call.request, json_response(answered, headers=tag_headers(tag)))


async def _tag(call: Call, question: State, position: int, *asked: str | None) -> str:
    """The entity tag of a state: of the code that folds it, its question, and the position that it is folded up to."""
    log, code = await opened_log(call.store), fingerprint(type(question))
    version = code.digest + (_PROCESS if code.unknown else "")  # code that cannot be compared is of this process only
    return entity_tag(log.engine, position, version, type(question).__name__, question_json(question), asked)


async def last_position(call: Call, moment: Any, query: Query = EVERYTHING) -> int:
    """The position of the last event that was recorded by a moment and matches; 0 if there is none."""
    async for recorded in call.store.read(query, until=moment, backwards=True, limit=1, raw=True):
        return recorded.position
    return 0


async def history(call: Call) -> Response:
    """Answer with a page of steps as JSON, or as NDJSON: a step in each line."""
    cls = _state_class(call.server.registered, call.request.path_params["name"])
    asked, others = parse_known(call, AskedHistory)
    question = _question(call, cls, asked.question, others, AskedHistory)
    until = None if asked.until is None else to_position_or_moment(asked.until, "until")
    if isinstance(until, int) and call.caller.is_narrowed:
        until = min(until, await last_position(call, None, question.query()))
    steps = _steps(call, question, asked.after, until)
    if NDJSON in call.request.headers.get("accept", ""):
        return StreamingResponse(_lines(steps, asked.limit), media_type=NDJSON)
    found = list[HistoryStep]()
    async for step in steps:
        if len(found) == asked.limit:
            return json_response(History(cls.__name__, question_json(question), found, found[-1].position))
        found.append(step)
    return json_response(History(cls.__name__, question_json(question), found))


async def _lines(steps: AsyncIterator[HistoryStep], limit: int) -> AsyncIterator[bytes]:
    left = limit
    async for step in steps:
        yield msgspec.json.encode(step) + b"\n"
        left -= 1
        if not left:
            return


async def _steps(call: Call, question: State, after: int, until: Any) -> AsyncIterator[HistoryStep]:
    before = state_definition_of(type(question)).initial(question)
    async for step in call.store.history(question, until=until):
        if step.recorded.position > after:
            yield _step(step.recorded.stored, diff(before, step.state))
        before = step.state


def _step(stored: StoredEvent, changes: dict[str, Change]) -> HistoryStep:
    return HistoryStep(
        stored.position,
        format_id(stored.id),
        stored.type,
        format_time(stored.time),
        {name: FieldChange(_value(each.before), _value(each.after)) for name, each in changes.items()},
        None if stored.occurred is None else format_time(stored.occurred),
        Recorded(stored, None).metadata,
    )


def _value(value: Any) -> Any:
    return msgspec.UNSET if value is ABSENT else to_json_value(value)


def question_json(question: State) -> dict[str, Any]:
    """The fields of a question in JSON."""
    return {name: to_json_value(getattr(question, name)) for name in state_definition_of(type(question)).question}


def _state_class(registered: Registered, name: str) -> type[State]:
    cls = registered.states.get(name)
    if cls is None:
        known = ", ".join(sorted(registered.states)) or "none"
        raise NotFound(
            f"There is no registered State {name[:60]!r}.",
            f"Registered are: {known}. Others are registered by `modules` of the server.",
            state=name[:60],
        )
    return cls


def _question(
    call: Call, cls: type[State], as_json: str | None, others: dict[str, list[str]], known: type[msgspec.Struct]
) -> State:
    """The question that is asked. The caller must be able to see every event that the state is folded from."""
    check_payload(call.caller)
    question = _given_question(cls, as_json, others, known)
    check_condition(call.caller, question.query())
    return question


def _given_question(
    cls: type[State], as_json: str | None, others: dict[str, list[str]], known: type[msgspec.Struct]
) -> State:
    """The question of `question=`, or of the parameters that are not known otherwise."""
    keys = state_definition_of(cls).question
    hints = typing.get_type_hints(cls, include_extras=True)
    pairs = "&".join(f"{name}=VALUE" for name in keys if name not in known.__struct_fields__)
    taken = [name for name in keys if name in known.__struct_fields__]
    usage = f"Write question={{…}} with the field {taken[0]}." if taken else f"Write ?{pairs}."
    if not keys:
        usage = f"Ask for {cls.__name__} without values."
    if as_json is not None:
        if others:
            name = next(iter(others))
            raise InvalidState(f"The question is given twice: by question= and by {name}=.", "Omit one of them.")
        try:
            given = msgspec.json.decode(as_json, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            raise InvalidState(f"question= is not a JSON object: {error}.", usage, field="question") from error
        return question_of(cls, given, usage)
    for name, values in others.items():
        if len(values) > 1 and not (name in hints and takes_several(hints[name])):
            raise InvalidState(f"The parameter {name} was given {len(values)} times.", "Give it once.", field=name)
    return question_of(cls, {name: values if len(values) > 1 else values[0] for name, values in others.items()}, usage)


def _type_of(cls: type[State]) -> StateType:
    definition = state_definition_of(cls)
    hints = typing.get_type_hints(cls, include_extras=True)
    return StateType(
        cls.__name__,
        (cls.__doc__ or "").strip(),
        [
            StateField(name, schema_of(hints[name]), name in definition.question)
            for name in cls.__struct_fields__
            if name in hints
        ],
        sorted(set(definition.types)),
        f"{cls.__module__}:{cls.__qualname__}",
    )


def schema_of(hint: Any) -> dict[str, Any]:
    """The JSON Schema of a type; {} for a type that has none, such as one of the user's own."""
    try:
        return msgspec.json.schema(hint)
    except (TypeError, NameError):
        return {}


NAME = Parameter(name="name", type=str, summary="The name of the State's class.", place="path", required=True)
FIELDS = Parameter(
    name="fields",
    type=dict[str, str],
    summary="The fields of the question, each as a parameter of its own: ?account=a-1. One that takes several values "
    "is repeated.",
)

ROUTES = (
    Route(
        method="GET",
        path="/states",
        handler=listed,
        scope=Scope.READ,
        summary="The registered States, with their fields",
        response=StateTypes,
    ),
    Route(
        method="GET",
        path="/states/{name}",
        handler=state,
        scope=Scope.READ,
        summary="A state, as of now or of a moment",
        parameters=(NAME, FIELDS, *declare(AskedState)),
        response=StateAnswer,
        errors=(304, 404),
    ),
    Route(
        method="GET",
        path="/states/{name}/history",
        handler=history,
        scope=Scope.READ,
        summary="A state step by step: each event, and what it changed",
        parameters=(NAME, FIELDS, *declare(AskedHistory)),
        response=History,
        media=(JSON, NDJSON),
        errors=(404,),
    ),
)
