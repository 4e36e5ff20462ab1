"""`eventfold state`: a state now or at an earlier position, and the differences between two positions.

Knows: that every state is a fold, and that times become positions. Does not know: how folding is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, NamedTuple, cast

import typer

from eventfold.cli.formatting import (
    change_lines,
    change_to_json,
    escape_control,
    format_second,
    format_value,
    name_width,
    render_change_lines,
)
from eventfold.cli.options import (
    Json,
    OccurredUntil,
    Tags,
    Types,
    Url,
    Where,
    Wide,
    build_query,
    open_store,
    parse_until,
    split_store_argument,
)
from eventfold.cli.output import Column, Output
from eventfold.cli.questions import build_question, import_state_class
from eventfold.cli.suggestions import print_suggestions
from eventfold.cli.untyped_state import UntypedState
from eventfold.core.counted import count_of
from eventfold.core.envelope import StoredEvent
from eventfold.core.event_json import format_time
from eventfold.core.json_values import to_json_value
from eventfold.core.moments import parse_position_or_time
from eventfold.core.query import Query
from eventfold.core.state import Change, State, diff, state_definition_of
from eventfold.core.user_code import user_code_errors
from eventfold.store import Store

MAX_DICT_ROWS = 40  # rows of one dict, unless output is wide

Class = Annotated[
    str | None,
    typer.Argument(metavar="MODULE:STATE", help="A State to fold. Without it: last values.", show_default=False),
]
Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Its key: pairs, values in order, or a JSON object.", show_default=False),
]
ImportPath = Annotated[
    str, typer.Option("--import-path", metavar="FOLDER", help="Where modules are searched first.", file_okay=False)
]
FIELD = Column("field", style="bold", elastic=True, min_width=12)


class StateRequest(NamedTuple):
    """What to fold: a State, or (without one) the last values of the events of a query."""

    query: Query
    question: State | None = None
    spec: str = ""

    def to_json(self) -> dict[str, Any]:
        """The request, in JSON."""
        if self.question is None:
            return {"query": [{"types": each.types, "tags": each.tags} for each in self.query.items]}
        return {"state": self.spec, "question": question_to_json(self.question)}


def state(
    url: Url = None,
    cls: Class = None,
    words: Words = None,
    types: Types = None,
    tags: Tags = None,
    where: Where = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="POSITION|TIME", help="The state at that point. Default: now.")
    ] = None,
    occurred_until: OccurredUntil = None,
    between: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--diff", metavar="A B", help="The changes from A to B: positions, times or now.", show_default=False
        ),
    ] = None,
    import_path: ImportPath = ".",
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """Fold events into a state, as of now or of an earlier time.

    Into a State class of your own; or without a class, into the last value of each field of the events with a tag (or
    --type, --where), and the event that set it. Events are folded in the order of the log: one that was recorded late
    is folded late, and without --occurred-until one whose `occurred` is in the future is folded at once.
    """
    output = Output(as_json, wide)
    url, asked = parse_state_request(url, cls, words, build_query(types, tags, where), import_path)
    if between is not None and at is not None:
        raise typer.BadParameter("it compares two points in the log. Omit --at.", param_hint="--diff")
    occurred_by = parse_until(occurred_until)
    with open_store(url) as store:
        if between is not None:
            first, last = (resolve_position(store, None if each == "now" else each) for each in between)
            print_changes(output, asked, first, last, changes_between(store, asked, first, last, occurred_by))
        elif asked.question is None:
            position = resolve_position(store, at)
            found = fold_untyped_state(store, asked.query, position, occurred_by)
            print_untyped_state(output, asked, position, found)
            if not found.events:
                print_suggestions(store, asked.query)
        else:
            position = resolve_position(store, at)
            print_state(output, asked, position, fold_state(store, asked, position, occurred_by))


def parse_state_request(
    url: str | None, cls: str | None, words: list[str] | None, query: Query, import_path: str
) -> tuple[str | None, StateRequest]:
    """The store and the request that the arguments name. Raises InvalidState, and usage errors."""
    url, others = split_store_argument(url, [each for each in (cls, *(words or ())) if each is not None])
    if not others:
        if not query.items:
            raise typer.BadParameter(
                "name what to fold: MODULE:STATE, or --tag, --type or --where.", param_hint="MODULE:STATE"
            )
        return url, StateRequest(query)
    if query.items:
        raise typer.BadParameter(
            "a State selects its events by itself. Omit --tag, --type and --where.", param_hint="--tag"
        )
    question = build_question(import_state_class(others[0], import_path), others[1:])
    with user_code_errors(f"{type(question).__name__}.query"):
        return url, StateRequest(question.query(), question, others[0])


def resolve_position(store: Store, text: str | None) -> int:
    """A position or time as a position: that of the last event by then. Raises PositionBeyondHead."""
    if text is None:
        return store.head()
    place = parse_position_or_time(text)
    last = next(store.read(until=place, backwards=True, limit=1, raw=True), None) if place else None
    return 0 if last is None else last.position


def fold_state(store: Store, asked: StateRequest, position: int, occurred_by: datetime | None) -> State:
    """Fold the State up to a position."""
    assert asked.question is not None
    with user_code_errors(f"Folding {asked.spec}"):
        return store.state(asked.question, at=position, occurred_until=occurred_by)


def fold_untyped_state(store: Store, query: Query, position: int, occurred_by: datetime | None) -> UntypedState:
    """Fold the last values up to a position."""
    return UntypedState(store.read(query, raw=True, until=position, occurred_until=occurred_by))


def changes_between(
    store: Store, asked: StateRequest, first: int, last: int, occurred_by: datetime | None
) -> Mapping[str, Change]:
    """The differences between two positions."""
    if asked.question is None:
        return fold_untyped_state(store, asked.query, first, occurred_by).diff(
            fold_untyped_state(store, asked.query, last, occurred_by)
        )
    return diff(fold_state(store, asked, first, occurred_by), fold_state(store, asked, last, occurred_by))


def question_to_json(question: State) -> dict[str, Any]:
    """The fields of a State that are its key, in JSON."""
    return {name: to_json_value(getattr(question, name)) for name in state_definition_of(type(question)).question}


def answer_fields(question: State) -> dict[str, Any]:
    """The folded fields of a State."""
    asked = state_definition_of(type(question)).question
    return {name: getattr(question, name) for name in question.__struct_fields__ if name not in asked}


def print_state(output: Output, asked: StateRequest, position: int, found: State) -> None:
    """Print a folded State."""
    answer = answer_fields(found)
    if output.is_json:
        output.write_value(
            asked.to_json() | {"at": position, "answer": {name: to_json_value(v) for name, v in answer.items()}}
        )
        return
    print_title(output, asked, f"at position {position:,}")
    rows = [(name, text) for field, value in answer.items() for name, text in field_rows(output, field, value)]
    output.print_table((FIELD, Column("value", elastic=True, min_width=20)), rows)


def field_rows(output: Output, field: str, value: Any) -> list[tuple[str, str]]:
    """A field as rows: one row, or for a dict one row for each key."""
    if not isinstance(value, dict) or not value:
        return [(field, format_value(value))]
    items = list(cast("dict[Any, Any]", value).items())
    most = len(items) if output.is_wide else MAX_DICT_ROWS
    rows = [(f"{field}[{format_key(key)}]", format_value(each)) for key, each in items[:most]]
    if len(items) > most:
        rows.append((f"{field} …", f"{len(items) - most:,} more: --wide or --json shows all"))
    return rows


def format_key(key: Any) -> str:
    """A key of a dict as text."""
    return escape_control(key) if isinstance(key, str) else format_value(key)


def print_untyped_state(output: Output, asked: StateRequest, position: int, found: UntypedState) -> None:
    """Print last values, each with the event that set it."""
    if output.is_json:
        output.write_value(
            {
                **asked.to_json(),
                "at": position,
                "events": found.events,
                "fields": {
                    name: {"value": last.value, **event_origin(last.stored)} for name, last in found.fields.items()
                },
            }
        )
        return
    print_title(output, asked, f"{count_of(found.events, 'event')} up to position {position:,}")
    if found.opaque:
        output.print_hint(f"{count_of(found.opaque, 'event')} among them have no fields.")
    output.print_table(
        (
            FIELD,
            Column("last value", elastic=True, min_width=12),
            Column("position", align_right=True, style="cyan"),
            Column("by", elastic=True, min_width=10),
            Column("when UTC", style="dim"),
        ),
        [
            (
                escape_control(name),
                format_value(last.value),
                f"{last.stored.position:,}",
                escape_control(last.stored.type),
                format_second(last.stored.time if last.stored.occurred is None else last.stored.occurred),
            )
            for name, last in found.fields.items()
        ],
    )


def event_origin(stored: StoredEvent) -> dict[str, Any]:
    """Position, type and times of an event, in JSON."""
    origin: dict[str, Any] = {"position": stored.position, "type": stored.type, "time": format_time(stored.time)}
    return origin if stored.occurred is None else origin | {"occurred": format_time(stored.occurred)}


def print_title(output: Output, asked: StateRequest, where: str) -> None:
    """Print what is shown, and for which position."""
    from rich.text import Text

    from eventfold.cli.formatting import format_pairs

    if asked.question is None:
        title = Text(escape_control(repr(asked.query)[6:-1]), style="bold")
    else:
        title = Text(type(asked.question).__name__, style="bold")
        if values := question_to_json(asked.question):
            title = title + Text("  ") + format_pairs(values)
    output.print(title + Text(f"  ({where})", style="dim"))


def print_changes(output: Output, asked: StateRequest, first: int, last: int, changes: Mapping[str, Change]) -> None:
    """Print the differences between two positions."""
    if output.is_json:
        json_changes = {name: change_to_json(change) for name, change in changes.items()}
        output.write_value(asked.to_json() | {"from": first, "to": last, "changes": json_changes})
        return
    print_title(output, asked, f"{first:,} → {last:,}")
    if not changes:
        output.print_hint("Nothing changed.")
        return
    lines = list(change_lines(changes))
    output.console.print_lines(render_change_lines(lines, 0, name_width(lines, output.is_wide)), output.is_wide)
