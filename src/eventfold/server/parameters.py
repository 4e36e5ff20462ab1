"""The query parameters of a route as a msgspec type: parsed from a URL and checked, and declared as data.

    class Page(msgspec.Struct, forbid_unknown_fields=True):
        limit: Annotated[int, Meta(ge=1, le=1000, description="Items at most.")] = 100

    page = parse(call, Page)                        in a handler
    Route(…, parameters=declare(Page))              in ROUTES

A field whose type is a list takes each value of a repeated parameter; any other one takes one value.
Knows: msgspec, URLs. Does not know: any route.
"""

from __future__ import annotations

import difflib
import typing
from typing import Annotated, Any, TypeVar, get_args, get_origin

import msgspec

from eventfold.core.questions import takes_several
from eventfold.errors import InvalidInput
from eventfold.server.call import Call
from eventfold.server.route import Parameter

T = TypeVar("T", bound=msgspec.Struct)


def parse(call: Call, kind: type[T]) -> T:
    """Return the parameters of a call. Raises InvalidInput with the parameter at fault; one that is unknown is too."""
    found, others = parse_known(call, kind)
    for name in others:
        raise _unknown(name, list(typing.get_type_hints(kind)))
    return found


def parse_known(call: Call, kind: type[T]) -> tuple[T, dict[str, list[str]]]:
    """Return the parameters of a call, and the values of all others. Raises InvalidInput with the one at fault."""
    fields, given, others = typing.get_type_hints(kind, include_extras=True), dict[str, Any](), dict[str, list[str]]()
    for name in call.request.query_params:
        values = call.request.query_params.getlist(name)
        if name not in fields:
            others[name] = values
        elif takes_several(fields[name]):
            given[name] = values
        elif len(values) > 1:
            raise InvalidInput(f"The parameter {name} was given {len(values)} times.", "Give it once.", parameter=name)
        else:
            given[name] = values[0]
    try:
        return msgspec.convert(given, kind, strict=False), others
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$.")
        name = place.rstrip("`").partition("[")[0]
        if not name:
            raise InvalidInput(f"A parameter is missing: {what}.", "Add it to the URL.") from error
        raise InvalidInput(
            f"The parameter {name} is not valid: {what[:1].lower()}{what[1:]}.",
            "Correct it; the document at /v1/openapi.json describes it.",
            parameter=name,
        ) from error


def _unknown(name: str, known: list[str]) -> InvalidInput:
    near = difflib.get_close_matches(name, known, 1)
    remedy = f"Did you mean {near[0]}?" if near else f"Its parameters are {', '.join(known)}." if known else "Omit it."
    return InvalidInput(f"This route has no parameter {name[:60]!r}.", remedy, parameter=name[:60])


def declare(kind: type[msgspec.Struct]) -> tuple[Parameter, ...]:
    """Return the fields of a type as parameters of a route; the description of a field is its `Meta(description=…)`."""
    hints = typing.get_type_hints(kind, include_extras=True)
    found = list[Parameter]()
    for field in msgspec.structs.fields(kind):
        hint = hints[field.name]
        found.append(Parameter(name=field.encode_name, type=hint, summary=_description(hint), required=field.required))
    return tuple(found)


def _description(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        for extra in get_args(hint)[1:]:
            if isinstance(extra, msgspec.Meta) and extra.description:
                return extra.description
        return _description(get_args(hint)[0])
    return next((found for each in get_args(hint) if (found := _description(each))), "")
